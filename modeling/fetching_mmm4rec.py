"""A file that a model's folder, or its repository on the Hub, may have or not."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
from transformers.utils import logging

logger = logging.get_logger(__name__)


def optional_file(name: str | os.PathLike, file: str, **hub_options: Any) -> Path | None:
    """
    Finds a file without which its folder or repository means something else: it is taken for absent where that is
    known, and not where the Hub fails to answer, which transformers' `cached_file` does not tell apart.

    Args:
        name (`str` or `os.PathLike`): A Hub name or a folder.
        file (`str`): The file's path below it.
        hub_options: `revision`, `token`, `cache_dir`, `subfolder` and the like, as
            [`~huggingface_hub.hf_hub_download`] takes them.

    Returns:
        `Path`: Where the file lies, or `None` where there is none. A warning tells that the Hub was not asked, as
        `local_files_only` or HF_HUB_OFFLINE wish, and that the file may be there.

    Raises:
        OSError: If the Hub does not say whether there is one, or does not send it.
    """
    if Path(name).is_dir():
        path = Path(name, hub_options.get("subfolder") or "", file)
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(str(name), file, **hub_options))
    except RemoteEntryNotFoundError:
        return None
    except LocalEntryNotFoundError as error:
        where = {key: hub_options.get(key) for key in ("cache_dir", "revision")}
        if try_to_load_from_cache(str(name), _below(hub_options.get("subfolder"), file), **where) is _CACHED_NO_EXIST:
            return None
        if not hub_options.get("local_files_only") and not is_offline_mode():
            raise OSError(
                f"the Hub does not say whether {name} has {file}, which was not loaded before; try again, or do "
                "without it by HF_HUB_OFFLINE=1"
            ) from error
        logger.warning_once(f"{name} was loaded before without {file}, and the Hub is not asked whether it has one")
        return None


def _below(folder: str | None, file: str) -> str:
    return f"{folder}/{file}" if folder else file


__all__ = ["optional_file"]
