"""Sequences and a catalogue that belong together."""

import os

from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.data.sequence_datasets import shown_ids
from mmm4rec_hf.evaluation.protocol import k_core_of
from mmm4rec_hf.items import ItemCatalog


def load_sequences(
    folder: str | os.PathLike[str], catalog: ItemCatalog, catalog_folder: str | os.PathLike[str]
) -> SequenceDatasets:
    """
    The sequences of a folder, their items in a catalogue's order.

    Args:
        folder (`str` or `os.PathLike`): What `prepare` wrote.
        catalog (`ItemCatalog`): Every item with events must be in it.
        catalog_folder (`str` or `os.PathLike`): Where it lies.

    Raises:
        ValueError: Naming items with events that the catalogue lacks, and both folders.
    """
    sequences = SequenceDatasets.load_from_disk(folder)
    if missing := sequences.unknown_items(catalog.item_ids):
        raise ValueError(
            f"{folder}{k_core_of(folder)} holds {len(missing)} items with events that are not among the "
            f"{len(catalog)} of the catalogue {catalog_folder}: {shown_ids(missing)}; it was made for other "
            f"sequences: make one for these, mmm4rec encode ITEMS --sequences {folder} ..., or prepare these again "
            f"with the catalogue's items alone, mmm4rec prepare LOG --items {catalog_folder} ..."
        )
    return sequences.align(catalog.item_ids)
