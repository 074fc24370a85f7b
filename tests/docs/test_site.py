"""The site builds without a warning, and a reader needs no network."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbclient
import nbformat
import pytest

pytestmark = pytest.mark.slow


class Fetched(HTMLParser):
    """What a browser fetches for a page, and the page's text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video"):
            self.addresses.append(known.get("src") or "")
        if tag == "link" and known.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.addresses.append(known.get("href") or "")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 18
    for page in pages:
        for address in Fetched(page.read_text(encoding="utf-8")).addresses:
            assert not re.match(r"(https?:)?//", address), (page.name, address)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import\s*)[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_public_names_and_every_command_have_their_place(site: Path) -> None:
    import mmm4rec_hf
    from mmm4rec_hf.cli import COMMANDS

    reference = "".join(Fetched(page.read_text(encoding="utf-8")).text for page in (site / "api").glob("*.html"))
    for name in mmm4rec_hf.__all__:
        assert name in reference, name
    # Transformers' form of docstrings is read: no marks of it are left, arguments have their types.
    assert "*optional*" not in reference and "[`" not in reference
    trainer = (site / "api" / "training.html").read_text(encoding="utf-8")
    assert re.search(r"sampled\s+\(\s*int\s*, default:\s+None", Fetched(trainer).text)
    commands = Fetched((site / "command-line.html").read_text(encoding="utf-8")).text
    for command in COMMANDS:
        assert f"usage: mmm4rec {command}" in commands, command
    assert "usage: mmm4rec convert to-published" in commands


def test_the_notebook_runs_and_its_model_beats_what_needs_no_training(repository: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(repository / "docs" / "quickstart.ipynb", 4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output
    )
    hits = {name: float(hit) for name, hit in re.findall(r"^(\S.*?)\s+HR@1 (\d\.\d+)", printed, re.MULTILINE)}
    assert set(hits) == {"MMM4Rec", "popularity", "co-occurrence", "similar text"}
    # A user keeps to a colour in nine events of ten: no ranking does better than that.
    assert max(hits["popularity"], hits["co-occurrence"], hits["similar text"]) < hits["MMM4Rec"] <= 0.95
