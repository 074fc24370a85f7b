"""Folders of runs with numbers known beforehand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mmm4rec_hf.evaluation.evaluator import Evaluation

HOSTILE = (
    """<script>alert('1')</script> & "ça" $x_1$ 雪 {{ 7 * 7 }} {% x %} {0.__class__} {statistics:>9} %(x)s %d {"""
)
MakeRun = Callable[..., Path]


def evaluation_of(above: list[int], level: int = 1, **protocol: Any) -> Evaluation:
    """Of as many users, whose targets have so many items above them; odd users have long histories."""
    columns = {
        "user_id": [f"u{n}" for n in range(len(above))],
        "item_id": [f"i{n}" for n in range(len(above))],
        "above": above,
        "level": [level] * len(above),
        "loss": np.asarray(above, dtype=float),
        "history_length": ["50+" if n % 2 else "1-4" for n in range(len(above))],
        "target_popularity": ["head"] * len(above),
    }
    known = {"split": "test", "num_items": 200, "exclude_history": False, "score_padding_item": False, "ks": [5, 10],
             "prepared": {"split": "leave_one_out", "k_core": 5}, "users_without_target": 3}  # fmt: skip
    return Evaluation(pl.DataFrame(columns), known | protocol, {})


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes the folder of a fine-tuning: its recipe, record, evaluation, baselines and configuration."""

    def make(
        name: str,
        above: list[int] | None = None,
        seed: int = 0,
        text: str = "Films",
        baselines: dict[str, list[int]] | None = None,
        **protocol: Any,
    ) -> Path:
        folder = tmp_path / name
        # Two of four targets at the first place, one at the fourth, one at the hundredth.
        evaluation = evaluation_of([0, 0, 3, 99] * 10 if above is None else above, **protocol)
        ranked = baselines or {"popularity": [9] * len(evaluation.targets)}
        evaluation.save(
            folder / "evaluation", {name: evaluation_of(ranks, **protocol) for name, ranks in ranked.items()}
        )
        recipe = {
            "sequences": "sequences", "catalog": "catalog", "output_dir": str(folder), "start_from": None,
            "training": {"seed": seed, "num_train_epochs": 2}, "card": {"training_data": text}, "model": {},
        }  # fmt: skip
        (folder / "recipe.json").write_text(json.dumps(recipe))
        (folder / "training.json").write_text(json.dumps(record(text)))
        (folder / "model").mkdir()
        config = {"num_hidden_layers": 2, "hidden_size": 48, "max_sequence_length": 20, "use_item_bias": True}
        encoder = {"text": {"encoder": text, "revision": None}, "image": {"encoder": "vit", "revision": "abc"}}
        (folder / "model" / "config.json").write_text(json.dumps(config | {"feature_encoder": encoder}))
        return folder

    return make


def record(text: str) -> dict[str, Any]:
    """Of two sessions, the first of which was killed, and two validations, of which the first was kept."""
    session = {
        "started": "2026-11-20T10:00:00+00:00", "first_step": 0, "processes": 2, "machine": f"8 cores of an {text}",
        "versions": {"torch": "2.13.0"},
    }  # fmt: skip
    ended = {
        "started": "2026-11-20T11:00:00+00:00", "ended": "2026-11-20T11:05:00+00:00", "seconds": 300.0,
        "first_step": 0, "last_step": 120, "peak_memory": {"process": 1_500_000_000, "gpu": 2_250_000_000},
    }  # fmt: skip
    statistics = {"rows_read": 1000, "events": 900, "users": 43, "items": 200, "train_rows": 700}
    return {
        "kind": "fine-tuning",
        "sessions": [session, session | ended],
        "parameters": {"total": 12_345, "learned": 2_345},
        "data": {"source": [f"/home/someone/{text}/log.csv"], "statistics": statistics, "first_event": "2001-02-03",
                 "last_event": "2004-05-06"},
        "log": [
            {"step": 50, "loss": 4.5}, {"step": 60, "eval_ndcg@10": 0.4, "eval_ndcg@5": 0.3, "eval_loss": 4.0},
            {"step": 100, "loss": 3.5}, {"step": 120, "eval_ndcg@10": 0.3, "eval_ndcg@5": 0.2, "eval_loss": 4.2},
        ],
        "kept": 60,
    }  # fmt: skip
