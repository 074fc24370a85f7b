"""What a benchmark ran on and by which command, for its record."""

import sys
from pathlib import Path

from mmm4rec_hf.training.record import machine_class

# Each takes a path. Where a result was written is no part of it, and names folders of the machine.
_OUTPUTS = ("--json", "--plot", "--results")


def command_line() -> str:
    """The command that this process was started by: the script's path from the repository's root, and its arguments
    but those that say where results go."""
    script = Path(sys.argv[0]).resolve()
    root = Path(__file__).resolve().parents[1]
    words = ["python", str(script.relative_to(root)) if script.is_relative_to(root) else script.name]
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument in _OUTPUTS:
            next(arguments, None)
        elif not argument.startswith(tuple(f"{name}=" for name in _OUTPUTS)):
            words.append(argument)
    return " ".join(words)


__all__ = ["command_line", "machine_class"]
