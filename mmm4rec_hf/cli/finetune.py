"""`mmm4rec finetune`: a recipe to a model that is ready to recommend."""

import argparse
import contextlib
import shlex
import sys
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
    print_finetuning(recipe, evaluation, args.json)


def print_finetuning(recipe: "FinetuneRecipe", evaluation: "Evaluation", as_json: bool = False) -> None:
    """Prints what a fine-tuning came to on the test split; of several processes the first prints."""

    from ..evaluation.protocol import describe, read_source
    from ..evaluation.yardsticks import load_baselines
    from ..modeling import MMM4RecConfig
    from ..processes import process_state
    from ..saved_models import MODEL_NAME
    from ..training.finetuning import EVALUATION_NAME

    if not process_state().is_main_process:
        return
    output = Path(recipe.output_dir)
    if as_json:
        print_json(evaluation.to_dict() | {"model": str(output / MODEL_NAME)})
        return
    print(f"{describe(evaluation.protocol)}.\n")
    config = MMM4RecConfig.from_pretrained(output / MODEL_NAME)
    print_metrics(evaluation, config.use_item_bias)
    print_against_best(evaluation, load_baselines(output / EVALUATION_NAME, evaluation), config)
    print(f"\nThe model is in {output / MODEL_NAME}, the numbers are in {output / EVALUATION_NAME}; next:")
    print(f"  mmm4rec report {output} --output report.html")
    print(f"  mmm4rec recommend {output} --history ITEM ...")
    logs = read_source(recipe.sequences)
    log = shlex.quote(logs[0]) if len(logs) == 1 else "LOG"
    print(f"  mmm4rec recommend {output} --input {log} --user ID")
