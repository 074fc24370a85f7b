"""The model card: what a saved model is, what it was trained on, how it was measured, and code that runs it."""

import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, RepoCard

from .configuration_mmm4rec import TASK, MMM4RecConfig

CARD_NAME = "README.md"
# Stands in the code of a card until the model has a name on the Hub.
NAME_PLACEHOLDER = "path/to/this/folder"
_PACKAGES = ("mmm4rec-hf", "torch", "transformers", "huggingface-hub", "accelerate", "datasets")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_TEMPLATE = """\
---
{{ card_data }}
---

# {{ title }}

{{ summary }}

## Use

```python
{{ usage }}
```

{{ usage_note }}

## Item features

{% for line in features -%}
- {{ line }}
{% endfor %}
{{ features_note }}

## Training data

{{ training_data }}

Licence: {{ licence }}

## Measured

{% if checkpoint %}The weights are those of {{ checkpoint }}.

{% endif %}{% if results %}{% for result in results %}
{{ result.protocol[0]|upper }}{{ result.protocol[1:] }}:

| metric | value |
| --- | --- |
{% for name, value in result.metrics.items() -%}
| {{ name }} | {{ "%.4f"|format(value) }} |
{% endfor -%}
{% endfor %}{% else %}Nothing was measured when this card was written.
{% endif %}
{% for note in notes -%}
{{ note }}

{% endfor -%}
## Versions

| package | version |
| --- | --- |
{% for name, version in versions.items() -%}
| {{ name }} | {{ version }} |
{% endfor %}
The model is MMM4Rec ([arXiv 2506.02916](https://arxiv.org/abs/2506.02916)).
"""

_RECOMMEND = """\
import mmm4rec_hf  # registers the model with transformers
from transformers import pipeline

recommend = pipeline("sequential-recommendation", model="{name}")
recommend({history}, top_k=5)"""

_ENCODE = """\
import mmm4rec_hf  # registers the model with transformers
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained("{name}")
events = 3  # of one user, oldest first
output = model(
    text_features=torch.randn(1, events, {text_size}),  # in place of your items' features
    image_features=torch.randn(1, events, {image_size}),
    timestamps=torch.tensor([[1700000000, 1700003600, 1700090000]]),
)
output.user_embeds  # [1, {hidden_size}]"""


@dataclass
class CardResult:
    """
    Metrics of the saved weights on one split.

    Args:
        split (`str`): Its name.
        metrics (`Mapping[str, float]`): By name, such as `ndcg@10`.
        protocol (`str`): What the numbers mean, one line.
    """

    split: str
    metrics: Mapping[str, float]
    protocol: str


@dataclass
class CardFacts:
    """
    What a model's card says that its configuration does not tell.

    Args:
        license (`str`, *optional*): Identifier of the Hub, such as `apache-2.0`.
        language (`str`, *optional*): Of the items' texts, such as `en`.
        datasets (`Sequence[str]`, *optional*): What it was trained on: names on the Hub, or any others.
        training_data (`str`, *optional*): Sentences about that data.
        base_model (`str`, *optional*): What the training started from.
        results (`Sequence[CardResult]`, *optional*): What was measured.
        checkpoint (`str`, *optional*): Which checkpoint the weights are of, such as `step 300, the best of 500`.
        notes (`Sequence[str]`, *optional*): Paragraphs more.
        tags (`Sequence[str]`, *optional*): Tags more.
    """

    license: str | None = None
    language: str | None = None
    datasets: Sequence[str] = ()
    training_data: str | None = None
    base_model: str | None = None
    results: Sequence[CardResult] = ()
    checkpoint: str | None = None
    notes: Sequence[str] = ()
    tags: Sequence[str] = field(default_factory=list)


def model_card(
    config: MMM4RecConfig, item_ids: Sequence[str] | None = None, facts: CardFacts | None = None
) -> ModelCard:
    """
    Writes a model's card.

    Args:
        config ([`MMM4RecConfig`]): The model's; without `num_items` the card is that of a base model.
        item_ids (`Sequence[str]`, *optional*): External ids, two of which the card's code uses.
        facts ([`CardFacts`], *optional*): What else is known.

    Returns:
        [`~huggingface_hub.ModelCard`]: Its code names `path/to/this/folder` until [`push_folder`] gives it a name.
    """
    facts = facts or CardFacts()
    has_items = config.num_items is not None
    card = ModelCard.from_template(
        _front_matter(facts),
        template_str=_TEMPLATE,
        title=_title(config),
        summary=_summary(config),
        usage=_usage(config, item_ids),
        usage_note=_usage_note(has_items),
        features=[_feature_line(config, modality) for modality in ("text", "image")],
        features_note="Features of other encoders mean something else, and are refused.",
        training_data=_training_data(facts),
        licence=_line(facts.license) or "not stated by the author of this model; the data may bind you as well.",
        results=[{"protocol": r.protocol, "metrics": _numbers(r.metrics)} for r in facts.results],
        checkpoint=facts.checkpoint,
        notes=list(facts.notes),
        versions=_versions(),
    )
    # Jinja keeps the blank lines of empty loops.
    card.text = re.sub(r"\n{3,}", "\n\n", card.text)
    return card


def write_card(folder: Path, card: ModelCard) -> None:
    """Writes a card into a model's folder, in place of an earlier one."""
    partial = folder / f".{CARD_NAME}.partial"
    partial.write_text(str(card), encoding="utf-8")
    partial.replace(folder / CARD_NAME)


def card_of_repository(text: str, repo_id: str, license: str | None = None) -> str:
    """A card whose code names a repository and, where one is given, with a licence."""
    text = text.replace(NAME_PLACEHOLDER, repo_id)
    if license is None:
        return text
    card = RepoCard(re.sub(r"^Licence: .*$", f"Licence: {license}", text, flags=re.MULTILINE))
    card.data["license"] = license
    return str(card)


def _front_matter(facts: CardFacts) -> ModelCardData:
    on_hub = [name for name in facts.datasets if _HUB_ID.fullmatch(name)]
    results = [
        EvalResult(
            task_type=TASK,
            task_name="Sequential recommendation",
            dataset_type=(on_hub or ["custom"])[0],
            dataset_name=_line(", ".join(facts.datasets)) or "the author's own data",
            dataset_split=_line(result.split),
            metric_type=name,
            metric_name=name,
            metric_value=value,
        )
        for result in facts.results
        for name, value in _numbers(result.metrics).items()
    ]
    is_hub_model = facts.base_model is not None and _HUB_ID.fullmatch(facts.base_model)
    return ModelCardData(
        license=_line(facts.license),
        language=_line(facts.language),
        library_name="transformers",
        tags=["mmm4rec", TASK, "recommendation", *facts.tags],
        datasets=on_hub or None,
        base_model=facts.base_model if is_hub_model else None,
        model_name="MMM4Rec" if results else None,
        eval_results=results or None,
    )


def _line(text: str | None) -> str | None:
    """One line: of the line breaks that Unicode knows YAML gives back some as spaces."""
    return None if text is None else " ".join(text.split()) or None


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics alone, as plain numbers: YAML does not know numpy's."""
    return {name: float(value) for name, value in metrics.items() if "@" in name}


def _title(config: MMM4RecConfig) -> str:
    return "MMM4Rec, a base model" if config.num_items is None else f"MMM4Rec over {config.num_items:,} items"


def _summary(config: MMM4RecConfig) -> str:
    what = (
        "It holds no items: give it the features of yours, to recommend from them at once or to start a fine-tuning."
        if config.num_items is None
        else "It holds its items and recommends from them; its backbone serves any other catalogue as well."
    )
    return (
        "A sequential recommender: from the texts, the pictures and the times of the items in a user's history it "
        f"predicts the next item. {what} It reads the last {config.max_sequence_length} events, with "
        f"{config.num_hidden_layers} layer(s) of width {config.hidden_size}."
    )


def _usage(config: MMM4RecConfig, item_ids: Sequence[str] | None) -> str:
    if config.num_items is None or not item_ids:
        return _ENCODE.format(
            name=NAME_PLACEHOLDER,
            text_size=config.text_feature_size,
            image_size=config.image_feature_size,
            hidden_size=config.hidden_size,
        )
    history: dict[str, Any] = {"items": list(item_ids[:2])}
    if config.use_time:
        history["timestamps"] = [1700000000 + 3600 * place for place in range(len(history["items"]))]
    return _RECOMMEND.format(name=NAME_PLACEHOLDER, history=json.dumps(history, ensure_ascii=False))


def _usage_note(has_items: bool) -> str:
    without = (
        "Without the package `mmm4rec-hf` leave out its import and pass `trust_remote_code=True`: the repository "
        "carries its code."
    )
    if has_items:
        return without
    return (
        f"{without} A fine-tuning starts with "
        f'`MMM4RecForSequentialRecommendation.from_pretrained("{NAME_PLACEHOLDER}", catalog=catalog)`, or with '
        f"`mmm4rec finetune start_from={NAME_PLACEHOLDER} ...`."
    )


def _feature_line(config: MMM4RecConfig, modality: str) -> str:
    size = getattr(config, f"{modality}_feature_size")
    made = (config.feature_encoder or {}).get(modality)
    if made is None:
        return f"{modality}: {size} numbers an item; what made them is not recorded"
    details = [f"{key} {made[key]}" for key in ("revision", "pooling") if made.get(key)]
    return f"{modality}: {size} numbers an item, by `{made.get('encoder')}`" + (
        f" ({', '.join(details)})" if details else ""
    )


def _training_data(facts: CardFacts) -> str:
    parts = [facts.training_data] if facts.training_data else []
    if facts.datasets:
        parts.append(f"Data sets: {', '.join(facts.datasets)}.")
    if facts.base_model:
        parts.append(f"Training started from {facts.base_model}.")
    return " ".join(parts) or "Not stated by the author of this model."


def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # the saved code runs without this package
    return versions


__all__ = [
    "CARD_NAME",
    "NAME_PLACEHOLDER",
    "CardFacts",
    "CardResult",
    "card_of_repository",
    "model_card",
    "write_card",
]
