"""How long `import mmm4rec_hf` takes, against `import transformers` and `import torch`, and the help of the command.

    python benchmarks/speed/imports.py --json benchmarks/speed/imports.json      # two minutes

Each import runs in a fresh process, the interpreter's own start included, which is given beside; the statements take
turns, so that what else the machine does falls on all of them, and the median of rounds counts, after one that brings
the files into memory. As both packages load most of themselves on first use, the first class of a model is timed too.
What the processor worked is given beside the time that passed, which other programs on the machine lengthen. The
target: the import takes at most 0.3 s longer than that of transformers.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from tqdm.auto import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1]))
from machine import command_line, machine_class  # noqa: E402  # beside the folders of benchmarks

from mmm4rec_hf.outputs import write_json  # noqa: E402

ALLOWED_S = 0.3
STATEMENTS = {
    "python": "pass",
    "torch": "import torch",
    "transformers": "import transformers",
    "mmm4rec_hf": "import mmm4rec_hf",
    "transformers_model": "from transformers import BertModel",
    "mmm4rec_hf_model": "from mmm4rec_hf import MMM4RecForSequentialRecommendation",
    "mmm4rec_version": "from mmm4rec_hf.cli import main; main(['--version'])",
    "mmm4rec_help": "from mmm4rec_hf.cli import main; main(['recommend', '--help'])",
}


def run(statement: str) -> tuple[float, float]:
    """Seconds that a fresh interpreter takes for a statement, and those that the processor worked for it."""
    begin, before = time.perf_counter(), worked_by_children()
    subprocess.run([sys.executable, "-c", statement], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin, worked_by_children() - before


def worked_by_children() -> float:
    """Seconds, in microseconds' steps (those of `os.times` are hundredths), that ended children kept the processor."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(statements: dict[str, str], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """What [`run`] says of each statement, round by round."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in statements}
    for turn in tqdm(range(rounds + 1), desc="rounds", disable=not sys.stderr.isatty()):
        for name, statement in statements.items():
            seconds = run(statement)
            if turn > 0:  # the first reads files from the disk
                taken[name].append(seconds)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="of which the median counts, after one to warm up")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    taken = measure(STATEMENTS, arguments.rounds)
    seconds = {
        name: {
            "statement": STATEMENTS[name],
            "median": statistics.median(passed for passed, _ in rounds),
            "least": min(passed for passed, _ in rounds),
            "processor": statistics.median(worked for _, worked in rounds),
        }
        for name, rounds in taken.items()
    }
    medians = {name: found["median"] for name, found in seconds.items()}
    for found in seconds.values():
        times = ", ".join(f"{name} {found[name]:6.3f} s" for name in ("median", "least", "processor"))
        print(f"{found['statement']:66} {times}")
    more = medians["mmm4rec_hf"] - medians["transformers"]
    print(f"import mmm4rec_hf takes {abs(more):.3f} s {'more' if more > 0 else 'less'} than import transformers")
    print(f"at most {ALLOWED_S} s more: {'yes' if more <= ALLOWED_S else 'no'}")
    if arguments.json is not None:
        result = {
            "command": command_line(),
            "date": date.today().isoformat(),
            "machine": machine_class(),
            "python": sys.version.split()[0],
            "rounds": arguments.rounds,
            "seconds": seconds,
            "mmm4rec_hf_beyond_transformers": more,
        }
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
