"""A Hub of our own for each module, and fresh interpreters that know no other."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .loopback import LoopbackHub

TOKEN = "hf_of_the_author"
# Makes this package impossible to import, as where only transformers is installed.
WITHOUT_PACKAGE = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("mmm4rec_hf", "modeling", "conversion"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""
# The client waits longer and longer between its attempts.
NO_WAITING = """
import time
time.sleep = lambda seconds: None
"""
# Tiny models whose every path matters, and a catalogue of the same items.
TINY = """
import numpy as np, torch
from mmm4rec_hf import ItemCatalog, MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor

def catalog_of(ids, seed=0):
    draw = np.random.default_rng(seed)
    records = [{"title": f"Title {item_id}"} for item_id in ids]
    features = {name: draw.normal(size=(len(ids), size)).astype("float32") for name, size in SIZES.items()}
    return ItemCatalog(ids, records, feature_info={"text": {"encoder": "some/encoder", "revision": "1"}}, **features)

SIZES = {"text_features": 6, "image_features": 5}
CONFIG = dict(hidden_size=16, intermediate_size=24, head_dim=4, n_groups=4, state_size=4, max_sequence_length=8,
              text_feature_size=6, image_feature_size=5)

def model_of(seed=0, **changes):
    torch.manual_seed(seed)
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**(CONFIG | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("A_log", "dt_bias")):
                parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()

IDS = ["007", "7", "B00.1", "x/y", "5", "6"]
HISTORY = {"items": ["7", "B00.1"], "timestamps": [1_300_000_000, 1_300_000_060]}
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    """A Hub that one author has a token for."""
    hub = LoopbackHub({TOKEN: "author"})
    yield hub
    hub.close()


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def interpreter(hub: LoopbackHub, folder: Path) -> Run:
    """
    Runs code in a fresh interpreter, in a folder and with the cache below it.

    With `token=None` nobody is logged in, `home` names another cache, and `fails` asks for an error.
    """

    def run(
        code: str, *, token: str | None = TOKEN, home: str = "home", fails: bool = False, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / home)}
        environment |= {} if token is None else {"HF_TOKEN": token}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=folder,
            env=environment | variables,
            capture_output=True,
            text=True,
        )
        assert (done.returncode != 0) == fails, done.stdout[-2000:] + done.stderr[-4000:]
        return done

    return run


@pytest.fixture(scope="module")
def author(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The interpreter of whoever uploads."""
    return interpreter(hub, tmp_path_factory.mktemp("author"))


@pytest.fixture
def reader(hub: LoopbackHub, tmp_path: Path) -> Run:
    """The interpreter of whoever downloads, with an empty cache."""
    return interpreter(hub, tmp_path)
