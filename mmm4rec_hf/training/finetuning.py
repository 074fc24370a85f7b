"""Fine-tuning by recipe: a pretrained base, or fresh weights, and one shop's sequences to a ready recommender."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import IntervalStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.data.sequence_datasets import why_empty
from mmm4rec_hf.evaluation.evaluator import METRICS_NAME, Evaluation, evaluate_model
from mmm4rec_hf.evaluation.metrics import DEFAULT_KS, metrics_from_counts
from mmm4rec_hf.evaluation.protocol import read_preparation
from mmm4rec_hf.evaluation.yardsticks import evaluate_baselines
from mmm4rec_hf.items import ItemCatalog
from mmm4rec_hf.modeling import MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.outputs import naming_full_disk
from mmm4rec_hf.processes import use_cpu_where_alone
from mmm4rec_hf.saved_models import MODEL_NAME, find_model

from .cards import CardOptions, finetuning_facts, keeps_best, kept_step
from .folders import CHECKPOINTS_NAME, EVALUATION_NAME, check_output, claim_output
from .matching import load_sequences
from .progress import show_progress
from .recipes import check_options
from .record import RunRecord, count_parameters, describe_base, describe_data, describe_features
from .resuming import last_whole_checkpoint, step_of
from .saving import load_processor, refuse_other_model, save_recommender
from .trainer import MMM4RecTrainer

logger = logging.getLogger(__name__)

# What a recipe leaves open; the best epoch by NDCG@10 on the validation split is kept. transformers' own batch of 8
# and rate of 5e-5 are for models a thousand times the size.
TRAINING_DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 256,
    "per_device_eval_batch_size": 512,
    "learning_rate": 1e-3,
    "num_train_epochs": 5,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "ndcg@10",
    "logging_steps": 50,
    "report_to": "none",
}
# The small setting of the study, whose epochs are three to four times as fast on two cores.
SMALL_MODEL = "model.hidden_size=64 model.intermediate_size=64 model.head_dim=16 model.state_size=16"
# Of a training at the default width, some two minutes on two cores.
_ROWS_OF_MINUTES = 20_000


@dataclass
class FinetuneRecipe:
    """
    What a fine-tuning does.

    Args:
        sequences (`str`): The folder that `mmm4rec prepare` wrote.
        catalog (`str`): The folder that `mmm4rec encode` wrote, or a catalogue's name on the Hub.
        output_dir (`str`): Where `model/`, `evaluation/` and `checkpoints/` go. A run that was stopped goes on there.
        start_from (`str`, *optional*): A pretrained model's folder or Hub name; fresh weights without it.
        revision (`str`, *optional*): Of that model.
        fresh_projections (`bool`, *optional*, defaults to `False`):
            Whether of that model the layers alone are kept, and what projects texts and pictures starts anew: any
            encoder may have made the catalogue's features then.
        model (`dict`, *optional*):
            Options of [`MMM4RecConfig`] other than its defaults, or other than those of `start_from`. With
            `num_hidden_layers: 1` a pretrained model of two layers gives its first.
        freeze_encoder (`bool`, *optional*, defaults to `False`):
            Whether the layers stay as they are, so that projections of features and item biases alone learn.
        optimizer (`"adamw"` or `"nadam"`, *optional*, defaults to `"adamw"`):
            `"adamw"`: as `training` says. `"nadam"`: see [`published_optimizer`], with `learning_rate` and
            `weight_decay` of `training`.
        early_stopping_patience (`int`, *optional*): Evaluations without a better metric after which to stop.
        training (`dict`, *optional*):
            Options of [`~transformers.TrainingArguments`]. By default batches of 256, a learning rate of 1e-3 and 5
            epochs, of which the best by NDCG@10 on the validation split is kept.
        card (`CardOptions`, *optional*): What the model's card says of licence and data.
    """

    sequences: str
    catalog: str
    output_dir: str
    start_from: str | None = None
    revision: str | None = None
    fresh_projections: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    freeze_encoder: bool = False
    optimizer: Literal["adamw", "nadam"] = "adamw"
    early_stopping_patience: int | None = None
    training: dict[str, Any] = field(default_factory=dict)
    card: CardOptions = field(default_factory=CardOptions)

    SECTIONS: ClassVar[dict[str, type]] = {"model": MMM4RecConfig, "training": TrainingArguments}

    def __post_init__(self) -> None:
        self.model = check_options(self.model, MMM4RecConfig, "model")
        self.training = check_options(self.training, TrainingArguments, "training")
        if "output_dir" in self.training:
            raise ValueError("training: output_dir stands at the recipe's top, not in this section")
        if "resume_from_checkpoint" in self.training:
            raise ValueError(
                "training: leave resume_from_checkpoint out: a run goes on from its own last checkpoint; name another "
                "model to start from by start_from"
            )
        if self.training.get("push_to_hub"):
            raise ValueError(
                "training: leave push_to_hub out: it uploads what is trained on, not the model that is kept; when the "
                f"run has ended, use mmm4rec push {self.output_dir} NAME"
            )
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(f"early_stopping_patience must be at least 1, got {self.early_stopping_patience}")
        if self.fresh_projections and self.start_from is None:
            raise ValueError("fresh_projections: true keeps the layers of a pretrained model; name it by start_from")


def finetune(recipe: FinetuneRecipe) -> Evaluation:
    """
    Runs a fine-tuning, or goes on with one that was stopped; of one that has ended it reads the result.

    Args:
        recipe (`FinetuneRecipe`): What to do.

    Returns:
        `Evaluation`: Of the best model on the test split. `output_dir/model` then holds the model with its processor
        and catalogue, `output_dir/evaluation` the numbers, those of baselines among them, and
        `output_dir/training.json` what `mmm4rec report` tells of the training.

    Raises:
        ValueError: If `output_dir` holds a run of another recipe or on other data, or data and model do not fit, or
            a split has no rows that the run needs: the validation split may be empty where nothing is validated.
    """
    output = Path(recipe.output_dir)
    arguments = _training_arguments(recipe)
    _check_validation(recipe, arguments)
    catalog = ItemCatalog.from_pretrained(recipe.catalog)
    sequences = load_sequences(recipe.sequences, catalog, recipe.catalog)
    _check_splits(recipe, arguments, sequences)
    if beyond := len(catalog) - sequences.num_items_with_events:
        logger.info(
            "%s of %s items of the catalogue are in no sequence: they are ranked by their texts and pictures alone",
            f"{beyond:,}",
            f"{len(catalog):,}",
        )
    set_seed(arguments.seed)
    model = build_model(recipe, catalog)
    record, data = RunRecord(output, arguments.should_save), describe_data(sequences, recipe.sequences)
    data |= {"features": describe_features(catalog)}
    base = {}
    if recipe.start_from is not None:
        base = describe_base(find_model(recipe.start_from, recipe.revision), recipe.revision)
    if arguments.should_save:
        check_output(output, recipe)
        record.refuse_other_data(data=data, start_from=base)
    # The checkpoint that was kept may lie before the end, which would be trained again. One that was killed while its
    # numbers were written, metrics.json the last, has not ended.
    if record.has_ended and (output / MODEL_NAME).is_dir() and (output / EVALUATION_NAME / METRICS_NAME).is_file():
        logger.info("%s holds this run, which has ended: nothing is trained; remove the folder to start over", output)
        return Evaluation.load(output / EVALUATION_NAME)
    if arguments.should_save:
        refuse_other_model(output / MODEL_NAME)
    trainer = _trainer(recipe, arguments, model, sequences)
    checkpoint = last_whole_checkpoint(arguments)
    if checkpoint is not None:
        logger.info("going on from %s", checkpoint)
    elif _would_take_minutes(recipe, arguments, len(sequences["train"])):
        logger.info(
            "width %d on a CPU: a smaller model takes a quarter to a third of the time; for one, stop this, and begin "
            "in another output_dir with %s",
            model.config.hidden_size,
            SMALL_MODEL,
        )

    def begin() -> None:
        if arguments.should_save:
            claim_output(output, recipe, is_checked=True)
        record.begin(
            0 if checkpoint is None else step_of(checkpoint),
            arguments.world_size,
            kind="fine-tuning",
            data=data,
            start_from=base,
            parameters=count_parameters(model),
        )

    if checkpoint is None:
        trainer.add_callback(_AtTheBeginning(begin))
    else:
        # The folder is this recipe's already, and a training that had ended does not begin again.
        begin()
    with naming_full_disk(output / CHECKPOINTS_NAME):
        trainer.train(checkpoint)
    if arguments.should_save:
        logger.info(kept_line(trainer))
    record.end(trainer.state.global_step, log=trainer.state.log_history, kept=kept_step(trainer))
    evaluation = evaluate_model(
        model,
        sequences,
        "test",
        catalog=catalog,
        batch_size=arguments.eval_batch_size,
        prepared=read_preparation(recipe.sequences),
    )
    if arguments.should_save:
        facts = finetuning_facts(recipe.card, trainer, sequences, evaluation, recipe.start_from)
        save_recommender(model, load_processor(recipe.catalog), catalog, output / MODEL_NAME, facts)
        baselines = evaluate_baselines(evaluation, sequences, catalog.item_ids, catalog.text_features)
        evaluation.save(output / EVALUATION_NAME, baselines)
    return evaluation


def build_model(recipe: FinetuneRecipe, catalog: ItemCatalog) -> MMM4RecForSequentialRecommendation:
    """
    The model that a fine-tuning starts with, on the CPU.

    Args:
        recipe (`FinetuneRecipe`): Names the pretrained model, if any, and the options.
        catalog (`ItemCatalog`): With features.

    Raises:
        ValueError: If the catalogue lacks features, or they do not fit the pretrained model.
    """
    if recipe.start_from is not None:
        base = find_model(recipe.start_from, recipe.revision)
        pretrained = MMM4RecConfig.from_pretrained(base, revision=recipe.revision or "main")
        model = MMM4RecForSequentialRecommendation.from_pretrained(
            base,
            catalog=catalog,
            fresh_projections=recipe.fresh_projections,
            revision=recipe.revision or "main",
            **recipe.model,
        )
        kept, had = model.config.num_hidden_layers, pretrained.num_hidden_layers
        if kept < had:
            logger.info("kept the first %d of the %d layers of %s", kept, had, recipe.start_from)
    else:
        sizes = {}
        for modality, features in (("text", catalog.text_features), ("image", catalog.image_features)):
            if features is None:
                raise ValueError(f"{recipe.catalog} has no {modality} features; name a model to mmm4rec encode")
            sizes[f"{modality}_feature_size"] = features.shape[1]
        model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**(sizes | recipe.model)))
        model.set_items(catalog)
    if recipe.freeze_encoder:
        model.model.encoder.requires_grad_(False)
        learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        logger.info("the encoder is frozen; %d weights learn", learning)
    return model


def kept_line(trainer: MMM4RecTrainer) -> str:
    """
    Which weights a training ended with, in words.

    Args:
        trainer ([`MMM4RecTrainer`]): After its training.

    Returns:
        `str`: Such as `"kept: step 51, epoch 1, the best of 5 validations by ndcg@10"`.
    """
    args, state, step = trainer.args, trainer.state, kept_step(trainer)
    name = (args.metric_for_best_model or "").removeprefix("eval_")
    epochs = {entry["step"]: entry["epoch"] for entry in state.log_history if f"eval_{name}" in entry}
    is_best = keeps_best(trainer)
    epoch = epochs.get(step, state.epoch) if is_best else state.epoch
    place = f"kept: step {step:,}" + (f", epoch {epoch:.3g}" if epoch is not None else "")
    if not is_best:
        return f"{place}, the last"
    saved = "" if step == state.best_global_step else " that was saved"
    return (
        f"{place}, the best{saved} of {len(epochs)} validations by {name}"
        if len(epochs) > 1
        else f"{place}, by {name}"
    )


class _AtTheBeginning(TrainerCallback):
    """
    Calls something once transformers has made all that a training needs, optimizer and schedule among it, and trackers
    have begun: a recipe of which nothing can be made must not keep its corrected form out of the folder.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.call()


class _RecipeTrainer(MMM4RecTrainer):
    """Names the option of the recipe of which transformers makes no optimizer or schedule."""

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        name, remedy = OptimizerNames(self.args.optim).value, "install what it needs, or give another, as adamw_torch"
        with _naming("training.optim", name, remedy):
            return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        name = SchedulerType(self.args.lr_scheduler_type).value
        remedy = "give what it needs by training.lr_scheduler_kwargs, or another, as cosine or linear"
        with _naming("training.lr_scheduler_type", name, remedy):
            return super().create_scheduler(num_training_steps, optimizer)


@contextlib.contextmanager
def _naming(option: str, value: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, TypeError, ValueError) as error:
        raise ValueError(f"{option} {value!r} cannot be used ({error}); {remedy}") from error


def _check_validation(recipe: FinetuneRecipe, arguments: TrainingArguments) -> None:
    """Refuses what asks for a validation, or for a metric, that there is not."""
    patience, metric = recipe.early_stopping_patience, arguments.metric_for_best_model
    if patience is not None and arguments.eval_strategy == IntervalStrategy.NO:
        raise ValueError(
            f"early_stopping_patience is {patience}, but with training.eval_strategy=no nothing is validated; give "
            "early_stopping_patience=null, or another eval_strategy"
        )
    known = ["loss"]
    if not arguments.prediction_loss_only:
        known += [*metrics_from_counts(np.array([[0, 1]]), DEFAULT_KS), *(f"coverage@{k}" for k in DEFAULT_KS)]
    if patience is not None and metric is None:
        raise ValueError(
            f"early_stopping_patience is {patience}, but training.metric_for_best_model is not given; give one of "
            f"{', '.join(sorted(known))}"
        )
    # transformers looks for it in each validation, whatever is kept.
    is_validated = arguments.eval_strategy != IntervalStrategy.NO
    if is_validated and metric is not None and metric.removeprefix("eval_") not in known:
        raise ValueError(
            f"metric_for_best_model is {metric.removeprefix('eval_')!r}; a validation gives {', '.join(sorted(known))}"
        )


def _check_splits(recipe: FinetuneRecipe, arguments: TrainingArguments, sequences: SequenceDatasets) -> None:
    """Refuses, before anything is trained, sequences without rows that are needed in the course or at the end."""
    needed = {
        "train": "there is nothing to learn from",
        "validation": "the best epoch is chosen by it",
        "test": "the model is evaluated by it at the end",
    }
    for name, use in needed.items():
        is_used = name != "validation" or arguments.eval_strategy != IntervalStrategy.NO
        if not is_used or len(sequences[name]) > 0:
            continue
        split = read_preparation(recipe.sequences).get("split")
        remedy = "prepare other times of valid_from and test_from" if split == "temporal" else "prepare a longer log"
        if name == "validation":
            remedy += ", or validate nothing: training.eval_strategy=no training.load_best_model_at_end=false"
            remedy += " early_stopping_patience=null" if recipe.early_stopping_patience is not None else ""
        reason = why_empty(name, split)
        raise ValueError(f"the split {name!r} of {recipe.sequences} is empty, as {reason}, and {use}; {remedy}")


def _would_take_minutes(recipe: FinetuneRecipe, arguments: TrainingArguments, num_rows: int) -> bool:
    """Whether fresh weights of the default width, which nobody asked for, have much to do on a CPU."""
    if recipe.start_from is not None or "hidden_size" in recipe.model or arguments.device.type != "cpu":
        return False
    rows = num_rows * arguments.num_train_epochs
    if arguments.max_steps > 0:
        rows = arguments.max_steps * arguments.train_batch_size
    return rows >= _ROWS_OF_MINUTES


def _training_arguments(recipe: FinetuneRecipe) -> TrainingArguments:
    fixed = {
        "output_dir": str(Path(recipe.output_dir) / CHECKPOINTS_NAME),
        "disable_tqdm": not sys.stderr.isatty(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    use_cpu_where_alone()
    return TrainingArguments(**(TRAINING_DEFAULTS | fixed | recipe.training))


def _trainer(
    recipe: FinetuneRecipe,
    arguments: TrainingArguments,
    model: MMM4RecForSequentialRecommendation,
    sequences: SequenceDatasets,
) -> MMM4RecTrainer:
    patience = recipe.early_stopping_patience
    trainer = _RecipeTrainer(
        model,
        arguments,
        train_dataset=sequences["train"],
        eval_dataset=sequences["validation"],
        use_published_optimizer=recipe.optimizer == "nadam",
        callbacks=None if patience is None else [EarlyStoppingCallback(patience)],
    )
    show_progress(trainer)
    return trainer
