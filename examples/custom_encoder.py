r"""Encode items with functions of your own: any list of texts, or of pictures, to an array of a row each.

    python examples/custom_encoder.py items.jsonl --output catalog

Several processes share the work; a run that was stopped goes on behind what it has finished:

    torchrun --standalone --nproc_per_node 2 examples/custom_encoder.py items.jsonl --output catalog
    accelerate launch --multi_gpu examples/custom_encoder.py items.jsonl --output catalog

The two encoders here need no model: words of a text, hashed to a few hundred columns, and a grid of picture colours.
Put a model of your own, a service, or a table of features that you have in their place. What comes out is what
`mmm4rec finetune catalog=catalog ...` takes; `--sequences` keeps the items of a log alone, as for `mmm4rec encode`.
"""

import argparse
import re
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from mmm4rec_hf import ItemCatalog, ItemEncoder
from mmm4rec_hf.cli.running import run_command
from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.processes import process_state
from mmm4rec_hf.training.saving import save_encoded_catalog

WORD_COLUMNS, GRID = 256, 8


def hashed_words(texts: list[str]) -> np.ndarray:
    """[n, 256] from n texts: the words of each, of length 1."""
    features = np.zeros((len(texts), WORD_COLUMNS), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in re.findall(r"\w+", text.lower()):
            features[row, zlib.crc32(word.encode()) % WORD_COLUMNS] += 1
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def colour_grid(pictures: list[Image.Image]) -> np.ndarray:
    """[n, 192] from n pictures in RGB: the mean colours of 8 x 8 parts."""
    small = [picture.resize((GRID, GRID), Image.Resampling.BOX) for picture in pictures]
    return np.stack([np.asarray(picture, dtype=np.float32).ravel() / 255 for picture in small])


def main(args: argparse.Namespace) -> None:
    """Encodes and saves."""
    catalog = ItemCatalog.from_items(args.items)
    if args.sequences is not None:
        catalog = catalog.select(SequenceDatasets.load_from_disk(args.sequences).item_ids)
    encoder = ItemEncoder(text_encoder=hashed_words, image_encoder=colour_grid)
    catalog = catalog.encode(encoder, args.output / "encoding")
    if process_state().is_main_process:
        save_encoded_catalog(catalog, encoder, args.output)
        print(f"{catalog} is in {args.output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", help="the items' file")
    parser.add_argument("--output", type=Path, required=True, help="the catalogue's folder")
    parser.add_argument("--sequences", type=Path, help="what `mmm4rec prepare` wrote: its items alone")
    arguments = parser.parse_args()
    sys.exit(run_command("custom_encoder.py", lambda: main(arguments)))
