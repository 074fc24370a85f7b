"""The Python code of the README runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mmm4rec_hf import ItemCatalog, MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.training.saving import save_recommender

ITEMS = ["50", "172", "181", "4", "5", "6", "7"]
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
def folder(tmp_path: Path) -> Path:
    """A folder with what the README speaks of: a model of the demo, a log and its items."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "n_groups": 4, "state_size": 4}
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**sizes, text_feature_size=4, image_feature_size=3))
    draw = np.random.default_rng(0)
    features = {"text_features": draw.normal(size=(7, 4)), "image_features": draw.normal(size=(7, 3))}
    catalog = ItemCatalog(ITEMS, [{"title": f"Film {item}"} for item in ITEMS], **features)
    model.set_items(catalog)
    save_recommender(model, MMM4RecProcessor(), catalog, tmp_path / "demo" / "model")
    rows = [(user, ITEMS[(user + n) % 7], 1_387_670_400 + 60 * n) for user in range(8) for n in range(6)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(
        tmp_path / "interactions.csv"
    )
    items = pl.DataFrame({"item_id": ITEMS, "title": [f"Film {item}" for item in ITEMS]})
    items.write_ndjson(tmp_path / "items.jsonl")
    return tmp_path


def test_each_block_runs(repository: Path, folder: Path) -> None:
    blocks = code_blocks(repository)
    assert len(blocks) >= 2
    # A training of the published size takes long: the test trains for a step.
    code = [block.replace("num_train_epochs=5", "max_steps=1, report_to=[], use_cpu=True") for block in blocks]
    done = subprocess.run(
        [sys.executable, "-c", STAND_IN + "\n".join(code)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "features").is_dir() and (folder / "output" / "metrics.json").is_file()
