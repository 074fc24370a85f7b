"""The trainer of the models: transformers' own, with ranks computed inside the evaluation step."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, TrainOutput, has_length

from mmm4rec_hf.data.collator import MMM4RecDataCollator
from mmm4rec_hf.data.cooccurrence import count_near_items
from mmm4rec_hf.data.events import HistoryRows, check_items
from mmm4rec_hf.evaluation.chance import told_number, warn_at_chance
from mmm4rec_hf.evaluation.metrics import DEFAULT_KS, metric_values, metrics_from_counts
from mmm4rec_hf.evaluation.protocol import describe
from mmm4rec_hf.evaluation.ranking import HistoryCollator, ItemRanker
from mmm4rec_hf.modeling.card_mmm4rec import CardResult
from mmm4rec_hf.outputs import write_json

from .arguments import (
    check_arguments,
    in_full_eval_precision,
    keep_buffers_apart,
    keeping_token_ids,
    reading_every_row,
)
from .cards import sharing_a_split
from .optimization import decayed_parameter_names, published_optimizer
from .publishing import PublishingTrainer
from .resuming import STATE_NAME, BestCheckpointInPlace, find_best, is_finished, last_whole_checkpoint

if TYPE_CHECKING:
    from mmm4rec_hf.modeling import MMM4RecForSequentialRecommendation

logger = logging.getLogger(__name__)

METRICS_NAME = "metrics.json"


class MMM4RecTrainer(PublishingTrainer):
    """
    transformers' Trainer for [`MMM4RecForSequentialRecommendation`], with these differences:

    - Batches are made by [`MMM4RecDataCollator`], and metrics are HR, recall, NDCG and MRR, coverage, the number of
      users, of targets and of tied targets, and `loss`, the cross entropy of the targets over all items whatever the
      model is trained with. Of rows that do not tell their users each target counts as one. They are computed from
      ranks, so that memory does not grow with users x items, and do not change with the batch size or the number of
      processes. With `prediction_loss_only` the loss alone.
    - What the numbers mean is kept with them: `eval_protocol` in the log of the trainer's state, and the last
      evaluation of each split in `output_dir/metrics.json`. One of fewer targets than another of its split, and each
      of several sets of one split, stands beside it under a name such as `validation (new, 3 users)`.
    - Weight decay leaves out biases, norms, `A_log`, `D` and `dt_bias`.
    - A loss that is not finite stops the training; metrics as bad as a random order are said once.
    - A run that was stopped goes on as if it had not been, early stopping included.
    - What it saves and pushes recommends: with the items' ids, and a card with the metrics of the weights it holds.

    Args:
        model ([`MMM4RecForSequentialRecommendation`], *optional*): With items; or give `model_init`.
        args (`TrainingArguments`, *optional*): As transformers'.
        data_collator (`Callable`, *optional*): Makes a batch of rows; by default for the model's sequence length.
        train_dataset (`datasets.Dataset`, *optional*): Such as `prepare_sequences(data)["train"]`.
        eval_dataset (`datasets.Dataset` or a dictionary of them, *optional*): Such as
            `prepare_sequences(data)["validation"]`.
        ks (`Sequence[int]`, *optional*, defaults to `(10, 20, 50)`): The cut-offs of metrics.
        exclude_history (`bool`, *optional*, defaults to `False`):
            Whether evaluation leaves the items of a user's history out of the ranking (never the target). The
            published protocol keeps them.
        sampled (`int`, *optional*):
            Ranks targets among that many drawn items instead of all. All metrics are then named `sampled_...`: they
            are far higher, and not comparable with others.
        use_published_optimizer (`bool`, *optional*, defaults to `False`):
            NAdam with an L2 penalty on every weight, as published, with `learning_rate` and `weight_decay` of `args`.
        kwargs: Passed on to [`~transformers.Trainer`].
    """

    def __init__(
        self,
        model: "MMM4RecForSequentialRecommendation | None" = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[Any], dict[str, Tensor]] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *,
        ks: Sequence[int] = DEFAULT_KS,
        exclude_history: bool = False,
        sampled: int | None = None,
        use_published_optimizer: bool = False,
        **kwargs: Any,
    ) -> None:
        self.ks = tuple(ks)
        self.exclude_history = exclude_history
        self.sampled = sampled
        self.use_published_optimizer = use_published_optimizer
        self._ranker: ItemRanker | None = None
        self._protocol: dict[str, Any] = {}
        self._has_said_chance = False
        self.measured: dict[str, CardResult] = {}
        # Names of the sets that share a split, by prefix; and of each split the most targets that were found, and
        # how many users they are of where that is known.
        self._set_names: dict[str, str] = {}
        self._most_targets: dict[str, tuple[int, int | None]] = {}
        # The folder is transformers' own choice for a trainer without arguments.
        args = TrainingArguments("tmp_trainer") if args is None else args
        check_arguments(args, has_own_metrics="compute_metrics" in kwargs)
        kwargs.setdefault("compute_metrics", self._metrics_of_ranks)
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, **kwargs)
        self._best_in_place = BestCheckpointInPlace()
        self.add_callback(self._best_in_place)
        self.model: MMM4RecForSequentialRecommendation
        if data_collator is None:
            self.data_collator = MMM4RecDataCollator(self.model.config.max_sequence_length)

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """
        Trains, or goes on with a run that was stopped.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                A checkpoint's folder; `True` for the newest in `output_dir` that is whole. On a CPU the run then ends
                with the same bits as if it had not been stopped, if the arguments are the same.
            trial (*optional*): Of a search of hyperparameters.
            ignore_keys_for_eval (`list[str]`, *optional*): As transformers'.

        Returns:
            `TrainOutput`: As transformers'.

        Raises:
            ValueError: If there is no checkpoint to go on from.
            RuntimeError: If the loss is not finite; the message names the step.
        """
        self.measured = {}
        if self.args.dataloader_drop_last and has_length(self.train_dataset) and not len(self.get_train_dataloader()):
            raise ValueError(
                f"no batch is left of {len(self.train_dataset)} training rows: dataloader_drop_last leaves out one of "
                f"fewer than per_device_train_batch_size={self.args.per_device_train_batch_size} rows a process; "
                "lower it, or train without dataloader_drop_last"
            )
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole_checkpoint(self.args)
            if resume_from_checkpoint is None:
                raise ValueError(
                    f"there is no whole checkpoint in {self.args.output_dir}; train without resume_from_checkpoint"
                )
        if resume_from_checkpoint:
            # Else the counter of early stopping starts over.
            self.args.restore_callback_states_from_checkpoint = True
            if is_finished(str(resume_from_checkpoint), self.args):
                return self._end_with(str(resume_from_checkpoint))
        self._best_in_place.checkpoint = str(resume_from_checkpoint) if resume_from_checkpoint else None
        if self.model_init is None:
            self._count_anew(self.accelerator.unwrap_model(self.model))
        with keeping_token_ids(self):
            return super().train(resume_from_checkpoint or None, trial, ignore_keys_for_eval)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """As transformers', for a model that knows the training rows: each training makes its own."""
        model = super().call_model_init(trial)
        # The first is made before the trainer has its rows.
        if getattr(self, "train_dataset", None) is not None:
            self._count_anew(model)
        return model

    def _count_anew(self, recommender: Any) -> None:
        self._count_targets(recommender, anew=True)
        # A row's own target is taken off its counts, which must therefore be those of these rows.
        self._count_near_items(recommender, anew=True)

    def _end_with(self, checkpoint: str) -> TrainOutput:
        """What a run leaves behind whose last checkpoint this is."""
        logger.info("the run had ended with %s", checkpoint)
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / STATE_NAME))
        self._load_from_checkpoint(checkpoint)
        if find_best(self.state, self.args):
            self._load_best_model()
        return TrainOutput(self.state.global_step, 0.0, {})

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """As transformers', for a loss that is finite."""
        # Asked to keep torch.compile it would take DistributedDataParallel out of the compiled model itself.
        recommender = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        self._count_targets(recommender)
        self._count_near_items(recommender)
        keep_buffers_apart(model, self.args)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}, which has changed no weight; lower "
                "learning_rate (a warmup helps), or go back to an earlier checkpoint"
            )
        return loss

    def _count_targets(self, recommender: Any, anew: bool = False) -> None:
        """Tells a loss that corrects for it how often items are targets, unless it was told, or counted already."""
        items = recommender.items
        if not recommender.config.needs_item_frequencies or self.train_dataset is None:
            return
        if items.log_q is None or (anew and items.is_log_q_counted):
            recommender.set_item_frequencies(self._target_counts(items.num_rows))
            items.is_log_q_counted = True

    def _target_counts(self, num_rows: int) -> Tensor:
        """How often each row of the model is a target of the training data."""
        dataset: Any = self.train_dataset
        if isinstance(dataset, datasets.Dataset):
            # The stored column, without making the histories of every row.
            labels = dataset.with_format("numpy", columns=["labels"])[:]["labels"]
        else:
            labels = np.array([row["labels"] for row in dataset], dtype=np.int64)
        return torch.bincount(torch.as_tensor(labels), minlength=num_rows)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay shrinks, see [`decayed_parameter_names`]."""
        return decayed_parameter_names(model)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of `args`, or the published one."""
        if self.optimizer is None and self.use_published_optimizer:
            self.optimizer = published_optimizer(
                self.model if model is None else model, self.args.learning_rate, self.args.weight_decay
            )
        return super().create_optimizer(model)

    def _count_near_items(self, recommender: Any, anew: bool = False) -> None:
        """Tells a model with `use_cooccurrence` what stood near what in the training rows, unless it knows."""
        cooccurrence = recommender.cooccurrence
        if cooccurrence is not None and self.train_dataset is not None and (anew or not cooccurrence.is_set):
            count_near_items(recommender, self.train_dataset)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """
        Ranks the target of every row among the model's items.

        Args:
            eval_dataset (`datasets.Dataset` or a dictionary of them, *optional*): By default the trainer's.
            ignore_keys (`list[str]`, *optional*): As transformers'.
            metric_key_prefix (`str`, *optional*, defaults to `"eval"`): Stands before each name: `eval_ndcg@10`.

        Returns:
            `dict[str, float]`: The metrics.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        with self._naming_sets(dataset, metric_key_prefix):
            metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        # Each set of a dictionary came through here by itself.
        if self._protocol and not isinstance(dataset, dict):
            history: list[Any] = self.state.log_history
            entry = next(entry for entry in reversed(history) if f"{metric_key_prefix}_users" in entry)
            entry["eval_protocol"] = describe(self._protocol)
            if not self.is_in_train:
                split = str(self._protocol["split"])
                numbers = {name.removeprefix(f"{metric_key_prefix}_"): value for name, value in metrics.items()}
                self.measured[split] = CardResult(split, numbers, entry["eval_protocol"])
        return metrics

    @contextlib.contextmanager
    def _naming_sets(self, dataset: Any, prefix: str) -> Iterator[None]:
        """Knows, while sets of a dictionary are evaluated, which of them are not the only one of their split."""
        kept = self._set_names
        if isinstance(dataset, dict):
            self._set_names = {f"{prefix}_{name}": str(name) for name in sharing_a_split(dataset)}
        elif isinstance(dataset, str) and isinstance(self.eval_dataset, dict) and prefix not in kept:
            self._set_names = {prefix: dataset} if dataset in sharing_a_split(self.eval_dataset) else {}
        try:
            yield
        finally:
            self._set_names = kept

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        # Every set of rows comes through here before its first batch.
        check_items(dataset, self.model.item_ids)
        return super()._remove_unused_columns(dataset, description)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As transformers', with one [`ItemRanker`] for all batches."""
        self._ranker, self._protocol = None, {}
        self._count_near_items(self.accelerator.unwrap_model(self.model))
        # In a training transformers keeps the precision of the weights.
        precision = contextlib.nullcontext() if self.is_in_train else in_full_eval_precision(self.model, self.args)
        try:
            with precision:
                output = super().evaluation_loop(
                    dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
                )
            if self._ranker is not None and f"{metric_key_prefix}_users" in (output.metrics or {}):
                self._complete(output, self._ranker, dataloader, metric_key_prefix)
        finally:
            self._ranker = None
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Tensor | None]:
        """
        Ranks the targets of a batch; without labels as transformers'.

        Returns:
            `tuple`: No loss, which would be a mean over this batch; the pair of [`ItemRanker.rank`]; and the labels.
        """
        history = inputs.get("history")
        inputs = {name: value for name, value in inputs.items() if name != "history"}
        if inputs.get("labels") is None:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        labels = inputs["labels"]
        recommender = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        if self._ranker is None:
            self._ranker = ItemRanker(
                recommender, exclude_history=self.exclude_history, sampled=self.sampled, coverage_at=self.ks
            )
        with torch.no_grad(), self.accelerator.autocast():
            users = recommender.user_embeds(
                inputs["input_ids"],
                inputs.get("timestamps"),
                inputs.get("attention_mask"),
                item_embeds=self._ranker.item_embeds,
            )
            terms = recommender.cooccurrence_terms(inputs["input_ids"], inputs.get("attention_mask"))
        counts, losses = self._ranker.rank(users, labels, history, terms)
        if prediction_loss_only:
            return losses.mean(), None, None
        return None, (counts, losses), labels

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """As transformers', of every row in its order; with the whole `history` where that leaves the ranking."""
        with self._collating_histories(), reading_every_row(self.args):
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """As transformers', of every row in its order; with the whole `history` where that leaves the ranking."""
        with self._collating_histories(), reading_every_row(self.args):
            return super().get_test_dataloader(test_dataset)

    @contextlib.contextmanager
    def _collating_histories(self) -> Iterator[None]:
        collate: Any = self.data_collator
        if self.exclude_history:
            self.data_collator = HistoryCollator(collate)
        try:
            yield
        finally:
            self.data_collator = collate

    def _metrics_of_ranks(self, prediction: EvalPrediction) -> dict[str, float]:
        counts, losses = _of_all_batches(prediction.predictions)
        metrics = metrics_from_counts(counts, self.ks)
        metrics["loss"] = float(np.mean(losses))
        return {self._named(name): value for name, value in metrics.items()}

    def _named(self, name: str) -> str:
        is_ranked = "@" in name or name == "loss"
        return f"sampled_{name}" if is_ranked and self.sampled is not None else name

    def _complete(self, output: EvalLoopOutput, ranker: ItemRanker, dataloader: DataLoader, prefix: str) -> None:
        """Adds what only the whole evaluation knows, and writes the numbers down with their meaning."""
        metrics: Any = output.metrics
        counts, _ = _of_all_batches(output.predictions)
        users = _users_of(dataloader.dataset)
        num_users = None if users is None else len(np.unique(users))
        metrics |= {f"{prefix}_users": num_users or len(counts), f"{prefix}_targets": len(counts)}
        covered = self.accelerator.reduce(ranker.covered.long(), "sum") > 0
        metrics |= {f"{prefix}_{self._named(name)}": share for name, share in ranker.coverage(covered).items()}
        split = getattr(dataloader.dataset, "split", None)
        self._protocol = {
            "split": self._title(prefix if split is None else str(split), (len(counts), num_users), prefix),
            "num_items": ranker.num_rows - 1,
            "sampled": self.sampled,
            "exclude_history": self.exclude_history,
            "score_padding_item": self.model.config.score_padding_item,
            "ks": list(self.ks),
            "ties": "expectation over a random order",
            "prepared": {},
        }
        self._say_chance(counts, users, ranker, prefix)
        numbers = {name.removeprefix(f"{prefix}_"): value for name, value in metrics.items()}
        with self._written_metrics() as known:
            known[self._protocol["split"]] = {
                "step": self.state.global_step,
                "metrics": numbers,
                "protocol": self._protocol,
            }

    @contextlib.contextmanager
    def _written_metrics(self) -> Iterator[dict[str, Any]]:
        """What `metrics.json` holds, to be changed; written by the process that saves."""
        path = Path(str(self.args.output_dir)) / METRICS_NAME
        is_known = self.args.should_save and path.is_file()
        known = json.loads(path.read_text(encoding="utf-8")) if is_known else {}
        yield known
        if self.args.should_save:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, known)

    def _title(self, split: str, size: tuple[int, int | None], prefix: str) -> str:
        """The name of a split for the whole of it, as far as that is known, and another for a part of it."""
        if prefix in self._set_names:
            return _part_of(split, size, self._set_names[prefix])
        sets = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        rows = [len(part) for part in sets if str(getattr(part, "split", None)) == split and has_length(part)]
        found = self._most_targets.get(split, (0, None))
        if size[0] < max([found[0], *rows]):
            name = prefix.removeprefix("eval").lstrip("_")
            return _part_of(split, size, "" if name in ("test", split) else name)
        if 0 < found[0] < size[0]:
            self._rename(split, _part_of(split, found))
        self._most_targets[split] = size
        return split

    def _rename(self, split: str, part: str) -> None:
        """What was kept as the whole of a split was a part."""
        if split in self.measured:
            result = self.measured.pop(split)
            line = result.protocol.replace(f"{split} split", f"{part} split", 1)
            self.measured[part] = CardResult(part, result.metrics, line)
        with self._written_metrics() as known:
            if split in known:
                known[part] = known.pop(split)
                known[part]["protocol"]["split"] = part

    def _say_chance(self, counts: np.ndarray, users: np.ndarray | None, ranker: ItemRanker, prefix: str) -> None:
        """Warns, once, of a hit rate that a random order has as well."""
        k = max(self.ks)
        is_untrained = self.is_in_train and self.state.global_step == 0
        if not self._has_said_chance and not is_untrained:
            hits = metric_values(counts, [k])[f"hr@{k}"]
            name = f"{prefix}_{self._named(f'hr@{k}')}"
            self._has_said_chance = warn_at_chance(name, hits, k, ranker.num_candidates, users)


def _of_all_batches(predictions: Any) -> tuple[np.ndarray, np.ndarray]:
    """Items above and level with each target, `(num_targets, 2)`, and its loss, `(num_targets,)`."""
    if isinstance(predictions, list):
        # With eval_do_concat_batches=False, a pair a batch.
        predictions = [np.concatenate(parts) for parts in zip(*predictions, strict=True)]
    counts, losses = predictions
    return counts, losses


def _users_of(rows: Any) -> np.ndarray | None:
    """Whose row each is, as a number; `None` of rows that do not tell: others than those of sequences."""
    transform = rows.format["format_kwargs"].get("transform") if isinstance(rows, datasets.Dataset) else None
    if not isinstance(transform, HistoryRows):
        return None
    pointers = rows.with_format("arrow")[:]["input_ids"]
    return transform.events.users_of(pc.struct_field(pointers, "start").to_numpy())


def _part_of(split: str, size: tuple[int, int | None], name: str = "") -> str:
    """What stands in a split's place for a part of it, of so many targets and users: `validation (new, 3 users)`."""
    return f"{split} ({', '.join(filter(None, [' '.join(name.split()), told_number(*size)]))})"
