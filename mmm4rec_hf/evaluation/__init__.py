"""Ranking metrics and the baselines that stand beside a model."""

from .metrics import DEFAULT_KS, compute_metrics, metrics_from_counts, ranking_counts
from .ranking import HistoryCollator, ItemRanker

__all__ = [
    "DEFAULT_KS",
    "HistoryCollator",
    "ItemRanker",
    "compute_metrics",
    "metrics_from_counts",
    "ranking_counts",
]
