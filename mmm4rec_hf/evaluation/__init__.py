"""Ranking metrics and the baselines that stand beside a model."""

from .metrics import DEFAULT_KS, compute_metrics, metrics_from_counts, ranking_counts

__all__ = ["DEFAULT_KS", "compute_metrics", "metrics_from_counts", "ranking_counts"]
