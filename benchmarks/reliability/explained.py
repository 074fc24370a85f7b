"""Mutants that no test can or need tell from the code, each with the reason, and mutation.py's results in short."""

import json
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXPLANATIONS = Path(__file__).with_name("explained.json")


@dataclass(frozen=True)
class Explanation:
    """
    Why changes of a line may survive.

    Args:
        file (`str`): Its path from the root.
        line (`str`): The line as it is in the file, without its indentation.
        changed (`tuple[str, ...]`): What it is changed to; none where every change that survives is meant.
        why (`str`): The reason, `equal: ...` where the code does the same as before, `cost: ...` where it gives the
            same results in other time or memory, `device: ...` where only another device could tell.
    """

    file: str
    line: str
    changed: tuple[str, ...]
    why: str

    def is_of(self, file: str, mutant: dict[str, Any]) -> bool:
        """Whether a survivor of a file, as mutation.py writes it down, is meant."""
        old, _, new = mutant["change"].partition(" -> ")
        return self.file == file and self.line == old.strip() and (not self.changed or new in self.changed)


def read_explanations(path: Path = EXPLANATIONS) -> list[Explanation]:
    """
    Args:
        path (`Path`): A JSON list of objects with `file`, `line`, `changed` and `why`.

    Raises:
        ValueError: For a reason of no kind, or a line that the file doesn't have any more.
    """
    read = json.loads(path.read_text(encoding="utf-8"))
    explanations = [
        Explanation(entry["file"], entry["line"], tuple(entry.get("changed", ())), entry["why"]) for entry in read
    ]
    for explanation in explanations:
        if explanation.why.partition(": ")[0] not in ("equal", "cost", "device"):
            raise ValueError(f"{path}: a reason begins with equal:, cost: or device:, got {explanation.why!r}")
        lines = {line.strip() for line in (ROOT / explanation.file).read_text(encoding="utf-8").splitlines()}
        if explanation.line not in lines:
            raise ValueError(f"{path}: {explanation.file} has no line {explanation.line!r}; take it out or correct it")
    return explanations


def reason(file: str, mutant: dict[str, Any], explanations: list[Explanation]) -> str | None:
    """Why a survivor may survive, `None` where nobody has said."""
    return next((explanation.why for explanation in explanations if explanation.is_of(file, mutant)), None)


def counts(file: str, record: dict[str, Any], explanations: list[Explanation]) -> dict[str, Any]:
    """
    A file's results in short.

    Args:
        file (`str`): Its path from the root.
        record (`dict[str, Any]`): As mutation.py writes it down.
        explanations (`list[Explanation]`): Of survivors.
    """
    killed, too_long = len(record["killed"].split()), len(record["too_long"].split())
    later, survivors = len(record["killed_later"]), record["survived"]
    told = [reason(file, mutant, explanations) for mutant in survivors]
    return {
        "mutants": record["mutants"] - len(record.get("invalid", "").split()),
        "tried": killed + too_long + later + len(survivors),
        "killed": killed + later,
        "timed_out": too_long,
        "survived_until_a_test_was_written": later,
        "explained": [
            {"line": mutant["line"], "change": mutant["change"], "why": why}
            for mutant, why in zip(survivors, told, strict=True)
            if why is not None
        ],
        "survived": [
            {"line": mutant["line"], "change": mutant["change"]}
            for mutant, why in zip(survivors, told, strict=True)
            if why is None
        ],
    }


def in_short(records: dict[str, Any], explanations: list[Explanation]) -> dict[str, Any]:
    """What is kept of a run: date, machine, totals, and each file's counts and survivors."""
    # Only now: a mutant's process must not find the package imported.
    sys.path.append(str(ROOT / "benchmarks"))
    from machine import machine_class

    files = {file: counts(file, record, explanations) for file, record in sorted(records.items())}
    numbers = ("mutants", "tried", "killed", "timed_out", "survived_until_a_test_was_written")
    lists = ("explained", "survived")
    return {
        "date": date.today().isoformat(),
        "machine": machine_class(),
        **{name: sum(found[name] for found in files.values()) for name in numbers},
        **{name: sum(len(found[name]) for found in files.values()) for name in lists},
        "files": files,
    }
