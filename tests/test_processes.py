"""One of several processes that takes itself for the only one; see `launched.py` for those that do not."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from transformers import TrainingArguments

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecTrainer
from mmm4rec_hf.processes import (
    check_processes,
    local_device,
    process_state,
    processes_started,
    use_cpu_where_alone,
)


def test_alone_it_is_the_main_process_and_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    state = process_state()
    assert (state.num_processes, state.is_main_process) == (1, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "1")
        process_state()
    check_processes(1)


@pytest.mark.parametrize(
    ("told", "number"),
    [({}, 1), ({"WORLD_SIZE": ""}, 1), ({"WORLD_SIZE": "3"}, 3), ({"OMPI_COMM_WORLD_SIZE": "2"}, 2)],
)
def test_launchers_tell_the_number_of_processes(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], number: int
) -> None:
    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert processes_started() == number


@pytest.mark.parametrize(("accelerator", "flag"), [(None, "true"), ("mps", "true"), ("cuda", None)])
def test_several_processes_use_the_cpu_where_there_is_nothing_for_each(
    monkeypatch: pytest.MonkeyPatch, accelerator: str | None, flag: str | None
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(accelerator or "cpu"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "")  # so that it is put back
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    monkeypatch.setenv("WORLD_SIZE", "1")
    use_cpu_where_alone()
    assert "ACCELERATE_USE_CPU" not in os.environ
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert local_device().type == (accelerator or "cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    use_cpu_where_alone()
    assert os.environ.get("ACCELERATE_USE_CPU") == flag
    assert local_device() == torch.device("cuda:1" if accelerator == "cuda" else "cpu")


@pytest.fixture
def one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a launcher starts it, where accelerate is told nothing of a CPU, or the contrary."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    monkeypatch.setattr(PartialState, "_shared_state", {})


REFUSAL = r"one of 2 processes .* as one of 1; on a CPU set ACCELERATE_USE_CPU=true"


@pytest.mark.usefixtures("one_of_two")
def test_one_of_two_that_sees_itself_alone_does_no_work() -> None:
    with pytest.raises(ValueError, match=REFUSAL):
        process_state()


@pytest.mark.usefixtures("one_of_two")
def test_a_trainer_of_one_s_own_script_is_refused_too(tmp_path: Path) -> None:
    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "state_size": 4}
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**small))
    with pytest.raises(ValueError, match=REFUSAL):
        MMM4RecTrainer(model, TrainingArguments(str(tmp_path), report_to="none"))
