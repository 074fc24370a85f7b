"""Small JPEGs of a catalogue's pictures, and the checks of a picture that somebody uploads."""

import hashlib
import io
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from mmm4rec_hf.items.images import FORMATS, Fetcher, PictureError, is_picture, is_url, load_picture

MAX_UPLOAD_BYTES = 10 << 20
# Above what a telephone's camera takes. Some 150 MB once decoded, which happens to one upload at a time, and to one
# that is only checked.
MAX_UPLOAD_PIXELS = 50_000_000
# What an uploaded picture is kept as, beside the features that were made of the whole one.
KEPT_SIZE = 640
_QUALITY = 85
# Pictures decoded at a time: a large one takes 240 MB.
_DECODERS = 2


class PictureStore:
    """
    Makes small JPEGs of pictures and keeps the last ones.

    Args:
        fetch (`Fetcher`, *optional*): How to download pictures that are addresses; without it they count as none.
        max_bytes (`int`, *optional*, defaults to 32 MiB): JPEGs that are kept.
    """

    def __init__(self, fetch: Fetcher | None = None, max_bytes: int = 32 << 20) -> None:
        self._fetch = fetch
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._decoders = threading.BoundedSemaphore(_DECODERS)

    def shows(self, reference: Any) -> bool:
        """Whether an item's picture can be tried at all."""
        return is_picture(reference) and (self._fetch is not None or not is_url(reference))

    def jpeg(self, reference: Any, root: str | os.PathLike[str] | None, size: int) -> bytes:
        """
        A picture, upright and re-encoded, so that nothing of the file but its pixels is passed on.

        Args:
            reference (`Any`): As [`load_picture`] takes it.
            root (`str` or `os.PathLike`, *optional*): The folder of relative paths.
            size (`int`): The longer side at most; a smaller picture stays as it is.

        Raises:
            PictureError: If it cannot be read, with the reason.
        """
        key = (_name(reference, root), size)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._decoders:
            content = to_jpeg(load_picture(reference, root=root, fetch=self._fetch), size)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = content
                self._bytes += len(content)
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest)
        return content


def to_jpeg(picture: Image.Image, size: int) -> bytes:
    """A picture in mode RGB as a JPEG whose longer side has at most `size` pixels."""
    small = picture.copy()
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def read_upload(content: bytes) -> Image.Image:
    """
    The picture in an uploaded file.

    Args:
        content (`bytes`): The file.

    Returns:
        `PIL.Image.Image`: Upright, in mode RGB.

    Raises:
        PictureError: With a reason that a person can act upon.
    """
    if not content:
        raise PictureError("the file is empty; choose another picture")
    if len(content) > MAX_UPLOAD_BYTES:
        raise PictureError(f"the file has more than {MAX_UPLOAD_BYTES >> 20} MB; choose a smaller picture")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError:
        pixels = MAX_UPLOAD_PIXELS + 1
    except UnidentifiedImageError as error:
        raise PictureError(f"the file is no picture of these kinds: {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders raise errors of any class on broken bytes
        raise PictureError(_broken(error)) from error
    if pixels > MAX_UPLOAD_PIXELS:
        raise PictureError(f"the picture has more than {MAX_UPLOAD_PIXELS // 10**6} million pixels; make it smaller")
    try:
        return load_picture(content)
    except PictureError as error:
        cause = error.__cause__
        raise PictureError(_broken(cause) if cause is not None else str(error)) from error


def _broken(error: BaseException) -> str:
    return f"the picture is broken or cut off and cannot be read ({type(error).__name__}); choose another file"


def _name(reference: Any, root: str | os.PathLike[str] | None) -> str:
    """What tells pictures apart: a path or an address, the digest of bytes."""
    if isinstance(reference, dict):
        reference = reference.get("bytes") or reference.get("path")
    if isinstance(reference, str | os.PathLike):
        return str(reference) if is_url(reference) else str(Path(root or "", reference))
    if isinstance(reference, Image.Image):
        reference = reference.tobytes()
    if not isinstance(reference, bytes | bytearray):
        raise PictureError(f"not a picture reference: {type(reference).__name__}")
    return hashlib.sha256(reference).hexdigest()
