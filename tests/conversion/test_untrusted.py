"""Files of `torch.save` from strangers: what they say of themselves is held against what they hold, unread."""

import codecs
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from mmm4rec_hf.conversion.checkpoint import read_checkpoint


def packed(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Writes an archive in the form of `torch.save`, and returns its bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path.read_bytes()


def in_list(content: bytes, offset: int, old: bytes, new: bytes) -> bytes:
    """Other bytes at one place of every entry in an archive's list of entries."""
    parts = content.split(b"PK\x01\x02")
    offset -= 4
    assert len(parts) > 1 and all(part[offset : offset + len(old)] == old for part in parts[1:])
    changed = [part[:offset] + new + part[offset + len(old) :] for part in parts[1:]]
    return b"PK\x01\x02".join([parts[0], *changed])


def with_two_ends(path: Path, entries: dict[str, bytes]) -> bytes:
    """One reader takes the 64-bit record before the locator, another the one that the locator names."""
    content = packed(path, entries)
    (length, start), count = struct.unpack("<2I", content[-10:-2]), len(entries)
    record = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + length, 1)
    return content[:-22] + record + record + locator + content[-22:]


@pytest.mark.parametrize(
    ("trick", "message"),
    [
        ("version", "cannot be read as a checkpoint"),
        ("name", "cannot be read as a checkpoint"),
        ("two ends", "two ends"),
        ("bytes after the end", "without the end"),
        ("bytes before the list", "without the end"),
        ("names that differ in case", "two entries of one name"),
        ("compressed", "is compressed"),
    ],
)
def test_an_archive_that_readers_take_for_different_ones_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trick: str, message: str
) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"model": {"a": torch.zeros(1_000_000)}}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    if trick == "version":
        content = in_list(packed(path, entries, zipfile.ZIP_DEFLATED), 6, b"\x14\x00", b"\x40\x00")
    elif trick == "name":  # said to be UTF-8 and no UTF-8
        content = in_list(packed(path, entries, zipfile.ZIP_DEFLATED), 8, b"\x00\x00", b"\x00\x08")
        content = content.replace(b"a/data/0", b"\xff/data/0")
    elif trick == "two ends":
        content = with_two_ends(path, entries)
    elif trick == "bytes after the end":
        content = packed(path, entries) + b"\0" * 8
    elif trick == "bytes before the list":
        content = packed(path, entries)
        content = content[:-22] + bytes(8) + content[-22:]
    elif trick == "names that differ in case":
        content = packed(path, entries | {"a/data/b": b"", "a/data/B": b""})
    else:  # as much in it as it has, by bytes that nothing reads
        content = packed(path, entries, zipfile.ZIP_DEFLATED)
        padding = bytes(5_000_000)
        (start,) = struct.unpack("<I", content[-6:-2])
        content = content[:start] + padding + content[start:-6] + struct.pack("<I", start + len(padding)) + b"\0\0"
    path.write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("the file was given to torch"))
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def doubled(content: Any) -> Call:
    """The text's digits, twice as many as the text's bytes, and so on: a few bytes of pickle for each doubling."""
    return Call(codecs.encode, content, "hex")


COPIED = {str(number): number for number in range(1000)}
BOMBS: dict[str, Any] = {
    "zeros": Call(bytearray, 10**11),
    "doublings": doubled(doubled(Call(codecs.encode, "a", "latin1"))),
    "a tensor of a length": Call(torch.Tensor, 10**11),
    "copies of a dictionary": [Call(OrderedDict, COPIED), Call(OrderedDict, COPIED)],
    "copies of a state": [Call(torch._utils._rebuild_parameter_with_state, None, False, {}, COPIED)],
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_pickle_that_would_fill_the_memory_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bomb: str, legacy: bool
) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(
        {"model": {"a": torch.zeros(1)}, "optimizer": BOMBS[bomb]}, path, _use_new_zipfile_serialization=not legacy
    )
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("the file was given to torch"))
    with pytest.raises(ValueError, match="could run code or fill the memory: it asks for"):
        read_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_of_more_bytes_than_the_file_has_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"model": {"a": torch.zeros(7)}}, path, _use_new_zipfile_serialization=not legacy)
    # In the pickle 7 is K and a byte, 0x7F000000 is J and four: 2,130,706,432 floats, which take four times as much.
    many = b"J\x00\x00\x00\x7f"
    if legacy:
        content = path.read_bytes()
        path.write_bytes(content.replace(b"K\x07", many))
    else:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name).replace(b"K\x07", many) for name in archive.namelist()}
        packed(path, entries)
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("the file was given to torch"))
    with pytest.raises(ValueError, match="8,522,825,728 bytes"):
        read_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_a_run_saves_beside_its_weights_is_no_reason_to_refuse_them(tmp_path: Path, legacy: bool) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        "model": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "layer": list(layer.parameters()),
        "parts": [torch.arange(6).view(2, 3)[:, 1:], torch.zeros(0), torch.ones(2, dtype=torch.bool), torch.Size([3])],
        "epoch": 3,
        "best_val_score": 0.25,
    }
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=not legacy)
    read = read_checkpoint(tmp_path / "a.ckpt")
    assert (read.epoch, read.best_valid_score) == (3, 0.25)
    torch.testing.assert_close(read.weights, dict(layer.state_dict()))
