"""Where the pictures are that visitors have chosen and not added yet."""

import logging
import os
import secrets
import threading
from pathlib import Path

from mmm4rec_hf.items.images import picture_suffix

logger = logging.getLogger(__name__)


class Uploads:
    """
    Keeps uploaded files, the last ones, under names that nobody can guess.

    Gradio's own route keeps whatever it is sent, and parts of a form that no event can name for ever.

    Args:
        folder (`str` or `os.PathLike`): Where; one that Gradio takes files from, or it copies them.
        known (`set[str]`): The paths that events of the page may name: those of the files kept here.
        max_files (`int`, *optional*, defaults to 64): Files kept.
        max_bytes (`int`, *optional*, defaults to 200 MiB): Their bytes in all.
    """

    def __init__(
        self, folder: str | os.PathLike[str], known: set[str], max_files: int = 64, max_bytes: int = 200 << 20
    ) -> None:
        self._folder = Path(folder)
        self._known = known
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def keep(self, name: str, content: bytes) -> str:
        """
        Writes a file, and deletes the oldest ones where there is no room for it.

        Args:
            name (`str`): What its owner calls it; the suffix is kept.
            content (`bytes`): What is in it.

        Returns:
            `str`: Its path.
        """
        path = self._folder / (secrets.token_hex(16) + picture_suffix(name))
        with self._lock:
            # Gradio deletes those that are old, and forgets them; what anybody else deletes, it never forgets.
            for gone in [kept for kept in self._sizes if not os.path.exists(kept)]:
                del self._sizes[gone]
                self._known.discard(gone)
            before = len(self._sizes)
            while self._sizes and not self._has_room(len(content)):
                oldest = next(iter(self._sizes))
                del self._sizes[oldest]
                self._known.discard(oldest)
                Path(oldest).unlink(missing_ok=True)
            if before > len(self._sizes):
                logger.warning(
                    "%d uploaded pictures were deleted early, for newer ones: %d files and %d MB are kept",
                    before - len(self._sizes),
                    self._max_files,
                    self._max_bytes >> 20,
                )
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            self._sizes[str(path)] = len(content)
            self._known.add(str(path))
        return str(path)

    def _has_room(self, size: int) -> bool:
        return len(self._sizes) < self._max_files and sum(self._sizes.values()) + size <= self._max_bytes
