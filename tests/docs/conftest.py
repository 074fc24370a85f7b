"""The films and their run, made once and copied to each test."""

import os
import shutil
from pathlib import Path

import pytest

from .films import make_films, make_run


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the films and `run`."""
    folder = tmp_path_factory.mktemp("films")
    make_films(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        make_run(folder)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the films alone."""
    make_films(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def films_with_run(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the films, `sequences`, `catalog` and `run`."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
