"""A run against its baselines in one sentence, with numbers known beforehand."""

import polars as pl
import pytest

from mmm4rec_hf.evaluation.evaluator import Evaluation
from mmm4rec_hf.evaluation.verdicts import against_best, deciding_metric, sentence, verdict, what_to_try


def evaluation_of(above: list[int], ks: tuple[int, ...] = (5, 10)) -> Evaluation:
    """Of as many users, whose targets have so many items above them."""
    users = [f"u{n}" for n in range(len(above))]
    targets = pl.DataFrame({"user_id": users, "item_id": users, "above": above, "level": [1] * len(above)})
    protocol = {"split": "test", "num_items": 200, "exclude_history": False, "score_padding_item": False}
    return Evaluation(targets, protocol | {"prepared": {}, "ks": list(ks)}, {})


def test_the_best_baseline_is_named_and_the_difference_judged() -> None:
    # The gain is 1 / log2(place + 1): 1 at the first place, 0.4307 at the fourth, 0.2891 at the tenth.
    first, fourth, tenth = (evaluation_of([above] * 20) for above in (0, 3, 9))
    assert against_best(first, {"popularity": tenth, "co-occurrence": fourth}) == (
        "NDCG@10 is 1.0000, that of the best baseline, co-occurrence, 0.4307: the difference of +0.5693 "
        "is more than chance, p < 0.001."
    )
    assert against_best(tenth, {"popularity": first, "co-occurrence": fourth}) == (
        "NDCG@10 is 0.2891, that of the best baseline, popularity, 1.0000: the difference of -0.7109 "
        "is more than chance, to the worse, p < 0.001."
    )
    # Half of the users win what the other half loses.
    told = against_best(evaluation_of([0, 9] * 10), {"popularity": evaluation_of([9, 0] * 10)})
    assert told is not None and "difference of +0.0000 (" in told and told.endswith("may be chance, p = 1.000.")
    assert against_best(first, {}) is None


def test_where_counting_is_not_beaten_the_options_that_count_are_named() -> None:
    first, fourth = evaluation_of([0] * 20), evaluation_of([3] * 20)
    off = {"use_cooccurrence": False, "use_item_bias": False}
    told = what_to_try(fourth, {"popularity": fourth, "co-occurrence": first}, off)
    assert told is not None and "model.use_cooccurrence=true model.use_item_bias=true" in told
    told = what_to_try(fourth, {"popularity": fourth}, off | {"use_item_bias": True})
    assert told is not None and told.count("=true") == 1 and "model.use_cooccurrence=true" in told
    assert what_to_try(fourth, {"popularity": first}, dict.fromkeys(off, True)) is None
    assert what_to_try(first, {"popularity": fourth}, off) is None
    assert what_to_try(fourth, {"popularity": fourth, "similar text": first}, off) is None
    assert what_to_try(fourth, {}, off) is None


def test_the_metric_is_ndcg_at_10_or_at_the_first_cut_off() -> None:
    assert deciding_metric(evaluation_of([0])) == "ndcg@10"
    assert deciding_metric(evaluation_of([0], ks=(3, 7))) == "ndcg@3"
    told = against_best(evaluation_of([0] * 20, ks=(3, 7)), {"popularity": evaluation_of([4] * 20, ks=(3, 7))})
    assert told is not None and told.startswith("NDCG@3 is 1.0000, that of the best baseline, popularity, 0.0000:")


@pytest.mark.parametrize(
    ("difference", "p", "words"),
    [
        (0.1, 0.05, "may be chance"),
        (0.1, 0.049, "better, by more than chance"),
        (-0.1, 0.0001, "worse, by more than chance"),
    ],
)
def test_words_go_by_p(difference: float, p: float, words: str) -> None:
    assert verdict(difference, p) == words


def test_another_run_is_told_alike() -> None:
    test = {"difference": -0.25, "low": -0.3, "high": -0.2, "p_value": 0.04}
    assert sentence("hr@5", 0.25, "other", 0.5, test) == (
        "HR@5 is 0.2500, that of other 0.5000: the difference of -0.2500 (-0.3000 to -0.2000) is more than chance, "
        "to the worse, p = 0.040."
    )
