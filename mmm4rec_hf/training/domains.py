"""The domains of a pretraining: a catalogue and rows to train on each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.items import ItemCatalog

from .matching import load_sequences
from .record import describe_data, describe_features, digest_of_files
from .rows import MappedRows, RowSource, StreamedRows
from .shards import ITEM_IDS_NAME, read_about, shard_files

MODALITIES = ("text", "image")
# MB of each large shard that tell it from another: the first, the last, and as many between.
_BLOCKS = 16


@dataclass
class DomainRecipe:
    """
    One domain of a pretraining.

    Args:
        name (`str`): What it is called in the logs.
        catalog (`str`): The folder that `mmm4rec encode` wrote, or a catalogue's name on the Hub.
        sequences (`str`, *optional*): The folder that `mmm4rec prepare` wrote; trains and validates.
        shards (`str`, *optional*): A folder that `mmm4rec prepare --shards` wrote: streamed to train on instead.
    """

    name: str
    catalog: str
    sequences: str | None = None
    shards: str | None = None

    def __post_init__(self) -> None:
        if self.sequences is None and self.shards is None:
            raise ValueError(f"domain {self.name!r} has nothing to train on; give it sequences, or shards")

    def below(self, data_dir: str | None) -> "DomainRecipe":
        """The same domain with its paths starting from a folder; absolute paths stay as they are."""
        if data_dir is None:
            return self
        paths = {name: getattr(self, name) for name in ("catalog", "sequences", "shards")}
        joined = {name: str(Path(data_dir, path)) for name, path in paths.items() if path is not None}
        return replace(self, **joined)


class Domain:
    """
    A domain, loaded.

    Args:
        recipe (`DomainRecipe`): Where its parts are.
        seed (`int`): Of the order of its rows.
        process_index (`int`, *optional*, defaults to 0): Which process this is.
        num_processes (`int`, *optional*, defaults to 1): Of how many.

    Raises:
        ValueError: If the catalogue lacks features or items, or there are no rows.
    """

    def __init__(self, recipe: DomainRecipe, seed: int, process_index: int = 0, num_processes: int = 1) -> None:
        self.name, self._recipe = recipe.name, recipe
        self.catalog = ItemCatalog.from_pretrained(recipe.catalog)
        self.features = {modality: _features(self.catalog, modality, recipe) for modality in MODALITIES}
        self.is_missing = {modality: _is_missing(self.catalog, modality) for modality in MODALITIES}
        self.sequences: SequenceDatasets | None = None
        if recipe.sequences is not None:
            self.sequences = load_sequences(recipe.sequences, self.catalog, recipe.catalog)
        self.rows: RowSource
        if recipe.shards is not None:
            folder = Path(recipe.shards)
            rows = _catalog_rows(read_about(folder)[1], self.catalog.item_ids, recipe)
            self.rows = StreamedRows(folder, rows, seed, process_index, num_processes)
        elif self.sequences is not None:
            self.rows = MappedRows(self.sequences, seed)
        if self.rows.num_targets == 0:
            raise ValueError(f"domain {self.name!r} has no training rows: no user has two events to train on")

    @property
    def num_items(self) -> int:
        """`int`: Items in its catalogue."""
        return len(self.catalog)

    def describe(self) -> dict[str, Any]:
        """
        What tells its data from others, for a run's record.

        Returns:
            `dict[str, Any]`: As [`describe_data`], and `features`; of a domain with shards also `shards`, a digest of
            them: of large ones of parts alone, as all would be read at each start.
        """
        facts: dict[str, Any] = {"features": describe_features(self.catalog)}
        if self._recipe.shards is not None:
            folder = Path(self._recipe.shards)
            facts["shards"] = digest_of_files([*map(Path, shard_files(folder)), folder / ITEM_IDS_NAME], _BLOCKS)
        if self.sequences is not None and self._recipe.sequences is not None:
            facts |= describe_data(self.sequences, self._recipe.sequences)
        return facts


def feature_sizes(domains: Sequence[Domain]) -> dict[str, int]:
    """
    The sizes of the text and image features by modality, the same in every domain.

    Raises:
        ValueError: Naming two domains that differ.
    """
    first = domains[0]
    sizes = {modality: features.shape[1] for modality, features in first.features.items()}
    for other in domains[1:]:
        for modality, size in sizes.items():
            if other.features[modality].shape[1] != size:
                raise ValueError(
                    f"the {modality} features of {first.name!r} are {size} wide, those of {other.name!r} "
                    f"{other.features[modality].shape[1]}; encode both catalogues with one encoder"
                )
    return sizes


def _features(catalog: ItemCatalog, modality: str, recipe: DomainRecipe) -> np.ndarray:
    """[I, F]"""
    features = catalog.text_features if modality == "text" else catalog.image_features
    if features is None:
        raise ValueError(
            f"the catalogue {recipe.catalog} of domain {recipe.name!r} has no {modality} features; encode it with a "
            f"{modality} encoder"
        )
    return features


def _is_missing(catalog: ItemCatalog, modality: str) -> np.ndarray:
    """[I]"""
    mask = catalog.text_mask if modality == "text" else catalog.image_mask
    return np.zeros(len(catalog), dtype=bool) if mask is None else ~mask


def _catalog_rows(item_ids: Sequence[str], catalog_ids: Sequence[str], recipe: DomainRecipe) -> np.ndarray:
    """[I_shards + 1]: the catalogue's row of each item of the shards."""
    place = {item_id: row for row, item_id in enumerate(catalog_ids, start=1)}
    missing = [item_id for item_id in item_ids if item_id not in place]
    if missing:
        raise ValueError(
            f"{len(missing)} items of {recipe.shards} are not in the catalogue {recipe.catalog}, such as "
            f"{missing[0]!r}; encode them too"
        )
    return np.array([0, *(place[item_id] for item_id in item_ids)], dtype=np.int64)
