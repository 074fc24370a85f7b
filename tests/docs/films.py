"""A small shop of films with posters, two tiny encoders under the names of those that come as packages, and a run."""

import json
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from mmm4rec_hf.cli import main

from ..tiny_encoders import save_tiny_encoders

ITEMS = ["50", "172", "181", "4", "5", "6", "7"]
SIZES = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "state_size": 4, "max_sequence_length": 6}
TINY = [f"model.{name}={value}" for name, value in SIZES.items()]


def make_films(folder: Path) -> None:
    """`interactions.csv`, `items.jsonl`, `posters/`, `new_items.jsonl`, and the encoders' folders."""
    rows = [(f"{user}", ITEMS[(user + n) % 7], 1_387_670_400 + 40 * n) for user in range(8) for n in range(6)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    log.write_csv(folder / "interactions.csv")
    (folder / "posters").mkdir()
    for number, item in enumerate(ITEMS):
        Image.fromarray(np.full((20, 16, 3), 30 * number, np.uint8)).save(folder / "posters" / f"{item}.jpg")
    items = {"item_id": ITEMS, "title": [f"Film {i}" for i in ITEMS], "image": [f"posters/{i}.jpg" for i in ITEMS]}
    pl.DataFrame(items).write_ndjson(folder / "items.jsonl")
    new = {"item_id": "new", "title": "Film new", "image": "posters/50.jpg"}
    (folder / "new_items.jsonl").write_text(json.dumps(new) + "\n")

    words = ["title", "film", *map(str, range(10))]
    save_tiny_encoders(folder / "minilm", folder / "efficientnet-lite0", words)


def make_run(folder: Path) -> None:
    """`sequences`, `catalog` and `run` of the films; the working directory must be that folder."""
    encoders = ["--text-encoder", "minilm", "--image-encoder", "efficientnet-lite0"]
    assert main(["prepare", "interactions.csv", "--output", "sequences"]) == 0
    assert main(["encode", "items.jsonl", "--sequences", "sequences", "--output", "catalog", *encoders]) == 0
    recipe = ["sequences=sequences", "catalog=catalog", "output_dir=run", "training.num_train_epochs=1"]
    assert main(["finetune", *recipe, *TINY]) == 0
