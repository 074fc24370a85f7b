"""What the tests of benchmarks share: a small shop on disk, and a way to run a benchmark's command."""

import contextlib
import io
import os
import runpy
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
def run_benchmark(repository: Path, shop: Path) -> Callable[..., str]:
    """Runs a script below `benchmarks/` on the small shop, in this process; what it printed."""

    def of_benchmarks() -> list[str]:
        """Modules beside the scripts, which read variables of the environment when they are imported."""
        folder = f"{repository / 'benchmarks'}{os.sep}"
        return [name for name, it in sys.modules.items() if str(getattr(it, "__file__", None)).startswith(folder)]

    def run(script: str, *arguments: str | Path) -> str:
        path, printed = repository / "benchmarks" / script, io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(sys, "argv", [str(path), *map(str, arguments)])
            patch.setenv("MMM4REC_TEST_DATA", str(shop))
            patch.syspath_prepend(path.parent)
            patch.chdir(repository)
            for name in of_benchmarks():
                patch.delitem(sys.modules, name)
            try:
                runpy.run_path(str(path), run_name="__main__")
            finally:
                for name in of_benchmarks():
                    del sys.modules[name]
        return printed.getvalue()

    return run
