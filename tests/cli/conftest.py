"""A tiny shop with everything that damages ids, times and pictures, and the model that the commands make of it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mmm4rec_hf.cli import main

from ..tiny_encoders import save_tiny_encoders

# Ids that integers, floats and paths damage; "cold" is in nobody's history.
IDS = ["0", "1", "2", "7", "007", "1.0", "9007199254740993", "9007199254740992", "0001388703", "a/../b", "é,"]
ITEMS = [*IDS, "cold"]
USERS = ["0", "00", "9007199254740993", *(f"u{n}" for n in range(9))]
START = 1_387_670_400
MODEL = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "state_size": 4, "max_sequence_length": 6}


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    """A file for each of the first items; those of the first two cannot be used."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    exif = noise.getexif()
    exif[0x0112] = 6
    return {
        "truncated.jpg": encoded(noise, "JPEG")[:500],
        "pixel.png": encoded(Image.new("RGB", (1, 1))),
        "palette.png": encoded(noise.convert("P", palette=Image.Palette.ADAPTIVE)),
        "cmyk.jpg": encoded(noise.convert("CMYK"), "JPEG"),
        "alpha.png": encoded(noise.convert("RGBA")),
        "animated.gif": encoded(noise, "GIF", save_all=True, append_images=[Image.new("RGB", (30, 40))]),
        "rotated.jpg": encoded(noise, "JPEG", exif=exif),
    }


def history_of(user: int) -> list[tuple[str, int]]:
    """Items and unix seconds of a user, oldest first."""
    return [(IDS[(user + n * n) % len(IDS)], START + 1000 * user + 60 * n) for n in range(6)]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`log.csv` with times in milliseconds and in no order, `items.jsonl`, pictures, and two tiny encoders."""
    folder = tmp_path_factory.mktemp("shop")
    rows = [(user, item, time * 1000) for n, user in enumerate(USERS) for item, time in history_of(n)]
    np.random.default_rng(0).shuffle(rows)
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "log.csv")
    records: list[dict[str, Any]] = [{"item_id": item, "title": f"Title {n}"} for n, item in enumerate(ITEMS)]
    for record, (name, content) in zip(records, pictures().items(), strict=False):
        (folder / name).write_bytes(content)
        record["image"] = name
    records[-1]["image"] = "absent.jpg"
    (folder / "items.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    save_tiny_encoders(folder / "bert", folder / "vit", ["title", *map(str, range(12))])
    return folder


@pytest.fixture(scope="session")
def model(shop: Path) -> Path:
    """What `prepare`, `encode` and `finetune` make of the shop."""
    sequences, catalog, run = (str(shop / name) for name in ("sequences", "catalog", "run"))
    log, items = str(shop / "log.csv"), str(shop / "items.jsonl")
    encoders = ["--text-encoder", str(shop / "bert"), "--image-encoder", str(shop / "vit")]
    changes = [f"model.{name}={value}" for name, value in MODEL.items()] + ["training.num_train_epochs=1"]
    changes += [f"sequences={sequences}", f"catalog={catalog}", f"output_dir={run}"]
    assert main(["prepare", log, "--output", sequences, "--k-core", "1", "--time-unit", "ms"]) == 0
    assert main(["encode", items, "--output", catalog, *encoders]) == 0
    assert main(["finetune", *changes]) == 0
    return shop / "run" / "model"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 1) -> str:
    """The one line of a command that fails."""
    capsys.readouterr()
    assert main(list(arguments)) == status
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("mmm4rec: error: ")]
    assert out == "" and len(lines) == 1 and err.splitlines()[-1] == lines[0]
    return lines[0]
