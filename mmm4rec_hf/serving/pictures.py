"""Small JPEGs of a catalogue's pictures, and the checks of a picture that somebody uploads."""

import contextlib
import hashlib
import io
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image, UnidentifiedImageError

from mmm4rec_hf.items.download import NoAnswer, PictureDownloader
from mmm4rec_hf.items.images import FORMATS, Fetcher, PictureError, is_picture, is_url, load_picture, plain_reference

MAX_UPLOAD_BYTES = 10 << 20
# Above what a telephone's camera takes. Some 150 MB once decoded, which happens to one upload at a time, and to one
# that is only checked.
MAX_UPLOAD_PIXELS = 50_000_000
# What an uploaded picture is kept as, beside the features that were made of the whole one.
KEPT_SIZE = 640
_QUALITY = 85
# Pictures decoded at a time: a large one takes 240 MB.
_DECODERS = 2
# Seconds for a wait for another server, while somebody waits for the picture.
_PATIENCE = 5.0
# Seconds for which an address that gave no picture is not asked again, nor a host that has not answered for several.
_FORGIVING = 60.0
_LAST_STRAW = 4
_MAX_FAILURES = 10_000


class NotDownloaded(LookupError):
    """A picture that another server has to be asked for, which may take long."""


class PictureStore:
    """
    Makes small JPEGs of pictures and keeps the last ones.

    Args:
        fetch (`Fetcher`, *optional*):
            How to download pictures that are addresses; without it they count as none. A [`PictureDownloader`] tries
            once, and not for long.
        max_bytes (`int`, *optional*, defaults to 32 MiB): JPEGs that are kept.
    """

    def __init__(self, fetch: Fetcher | None = None, max_bytes: int = 32 << 20) -> None:
        self._fetch = fetch.once(_PATIENCE) if isinstance(fetch, PictureDownloader) else fetch
        self._on_disk = _OnDisk(fetch.cache_dir) if isinstance(fetch, PictureDownloader) else _not_downloaded
        self._failures = _Failures()
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._decoders = threading.BoundedSemaphore(_DECODERS)

    def shows(self, reference: Any) -> bool:
        """Whether an item's picture can be tried at all."""
        return is_picture(reference) and (self._fetch is not None or not is_url(reference))

    def _downloaded(self, reference: Any, download: bool) -> Any:
        """What is behind an address; any other reference as it is."""
        address = plain_reference(reference)
        if self._fetch is None or not is_url(address):
            return reference
        # What is here does not depend on a host that is silent.
        with contextlib.suppress(NotDownloaded):
            return self._on_disk(address)
        with self._lock:
            self._failures.check(address)
        if not download:
            raise NotDownloaded(address)
        try:
            content = self._fetch(address)
        except PictureError as error:
            with self._lock:
                self._failures.add(address, error)
            raise
        with self._lock:
            self._failures.forgive(address)
        return content

    def jpeg(self, reference: Any, root: str | os.PathLike[str] | None, size: int, download: bool = True) -> bytes:
        """
        A picture, upright and re-encoded, so that nothing of the file but its pixels is passed on.

        Args:
            reference (`Any`): As [`load_picture`] takes it.
            root (`str` or `os.PathLike`, *optional*): The folder of relative paths.
            size (`int`): The longer side at most; a smaller picture stays as it is.
            download (`bool`, *optional*, defaults to `True`): Whether another server may be asked.

        Raises:
            PictureError: If it cannot be read, with the reason.
            NotDownloaded: Without `download`, if another server would be asked.
        """
        key = (_name(reference, root), size)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        # Before its turn to be decoded, so that no other picture waits for a slow server.
        reference = self._downloaded(reference, download)
        with self._decoders:
            content = to_jpeg(load_picture(reference, root=root), size)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = content
                self._bytes += len(content)
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest)
        return content


class _OnDisk(PictureDownloader):
    """Gives the pictures that were downloaded before, and asks for no other."""

    def _fetch(self, url: str) -> bytes:
        return _not_downloaded(url)


def _not_downloaded(url: str) -> bytes:
    raise NotDownloaded(url)


class _Failures:
    """Addresses that gave no picture a moment ago, and hosts that did not answer for several of them in a row."""

    def __init__(self) -> None:
        self._reasons: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._silent: OrderedDict[str, int] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises `PictureError` for an address that is not to be asked now."""
        for name in (address, _host(address)):
            until, reason = self._reasons.get(name, (0.0, ""))
            if time.monotonic() < until:
                raise PictureError(reason)

    def add(self, address: str, error: PictureError) -> None:
        host, until = _host(address), time.monotonic() + _FORGIVING
        self._reasons[address] = until, str(error)
        if isinstance(error, NoAnswer):
            self._silent[host] = self._silent.pop(host, 0) + 1
            if self._silent[host] >= _LAST_STRAW:
                del self._silent[host]
                self._reasons[host] = until, str(error)
        else:
            self._silent.pop(host, None)
        for kept in (self._reasons, self._silent):
            while len(kept) > _MAX_FAILURES:
                kept.popitem(last=False)

    def forgive(self, address: str) -> None:
        self._reasons.pop(address, None)
        self._silent.pop(_host(address), None)


def _host(address: str) -> str:
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:  # an address that is none
        return address


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
    reference = plain_reference(reference)
    if isinstance(reference, str | os.PathLike):
        return str(reference) if is_url(reference) else str(Path(root or "", reference))
    if isinstance(reference, Image.Image):
        reference = reference.tobytes()
    if not isinstance(reference, bytes | bytearray):
        raise PictureError(f"not a picture reference: {type(reference).__name__}")
    return hashlib.sha256(reference).hexdigest()
