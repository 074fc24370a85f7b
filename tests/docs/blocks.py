"""Runs the blocks of a page, shell and Python, in their order."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

from mmm4rec_hf.cli import main

from ..launched import together
from .films import TINY

# What stands in for a training of the published size.
SHORTER = {
    "output_dir=run": "output_dir=run training.num_train_epochs=1 " + " ".join(TINY),
    "output_dir=published training.num_train_epochs=1": "output_dir=published training.num_train_epochs=1 "
    "training.per_device_train_batch_size=8 " + " ".join(TINY),
    "output_dir=two-processes training.num_train_epochs=1": "output_dir=two-processes training.num_train_epochs=1 "
    "training.per_device_train_batch_size=8 " + " ".join(TINY),
    "output_dir=run-february": "output_dir=run-february training.num_train_epochs=1",
    "output_dir=run-2": "output_dir=run-2 training.num_train_epochs=1 " + " ".join(TINY),
    "output_dir=from-base model.num_hidden_layers=1": "output_dir=from-base model.num_hidden_layers=1 "
    "training.num_train_epochs=1",
    "output_dir=small": "output_dir=small training.num_train_epochs=1",
    "freeze_encoder=true": "freeze_encoder=true training.num_train_epochs=1",
    "max_steps=1000": "max_steps=2 batch_size=8 " + " ".join(TINY),
    "examples/quickstart.py interactions.csv items.jsonl": "examples/quickstart.py interactions.csv items.jsonl "
    "--epochs 1",
    "num_train_epochs=5)": "max_steps=1, report_to=[], use_cpu=True)",
    # A demo of one's own files needs no data of others.
    "mmm4rec demo": "mmm4rec demo --data .",
}


class Block(NamedTuple):
    """A fenced block: its language and its text."""

    language: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, without those of `text`, which are no code."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(language, text) for language, text in found if language != "text"]


class Runner:
    """
    Runs blocks in the working directory, which is not the repository.

    Args:
        repository (`Path`): Where `examples/` and `configs/` lie.
        environment (`dict[str, str]`, *optional*): For commands that run in a process of their own.
    """

    def __init__(self, repository: Path, environment: dict[str, str] | None = None) -> None:
        for name in ("examples", "configs"):
            Path(name).symlink_to(repository / name)
        self.environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""} | (environment or {})
        self.names: dict[str, Any] = {}
        self.output = ""

    def run(self, block: Block) -> None:
        """Runs one block; what it prints is added to `output`."""
        text = block.text
        for published, shorter in SHORTER.items():
            # `output_dir=run` is no part of `output_dir=run-2`.
            text = re.sub(rf"{re.escape(published)}(?![\w-])", lambda _, shorter=shorter: shorter, text)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if "pyspark" in text:
                # A JVM that another test of this process has started would stay in that one's working directory.
                subprocess.run([sys.executable, "-c", text], env=self.environment, check=True, timeout=900)
            elif block.language == "python":
                exec(compile(text, "block", "exec"), self.names)
            else:
                for line in text.replace("\\\n", " ").strip().splitlines():
                    print(self.command(line))
        self.output += printed.getvalue()

    def command(self, line: str) -> str:
        """Runs one line of a shell; what it printed where that is a process of its own."""
        target: Path | None = None
        if " > " in line:
            line, _, name = line.partition(" > ")
            target = Path(name.strip())
        words = shlex.split(line)
        if words[0] == "mmm4rec" and target is None:
            assert main(words[1:]) == 0, line
            return ""
        if "RANK" in words:
            return self.on_two_machines(words)
        knowing = together(2) if words[0] == "torchrun" else contextlib.nullcontext({})
        with knowing as environment:
            done = subprocess.run(
                self.resolved(words), env=self.environment | environment, capture_output=True, text=True, check=False,
                timeout=900,
            )  # fmt: skip
            assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
        if target is not None:
            target.write_text(done.stdout)
        return done.stdout

    def on_two_machines(self, words: list[str]) -> str:
        """The same command on two machines, which are this one."""
        port = str(30000 + (os.getpid() * 7) % 20000)
        known = {"HOST": "127.0.0.1", "PORT": port}
        done: dict[int, subprocess.CompletedProcess] = {}

        def start(rank: int) -> None:
            command = self.resolved([known.get(word, str(rank) if word == "RANK" else word) for word in words])
            done[rank] = subprocess.run(
                command, env=self.environment | environment, capture_output=True, text=True, check=False, timeout=900
            )

        threads = [threading.Thread(target=start, args=(rank,)) for rank in (0, 1)]
        with together(2) as environment:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for rank in (0, 1):
                assert done[rank].returncode == 0, done[rank].stderr[-3000:]
        return done[0].stdout

    def resolved(self, words: list[str]) -> list[str]:
        """The command of this environment's interpreter."""
        if words[0] == "python":
            return [sys.executable, *words[1:]]
        if words[0] == "curl":
            return ["curl", "--silent", "--show-error", "--fail", *words[1:]]
        if words[0] == "mmm4rec":
            return [sys.executable, "-m", "mmm4rec_hf.cli", *words[1:]]
        assert words[0] == "torchrun", words
        return [sys.executable, "-m", "torch.distributed.run", *words[1:]]
