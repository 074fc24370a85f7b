"""Every block of code on the pages of docs/ runs as it stands, page by page, on a shop of seven films."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from mmm4rec_hf.cli import demo
from mmm4rec_hf.items import ItemEncoder

from ..conversion.conftest import published_files  # noqa: F401
from ..hub.loopback import LoopbackHub
from .blocks import Block, Runner, blocks_of

pytestmark = pytest.mark.slow

# Pages whose blocks a test below runs, and blocks that are no command to be run.
PAGES = {
    "quickstart.md", "your-data.md", "finetune.md", "report.md", "pretrain.md", "serve.md", "convert.md", "share.md",
    "command-line.md",
}  # fmt: skip


def test_no_page_with_code_is_left_out(repository: Path) -> None:
    with_code = {page.name for page in (repository / "docs").rglob("*.md") if blocks_of(page)}
    assert with_code == PAGES
    languages = {block.language for name in PAGES for block in blocks_of(repository / "docs" / name)}
    # `json` is an answer of the server.
    assert languages == {"bash", "python", "json"}


def test_no_code_is_hidden_from_these_tests(repository: Path) -> None:
    # Four spaces begin a block of code as well, which `blocks_of` does not see; in a list they go on with its item.
    for page in (repository / "docs").glob("*.md"):
        text = re.sub(r"^```\w+\n.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        assert not re.findall(r"\n\n    (?![-*] ).*", text), page.name


def run_page(repository: Path, name: str, runner: Runner) -> str:
    for block in blocks_of(repository / "docs" / name):
        runner.run(block)
    return runner.output


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo with the encoders of the working directory, and without its bound of five events."""
    encoder = {"text_encoder": "minilm", "image_encoder": "efficientnet-lite0"}
    monkeypatch.setattr(demo, "load_encoder", lambda text_fields: ItemEncoder(**encoder, text_fields=text_fields))


def test_quick_start(repository: Path, films: Path, small_demo: None) -> None:
    runner = Runner(repository)
    first, *others = blocks_of(repository / "docs" / "quickstart.md")
    # `make demo` is `mmm4rec demo` in an environment that it makes first.
    assert first == Block("bash", "make demo\n")
    assert "\t$(BIN)/mmm4rec demo\n" in (repository / "Makefile").read_text()
    for block in others:
        runner.run(block)
    assert "Film " in runner.output and (films / "report.html").is_file()
    assert (films / "demo" / "evaluation" / "metrics.json").is_file()


def test_your_own_data(repository: Path, films: Path) -> None:
    output = run_page(repository, "your-data.md", Runner(repository))
    assert "1 new items beside 7" in output and "new stands at place" in output
    users = pl.read_csv("recommendations.csv", infer_schema=False)["user_id"].unique()
    assert sorted(users) == [str(n) for n in range(8)]
    assert pl.read_parquet("recommendations.parquet")["user_id"].n_unique() == 8


def test_fine_tune(repository: Path, films: Path) -> None:
    runner = Runner(repository)
    log = pl.read_csv("interactions.csv", infer_schema=False)
    log.head(24).write_csv("january.csv")
    log.tail(24).write_csv("february.csv")
    base = "mmm4rec pretrain domains='[{name: films, catalog: catalog, sequences: sequences}]' output_dir=base"
    for block in blocks_of(repository / "docs" / "finetune.md"):
        if "start_from=base/model" in block.text:
            runner.run(Block("bash", f"{base} max_steps=1000 model.num_hidden_layers=2"))
        runner.run(block)
    for name in ("run", "run-february", "small", "published", "from-base", "frozen", "two-processes"):
        assert (films / name / "evaluation" / "baselines.parquet").is_file(), name


def test_report(repository: Path, films_with_run: Path) -> None:
    assert "p_value" in run_page(repository, "report.md", Runner(repository))
    assert "<h1>Films</h1>" in (films_with_run / "films.html").read_text()


def test_pretrain(repository: Path, films: Path) -> None:
    # Spark lives for seconds here: its code is not worth the second compiler's time.
    java = "-Xmx1g -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dspark.ui.enabled=false"
    runner = Runner(repository, {"JAVA_TOOL_OPTIONS": java})
    run_page(repository, "pretrain.md", runner)
    for name in ("base", "base-two", "base-machines", "base-streamed"):
        assert (films / name / "model" / "config.json").is_file(), name
    assert len(list((films / "data/spark/sequences/shards").glob("shard-*.parquet"))) == 4


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_serve(repository: Path, films_with_run: Path) -> None:
    serve, asked, answer, *others = blocks_of(repository / "docs" / "serve.md")
    assert [block.language for block in (serve, asked, answer)] == ["bash", "bash", "json"]
    Image.new("RGB", (20, 16), "blue").save("mug.jpg")
    runner = Runner(repository)
    words = serve.text.replace("7860", "0").split()
    server = subprocess.Popen(
        [sys.executable, "-m", "mmm4rec_hf.cli", *words[1:]], env=runner.environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        said = next(line for line in server.stderr if line.startswith("Open http"))
        address = said.split()[1]
        assert urllib.request.urlopen(f"{address}/docs", timeout=60).status == 200
        runner.run(Block("bash", asked.text.replace("http://127.0.0.1:7860", address)))
        five, two, added = [json.loads(line) for line in runner.output.splitlines()]
        assert len(five["recommendations"][0]) == 5
        assert {item["item_id"] for item in two["recommendations"][0]} < {"181", "4", "7"}
        assert added["item_id"] == "mug-1" and added["num_items"] == 8
        body = {"histories": [{"items": ["50", "172"]}], "candidates": ["no-1", "no-2"]}
        request = urllib.request.Request(
            f"{address}/recommend", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        assert json.load(urllib.request.urlopen(request, timeout=60)) == json.loads(answer.text)
    finally:
        server.terminate()
        server.wait(60)
    for block in others:
        runner.run(block)
    assert Path("user_encoder.onnx").is_file()


def test_convert(repository: Path, films: Path, published_files) -> None:  # noqa: F811
    files = published_files("base_1layer")
    files.checkpoint.rename(films / "best_epoch_model.ckpt")
    files.config.rename(films / "config.yaml")
    files.data.rename(films / "FOLDER")
    run_page(repository, "convert.md", Runner(repository))
    assert (films / "model.ckpt").is_file() and (films / "model-again" / "config.json").is_file()


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    hub = LoopbackHub({"hf_of_the_author": "org"})
    yield hub
    hub.close()


def test_share(repository: Path, films_with_run: Path, hub: LoopbackHub) -> None:
    environment = {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(films_with_run / "home"), "HF_TOKEN": "hf_of_the_author",
    }  # fmt: skip
    runner = Runner(repository, environment)
    commands, code = blocks_of(repository / "docs" / "share.md")
    lines = [shlex.split(line) for line in commands.text.splitlines()]
    assert {line[0] for line in lines} == {"mmm4rec"}
    pushes = "".join(f"assert main({line[1:]}) == 0\n" for line in lines)
    # In a process of their own: the address of the Hub is read when its client is imported.
    run = [sys.executable, "-c", f"from mmm4rec_hf.cli import main\n{pushes}{code.text}"]
    done = subprocess.run(run, env=runner.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert hub.repositories["model", "org/films"].private


def test_command_line(repository: Path, films: Path) -> None:
    run_page(repository, "command-line.md", Runner(repository))
    assert "complete" in (films / "mmm4rec.bash").read_text()
