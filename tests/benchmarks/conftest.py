"""What the tests of benchmarks share: a small shop on disk, and a way to run a benchmark's command."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def shop_log() -> list[list[int]]:
    """The items, 1 to 9, of 30 users in time order; every item has 5 events and more."""
    rng = np.random.default_rng(0)
    return [rng.permutation(np.arange(1, 10))[: rng.integers(5, 9)].tolist() for _ in range(30)]


@pytest.fixture(scope="session")
def shop(shop_log: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set `shop`."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "shop").mkdir()
    lines = ["user_id,item_id,timestamp"]
    for user, items in enumerate(shop_log):
        lines += [f"u{user:02d},i{item},{1_500_000_000 + time}" for time, item in enumerate(items)]
    (folder / "shop" / "interactions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def run_benchmark(repository: Path, shop: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script below `benchmarks/` on the small shop."""

    def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(repository / "benchmarks" / script), *map(str, arguments)]
        environment = os.environ | {"MMM4REC_TEST_DATA": str(shop)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=repository)
        assert done.returncode == 0, done.stderr
        return done

    return run
