"""What a run leaves for those who were not there: `training.json`, its log, its time, its machine and its data."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mmm4rec_hf.evaluation.protocol import read_layout, read_source
from mmm4rec_hf.outputs import write_json
from mmm4rec_hf.plain_json import read_object
from mmm4rec_hf.saved_models import CONFIG_NAME

if TYPE_CHECKING:
    from mmm4rec_hf.data import SequenceDatasets
    from mmm4rec_hf.items import ItemCatalog

# How the log was laid out, where a model lies without the record of its run.
RECORD_NAME, LAYOUT_NAME = "training.json", "log_layout.json"
_DIGEST = re.compile("[0-9a-f]{16}")
_BLOCK = 1 << 20
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_PACKAGES = ("mmm4rec-hf", "torch", "transformers", "accelerate", "datasets", "numpy")


class RunRecord:
    """
    The record of a run, written when a session of it begins and when it ends. A run that was stopped and goes on has
    several sessions; one that was killed has no end.

    Args:
        folder (`Path`): The run's output folder, which is there.
        is_writing (`bool`, *optional*, defaults to `True`): Whether this process writes; of several one does.
    """

    def __init__(self, folder: Path, is_writing: bool = True) -> None:
        self.path = folder / RECORD_NAME
        self.is_writing = is_writing
        self.content: dict[str, Any] = {"sessions": []}
        if self.path.is_file():
            self.content = read_object(self.path)
        self._began = 0.0

    def refuse_other_data(self, **facts: Any) -> None:
        """
        Refuses to go on with a run whose data have changed below it: it would be taken for one of the data of now.

        Args:
            facts:
                Entries of the record that tell data apart, such as those of [`describe_data`] and [`describe_base`].
                Paths and names in `data` do not.

        Raises:
            ValueError: Naming what differs.
        """
        before, now = (_data_facts({name: run.get(name) for name in facts}) for run in (self.content, facts))
        # A record of an earlier version has fewer facts.
        differ = [name for name in now if before.get(name, now[name]) != now[name]]
        # Digests say nothing to people, where anything else does.
        told = [name for name in differ if not _DIGEST.fullmatch(str(now[name]))] or differ
        if differ:
            found = "; ".join(f"{name} {before[name]} before, {now[name]} now" for name in told)
            raise ValueError(
                f"{self.path.parent} holds a run on other data ({found}); give another output_dir, or "
                "remove the folder to start over"
            )

    @property
    def has_ended(self) -> bool:
        """`bool`: Whether its last session came to the end of the training."""
        return bool(self.content["sessions"]) and "ended" in self.content["sessions"][-1]

    def begin(self, step: int, processes: int = 1, **facts: Any) -> None:
        """
        Notes that a session begins.

        Args:
            step (`int`): Steps of the optimizer that are done.
            processes (`int`, *optional*, defaults to 1): How many processes train.
            facts: Entries of the record more, such as `data` and `parameters`.
        """
        self._began = time.monotonic()
        session = {
            "started": _now(),
            "first_step": step,
            "processes": processes,
            "machine": machine_class(),
            "versions": _versions(),
        }
        self.content = self.content | facts | {"sessions": [*self.content["sessions"], session]}
        self._write()

    def end(self, step: int, **facts: Any) -> None:
        """
        Notes that the session has ended well.

        Args:
            step (`int`): Steps of the optimizer that are done.
            facts: Entries of the record more, such as `log` and `kept`.
        """
        session = self.content["sessions"][-1]
        session |= {
            "ended": _now(),
            "seconds": round(time.monotonic() - self._began, 1),
            "last_step": step,
            "peak_memory": peak_memory(),
        }
        self.content |= facts
        self._write()

    def _write(self) -> None:
        if self.is_writing:
            write_json(self.path, self.content)


def _data_facts(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Facts of nested dictionaries in one, without where the data lie."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if value is None or name in ("folder", "source", "layout"):
            continue
        flat |= _data_facts(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def describe_data(sequences: "SequenceDatasets", folder: str | os.PathLike[str]) -> dict[str, Any]:
    """
    What a run was trained on.

    Args:
        sequences (`SequenceDatasets`): The splits.
        folder (`str` or `os.PathLike`): Where they lie.

    Returns:
        `dict`: `folder`, `source` and `layout` (the log's files and columns, where `prepare` noted them),
        `statistics`, `first_event` and `last_event` as ISO dates in UTC, and `items` and `events`, digests of the ids
        and of what happened, in order.
    """
    first, last = sequences.days or (None, None)
    return {
        "folder": str(folder),
        "source": read_source(folder),
        "layout": read_layout(folder),
        "statistics": sequences.statistics,
        "first_event": first,
        "last_event": last,
        "items": _digest(json.dumps(sequences.item_ids).encode()),
        "events": _digest(
            *(
                chunk.to_numpy()
                for name in ("item", "timestamp")
                for chunk in sequences.events.data.column(name).chunks
            )
        ),
    }


def describe_features(catalog: "ItemCatalog") -> dict[str, str | None]:
    """
    What a run read of its items.

    Args:
        catalog (`ItemCatalog`): With features.

    Returns:
        `dict`: A digest of the `text` and of the `image` features, and of what is missing.
    """
    parts = {"text": (catalog.text_features, catalog.text_mask), "image": (catalog.image_features, catalog.image_mask)}
    return {
        modality: None if features is None else _digest(features, *([] if mask is None else [mask]))
        for modality, (features, mask) in parts.items()
    }


def describe_base(base: str, revision: str | None = None) -> dict[str, str]:
    """
    Which weights a run started from.

    Args:
        base (`str`): A pretrained model that was loaded: its folder or Hub name, as [`find_model`] gives it.
        revision (`str`, *optional*): Of that model.

    Returns:
        `dict[str, str]`: `weights`, a digest of the files that hold them; empty where they are in files of a kind that
        a model of ours is not saved to.
    """
    # Imported here: a report is to be quick.
    from transformers.utils import cached_file

    config = cached_file(base, CONFIG_NAME, revision=revision or "main")
    files = [path for path in Path(str(config)).parent.iterdir() if _WEIGHTS.fullmatch(path.name)]
    return {"weights": digest_of_files(files)} if files else {}


def digest_of_files(paths: Iterable[Path], blocks: int | None = None) -> str:
    """
    Of what files hold, in the order of their names.

    Args:
        paths (`Iterable[Path]`): Files of any size; where they lie makes no difference.
        blocks (`int`, *optional*): Of a file of more MB as many, evenly spread from its first to its last one.
    """
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        # With the size, so that no end of one file is the next one's beginning.
        size = path.stat().st_size
        digest.update(size.to_bytes(8, "big"))
        with path.open("rb") as file:
            if blocks is None or size <= blocks * _BLOCK:
                while block := file.read(_BLOCK):
                    digest.update(block)
                continue
            for number in range(blocks):
                file.seek(number * (size - _BLOCK) // (blocks - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:16]


def _digest(*parts: Any) -> str:
    """Of bytes and arrays."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).data)
    return digest.hexdigest()[:16]


def layout_of_log(model: str | os.PathLike[str]) -> dict[str, str]:
    """
    How the log was laid out that a model was trained on.

    Args:
        model (`str` or `os.PathLike`): The model's folder, or a Hub name.

    Returns:
        `dict[str, str]`: As [`~mmm4rec_hf.evaluation.protocol.read_layout`]: what [`save_recommender`] was given, or
        of a model in the folder of its run what that records; empty where there is neither.
    """
    own = Path(model) / LAYOUT_NAME
    if own.is_file():
        return read_object(own)
    path = Path(model).parent / RECORD_NAME
    if not path.is_file():
        return {}
    return dict(read_object(path).get("data", {}).get("layout", {}))


def count_parameters(model: nn.Module) -> dict[str, int]:
    """
    Numbers of weights.

    Args:
        model (`nn.Module`): A model; features of items are no weights.

    Returns:
        `dict[str, int]`: `total` and `learned`, those that training changes.
    """
    weights = list(model.parameters())
    return {
        "total": sum(weight.numel() for weight in weights),
        "learned": sum(weight.numel() for weight in weights if weight.requires_grad),
    }


def machine_class() -> str:
    """`str`: What this process runs on, such as `2 cores of an AMD EPYC, no GPU`."""
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", cpus.read_text(), re.MULTILINE) if cpus.is_file() else []
    devices = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    counted = [f"{devices.count(name)} x {name}" for name in dict.fromkeys(devices)]
    cores = f"{os.cpu_count()} cores of an {names[0] if names else platform.processor() or platform.machine()}"
    return ", ".join([cores, *(counted or ["no GPU"])])


def peak_memory() -> dict[str, int]:
    """`dict[str, int]`: The most bytes that this process had so far, and on a GPU: `process` and `gpu`, if known."""
    peak = {}
    with contextlib.suppress(ImportError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak["process"] = used if sys.platform == "darwin" else used * 1024
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return peak


def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
