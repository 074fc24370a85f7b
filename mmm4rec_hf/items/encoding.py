"""A catalogue through an encoder in shards: resumable after a kill, shared between processes."""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate.utils import broadcast_object_list
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from tqdm.auto import tqdm

from mmm4rec_hf.outputs import replace_file
from mmm4rec_hf.processes import process_state

from .batch_encoder import NO_ENCODER, NoEncoder
from .encoder import MISSING_POLICIES, ItemEncoder, log_problems
from .features import check_finite, is_known_by_name, what_counts
from .images import is_picture, is_url, picture_file, plain_reference

if TYPE_CHECKING:
    from .catalog import ItemCatalog

logger = logging.getLogger(__name__)

INFO_NAME = "encoder.json"
# How far a vector may be from an earlier one of the same encoder, as a share of its length: in another batch it is
# rounded otherwise, above all in half precision.
_ROUNDING = 0.02


@dataclass(frozen=True)
class Shard:
    """A run of consecutive items: rows `start` to `stop`, and a digest of what is encoded for them."""

    start: int
    stop: int
    digest: str

    def path(self, folder: Path, modality: str) -> Path:
        """Where its features lie."""
        return folder / f"{modality}-{self.start:09d}.safetensors"

    def is_done(self, folder: Path, modality: str) -> bool:
        """Whether its features are there, of these very items."""
        path = self.path(folder, modality)
        if not path.is_file():
            return False
        try:
            with safe_open(path, framework="numpy") as file:
                return bool((file.metadata() or {}).get("digest") == self.digest)
        except SafetensorError:
            logger.warning("%s is damaged and is encoded again", path)
            return False


def encode_catalog(
    catalog: "ItemCatalog",
    encoder: ItemEncoder,
    output_dir: str | os.PathLike[str] | None = None,
    *,
    batch_size: int = 16,
    shard_size: int = 1024,
    overwrite: bool = False,
) -> dict[str, np.ndarray]:
    """Features and masks of a catalogue, as [`ItemCatalog.encode`] describes.

    Returns:
        `dict[str, np.ndarray]`: `text_features` and `text_mask`, `image_features` and `image_mask`, those of the
        modalities that the encoder has.
    """
    for name, size in (("batch_size", batch_size), ("shard_size", shard_size)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    state = process_state()
    if output_dir is None and state.num_processes > 1:
        raise ValueError("several processes share their work through files: give encode(..., output_dir=)")
    arrays: dict[str, np.ndarray] = {}
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None and state.is_main_process:
        _claim(folder, encoder.info, overwrite)
    state.wait_for_everyone()
    for modality in encoder.info:
        inputs = _inputs(catalog, encoder, modality)
        if folder is None:
            parts = [_encode(catalog, encoder, modality, inputs, range(len(inputs)), batch_size)]
        else:
            shards = list(_shards(catalog, modality, inputs, shard_size))
            _encode_shards(catalog, encoder, modality, inputs, shards, folder, batch_size, overwrite)
            state.wait_for_everyone()
            parts = [load_file(shard.path(folder, modality)) for shard in shards]
        for name in ("features", "mask"):
            arrays[f"{modality}_{name}"] = np.concatenate([part[name] for part in parts])
        if state.is_main_process:
            _log_missing(arrays[f"{modality}_mask"], modality, encoder)
            _log_alike(arrays[f"{modality}_features"], arrays[f"{modality}_mask"], modality)
    return arrays


def _log_missing(mask: np.ndarray, modality: str, encoder: ItemEncoder) -> None:
    """Says how many items have no text or no usable picture, those of finished shards too, and what they got."""
    without = len(mask) - int(mask.sum())
    if without and encoder.info[modality]["encoder"] != NO_ENCODER:
        logger.warning(
            "%d of %d items have no %s: %s%s",
            *(without, len(mask), "text" if modality == "text" else "usable picture"),
            MISSING_POLICIES[modality][encoder.missing],
            f"; texts are made of {', '.join(encoder.text_fields)}" if modality == "text" else "",
        )


def _log_alike(features: np.ndarray, mask: np.ndarray, modality: str) -> None:
    """Says where a column of texts or pictures holds one and the same, such as a stand-in for all."""
    present = features[mask]
    # Rounding differs between batches.
    if len(present) > 1 and np.allclose(present, present[:1], rtol=1e-5, atol=1e-6):
        logger.warning(
            "the %s of all %d items that have one are alike: they tell no items apart",
            *("texts" if modality == "text" else "pictures", len(present)),
        )


def _claim(folder: Path, info: dict[str, dict[str, Any]], overwrite: bool) -> None:
    """Marks a folder's modalities as this encoder's, so that features of two encoders never meet."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / INFO_NAME
    # Through JSON, where a tuple is a list as well.
    info = json.loads(json.dumps(info))
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); remove {folder} to encode again") from error
    changed = [
        modality
        for modality in info
        if what_counts(before.get(modality, info[modality])) != what_counts(info[modality])
    ]
    if changed and not overwrite:
        raise _mixing(
            folder, "; ".join(_difference(modality, before[modality], info[modality]) for modality in changed)
        )
    for modality in changed:
        _remove_shards(folder, modality)
    with replace_file(path) as partial:
        partial.write_text(json.dumps(before | info, indent=2, sort_keys=True, ensure_ascii=False), encoding="utf-8")


def _mixing(folder: Path, differences: str) -> ValueError:
    return ValueError(
        f"{folder} holds features of another encoder ({differences}); give another output_dir, or overwrite=True to "
        "encode everything again"
    )


def _remove_shards(folder: Path, modality: str) -> None:
    for shard in folder.glob(f"{modality}-*.safetensors"):
        shard.unlink()


def _difference(modality: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    changes = [
        f"{key} {before.get(key)!r} before, {now.get(key)!r} now"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    return f"{modality}: {', '.join(changes)}"


def _inputs(catalog: "ItemCatalog", encoder: ItemEncoder, modality: str) -> list[Any]:
    return [_input(record, encoder, modality) for record in catalog.records]


def _input(record: dict[str, Any], encoder: ItemEncoder, modality: str) -> Any:
    """What is encoded for an item: its text, or the reference to its picture; None where it has none."""
    if modality == "text":
        return encoder.text_of(record)
    reference = record.get("image")
    return reference if is_picture(reference) else None


def _is_remote(reference: Any) -> bool:
    """Whether a picture is to be downloaded, a `datasets` image cell's too."""
    return is_url(plain_reference(reference))


def _shards(catalog: "ItemCatalog", modality: str, inputs: Sequence[Any], shard_size: int) -> Iterator[Shard]:
    for start in range(0, len(inputs), shard_size):
        stop = min(start + shard_size, len(inputs))
        digest = hashlib.sha256()
        for item_id, value in zip(catalog.item_ids[start:stop], inputs[start:stop], strict=True):
            stamp = value if modality == "text" else _picture_stamp(value, catalog.root)
            digest.update(repr((item_id, stamp)).encode("utf-8", "surrogatepass"))
        yield Shard(start, stop, digest.hexdigest())


def _picture_stamp(reference: Any, root: Path | None) -> Any:
    """What changes when a picture does: a file's size and time, the bytes' digest, the address itself."""
    reference = plain_reference(reference)
    if reference is None or is_url(reference):
        return reference
    if isinstance(reference, str | os.PathLike):
        path = picture_file(reference, root)
        if path is None:
            return (str(reference), None)
        status = path.stat()
        return (str(reference), status.st_size, status.st_mtime_ns)
    if not isinstance(reference, bytes | bytearray | Image.Image):
        return repr(reference)
    content = reference.tobytes() if isinstance(reference, Image.Image) else reference
    return hashlib.sha256(content).hexdigest()


def _encode_shards(
    catalog: "ItemCatalog",
    encoder: ItemEncoder,
    modality: str,
    inputs: Sequence[Any],
    shards: Sequence[Shard],
    folder: Path,
    batch_size: int,
    overwrite: bool,
) -> None:
    """Encodes what is not there yet, this process's share of it."""
    state = process_state()
    missing = [shard for shard in shards if not shard.is_done(folder, modality)]
    failed: dict[Shard, list[int]] = {}
    if modality == "image":
        failed, without = _failed_pictures(encoder, inputs, shards, missing, folder)
        missing = sorted([*missing, *without], key=lambda shard: shard.start)
    # Every process must have looked before one of them writes, or their lists would differ.
    state.wait_for_everyone()
    if len(missing) < len(shards) and is_known_by_name(encoder.info[modality]):
        unlike = _unlike_finished(catalog, encoder, modality, shards, missing, folder, batch_size)
        if unlike is not None and not overwrite:
            name = encoder.info[modality]["encoder"]
            raise _mixing(folder, f"{modality}: {name} gave item {unlike!r} other features before")
        if unlike is not None:
            if state.is_main_process:
                _remove_shards(folder, modality)
            state.wait_for_everyone()
            missing, failed = list(shards), {}
    work: list[tuple[Shard, Sequence[int]]] = [(shard, range(shard.start, shard.stop)) for shard in missing]
    work += failed.items()
    done = len(inputs) - sum(len(rows) for _, rows in work)
    if done:
        logger.info("%s: %d of %d items are encoded already", folder, done, len(inputs))
    problems: Counter[str] = Counter()
    hidden = None if state.is_main_process else True
    with tqdm(total=len(inputs), initial=done, desc=f"Encoding {modality}", unit="item", disable=hidden) as bar:
        for number, (shard, rows) in enumerate(work):
            if number % state.num_processes == state.process_index:
                arrays = _encode(catalog, encoder, modality, inputs, rows, batch_size, problems)
                if shard in failed:
                    arrays = _filled(load_file(shard.path(folder, modality)), arrays, np.array(rows) - shard.start)
                with replace_file(shard.path(folder, modality)) as partial:
                    save_file(arrays, partial, metadata={"digest": shard.digest})
            bar.update(len(rows))
    log_problems(problems, len(inputs), catalog.root)


def _failed_pictures(
    encoder: ItemEncoder, inputs: Sequence[Any], shards: Sequence[Shard], missing: Sequence[Shard], folder: Path
) -> tuple[dict[Shard, list[int]], list[Shard]]:
    """
    The pictures of finished shards that could not be had and may be now: a server answers again, downloads are
    allowed, a file may be read. None of it changes the items, nor a shard's digest.

    Returns:
        `tuple[dict[Shard, list[int]], list[Shard]]`: The rows of the catalogue to try again, by shard, and the shards
        without any picture, which are encoded whole: nothing in them is known to be of this encoder.
    """
    failed: dict[Shard, list[int]] = {}
    without: list[Shard] = []
    if isinstance(encoder.image_encoder, NoEncoder):
        return failed, without
    number, unfinished = 0, set(missing)
    # In the order of the shards, which all processes share.
    for shard in shards:
        if shard in unfinished:
            continue
        with safe_open(shard.path(folder, "image"), framework="numpy") as file:
            mask = file.get_tensor("mask")
        absent = (shard.start + np.flatnonzero(~mask)).tolist()
        rows = [
            row
            for row in absent
            if inputs[row] is not None and (encoder.fetch is not None or not _is_remote(inputs[row]))
        ]
        number += len(rows)
        if rows and mask.any():
            failed[shard] = rows
        elif rows:
            without.append(shard)
    if number:
        logger.info("%s: %d pictures that could not be used before are tried again", folder, number)
    return failed, without


def _filled(before: dict[str, np.ndarray], found: dict[str, np.ndarray], places: np.ndarray) -> dict[str, np.ndarray]:
    """A shard's arrays with the pictures that were found at last; those that were not keep what stands for them."""
    places = places[found["mask"]]
    before["features"][places] = found["features"][found["mask"]]
    before["mask"][places] = True
    return before


def _unlike_finished(
    catalog: "ItemCatalog",
    encoder: ItemEncoder,
    modality: str,
    shards: Sequence[Shard],
    missing: Sequence[Shard],
    folder: Path,
    batch_size: int,
) -> str | None:
    """See [`unlike_item`]; the same in all processes, of which one looks."""

    def stored() -> Iterator[tuple[int, np.ndarray]]:
        for shard in shards:
            if shard not in missing:
                arrays = load_file(shard.path(folder, modality))
                yield from ((shard.start + row, arrays["features"][row]) for row in np.flatnonzero(arrays["mask"]))

    unlike = None
    if process_state().is_main_process:
        unlike = unlike_item(catalog, encoder, modality, stored(), batch_size)
    found: str | None = broadcast_object_list([unlike])[0]
    return found


def unlike_item(
    catalog: "ItemCatalog",
    encoder: ItemEncoder,
    modality: str,
    vectors: Iterable[tuple[int, np.ndarray]],
    batch_size: int = 16,
) -> str | None:
    """
    An item that an encoder gives other features than it had, of a first batch that needs no download.

    Args:
        catalog (`ItemCatalog`): The items.
        encoder (`ItemEncoder`): What is to be told from the one that made the features.
        modality (`str`): `"text"` or `"image"`.
        vectors (`Iterable[tuple[int, np.ndarray]]`): Rows of the catalogue, and their features of shape `(size,)`.
        batch_size (`int`, *optional*, defaults to 16): Items to try.

    Returns:
        `str` or `None`: The item's id, `None` where all are alike, or none could be tried.
    """
    tried = ((row, vector, _input(catalog.records[row], encoder, modality)) for row, vector in vectors)
    usable = ((row, vector, value) for row, vector, value in tried if value is not None and not _is_remote(value))
    chosen = list(islice(usable, batch_size))
    if not chosen:
        return None
    values = [value for _, _, value in chosen]
    if modality == "text":
        now, present = encoder.encode_texts(values, batch_size)
    else:
        now, present = encoder.encode_images(values, batch_size, root=catalog.root, problems=Counter())
    for (row, before, _), vector, is_there in zip(chosen, now, present, strict=True):
        if is_there and not _is_alike(vector.astype(float), before.astype(float)):
            return catalog.item_ids[row]
    return None


def _is_alike(now: np.ndarray, before: np.ndarray) -> bool:
    if now.shape != before.shape:
        return False
    # A NaN is unlike anything.
    return bool(np.linalg.norm(now - before) <= _ROUNDING * np.linalg.norm(before))


def _encode(
    catalog: "ItemCatalog",
    encoder: ItemEncoder,
    modality: str,
    inputs: Sequence[Any],
    rows: Sequence[int],
    batch_size: int,
    problems: Counter[str] | None = None,
) -> dict[str, np.ndarray]:
    """Features and mask of these rows of the catalogue."""
    values = [inputs[row] for row in rows]
    if modality == "text":
        features, mask = encoder.encode_texts(values, batch_size)
    else:
        features, mask = encoder.encode_images(values, batch_size, root=catalog.root, problems=problems)
    check_finite(features, [catalog.item_ids[row] for row in rows], modality)
    return {"features": features, "mask": mask}
