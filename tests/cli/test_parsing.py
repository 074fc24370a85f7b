"""Help, options out of a file, completion of the shell, and what goes to which stream."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmm4rec_hf import cli
from mmm4rec_hf.cli import main
from mmm4rec_hf.cli.parsing import all_parsers, with_options_of_file
from mmm4rec_hf.training.finetuning import FinetuneRecipe
from mmm4rec_hf.training.pretraining import PretrainRecipe

from .conftest import ITEMS

COMMAND = [sys.executable, "-m", "mmm4rec_hf.cli"]
RUN_LINES = """
import json, os, sys
from pathlib import Path
from mmm4rec_hf.cli import main

stderr = os.dup(2)
for line in json.loads(Path("lines.json").read_text()):
    for stream, end in ((1, "out"), (2, "err")):
        file = os.open(f"{line[0]}.{end}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream)
    status = main(line)
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        os.write(stderr, Path(f"{line[0]}.err").read_bytes())
        raise SystemExit(f"{line[0]} ended with {status}")
"""


def test_every_command_says_what_it_reads_and_writes_and_its_examples_are_right() -> None:
    parser = cli.build_parser()
    for each in all_parsers(parser):
        if each is parser or each.prog == "mmm4rec convert":
            continue
        words = " ".join(each.format_help().split())
        assert re.search(r"\b(Reads|Fetches)\b", words) and re.search(r"[Ww]rites|uploads|serves|saves|prints", words)
    examples = []
    for each in all_parsers(parser):
        text = (each.epilog or "").replace("\\\n", " ")
        examples += re.findall(r"(?:example: |^  )(mmm4rec .+?)(?:, then .*)?$", text, re.MULTILINE)
    assert {shlex.split(example)[1] for example in examples} == set(cli.COMMANDS)
    for example in examples:
        parser.parse_args(shlex.split(example)[1:])


@pytest.mark.parametrize(("command", "recipe"), [("finetune", FinetuneRecipe), ("pretrain", PretrainRecipe)])
def test_the_help_names_every_key_of_a_recipe(command: str, recipe: Any) -> None:
    (parser,) = [each for each in all_parsers(cli.build_parser()) if each.prog == f"mmm4rec {command}"]
    for field in dataclasses.fields(recipe):
        assert re.search(rf"\b{field.name}\b", parser.epilog or ""), field.name


def read(*line: str) -> dict[str, Any]:
    """What a command line comes to, in place of the command."""
    parser = cli.build_parser()
    return vars(parser.parse_args(with_options_of_file(parser, line)))


def test_a_file_gives_options_and_the_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "prepare.yaml"
    path.write_text(
        "log: [a.csv, b.csv]\noutput: here\nk-core: 7\nsplit: temporal\njson: true\nvalid_from: 2016-01-01\n"
    )
    found = read("prepare", "--options", str(path), "--k-core", "3")
    assert found["log"] == ["a.csv", "b.csv"] and found["output"] == Path("here") and found["k_core"] == 3
    assert (found["split"], found["json"], found["valid_from"]) == ("temporal", True, "2016-01-01")
    # The same written together, a short option, and a flag that is off.
    path.write_text("output: here\njson: false\n")
    found = read("prepare", f"--options={path}", "x.csv", "-o", "there")
    assert (found["log"], found["output"], found["json"]) == (["x.csv"], Path("there"), False)
    # Lists stay apart from what stands by its place, and text from what looks like an option.
    path.write_text('history: ["50", "007"]\ncandidates: ["@a", "b c"]\nunknown-items: error\n')
    found = read("recommend", "run/model", "--options", str(path))
    assert (found["model"], found["history"], found["candidates"]) == ("run/model", ["50", "007"], ["@a", "b c"])
    path.write_text("title: --films--\n")
    assert read("report", "run", "--options", str(path))["title"] == "--films--"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("k_cores: 3\n", "no option is named 'k_cores'; did you mean 'k-core'?"),
        ("zzz: 3\n", "no option is named 'zzz'; there are format, item-column"),
        ("json: 3\n", "json must be true or false, got 3"),
        ("[1, 2]\n", "must hold `name: value` lines"),
        ("a: [\n", "is no YAML of plain values"),
        (None, "does not exist, or is no file"),
        ("k-core: many\n", "invalid int value: 'many'"),
    ],
)
def test_a_file_that_cannot_be_meant_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    path = tmp_path / "options.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit) as stopped:
        main(["prepare", "x.csv", "-o", "out", "--options", str(path)])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "prepare log.csv --time-column bought_at -o x",
            "mmm4rec prepare: error: unrecognized arguments: --time-column; did you mean '--timestamp-column'? "
            "see mmm4rec prepare --help",
        ),
        # What is required is what was mistyped.
        (
            "prepare log.csv --outptu=x",
            "mmm4rec prepare: error: unrecognized arguments: --outptu=x; did you mean '--output'? "
            "see mmm4rec prepare --help",
        ),
        (
            "recomend run",
            "mmm4rec: error: no command is named 'recomend'; did you mean 'recommend'? see mmm4rec --help",
        ),
        (
            "zzz run",
            "mmm4rec: error: no command is named 'zzz'; there are convert, demo, encode, evaluate, finetune, prepare, "
            "pretrain, push, recommend, report, serve; see mmm4rec --help",
        ),
        (
            "convert publisched x",
            "mmm4rec convert: error: no command is named 'publisched'; did you mean 'published' or 'to-published'? "
            "see mmm4rec convert --help",
        ),
        (
            "finetune --sequences X catalog=Y",
            "mmm4rec finetune: error: unrecognized arguments: --sequences; what a recipe holds is given as "
            "sequences=X; see mmm4rec finetune --help",
        ),
        (
            "pretrain recipe.yaml --output-dir=base",
            "mmm4rec pretrain: error: unrecognized arguments: --output-dir=base; what a recipe holds is given as "
            "output_dir=base; see mmm4rec pretrain --help",
        ),
        (
            "finetune --fresh-projections",
            "mmm4rec finetune: error: unrecognized arguments: --fresh-projections; what a recipe holds is given as "
            "fresh_projections=...; see mmm4rec finetune --help",
        ),
        (
            "evaluate run sequences more",
            "mmm4rec evaluate: error: unrecognized arguments: more; see mmm4rec evaluate --help",
        ),
        (
            "report run --zzz",
            "mmm4rec report: error: unrecognized arguments: --zzz; see mmm4rec report --help",
        ),
        ("--zzz report run", "mmm4rec: error: unrecognized arguments: --zzz; see mmm4rec --help"),
    ],
)
def test_what_was_mistyped_is_told_with_what_was_meant(
    capsys: pytest.CaptureFixture[str], line: str, told: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == 2
    assert capsys.readouterr() == ("", told + "\n")


def test_values_that_look_like_options_are_values() -> None:
    assert read("report", "run", "--title=--films--")["title"] == "--films--"
    assert read("report", "--", "--run")["runs"] == ["--run"]
    assert read("recommend", "run", "--history", "-1", "-- b")["history"] == ["-1", "-- b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--epochs", "0"], "--epochs must be positive, got 0.0"),
        (["encode", __file__, "-o", "out"], "no encoder was named"),
        (["evaluate", "model", "data", "--ks", "ten"], "--ks must be whole numbers such as 10,20,50, got 'ten'"),
        (["recommend", "model", "--history", "1", "-o", "x.txt"], "--output must end in .jsonl, .csv, .parquet"),
        (["recommend", "model", "--input", "x", "--timestamps", "1"], "--timestamps belong to --history"),
        (["report", "run", "-o", "x.pdf"], "must end in .html, got 'x.pdf'"),
    ],
)
def test_wrong_use_that_the_parser_lets_through_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("mmm4rec: error: ") and message in err


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mmm4rec pre", {"prepare", "pretrain"}),
        ("mmm4rec prepare --spl", {"--split"}),
        ("mmm4rec prepare --split te", {"temporal"}),
        ("mmm4rec convert to", {"to-published"}),
        ("mmm4rec report pag", {"page-one", "page-two.txt"}),
        ("mmm4rec evaluate --ba", {"--baselines", "--batch-size"}),
    ],
)
def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, offered: set[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--print-completion", "bash"])
    assert stopped.value.code == 0
    (tmp_path / "page-one").mkdir()
    (tmp_path / "page-two.txt").touch()
    (tmp_path / "script.bash").write_text(
        capsys.readouterr().out
        + f"\nCOMP_WORDS=({line}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))\n"
        + '"$(complete -p mmm4rec | sed "s/.*-F \\([^ ]*\\).*/\\1/")" mmm4rec "${COMP_WORDS[-1]}" ""\n'
        + 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "script.bash"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert {word.strip() for word in done.stdout.splitlines()} - {""} == offered, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_completion(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    with pytest.raises(SystemExit):
        main(["--print-completion", shell])
    printed = capsys.readouterr().out
    assert "finetune" in printed and "k-core" in printed


@pytest.mark.slow
def test_stdout_is_json_alone_and_stderr_has_no_bars(model: Path, shop: Path, tmp_path: Path) -> None:
    sequences, catalog = str(tmp_path / "sequences"), str(tmp_path / "catalog")
    shop_of = [f"sequences={sequences}", f"catalog={catalog}"]
    domains = f"domains=[{{name: shop, catalog: {catalog}, sequences: {sequences}}}]"
    sizes = [f"model.{name}=16" for name in ("hidden_size", "intermediate_size")] + ["model.head_dim=4"]
    lines = {
        "prepare": [str(shop / "log.csv"), "-o", sequences, "--k-core", "1", "--time-unit", "ms"],
        "encode": [str(shop / "items.jsonl"), "-o", catalog, "--text-encoder", str(shop / "bert"), "--image-encoder",
                   str(shop / "vit")],
        "pretrain": [domains, f"output_dir={tmp_path}/base", "max_steps=2", "batch_size=8", *sizes],
        "finetune": [*shop_of, f"output_dir={tmp_path}/run", *sizes, "training.num_train_epochs=1"],
        "evaluate": [f"{tmp_path}/run/model", sequences, "--baselines", "--subgroups"],
        "recommend": [f"{tmp_path}/run/model", "--history", "1", "--top-k", "50"],
        "convert": ["to-published", str(model), f"{tmp_path}/model.ckpt"],
        "report": [f"{tmp_path}/run", "-o", f"{tmp_path}/report.html"],
    }  # fmt: skip
    (tmp_path / "lines.json").write_text(
        json.dumps([[name, *arguments, "--json"] for name, arguments in lines.items()])
    )
    # One process, which imports everything once; its stdout and stderr are files of each command's own.
    done = subprocess.run([sys.executable, "-c", RUN_LINES], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = {name: [(tmp_path / f"{name}.{end}").read_text() for end in ("out", "err")] for name in lines}
    for command, (out, err) in said.items():
        found = json.loads(out)
        assert found, command
        assert "%|" not in err and "\r" not in err, (command, err)
        if command in ("pretrain", "finetune"):
            assert ", validation: " in err and "{" not in err, err
        if command == "recommend":
            assert {entry["item_id"] for entry in found} == {*ITEMS} - {"1"}


@pytest.mark.slow
def test_a_reader_who_has_enough_ends_the_command_in_silence(model: Path, shop: Path) -> None:
    line = [
        *COMMAND,
        "recommend",
        str(model),
        "--device",
        "cpu",
        "--input",
        str(shop / "log.csv"),
        "--time-unit",
        "ms",
    ]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read()
    assert process.returncode == 1 and "rror" not in complaint
