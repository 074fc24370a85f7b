"""One of several processes that takes itself for the only one; see `launched.py` for those that do not."""

from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState
from transformers import TrainingArguments

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecTrainer
from mmm4rec_hf.processes import check_processes, process_state


def test_alone_it_is_the_main_process_and_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    state = process_state()
    assert (state.num_processes, state.is_main_process) == (1, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "1")
        process_state()
    check_processes(1)


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
