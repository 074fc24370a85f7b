"""Pictures from whatever a catalogue holds: paths, bytes, `datasets` image cells, Pillow images, addresses."""

import contextlib
import io
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .text import is_absent

logger = logging.getLogger(__name__)

# Decoders that read hostile bytes are few: no EPS, which starts Ghostscript, and none of the rare formats.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# Below Pillow's own warning level: a catalogue's picture beyond it is a mistake or an attack.
MAX_PIXELS = 80_000_000
MAX_BYTES = 100 << 20
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")


class PictureError(ValueError):
    """A picture that cannot be used; the message is the reason, fit for counting."""


class Fetcher(Protocol):
    """Brings the bytes behind an address, or raises [`PictureError`]."""

    def __call__(self, url: str) -> bytes: ...


def is_url(reference: Any) -> bool:
    """Whether a picture reference is an address to download."""
    return isinstance(reference, str) and reference.lower().startswith(("http://", "https://"))


def is_picture(reference: Any) -> bool:
    """Whether an item has a picture reference at all; an empty one, as tables hold it, is none."""
    return not is_absent(reference) and not (isinstance(reference, str | bytes | bytearray | dict) and not reference)


def plain_reference(reference: Any) -> Any:
    """What a `datasets` image cell holds; any other reference as it is."""
    return reference.get("bytes") or reference.get("path") if isinstance(reference, dict) else reference


def picture_suffix(name: str | os.PathLike[str]) -> str:
    """What ends the name of a picture's copy: what follows the last dot of any name may be long, or no word."""
    suffix = Path(name).suffix.lower()
    return suffix if _SUFFIX.fullmatch(suffix) else ""


def picture_path(reference: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> Path | None:
    """
    The path that a reference means; None for a text that leads out of the folder of its catalogue.

    Texts come from files that others may have written, so what they lead to must lie below `root`, whatever `..`,
    absolute paths and links are on the way: an archive and a git repository bring links along. A `Path`, which no file
    holds, and what is in memory without a root are the caller's own and lead anywhere.
    """
    path = Path(root or "", reference)
    return path if not isinstance(reference, str) or root is None or _is_below(path, root) else None


def _is_below(path: Path, root: str | os.PathLike[str]) -> bool:
    """Whether what a path leads to lies below a folder."""
    real_root = Path(os.path.realpath(root))
    # By its letters first: on Windows the mere question where \\server\share leads is sent to that server.
    letters = Path(os.path.abspath(path))
    if not any(letters.is_relative_to(base) for base in (os.path.abspath(root), real_root)):
        return False
    try:
        real = Path(os.path.realpath(path))
    except ValueError:
        # A NUL, or half a letter: no file has such a name, and what opens it says so.
        return True
    return any(real.is_relative_to(base) for base in (real_root, *_hub_blobs(real_root)))


def _hub_blobs(folder: Path) -> list[Path]:
    """Where the Hub's cache keeps the files that a snapshot's folder links to; empty outside of the cache."""
    for parent in (folder, *folder.parents):
        repository = parent.parent.parent
        if parent.parent.name == "snapshots" and repository.name.startswith(("datasets--", "models--", "spaces--")):
            return [repository / "blobs"]
    return []


def is_in_hub_cache(folder: Path) -> bool:
    """Whether a folder is a snapshot in the Hub's cache or below one: somebody else wrote what it holds."""
    return any(_hub_blobs(place) for place in (folder.absolute(), folder.resolve()))


def confined_pictures(
    records: Iterable[Mapping[str, Any]], root: str | os.PathLike[str] | None, *, follow_links: bool = False
) -> Iterator[dict[str, Any]]:
    """
    Copies of items' records without the pictures that lead out of their folder, of which a warning tells at the end.

    Args:
        records (`Iterable[Mapping[str, Any]]`): Items, with a reference to a picture as `image` or without.
        root (`str`, `os.PathLike` or `None`): The folder that their relative paths start from.
        follow_links (`bool`, *optional*, defaults to `False`):
            Whether links of the folder may lead out of it; `..` and absolute paths may not.

    Yields:
        `dict[str, Any]`: An item; a cell that holds a path alone has become that path.
    """
    outside = 0
    for record in records:
        entry = dict(record)
        reference = entry.get("image")
        if isinstance(reference, dict) and not reference.get("bytes") and reference.get("path"):
            reference = entry["image"] = reference["path"]
        if isinstance(reference, str) and is_picture(reference) and not is_url(reference):
            if follow_links and root is not None:
                base = os.path.abspath(root)
                # `link/../a.png` is the a.png beside the link, not one beside what the link leads to.
                entry["image"] = os.path.normpath(reference)
                inside = Path(os.path.abspath(Path(base, reference))).is_relative_to(base)
            else:
                inside = picture_path(reference, root) is not None
            if not inside:
                del entry["image"]
                outside += 1
        yield entry
    if outside:
        logger.warning(
            "%d paths of pictures lead out of %s and were left out; give a root= that holds them%s",
            outside,
            root,
            "" if follow_links else ", or follow_links=True where links of yours lead there",
        )


def absolute_pictures(
    records: Iterable[Mapping[str, Any]], root: str | os.PathLike[str] | None, *, follow_links: bool = False
) -> list[dict[str, Any]]:
    """
    Copies of items' records whose pictures are found from any folder.

    Args:
        records (`Iterable[Mapping[str, Any]]`): Items, with a reference to a picture as `image` or without.
        root (`str`, `os.PathLike` or `None`): The folder that their relative paths start from.
        follow_links (`bool`, *optional*, defaults to `False`): Whether links of the folder may lead out of it.

    Returns:
        `list[dict[str, Any]]`: With absolute `Path`s for paths, in which links keep their names. Texts that lead out
        of `root` are left out, with a warning: as a `Path`, or below another root, they would be followed.
    """
    made, base = [], os.path.abspath(root or "")
    for entry in confined_pictures(records, root, follow_links=follow_links):
        reference = entry.get("image")
        if isinstance(reference, str | os.PathLike) and is_picture(reference) and not is_url(reference):
            entry["image"] = Path(base, reference)
        made.append(entry)
    return made


def picture_file(reference: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> Path | None:
    """The file that a path leads to, relative ones from `root` on; None where there is none that may be read."""
    path = picture_path(reference, root)
    # Not Path.is_file, which raises where a text is too long for a name.
    return path if path is not None and os.path.isfile(path) else None


def load_picture(
    reference: Any, *, root: str | os.PathLike[str] | None = None, fetch: Fetcher | None = None
) -> Image.Image:
    """Opens a picture as upright RGB: first frame, EXIF rotation applied, transparency on white.

    Args:
        reference (`str`, `os.PathLike`, `bytes`, `PIL.Image.Image` or `dict`):
            A path, an http(s) address, the file's bytes, a picture, or a `datasets` image cell
            `{"bytes": ..., "path": ...}`. Files are JPEG, PNG, WebP, GIF or BMP, whatever their names.
        root (`str` or `os.PathLike`, *optional*):
            The folder that relative paths start from, and that no path given as a text may lead out of.
        fetch (`Fetcher`, *optional*): How to download. Without it an address is an error: nothing is fetched unasked.

    Returns:
        `PIL.Image.Image`: In mode RGB.

    Raises:
        PictureError: With the reason: no such file or one outside of `root`, no picture of these formats, cannot be
            decoded, too many pixels or bytes, a placeholder of one pixel.
    """
    if isinstance(reference, Image.Image):
        return _upright_rgb(reference)
    reference = plain_reference(reference)
    if is_url(reference):
        if fetch is None:
            raise PictureError("an address, and download=True was not given")
        reference = fetch(reference)
    if isinstance(reference, bytes | bytearray):
        return _decode(io.BytesIO(reference))
    if isinstance(reference, str | os.PathLike):
        path = picture_path(reference, root)
        if path is None:
            raise PictureError(
                "outside the items' folder; name one that holds all as root=, or allow links of yours "
                "by follow_links=True"
            )
        if not os.path.isfile(path):
            raise PictureError("no such file")
        if path.stat().st_size > MAX_BYTES:
            raise PictureError(f"a file of more than {MAX_BYTES >> 20} MB")
        return _decode(path)
    raise PictureError(f"not a picture reference: {type(reference).__name__}")


def check_readable(
    item_ids: Sequence[str], records: Sequence[Mapping[str, Any]], root: str | os.PathLike[str] | None
) -> None:
    """
    Reads the pictures of items, but no addresses.

    Args:
        item_ids (`Sequence[str]`): Of the items.
        records (`Sequence[Mapping[str, Any]]`): Likewise.
        root (`str`, `os.PathLike` or `None`): The folder that relative paths start from.

    Raises:
        PictureError: If one cannot be used, with the first such item.
    """
    unreadable: list[str] = []
    for item_id, record in zip(item_ids, records, strict=True):
        reference = plain_reference(record.get("image"))
        if not is_picture(reference) or is_url(reference):
            continue
        try:
            load_picture(reference, root=root)
        except PictureError as error:
            named, reason = "", str(error)
            if isinstance(reference, str | os.PathLike):
                named = f" {os.fspath(reference)!r}"
                if picture_path(reference, root) is None:
                    reason = f"it leads out of {root}; name one that holds all as root="
                elif reason == "no such file":
                    reason += f" (paths start from {root or Path.cwd()}; root= names another place)"
            unreadable.append(f"the picture{named} of item {item_id!r} cannot be used: {reason}")
    if unreadable:
        others = f", and so with {len(unreadable) - 1:,} more of {len(records):,} items" if unreadable[1:] else ""
        raise PictureError(
            f"{unreadable[0]}{others}; correct it, leave the item's image out, or pass unreadable_pictures='missing' "
            "to go on without"
        )


def white_picture() -> Image.Image:
    """The picture that stands for a missing one, as in the published features; `MISSING_POLICIES` of `encoder.py` has
    the other choices."""
    return Image.new("RGB", (224, 224), "white")


def check_format(source: io.BytesIO | Path) -> None:
    """
    Looks at the beginning of a picture's file.

    Raises:
        PictureError: If it is no picture of a format that is read.
    """
    with _opened(source):
        pass


@contextlib.contextmanager
def _opened(source: io.BytesIO | Path) -> Iterator[Image.Image]:
    """A picture whose pixels are not read yet."""
    try:
        with Image.open(source, formats=FORMATS) as image:
            yield image
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"no picture of these formats: {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders raise errors of any class on broken bytes
        raise PictureError(f"cannot be decoded ({type(error).__name__})") from error


def _decode(source: io.BytesIO | Path) -> Image.Image:
    with _opened(source) as image:
        if image.width * image.height > MAX_PIXELS:
            raise PictureError(f"more than {MAX_PIXELS:,} pixels")
        if image.width == 1 and image.height == 1:
            raise PictureError("a placeholder of one pixel")
        return _upright_rgb(image)


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey at 255, to a white picture.
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")
