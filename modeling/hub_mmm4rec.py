"""A saved folder to a repository on the Hub, as one commit."""

import os
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from transformers.utils import logging

from .card_mmm4rec import CARD_NAME, card_of_repository

logger = logging.get_logger(__name__)

# Of the arguments of `save_pretrained`, those that are of an upload.
UPLOAD_OPTIONS = ("commit_message", "commit_description", "private", "token", "revision", "create_pr")


def push_folder(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    commit_message: str = "Upload model",
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    keep_card: bool = False,
    license: str | None = None,
    repo_type: str = "model",
) -> CommitInfo:
    """
    Uploads a saved folder, hidden files left out.

    Args:
        folder (`str` or `os.PathLike`): The folder. The code in its card is made to name the repository.
        repo_id (`str`): `organization/name`; the repository is made where it is missing.
        commit_message (`str`, *optional*, defaults to `"Upload model"`): First line of the commit.
        commit_description (`str`, *optional*): The rest of it.
        private (`bool`, *optional*): Whether a new repository is private.
        token (`str` or `bool`, *optional*): By default the one that `hf auth login` stored.
        revision (`str`, *optional*): The branch, made where it is missing.
        create_pr (`bool`, *optional*, defaults to `False`): Whether to open a pull request instead.
        keep_card (`bool`, *optional*, defaults to `False`): Whether a card that the repository has stays as it is.
        license (`str`, *optional*): Identifier of the Hub, such as `apache-2.0`, for the folder's card.
        repo_type (`str`, *optional*, defaults to `"model"`): `"dataset"` for a catalogue.

    Returns:
        `CommitInfo`: With the address of the commit.

    Raises:
        ValueError: If the name cannot be one, no token is there, or the Hub refuses the upload.
    """
    root = Path(folder)
    files = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    files = {name: path for name, path in files.items() if not any(part.startswith(".") for part in name.split("/"))}
    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
        operations = [CommitOperationAdd(name, path) for name, path in files.items() if name != CARD_NAME]
        if keep_card and api.file_exists(repo_id, CARD_NAME, repo_type=repo_type, revision=revision):
            logger.warning(f"{repo_id} has a model card already, which is kept")
        elif CARD_NAME in files:
            card = card_of_repository(files[CARD_NAME].read_text(encoding="utf-8"), repo_id, license)
            operations.append(CommitOperationAdd(CARD_NAME, card.encode()))
        return api.create_commit(
            repo_id,
            operations,
            repo_type=repo_type,
            commit_message=commit_message,
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        )
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} cannot be the name of a repository: {error}") from error
    except LocalTokenNotFoundError as error:
        raise ValueError(
            f"an upload to {repo_id} needs a token: run `hf auth login`, set HF_TOKEN, or give token="
        ) from error
    except HfHubHTTPError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"the Hub refused the upload to {repo_id}; it needs a token that may write there: {reason}"
        ) from error


__all__ = ["UPLOAD_OPTIONS", "push_folder"]
