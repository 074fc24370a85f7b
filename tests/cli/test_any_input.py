"""Whatever a command is given, it is done, or fails with one line; never with a traceback."""

import contextlib
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmm4rec_hf.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")
relaxed = settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def run(*arguments: str) -> int:
    """The exit status of a command; a failure is one line at the end of stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(arguments))
        except SystemExit as error:
            assert error.code in (0, 2)
            return int(error.code)
    assert status in (0, 1, 2)
    errors = [line for line in err.getvalue().splitlines() if line.startswith("mmm4rec: error: ")]
    assert len(errors) == min(status, 1) and "Traceback" not in err.getvalue()
    assert status == 0 or (errors[0] == err.getvalue().splitlines()[-1] and len(errors[0]) > len("mmm4rec: error: "))
    return status


words = st.sampled_from(["0", "-1", "1", "1.5", "", "é", "a b", "user", "item", "time", "s", "1e400", "nan", "-"])
lines = st.lists(
    st.sampled_from(
        ["user,item,time", "u,a,1", "u,b,2", "u,,3", "v,a,noon", '{"user": 1}', "{'item': 'a'}", "\x00", '"']
    ),
    max_size=6,
)
names = st.sampled_from(
    ["log.csv", "log.tsv", "log.jsonl", "log.json.gz", "log.parquet", "log.inter", "u.data", "log"]
)


@relaxed
@given(names, lines | st.binary(max_size=60), st.lists(st.tuples(st.sampled_from(
    ["--format", "--k-core", "--split", "--valid-from", "--test-from", "--user-column", "--time-unit", "--items",
     "--order-column", "--shards"]), words | names), max_size=3))  # fmt: skip
def test_prepare(name: str, content: list[str] | bytes, options: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content if isinstance(content, bytes) else "\n".join(content).encode())
        output = Path(folder) / "sequences"
        status = run("prepare", str(path), "--output", str(output), *(word for pair in options for word in pair))
        assert status == 0 or not output.exists()


@relaxed
@given(
    st.sampled_from(["items.jsonl", "items.csv", "u.item", "shop.item", "items.parquet"]),
    st.lists(st.sampled_from(['{"item_id": "a", "title": "x"}', '{"item_id": 1.5}', "item_id,title", "a,b", "1|2"]),
             max_size=3) | st.binary(max_size=60),
    st.lists(st.tuples(st.sampled_from(["--format", "--id-column", "--text-fields", "--batch-size", "--shard-size",
                                        "--sequences", "--missing"]), words | names), max_size=2),
)  # fmt: skip
def test_encode(shop: Path, name: str, content: list[str] | bytes, options: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content if isinstance(content, bytes) else "\n".join(content).encode())
        encoder = ["--text-encoder", str(shop / "bert"), "--output", str(Path(folder) / "catalog")]
        run("encode", str(path), *encoder, *(word for pair in options for word in pair))


@settings(relaxed, max_examples=30)
@given(
    st.lists(st.sampled_from(['{"items": ["1"]}', '{"items": 1}', '{"items": []}', '{"items": [1, null]}', "1", "[]",
                              '{"items": ["1"], "timestamps": [5]}', '{"items": ["1"], "timestamps": {}}',
                              '{"items": ["1"], "timestamps": [null]}', "user,item,time", "u,1,2"]), max_size=3)
    | st.binary(max_size=60),
    st.sampled_from(["users.jsonl", "users.parquet", "users.csv", "users.jsonl.gz"]),
    st.lists(st.tuples(st.sampled_from(["--top-k", "--candidates", "--unknown-items", "--empty-histories", "--device",
                                        "--batch-size", "--timestamps", "--time-unit"]), words | names), max_size=2),
)  # fmt: skip
def test_recommend(model: Path, content: list[str] | bytes, name: str, options: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content if isinstance(content, bytes) else "\n".join(content).encode())
        target = Path(folder) / "out.jsonl"
        words = (word for pair in options for word in pair)
        status = run("recommend", str(model), "--input", str(path), "--output", str(target), *words)
        assert target.exists() == (status == 0)
        assert not list(Path(folder).glob(".*"))


keys = st.sampled_from(
    ["sequences", "catalog", "output_dir", "start_from", "model", "model.hidden_size", "model.num_hidden_layers",
     "training", "training.learning_rate", "training.num_train_epochs", "optimizer", "freeze_encoder", "domains",
     "domains.0.name", "max_steps", "seed", "early_stopping_patience", "tarining", ""]
)  # fmt: skip
yaml_values = st.sampled_from(
    ["1", "-1", "0", "x", "", "null", "[1]", "{a: 1}", "1e-3", "true", "'", "!!python/name:os.x"]
)


@relaxed
@given(
    st.sampled_from(["finetune", "pretrain"]),
    st.lists(st.tuples(keys, yaml_values), max_size=4),
    st.binary(max_size=40),
)
def test_recipes(command: str, changes: list[tuple[str, str]], content: bytes) -> None:
    options = [f"{key}={value}" for key, value in changes]
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_bytes(content)
        assert run(command, *options) in (1, 2)
        assert run(command, str(recipe), *options) in (1, 2)
