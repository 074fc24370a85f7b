"""Why a repository of the Hub is not to be had, in one line."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mmm4rec_hf.suggestions import did_you_mean, nearest


def check_hub_name(name: str) -> None:
    """
    Refuses what can only be meant for a folder, before the Hub is asked for it.

    Args:
        name (`str`): What the user gave, and is no folder. A Hub name is `name` or `organization/name`.

    Raises:
        FileNotFoundError: If it is the path of a folder that is not there.
    """
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise FileNotFoundError(f"no such folder: {name}")


@contextlib.contextmanager
def fetching(name: str, kind: str) -> Iterator[None]:
    """
    Around a download from a repository that a user named, perhaps by mistake for a folder; also around one by
    transformers, whose errors have that of the Hub as their cause.

    Args:
        name (`str`): What the user gave.
        kind (`str`): Of a repository: `"model"` or `"data set"`.

    Raises:
        ValueError: For each way in which the repository, or a file of it, is not to be had.
    """
    # What is told in the end, in one line, is that the Hub cannot be reached: not each try before.
    tries = logging.getLogger("huggingface_hub.utils._http")
    level = tries.level
    tries.setLevel(logging.ERROR)
    try:
        yield
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(
            cause, HFValidationError | HfHubHTTPError | LocalEntryNotFoundError
        ):
            cause = cause.__cause__
        if cause is None:
            raise
        raise ValueError(
            f"{name!r} is no folder here{_meant(name)}, and no {kind} to be had from the Hub: {_reason(cause)}"
        ) from error
    finally:
        tries.setLevel(level)


def _meant(name: str) -> str:
    """A folder beside the one that there is not, whose name is spelled nearly so."""
    parent = Path(name).parent
    with contextlib.suppress(OSError):
        likely = nearest(Path(name).name, [path.name for path in parent.iterdir() if path.is_dir()])
        if likely:
            return f" ({did_you_mean([str(parent / folder) for folder in likely])})"
    return ""


def _reason(error: BaseException) -> str:
    if isinstance(error, HFValidationError):
        return "it cannot be a repository's name"
    if isinstance(error, LocalEntryNotFoundError):
        hub = "is not asked (HF_HUB_OFFLINE is set)" if is_offline_mode() else "cannot be reached"
        return f"the Hub {hub}, and it was not loaded before"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(error, EntryNotFoundError):
        return "the repository holds none"
    # A private or gated one says no more to someone without a token than one that is not there.
    refused = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)
    if refused or isinstance(error, RepositoryNotFoundError):
        return "it has none of that name, or it is private and asks for a token (`hf auth login` or HF_TOKEN)"
    return " ".join(str(error).split())
