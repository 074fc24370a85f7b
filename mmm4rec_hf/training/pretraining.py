"""Pretraining over several domains under Accelerate: in-batch negatives, exact resume, a base model without items."""

import inspect
import json
import logging
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, broadcast_object_list, set_seed
from torch import Tensor, nn
from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import get_scheduler

from mmm4rec_hf.modeling import MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.modeling.card_mmm4rec import CardFacts
from mmm4rec_hf.modeling.items_mmm4rec import agreed_encoder, missing_items
from mmm4rec_hf.outputs import other_files, replace_file, replace_folder
from mmm4rec_hf.processes import check_processes, use_cpu_where_alone
from mmm4rec_hf.saved_models import CONFIG_NAME, MODEL_NAME, find_model

from .batches import BatchStream, Mixture
from .cards import CardOptions, pretraining_facts, save_card
from .checkpoints import last_whole_checkpoint, remove_old_checkpoints, save_checkpoint
from .domains import Domain, DomainRecipe, feature_sizes
from .folders import CHECKPOINTS_NAME, LOG_NAME, check_output, claim_output
from .objective import InBatchObjective
from .optimization import parameter_groups, published_optimizer
from .progress import Pace, progress_line
from .recipes import check_options
from .record import RunRecord, count_parameters, describe_base
from .saving import BASE_MODEL_FILES, refuse_other_model
from .validation import validate

logger = logging.getLogger(__name__)

# What the recipe itself decides, or what belongs to a catalogue.
_NOT_OF_PRETRAINING = {
    "item_loss", "mask_same_target", "use_log_q", "gather_negatives", "num_sampled_negatives", "negative_sampling",
    "num_items", "feature_encoder", "use_item_bias", "use_cooccurrence", "cooccurrence_context", "cooccurrence_window",
    "num_neighbours", "score_padding_item",
}  # fmt: skip
# In a checkpoint: where each process stands in the data, and the best model so far.
_POSITION, _BEST = "position-{}.json", "best"


@dataclass
class PretrainRecipe:
    """
    What a pretraining does.

    Args:
        domains (`list[DomainRecipe]`): What is learned from; their catalogues were encoded alike.
        output_dir (`str`): Where `model/`, `checkpoints/` and `log.jsonl` go. A run that was stopped goes on there.
        max_steps (`int`, *optional*): Steps of the optimizer; or give `num_train_epochs`.
        num_train_epochs (`float`, *optional*):
            In place of `max_steps`; an epoch has as many rows as the domains have together, rounded up to a step.
        data_dir (`str`, *optional*): The folder that the paths of domains start from, by default the working one.
        start_from (`str`, *optional*):
            A model's folder or Hub name; fresh weights without it. The items of one that holds some are dropped.
        model (`dict`, *optional*): Options of [`MMM4RecConfig`] other than its defaults.
        batch_size (`int`, *optional*, defaults to 1024):
            Rows whose targets are each other's negatives, of all processes together, so that the number of processes
            does not change what is learned.
        gradient_accumulation_steps (`int`, *optional*, defaults to 1): Batches a step; the step's loss is their mean.
        negatives (`"domain"` or `"all"`, *optional*, defaults to `"domain"`):
            Whether each batch is of one domain, or of all.
        sampling_temperature (`float`, *optional*, defaults to 1.0):
            T: a domain of n training rows is drawn with a probability proportional to n^(1/T).
        mask_same_target (`bool`, *optional*, defaults to `True`):
            Whether another row with the same target is no negative; as published it is one.
        optimizer (`"adamw"` or `"nadam"`, *optional*, defaults to `"adamw"`):
            `"nadam"`: see [`published_optimizer`]. `"adamw"`: without decay of biases, norms, rates and step sizes.
        learning_rate (`float`, *optional*, defaults to 2.5e-4): Of the optimizer.
        weight_decay (`float`, *optional*, defaults to 0.0): Of the optimizer.
        lr_scheduler_type (`str`, *optional*, defaults to `"constant_with_warmup"`):
            As transformers names it; one that needs no more options, and no metric.
        warmup_steps (`int`, *optional*, defaults to 0): Steps to the full learning rate.
        max_grad_norm (`float`, *optional*):
            Gradients are scaled down to this norm; 0, as in [`~transformers.TrainingArguments`], leaves them as they
            are.
        mixed_precision (`"no"`, `"bf16"` or `"fp16"`, *optional*, defaults to `"no"`): To compute in.
        compile (`bool`, *optional*, defaults to `False`): Whether to use `torch.compile`.
        eval_steps (`int`, *optional*): Steps between validations, by default those of an epoch.
        metric_for_best_model (`"ndcg@10"` or `"loss"`, *optional*, defaults to `"ndcg@10"`):
            By whose mean over domains the best model is told: the higher NDCG@10, or the lower loss, which is the one
            to trust where a few ranks decide a domain's NDCG@10.
        early_stopping_patience (`int`, *optional*): Validations without a better one after which to stop.
        save_steps (`int`, *optional*): Steps between checkpoints; none without it.
        save_total_limit (`int`, *optional*, defaults to 2): How many checkpoints stay.
        logging_steps (`int`, *optional*, defaults to 50): Steps between lines of the log.
        report_to (`list[str]`, *optional*): Trackers that Accelerate knows, such as `tensorboard`.
        seed (`int`, *optional*, defaults to 0): Of weights, order and dropout.
        card (`CardOptions`, *optional*): What the model's card says of licence and data.
    """

    domains: list[DomainRecipe]
    output_dir: str
    max_steps: int | None = None
    num_train_epochs: float | None = None
    data_dir: str | None = None
    start_from: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 1024
    gradient_accumulation_steps: int = 1
    negatives: Literal["domain", "all"] = "domain"
    sampling_temperature: float = 1.0
    mask_same_target: bool = True
    optimizer: Literal["adamw", "nadam"] = "adamw"
    learning_rate: float = 2.5e-4
    weight_decay: float = 0.0
    lr_scheduler_type: str = "constant_with_warmup"
    warmup_steps: int = 0
    max_grad_norm: float | None = None
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    eval_steps: int | None = None
    metric_for_best_model: Literal["ndcg@10", "loss"] = "ndcg@10"
    early_stopping_patience: int | None = None
    save_steps: int | None = None
    save_total_limit: int = 2
    logging_steps: int = 50
    report_to: list[str] = field(default_factory=list)
    seed: int = 0
    card: CardOptions = field(default_factory=CardOptions)

    SECTIONS: ClassVar[dict[str, type]] = {"model": MMM4RecConfig}

    def __post_init__(self) -> None:
        self.model = check_options(self.model, MMM4RecConfig, "model")
        misplaced = sorted(_NOT_OF_PRETRAINING & self.model.keys())
        if misplaced:
            raise ValueError(
                f"model: {', '.join(misplaced)} cannot be given: a base model holds no items, and is trained with the "
                "in-batch loss that negatives and mask_same_target describe"
            )
        if (self.max_steps is None) == (self.num_train_epochs is None):
            raise ValueError(
                f"give either max_steps or num_train_epochs, got {self.max_steps} and {self.num_train_epochs}"
            )
        positive = ("max_steps", "num_train_epochs", "batch_size", "gradient_accumulation_steps",
                    "sampling_temperature", "logging_steps", "save_total_limit", "eval_steps",
                    "early_stopping_patience", "save_steps")  # fmt: skip
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        for name in ("learning_rate", "weight_decay", "warmup_steps", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {self.batch_size}: the others are the negatives")
        names = [domain.name for domain in self.domains]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"domains must be one or more, each with a name of its own, got {names}")


@dataclass
class Progress:
    """What is known of a run beside weights and optimizer, and saved with them."""

    step: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    best_metrics: dict[str, float] = field(default_factory=dict)
    validations_without_better: int = 0


def pretrain(recipe: PretrainRecipe) -> dict[str, float]:
    """
    Runs a pretraining, or goes on with one that was stopped: on a CPU with the same bits as if it had not been. Of one
    that has ended it reads the result.

    Args:
        recipe (`PretrainRecipe`): What to do.

    Returns:
        `dict[str, float]`: Of the model that was kept: for each domain, named in front, the held-out in-batch loss and
        the metrics of the full ranking; empty without validation rows. `output_dir/model` then holds the base model,
        the best one by the mean of `metric_for_best_model` over domains, or the last one without validation rows.

    Raises:
        ValueError: If `output_dir` holds a run of another recipe, on other data or from other weights of the same
            base, the domains do not fit each other, or the batch cannot be divided among the processes.
        RuntimeError: If the loss is not finite, naming the step.
    """
    return Pretraining(recipe).run()


class Pretraining:
    """
    One run.

    Args:
        recipe (`PretrainRecipe`): What to do.
    """

    def __init__(self, recipe: PretrainRecipe) -> None:
        self.recipe = recipe
        self.output = Path(recipe.output_dir)
        use_cpu_where_alone()
        _forget_other_precision(recipe.mixed_precision)
        self.accelerator = Accelerator(
            mixed_precision=recipe.mixed_precision,
            # Not synchronised with data loaders: none is used, but one that another run left in this process counts.
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                num_steps=recipe.gradient_accumulation_steps, sync_with_dataloader=False
            ),
            log_with=recipe.report_to or None,
            project_dir=self.output,
        )
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        check_processes(processes)
        if recipe.batch_size % processes:
            raise ValueError(f"batch_size {recipe.batch_size} cannot be divided among {processes} processes")
        self.domains = [
            Domain(domain.below(recipe.data_dir), recipe.seed, rank, processes) for domain in recipe.domains
        ]
        set_seed(recipe.seed)
        self.recommender = _recommender(recipe, self.domains)
        objective = InBatchObjective(self.recommender, recipe.mask_same_target)
        if recipe.compile:
            # In place, and not by Accelerate: what it was told first in a process holds for all later runs there.
            objective.compile()
        optimizer = _optimizer(recipe, objective)
        num_targets = [domain.rows.num_targets for domain in self.domains]
        epoch = math.ceil(sum(num_targets) / (recipe.batch_size * recipe.gradient_accumulation_steps))
        self.max_steps = recipe.max_steps or math.ceil((recipe.num_train_epochs or 0) * epoch)
        self.eval_steps = recipe.eval_steps or epoch
        # Not prepared: Accelerate would step it once for each process.
        self.scheduler = _scheduler(recipe, optimizer, self.max_steps)
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.accelerator.register_for_checkpointing(self.scheduler)
        set_seed(recipe.seed, device_specific=True)
        mixture = Mixture(
            num_targets,
            recipe.batch_size,
            recipe.negatives,
            recipe.sampling_temperature,
            recipe.seed,
        )
        length = self.recommender.config.max_sequence_length
        self.batches = BatchStream(self.domains, mixture, length, rank, processes)
        self.position = self.batches.state()
        self.progress = Progress()
        self.pace: Pace | None = None
        if self.accelerator.is_main_process:
            check_output(self.output, recipe)
        self.accelerator.wait_for_everyone()

    def run(self) -> dict[str, float]:
        """See [`pretrain`]."""
        recipe, progress = self.recipe, self.progress
        record = RunRecord(self.output, self.accelerator.is_main_process)
        # Shards are read for it, which may be many: by one process.
        data = self._describe_data() if self.accelerator.is_main_process else {}
        record.refuse_other_data(**data)
        # As the first process sees it: the others may not see the folder.
        ended: list[dict[str, float] | None] = [None]
        if record.has_ended and (self.output / MODEL_NAME).is_dir():
            ended = [_logged_metrics(self.output / LOG_NAME, record.content["kept"])]
        if (metrics := broadcast_object_list(ended)[0]) is not None:
            logger.info(
                "%s holds this run, which has ended: nothing is trained; remove the folder to start over", self.output
            )
            return metrics
        # Not later: what a user puts there in the course of a training must not end it.
        if self.accelerator.is_main_process:
            refuse_other_model(self.output / MODEL_NAME, BASE_MODEL_FILES)
        if recipe.report_to:
            self.accelerator.init_trackers("pretraining")
        # Only now: a recipe of which nothing can be made must not keep its corrected form out.
        if self.accelerator.is_main_process:
            claim_output(self.output, recipe, is_checked=True)
        self._resume()
        processes = self.accelerator.num_processes
        parameters = count_parameters(self.recommender)
        record.begin(progress.step, processes, kind="pretraining", **data, parameters=parameters)
        batches = iter(self.batches)
        hidden = not (self.accelerator.is_main_process and sys.stderr.isatty())
        # A bar tells the time that is left by itself.
        self.pace = Pace(progress.step, self.max_steps) if hidden else None
        progress_bar = tqdm(total=self.max_steps, initial=progress.step, desc="Pretraining", disable=hidden)
        with progress_bar as bar, logging_redirect_tqdm():  # so that lines stand above the bar
            while progress.step < self.max_steps and not self._is_out_of_patience():
                loss = self._step(batches)
                progress.step += 1
                bar.update()
                if progress.step % recipe.logging_steps == 0:
                    self._log({"loss": loss, "learning_rate": self.scheduler.get_last_lr()[0]})
                is_last = progress.step == self.max_steps
                if is_last or progress.step % self.eval_steps == 0:
                    self._validate()
                if recipe.save_steps is not None and (is_last or progress.step % recipe.save_steps == 0):
                    checkpoints = self.output / CHECKPOINTS_NAME
                    save_checkpoint(checkpoints, progress.step, self._write_checkpoint, recipe.save_total_limit)
        if progress.best_step is None:
            self._save_model()
        record.end(progress.step, kept=progress.best_step or progress.step)
        # Not end_training: it destroys the process group while DDP holds it, and freeing DDP can then wait for ever.
        for tracker in self.accelerator.trackers:
            tracker.finish()
        return progress.best_metrics

    def _describe_data(self) -> dict[str, Any]:
        """What the run is on, for its record."""
        start_from = self.recipe.start_from
        return {
            "training_rows": {domain.name: domain.rows.num_targets for domain in self.domains},
            "domains": {domain.name: domain.describe() for domain in self.domains},
            "start_from": {} if start_from is None else describe_base(find_model(start_from)),
        }

    def _step(self, batches: Iterator[tuple[dict[str, Tensor], dict[str, Any]]]) -> float:
        """One step of the optimizer; the mean loss over its batches and all processes."""
        self.objective.train()
        losses = []
        for _ in range(self.recipe.gradient_accumulation_steps):
            batch, self.position = next(batches)
            batch = {name: tensor.to(self.accelerator.device, non_blocking=True) for name, tensor in batch.items()}
            with self.accelerator.accumulate(self.objective):
                loss = self.objective(**batch)
                losses.append(loss.detach())
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients and self.recipe.max_grad_norm:
                    self.accelerator.clip_grad_norm_(self.objective.parameters(), self.recipe.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.scheduler.step()
        mean = float(self.accelerator.reduce(torch.stack(losses).float().mean(), "mean"))
        if not math.isfinite(mean):
            raise RuntimeError(
                f"the loss is {mean} at step {self.progress.step + 1}; lower learning_rate, or give max_grad_norm"
            )
        return mean

    def _validate(self) -> None:
        """Validates, and keeps the model if it is the best one so far."""
        progress = self.progress
        metrics = validate(self.accelerator, self.recommender, self.domains, self.recipe)
        if not metrics:
            return
        means = {name: _mean_over_domains(metrics, name) for name in ("ndcg@10", "loss")}
        self._log(metrics | {"ndcg@10": means["ndcg@10"]})
        metric, best = means[self.recipe.metric_for_best_model], progress.best_metric
        is_lower_better = self.recipe.metric_for_best_model == "loss"
        if best is None or math.isnan(best) or (metric < best if is_lower_better else metric > best):
            progress.best_metric, progress.best_metrics, progress.best_step = metric, metrics, progress.step
            progress.validations_without_better = 0
            self._save_model()
        else:
            progress.validations_without_better += 1

    def _is_out_of_patience(self) -> bool:
        patience = self.recipe.early_stopping_patience
        return patience is not None and self.progress.validations_without_better >= patience

    def _save_model(self) -> None:
        if self.accelerator.is_main_process:
            with replace_folder(self.output / MODEL_NAME, BASE_MODEL_FILES, keep_others=True) as partial:
                # Not the backbone alone: what all items share (fusion, missing modalities) is learned here as well.
                self.recommender.save_pretrained(partial)
                save_card(self.recommender, partial, self._card_facts())
        self.accelerator.wait_for_everyone()

    def _card_facts(self) -> CardFacts:
        rows = {domain.name: domain.rows.num_targets for domain in self.domains}
        progress, recipe = self.progress, self.recipe
        return pretraining_facts(recipe.card, rows, progress.best_metrics, progress.step, recipe.start_from)

    def _log(self, values: dict[str, float]) -> None:
        self.accelerator.log(values, step=self.progress.step)
        if self.accelerator.is_main_process:
            left = None if self.pace is None else self.pace.seconds_left(self.progress.step)
            logger.info(progress_line(values, self.progress.step, self.max_steps, left))
            with (self.output / LOG_NAME).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.progress.step} | values) + "\n")

    def _write_checkpoint(self, folder: Path) -> None:
        self.accelerator.save_state(str(folder))
        position = folder / _POSITION.format(f"{self.accelerator.process_index:05d}")
        position.write_text(json.dumps(self.position), encoding="utf-8")
        if self.accelerator.is_main_process:
            (folder / "progress.json").write_text(json.dumps(vars(self.progress)), encoding="utf-8")
            model = self.output / MODEL_NAME
            if self.progress.best_step is not None and model.is_dir():
                _copy_model(model, folder / _BEST)

    def _resume(self) -> None:
        """Goes on from the newest whole checkpoint, if there is one."""
        checkpoint = last_whole_checkpoint(self.output / CHECKPOINTS_NAME)
        if checkpoint is not None:
            logger.info("going on from %s", checkpoint)
            # Each process has a position and random numbers of its own: fewer would leave rows out and repeat others.
            wrote, processes = len(list(checkpoint.glob(_POSITION.format("*")))), self.accelerator.num_processes
            if wrote != processes:
                raise ValueError(
                    f"{checkpoint} has what {wrote} process{'es' * (wrote != 1)} wrote, these are {processes}; start "
                    "as many as before, with an output_dir that all of them see"
                )
            self.accelerator.load_state(str(checkpoint))
            vars(self.progress).update(json.loads((checkpoint / "progress.json").read_text(encoding="utf-8")))
            position = checkpoint / _POSITION.format(f"{self.accelerator.process_index:05d}")
            self.position = json.loads(position.read_text(encoding="utf-8"))
            self.batches.restore(self.position)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            if checkpoint is not None:
                # A run that was killed after its last step saves no other one.
                remove_old_checkpoints(checkpoint.parent, self.progress.step, self.recipe.save_total_limit)
                self._restore_best(checkpoint / _BEST)
            _forget_lines_after(self.output / LOG_NAME, self.progress.step)

    def _restore_best(self, best: Path) -> None:
        """
        Puts the best model as of a checkpoint in its place again, where a validation after the checkpoint had found a
        better one: where steps are not the same again bit by bit, there may be no such model this time.
        """
        model = self.output / MODEL_NAME
        if not best.is_dir() or (
            (model / CONFIG_NAME).is_file() and describe_base(str(model)) == describe_base(str(best))
        ):
            return
        logger.info("%s is again the best model until step %d", model, self.progress.step)
        with replace_folder(model, BASE_MODEL_FILES, keep_others=True) as partial:
            _copy_model(best, partial)


def _copy_model(source: Path, target: Path) -> None:
    """Leaves out what a user put beside the model: that stays as it is now, whatever checkpoint is gone on from."""
    others = {name.rstrip("/") for name in other_files(source, BASE_MODEL_FILES)}
    shutil.copytree(source, target, ignore=lambda _, names: others.intersection(names), dirs_exist_ok=True)


def _forget_other_precision(precision: str) -> None:
    """Accelerate holds a process to the precision of its first run, whose accelerator has its own by now."""
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
        # As transformers' Trainer does for each training; the processes stay as they are.
        AcceleratorState._reset_state()


def _recommender(recipe: PretrainRecipe, domains: list[Domain]) -> MMM4RecForSequentialRecommendation:
    """The model that is trained, which holds no items."""
    sizes = {f"{modality}_feature_size": size for modality, size in feature_sizes(domains).items()}
    if recipe.start_from is None:
        model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**(sizes | recipe.model)))
    else:
        source = find_model(recipe.start_from)
        num_items = MMM4RecConfig.from_pretrained(source).num_items
        if num_items is not None:
            logger.warning("dropped the %d items of %s: a base model holds none", num_items, recipe.start_from)
        options = recipe.model | {"num_items": None, "use_item_bias": False, "use_cooccurrence": False}
        model = MMM4RecForSequentialRecommendation.from_pretrained(source, **options)
    if model.config.fusion == "dynamic_instance":
        raise ValueError(
            "fusion is 'dynamic_instance', weights of each item, but a base model holds no items; give "
            f"model.fusion=static{', or dynamic_shared' if recipe.start_from is None else ''}"
        )
    for name, size in sizes.items():
        if getattr(model.config, name) != size:
            raise ValueError(
                f"the model reads a {name} of {getattr(model.config, name)}, the catalogues hold {size}; encode them "
                "with the encoder of that model"
            )
    for domain in domains:
        missing_items(domain.catalog, model.config)
        model.config.feature_encoder = agreed_encoder(domain.catalog, model.config)
    return model


def _optimizer(recipe: PretrainRecipe, module: nn.Module) -> torch.optim.Optimizer:
    if recipe.optimizer == "nadam":
        return published_optimizer(module, recipe.learning_rate, recipe.weight_decay)
    return torch.optim.AdamW(parameter_groups(module, recipe.weight_decay), lr=recipe.learning_rate)


def _scheduler(recipe: PretrainRecipe, optimizer: torch.optim.Optimizer, max_steps: int) -> Any:
    name = recipe.lr_scheduler_type
    try:
        scheduler = get_scheduler(name, optimizer, recipe.warmup_steps, max_steps)
    except (TypeError, ValueError) as error:
        # Besides unknown ones: those with options that a recipe does not have.
        raise ValueError(
            f"lr_scheduler_type {name!r} cannot be used ({error}); give one that needs warmup_steps alone, such as "
            "cosine, linear or constant_with_warmup"
        ) from error
    if "metrics" in inspect.signature(scheduler.step).parameters:
        raise ValueError(
            f"lr_scheduler_type {name!r} follows a metric, and a pretraining's learning rate the steps; give cosine, "
            "linear or constant_with_warmup"
        )
    return scheduler


def _mean_over_domains(metrics: Mapping[str, float], name: str) -> float:
    values = [value for key, value in metrics.items() if key.endswith(f"/{name}")]
    return sum(values) / len(values)


def _logged_metrics(path: Path, step: int) -> dict[str, float]:
    """What the validation of a step came to, each metric with its domain; empty where the log tells of none."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    logged = [entry for entry in map(json.loads, lines) if entry["step"] == step]
    return {name: value for entry in logged for name, value in entry.items() if "/" in name}


def _forget_lines_after(path: Path, step: int) -> None:
    """Drops what a run logged after the checkpoint that is gone on from, since it will be logged again."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        with replace_file(path) as partial:
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
