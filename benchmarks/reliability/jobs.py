"""The jobs that kill.py kills: what each runs, what an earlier run left in its place, and how its output is read."""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from shop import MODEL, OLD, encoders

# Of each part of an output: a digest of what a user gets who loads it.
Parts = dict[str, Callable[[], str]]


@dataclass(frozen=True)
class Job:
    """
    One writing command.

    Args:
        run (`Callable[[Path], int]`): Runs it in the working directory, from the folder of inputs; the exit status.
        parts (`Callable[[], Parts]`): Readers of what it wrote to the working directory.
        before (`Callable[[Path], int]`, *optional*): Runs what wrote an earlier, different output to the same place.
        watch (`Callable`, *optional*): A context that keeps each state of a part that a run replaces on its way.
        not_bytes (`tuple[str]`, *optional*): Ends of names of files that hold times; see `same_but_for_times`.
        refuses_existing (`bool`, *optional*): Whether it ends with status 1 where its whole output is there already.
    """

    run: Callable[[Path], int]
    parts: Callable[[], Parts]
    before: Callable[[Path], int] | None = None
    watch: Callable[[], Any] = contextlib.nullcontext
    not_bytes: tuple[str, ...] = ()
    refuses_existing: bool = False


def command(*words: Any) -> int:
    """Runs `mmm4rec` in this process."""
    from mmm4rec_hf.cli import main

    return main([str(word) for word in words])


def digest(*values: Any) -> str:
    """Of arrays, bytes and what JSON holds, in order."""
    total = hashlib.sha256()
    for value in values:
        if hasattr(value, "tobytes"):
            total.update(repr((value.dtype, value.shape)).encode() + value.tobytes())
        else:
            # Paths as texts.
            plain = (
                value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, default=os.fspath).encode()
            )
            total.update(plain)
    return total.hexdigest()[:16]


def prepare(inputs: Path, prefix: str = "", *options: Any) -> int:
    return command("prepare", inputs / f"{prefix}log.csv", "-o", "sequences", "--k-core", 1, *options)


def sequences_read() -> str:
    from mmm4rec_hf.data import SequenceDatasets
    from mmm4rec_hf.evaluation.protocol import read_preparation, read_source

    made = SequenceDatasets.load_from_disk("sequences")
    rows = [array for split in made for array in made.pointers_of(split)]
    events = [made.events.data.column(name).to_numpy() for name in ("item", "timestamp")]
    # What says how they were made is a part of them.
    return digest(made.item_ids, *rows, *events, read_preparation("sequences"), read_source("sequences"))


def shards_read() -> str:
    import pyarrow.parquet as pq

    from mmm4rec_hf.training.shards import read_about, shard_files

    about, item_ids = read_about("sequences/shards")
    tables = [pq.read_table(name).to_pylist() for name in shard_files(Path("sequences/shards"))]
    return digest(about, item_ids, tables, sequences_read())


def encode(inputs: Path, prefix: str = "") -> int:
    options = [*encoders(inputs, prefix), "--shard-size", 4, "--overwrite"]
    return command("encode", inputs / f"{prefix}items.jsonl", "-o", "catalog", *options)


def catalog_read(folder: str = "catalog", with_pictures: bool = False) -> str:
    from mmm4rec_hf.items import ItemCatalog

    made = ItemCatalog.from_pretrained(folder)
    pictures = [made.root.joinpath(record["image"]).read_bytes() for record in made.records] if with_pictures else []
    arrays = [made.text_features, made.image_features, made.text_mask, made.image_mask]
    return digest(made.item_ids, made.records, made.feature_info, *arrays, *pictures)


def encoded_read() -> str:
    from mmm4rec_hf.training.saving import load_processor

    catalog = catalog_read()
    processor = load_processor("catalog")
    # A catalogue without the processor that its features were made with would be another output.
    length, size = processor.tokenizer.model_max_length, processor.image_processor.size["height"]
    return digest(catalog, length, size)


def save_catalog(inputs: Path, prefix: str = "") -> int:
    import numpy as np

    from mmm4rec_hf.cli.running import run_command
    from mmm4rec_hf.items import ItemCatalog

    made = ItemCatalog.from_items(inputs / f"{prefix}items.jsonl")
    draw = np.random.default_rng(len(prefix))
    features = {f"{name}_features": draw.normal(size=(len(made), 40)).astype("float32") for name in ("text", "image")}
    catalog = ItemCatalog(made.item_ids, made.records, root=made.root, **features)
    # As a command: an error is one line.
    return run_command("mmm4rec", lambda: catalog.save_pretrained("saved", save_images=True))


def pretrain(inputs: Path) -> int:
    domain = {"name": "shop", "sequences": str(inputs / "sequences"), "catalog": str(inputs / "catalog")}
    options = {"max_steps": 8, "batch_size": 8, "learning_rate": 0.01, "eval_steps": 2, "save_steps": 2}
    options |= {"logging_steps": 1, "output_dir": "base"} | {f"model.{name}": value for name, value in MODEL.items()}
    return command(
        "pretrain", f"domains={json.dumps([domain])}", *(f"{key}={value}" for key, value in options.items())
    )


def model_read(folder: str) -> str:
    from mmm4rec_hf.modeling import MMM4RecForSequentialRecommendation
    from mmm4rec_hf.saved_models import find_model

    # As a command that reads a model, which says in one line that a folder is not there.
    model = MMM4RecForSequentialRecommendation.from_pretrained(find_model(f"./{folder}"))
    # A pushed card names the repository, which is another one for each run.
    card = Path(folder, "README.md").read_text(encoding="utf-8").replace(f"author/{Path.cwd().name}", "author/name")
    card = re.sub("uploaded as [0-9a-f]{64}", "uploaded", card)  # a digest of the name, too
    return digest(model.item_ids, card, *(value.numpy() for _, value in sorted(model.state_dict().items())))


@contextlib.contextmanager
def keep_best_models() -> Iterator[None]:
    """A pretraining replaces its model whenever a validation is better: each of them is whole."""
    from mmm4rec_hf.training.pretraining import Pretraining

    save = Pretraining._save_model

    def save_and_keep(self: Pretraining) -> None:
        save(self)
        shutil.copytree(self.output / "model", Path(f"kept-{self.progress.step}", "base", "model"))

    with mock.patch.object(Pretraining, "_save_model", save_and_keep):
        yield


def finetune(inputs: Path) -> int:
    options = {"num_train_epochs": 3, "per_device_train_batch_size": 24, "learning_rate": 0.01, "save_total_limit": 1}
    changes = [f"model.{name}={value}" for name, value in MODEL.items()]
    changes += [f"training.{name}={value}" for name, value in options.items()]
    sources = [f"sequences={inputs / 'sequences'}", f"catalog={inputs / 'catalog'}"]
    return command("finetune", *sources, "output_dir=run", *changes)


def recommender_read(folder: str) -> str:
    from transformers import pipeline

    from mmm4rec_hf.saved_models import find_model

    recommend = pipeline("sequential-recommendation", model=find_model(f"./{folder}"), device="cpu")
    found = recommend({"items": recommend.processor.item_ids[:3], "timestamps": [1, 2, 3]}, top_k=3)
    return digest(model_read(folder), found, recommend.processor.item_ids)


def evaluate(inputs: Path, prefix: str = "") -> int:
    split = "validation" if prefix else "test"
    return command(
        "evaluate", inputs / f"{prefix}model", inputs / "sequences", "--split", split,
        "--catalog", inputs / "catalog", "--baselines", "-o", "numbers",
    )  # fmt: skip


def evaluation_read(folder: str) -> str:
    from mmm4rec_hf.evaluation.evaluator import Evaluation
    from mmm4rec_hf.evaluation.yardsticks import load_baselines

    made = Evaluation.load(folder)
    baselines = {name: baseline.metrics for name, baseline in load_baselines(folder, made).items()}
    return digest(made.to_dict(), made.targets.to_dicts(), baselines)


def convert_published(inputs: Path) -> int:
    files = [inputs / "model.ckpt", "--config", inputs / "model.yaml", "--data", inputs / "published"]
    return command("convert", "published", *files, "-o", "converted")


def convert_to_published(inputs: Path, prefix: str = "") -> int:
    return command("convert", "to-published", inputs / f"{prefix}model", "model.ckpt", "--data", "published")


def published_read() -> str:
    from mmm4rec_hf.conversion import load_published

    made = load_published("model.ckpt", "model.yaml", "published")
    weights = [value.numpy() for _, value in sorted(made.model.state_dict().items())]
    return digest(made.catalog.item_ids, made.model.config.to_diff_dict(), *weights)


def push(inputs: Path, prefix: str = "") -> int:
    return command("push", inputs / f"{prefix}model", f"author/{Path.cwd().name}")


def pushed_read() -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        folder = snapshot_download(f"author/{Path.cwd().name}", cache_dir="pulled")
        return recommender_read(os.path.relpath(folder))
    except RepositoryNotFoundError as error:
        # Killed before the repository was made; the client says so in several lines.
        raise ValueError("no such repository") from error
    finally:
        shutil.rmtree("pulled", ignore_errors=True)


JOBS: dict[str, Job] = {
    "catalogue": Job(
        save_catalog,
        lambda: {"catalogue": lambda: catalog_read("saved", with_pictures=True)},
        lambda inputs: save_catalog(inputs, OLD),
    ),
    "prepare": Job(prepare, lambda: {"sequences": sequences_read}, lambda inputs: prepare(inputs, OLD)),
    "prepare-shards": Job(
        lambda inputs: prepare(inputs, "", "--shards", 3),
        lambda: {"sequences and shards": shards_read},
        lambda inputs: prepare(inputs, OLD, "--shards", 3),
    ),
    "encode": Job(encode, lambda: {"catalogue and processor": encoded_read}, lambda inputs: encode(inputs, OLD)),
    "pretrain": Job(
        pretrain,
        lambda: {"model": lambda: model_read("base/model")},
        watch=keep_best_models,
        not_bytes=("training.json",),
    ),
    "finetune": Job(
        finetune,
        lambda: {
            "model": lambda: recommender_read("run/model"),
            "evaluation": lambda: evaluation_read("run/evaluation"),
        },
        not_bytes=("training.json", "trainer_state.json", "training_args.bin"),
    ),
    "evaluate": Job(
        evaluate,
        lambda: {"evaluation": lambda: evaluation_read("numbers")},
        lambda inputs: evaluate(inputs, OLD),
    ),
    "convert-published": Job(
        convert_published, lambda: {"model": lambda: recommender_read("converted")}, refuses_existing=True
    ),
    "convert-to-published": Job(
        convert_to_published, lambda: {"checkpoint": published_read}, lambda inputs: convert_to_published(inputs, OLD)
    ),
    "push": Job(push, lambda: {"repository": pushed_read}, lambda inputs: push(inputs, OLD)),
}


def write_inputs(folder: Path, seed: int) -> None:
    """What the jobs read: the shop, and what earlier commands make of it."""
    from shop import write_shop

    write_shop(folder, seed)
    os.chdir(folder)
    for prefix in ("", OLD):
        # The second model is of the same shape and of the same items, with other weights.
        runs = [prepare(folder, prefix), encode(folder, prefix), finetune(folder)]
        assert runs == [0, 0, 0], f"the inputs could not be made: {runs}"
        Path("run/model").rename(f"{prefix}model")
        shutil.rmtree("run")
        if prefix == "":
            assert command("convert", "to-published", "model", "model.ckpt", "--data", "published") == 0
        for name in ("sequences", "catalog"):
            if prefix:
                shutil.rmtree(name)
            else:
                shutil.move(name, f"kept-{name}")
    for name in ("sequences", "catalog"):
        Path(f"kept-{name}").rename(name)


def same_but_for_times(path: Path) -> Any:
    """What a file with times holds beside them."""
    if path.suffix != ".json":
        return None  # arguments of the trainer, with the time in the name of a folder
    content = json.loads(path.read_text(encoding="utf-8"))
    # A session more for each kill; each with its times.
    content.pop("sessions", None)
    for name in ("log", "log_history"):
        # What the trainer says at the end is of the last session: its time, and the mean loss of its steps.
        content[name] = [entry for entry in content.get(name, []) if "train_runtime" not in entry]
        for entry in content[name]:
            for key in [key for key in entry if key.endswith(("_runtime", "_per_second"))]:
                del entry[key]
    return content
