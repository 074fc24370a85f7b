"""The readers that `fuzz.py` tries: each writes good files of its own, and reads a folder of them, damaged or not."""

import bz2
import gzip
import json
import lzma
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch
import yaml
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from safetensors import SafetensorError

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.conversion import load_published
from mmm4rec_hf.conversion.published import convert_to_published, read_published_config
from mmm4rec_hf.data import SequenceDatasets, load_interactions, prepare_sequences
from mmm4rec_hf.items import ItemCatalog
from mmm4rec_hf.items.images import load_picture
from mmm4rec_hf.training.finetuning import FinetuneRecipe
from mmm4rec_hf.training.pretraining import PretrainRecipe
from mmm4rec_hf.training.recipes import load_recipe

# What the package documents, and what transformers lets through of the weights' library.
DOCUMENTED = (ValueError, TypeError, FileNotFoundError)
OF_LIBRARIES = (SafetensorError, StrictDataclassError, pickle.UnpicklingError, OSError)
EVENTS = [(f"u{n % 7}", str(n * n % 11), 1_387_670_400 + 60 * n) for n in range(60)]
COLUMNS = ["user_id", "item_id", "timestamp"]


class Reader(Protocol):
    """Writes its good files into a folder when it is made."""

    files: list[str]

    def __init__(self, folder: Path) -> None: ...

    def read(self, folder: Path) -> object: ...


def documented(error: BaseException) -> bool:
    """Whether an error is of a kind that a caller was told of. `OSError` is, as a path may be any; memory is not."""
    return isinstance(error, (*DOCUMENTED, *OF_LIBRARIES))


class Logs:
    """`load_interactions` of text files, and the split of what they hold."""

    def __init__(self, folder: Path) -> None:
        frame = pl.DataFrame(EVENTS, schema=COLUMNS, orient="row")
        records = "".join(json.dumps(row) + "\n" for row in frame.to_dicts())
        reviews = "".join(f"{dict(zip(('reviewerID', 'asin', 'unixReviewTime'), row))}\n" for row in EVENTS)  # noqa: B905
        contents: dict[str, Any] = {
            "log.csv": frame.write_csv(), "log.tsv": frame.write_csv(separator="\t"), "log.jsonl": records,
            "array.json": json.dumps(frame.to_dicts()), "reviews.json": reviews,
            "x.inter": "user_id:token\titem_id:token\ttimestamp:float\n"
            + "".join(f"{u}\t{i}\t{t}\n" for u, i, t in EVENTS),
            "u.data": "".join(f"{u}\t{i}\t5\t{t}\n" for u, i, t in EVENTS),
            "ratings.dat": "".join(f"{u}::{i}::5::{t}\n" for u, i, t in EVENTS),
        }  # fmt: skip
        for name, text in contents.items():
            (folder / name).write_text(text)
        for name, pack in (("log.csv.gz", gzip), ("log.jsonl.bz2", bz2), ("log.tsv.xz", lzma)):
            (folder / name).write_bytes(pack.compress((folder / name.rsplit(".", 1)[0]).read_bytes()))
        self.files = sorted(path.name for path in folder.iterdir())

    def read(self, folder: Path) -> object:
        changed = [n for n in self.files if (folder / n).read_bytes() != (folder.parent / "good" / n).read_bytes()]
        for name in changed or self.files[:1]:
            path = folder / name
            format = "amazon-2018" if name == "reviews.json" else "auto"
            log = load_interactions(path, format=format)
            prepare_sequences(log, k_core=0)
        return changed


class PublishedData:
    """`load_interactions` of the published format."""

    files = ["item2id.jsonl", "user2id.jsonl", "test_seq.jsonl"]

    def __init__(self, folder: Path) -> None:
        (folder / "item2id.jsonl").write_text("".join(f'["a{n}", {n}]\n' for n in range(1, 9)))
        (folder / "user2id.jsonl").write_text("".join(f'["u{n}", {n}]\n' for n in range(4)))
        lines = [json.dumps([u, [[1 + (u + n) % 8, 1000 + n] for n in range(5)]]) + "\n" for u in range(4)]
        (folder / "test_seq.jsonl").write_text("".join(lines))

    def read(self, folder: Path) -> object:
        return prepare_sequences(load_interactions(folder), k_core=0)


class Parquet:
    """Logs and items as Parquet."""

    files = ["log.parquet", "items.parquet"]

    def __init__(self, folder: Path) -> None:
        pl.DataFrame(EVENTS, schema=COLUMNS, orient="row").write_parquet(folder / "log.parquet")
        items = {
            "item_id": [str(n) for n in range(20)],
            "title": ["é"] * 20,
            "image": [b"x"] * 20,
            "tags": [["a"]] * 20,
        }
        pl.DataFrame(items).write_parquet(folder / "items.parquet")

    def read(self, folder: Path) -> object:
        prepare_sequences(load_interactions(folder / "log.parquet"), k_core=0)
        return ItemCatalog.from_items(folder / "items.parquet")


class Sequences:
    """What `prepare` writes: Arrow files and their descriptions."""

    def __init__(self, folder: Path) -> None:
        log = pl.DataFrame(EVENTS, schema=COLUMNS, orient="row")
        prepare_sequences(load_interactions(log), k_core=0).save_to_disk(folder / "made")
        self.files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def read(self, folder: Path) -> object:
        made = SequenceDatasets.load_from_disk(folder / "made")
        return [split[0] for split in made.values() if len(split)]


class Items:
    """`ItemCatalog.from_items` of metadata."""

    def __init__(self, folder: Path) -> None:
        rows = [{"item_id": n, "title": f"é {n}", "image": f"{n}.png", "tags": ["a", {"b": None}]} for n in range(20)]
        lines = "".join(json.dumps(row, ensure_ascii=n % 2 == 0) + "\n" for n, row in enumerate(rows))
        amazon = "".join(str({"asin": f"B{n}", "title": "t", "imUrl": "http://x/y.jpg"}) + "\n" for n in range(20))
        (folder / "items.jsonl").write_text(lines, encoding="utf-8")
        (folder / "meta.json").write_text(amazon)
        (folder / "items.csv").write_text("item_id,title\n" + "".join(f"{n},t\n" for n in range(20)))
        (folder / "movies.dat").write_text("".join(f"{n}::Film ({1990 + n})::Drama|War\n" for n in range(20)))
        (folder / "x.item").write_text("item_id:token\ttitle:token_seq\n" + "".join(f"{n}\ta b\n" for n in range(20)))
        (folder / "items.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
        self.files = sorted(path.name for path in folder.iterdir())

    def read(self, folder: Path) -> object:
        for name in self.files:
            if (folder / name).read_bytes() != (folder.parent / "good" / name).read_bytes():
                catalog = ItemCatalog.from_items(folder / name)
                catalog.save_pretrained(folder / "saved")
                assert ItemCatalog.from_pretrained(folder / "saved").item_ids == catalog.item_ids
        return None


class Catalogues:
    """`ItemCatalog.from_pretrained`, and a picture of it."""

    files = ["items.jsonl", "features.safetensors", "catalog.json", "images/a.png"]

    def __init__(self, folder: Path) -> None:
        (folder / "images").mkdir(exist_ok=True)
        picture(0).save(folder / "images" / "a.png")
        records = [{"title": "x", "image": "images/a.png"}, {"title": "y"}, {}]
        features = {
            "text_features": np.eye(3),
            "image_features": np.eye(3),
            "image_mask": np.array([True, False, False]),
        }
        ItemCatalog(["a", "0", "é"], records, **features).save_pretrained(folder)  # type: ignore[arg-type]

    def read(self, folder: Path) -> object:
        catalog = ItemCatalog.from_pretrained(folder)
        return catalog.picture(catalog.item_ids[0])


def picture(seed: int) -> Image.Image:
    """Random colours."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8))


class Pictures:
    """`load_picture` of every format."""

    def __init__(self, folder: Path) -> None:
        image = picture(0)
        exif = image.getexif()
        exif[0x0112], exif[0x010E] = 6, "a description"
        image.save(folder / "a.jpg", exif=exif)
        image.save(folder / "progressive.jpg", progressive=True)
        image.convert("CMYK").save(folder / "cmyk.jpg")
        image.save(folder / "a.mpo", save_all=True, append_images=[picture(1)])
        image.convert("RGBA").save(folder / "a.png", exif=exif)
        image.convert("P").save(folder / "palette.png", transparency=0)
        image.save(folder / "a.webp", exif=exif)
        image.save(folder / "animated.webp", save_all=True, append_images=[picture(1)])
        image.save(folder / "a.gif", save_all=True, append_images=[picture(1)])
        image.save(folder / "a.bmp")
        self.files = sorted(path.name for path in folder.iterdir())

    def read(self, folder: Path) -> object:
        for name in self.files:
            content = (folder / name).read_bytes()
            if content != (folder.parent / "good" / name).read_bytes():
                assert load_picture(content).mode == "RGB"
                load_picture(name, root=folder)
        return None


MODEL: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "state_size": 4, "max_sequence_length": 6,
    "text_feature_size": 3, "image_feature_size": 3,
}  # fmt: skip


def model() -> MMM4RecForSequentialRecommendation:
    """A small one with three items."""
    made = MMM4RecForSequentialRecommendation(MMM4RecConfig(**MODEL))
    made.set_items(ItemCatalog(["a", "0", "é"], text_features=np.eye(3), image_features=np.eye(3)))
    return made


class Models:
    """`from_pretrained` of a model's folder."""

    files = ["model.safetensors", "config.json", "item_ids.json"]

    def __init__(self, folder: Path) -> None:
        model().save_pretrained(folder)

    def read(self, folder: Path) -> object:
        return MMM4RecForSequentialRecommendation.from_pretrained(folder)


class Checkpoints:
    """Conversion of a published checkpoint with its YAML file and data folder."""

    files = ["model.ckpt", "model.yaml", "data/item2id.jsonl", "data/text_feat.pth", "data/image_feat.pth", "old.ckpt"]

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model().save_pretrained(folder / "ours")
            convert_to_published(folder / "ours", folder / "model.ckpt", folder / "data")
        content = torch.load(folder / "model.ckpt", weights_only=True)
        torch.save(content, folder / "old.ckpt", _use_new_zipfile_serialization=False)
        values = yaml.safe_load((folder / "model.yaml").read_text())
        (folder / "model.yaml").write_text(yaml.safe_dump(values | {"item_num": 3}))

    def read(self, folder: Path) -> object:
        load_published(folder / "old.ckpt", folder / "model.yaml", folder / "data")
        return load_published(folder / "model.ckpt", folder / "model.yaml", folder / "data")


class Recipes:
    """Recipes and published configurations."""

    files = ["finetune.yaml", "pretrain.yaml", "published.yaml"]

    def __init__(self, folder: Path) -> None:
        values = {
            "sequences": "s",
            "catalog": "c",
            "output_dir": "o",
            "model": {"hidden_size": 16, "norm_eps": "1e-12"},
        }
        (folder / "finetune.yaml").write_text(yaml.safe_dump(values | {"training": {"learning_rate": 1e-3}}))
        domains = [{"name": "a", "sequences": "s", "catalog": "c"}]
        (folder / "pretrain.yaml").write_text(yaml.safe_dump({"domains": domains, "output_dir": "o", "max_steps": 10}))
        (folder / "published.yaml").write_text("max_len: 10\nhidden_size: 16\nitem_mm_fusion: static\nis_time: true\n")

    def read(self, folder: Path) -> object:
        read_published_config(folder / "published.yaml")
        load_recipe(FinetuneRecipe, folder / "finetune.yaml")
        return load_recipe(PretrainRecipe, folder / "pretrain.yaml")


READERS: dict[str, Callable[[Path], Reader]] = {
    "logs": Logs, "published-data": PublishedData, "parquet": Parquet, "sequences": Sequences, "items": Items,
    "catalogues": Catalogues, "pictures": Pictures, "models": Models, "checkpoints": Checkpoints, "recipes": Recipes,
}  # fmt: skip
