"""How a checkpoint is loaded to recommend from another catalogue: what is kept of it, and what starts fresh."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from logging import Filter, LogRecord
from typing import Any

from torch import nn
from transformers import PreTrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

# What belongs to a catalogue or to a log may be absent: it starts fresh.
_FRESH_BY_DESIGN = {
    "items.text_bias", "items.image_bias", "items.fusion_factor", "items.missing_text", "items.missing_image",
    "cooccurrence.weight", "cooccurrence.log_scale", "cooccurrence.neighbours", "cooccurrence.counts",
}  # fmt: skip


def hub_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Of the arguments of `from_pretrained`, those that say where and how files are found."""
    names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")
    return {key: value for key, value in kwargs.items() if key in names}


def check_complete(name: Any, missing_keys: Collection[str]) -> None:
    """
    Refuses a checkpoint that lacks weights which cannot start fresh.

    Raises:
        ValueError: With their names.
    """
    if lacking := sorted(set(missing_keys) - _FRESH_BY_DESIGN):
        raise ValueError(
            f"{name} lacks the weights {', '.join(lacking)}; it is no complete checkpoint for this configuration"
        )


def without_items(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """
    The arguments of `from_pretrained` by which the model has no items, whatever its checkpoint holds. Which of them
    are options of the configuration, and which are told to loading itself, is left to transformers.
    """
    config = kwargs.get("config")
    if not isinstance(config, PreTrainedConfig):  # none, or where it is saved
        return {**kwargs, "num_items": None}
    config = copy.deepcopy(config)
    config.num_items = None
    return {**kwargs, "config": config}


class _LoadReportFilter(Filter):
    """Keeps transformers' table of weights that are missing or too many."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[LogRecord] = []

    def filter(self, record: LogRecord) -> bool:
        if is_report := "LOAD REPORT" in record.getMessage():
            self.records.append(record)
        return not is_report


@contextmanager
def load_report_held(is_held: bool) -> Iterator[Callable[[], None]]:
    """
    Holds back transformers' table of the weights that a checkpoint lacks, or has beyond the model.

    Args:
        is_held (`bool`): Whether it is; what follows may know better what to say of them.

    Returns:
        What shows the table after all, which an error does as well.
    """
    source, kept = logging.get_logger("transformers.modeling_utils"), _LoadReportFilter()

    def show() -> None:
        source.removeFilter(kept)
        for record in kept.records:
            source.handle(record)

    if is_held:
        source.addFilter(kept)
    try:
        yield show
    except BaseException:
        show()
        raise
    source.removeFilter(kept)


def take_catalog(
    model: Any,
    name: Any,
    catalog: Any,
    info: Mapping[str, Collection[Any]],
    fresh_projections: bool,
    show_load_report: Callable[[], None],
) -> None:
    """
    Gives a model that was loaded without items those of a shop, and logs what was kept and what was not.

    Args:
        model ([`MMM4RecForSequentialRecommendation`]): Loaded with the arguments that [`without_items`] gives.
        name (`str` or `os.PathLike`): The checkpoint.
        catalog (`ItemCatalog`): The shop's.
        info (`dict`): transformers' loading info.
        fresh_projections (`bool`): Whether what projects texts and pictures starts anew.
        show_load_report (`Callable`): That of [`load_report_held`], for weights that belong to no catalogue.
    """
    dropped = sorted(key for key in info["unexpected_keys"] if key.startswith(("items.", "cooccurrence.")))
    # Of a mismatched key the shapes are told beside its name.
    mismatched = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    fresh = [*info["missing_keys"], *mismatched, *(_renew_projections(model, catalog) if fresh_projections else ())]
    logger.warning(
        f"kept the backbone of {name}; dropped what belonged to its own catalogue: {', '.join(dropped) or 'nothing'}; "
        f"started fresh: {', '.join(fresh) or 'nothing'}"
    )
    if info["mismatched_keys"] or set(info["unexpected_keys"]) - set(dropped):
        show_load_report()
    model.set_items(catalog)


def _renew_projections(model: Any, catalog: Any) -> list[str]:
    """Projections as at the start of a training, of the catalogue's features; their names."""
    names = []
    for modality in ("text", "image"):
        features, name = getattr(catalog, f"{modality}_features", None), f"{modality}_projection"
        if features is None:
            continue  # set_items refuses such a catalogue
        weight = getattr(model.model, name).weight
        projection = nn.Linear(features.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
        model._init_weights(projection)
        setattr(model.model, name, projection)
        setattr(model.config, f"{modality}_feature_size", features.shape[1])
        names.append(f"model.{name}")
    model.config.feature_encoder = None
    return names
