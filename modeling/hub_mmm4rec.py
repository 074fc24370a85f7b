"""A saved folder to a repository on the Hub, as one commit."""

import contextlib
import functools
import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import logging

from .card_mmm4rec import CARD_NAME, card_of_repository

logger = logging.get_logger(__name__)

# Of the arguments of `save_pretrained`, those that are of an upload.
UPLOAD_OPTIONS = ("commit_message", "commit_description", "private", "token", "revision", "create_pr")

_CATALOG_FOLDER, _CATALOG_INFO, _CATALOG_ITEMS = "catalog/", "catalog.json", "items.jsonl"
_WEIGHTS = re.compile(
    r"model(?P<variant>\.\w+)?(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index(?P<of_index>\.\w+)?\.json"
)
_CODE = re.compile(r"\w+_mmm4rec\.py")
_MODEL_CONFIG, _ITEM_IDS = "config.json", "item_ids.json"
_MODEL = {_MODEL_CONFIG, _ITEM_IDS, "log_layout.json"}
# Of the processor, and of the tokenizers that transformers knows.
PROCESSOR_FILES = {
    "processor_config.json", "preprocessor_config.json", "items.jsonl",
    "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model",
    "tokenizer.model", "spm.model", "spm_char.model", "source.spm", "target.spm", "target_vocab.json",
    "vocab-src.json", "vocab-tgt.json", "entity_vocab.json", "bpe.codes", "byte_maps.json", "dict.txt", "emoji.json",
    "normalizer.json", "prophetnet.tokenizer", "word_shape.json", "word_pronunciation.json",
}  # fmt: skip
# Fields of an item without which it is none, or that the processor knows as well.
_ALWAYS = ("item_id", "title")
_PATH = re.compile(r"(?<![\w.:/~-])/[^\s\"'`<>|()\[\]{},;]{2,}")
_FRONT_MATTER = re.compile(r"\A\s*---\n.*?^---\s*?$", re.DOTALL | re.MULTILINE)
_STAMP = re.compile(r"\n*<!-- mmm4rec: uploaded as [0-9a-f]{64} -->\n*\Z")
_CATALOG = {_CATALOG_INFO, _CATALOG_ITEMS, "features.safetensors"}
_WORDS_OF_THE_AUTHOR = {CARD_NAME, "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.md", "NOTICE.txt"}
_CONFIGURATIONS = ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
# How the folders of the Hub's cache begin.
_CACHED = ("datasets--", "models--", "spaces--")
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".svg")


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
    license: str | None = None,
    fields: Collection[str] | None = None,
    repo_type: str = "model",
    card: str | None = None,
) -> CommitInfo:
    """
    Uploads what a saved folder holds of a model, a processor and a catalogue; what else lies there is named in the
    log, and left out. What the repository has of an earlier model and would be taken for a part of this one is deleted
    in the same commit: its weights in other files, its tokenizer and `training_args.bin`, and where the items differ
    its catalogue and `log_layout.json`; of an earlier catalogue its pictures and its encoder's processor. A card on
    the Hub that has no mark of an earlier upload, or was changed since, stays, with a warning; one that an upload left
    is replaced, and keeps its licence.

    Args:
        folder (`str` or `os.PathLike`):
            The folder. Besides what is saved into it go a README.md, in which the code is made to name the repository,
            the pictures that it shows, those of the catalogue, and a LICENSE or NOTICE.
        repo_id (`str`): `organization/name`; the repository is made where it is missing.
        commit_message (`str`, *optional*, defaults to `"Upload model"`): First line of the commit.
        commit_description (`str`, *optional*): The rest of it.
        private (`bool`, *optional*): Whether a new repository is private.
        token (`str` or `bool`, *optional*): By default the one that `hf auth login` stored.
        revision (`str`, *optional*): The branch, made where it is missing.
        create_pr (`bool`, *optional*, defaults to `False`): Whether to open a pull request instead.
        license (`str`, *optional*): Identifier of the Hub, such as `apache-2.0`, for the folder's card.
        fields (`Collection[str]`, *optional*):
            Those of a catalogue's items that go along besides `item_id` and `title`, by default all. The log names
            them. Of pictures go addresses, and names of files that go along; a warning counts the others.
        repo_type (`str`, *optional*, defaults to `"model"`): `"dataset"` for a catalogue.
        card (`str`, *optional*): Text of the card of a folder that has no README.md.

    Returns:
        `CommitInfo`: With the address of the commit.

    Raises:
        ValueError: If the name cannot be one, no token is there, the Hub refuses the upload, a file that would be
            uploaded is a link that leads out of the folder, or no item has one of the `fields`.
    """
    with tempfile.TemporaryDirectory() as made, _naming_refusals(repo_id):
        files = _files_to_upload(Path(folder), fields)
        if card is not None and CARD_NAME not in files:
            files[CARD_NAME] = Path(made, CARD_NAME)
            files[CARD_NAME].write_text(card, encoding="utf-8")
        files |= _items_to_upload(files, Path(made), fields)
        _warn_of_paths(files)
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
        operations: list[Any] = [CommitOperationAdd(name, path) for name, path in files.items() if name != CARD_NAME]
        there = set(api.list_repo_files(repo_id, repo_type=repo_type, revision=revision))
        fetch = functools.partial(_fetched, api, there, repo_id, repo_type=repo_type, revision=revision)
        replaced = sorted(_replaced(files, there, fetch))
        if replaced:
            logger.warning(
                f"{repo_id} loses what would not fit what is uploaded: {', '.join(replaced[:10])}"
                + (f" and {len(replaced) - 10} more" if replaced[10:] else "")
            )
        operations += [CommitOperationDelete(name) for name in replaced]
        if CARD_NAME in files:
            path = fetch(CARD_NAME)
            theirs = None if path is None else path.read_text(encoding="utf-8", errors="replace")
            if _is_edited(theirs):
                kind = "model" if repo_type == "model" else "data set"
                logger.warning(
                    f"{repo_id} has a {kind} card already, which is kept, as it has no mark of an earlier upload or "
                    f"was changed since: its numbers{' and its licence' if license else ''} may not be those of this "
                    f"upload; delete its {CARD_NAME} first to have it replaced"
                )
            else:
                ours = files[CARD_NAME].read_text(encoding="utf-8")
                ours = card_of_repository(ours, repo_id, license or _licence_to_keep(ours, theirs))
                operations.append(CommitOperationAdd(CARD_NAME, _stamped(ours).encode()))
        return api.create_commit(
            repo_id,
            operations,
            repo_type=repo_type,
            commit_message=commit_message,
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        )


@contextlib.contextmanager
def _naming_refusals(repo_id: str) -> Iterator[None]:
    """Turns what an upload raises into one error of one line."""
    try:
        yield
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


def _stamped(card: str) -> str:
    """A card with its digest, by which a later upload sees whether it was changed on the Hub."""
    text = _STAMP.sub("", card).rstrip("\n") + "\n"
    return f"{text}\n<!-- mmm4rec: uploaded as {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def _is_edited(card: str | None) -> bool:
    """Whether a card of the Hub may hold someone's own words: more than front matter, and no mark that fits."""
    if card is None or _stamped(card) == card:
        return False
    return bool(_FRONT_MATTER.sub("", card).strip())


def _licence_to_keep(card: str, theirs: str | None) -> str | None:
    """That of the card on the Hub, where the new one has none."""
    if theirs is None or RepoCard(card, ignore_metadata_errors=True).data.get("license"):
        return None
    licence = RepoCard(theirs, ignore_metadata_errors=True).data.get("license")
    return licence if isinstance(licence, str) else None


def _files_to_upload(root: Path, fields: Collection[str] | None) -> dict[str, Path]:
    """
    What a folder holds that is uploaded, by its name in the repository.

    Raises:
        ValueError: If one of the files is a link that leads out of the folder.
    """
    found = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if _is_leaf(path)}
    found = {name: path for name, path in found.items() if not any(part.startswith(".") for part in name.split("/"))}
    wanted = {name for name in found if _is_of_this_package(name)}
    wanted |= {name for name in _named_code(root) if name in found}
    pictures: set[str] = set()
    for folder in ("", _CATALOG_FOLDER):
        if folder + _CATALOG_INFO in found and folder + _CATALOG_ITEMS in found:
            pictures |= set(_catalog_pictures(found[folder + _CATALOG_ITEMS], folder)) & found.keys()
    if fields is None or "image" in fields:
        wanted |= pictures
    if CARD_NAME in found:
        card = found[CARD_NAME].read_text(encoding="utf-8")
        wanted |= {name for name in found if name.lower().endswith(_PICTURE_SUFFIXES) and name in card}
    for name in sorted(wanted):
        if not _is_inside(found[name], root):
            raise ValueError(
                f"{found[name]} is a link that leads out of {root}, and what it leads to would be uploaded; put the "
                "file itself there, or take the link away"
            )
    kept = {parent for name in wanted for parent in PurePosixPath(name).parents}
    others = list(dict.fromkeys(_outermost(name, kept) for name in found if name not in wanted | pictures))
    if others:
        more = f" and {len(others) - 10} more" if others[10:] else ""
        logger.warning(
            f"of {root} {', '.join(others[:10])}{more} are left out, being no files of a saved model or catalogue; "
            "`hf upload` takes what you want to add"
        )
    return {name: path for name, path in found.items() if name in wanted}


def _fetched(api: HfApi, there: set[str], repo_id: str, name: str, **where: Any) -> Path | None:
    """A file of the repository, `None` where it has none of that name."""
    return Path(api.hf_hub_download(repo_id, name, **where)) if name in there else None


def _replaced(files: dict[str, Path], there: set[str], fetch: Callable[[str], Path | None]) -> Iterator[str]:
    """
    What a repository has of an earlier model that loading the new one would take for a part of it.

    Model and processor may come one after the other, so each takes away what is of its own part.
    """
    written = [match for name in files if (match := _WEIGHTS.fullmatch(name))]
    variants = {match["variant"] or match["of_index"] for match in written}
    # The catalogue and the log's layout lie beside a model; of the same items, they stay.
    are_beside = True
    if _CATALOG_FOLDER + _CATALOG_INFO in files:
        are_beside = False
    elif _MODEL_CONFIG in files and _MODEL_CONFIG in there:
        are_beside = _items_of(files.get) == _items_of(fetch)
    # In a catalogue's own repository others may have put files beside its pictures.
    earlier_pictures = _listed_pictures(fetch(_CATALOG_ITEMS)) if _CATALOG_INFO in files else set()
    for name in there - files.keys():
        weights = _WEIGHTS.fullmatch(name)
        if weights is not None:
            is_replaced = (weights["variant"] or weights["of_index"]) in variants
        elif name in PROCESSOR_FILES:
            is_replaced = "processor_config.json" in files
        elif name in (_ITEM_IDS, "training_args.bin"):
            is_replaced = _MODEL_CONFIG in files
        elif name in earlier_pictures or (name.startswith("processor/") and _is_of_this_package(name)):
            is_replaced = _CATALOG_INFO in files
        else:
            is_beside = name == "log_layout.json" or (name.startswith(_CATALOG_FOLDER) and _is_of_a_catalog(name))
            is_replaced = is_beside and not are_beside
        if is_replaced:
            yield name


def _items_of(find: Callable[[str], Path | None]) -> Any:
    """What the items of a model are, and what encoded them."""
    config = _read_json(find(_MODEL_CONFIG))
    return _read_json(find(_ITEM_IDS)), config.get("feature_encoder") if isinstance(config, dict) else None


def _read_json(path: Path | None) -> Any:
    """What a file holds; `None` where there is none that can be read."""
    with contextlib.suppress(ValueError, RecursionError):
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))
    return None


def _listed_pictures(items: Path | None) -> set[str]:
    """The names of the pictures that an earlier catalogue shows."""
    with contextlib.suppress(ValueError):
        return set() if items is None else set(_catalog_pictures(items, ""))
    return set()


def _is_of_a_catalog(name: str) -> bool:
    inner = name.removeprefix(_CATALOG_FOLDER)
    return inner in _CATALOG or inner.startswith(("images/", "processor/"))


def _is_leaf(path: Path) -> bool:
    # A link to a folder is not walked into.
    return path.is_symlink() or path.is_file()


def _outermost(name: str, kept: Container[PurePosixPath]) -> str:
    """A file's name, or that of the outermost folder around it that is not kept."""
    folders = reversed(PurePosixPath(name).parents)
    return next((f"{folder}/" for folder in folders if folder not in kept and folder.name), name)


def _is_of_this_package(name: str) -> bool:
    beside = name.removeprefix(_CATALOG_FOLDER)
    of_processor = beside.removeprefix("processor/")  # that of its encoder lies in a catalogue
    if beside in _CATALOG or (
        of_processor != beside and (of_processor in PROCESSOR_FILES or _CODE.fullmatch(of_processor))
    ):
        return True
    is_named = name in _MODEL or name in PROCESSOR_FILES or name in _WORDS_OF_THE_AUTHOR
    return is_named or bool(_WEIGHTS.fullmatch(name) or _CODE.fullmatch(name))


def _named_code(root: Path) -> set[str]:
    """Files of code that are not of this package, and that the configurations name, such as a tokenizer's."""
    names: set[str] = set()
    for configuration in _CONFIGURATIONS:
        try:
            auto_map = json.loads((root / configuration).read_text(encoding="utf-8"))["auto_map"].values()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # there is none, or loading it will say so
        for references in auto_map:
            for reference in references if isinstance(references, list) else [references]:
                # `repository--module.Class` lies elsewhere.
                if isinstance(reference, str) and re.fullmatch(r"\w+\.\w+", reference):
                    names.add(f"{reference.split('.')[0]}.py")
    for name in [name for name in names if not _CODE.fullmatch(name) and _is_code(root / name, root)]:
        names |= {os.path.relpath(path, root) for path in get_relative_import_files(root / name)}
    return names


def _is_code(path: Path, root: Path) -> bool:
    return path.is_file() and _is_inside(path, root)


def _catalog_pictures(items: Path, folder: str) -> Iterator[str]:
    """Names of the pictures in a catalogue's own folder that its items show."""
    for record in _records(items):
        image = record.get("image")
        if isinstance(image, str) and (image.startswith("images/") or image.lower().endswith(_PICTURE_SUFFIXES)):
            yield _picture_name(image, folder)


def _items_to_upload(files: dict[str, Path], made: Path, fields: Collection[str] | None) -> dict[str, Path]:
    """
    The items of catalogues as they are uploaded: without pictures whose files do not go along, and with some fields
    alone where they are chosen.

    Raises:
        ValueError: If a chosen field is of no item.
    """
    written: dict[str, Path] = {}
    known: set[str] = set()
    for folder in ("", _CATALOG_FOLDER):
        name = folder + _CATALOG_ITEMS
        if name not in files or folder + _CATALOG_INFO not in files:
            continue
        written[name] = made / name
        written[name].parent.mkdir(exist_ok=True)
        counts: Counter[str] = Counter()
        left_out = 0
        with written[name].open("w", encoding="utf-8") as stream:
            for record in _records(files[name]):
                known |= record.keys()
                entry = {key: record[key] for key in record if fields is None or key in {*_ALWAYS, *fields}}
                if not _can_be_followed(entry.get("image"), folder, files):
                    del entry["image"]
                    left_out += 1
                counts.update(key for key in entry if entry[key] is not None)
                # As ASCII: half a letter, which JSON may spell out, cannot be written otherwise.
                stream.write(json.dumps(entry) + "\n")
        told = ", ".join(f"{key} ({count:,})" for key, count in counts.items())
        logger.info(f"{name}: the items go along with these fields: {told or 'none'}")
        if left_out:
            logger.warning(
                f"{name}: the pictures of {left_out:,} items are left out, as they are paths to files that do not go "
                "along; save or push the catalogue with save_images=True to upload pictures"
            )
    unknown = sorted(set(fields or ()) - known)
    if unknown:
        there = ", ".join(sorted(known)) or "none, as there is no catalogue"
        raise ValueError(f"no item has a field {unknown[0]!r}; the fields are {there}")
    return written


def _can_be_followed(image: Any, folder: str, files: Container[str]) -> bool:
    """Whether an item's picture is an address, a file that goes along, or none."""
    if not image or isinstance(image, int | float):  # as tables write that there is none
        return True
    if not isinstance(image, str):
        return False
    return image.lower().startswith(("http://", "https://")) or _picture_name(image, folder) in files


def _picture_name(image: str, folder: str) -> str:
    """The name in the repository of a picture that a catalogue in a folder of it shows."""
    return folder + PurePosixPath(image).as_posix()


def _warn_of_paths(files: dict[str, Path]) -> None:
    """Tells which texts name something of this machine, such as an encoder in a folder."""
    for name in sorted({CARD_NAME, *_CONFIGURATIONS, _CATALOG_INFO, _CATALOG_FOLDER + _CATALOG_INFO} & files.keys()):
        text = files[name].read_text(encoding="utf-8", errors="replace")
        paths = sorted({path for path in _PATH.findall(text) if os.path.exists(path)})
        if paths:
            logger.warning(f"{name} goes along and names {paths[0]} of this machine; nobody else can follow it")


def _records(items: Path) -> Iterator[dict[str, Any]]:
    with items.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} of {items} is no JSON ({error}); save the catalogue again") from error
            if not isinstance(record, dict):
                raise ValueError(f"line {number} of {items} holds no item; save the catalogue again")
            yield record


def _is_inside(path: Path, root: Path) -> bool:
    """Whether what a path leads to lies in the folder, or where the Hub's cache keeps the files of it."""
    real, base = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    bases = [base]
    for parent in (base, *base.parents):
        if parent.parent.name == "snapshots" and parent.parent.parent.name.startswith(_CACHED):
            bases.append(parent.parent.parent / "blobs")
    return any(real.is_relative_to(allowed) for allowed in bases)


__all__ = ["PROCESSOR_FILES", "UPLOAD_OPTIONS", "push_folder"]
