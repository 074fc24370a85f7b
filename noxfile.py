"""The quick tests on each Python, and with the lowest and the highest versions of what the package depends on.

    python -m pip install 'nox>=2024.10,<2027'
    nox -s tests                            # Python 3.10 to 3.13, versions of constraints.txt
    nox -s lowest                           # the lowest versions within the ranges of pyproject.toml that fit together
    nox -s highest                          # the highest ones
    nox -s tests-3.12 -- -m "not slow"      # other tests: what pytest is given

A Python that is not there is skipped, by name. torch may come with gigabytes of CUDA: where space is short, call one
session after the other and delete `.nox/` between. What a run found: docs/reliability.md.
"""

from pathlib import Path

import nox

nox.options.sessions = ["tests", "lowest", "highest"]
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
PARTS = ["modeling", "evaluation", "data", "items", "training", "conversion"]
QUICK = ["-q", "-m", "not slow", *(f"tests/{part}" for part in PARTS)]
# What QUICK needs beside the package's own dependencies; narwhals 2.0 knows no later DuckDB, and transformers before
# 5.20 reads pictures by torchvision.
TOOLS = [
    *("pytest>=8,<10", "hypothesis>=6.100,<7", "pandas>=2.2,<4", "duckdb>=1.1,<1.4", "ir-measures>=0.4,<0.5"),
    "torchvision",
]


def check(session: nox.Session) -> None:
    """Says the versions, and runs the tests."""
    session.run("python", "-m", "pip", "list", "--format=freeze")
    session.run("python", "-m", "pytest", "-p", "no:cacheprovider", *(session.posargs or QUICK))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The pinned versions, with all extras."""
    session.install("--upgrade", "pip")
    session.install("-c", "constraints.txt", "-e", ".[dev]")
    check(session)


@nox.session(python="3.10")
def lowest(session: nox.Session) -> None:
    """The lowest allowed versions of the direct dependencies."""
    session.install("--upgrade", "pip", "uv>=0.9,<1")
    pins = Path(session.create_tmp(), "lowest.txt").resolve()
    resolve = ["--resolution", "lowest-direct", "--python-version", str(session.python), "--no-header", "--quiet"]
    session.run("uv", "pip", "compile", *resolve, "pyproject.toml", "--output-file", str(pins))
    session.install("-r", str(pins), "-e", ".", *TOOLS)
    check(session)


@nox.session(python="3.13")
def highest(session: nox.Session) -> None:
    """The highest allowed versions of all dependencies, with all extras."""
    session.install("--upgrade", "pip")
    session.install("--upgrade", "--upgrade-strategy", "eager", "-e", ".[dev]")
    check(session)
