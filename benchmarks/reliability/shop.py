"""A tiny shop on disk, drawn from a seed: logs, items with pictures, and two tiny encoders of each kind."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ITEMS = [f"item {n}" for n in range(8)] + ["007", "7", "é,", "cold"]
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
MODEL = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "state_size": 4, "max_sequence_length": 6}
OLD = "old-"  # before the name of what an earlier run read


def write_shop(folder: Path, seed: int = 0) -> None:
    """
    Writes `log.csv`, `items.jsonl`, `pictures/`, `bert/` and `vit/`, and the same under names that begin with `old-`,
    with other events, titles, pictures and weights for the same items.
    """
    for number, prefix in enumerate(("", OLD)):
        draw = np.random.default_rng([seed, number])
        _write_log(folder / f"{prefix}log.csv", draw)
        _write_items(folder, prefix, draw)
        _write_encoders(folder, prefix, seed + number)


def encoders(folder: Path, prefix: str = "") -> list[str]:
    """The options of `mmm4rec encode` that name the encoders."""
    text, image = folder / f"{prefix}bert", folder / f"{prefix}vit"
    return ["--text-encoder", str(text), "--image-encoder", str(image)]


def _write_log(path: Path, draw: np.random.Generator) -> None:
    lines = ["user_id,item_id,timestamp"]
    for user in range(16):
        start, times = int(draw.integers(11)), 1_400_000_000 + np.cumsum(draw.integers(1, 100_000, 7))
        # Round a circle of items: what comes next can be learned.
        lines += [f'u{user},"{ITEMS[(start + n) % 11]}",{time}' for n, time in enumerate(times.tolist())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_items(folder: Path, prefix: str, draw: np.random.Generator) -> None:
    pictures = folder / f"{prefix}pictures"
    pictures.mkdir()
    records: list[dict[str, Any]] = []
    for number, item in enumerate(ITEMS):
        name = pictures / f"{number}.png"
        Image.fromarray(draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(name)
        records.append({"item_id": item, "title": f"{prefix}title {number}", "image": f"{pictures.name}/{name.name}"})
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / f"{prefix}items.jsonl").write_text(text, encoding="utf-8")


def _write_encoders(folder: Path, prefix: str, seed: int) -> None:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast, ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(seed)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "title", *map(str, range(12))]
    vocabulary = folder / f"{prefix}vocab.txt"
    vocabulary.write_text("\n".join(words))
    length, side = (12, 24) if prefix else (16, 16)
    bert, vit = folder / f"{prefix}bert", folder / f"{prefix}vit"
    BertTokenizerFast(vocab=str(vocabulary), model_max_length=length).save_pretrained(bert)
    BertModel(BertConfig(**TINY, vocab_size=len(words), max_position_embeddings=16)).save_pretrained(bert)
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(vit)
    ViTModel(ViTConfig(**TINY, image_size=side, patch_size=8)).save_pretrained(vit)
