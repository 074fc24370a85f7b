"""Ranking metrics and the baselines that stand beside a model. Each loads on first use: a protocol needs no torch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .metrics import DEFAULT_KS, compute_metrics, metrics_from_counts, ranking_counts
    from .ranking import HistoryCollator, ItemRanker

_FILES = {
    "DEFAULT_KS": "metrics",
    "HistoryCollator": "ranking",
    "ItemRanker": "ranking",
    "compute_metrics": "metrics",
    "metrics_from_counts": "metrics",
    "ranking_counts": "metrics",
}

__all__ = [
    "DEFAULT_KS",
    "HistoryCollator",
    "ItemRanker",
    "compute_metrics",
    "metrics_from_counts",
    "ranking_counts",
]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
