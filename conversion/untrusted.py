"""Files of `torch.save` from strangers: nothing in them is run, and none takes more memory than it has bytes."""

import io
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_MOST_VALUES = 64  # the most dimensions of a tensor; their other properties are fewer
_ARCHIVE = b"PK\x03\x04"
# What tensors of any kind are pickled with. torch.load would take more: some of that makes bytes out of a mere number.
_TENSOR_PARTS = frozenset(
    ("torch.Size", "torch.device", "torch.serialization._get_layout", "torch._tensor._rebuild_from_type_v2")
)


def check_tensor(tensor: Tensor, where: str) -> None:
    """
    Args:
        tensor (`torch.Tensor`): What a file held.
        where (`str`): What to call it in an error.

    Raises:
        ValueError: If it holds no floating-point numbers, is of another layout than a plain one, or says that it has
            more numbers than the file gave.
    """
    if tensor.dtype not in DTYPES or tensor.layout != torch.strided or tensor.is_nested or tensor.device.type != "cpu":
        kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        layout = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        raise ValueError(
            f"{where} is a tensor of type {str(tensor.dtype).removeprefix('torch.')} ({layout}, on {tensor.device}); "
            f"weights and features are strided ones of {kinds}"
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{where} claims {tensor.numel():,} numbers, which the file does not hold")


def load_tensors(path: Path) -> Any:
    """
    What a file written by `torch.save` holds, on the CPU. Only tensors and plain Python values are read: nothing in
    the file is run.

    Raises:
        ValueError: If the file is not there, is damaged, or holds anything else.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist, or is no file")
    try:
        _check_claims(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors, or is damaged, and was not loaded, because it could run code or fill "
            f"the memory: {_first_reason(error)}"
        ) from error
    except _ClaimsError as error:
        raise ValueError(
            f"{path} {error}, so torch.save did not write it, or it is damaged; it was not loaded"
        ) from error
    except Exception as error:  # damaged bytes raise errors of any class
        raise ValueError(f"{path} cannot be read as a checkpoint: {_first_reason(error)}") from error


class _ClaimsError(ValueError):
    """A file that says something of itself that no file of `torch.save` says; the text goes on after its path."""


def _check_claims(path: Path) -> None:
    """
    Holds what a file says that it holds against what it has, before `torch.load` takes memory for it.

    Raises:
        _ClaimsError: If the file says that it holds more than it has, or could be read in two ways.
        pickle.UnpicklingError: If its pickle asks for more than tensors need.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_ARCHIVE)) != _ARCHIVE:  # how torch.load, too, tells an archive from the older form
            file.seek(0)
            for _ in range(3):  # a magic number, a version and the kind of machine
                _storages(file)
            held = sum(_storages(file).values())
            if held > size:
                raise _ClaimsError(f"would take {held:,} bytes in memory and has {size:,}")
            return
        _check_end(file, size)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        held = sum(entry.file_size for entry in entries)
        if held > size:
            raise _ClaimsError(f"would take {held:,} bytes unpacked and has {size:,}")
        # A compressed entry may unpack to another length than the one given, and torch ignores the case of names.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise _ClaimsError("is compressed")
        sizes = {entry.orig_filename: entry.file_size for entry in entries}
        if len({name.lower() for name in sizes}) < len(entries):
            raise _ClaimsError("has two entries of one name")
        folder = entries[0].orig_filename.partition("/")[0] if entries else ""
        for key, claimed in _storages(io.BytesIO(archive.read(f"{folder}/data.pkl"))).items():
            held = sizes.get(f"{folder}/data/{key}", 0)
            if claimed != held:
                raise _ClaimsError(f"claims {claimed:,} bytes for tensor {key[:10]} and holds {held:,}")


def _check_end(file: BinaryIO, size: int) -> None:
    """
    Readers find the list of an archive's entries in different ways, and may find different ones, unless the archive
    ends as `torch.save` ends it: with the list, the 64-bit record, its locator and the end record, nothing between.

    Raises:
        _ClaimsError: If it ends in another way.
    """
    file.seek(max(size - 98, 0))
    tail = file.read().rjust(98, b"\0")
    record, locator, end = tail[:56], tail[56:76], tail[76:]
    (length, start), list_end = struct.unpack("<2I", end[12:20]), size - 22
    if locator.startswith(b"PK\x06\x07"):
        (length, start), list_end = struct.unpack("<2Q", record[40:]), size - 98
        if not record.startswith(b"PK\x06\x06") or struct.unpack("<Q", locator[8:16])[0] != list_end:
            raise _ClaimsError("is an archive with two ends")
    if not end.startswith(b"PK\x05\x06") or end[20:] != b"\0\0" or start + length != list_end:
        raise _ClaimsError("is an archive without the end that torch.save writes")


def _storages(file: BinaryIO) -> dict[str, int]:
    """
    The bytes that the tensors of the next pickle in a file claim, by the storage's key. None is made.

    Raises:
        pickle.UnpicklingError: If the pickle asks for more than tensors need.
    """
    start = file.tell()
    # No byte of a later protocol is in a file that torch.load reads, and some of them take memory by a mere number.
    later = [opcode.name for opcode, _, _ in pickletools.genops(file) if opcode.proto > 2]
    if later:
        raise pickle.UnpicklingError(f"it has the code {later[0]}")
    file.seek(start)
    claims = _Claims(file, encoding="utf-8")
    claims.load()
    return claims.storages


class _Dictionary(OrderedDict[Any, Any]):
    """Filled as `pickle` fills one: what a pickle names once and copies often would take its square in memory."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()
        if arguments:
            raise pickle.UnpicklingError("it asks for a copy of a dictionary")

    def __setstate__(self, state: Any) -> None:
        _no_tensor(state)


def _no_tensor(*arguments: Any) -> None:
    if any(isinstance(argument, list | tuple | dict) and len(argument) > _MOST_VALUES for argument in arguments):
        raise pickle.UnpicklingError(f"it asks for a tensor or dictionary with more than {_MOST_VALUES} properties")


class _Claims(pickle._Unpickler):  # the one in C takes memory by the number of a memo
    """Reads a pickle with nothing in the place of tensors, and notes what storages they ask for."""

    def __init__(self, file: BinaryIO, **options: Any) -> None:
        super().__init__(file, **options)
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name == "collections.OrderedDict":
            return _Dictionary
        if full_name == "torch.storage.UntypedStorage":
            return torch.uint8
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        if module == "torch" and name.endswith("Storage"):
            return torch.serialization.StorageType(name).dtype
        if full_name.startswith("torch._utils._rebuild_") or full_name in _TENSOR_PARTS:
            return _no_tensor
        raise pickle.UnpicklingError(f"it asks for {full_name}")

    def persistent_load(self, pid: Any) -> None:
        kind, dtype, key, _, count = pid[:5] if type(pid) is tuple and len(pid) >= 5 else (None,) * 5
        known = kind == "storage" and isinstance(dtype, torch.dtype) and type(key) is str and type(count) is int
        if not known or count < 0:
            raise pickle.UnpicklingError("it asks for a storage in an unknown way")
        self.storages[key] = max(self.storages.get(key, 0), count * dtype.itemsize)


def _first_reason(error: Exception) -> str:
    """The sentence of torch's page of advice that names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("WeightsUnpickler error:")]
    return (named or lines or [type(error).__name__])[0].removeprefix("WeightsUnpickler error: ")[:300]
