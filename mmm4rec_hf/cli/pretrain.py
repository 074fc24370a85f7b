"""`mmm4rec pretrain`: several shops to a base model that any catalogue can be put into."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import add_json_option, hide_bars_without_terminal, print_json, print_table
from .recipes import add_recipe_arguments, read_recipe, recipe_arguments, saying_how_to_go_on

if TYPE_CHECKING:
    from ..training.pretraining import PretrainRecipe

COLUMNS = ("loss", "hr@10", "ndcg@10", "hr@50", "ndcg@50")


def add_parser(subparsers: Any) -> None:
    """Adds `pretrain` to the command's parser."""
    parser = subparsers.add_parser(
        "pretrain",
        help="train a base model on several shops",
        description=(
            "Reads a recipe (YAML) that names domains: for each the catalogue that `encode` wrote and the sequences, "
            "or shards of them, that `prepare` wrote. Trains with the other targets of a batch as negatives; writes "
            "OUTPUT_DIR/model, which `finetune` starts from, and OUTPUT_DIR/log.jsonl. A run that was stopped goes on "
            "when the same command is given again. `torchrun --nproc_per_node N -m mmm4rec_hf.cli pretrain ...` "
            "uses several devices, or processes of a CPU."
        ),
        epilog=(
            "Keys of a recipe: domains (a list of name, catalog, and sequences or shards), output_dir, max_steps or "
            "num_train_epochs, data_dir, start_from, model.NAME (of MMM4RecConfig), batch_size, "
            "gradient_accumulation_steps, negatives, sampling_temperature, mask_same_target, optimizer, "
            "learning_rate, weight_decay, lr_scheduler_type, warmup_steps, max_grad_norm, mixed_precision, compile, "
            "eval_steps, metric_for_best_model, early_stopping_patience, save_steps, save_total_limit, logging_steps, "
            "report_to, seed and card.NAME.\n\n"
            "example: mmm4rec pretrain configs/pretrain_movies_beauty.yaml output_dir=base max_steps=2000"
        ),
    )
    add_recipe_arguments(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    """Runs `mmm4rec pretrain`."""
    hide_bars_without_terminal()
    from ..training.pretraining import PretrainRecipe, pretrain

    recipe = read_recipe(PretrainRecipe, *recipe_arguments(args))
    with saying_how_to_go_on(recipe.output_dir):
        metrics = pretrain(recipe)
    print_pretraining(recipe, metrics, args.json)


def print_pretraining(recipe: "PretrainRecipe", metrics: dict[str, float], as_json: bool = False) -> None:
    """Prints what a pretraining came to on the validation splits; of several processes the first prints."""

    from ..processes import process_state
    from ..saved_models import MODEL_NAME

    if not process_state().is_main_process:
        return
    model = str(Path(recipe.output_dir) / MODEL_NAME)
    if as_json:
        print_json({"model": model, "metrics": metrics})
        return
    if metrics:
        print("Validation split: each target ranked among all items of its domain, history not masked, ties by")
        print("expectation; the loss is over batches of the domain.\n")
        names = dict.fromkeys(name.rpartition("/")[0] for name in metrics)
        rows = [[name, *(f"{metrics[f'{name}/{column}']:.4f}" for column in COLUMNS)] for name in names]
        print_table(["", *COLUMNS], rows)
        print()
    print(f"The base model is in {model}; next: mmm4rec finetune start_from={model} sequences=... catalog=...")
