"""A published checkpoint to a folder of ours that is ready to recommend, and back."""

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml  # type: ignore[import-untyped]
from torch import Tensor

from mmm4rec_hf.items import ItemCatalog
from mmm4rec_hf.modeling import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.modeling.card_mmm4rec import CardFacts
from mmm4rec_hf.modeling.items_mmm4rec import encoder_identity
from mmm4rec_hf.outputs import replace_file, replace_folder
from mmm4rec_hf.plain_yaml import read_yaml
from mmm4rec_hf.training.cards import save_card
from mmm4rec_hf.training.saving import save_recommender

from .catalog import read_published_catalog, write_published_catalog
from .checkpoint import ITEM_BIASES, PublishedCheckpoint, checked_weights, read_checkpoint
from .configuration import PUBLISHED_MODE, config_from_published, config_to_published
from .weights import FEATURES, to_published

if TYPE_CHECKING:
    from mmm4rec_hf.items import ItemEncoder

logger = logging.getLogger(__name__)

Mode = Literal["published", "new"]
NEW_MODE: dict[str, Any] = {"time_mode": "masked", "score_padding_item": False, "mask_same_target": True}
NEW_MODE_NOTE = (
    "Converted to the new mode: padding takes no part in the time path, so that the gaps of histories shorter than "
    "the model's length count and scores do not depend on padding; the padding item is not scored; a row's own target "
    "is no negative in its batch. The weights are the published ones, which were trained without these: measure "
    "before use, or fine-tune."
)


@dataclass(frozen=True)
class Conversion:
    """A published checkpoint as a model of ours.

    Args:
        model ([`MMM4RecForSequentialRecommendation`]): With its items, where their features are known.
        catalog (`ItemCatalog`, *optional*): The items, from the data folder.
        checkpoint (`PublishedCheckpoint`): What was read.
        notes (`list[str]`): What was left out or changed on the way.
    """

    model: MMM4RecForSequentialRecommendation
    catalog: ItemCatalog | None
    checkpoint: PublishedCheckpoint
    notes: list[str] = field(default_factory=list)


def load_published(
    checkpoint: str | os.PathLike[str],
    config: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    mode: Mode = "published",
    encoder: "ItemEncoder | None" = None,
) -> Conversion:
    """
    Reads a published checkpoint.

    Args:
        checkpoint (`str` or `os.PathLike`): The `.ckpt` file, in its full or its light form, with item biases or not.
        config (`str` or `os.PathLike`): The YAML file that the published code ran with.
        data (`str` or `os.PathLike`, *optional*):
            The published data folder, for the items and their features. Without it the backbone alone is converted.
        mode (`"published"` or `"new"`, *optional*, defaults to `"published"`):
            `"published"`: outputs are the published ones. `"new"`: padding and scoring as in new models.
        encoder (`ItemEncoder`, *optional*):
            What made the features of the data folder, which a published checkpoint does not tell. It is recorded, so
            that features of others are refused.

    Returns:
        `Conversion`

    Raises:
        ValueError: If a file cannot be read, would run code, or does not fit the others.
    """
    if mode not in ("published", "new"):
        raise ValueError(f"mode must be 'published' or 'new', got {mode!r}")
    read = read_checkpoint(Path(checkpoint))
    values, notes = read_published_config(Path(config)), []
    info = {} if encoder is None else encoder.info
    catalog = None if data is None else read_published_catalog(Path(data), info)
    weights = read.weights
    if values.get("is_modality_bias") is True and not any(name in weights for name in ITEM_BIASES):
        values = {**values, "is_modality_bias": False}
        notes.append("The checkpoint has no item biases, which its configuration asks for: converted without.")
    num_items = _num_items(weights, values, catalog)
    changes = _feature_sizes(weights, catalog) | (NEW_MODE if mode == "new" else {})
    ours = checked_weights(weights, config_from_published(values, **changes, num_items=num_items or 1))
    if mode == "new":
        notes.append(NEW_MODE_NOTE)

    model = MMM4RecForSequentialRecommendation(config_from_published(values, **changes, num_items=None))
    if catalog is not None:
        model.set_items(catalog)
    else:
        by_row = sorted(name for name in ours if name.startswith("items.") and ours[name].ndim == 2)
        ours = {name: value for name, value in ours.items() if name not in by_row}
        notes.append(
            "Converted the backbone alone, for a catalogue of yours; give the published data folder for its items."
            + (f" Left out: {', '.join(by_row)}." if by_row else "")
        )
        model.config.feature_encoder = {name: encoder_identity(made) for name, made in info.items()} or None
    report = model.load_state_dict(ours, strict=False)
    if report.unexpected_keys or set(report.missing_keys) - set(FEATURES):
        raise RuntimeError(f"the weights were checked and do not fit the model: {report}")
    for note in notes:
        logger.warning("%s", note)
    return Conversion(model.eval(), catalog, read, notes)


def convert_published(
    checkpoint: str | os.PathLike[str],
    config: str | os.PathLike[str],
    output: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    mode: Mode = "published",
    encoder: "ItemEncoder | None" = None,
) -> Conversion:
    """
    Converts a published checkpoint to a folder: weights, items, catalogue, processor and model card.

    Args:
        checkpoint, config, data, mode, encoder:
            As for [`load_published`]; the encoder's tokenizer and image processor go into the processor.
        output (`str` or `os.PathLike`): The folder, which must be empty or absent.

    Returns:
        `Conversion`

    Raises:
        ValueError: As [`load_published`], and if `output` holds something.
    """
    target = Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} is there already and not empty; name another output, or remove it")
    converted = load_published(checkpoint, config, data, mode, encoder)
    model, catalog, processor = converted.model, converted.catalog, MMM4RecProcessor()
    if encoder is not None:
        processor = MMM4RecProcessor(image_processor=encoder.image_processor, tokenizer=encoder.tokenizer)
    facts = _card_facts(converted, mode)
    if catalog is not None:
        save_recommender(model, processor, catalog, target, facts)
    else:
        processor.max_sequence_length = model.config.max_sequence_length
        with replace_folder(target, ()) as partial:
            model.save_pretrained(partial)
            save_card(model, partial, facts)
            processor.save_pretrained(partial)
    return converted


def _card_facts(converted: Conversion, mode: Mode) -> CardFacts:
    """What the card says of a converted checkpoint, whose own score counts ties as the published code does."""
    read = converted.checkpoint
    origin = "Converted from a checkpoint of the published MMM4Rec code."
    if mode == "published":
        origin += " Its padding, scoring and activations are kept, so that outputs are the published ones."
    if read.best_valid_score is not None:
        origin += f" That code had noted {read.best_valid_score:.4f} as its best score on validation users."
    return CardFacts(
        training_data="What the published checkpoint was trained on; the file does not tell.",
        checkpoint=None if read.epoch is None else f"epoch {read.epoch}",
        notes=[origin, *converted.notes],
    )


def convert_to_published(
    folder: str | os.PathLike[str], output: str | os.PathLike[str], data: str | os.PathLike[str] | None = None
) -> list[str]:
    """
    Converts a folder of ours to a published checkpoint in its light form, with the YAML file beside it.

    Args:
        folder (`str` or `os.PathLike`): A saved [`MMM4RecForSequentialRecommendation`], or its Hub name.
        output (`str` or `os.PathLike`): The `.ckpt` file; the YAML file gets the same name with `.yaml`.
        data (`str` or `os.PathLike`, *optional*): A folder for the items and their features.

    Returns:
        `list[str]`: Notes of what the published code will compute otherwise.

    Raises:
        ValueError: If the model has options or weights that the published code has not.
    """
    model = MMM4RecForSequentialRecommendation.from_pretrained(folder)
    values = config_to_published(model.config)
    weights = {name: value.float().contiguous() for name, value in to_published(model.state_dict()).items()}
    if model.config.fusion == "static":
        # The published code keeps the weight 1 of both modalities as a buffer that nothing reads.
        weights["fusion_factor"] = torch.tensor(1.0)
    items = model.items
    if data is not None and (model.item_ids is None or items.text_features is None or items.image_features is None):
        raise ValueError(f"{folder} holds no items by id, so that there is no data folder to write")
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        # What is entered first takes its place last.
        torch.save({"model": weights}, stack.enter_context(replace_file(path)))
        configuration = stack.enter_context(replace_file(path.with_suffix(".yaml")))
        configuration.write_text(yaml.safe_dump(values, sort_keys=True), encoding="utf-8")
        if data is not None:
            write_published_catalog(
                model.item_ids, items.text_features[1:], items.image_features[1:], Path(data), stack
            )
        # An earlier checkpoint: from here on the files might be of different models.
        path.unlink(missing_ok=True)
    return _notes_for_published(model.config)


def _notes_for_published(config: MMM4RecConfig) -> list[str]:
    changed = [name for name, value in PUBLISHED_MODE.items() if getattr(config, name) != value]
    if not changed:
        return []
    options = ", ".join(f"{name}={getattr(config, name)!r}" for name in changed)
    note = f"The published code has no {options}: its scores of this model will be others."
    logger.warning("%s", note)
    return [note]


def read_published_config(path: Path) -> dict[str, Any]:
    """The values of a published YAML file, as [`read_yaml`] reads it; nothing in it is run."""
    return {str(name): value for name, value in read_yaml(path).items()}


def _num_items(weights: Mapping[str, Tensor], values: Mapping[str, Any], catalog: ItemCatalog | None) -> int | None:
    """The number of items that all parts agree on, `None` where none tells."""
    counts: dict[str, Any] = {}
    if catalog is not None:
        counts["the data folder"] = len(catalog)
    for name in (*ITEM_BIASES, "fusion_factor"):
        if name in weights and weights[name].ndim == 2:
            counts[f"the checkpoint's {name}"] = len(weights[name]) - 1
    if values.get("item_num") is not None and counts:
        counts["the configuration's item_num"] = values["item_num"]
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} by {source}" for source, count in counts.items())
        raise ValueError(
            f"the numbers of items differ: {listed}. For another catalogue convert without the data folder, and load "
            "the result with from_pretrained(..., catalog=catalog)"
        )
    return next(iter(counts.values()), None)


def _feature_sizes(weights: Mapping[str, Tensor], catalog: ItemCatalog | None) -> dict[str, int]:
    """Widths of the features, which no published configuration holds."""
    sizes = {}
    for modality, name in (("text", "text_adapter.0.weight"), ("image", "vision_adapter.0.weight")):
        weight = weights.get(name)
        if weight is None or weight.ndim != 2:
            raise ValueError(f"the checkpoint lacks the weights {name}, a matrix")
        size = sizes[f"{modality}_feature_size"] = weight.shape[1]
        if catalog is None:
            continue
        features = catalog.text_features if modality == "text" else catalog.image_features
        if features is not None and features.shape[1] != size:
            raise ValueError(
                f"the checkpoint reads {modality} features of size {size}, those of the data folder have "
                f"{features.shape[1]}; they are of another encoder"
            )
    return sizes
