"""Packages are fetched by the real pip, from a folder of wheels that the tests make: no network."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmm4rec_hf import registry_packages
from mmm4rec_hf.registry_packages import default_cache_dir, fetch_package

NAME, VERSION, PREFIX = "toy-data", "1.0", "toy_data/log/"
LOG = b"user_id\titem_id\n" * 4000
FILES = {"toy_data/__init__.py": b"", "toy_data/log/toy.inter": LOG, "toy_data/log/more/items.txt": b"a\nb\n"}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all the index pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _make_wheel(index: Path, extra: dict[str | zipfile.ZipInfo, bytes] | None = None) -> str:
    wheel = index / "toy_data-1.0-py3-none-any.whl"
    metadata = {
        "toy_data-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: toy-data\nVersion: 1.0\n",
        "toy_data-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "toy_data-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in {**FILES, **metadata, **(extra or {})}.items():
            archive.writestr(name, content)
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


EXPECTED = {"toy.inter": LOG, "more/items.txt": b"a\nb\n"}


def test_the_wanted_folder_and_nothing_else_is_unpacked(index, cache):
    folder = fetch_package(NAME, VERSION, _make_wheel(index), PREFIX, cache)
    assert folder.name == "log"
    assert _content(folder) == EXPECTED
    assert [entry.name[:13] for entry in cache.iterdir()] == ["toy-data-1.0-"]
    assert not list(cache.rglob("__init__.py"))


def test_the_second_time_needs_no_index(index, cache):
    sha256 = _make_wheel(index)
    first = fetch_package(NAME, VERSION, sha256, PREFIX, cache)
    shutil.rmtree(index)
    assert fetch_package(NAME, VERSION, sha256, PREFIX, cache) == first


def test_two_folders_of_one_wheel_are_kept_side_by_side(index, cache):
    sha256 = _make_wheel(index)
    both = [fetch_package(NAME, VERSION, sha256, prefix, cache) for prefix in (PREFIX, "toy_data/log/more/")]
    shutil.rmtree(index)
    assert [fetch_package(NAME, VERSION, sha256, prefix, cache) for prefix in (PREFIX, "toy_data/log/more/")] == both
    assert _content(both[1]) == {"items.txt": b"a\nb\n"}


@pytest.mark.parametrize("damage", ["truncated", "removed", "no manifest", "broken manifest"])
def test_a_damaged_entry_is_fetched_again(index, cache, caplog, damage):
    sha256 = _make_wheel(index)
    folder = fetch_package(NAME, VERSION, sha256, PREFIX, cache)
    (manifest,) = cache.glob("*/manifest.json")
    if damage == "truncated":
        (folder / "toy.inter").write_bytes(LOG[:100])
    elif damage == "removed":
        (folder / "toy.inter").unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text('{"toy_data/log')
    assert _content(fetch_package(NAME, VERSION, sha256, PREFIX, cache)) == EXPECTED
    assert "damaged or incomplete" in caplog.text
    assert len(list(cache.iterdir())) == 1


def test_a_wheel_with_another_checksum_is_refused(index, cache):
    actual = _make_wheel(index)
    with pytest.raises(RuntimeError) as error:
        fetch_package(NAME, VERSION, "0" * 64, PREFIX, cache)
    assert actual in str(error.value)
    assert "0" * 64 in str(error.value)
    assert "\n" not in str(error.value)
    assert list(cache.iterdir()) == []


def _link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    "member",
    [
        "toy_data/log/../../../escaped.txt",
        "toy_data/log/..\\..\\escaped.txt",
        _link("toy_data/log/escaped.txt"),
    ],
    ids=["dots", "backslashes", "link"],
)
def test_a_member_that_leads_out_of_the_folder_is_refused(index, cache, tmp_path, member):
    sha256 = _make_wheel(index, {member: b"/etc/passwd"})
    with pytest.raises(RuntimeError, match="leads out of the folder"):
        fetch_package(NAME, VERSION, sha256, PREFIX, cache)
    assert list(cache.iterdir()) == []
    assert not list(tmp_path.rglob("escaped*"))


def test_a_wheel_without_the_wanted_folder_is_an_error(index, cache):
    with pytest.raises(RuntimeError, match="holds no files below toy_data/images/"):
        fetch_package(NAME, VERSION, _make_wheel(index), "toy_data/images/", cache)


def test_an_unpack_that_fails_leaves_nothing_and_the_next_one_succeeds(index, cache, monkeypatch):
    def full_disk(source, sink):
        sink.write(b"half")
        raise OSError(28, "No space left on device")

    sha256 = _make_wheel(index)
    with monkeypatch.context() as broken:
        broken.setattr(registry_packages.shutil, "copyfileobj", full_disk)
        with pytest.raises(OSError, match="No space left"):
            fetch_package(NAME, VERSION, sha256, PREFIX, cache)
    assert list(cache.iterdir()) == []
    assert _content(fetch_package(NAME, VERSION, sha256, PREFIX, cache)) == EXPECTED


def test_a_process_killed_while_it_unpacks_leaves_nothing_that_is_used(index, cache):
    sha256 = _make_wheel(index)
    script = (
        "import os, sys\n"
        "from mmm4rec_hf import registry_packages\n"
        "registry_packages.shutil.copyfileobj = lambda source, sink: os._exit(9)\n"
        "registry_packages.fetch_package(*sys.argv[1:])\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, NAME, VERSION, sha256, PREFIX, str(cache)], check=False)
    assert killed.returncode == 9
    assert _content(fetch_package(NAME, VERSION, sha256, PREFIX, cache)) == EXPECTED


def test_several_at_once_all_get_the_whole_folder(index, cache):
    sha256 = _make_wheel(index)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(fetch_package, NAME, VERSION, sha256, PREFIX, cache) for _ in range(4)]
        folders = {future.result() for future in futures}
    assert len(folders) == 1
    assert _content(folders.pop()) == EXPECTED
    assert len(list(cache.iterdir())) == 1


def test_an_entry_that_another_process_completed_meanwhile_is_used(index, cache, monkeypatch):
    sha256 = _make_wheel(index)
    publish = registry_packages._publish

    def publish_second(unpacked: Path, entry: Path, replaced: Path) -> None:
        shutil.copytree(unpacked, entry)
        publish(unpacked, entry, replaced)

    monkeypatch.setattr(registry_packages, "_publish", publish_second)
    assert _content(fetch_package(NAME, VERSION, sha256, PREFIX, cache)) == EXPECTED
    assert len(list(cache.iterdir())) == 1


def test_without_pip_the_error_says_how_to_get_it(index, cache, monkeypatch):
    monkeypatch.setattr(registry_packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="-m ensurepip"):
        fetch_package(NAME, VERSION, _make_wheel(index), PREFIX, cache)


def test_a_package_that_no_index_has_is_one_line_with_cause_and_remedy(index, cache):
    with pytest.raises(RuntimeError) as error:
        fetch_package(NAME, VERSION, "0" * 64, PREFIX, cache)
    assert "toy-data 1.0" in str(error.value)
    assert "No matching distribution found" in str(error.value)
    assert "pip config list" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_prefix_that_is_no_folder_is_refused(cache):
    with pytest.raises(ValueError, match="'toy_data/log'"):
        fetch_package(NAME, VERSION, "0" * 64, "toy_data/log", cache)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MMM4REC_CACHE", str(tmp_path / "elsewhere"))
    assert default_cache_dir() == tmp_path / "elsewhere"
    monkeypatch.delenv("MMM4REC_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "mmm4rec_hf"
