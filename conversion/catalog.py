"""The items of a published data folder, and back: `item2id.jsonl`, `text_feat.pth`, `image_feat.pth`."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmm4rec_hf.data.published import ITEM_FILE, SEQUENCE_FILES, published_item_ids
from mmm4rec_hf.items import ItemCatalog
from mmm4rec_hf.outputs import replace_file

from .untrusted import check_tensor, load_tensors

FEATURE_FILES = {"text": "text_feat.pth", "image": "image_feat.pth"}


def read_published_catalog(folder: Path, feature_info: Mapping[str, Mapping[str, Any]]) -> ItemCatalog:
    """
    The items of a published data folder with their features; row i - 1 of a features file is item i.

    Args:
        folder (`Path`): The folder.
        feature_info (`Mapping[str, Mapping]`): What made the features, by modality, as far as it is known.

    Raises:
        ValueError: If a file is missing, would run code, or holds features of another number of items.
    """
    item_ids = published_item_ids(folder)
    features = {}
    for modality, name in FEATURE_FILES.items():
        tensor = load_tensors(folder / name)
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2:
            raise ValueError(f"{folder / name} must hold one tensor, a row an item, got {_described(tensor)}")
        check_tensor(tensor, str(folder / name))
        if len(tensor) != len(item_ids):
            raise ValueError(
                f"{folder / name} holds the features of {len(tensor)} items, {folder / ITEM_FILE} names "
                f"{len(item_ids)}; they are of two data sets"
            )
        features[modality] = tensor.float().numpy()
    return ItemCatalog(
        item_ids, text_features=features["text"], image_features=features["image"], feature_info=feature_info
    )


def write_published_catalog(
    item_ids: list[str], text: torch.Tensor, image: torch.Tensor, folder: Path, stack: contextlib.ExitStack
) -> None:
    """
    Writes the three files, which take their places when the stack ends.

    Args:
        item_ids (`list[str]`): External ids, the first of which gets index 1.
        text (`torch.Tensor` of shape `(num_items, text_feature_size)`): Text features.
        image (`torch.Tensor` of shape `(num_items, image_feature_size)`): Image features.
        folder (`Path`): Where to, made where it is missing. For items and sequences in one folder write the sequences
            first, in this order: `write_published(sequences.align(item_ids), folder)`.
        stack (`contextlib.ExitStack`): What else is written with them.

    Raises:
        ValueError: If sequences lie there whose items have other indices.
    """
    _check_sequences(item_ids, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for modality, features in (("text", text), ("image", image)):
        torch.save(features.float().cpu().clone(), stack.enter_context(replace_file(folder / FEATURE_FILES[modality])))
    with stack.enter_context(replace_file(folder / ITEM_FILE)).open("w", encoding="utf-8") as file:
        for index, item_id in enumerate(item_ids, start=1):
            file.write(json.dumps([item_id, index], ensure_ascii=False) + "\n")


def _check_sequences(item_ids: list[str], folder: Path) -> None:
    """Sequences name items by their indices alone: with another `item2id.jsonl` they would be of other items."""
    found = [name for name in SEQUENCE_FILES.values() if (folder / name).is_file()]
    if found and (not (folder / ITEM_FILE).is_file() or published_item_ids(folder) != item_ids):
        raise ValueError(
            f"the indices in {folder / found[0]} are not those of the model's items; name a folder without sequences, "
            "or first write them in the model's order: write_published(sequences.align(model.item_ids), NEW FOLDER)"
        )


def _described(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
