"""The processes that `torchrun` or `accelerate launch` started together, and what each of them has to know."""

import os

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

_USE_CPU = "ACCELERATE_USE_CPU"
# What launchers tell each process of their number; accelerate reads the same.
_NUMBERS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def process_state() -> PartialState:
    """
    This process among those that were started with it; to be asked by all of them, as they wait for each other here.

    Returns:
        `PartialState`: accelerate's, with the number of processes and this one's place.

    Raises:
        ValueError: If a launcher started several processes, and accelerate sees one all the same.
    """
    use_cpu_where_alone()
    state = PartialState(cpu=parse_flag_from_env(_USE_CPU))
    check_processes(state.num_processes)
    return state


def use_cpu_where_alone() -> None:
    """
    Tells accelerate to use the CPU, where several processes have nothing else; `TrainingArguments` reads it as well.

    accelerate counts several processes on a CPU only where it is told that they are to run on one. Told nothing, each
    takes itself for the only one, and all of them write the same files.
    """
    if processes_started() > 1 and not _has_accelerators():
        os.environ.setdefault(_USE_CPU, "true")


def local_device() -> torch.device:
    """The device of this process, told without waiting for others that may have been started with it."""
    if parse_flag_from_env(_USE_CPU) or not torch.accelerator.is_available():
        return torch.device("cpu")
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return torch.device(kind.type, int(os.environ.get("LOCAL_RANK") or 0))


def processes_started() -> int:
    """Processes of the launcher that started this one; 1 without one."""
    return max(int(os.environ.get(name) or 1) for name in _NUMBERS)


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
            f"this is one of {processes_started()} processes that were started together, and sees itself as one of "
            f"{seen}; on a CPU set {_USE_CPU}=true, or give TrainingArguments(use_cpu=True)"
        )


def _has_accelerators() -> bool:
    """Whether several processes can have one each: Apple's serves one process."""
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return kind is not None and kind.type != "mps"
