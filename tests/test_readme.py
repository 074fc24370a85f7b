"""The Python code of the README runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmm4rec_hf import ItemCatalog, MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.training.saving import save_recommender

from .docs.films import ITEMS, make_films, make_run

# No hub is at hand: the encoder that the README names is stood in for by the shortest functions of its widths.
STAND_IN = """
import numpy as np, mmm4rec_hf.items as items, mmm4rec_hf
made = items.ItemEncoder(
    text_encoder=lambda texts: np.random.default_rng(0).normal(size=(len(texts), 768)).astype("float32"),
    image_encoder=lambda pictures: np.random.default_rng(1).normal(size=(len(pictures), 768)).astype("float32"),
)
mmm4rec_hf.ItemEncoder = lambda name: made
"""


def code_blocks(repository: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (repository / "README.md").read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the README speaks of: a model of the demo, a log and its items, and a run on them."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "n_groups": 4, "state_size": 4}
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**sizes, text_feature_size=4, image_feature_size=3))
    draw = np.random.default_rng(0)
    features = {"text_features": draw.normal(size=(7, 4)), "image_features": draw.normal(size=(7, 3))}
    catalog = ItemCatalog(ITEMS, [{"title": f"Film {item}"} for item in ITEMS], **features)
    model.set_items(catalog)
    save_recommender(model, MMM4RecProcessor(), catalog, tmp_path / "demo" / "model")
    make_films(tmp_path)
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path)
    return tmp_path


def test_each_block_runs(repository: Path, folder: Path) -> None:
    blocks = code_blocks(repository)
    assert len(blocks) >= 3
    # A training of the published size takes long: the test trains for a step.
    code = [block.replace("num_train_epochs=5", "max_steps=1, report_to=[], use_cpu=True") for block in blocks]
    # The last one needs none of the others.
    alone = f"space = {{}}\nexec({code.pop()!r}, space)\nassert space['catalog'].item_ids[-1] == 'new'"
    line = [sys.executable, "-c", STAND_IN + "\n".join([*code, alone])]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "features").is_dir() and (folder / "output" / "metrics.json").is_file()
