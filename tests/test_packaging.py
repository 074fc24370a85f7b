"""What is installed, what it imports, and what the files of the repository may say."""

import ast
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
MODELING = sorted((ROOT / "modeling").glob("*.py"))
# Where each folder of the repository is installed.
PLACES = {"mmm4rec_hf/": "mmm4rec_hf/", "modeling/": "mmm4rec_hf/modeling/", "conversion/": "mmm4rec_hf/conversion/"}

# Prints where the packages come from, and what the two folders are as top-level packages.
WHERE = """
import importlib.util, mmm4rec_hf, mmm4rec_hf.modeling, mmm4rec_hf.conversion
for module in (mmm4rec_hf, mmm4rec_hf.modeling, mmm4rec_hf.conversion):
    print(module.__file__)
print([importlib.util.find_spec(name) for name in ("modeling", "conversion")])
"""


def _tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so there is no list of tracked files")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def _run(code: str, cwd: Path, **environment: str) -> str:
    """Runs code in a fresh interpreter that sees nothing of the checkout but what is installed."""
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tracked files, built beside the checkout so that nothing is left in it."""
    source = tmp_path_factory.mktemp("source")
    for name in _tracked_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist"), str(source)],
        check=True,
        capture_output=True,
    )
    (built,) = (source / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel alone is installed."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    return target


def test_the_wheel_holds_each_tracked_file_of_the_packages_once_and_nothing_else(wheel: Path):
    expected = sorted(
        place + name.removeprefix(folder)
        for name in _tracked_files()
        for folder, place in PLACES.items()
        if name.startswith(folder) and not (ROOT / name).is_symlink()
    )
    with zipfile.ZipFile(wheel) as archive:
        members = [member for member in archive.infolist() if ".dist-info/" not in member.filename]
    assert sorted(member.filename for member in members) == expected
    assert "mmm4rec_hf/py.typed" in expected
    assert not [member.filename for member in members if stat.S_ISLNK(member.external_attr >> 16)]


def test_the_wheel_names_one_package_one_command_and_its_licence(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        info = {name.split(".dist-info/")[1]: name for name in archive.namelist() if ".dist-info/" in name}
        assert archive.read(info["top_level.txt"]).split() == [b"mmm4rec_hf"]
        assert archive.read(info["entry_points.txt"]).split(b"\n", 1)[1].strip() == b"mmm4rec = mmm4rec_hf.cli:main"
        assert archive.read(info["licenses/LICENSE"]) == (ROOT / "LICENSE").read_bytes()


def test_an_installed_wheel_imports_from_where_it_is_installed(installed: Path, tmp_path: Path):
    assert _run(WHERE, tmp_path, PYTHONPATH=str(installed)).splitlines() == [
        str(installed / "mmm4rec_hf" / "__init__.py"),
        str(installed / "mmm4rec_hf" / "modeling" / "__init__.py"),
        str(installed / "mmm4rec_hf" / "conversion" / "__init__.py"),
        "[None, None]",
    ]


def test_an_editable_install_reads_the_checkout_and_makes_no_second_copies(tmp_path: Path):
    *files, top_level = _run(WHERE, tmp_path).splitlines()
    if not Path(files[0]).is_relative_to(ROOT):
        pytest.skip(f"mmm4rec_hf is installed at {files[0]}, not editable from this checkout")
    assert [Path(file).resolve().relative_to(ROOT).as_posix() for file in files] == [
        "mmm4rec_hf/__init__.py",
        "modeling/__init__.py",
        "conversion/__init__.py",
    ]
    assert top_level == "[None, None]"


def test_importing_the_package_loads_nothing_that_reads_data(tmp_path: Path):
    # Pillow is not on the list: transformers imports it with its base classes wherever it is installed.
    code = (
        "import sys, mmm4rec_hf\n"
        "heavy = {'datasets', 'polars', 'pandas', 'pyarrow', 'narwhals', 'mmm4rec_hf.data', 'mmm4rec_hf.items'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    assert _run(code, tmp_path) == "[]"


def test_every_module_is_imported_under_one_name_only():
    code = (
        "import importlib, pkgutil, sys, mmm4rec_hf\n"
        "for module in pkgutil.walk_packages(mmm4rec_hf.__path__, 'mmm4rec_hf.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'modeling', 'conversion'}))\n"
    )
    assert _run(code, ROOT) == "[]"


def _imports(path: Path) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Each import of a module, and whether it stands under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, id(node) in hidden


@pytest.mark.parametrize("path", MODELING, ids=lambda path: path.name)
def test_the_modeling_files_import_torch_transformers_and_their_own_siblings_only(path: Path):
    allowed = {"torch", "transformers", "huggingface_hub", "numpy"} | sys.stdlib_module_names
    for node, _ in _imports(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            names = [node.module] if node.level == 0 and node.module else []
        assert {name.split(".")[0] for name in names} <= allowed


@pytest.mark.parametrize("path", MODELING, ids=lambda path: path.name)
def test_the_modeling_files_import_siblings_in_the_one_form_that_travels(path: Path):
    siblings = set()
    for node, under_type_checking in _imports(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module and "." not in node.module, ast.unparse(node)
            # The package's own file stays at home.
            assert path.name == "__init__.py" or not under_type_checking, ast.unparse(node)
            assert (ROOT / "modeling" / f"{node.module}.py").exists()
            siblings.add(node.module)
    # transformers looks for relative imports line by line, in docstrings too.
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"^\s*from\s+\.(\S+)\s+import", text, re.MULTILINE)) == siblings
    assert not re.findall(r"^\s*import\s+\.", text, re.MULTILINE)


def test_no_package_is_pinned_in_two_files():
    pins: dict[str, Path] = {}
    for path in [ROOT / "constraints.txt", *sorted((ROOT / "benchmarks").rglob("requirements.txt"))]:
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                # pip takes both files at once, and refuses two versions of one package.
                name = canonicalize_name(Requirement(line).name)
                assert pins.setdefault(name, path) == path, f"{name} in {pins[name]} and {path}"
    assert len(pins) > 100


def _dependencies() -> list[Requirement]:
    # Of Python 3.11 and later.
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(line) for lines in (project["dependencies"], *extras) for line in lines]


def test_each_dependency_has_a_lowest_and_a_highest_version_and_its_pin_lies_between():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    dependencies = [each for each in _dependencies() if each.name != "mmm4rec-hf"]
    assert len(dependencies) > 40
    for each in dependencies:
        assert sorted(bound.operator for bound in each.specifier) == ["<", ">="], str(each)
        assert pinned[canonicalize_name(each.name)] in each.specifier, str(each)


# Forms that keys and tokens have, each with an example; put together here, so that this file holds none.
SECRETS = {
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[\w+/=]{20}": "-----BEGIN OPENSSH PRIVATE KEY" + "-----\n" + "b3Bl" * 10,
    r"\bhf_[A-Za-z]{34}\b": "hf_" + "aB" * 17,
    r"\bpypi-[\w-]{50,}": "pypi-" + "AgEI" * 20,
    r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{60,}": "ghp_" + "a1" * 18,
    r"\bA(KI|SI)A[A-Z0-9]{16}\b": "AKIA" + "A7" * 8,
    r"\bsk-[\w-]{32,}": "sk-" + "aB3" * 12,
    r"\bxox[abprs]-[\w-]{10,}": "xoxb-" + "1234567890",
    r"\bAIza[\w-]{35}\b": "AIza" + "a" * 35,
    r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}": "eyJ" + "hbGciOiJI" * 2 + ".eyJ" + "a" * 12 + "." + "b" * 12,
    r"(?<!\w)https?://[^\s/:@'\"{}]+:(?!\{)[^\s/:@'\"{}]+@": "https://user:" + "word@example.org",
    r"(?i)\b(password|passwd|secret|api_?key)['\"]?\s*[:=]\s*['\"][^\s'\"{}<>]{8,}['\"]": "pass"
    + "word = 'hunter2hunter2'",
}


@pytest.mark.parametrize("form", SECRETS)
def test_no_file_holds_what_looks_like_a_key_or_a_token(form: str):
    assert re.search(form, SECRETS[form])
    texts = 0
    for name in _tracked_files():
        path = ROOT / name
        if path.is_symlink():
            continue
        content = path.read_bytes()
        texts += b"\0" not in content[:1000]
        found = re.search(form.encode(), content)
        assert found is None, f"{name}: {found[0].decode(errors='replace')!r}" if found else None
    assert texts > 300
