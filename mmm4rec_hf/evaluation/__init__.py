"""Ranking metrics and the baselines that stand beside a model. Each loads on first use: a protocol needs no torch."""

from typing import TYPE_CHECKING

from mmm4rec_hf.lazy import load_on_use

if TYPE_CHECKING:
    from .metrics import DEFAULT_KS, compute_metrics, metrics_from_counts, ranking_counts
    from .ranking import HistoryCollator, ItemRanker

_FILES = {
    "DEFAULT_KS": ".metrics",
    "HistoryCollator": ".ranking",
    "ItemRanker": ".ranking",
    "compute_metrics": ".metrics",
    "metrics_from_counts": ".metrics",
    "ranking_counts": ".metrics",
}

__all__ = [
    "DEFAULT_KS",
    "HistoryCollator",
    "ItemRanker",
    "compute_metrics",
    "metrics_from_counts",
    "ranking_counts",
]

__getattr__ = load_on_use(__name__, _FILES)
