"""`mmm4rec finetune`: a recipe to a model that is ready to recommend."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from .evaluate import print_metrics
from .output import add_json_option, hide_bars_without_terminal, print_json


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
            "example: mmm4rec finetune recipe.yaml sequences=sequences catalog=catalog output_dir=out "
            "model.use_item_bias=true training.num_train_epochs=10"
        ),
    )
    add_recipe_arguments(parser)
    add_json_option(parser)


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the recipe's file and the changes of it."""
    parser.add_argument("recipe", nargs="?", help="a YAML file")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="values in place of the file's")


def recipe_arguments(args: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The file, if any, and the changes; a first argument with an equals sign is a change."""
    if args.recipe is not None and "=" in args.recipe and not Path(args.recipe).is_file():
        return None, [args.recipe, *args.changes]
    return args.recipe, args.changes


def run(args: argparse.Namespace) -> None:
    """Runs `mmm4rec finetune`."""
    hide_bars_without_terminal()
    from ..evaluation.protocol import describe
    from ..training.finetuning import EVALUATION_NAME, MODEL_NAME, FinetuneRecipe, finetune
    from ..training.recipes import load_recipe

    recipe = load_recipe(FinetuneRecipe, *recipe_arguments(args))
    # The trainer prints its log; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        evaluation = finetune(recipe)
    output = Path(recipe.output_dir)
    if args.json:
        print_json(evaluation.to_dict() | {"model": str(output / MODEL_NAME)})
        return
    print(f"{describe(evaluation.protocol)}.\n")
    print_metrics(evaluation)
    print(f"\nThe model is in {output / MODEL_NAME}, the numbers are in {output / EVALUATION_NAME}.")
