"""The data of the quality study, prepared and encoded once: text by all-MiniLM-L6-v2, pictures by EfficientNet-Lite0.

    python benchmarks/quality/catalogs.py movies_b beauty movies_a      # 5 minutes on 2 cores, the first time

Below `.cache/quality/`, which git ignores, each data set has `sequences/` and `catalog/` as `mmm4rec prepare` and
`mmm4rec encode` write them. These encoders come as packages; they are not SigLIP, the published one, whose weights
need a hub.
"""

import copy
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
from run_files import DATA

from mmm4rec_hf import ItemCatalog, load_interactions, prepare_sequences
from mmm4rec_hf.cli import main as mmm4rec
from mmm4rec_hf.data import SequenceDatasets

WORK = Path(os.environ.get("MMM4REC_QUALITY_WORK", Path(__file__).resolve().parents[2] / ".cache" / "quality"))


def folder_of(name: str) -> Path:
    """
    The folder that holds `sequences/` and `catalog/` of a data set, made if it is absent.

    Args:
        name (`str`): A folder below `../shared/data` or what `MMM4REC_TEST_DATA` names, or `NAME-half`: every other
            user of it.
    """
    target = WORK / "data" / name
    if name.endswith("-half"):
        return _half(name.removesuffix("-half"), target)
    if not (target / "sequences" / "prepare.json").is_file():
        _run("prepare", DATA / name / "interactions.csv", "--output", target / "sequences")
    if not (target / "catalog" / "catalog.json").is_file():
        _run(
            "encode", DATA / name / "items.jsonl", "--sequences", target / "sequences",
            "--text-encoder", "minilm", "--image-encoder", "efficientnet-lite0", "--output", target / "catalog",
        )  # fmt: skip
    return target


def _half(name: str, target: Path) -> Path:
    whole = folder_of(name)
    if not (target / "catalog" / "catalog.json").is_file():
        sequences = SequenceDatasets.load_from_disk(whole / "sequences")
        log = pl.read_csv(
            DATA / name / "interactions.csv", schema_overrides={"user_id": pl.String, "item_id": pl.String}
        )
        # The core is that of the whole log.
        kept = log.filter(
            pl.col("item_id").is_in(sequences.item_ids), pl.col("user_id").is_in(sorted(sequences.user_ids)[::2])
        )
        prepare_sequences(load_interactions(kept), k_core=1, output_dir=target / "sequences")
        left = SequenceDatasets.load_from_disk(target / "sequences").item_ids
        ItemCatalog.from_pretrained(whole / "catalog").select(left).save_pretrained(target / "catalog")
    return target


def one_modality(folder: Path, modality: str) -> Path:
    """
    The catalogue of a data set with its texts alone, or its pictures alone; the others count as missing.

    Args:
        folder (`Path`): As [`folder_of`] gives it.
        modality (`"text"` or `"image"`): What is kept.
    """
    target = folder / f"catalog-{modality}"
    if not (target / "catalog.json").is_file():
        other = "image" if modality == "text" else "text"
        catalog = ItemCatalog.from_pretrained(folder / "catalog")
        without(catalog, other, np.ones(len(catalog), dtype=bool)).save_pretrained(target)
    return target


def without(catalog: ItemCatalog, modality: str, chosen: np.ndarray) -> ItemCatalog:
    """
    A catalogue in which some items lack their text or picture: features of zeros, marked as missing.

    Args:
        catalog (`ItemCatalog`): With features; it stays as it is.
        modality (`"text"` or `"image"`): What is taken away.
        chosen (`np.ndarray` of shape `(num_items,)`): Whether each item loses it.
    """
    catalog = copy.copy(catalog)
    features = np.array(getattr(catalog, f"{modality}_features"))
    mask = getattr(catalog, f"{modality}_mask")
    mask = np.ones(len(catalog), dtype=bool) if mask is None else np.array(mask)
    features[chosen], mask[chosen] = 0, False
    setattr(catalog, f"{modality}_features", features)
    setattr(catalog, f"{modality}_mask", mask)
    return catalog


def _run(*arguments: str | Path) -> None:
    status = mmm4rec([str(argument) for argument in arguments])
    if status:
        raise RuntimeError(f"mmm4rec {arguments[0]} failed, see above")


if __name__ == "__main__":
    for data_name in sys.argv[1:]:
        print(folder_of(data_name))
