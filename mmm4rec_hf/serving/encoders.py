"""The encoder that made a catalogue's features, found by what the catalogue records of it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmm4rec_hf.items import ItemEncoder

_MODALITIES = ("text", "image")
_POOLINGS = ("mean", "cls", "max", "last")
# What stands for a model by itself, on the Hub.
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def recorded_encoder(
    info: Mapping[str, Mapping[str, Any]],
    *,
    model: str | None = None,
    text_encoder: Any = None,
    image_encoder: Any = None,
    device: Any = None,
    download: bool = False,
) -> ItemEncoder:
    """
    Loads the encoder of a catalogue.

    Args:
        info (`Mapping`): The catalogue's `feature_info`: what made its texts' and its pictures' features.
        model (`str`, *optional*): A joint model in place of the recorded names, such as a folder that has moved.
        text_encoder, image_encoder (*optional*): As [`ItemEncoder`] takes them, in place of the recorded name.
        device (*optional*): As [`ItemEncoder`] takes it.
        download (`bool`, *optional*, defaults to `False`): Whether pictures that are addresses are fetched.

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
    recorded = [info[name] for name in _MODALITIES if name in info]
    for one in recorded:
        options |= {key: value for key, value in (("missing", one.get("missing")), ("dtype", _dtype(one))) if value}
    if model is None and not any(given.values()) and _is_joint(info):
        model = _recorded_name(info["text"], "text")
    if model is not None:
        encoder = _load(model, lambda: ItemEncoder(model, revision=_revision(recorded), **options))
    else:
        names = {name: given[name] or _recorded_name(info.get(name), name) for name in _MODALITIES}
        # Two commits, of two models, are not one revision; without one the newest is compared with the recorded one.
        revisions = {_revision([info[name]]) for name in _MODALITIES if name in info and not given[name]}
        options["revision"] = revisions.pop() if len(revisions) == 1 else None
        pooling = str(text.get("pooling") or "").split(",")[0]
        options["pooling"] = pooling if pooling in _POOLINGS else None
        what = " and ".join(str(name) for name in names.values())
        encoder = _load(what, lambda: ItemEncoder(text_encoder=names["text"], image_encoder=names["image"], **options))
    _compare(encoder, info)
    return encoder


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


def _recorded_name(info: Mapping[str, Any] | None, modality: str) -> str:
    """The name by which a recorded encoder can be loaded."""
    option = f"--{modality}-encoder"
    if info is None or not info.get("encoder"):
        raise ValueError(f"the catalogue does not tell what made its {modality} features; name it by {option}")
    name, revision = str(info["encoder"]), str(info.get("revision") or "")
    # Of a folder the last part of its path is recorded, and a digest of its weights.
    if revision.startswith("sha256:") and not Path(name).is_dir():
        raise ValueError(
            f"the {modality} features were made by a model in a folder {name!r} ({revision}), whose place is not "
            f"recorded; name it by {option}"
        )
    if info.get("pooling") is None or not _HUB_NAME.fullmatch(name):
        raise ValueError(
            f"the {modality} features were made by {name}, which is no model's name; name a model by {option}, or "
            "give the function to recorded_encoder in Python"
        )
    return name


def _revision(infos: list[Mapping[str, Any]]) -> str | None:
    """The commit of a Hub model."""
    commits = {str(info.get("revision") or "") for info in infos}
    commit = commits.pop() if len(commits) == 1 else ""
    return None if not commit or commit.startswith("sha256:") else commit


def _dtype(info: Mapping[str, Any]) -> torch.dtype | None:
    return getattr(torch, str(info["dtype"])) if info.get("dtype") in ("bfloat16", "float16") else None


def _compare(encoder: ItemEncoder, info: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses an encoder whose features cannot stand beside the catalogue's; adding an item would, later."""
    for modality in _MODALITIES:
        if modality not in encoder.info:
            raise ValueError(f"the encoder has no {modality} model, and new items need {modality} features")
        now, before = encoder.info[modality], dict(info.get(modality, encoder.info[modality]))
        differences = [
            f"{key} {before.get(key)!r}, not {now.get(key)!r}"
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key)
        ]
        if differences:
            raise ValueError(
                f"the catalogue's {modality} features were made with another encoder: {'; '.join(differences)}"
            )
