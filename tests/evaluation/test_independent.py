"""Metrics against those of ir-measures (trec_eval) on random scores with ties."""

from collections import defaultdict

import numpy as np
import pytest
import torch

from mmm4rec_hf.evaluation import DEFAULT_KS, metrics_from_counts, ranking_counts

ir_measures = pytest.importorskip("ir_measures", reason="no independent metrics: ir-measures is not installed")


def places_of_target(scores: torch.Tensor, target: int) -> list[int]:
    """The places, from 0, that a target can have: ties may stand in any order."""
    ordered = sorted(range(1, len(scores)), key=lambda item: -scores[item].item())
    tied = [place for place, item in enumerate(ordered) if scores[item] == scores[target]]
    assert target in [ordered[place] for place in tied]
    return tied


def test_metrics_are_those_of_trec_eval_over_every_place_of_tied_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    users, items = 40, 70
    # Rounded so that about every second target ties with others.
    scores = (torch.randn(users, items + 1, generator=generator) * 15).round()
    targets = torch.randint(1, items + 1, (users,), generator=generator)

    qrels, run = [], []
    for user, target in enumerate(targets.tolist()):
        others = [f"{item}" for item in range(items - 1)]
        for place in places_of_target(scores[user], target):
            query = f"{user}-{place}"
            ranking = [*others[:place], "target", *others[place:]]
            qrels.append(ir_measures.Qrel(query, "target", 1))
            run += [ir_measures.ScoredDoc(query, item, float(-rank)) for rank, item in enumerate(ranking)]
    measures = {}
    for k in DEFAULT_KS:
        measures |= {
            ir_measures.Success @ k: f"hr@{k}",
            ir_measures.R @ k: f"recall@{k}",
            ir_measures.nDCG @ k: f"ndcg@{k}",
            ir_measures.RR @ k: f"mrr@{k}",
        }
    by_user: dict[str, list[list[float]]] = defaultdict(lambda: [[] for _ in range(users)])
    for result in ir_measures.iter_calc(list(measures), qrels, run):
        by_user[measures[result.measure]][int(result.query_id.split("-")[0])].append(result.value)

    metrics = metrics_from_counts(ranking_counts(scores, targets))
    assert metrics["tied_targets"] > 10
    for name, values in by_user.items():
        assert metrics[name] == pytest.approx(np.mean([np.mean(of_user) for of_user in values]), abs=1e-9), name
