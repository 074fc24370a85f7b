import argparse
import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmm4rec_hf import __version__, cli
from mmm4rec_hf.training import finetuning, pretraining


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], None]], None]:
    """Makes `work` the one sub-command there is."""

    def install(run: Callable[[argparse.Namespace], None]) -> None:
        def add_parser(subparsers: argparse._SubParsersAction) -> None:
            subparsers.add_parser("work").add_argument("--steps", type=int, default=3)

        monkeypatch.setattr(cli, "COMMANDS", {"work": SimpleNamespace(add_parser=add_parser, run=run)})

    return install


def _raising(error: BaseException) -> Callable[[argparse.Namespace], None]:
    def run(args: argparse.Namespace) -> None:
        raise error

    return run


def test_a_finished_command_exits_with_0_and_gets_its_own_arguments(command):
    seen = []
    command(lambda args: seen.append(args.steps))
    assert cli.main(["work", "--steps", "7"]) == 0
    assert seen == [7]


def test_only_a_process_of_the_command_s_own_collects_garbage_more_seldom(command, monkeypatch):
    seen = []
    command(lambda args: seen.append(gc.get_threshold()[0]))
    before = gc.get_threshold()
    monkeypatch.setattr(sys, "argv", ["mmm4rec", "work"])
    try:
        assert cli.main(["work"]) == 0
        assert cli.main() == 0
    finally:
        gc.set_threshold(*before)
    assert seen == [before[0], 50_000]


@pytest.mark.parametrize("kind", [ValueError, TypeError, OSError, RuntimeError])
def test_a_failure_exits_with_1_and_one_line_on_stderr(command, capsys, kind):
    # A value that is told may have two spaces.
    command(_raising(kind("top_k is ' -1  ';\n  give at least 1")))
    assert cli.main(["work"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "mmm4rec: error: top_k is ' -1  '; give at least 1\n")


def test_an_error_without_words_is_named_by_its_kind(command, capsys):
    command(_raising(RuntimeError()))
    assert cli.main(["work"]) == 1
    assert capsys.readouterr().err == "mmm4rec: error: RuntimeError\n"


@pytest.mark.parametrize("argv", [["--debug", "work"], ["work", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(command, argv):
    command(_raising(ValueError("broken")))
    with pytest.raises(ValueError, match="broken"):
        cli.main(argv)


def test_an_error_nobody_foresaw_is_not_hidden(command):
    command(_raising(AttributeError("a fault of ours")))
    with pytest.raises(AttributeError):
        cli.main(["work"])


def test_an_interrupt_exits_with_130(command, capsys):
    command(_raising(KeyboardInterrupt()))
    assert cli.main(["work"]) == 130
    assert capsys.readouterr().err == "mmm4rec: interrupted\n"


def test_an_interrupted_training_says_what_the_same_command_does(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(finetuning, "finetune", _raising(KeyboardInterrupt()))
    monkeypatch.setattr(pretraining, "pretrain", _raising(KeyboardInterrupt()))
    output = tmp_path / "run"
    domain = f"domains=[{{name: a, catalog: {tmp_path}, sequences: {tmp_path}}}]"
    commands = (
        ["finetune", "sequences=s", "catalog=c", f"output_dir={output}"],
        ["pretrain", domain, f"output_dir={output}", "max_steps=1"],
    )
    for command in commands:
        assert cli.main(command) == 130
        told = capsys.readouterr().err.splitlines()[-1]
        assert told == "mmm4rec: interrupted; the same command begins anew, as there is no checkpoint yet"
    # The names that transformers and our own checkpoints have.
    for command, checkpoint in zip(commands, ("checkpoint-51", "checkpoint-000000051"), strict=True):
        (output / "checkpoints" / checkpoint).mkdir(parents=True)
        assert cli.main(command) == 130
        told = capsys.readouterr().err.splitlines()[-1]
        assert told == "mmm4rec: interrupted; the same command goes on from the last checkpoint"
        (output / "checkpoints" / checkpoint).rmdir()


@pytest.mark.parametrize("argv", [[], ["no-such-command"], ["work", "--no-such-option"], ["work", "--steps", "many"]])
def test_wrong_usage_exits_with_2(command, capsys, argv):
    command(lambda args: None)
    with pytest.raises(SystemExit) as exit_info:
        cli.main(argv)
    assert exit_info.value.code == 2
    told = capsys.readouterr().err
    program = "mmm4rec work" if argv[:1] == ["work"] else "mmm4rec"
    assert told.startswith(f"{program}: error: ") and told.endswith(f"; see {program} --help\n")
    assert told.count("\n") == 1


def test_each_command_has_help_and_the_version_is_the_package_s(capsys):
    for argv in (["--help"], *([name, "--help"] for name in cli.COMMANDS)):
        with pytest.raises(SystemExit) as exit_info:
            cli.main(argv)
        assert exit_info.value.code == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"mmm4rec {__version__}\n"


# What takes a second or more to import, or is of no use before a command runs.
HEAVY = {"torch", "transformers", "datasets", "polars", "pandas", "pyarrow", "numpy", "huggingface_hub", "fastapi"}


def test_help_version_wrong_use_and_completion_wait_for_no_library():
    lines = [["--help"], ["--version"], [], ["no-such-command"], ["recommend"], ["--print-completion", "bash"]]
    lines += [[name, "--help"] for name in cli.COMMANDS] + [["convert", "published", "--help"]]
    code = f"""
import sys
from mmm4rec_hf.cli import main
statuses = []
for line in {lines!r}:
    try:
        main(line)
    except SystemExit as stopped:
        statuses.append(stopped.code)
print(statuses, sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = [0, 0, 2, 2, 2, 0] + [0] * (len(lines) - 6)
    assert finished.stderr.splitlines()[-1] == f"{expected} []"


def test_reading_a_log_waits_neither_for_torch_nor_for_transformers(tmp_path: Path):
    log = [f"u{user},i{(user + n) % 6},{1_387_670_400 + n}\n" for user in range(6) for n in range(5)]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "".join(log))
    code = (
        "import sys; from mmm4rec_hf.cli import main; assert main(['prepare', 'log.csv', '-o', 'sequences']) == 0; "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.stderr.splitlines()[-1] == "[]"
    assert (tmp_path / "sequences" / "train.arrow").is_file()


def test_the_module_runs_as_the_command_does():
    finished = subprocess.run(
        [sys.executable, "-m", "mmm4rec_hf.cli", "no-such-command"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert "no-such-command" in finished.stderr
    assert "Traceback" not in finished.stderr
