"""Why a repository of the Hub is not to be had, in one line."""

import contextlib
from collections.abc import Iterator

from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


@contextlib.contextmanager
def fetching(name: str, kind: str) -> Iterator[None]:
    """
    Around a download from a repository that a user named, perhaps by mistake for a folder.

    Args:
        name (`str`): What the user gave.
        kind (`str`): Of a repository: `"model"` or `"data set"`.

    Raises:
        ValueError: For each way in which the repository, or a file of it, is not to be had.
    """
    try:
        yield
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{name!r} is no folder here, and no {kind} to be had from the Hub: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, HFValidationError):
        return "it cannot be a repository's name"
    if isinstance(error, LocalEntryNotFoundError):
        return "it was not loaded before, and the Hub is not asked (HF_HUB_OFFLINE) or cannot be reached"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(error, EntryNotFoundError):
        return "the repository holds none"
    # A private or gated one says no more to someone without a token than one that is not there.
    refused = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)
    if refused or isinstance(error, RepositoryNotFoundError):
        return "it has none of that name, or it is private and asks for a token (`hf auth login` or HF_TOKEN)"
    return " ".join(str(error).split())
