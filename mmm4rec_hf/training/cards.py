"""What a run knows for the card of the model that it leaves: data, protocol, and the metrics of the kept weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmm4rec_hf.evaluation.protocol import describe
from mmm4rec_hf.modeling.card_mmm4rec import CardFacts, CardResult, model_card, write_card

if TYPE_CHECKING:
    from mmm4rec_hf.data import SequenceDatasets
    from mmm4rec_hf.evaluation.evaluator import Evaluation
    from mmm4rec_hf.modeling import MMM4RecForSequentialRecommendation

    from .publishing import PublishingTrainer
    from .trainer import MMM4RecTrainer


@dataclass
class CardOptions:
    """
    What the author of a model says of it; the `card` section of a recipe.

    Args:
        license (`str`, *optional*): Identifier of the Hub, such as `apache-2.0`.
        language (`str`, *optional*): Of the items' texts, such as `en`.
        datasets (`list[str]`, *optional*): What it was trained on: names on the Hub, or any others.
        training_data (`str`, *optional*): Sentences about that data.
    """

    license: str | None = None
    language: str | None = None
    datasets: list[str] = field(default_factory=list)
    training_data: str | None = None


def save_card(model: "MMM4RecForSequentialRecommendation", folder: Path, facts: CardFacts) -> None:
    """Writes the card of a model into its folder, in place of the one that saving wrote."""
    write_card(folder, model_card(model.config, model.item_ids, facts))


def finetuning_facts(
    options: CardOptions,
    trainer: "MMM4RecTrainer",
    sequences: "SequenceDatasets",
    evaluation: "Evaluation",
    start_from: str | None,
) -> CardFacts:
    """
    The facts of a fine-tuning by recipe.

    Args:
        options (`CardOptions`): Of the recipe.
        trainer ([`MMM4RecTrainer`]): After the training.
        sequences (`SequenceDatasets`): What it was trained on.
        evaluation (`Evaluation`): Of the kept weights.
        start_from (`str`, *optional*): The pretrained model.
    """
    size = f"{sequences.statistics['users']:,} users, {sequences.statistics['events']:,} events"
    tested = CardResult(evaluation.protocol["split"], evaluation.metrics, describe(evaluation.protocol))
    return CardFacts(
        license=options.license,
        language=options.language,
        datasets=options.datasets,
        training_data=f"{options.training_data or 'One log of interactions'} ({size}).",
        base_model=_public_name(start_from),
        results=[tested, *kept_results(trainer)],
        checkpoint=kept_checkpoint(trainer),
    )


def pretraining_facts(
    options: CardOptions, domains: Mapping[str, int], metrics: Mapping[str, float], step: int, start_from: str | None
) -> CardFacts:
    """
    The facts of a pretraining.

    Args:
        options (`CardOptions`): Of the recipe.
        domains (`Mapping[str, int]`): Training rows by name.
        metrics (`Mapping[str, float]`): Of the kept weights, `domain/metric`.
        step (`int`): After which they were kept.
        start_from (`str`, *optional*): The base model that it went on from.
    """
    listed = ", ".join(f"{name} ({rows:,} rows)" for name, rows in domains.items())
    results = []
    for name in dict.fromkeys(key.rpartition("/")[0] for key in metrics):
        own = {key.rpartition("/")[2]: value for key, value in metrics.items() if key.rpartition("/")[0] == name}
        protocol = (
            f"{name}: validation split, target ranked among all items of the domain, history not masked, ties by"
        )
        results.append(CardResult(f"validation of {name}", own, f"{protocol} expectation"))
    return CardFacts(
        license=options.license,
        language=options.language,
        datasets=options.datasets,
        training_data=f"{options.training_data or 'Several logs of interactions'}: {listed}.",
        base_model=_public_name(start_from),
        results=results,
        checkpoint=f"step {step}",
    )


def kept_results(trainer: "PublishingTrainer") -> Sequence[CardResult]:
    """The metrics of the weights that a trainer holds: measured since the training ended, or at their step of it."""
    results = dict(trainer.measured)
    step = kept_step(trainer)
    for entry in trainer.state.log_history:
        log: Mapping[str, Any] = entry
        if log.get("step") != step or "eval_protocol" not in log:
            continue
        split = str(log["eval_protocol"]).partition(" split, ")[0]
        # Of one of several sets also its name stands before each metric.
        prefix = next((name.removesuffix("users") for name in log if name.endswith("_users")), "eval_")
        metrics = {name.removeprefix(prefix): value for name, value in log.items() if "@" in name}
        # A log that was read from a checkpoint has its names in another order.
        metrics = dict(sorted(metrics.items(), key=lambda entry: _place(entry[0])))
        results.setdefault(split, CardResult(split, metrics, log["eval_protocol"]))
    return list(results.values())


def sharing_a_split(sets: Mapping[str, Any]) -> list[str]:
    """The names of those evaluation sets that are not the only one of their split."""
    splits = {name: str(rows.split) for name, rows in sets.items() if getattr(rows, "split", None) is not None}
    return [name for name, split in splits.items() if list(splits.values()).count(split) > 1]


def _place(name: str) -> tuple[int, str]:
    """`metric@K` by K and metric."""
    metric, _, k = name.partition("@")
    return int(k), metric


def kept_checkpoint(trainer: "PublishingTrainer") -> str:
    """Which of a training's steps the weights are of."""
    args, state = trainer.args, trainer.state
    if keeps_best(trainer):
        step = kept_step(trainer)
        saved = "" if step == state.best_global_step else " that was saved"
        return f"step {step}, the best{saved} of {state.global_step} by {args.metric_for_best_model}"
    return f"step {state.global_step}, the last"


def keeps_best(trainer: "PublishingTrainer") -> bool:
    """Whether a trainer holds the weights of a training's best checkpoint: until its end it holds those of now."""
    has_best = trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint
    return bool(has_best and not trainer.is_in_train)


def kept_step(trainer: "PublishingTrainer") -> int:
    """The step of the weights that a trainer holds after a training."""
    if not keeps_best(trainer):
        return trainer.state.global_step
    # A better evaluation may be of a step at which nothing was saved.
    return int(str(trainer.state.best_model_checkpoint).rpartition("-")[2])


def _public_name(start_from: str | None) -> str | None:
    """A Hub name; the path of a folder says nothing to others."""
    if start_from is None:
        return None
    return "a base model of the author's own" if Path(start_from).exists() else start_from
