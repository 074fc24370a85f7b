"""The encoder that made a catalogue's features, found by what the catalogue records of it."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmm4rec_hf.packaged_encoders import image_encoder, joint_model, packaged_names, text_encoder

from .batch_encoder import NO_ENCODER
from .encoder import ItemEncoder
from .features import MODALITIES, what_counts
from .text import PUBLISHED_TEXT_FIELDS

logger = logging.getLogger(__name__)

_POOLINGS = ("mean", "cls", "max", "last")
# What stands for a model by itself, on the Hub.
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def _by_option(modality: str) -> str:
    return f"name it by --{modality}-encoder"


def recorded_encoder(
    info: Mapping[str, Mapping[str, Any]],
    *,
    model: str | None = None,
    text_encoder: Any = None,
    image_encoder: Any = None,
    device: Any = None,
    download: bool = False,
    modalities: Sequence[str] = MODALITIES,
    remedy: Callable[[str], str] = _by_option,
) -> ItemEncoder:
    """
    Loads the encoder of a catalogue.

    Args:
        info (`Mapping`): The catalogue's `feature_info`: what made its texts' and its pictures' features.
        model (`str`, *optional*): A joint model in place of the recorded names, such as a folder that has moved.
        text_encoder, image_encoder (*optional*): As [`ItemEncoder`] takes them, in place of the recorded name.
        device (*optional*): As [`ItemEncoder`] takes it.
        download (`bool`, *optional*, defaults to `False`): Whether pictures that are addresses are fetched.
        modalities (`Sequence[str]`, *optional*, defaults to `("text", "image")`): What new items are encoded in.
        remedy (`Callable`, *optional*): From a modality to what an error tells to do; by default to give the option.

    Returns:
        `ItemEncoder`: Whose features can stand beside the catalogue's.

    Raises:
        ValueError: If the encoder is not known or not to be had, or is another one than the recorded one.
    """
    given = {"text": text_encoder, "image": image_encoder}
    options: dict[str, Any] = {"device": device, "download": download}
    text = info.get("text", {})
    if text.get("fields"):
        options["text_fields"] = text["fields"]
    recorded = [info[name] for name in MODALITIES if name in info]
    for one in recorded:
        options |= {key: value for key, value in (("missing", one.get("missing")), ("dtype", _dtype(one))) if value}
    if model is None and not any(given.values()) and _is_joint(info):
        model = _recorded_name(info["text"], "text", remedy)
    if model is not None:
        joint_model(model)
        encoder = _load(model, lambda: ItemEncoder(model, revision=_revision(recorded), **options))
    else:
        names: dict[str, Any] = dict.fromkeys(MODALITIES)
        names |= {name: given[name] or _recorded_name(info.get(name), name, remedy) for name in modalities}
        # Two commits, of two models, are not one revision; without one the newest is compared with the recorded one.
        recorded_names = [
            name for name in MODALITIES if name in info and not given[name] and names[name] != NO_ENCODER
        ]
        revisions = {_revision([info[name]]) for name in recorded_names}
        options["revision"] = revisions.pop() if len(revisions) == 1 else None
        pooling = str(text.get("pooling") or "").split(",")[0]
        options["pooling"] = pooling if pooling in _POOLINGS else None
        what = " and ".join(str(names[name]) for name in modalities)
        encoder = _load(what, lambda: ItemEncoder(text_encoder=names["text"], image_encoder=names["image"], **options))
    _compare(encoder, info, modalities)
    return encoder


def encoder_for_more(info: Mapping[str, Mapping[str, Any]], modalities: Sequence[str]) -> ItemEncoder:
    """
    The encoder of a catalogue for items that are added to it.

    Args:
        info (`Mapping`): The catalogue's `feature_info`.
        modalities (`Sequence[str]`): Of which it has features.

    Raises:
        ValueError: If the encoder cannot be loaded by what is recorded, with the call that gives it.
    """
    names = packaged_names(info)
    try:
        encoder = recorded_encoder(
            info,
            text_encoder=text_encoder(names.get("text")),
            image_encoder=image_encoder(names.get("image")),
            modalities=modalities,
            remedy=lambda _: f"load it and give it, as {_call(info, modalities)}",
        )
    except RuntimeError as error:  # a package that cannot be fetched
        raise ValueError(f"the encoder that made the catalogue's features is not at hand: {error}") from error
    made = " and ".join(str(encoder.info[name]["encoder"]) for name in modalities)
    logger.info("new items are encoded by %s, as the catalogue records", made)
    return encoder


def _call(info: Mapping[str, Mapping[str, Any]], modalities: Sequence[str]) -> str:
    """What to write to add items, with all that is recorded of their encoder."""
    text = info.get("text", {})
    if _is_joint(info):
        arguments = [_argument(text)]
    else:
        arguments = [f"{name}_encoder={_argument(info.get(name, {}))}" for name in modalities]
    if "text" in modalities and text.get("fields", list(PUBLISHED_TEXT_FIELDS)) != list(PUBLISHED_TEXT_FIELDS):
        arguments.append(f"text_fields={text['fields']!r}")
    for key, value in (("missing", text.get("missing")), ("pooling", str(text.get("pooling")).split(",")[0])):
        if value in ("zeros", "learned", "cls", "max", "last"):
            arguments.append(f"{key}={value!r}")
    if _dtype(text) is not None:
        arguments.append(f"dtype={_dtype(text)}")
    return f"catalog.add_items(items, encoder=ItemEncoder({', '.join(arguments)}))"


def _argument(info: Mapping[str, Any]) -> str:
    name, revision = str(info.get("encoder") or "..."), str(info.get("revision") or "")
    if revision.startswith("sha256:"):
        return repr(f"PATH/{name}")
    # A function of the user's is no text.
    return name if name == "..." or (info.get("pooling") is None and name != NO_ENCODER) else repr(name)


def _load(name: str, load: Any) -> ItemEncoder:
    """What fails in loading, as one kind of error that names the encoder."""
    try:
        encoder: ItemEncoder = load()
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"the encoder {name} cannot be loaded: {lines[0]}") from error
    return encoder


def _is_joint(info: Mapping[str, Mapping[str, Any]]) -> bool:
    return (
        {"text", "image"} <= info.keys()
        and info["text"].get("encoder") == info["image"].get("encoder")
        and info["text"].get("pooling") == "get_text_features"
        and info["image"].get("pooling") == "get_image_features"
    )


def _recorded_name(info: Mapping[str, Any] | None, modality: str, remedy: Callable[[str], str]) -> str:
    """The name by which a recorded encoder can be loaded."""
    if info is None or not info.get("encoder"):
        raise ValueError(f"the catalogue does not tell what made its {modality} features; {remedy(modality)}")
    name, revision = str(info["encoder"]), str(info.get("revision") or "")
    if name == NO_ENCODER:
        return name
    # Of a folder the last part of its path is recorded, and a digest of its weights.
    if revision.startswith("sha256:") and not Path(name).is_dir():
        raise ValueError(
            f"the {modality} features were made by a model in a folder {name!r} ({revision}), whose place is not "
            f"recorded; {remedy(modality)}"
        )
    if info.get("pooling") is None or not _HUB_NAME.fullmatch(name):
        raise ValueError(f"the {modality} features were made by {name}, which is no model's name; {remedy(modality)}")
    return name


def _revision(infos: list[Mapping[str, Any]]) -> str | None:
    """The commit of a Hub model."""
    commits = {str(info.get("revision") or "") for info in infos}
    commit = commits.pop() if len(commits) == 1 else ""
    return None if not commit or commit.startswith("sha256:") else commit


def _dtype(info: Mapping[str, Any]) -> torch.dtype | None:
    return getattr(torch, str(info["dtype"])) if info.get("dtype") in ("bfloat16", "float16") else None


def _compare(encoder: ItemEncoder, info: Mapping[str, Mapping[str, Any]], modalities: Sequence[str]) -> None:
    """Refuses an encoder whose features cannot stand beside the catalogue's; adding an item would, later."""
    for modality in modalities:
        if modality not in encoder.info:
            raise ValueError(f"the encoder has no {modality} model, and new items need {modality} features")
        now, before = what_counts(encoder.info[modality]), what_counts(info.get(modality, encoder.info[modality]))
        differences = [
            f"{key} {before.get(key)!r}, not {now.get(key)!r}"
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key)
        ]
        if differences:
            raise ValueError(
                f"the catalogue's {modality} features were made with another encoder: {'; '.join(differences)}"
            )
