"""Changes the code in one place after another and counts the changes that no test notices.

    pip install cosmic-ray
    export OMP_NUM_THREADS=1
    python benchmarks/reliability/mutation.py mmm4rec_hf/evaluation/metrics.py
    python benchmarks/reliability/mutation.py modeling/loss_mmm4rec.py --share 0.1 --json .cache/mutants.json
    python benchmarks/reliability/mutation.py --json .cache/mutants.json --again --short mutation.json

The mutants are cosmic-ray's (`mutants.py`). The tests that belong to the file (`TESTS`) run until the first fails, for
each mutant in a process of its own: where the body of a function is changed, in a fork of one that has collected the
tests (`collected.py`), in tenths of a second; otherwise in a fork of one that has imported the libraries and nothing
of this package, so that the changed source can stand in for the module. A mutant is killed by a failing test, an
error, or more than `--patience` times the processor time of the unchanged file, so that other work on the machine
changes nothing. Nothing is written to the file itself.

With `--json` a run goes on where an earlier one of the same file stopped, and `--again` tries the survivors of all
files anew, after new tests, those that live on with all tests and the package imported anew. `explained.json` says
why survivors may survive; `--short` writes the counts of all files and the survivors with these reasons. Status 1
where one without a reason survived.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from collected import (
    ELSEWHERE,
    NO_TESTS,
    NOT_IMPORTED,
    OPTIONS,
    SURVIVED,
    Collected,
    end_after,
    end_group,
    prepare_fork,
    readers,
)
from explained import Explanation, counts, in_short, read_explanations, reason
from hypothesis import Phase, settings
from mutants import Mutant, change, module_name, mutants_of
from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = (
    "torch", "numpy", "polars", "narwhals", "datasets", "accelerate", "ir_measures", "onnxruntime", "PIL.Image",
    "transformers.modeling_utils", "transformers.modeling_layers", "transformers.masking_utils",
    "transformers.generation.continuous_batching.continuous_api", "transformers.pipelines",
    "transformers.processing_utils", "transformers.trainer", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto", "safetensors.numpy", "tqdm.contrib.logging", "pdb", "psutil",
)  # fmt: skip

# Seconds of processor time that the import of a changed module gets.
IMPORT = 20
# The status of the tests with a changed source, whose change is in a line of the unchanged one.
TrySource = Callable[[str, int], int | None]

# The tests of a file, its own first; the files of modeling/ have those of the others after them.
_MODELING = ("loss", "retrieval", "golden", "padding", "packing", "cooccurrence", "missing", "time", "ssd", "items",
             "precision", "loading", "cache", "dropout", "feature_encoder", "configuration", "processing", "pipeline",
             "user_encoder", "card", "explanations")  # fmt: skip
TESTS = {
    "mmm4rec_hf/evaluation/metrics.py": ("tests/evaluation/test_metrics.py",),
    "mmm4rec_hf/evaluation/ranking.py": (
        "tests/evaluation/test_ranking.py",
        "tests/modeling/test_cooccurrence.py",
        "tests/evaluation/test_evaluator.py",
    ),
    "mmm4rec_hf/evaluation/significance.py": ("tests/evaluation/test_significance.py",),
    "mmm4rec_hf/evaluation/chance.py": ("tests/evaluation/test_chance.py",),
    "modeling/timestamps_mmm4rec.py": ("tests/data/test_timestamps.py",),
    "modeling/ssd_mmm4rec.py": ("tests/modeling/test_ssd.py", "tests/modeling/test_kernels.py"),
    "modeling/fetching_mmm4rec.py": ("tests/modeling/test_processing.py",),
    "modeling/ids_mmm4rec.py": (
        "tests/modeling/test_ids.py",
        "tests/modeling/test_processing.py",
        "tests/data/test_collator.py",
    ),
    "modeling/encoder_mmm4rec.py": ("tests/modeling/test_feature_encoder.py",),
    "modeling/convolution_mmm4rec.py": ("tests/modeling/test_packing.py", "tests/modeling/test_kernels.py"),
    "modeling/kernels_mmm4rec.py": ("tests/modeling/test_kernels.py",),
    "modeling/pipeline_mmm4rec.py": (
        "tests/modeling/test_pipeline.py",
        "tests/modeling/test_user_encoder.py",
        "tests/modeling/test_similar_items.py",
    ),
    "modeling/processing_mmm4rec.py": ("tests/modeling/test_processing.py", "tests/modeling/test_hub.py"),
    "modeling/transfer_mmm4rec.py": ("tests/modeling/test_saving.py",),
    "modeling/hub_mmm4rec.py": ("tests/modeling/test_saving.py",),
    "modeling/pretrained_mmm4rec.py": (
        "tests/modeling/test_loading.py",
        "tests/modeling/test_saving.py",
        "tests/modeling/test_hub.py",
    ),
    "modeling/modeling_mmm4rec.py": (
        "tests/modeling/test_golden.py",
        "tests/modeling/test_loading.py",
        "tests/modeling/test_saving.py",
    ),
}


def tests_of(path: str) -> list[str]:
    """What runs for a file, in this order."""
    tests = list(TESTS.get(path, ()))
    if path.startswith("modeling/"):
        own = f"tests/modeling/test_{Path(path).stem.removesuffix('_mmm4rec')}.py"
        tests += [own] if (ROOT / own).exists() else []
        tests += [f"tests/modeling/test_{name}.py" for name in _MODELING]
    return list(dict.fromkeys(tests))


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from another source than its file's."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Gives one module another source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.loader = Loader(name, str(path), source)

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname != self.loader.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.loader.path, loader=self.loader)


def prepare_to_fork(files: Sequence[Path]) -> None:
    """Imports what all mutants of some files need, and nothing that may be one."""
    # A file of another project may need none of what this one's do.
    for name in LIBRARIES if any(path.absolute().is_relative_to(ROOT) for path in files) else ():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # A failing example needs no smaller one.
    settings.register_profile("mutants", derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate])
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    os.environ["TQDM_DISABLE"] = "1"
    sys.path.insert(0, str(ROOT))
    assert not any(name.partition(".")[0] == "mmm4rec_hf" for name in sys.modules)
    # What was imported stays as it is: no fork should look through it for garbage.
    gc.collect()
    gc.freeze()


def run_tests(path: Path, source: str, tests: Sequence[str], folder: str, seconds: float) -> int:
    """In a fork: pytest's status of the tests with another source for one module, which they import anew."""
    prepare_fork()
    name = module_name(path, ROOT)
    sys.meta_path.insert(0, Finder(name, path, source))
    # Some reckon for ever before any test begins.
    end_after(IMPORT)
    importlib.import_module(name)
    end_after(seconds)
    # Most mutants die by the file's own tests, and the others take a while to collect.
    parts: dict[bool, list[str]] = {True: [], False: []}
    for test in tests:
        parts[test.partition("::")[0] == tests[0].partition("::")[0]].append(test)
    for some in filter(None, parts.values()):
        status = int(pytest.main([*OPTIONS, f"--basetemp={folder}", *some]))
        if status != SURVIVED:
            return status
    return SURVIVED


def outcome(path: Path, source: str, tests: Sequence[str], seconds: float) -> int | None:
    """The status of the tests, negative where a signal ended them, and `None` where they took too long."""
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = run_tests(path, source, tests, f"{folder}/tests", seconds)
            finally:
                os._exit(status)
        return end_group(child)


def try_mutants(path: Path, record: dict[str, Any], args: argparse.Namespace, save: Any) -> None:
    """Tries the mutants of a file that the record doesn't hold yet, and writes each result."""
    source, shown = path.read_text(encoding="utf-8"), shown_path(path)
    tests = [str(test) for test in args.tests or tests_of(shown)]
    digest = hashlib.sha256(source.encode()).hexdigest()
    if record.get("sha256") != digest:
        record.clear()
        record.update(
            {"sha256": digest, "mutants": 0, "killed": "", "too_long": "", "killed_later": [], "survived": []}
        )
    mutants = mutants_of(source)
    record["mutants"] = len(mutants)
    forget_others(record, {mutant.name for mutant in mutants})
    todo = not_tried(mutants, shown, record, args)
    if not todo:
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        Collected(path, tests, f"{folder}/tests", args.patience) as collected,
    ):
        if collected.status != SURVIVED:
            reasons = {NOT_IMPORTED: "they don't import it", NO_TESTS: "there are none", None: "they take too long"}
            found = reasons.get(collected.status, f"they fail, status {collected.status}")
            raise ValueError(f"the tests of {shown} cannot judge mutants: {found}; run {' '.join(tests)}")
        # Those that take long come last.
        for try_source in ways_to_try(collected, path, source, tests, args):
            elsewhere = []
            for mutant in tqdm(todo, desc=shown, disable=None if sys.stderr.isatty() else True):
                if note(mutant, source, path, try_source, record, args.explanations) == ELSEWHERE:
                    elsewhere.append(mutant)
                else:
                    save()
            todo = elsewhere


def not_tried(mutants: list[Mutant], shown: str, record: dict[str, Any], args: argparse.Namespace) -> list[Mutant]:
    """Those of the share that the record doesn't hold, or with `--again` the survivors without a reason."""
    survived = {survivor["name"]: reason(shown, survivor, args.explanations) for survivor in record["survived"]}
    if args.again:
        return [mutant for mutant in mutants if mutant.name in survived and survived[mutant.name] is None]
    if args.share < 1:
        # The first of an order: a larger share holds the smaller one.
        drawn = random.Random(f"{args.seed}-{shown}").sample(mutants, len(mutants))
        drawn = drawn[: max(1, round(args.share * len(mutants)))]
        mutants = sorted(drawn, key=mutants.index)
    tried = {*record["killed"].split(), *record["too_long"].split(), *record.get("invalid", "").split(), *survived}
    tried |= {mutant["name"] for mutant in record["killed_later"]}
    return [mutant for mutant in mutants if mutant.name not in tried]


def ways_to_try(
    collected: Collected, path: Path, source: str, tests: Sequence[str], args: argparse.Namespace
) -> tuple[TrySource, TrySource]:
    """In a fork of what has collected the tests; and for what it says is elsewhere, with the package imported anew."""
    # By their names, where pytest finds each of them again; those of the file's own tests first.
    own = str(Path(tests[0]).absolute())
    named = sorted(collected.lines.items(), key=lambda test: not test[0].startswith(own))
    lines = {name: run for name, run in named if run}
    if not lines or outcome(path, source, [*lines, "--collect-only"], 600) != SURVIVED:
        lines = dict.fromkeys(tests, set(range(len(source))))

    def fresh(changed: str, asked: Sequence[str]) -> int | None:
        return outcome(path, changed, asked, args.patience * collected.seconds + 5) if asked else SURVIVED

    def by_collected(changed: str, line: int) -> int | None:
        status = collected.outcome(changed, line)
        return fresh(changed, tests) if args.again and status == SURVIVED else status

    def by_import(changed: str, line: int) -> int | None:
        reading = readers(source, line)
        status = fresh(changed, [name for name, run in lines.items() if reading is None or run & reading])
        return fresh(changed, tests) if args.again and status == SURVIVED else status

    return by_collected, by_import


def forget_others(record: dict[str, Any], names: set[str]) -> None:
    """Drops what an earlier run tried that counts as a mutant no more."""
    for key in ("killed", "too_long", "invalid"):
        if key in record:
            record[key] = " ".join(name for name in record[key].split() if name in names)
    for key in ("killed_later", "survived"):
        record[key] = [mutant for mutant in record[key] if mutant["name"] in names]


def note(
    mutant: Mutant,
    source: str,
    path: Path,
    try_source: TrySource,
    record: dict[str, Any],
    explanations: list[Explanation],
) -> int | None:
    """Tries a mutant and puts the result into the record, where it is one."""
    changed = mutant.source(source)
    if changed is None:
        record["invalid"] = f"{record.get('invalid', '')} {mutant.name}".strip()
        return None
    status = try_source(changed, mutant.line)
    if status == ELSEWHERE:
        return status
    entry = {"name": mutant.name, "line": mutant.line, "change": change(source, changed)}
    if status == SURVIVED:
        if entry not in record["survived"]:
            record["survived"].append(entry)
        if reason(shown_path(path), entry, explanations) is None:
            print(f"{shown_path(path)}:{mutant.line}: {entry['change']}", flush=True)
    elif entry in record["survived"]:
        record["survived"].remove(entry)
        record["killed_later"].append(entry)
    else:
        key = "too_long" if status is None else "killed"
        record[key] = f"{record[key]} {mutant.name}".strip()
    return status


def shown_path(path: Path) -> str:
    """Below the checkout where it is there."""
    resolved = path.absolute()
    return resolved.relative_to(ROOT).as_posix() if resolved.is_relative_to(ROOT) else str(resolved)


def summary(found: dict[str, Any]) -> str:
    """Counts of a file as a line."""
    return (
        f"{found['tried']} of {found['mutants']} mutants, {found['killed']} killed "
        f"({found['survived_until_a_test_was_written']} by later tests), {found['timed_out']} took too long, "
        f"{len(found['explained'])} survived for a reason, {len(found['survived'])} without"
    )


def write_json(path: Path, content: Any) -> None:
    """As the package writes, whose module is loaded by its path: the package itself must not be imported yet."""
    spec = importlib.util.spec_from_file_location("outputs", ROOT / "mmm4rec_hf" / "outputs.py")
    assert spec is not None and spec.loader is not None
    outputs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(outputs)
    outputs.write_json(path, content)


def main() -> int:
    """Status 1 where a mutant survived, 2 where the tests cannot judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="to change (default: metrics, ranking, modeling/)")
    parser.add_argument("--tests", nargs="+", type=Path, metavar="PATH", help="to run in place of those of the table")
    parser.add_argument("--share", type=float, default=1, help="of each file's mutants, drawn (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="decides what is drawn (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="try the survivors of an earlier run, and nothing else")
    parser.add_argument("--patience", type=float, default=5, help="times the unchanged file's time (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write results and go on from")
    parser.add_argument(
        "--short", type=Path, metavar="FILE", help="where to write the counts and reasons of all files"
    )
    args = parser.parse_args()
    if not 0 < args.share <= 1:
        parser.error(f"--share must be above 0 and at most 1, got {args.share}")
    evaluated = [ROOT / path for path in TESTS if path.startswith("mmm4rec_hf/")]
    args.explanations = read_explanations()
    files = args.files or [*evaluated, *sorted((ROOT / "modeling").glob("*_mmm4rec.py"))]
    records: dict[str, Any] = {}
    if args.json is not None and args.json.exists():
        records = json.loads(args.json.read_text(encoding="utf-8"))
    if args.again and not args.files:
        files = [ROOT / path for path in records]
    prepare_to_fork(files)
    survived = 0
    for path in files:
        record = records.setdefault(shown_path(path), {})
        try:
            try_mutants(path, record, args, lambda: write_json(args.json, records) if args.json else None)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        found = counts(shown_path(path), record, args.explanations)
        survived += len(found["survived"])
        print(f"{shown_path(path)}: {summary(found)}", flush=True)
    if args.short is not None:
        write_json(args.short, in_short(records, args.explanations))
    return int(survived > 0)


if __name__ == "__main__":
    raise SystemExit(main())
