"""What every test shares: one thread a worker, and the folder of real data where there is one."""

import gc
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# The suite runs in as many processes as there are cores; kernels of several threads each would fight over them, also
# those of the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# The same code gives the same answer; HYPOTHESIS_PROFILE=explore looks where no run has looked before.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_collection_finish() -> None:
    """Leaves what is imported by now to itself: the trainer collects garbage several times a training, and would look
    through all of it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data that is never committed: `MMM4REC_TEST_DATA`, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("MMM4REC_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MMM4REC_TEST_DATA to a folder that holds it")
    return folder
