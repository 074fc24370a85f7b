"""A catalogue as a folder, and as a data set on the Hub."""

import contextlib
import filecmp
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import DatasetCard, DatasetCardData, snapshot_download
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmm4rec_hf.hub import fetching
from mmm4rec_hf.modeling.card_mmm4rec import NAME_PLACEHOLDER
from mmm4rec_hf.modeling.hub_mmm4rec import push_folder
from mmm4rec_hf.modeling.ids_mmm4rec import canonical_id
from mmm4rec_hf.outputs import replace_file, replace_folder
from mmm4rec_hf.plain_json import read_json

from .images import (
    PictureError,
    check_format,
    confined_pictures,
    is_picture,
    is_url,
    picture_file,
    picture_suffix,
    plain_reference,
)
from .text import is_absent

if TYPE_CHECKING:
    from .catalog import ItemCatalog

logger = logging.getLogger(__name__)

ITEMS_NAME = "items.jsonl"
FEATURES_NAME = "features.safetensors"
INFO_NAME = "catalog.json"
IMAGES_NAME = "images"
ARRAYS = ("text_features", "image_features", "text_mask", "image_mask")
# There from before catalog.json is taken away until a save has ended: what an interrupted one leaves is known by it.
# Named like any temporary file, but of no machine and process, so that none removes it as its own.
_UNFINISHED_NAME = f".{INFO_NAME}.000000-0-00000000.partial"
# The names of the files in images/ that saves have written, and may replace. Hidden, so that it is not uploaded.
WRITTEN_NAME = ".images.json"
_INFO_BEGINS = b'{\n  "num_items": '
_LONGEST_STEM = 200
_CARD = """\
---
{{ card_data }}
---

# A catalogue of {{ number }} items

{{ made }}

```python
from mmm4rec_hf import ItemCatalog

catalog = ItemCatalog.from_pretrained("{{ name }}")
```

Licence: {{ licence }}
"""


def save_catalog(
    catalog: "ItemCatalog",
    folder: Path,
    save_images: bool,
    beside: Mapping[str, Callable[[Path], object]] | None = None,
) -> None:
    """
    See [`ItemCatalog.save_pretrained`]. All is written under other names first, so that a full disk changes nothing;
    then `catalog.json` is taken away, as a folder without it is not a catalogue, and comes back last. Where that is
    interrupted, a file is left by which the next save knows the folder.

    Args:
        catalog (`ItemCatalog`): What to save.
        folder (`Path`): Where to.
        save_images (`bool`): Whether pictures are copied.
        beside (`Mapping[str, Callable]`, *optional*):
            Folders that belong to the catalogue, by name, and what fills them.

    Raises:
        ValueError: As [`check_replaceable`], or naming a picture that would be replaced and that no save wrote.
    """
    check_replaceable(folder, beside or ())
    if save_images and os.path.lexists(folder / IMAGES_NAME) and not (folder / IMAGES_NAME).is_dir():
        raise ValueError(f"{folder / IMAGES_NAME} is no folder, and pictures go there; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: array for name in ARRAYS if (array := getattr(catalog, name)) is not None}
    content: dict[str, Any] = {"num_items": len(catalog), "features": catalog.feature_info}
    if catalog.source_fields:
        content["source_fields"] = catalog.source_fields
    with contextlib.ExitStack() as stack:
        # What is entered first takes its place last; the pictures after the items, by which they are known.
        info = stack.enter_context(replace_file(folder / INFO_NAME))
        pictures = stack.enter_context(contextlib.ExitStack())
        items, features = (stack.enter_context(replace_file(folder / name)) for name in (ITEMS_NAME, FEATURES_NAME))
        for name, fill in (beside or {}).items():
            fill(stack.enter_context(replace_folder(folder / name)))
        with items.open("w", encoding="utf-8") as stream:
            stream.writelines(line + "\n" for line in _lines(catalog, folder, save_images, pictures))
        save_file(arrays, features)
        info.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        with replace_file(folder / _UNFINISHED_NAME) as unfinished:
            shutil.copyfile(info, unfinished)
        # An earlier catalogue's: from here on the files might be of different ones.
        (folder / INFO_NAME).unlink(missing_ok=True)
    (folder / _UNFINISHED_NAME).unlink(missing_ok=True)


def check_replaceable(folder: Path, beside: Iterable[str] = ()) -> None:
    """
    Refuses to save a catalogue into a folder whose files it would replace, and that holds no catalogue: such as that
    of a shop, whose own items are in `items.jsonl`.

    Args:
        folder (`Path`): Where to save; it need not exist.
        beside (`Iterable[str]`, *optional*): The folders that will be written there besides the catalogue's files.

    Raises:
        ValueError: Naming what would be replaced.
    """
    names = [name for name in (INFO_NAME, ITEMS_NAME, FEATURES_NAME, *beside) if os.path.lexists(folder / name)]
    # An empty folder is nothing to lose, and what a save that failed leaves.
    found = [name for name in names if not (folder / name).is_dir() or any((folder / name).iterdir())]
    if found and not _holds_catalog(folder):
        raise ValueError(
            f"{folder} holds {', '.join(found)}, which a catalogue would replace, and no catalogue; name another "
            "folder for it, or move these away"
        )


def _holds_catalog(folder: Path) -> bool:
    """Whether a folder's files are a catalogue's, be it damaged or half replaced."""
    # Of a save that was stopped while the files took their places, when there is no catalog.json.
    if any(folder.glob(f".{INFO_NAME}.*.partial")):
        return True
    if not (folder / INFO_NAME).is_file():
        return False
    if (folder / ITEMS_NAME).is_file() and (folder / FEATURES_NAME).is_file():
        return True
    # A shop's own list of items may have this name.
    content = (folder / INFO_NAME).read_bytes()
    try:
        info = read_json(content.decode("utf-8"))
    except ValueError:
        # Cut off somewhere, as by a copy that broke.
        short = content[: len(_INFO_BEGINS)]
        return bool(short) and _INFO_BEGINS.startswith(short) and (folder / ITEMS_NAME).is_file()
    return isinstance(info, dict) and {"num_items", "features"} <= info.keys()


def load_catalog(folder: Path) -> dict[str, Any]:
    """What [`ItemCatalog`] is made of, from its folder.

    Raises:
        ValueError: If the folder is not a saved catalogue, or was only written in part.
    """
    for name in (INFO_NAME, ITEMS_NAME, FEATURES_NAME):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is not a saved catalogue: it has no {name}")
    with naming_damage(folder):
        info = read_json((folder / INFO_NAME).read_text(encoding="utf-8"))
        with (folder / ITEMS_NAME).open(encoding="utf-8") as stream:
            records = [read_json(line) for line in stream]
        if len(records) != info["num_items"]:
            raise ValueError(f"{ITEMS_NAME} has {len(records)} items of {info['num_items']}")
        item_ids = [canonical_id(record.pop("item_id")) for record in records]
        arrays = load_file(folder / FEATURES_NAME)
        unknown = sorted(set(arrays) - set(ARRAYS))
        if unknown:
            raise ValueError(f"{FEATURES_NAME} holds {unknown[0]!r}, which is none of {', '.join(ARRAYS)}")
        about = {"feature_info": info["features"], "source_fields": info.get("source_fields")}
        return {"item_ids": item_ids, "records": records, **about, **arrays}


def saved_item_ids(folder: Path) -> list[str] | None:
    """The ids of the catalogue that a folder holds; `None` where it holds none, or one that cannot be read."""
    if not (folder / INFO_NAME).is_file():
        return None
    try:
        with (folder / ITEMS_NAME).open(encoding="utf-8") as stream:
            return [canonical_id(read_json(line)["item_id"]) for line in stream]
    except (OSError, ValueError, TypeError, KeyError):
        return None


@contextlib.contextmanager
def naming_damage(folder: Path) -> Iterator[None]:
    """Turns what reading a broken catalogue raises into one error that names its folder."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{folder} is damaged ({type(error).__name__}: {reason}); save the catalogue again"
        ) from error


def fetch_catalog(repo_id: str, revision: str | None, token: str | bool | None) -> Path:
    """Downloads a catalogue's data set, or finds it in the cache.

    Raises:
        ValueError: If there is no such folder and no such data set, or it cannot be reached.
    """
    with fetching(repo_id, "data set"):
        return Path(snapshot_download(repo_id, repo_type="dataset", revision=revision, token=token))


def push_catalog(
    catalog: "ItemCatalog", repo_id: str, save_images: bool = False, *, saved: Path | None = None, **options: Any
) -> str:
    """
    See [`ItemCatalog.push_to_hub`]. With `saved`, the folder that the catalogue was loaded from, that folder is
    uploaded, with the pictures and the card that lie in it.
    """
    with contextlib.ExitStack() as stack:
        if saved is None:
            saved = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            save_catalog(catalog, saved, save_images)
        options |= {"repo_type": "dataset", "commit_message": f"Upload {len(catalog):,} items"}
        commit = push_folder(saved, repo_id, card=str(_card(catalog, options["license"])), **options)
    return str(commit.commit_url)


def _lines(catalog: "ItemCatalog", folder: Path, save_images: bool, stack: contextlib.ExitStack) -> Iterator[str]:
    in_memory = unusable = other_ids = 0
    written = _written_pictures(folder)
    # What leads out, kept, would be taken for a path of this machine's user when the folder is loaded.
    records = confined_pictures(catalog.records, catalog.root)
    for item_id, record in zip(catalog.item_ids, records, strict=True):
        other_ids += str(record.pop("item_id", item_id)) != item_id
        entry = {"item_id": item_id, **record}
        reference = entry.pop("image", None)
        if not is_picture(reference):
            saved = None
        elif is_url(reference) or (not save_images and isinstance(reference, str | os.PathLike)):
            saved = os.fspath(reference)
        elif save_images:
            saved = _copy_picture(reference, catalog.root, folder, item_id, written, stack)
            unusable += saved is None
        else:
            saved = None
            in_memory += 1
        if saved is not None:
            entry["image"] = saved
        yield json.dumps(entry, ensure_ascii=False, default=_plain)
    if save_images and written:
        # Takes its place before the pictures do: what is interrupted then is known as well.
        names = stack.enter_context(replace_file(folder / WRITTEN_NAME))
        names.write_text(json.dumps(sorted(written)) + "\n", encoding="utf-8")
    if other_ids:
        logger.warning(
            "%d records hold an 'item_id' that is not their item's id, and it was left out; rename it to keep it",
            other_ids,
        )
    if in_memory:
        logger.warning(
            "%d pictures are held in memory and were left out; give save_images=True to write them", in_memory
        )
    if unusable:
        logger.warning("%d pictures are no files or bytes that could be copied; their items have none now", unusable)


def _plain(value: Any) -> Any:
    """Dates, arrays, numbers and gaps of other libraries, as JSON knows them."""
    if is_absent(value):
        return None
    return value.tolist() if type(value).__module__ == "numpy" else str(value)


def _written_pictures(folder: Path) -> set[str]:
    """The files of `images/` that earlier saves have written; all others are a shop's own, listed or not."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        names = read_json((folder / WRITTEN_NAME).read_text(encoding="utf-8"))
        return {name for name in names if os.path.lexists(folder / IMAGES_NAME / name)}
    return set()


def _copy_picture(
    reference: Any,
    root: Path | None,
    folder: Path,
    item_id: str,
    written: set[str],
    stack: contextlib.ExitStack,
) -> str | None:
    """
    Copies a picture as it is to a path that the id alone decides, when the stack ends, and adds its name to those that
    saves wrote. A file that is none is not copied: catalogues are uploaded, and a path may name any file of this
    machine.
    """
    reference = plain_reference(reference)
    stem = _file_stem(item_id)
    images = folder / IMAGES_NAME
    images.mkdir(exist_ok=True)
    if isinstance(reference, str | os.PathLike):
        source = picture_file(reference, root)
        if source is None or not _is_readable(source):
            return None
        target = images / (stem + picture_suffix(source))
        if source.resolve() != target.resolve():
            partial = stack.enter_context(replace_file(target))
            shutil.copyfile(source, partial)
            _check_picture(target, partial, written)
        return f"{IMAGES_NAME}/{target.name}"
    if isinstance(reference, Image.Image):
        buffer = io.BytesIO()
        reference.save(buffer, "PNG")
        reference = buffer.getvalue()
    if not isinstance(reference, bytes | bytearray) or not _is_readable(io.BytesIO(reference)):
        return None
    partial = stack.enter_context(replace_file(images / stem))
    partial.write_bytes(reference)
    _check_picture(images / stem, partial, written)
    return f"{IMAGES_NAME}/{stem}"


def _check_picture(target: Path, partial: Path, written: set[str]) -> None:
    """Refuses to replace a picture that no save wrote, by one that differs."""
    if target.name in written:
        return
    if not os.path.lexists(target):
        written.add(target.name)
    elif not target.is_file() or not filecmp.cmp(partial, target, shallow=False):
        raise ValueError(
            f"{target} would be replaced by an item's picture, and no catalogue that was saved there is known to "
            "have written it; name another folder, or move it away"
        )


def _file_stem(item_id: str) -> str:
    """The name of an item's picture, of at most 200 characters that every disk takes; no two ids have one name."""
    # Ids may hold any character: other than letters and digits are written as their code.
    stem = "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in item_id)
    # Where it is cut, ids of one beginning meet; and those that differ in case meet on the disks of Windows and macOS.
    if len(stem) > _LONGEST_STEM or stem != stem.lower():
        digest = hashlib.sha256(item_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return f"{stem[: _LONGEST_STEM - len(digest) - 1]}-{digest}"
    return stem


def _is_readable(source: io.BytesIO | Path) -> bool:
    try:
        check_format(source)
    except PictureError:
        return False
    return True


def _card(catalog: "ItemCatalog", license: str | None) -> DatasetCard:
    data = DatasetCardData(license=license, tags=["mmm4rec", "recommendation"])
    made = [
        f"- {modality} features: {', '.join(f'{key} {value}' for key, value in info.items())}"
        for modality, info in catalog.feature_info.items()
    ]
    return DatasetCard.from_template(
        data,
        template_str=_CARD,
        number=f"{len(catalog):,}",
        name=NAME_PLACEHOLDER,
        made="\n".join(made) or "What made its features is not recorded.",
        licence=license or "not stated by the author; texts and pictures may belong to others.",
    )
