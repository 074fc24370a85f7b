"""The processes that `torchrun` or `accelerate launch` started together, and what each of them has to know."""

import os

import torch
from accelerate import PartialState

_USE_CPU = "ACCELERATE_USE_CPU"


def process_state() -> PartialState:
    """
    This process among those that were started with it.

    accelerate counts several processes on a CPU only where it is told that they are to run on one. Told nothing, each
    takes itself for the only one, and all of them write the same files; so it is told, where there is nothing else.

    Returns:
        `PartialState`: accelerate's, with the number of processes and this one's place.

    Raises:
        ValueError: If a launcher started several processes, and accelerate sees one all the same.
    """
    started = processes_started()
    if started > 1 and not torch.accelerator.is_available():
        os.environ.setdefault(_USE_CPU, "true")  # which TrainingArguments and Accelerator read as well
    state = PartialState(cpu=os.environ.get(_USE_CPU, "").lower() in ("1", "true", "yes", "on"))
    check_processes(state.num_processes)
    return state


def processes_started() -> int:
    """Processes of the launcher that started this one; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", 1))


def check_processes(seen: int) -> None:
    """
    Refuses to go on where several processes would each do all of the work, into the same files.

    Args:
        seen (`int`): Processes that work together, as this one sees it.

    Raises:
        ValueError: If a launcher started more.
    """
    if seen < processes_started():
        raise ValueError(
            f"this is one of {processes_started()} processes that were started together (WORLD_SIZE), and sees itself "
            f"as one of {seen}; on a CPU set {_USE_CPU}=true, or give TrainingArguments(use_cpu=True)"
        )
