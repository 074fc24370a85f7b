"""
Runs transformers' own test suite against MMM4Rec: `python tests/hf_suite/run.py [arguments of pytest]`.

Its sources are not in transformers' wheel, so the source distribution of the installed version is downloaded into the
cache; nothing of it is kept in this repository.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from mmm4rec_hf.registry_packages import default_cache_dir

HERE = Path(__file__).resolve().parent

# What the suite imports and the source distribution leaves out: tests of exporters and of text generation, which do
# not concern a recommender, and the way its own CI keeps copies of remote files.
STUBS = {
    "transformers_tests/__init__.py": "",
    "transformers_tests/exporters/__init__.py": "",
    "transformers_tests/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "transformers_tests/generation/__init__.py": "",
    "transformers_tests/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    return url\n",
}


def fetch_sources() -> Path:
    """Folder that holds the installed transformers' tests as the package `transformers_tests`."""
    release = version("transformers")
    folder = default_cache_dir() / f"transformers-tests-{release}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as partial:
        archive = _download(release, Path(partial))
        _unpack(archive, f"transformers-{release}/tests/", Path(partial) / "suite")
        (Path(partial) / "suite").rename(folder)
    return folder


def _download(release: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--no-binary=:all:", "--dest", str(folder), f"transformers=={release}"],
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return next(folder.glob("transformers-*.tar.gz"))


def _unpack(archive: Path, prefix: str, folder: Path) -> None:
    for name, content in STUBS.items():
        stub = folder / name
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text(content, encoding="utf-8")
    with tarfile.open(archive) as tar:
        for member in tar:
            inner = member.name.removeprefix(prefix)
            source = tar.extractfile(member) if member.isfile() else None
            # The files at the top are all that the tests of one model need.
            if source is None or not member.name.startswith(prefix) or "/" in inner:
                continue
            with source, (folder / "transformers_tests" / inner).open("wb") as sink:
                shutil.copyfileobj(source, sink)


def main() -> int:
    """Fetches the sources if need be and runs the suite; the exit status is pytest's."""
    environment = {**os.environ, "MMM4REC_HF_SUITE": str(fetch_sources()), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(HERE), *sys.argv[1:]],
        env=environment,
        cwd=HERE.parents[1],
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
