"""`mmm4rec finetune`: a recipe to a model that is ready to recommend."""

import argparse
import contextlib
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .evaluate import print_against_best, print_metrics
from .output import add_json_option, hide_bars_without_terminal, print_json
from .recipes import add_recipe_arguments, read_recipe, recipe_arguments, saying_how_to_go_on

if TYPE_CHECKING:
    from ..evaluation.evaluator import Evaluation
    from ..training.finetuning import FinetuneRecipe


def add_parser(subparsers: Any) -> None:
    """Adds `finetune` to the command's parser."""
    parser = subparsers.add_parser(
        "finetune",
        help="train a model on one shop, from a pretrained base or from fresh weights",
        description=(
            "Reads a recipe (YAML), the sequences that `prepare` wrote and the catalogue that `encode` wrote; trains "
            "with early stopping on the validation split; writes OUTPUT_DIR/model, which `recommend` and `evaluate` "
            "read, and OUTPUT_DIR/evaluation, the metrics on the test split. A run that was stopped goes on when the "
            "same command is given again."
        ),
        epilog=(
            "Keys of a recipe: sequences, catalog, output_dir, start_from, revision, model.NAME (of MMM4RecConfig), "
            "fresh_projections, freeze_encoder, optimizer, early_stopping_patience, "
            "training.NAME (of transformers' TrainingArguments) and card.NAME (license, language, datasets, "
            "training_data).\n\n"
            "examples:\n"
            "  mmm4rec finetune sequences=sequences catalog=catalog output_dir=run\n"
            "  # a quarter to a third of the time on a small CPU:\n"
            "  mmm4rec finetune sequences=sequences catalog=catalog output_dir=small model.hidden_size=64 \\\n"
            "      model.intermediate_size=64 model.head_dim=16 model.state_size=16\n"
            "  mmm4rec finetune configs/finetune_published.yaml start_from=base/model sequences=sequences \\\n"
            "      catalog=catalog output_dir=run model.use_item_bias=true training.num_train_epochs=10"
        ),
    )
    add_recipe_arguments(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    """Runs `mmm4rec finetune`."""
    hide_bars_without_terminal()
    from ..training.finetuning import FinetuneRecipe, finetune

    recipe = read_recipe(FinetuneRecipe, *recipe_arguments(args))
    # What transformers or a tracker prints; stdout is for the result.
    with saying_how_to_go_on(recipe.output_dir), contextlib.redirect_stdout(sys.stderr):
        evaluation = finetune(recipe)
    path, changes = recipe_arguments(args)
    print_finetuning(recipe, evaluation, args.json, ["mmm4rec", "finetune", *([path] if path else []), *changes])


def print_finetuning(
    recipe: "FinetuneRecipe", evaluation: "Evaluation", as_json: bool = False, command: Sequence[str] = ()
) -> None:
    """
    Prints what a fine-tuning came to on the test split; of several processes the first prints.

    Args:
        recipe ([`FinetuneRecipe`]): What was done.
        evaluation ([`Evaluation`]): What came of it.
        as_json (`bool`, *optional*, defaults to `False`): Whether to print that as JSON.
        command (`Sequence[str]`, *optional*): The words that ran it, of which a next command is made.
    """
    from ..evaluation.protocol import describe, read_source
    from ..evaluation.verdicts import what_to_try
    from ..evaluation.yardsticks import load_baselines
    from ..modeling import MMM4RecConfig
    from ..processes import process_state
    from ..saved_models import MODEL_NAME
    from ..training.folders import EVALUATION_NAME

    if not process_state().is_main_process:
        return
    output = Path(recipe.output_dir)
    if as_json:
        print_json(evaluation.to_dict() | {"model": str(output / MODEL_NAME)})
        return
    print(f"{describe(evaluation.protocol)}.\n")
    config = MMM4RecConfig.from_pretrained(output / MODEL_NAME)
    print_metrics(evaluation, config.use_item_bias)
    baselines = load_baselines(output / EVALUATION_NAME, evaluation)
    print_against_best(evaluation, baselines, config)
    learned = {"use_cooccurrence": config.use_cooccurrence, "use_item_bias": config.use_item_bias}
    if command and what_to_try(evaluation, baselines, learned) is not None:
        changes = [f"model.{name}=true" for name, is_on in learned.items() if not is_on]
        if config.item_loss != "full":
            changes.append("model.item_loss=full")  # which use_cooccurrence needs
        print(f"  {_changed(command, [f'output_dir={_free_folder(recipe.output_dir)}', *changes])}")
    print(f"\nThe model is in {output / MODEL_NAME}, the numbers are in {output / EVALUATION_NAME}; next:")
    print(f"  mmm4rec report {output} --output report.html")
    print(f"  mmm4rec recommend {output} --history ITEM ...")
    logs = read_source(recipe.sequences)
    log = shlex.quote(logs[0]) if len(logs) == 1 else "LOG"
    print(f"  mmm4rec recommend {output} --input {log} --user ID")


def _changed(command: Sequence[str], changes: Sequence[str]) -> str:
    """A command with other values of a recipe's keys, as one pastes it."""
    keys = {change.partition("=")[0] for change in changes}
    return shlex.join([*(word for word in command if word.partition("=")[0] not in keys), *changes])


def _free_folder(folder: str) -> str:
    """`run-2` beside `run` and `run-3` beside `run-2`, or the next number that no folder has."""
    # The day of a date is no such number.
    stem, number = re.sub(r"(?<!\d)-\d{1,2}$", "", folder.rstrip("/")), 2
    while Path(f"{stem}-{number}").exists():
        number += 1
    return f"{stem}-{number}"
