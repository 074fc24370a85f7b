"""Recommendations: never the padding item, never a masked one, fewer when there are fewer, scores that add up."""

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import pipeline

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.data.cooccurrence import near_items
from mmm4rec_hf.modeling import cache_mmm4rec, pipeline_mmm4rec, retrieval_mmm4rec
from mmm4rec_hf.modeling.pipeline_mmm4rec import in_batches

from .conftest import IDS, T, history

Model = Callable[..., MMM4RecForSequentialRecommendation]
Catalog = Callable[..., SimpleNamespace]


def test_the_ranking_is_that_of_the_logits_without_history_and_padding(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    got = recommend(history("0", "3"), top_k=10)
    inputs = recommend.processor(histories=[history("0", "3")], return_tensors="pt")
    with torch.no_grad():
        logits = recommend.model(**inputs).logits[0]
    expected = sorted((row for row in (2, 3, 5, 6)), key=lambda row: -logits[row].item())
    assert [entry["item_id"] for entry in got] == [IDS[row - 1] for row in expected]
    for entry, row in zip(got, expected, strict=True):
        assert entry["score"] == pytest.approx(logits[row].item(), abs=1e-5)
        assert entry["text_score"] + entry["image_score"] == entry["score"]
        assert entry["title"] == f"Title {entry['item_id']}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_ranks_by_its_own_logits(
    make_pipeline: Callable[..., Any], dtype: torch.dtype
) -> None:
    recommend = make_pipeline()
    recommend.model.to(dtype)
    histories = [history("0", "3"), history("5"), history("1", "2", "4")]
    found = recommend(histories, top_k=6, exclude_history=False)
    with torch.no_grad():
        logits = recommend.model(**recommend.processor(histories=histories, return_tensors="pt")).logits
    for entries, scores in zip(found, logits, strict=True):
        rows = [IDS.index(entry["item_id"]) + 1 for entry in entries]
        assert rows == scores[1:].argsort(descending=True).add(1).tolist()
        for entry, row in zip(entries, rows, strict=True):
            assert entry["score"] == pytest.approx(scores[row].item(), abs=1e-3)
            assert entry["text_score"] + entry["image_score"] == entry["score"]


def test_a_model_that_the_pipeline_loads_takes_the_precision_that_is_asked_for(
    make_pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    recommend = make_pipeline()
    recommend.save_pretrained(tmp_path)
    half = pipeline("sequential-recommendation", model=str(tmp_path), dtype=torch.bfloat16, device="cpu")
    assert half.model.dtype == torch.bfloat16
    (one, *_), (other, *_) = recommend(history("0", "3"), top_k=6), half(history("0", "3"), top_k=6)
    assert other["score"] == pytest.approx(one["score"], rel=0.05)


def test_published_scoring_never_returns_the_padding_item_either(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline(score_padding_item=True, time_mode="published")
    assert {entry["item_id"] for entry in recommend(history("0"), top_k=10)} == set(IDS) - {"0"}


def test_fewer_are_returned_when_there_are_fewer(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline(ids=["0", "1", "2"])
    assert recommend(history("0", "1", "2"), top_k=10) == []
    assert len(recommend(history("0", "1", "2"), top_k=10, exclude_history=False)) == 3
    assert [entry["item_id"] for entry in recommend(history("1", "2"), top_k=10)] == ["0"]


def test_the_whole_history_is_left_out_not_only_what_the_model_reads(make_pipeline: Callable[..., Any]) -> None:
    ids = [str(n) for n in range(12)]
    recommend = make_pipeline(ids=ids)
    got = recommend(history(*ids[:11]), top_k=12)
    assert [entry["item_id"] for entry in got] == ["11"]


def test_an_item_that_training_never_saw_is_skipped_until_it_is_added(
    make_pipeline: Callable[..., Any], tiny_catalog: Catalog
) -> None:
    recommend = make_pipeline(ids=["1", "2", "3"])
    known = recommend(history("1"), top_k=10)
    assert recommend(history("1", "99"), top_k=10) == known
    with pytest.raises(ValueError, match="'99' is not in the catalogue of 3 items"):
        recommend(history("1", "99"), unknown_items="error")
    for part in (recommend.model, recommend.processor):
        part.set_items(tiny_catalog(["1", "2", "3", "99"]))
    assert {entry["item_id"] for entry in recommend(history("1"), top_k=10)} == {"2", "3", "99"}
    assert {entry["item_id"] for entry in recommend(history("1", "99"), top_k=10)} == {"2", "3"}


def test_one_of_two_users_has_no_history(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    histories = [history(), history("1")]
    with pytest.raises(ValueError, match="history 0 holds no known item"):
        recommend(histories)
    without, one = recommend(histories, empty_histories="default", top_k=10)
    assert {entry["item_id"] for entry in without} == set(IDS)
    assert [entry["item_id"] for entry in one] == [entry["item_id"] for entry in recommend(history("1"), top_k=10)]


def test_candidates_are_the_only_items_returned(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    got = recommend(history("0"), candidates=["2", "0", 5, "unheard of"], top_k=10)
    assert {entry["item_id"] for entry in got} == {"2", "5"}
    with pytest.raises(ValueError, match="unheard of"):
        recommend(history("0"), candidates=["unheard of"], unknown_items="error")


def test_a_list_gives_one_answer_a_history_whatever_the_batch(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    histories = [history("0"), history("1", "2", "3"), history("4", 5)]
    together = recommend(histories, top_k=3, exclude_history=False)
    for number, single in enumerate(histories):
        for size in (1, 2):
            other = recommend(histories, top_k=3, exclude_history=False, batch_size=size)[number]
            assert [e["item_id"] for e in other] == [e["item_id"] for e in together[number]]
        alone = recommend(single, top_k=3, exclude_history=False)
        assert [e["item_id"] for e in alone] == [e["item_id"] for e in together[number]]
        assert [e["score"] for e in alone] == pytest.approx([e["score"] for e in together[number]], abs=1e-5)
    assert recommend([], top_k=3) == []
    assert len(recommend(iter(histories))) == 3


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mode", ["masked", "log"])  # only the second knows days from seconds
def test_a_history_without_times_is_read_as_a_day_apart(
    make_pipeline: Callable[..., Any], side: str, mode: str
) -> None:
    recommend = make_pipeline(time_mode=mode)
    recommend.processor.history_padding_side = side
    untimed = [{"items": ["0"]}, {"items": ["1", "2", "3"]}]
    days = ["2020-02-28", "2020-02-29", "2020-03-01"]
    timed = [{**one, "timestamps": days[: len(one["items"])]} for one in untimed]
    for found, expected in zip(recommend(untimed, top_k=3), recommend(timed, top_k=3), strict=True):
        assert [entry["item_id"] for entry in found] == [entry["item_id"] for entry in expected]
        assert [entry["score"] for entry in found] == pytest.approx([entry["score"] for entry in expected], abs=1e-5)
    uneven = {"items": ["1", "2", "3"], "timestamps": ["2020-02-28", "2020-02-29", "2020-06-01"]}
    assert recommend(uneven, top_k=3)[0]["score"] != pytest.approx(
        recommend(untimed[1], top_k=3)[0]["score"], abs=1e-5
    )


def test_recommending_switches_dropout_off_and_back(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    recommend.model.train()
    assert recommend(history("0")) == recommend(history("0"))
    assert recommend.model.training


def test_parts_that_were_training_come_back_as_they_were(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    expected = recommend(history("0"))
    recommend.model.model.encoder.train()
    training = {name: module.training for name, module in recommend.model.named_modules()}
    assert recommend(history("0")) == expected
    assert {name: module.training for name, module in recommend.model.named_modules()} == training
    with pytest.raises(ValueError, match="top_k"):
        recommend(history("0"), top_k=0)
    assert {name: module.training for name, module in recommend.model.named_modules()} == training


def test_what_was_kept_for_recommendations_can_take_part_in_a_training(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    recommend(history("0"))
    weight = torch.ones(16, requires_grad=True)
    (recommend.model.item_vectors() * weight).sum().backward()
    torch.testing.assert_close(weight.grad, recommend.model.item_vectors().sum(0))


def test_a_call_looks_once_whether_weights_have_changed(
    make_pipeline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recommend = make_pipeline()
    looked, look = [], cache_mmm4rec._fingerprint
    monkeypatch.setattr(cache_mmm4rec, "_fingerprint", lambda *args: looked.append(look(*args)) or looked[-1])
    before = recommend([history("0"), history("1", "2")])
    assert len(looked) == 1
    with torch.no_grad():
        recommend.model.model.image_projection.weight.neg_()
    assert recommend([history("0"), history("1", "2")]) != before
    assert len(looked) == 2


def test_candidates_hold_for_every_batch_and_may_be_given_one_by_one(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    histories = [history("0"), history("1", "2"), history("3")]
    found = recommend(histories, batch_size=1, candidates=(name for name in ["4", "5"]))
    assert [sorted(entry["item_id"] for entry in entries) for entries in found] == [["4", "5"]] * 3


def test_users_without_events_and_bad_numbers(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    with pytest.raises(ValueError, match="no known item"):
        recommend(history("99"))
    assert len(recommend(history(), empty_histories="default", top_k=2)) == 2
    with pytest.raises(ValueError, match="top_k.*0"):
        recommend(history("0"), top_k=0)


def test_a_model_and_a_processor_of_different_items_are_refused(lively_model: Model, tiny_catalog: Catalog) -> None:
    model, processor = lively_model(), MMM4RecProcessor()
    for first, second in ((["a", "b"], ["b", "a"]), (["b", "a"], ["a", "b"])):
        model.set_items(tiny_catalog(first))
        processor.set_items(tiny_catalog(second))
        with pytest.raises(ValueError, match="different items"):
            pipeline("sequential-recommendation", model=model, processor=processor, device="cpu")


def test_of_a_model_that_knows_no_ids_the_number_of_items_is_compared(
    make_pipeline: Callable[..., Any],
    tiny_catalog: Catalog,
    lively_model: Model,
    tiny_config: Callable[..., MMM4RecConfig],
    tmp_path: Path,
) -> None:
    make_pipeline().save_pretrained(tmp_path)
    (tmp_path / "item_ids.json").unlink()
    expected = make_pipeline()(history("0", "3"), top_k=2)
    found = pipeline("sequential-recommendation", model=str(tmp_path), device="cpu")(history("0", "3"), top_k=2)
    assert [entry["item_id"] for entry in found] == [entry["item_id"] for entry in expected]
    lines = (tmp_path / "items.jsonl").read_text().splitlines()
    for changed in (lines[:-1], [*lines, '{"item_id": "more", "title": null}']):
        (tmp_path / "items.jsonl").write_text("\n".join(changed))
        with pytest.raises(ValueError, match=rf"different items \(6 and {len(changed)}, or in another order\)"):
            pipeline("sequential-recommendation", model=str(tmp_path), device="cpu")
    # A base model has no items yet, and a processor may be given them later.
    processor = MMM4RecProcessor()
    pipeline("sequential-recommendation", model=lively_model(), processor=processor, device="cpu")
    processor.set_items(tiny_catalog(["a", "b"]))
    base = MMM4RecForSequentialRecommendation(tiny_config())
    pipeline("sequential-recommendation", model=base, processor=processor, device="cpu").set_items(tiny_catalog(IDS))


@pytest.mark.parametrize("is_saved", [False, True])
def test_a_processor_of_a_shorter_length_takes_no_event_from_the_model(
    lively_model: Model, tiny_catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture, is_saved: bool
) -> None:
    model, processor = lively_model(), MMM4RecProcessor(max_sequence_length=7)
    for part in (model, processor):
        part.set_items(tiny_catalog(IDS))
        part.save_pretrained(tmp_path)
    parts: dict[str, Any] = {"model": str(tmp_path)} if is_saved else {"model": model, "processor": processor}
    recommend = pipeline("sequential-recommendation", device="cpu", **parts)
    told = [record.getMessage() for record in caplog.records if "the processor kept" in record.getMessage()]
    assert len(told) == 1 and "the last 7 events of a history, the model reads 8" in told[0]
    rows, stamps = torch.tensor([[1, 4, 4, 4, 4, 4, 4, 4]]), torch.arange(1, 9)[None] * 10**6
    with torch.no_grad():
        whole = model(input_ids=rows, timestamps=stamps).logits[0]
        short = model(input_ids=rows[:, 1:], timestamps=stamps[:, 1:]).logits[0]
    assert (whole - short).abs().max() > 1e-2, "the first event must matter"
    events = {"items": [IDS[row - 1] for row in rows[0].tolist()], "timestamps": stamps[0].tolist()}
    answers = recommend(events, exclude_history=False)
    assert len(answers) == len(IDS)
    for answer in answers:
        assert answer["score"] == pytest.approx(whole[IDS.index(answer["item_id"]) + 1].item(), abs=1e-4)


@pytest.mark.parametrize("length", [8, 9])
def test_a_processor_that_keeps_enough_events_stays_as_it_is(
    lively_model: Model, tiny_catalog: Catalog, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    model, processor = lively_model(), MMM4RecProcessor(max_sequence_length=length)
    for part in (model, processor):
        part.set_items(tiny_catalog(IDS))
    pipeline("sequential-recommendation", model=model, processor=processor, device="cpu")
    assert processor.max_sequence_length == length
    assert not any("the processor kept" in record.getMessage() for record in caplog.records)


def test_options_given_at_the_start_hold_for_every_call(lively_model: Model, tiny_catalog: Catalog) -> None:
    model, processor = lively_model(), MMM4RecProcessor()
    for part in (model, processor):
        part.set_items(tiny_catalog(IDS))
    recommend = pipeline("sequential-recommendation", model=model, processor=processor, device="cpu", top_k=2)
    assert len(recommend(history("0"))) == 2 and len(recommend(history("0"), top_k=3)) == 3


@pytest.mark.parametrize("weight", [0.8, -0.8])
@pytest.mark.parametrize("way", ["all", "blocks", "index", "candidates"])
def test_near_items_take_part_in_the_ranking_whatever_finds_the_items(
    make_pipeline: Callable[..., Any], way: str, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [str(number) for number in range(40)]
    recommend = make_pipeline(ids, use_cooccurrence=True, cooccurrence_context=2)
    draw = torch.Generator().manual_seed(0)
    log = torch.randint(1, 41, (6, 9), generator=draw).tolist()
    rows = [{"input_ids": line[:place], "labels": line[place]} for line in log for place in range(1, len(line))]
    recommend.model.set_cooccurrence(*near_items(rows, 40))
    with torch.no_grad():
        recommend.model.cooccurrence.weight.fill_(weight)
        recommend.model.cooccurrence.log_scale.fill_(1.0)
    if way == "blocks":
        monkeypatch.setattr(retrieval_mmm4rec, "_FEW_SCORES", 0)
    if way == "index":
        recommend.use_index(SimpleNamespace(search=lambda users, k: torch.arange(1, 41).expand(len(users), 40)))
    candidates = ids[5:30] if way == "candidates" else None
    histories = [history(*(str(item - 1) for item in line[:5])) for line in log]
    inputs = recommend.processor(histories=histories, return_tensors="pt")
    with torch.no_grad():
        logits = recommend.model(**inputs).logits
    found = recommend(histories, top_k=7, candidates=candidates)
    for line, entries, scores in zip(log, found, logits, strict=True):
        allowed = range(6, 31) if candidates else range(1, 41)
        expected = sorted((row for row in allowed if row not in line[:5]), key=lambda row: -scores[row].item())[:7]
        assert [entry["item_id"] for entry in entries] == [ids[row - 1] for row in expected]
        for entry, row in zip(entries, expected, strict=True):
            assert entry["score"] == pytest.approx(scores[row].item(), abs=1e-5)
            parts = entry["text_score"], entry["image_score"], entry["cooccurrence_score"]
            assert entry["score"] == sum(parts)


def test_an_index_is_asked_for_as_many_more_as_a_history_takes_away(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline([f"i{n}" for n in range(40)])
    best = [entry["item_id"] for entry in recommend(history("i0"), top_k=39)]
    seen = history(*best[:7])
    expected = recommend(seen, top_k=3)
    asked: list[int] = []

    class Index:
        """The exact order of this one history."""

        def search(self, users: torch.Tensor, k: int) -> torch.Tensor:
            asked.append(k)
            with torch.no_grad():
                everything = recommend.model.kept_items()[0]
                return (users @ everything[1:].T).topk(k).indices + 1

    recommend.use_index(Index())
    assert recommend(seen, top_k=3) == expected
    assert asked == [2 * 3 + 7]
    # No more than there are.
    assert len(recommend(seen, top_k=40)) == 33 and asked[1:] == [40]


def test_an_index_is_asked_for_no_more_than_there_is_and_may_find_the_padding_item(
    make_pipeline: Callable[..., Any],
) -> None:
    recommend = make_pipeline([f"i{n}" for n in range(5)])
    histories = [history("i0"), history("i1", "i2", "i3")]
    expected = recommend(histories, top_k=5)
    asked: list[int] = []

    class Index:
        """All items there are, the padding item first."""

        def search(self, users: torch.Tensor, k: int) -> torch.Tensor:
            asked.append(k)
            return torch.arange(6).expand(len(users), 6)

    recommend.use_index(Index())
    found = recommend(histories, top_k=5)
    for one, other in zip(found, expected, strict=True):
        assert [entry["item_id"] for entry in one] == [entry["item_id"] for entry in other]
    assert [len(one) for one in found] == [4, 2] and asked == [5]


@pytest.mark.parametrize("few_scores", [retrieval_mmm4rec._FEW_SCORES, 0])
@pytest.mark.parametrize("broken", ["weight", "item"])
def test_a_model_of_nan_recommends_nothing(
    make_pipeline: Callable[..., Any], broken: str, few_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval_mmm4rec, "_FEW_SCORES", few_scores)
    recommend = make_pipeline()
    with torch.no_grad():
        if broken == "weight":
            recommend.model.model.encoder.layers[0].ssd.out_proj.weight[0, 0] = torch.nan
        else:
            recommend.model.items.text_features[4, 0] = torch.nan
    with pytest.raises(ValueError, match="scores hold NaN"):
        recommend(history("0"), top_k=2)


@pytest.mark.parametrize(("size", "sizes"), [(1, [1] * 700), (300, [300, 300, 100]), (350, [350, 350]), (701, [700])])
def test_batches_have_so_many_histories_and_read_no_more(size: int, sizes: list[int]) -> None:
    read: list[int] = []
    batches = in_batches((read.append(number) or number for number in range(700)), size)
    assert next(batches) == list(range(sizes[0])) == read
    assert [len(batch) for batch in batches] == sizes[1:] and read == list(range(700))


def test_a_pipeline_travels_without_its_lock(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    other = pickle.loads(pickle.dumps(recommend))
    history = {"items": ["1", "2"], "timestamps": [10, 20]}
    assert other(history) == recommend(history)


def test_vectors_of_another_number_are_searched_anew(make_pipeline: Callable[..., Any]) -> None:
    recommend, vectors = make_pipeline(), torch.randn(10, 4)
    # All begin at the same address, as those of a catalogue that takes another's place may.
    found = [len(recommend._exact_search(vectors[:count]).vectors) for count in (5, 9, 5)]
    assert found == [4, 8, 4]
    kept = recommend._exact_search(vectors[:5])
    assert recommend._exact_search(vectors[:5]) is kept
    for others in (torch.randn(5, 4), vectors[:5], vectors[5:], vectors[:5]):  # at lower and higher addresses
        assert torch.equal(recommend._exact_search(others).vectors, others[1:])


def test_numbers_of_many_items_are_compared_as_numbers(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    recommend.model._item_ids = None
    recommend.processor.set_items(SimpleNamespace(item_ids=range(1, 1001), titles=[None] * 1000))
    recommend.model.config.num_items = 10 * 100
    recommend._check_same_items()
    recommend.model.config.num_items = 999
    with pytest.raises(ValueError, match=r"different items \(999 and 1000"):
        recommend._check_same_items()


@pytest.mark.parametrize(
    ("given", "own", "expected"), [(None, None, 256), (3, None, 3), (None, 2, 2), (3, 2, 3)], ids=str
)
def test_as_many_at_once_as_the_call_says_or_else_the_pipeline(
    make_pipeline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, given: int, own: int, expected: int
) -> None:
    recommend, sizes = make_pipeline(), []
    recommend._batch_size = own
    monkeypatch.setattr(recommend, "_recommend", lambda batch, *_: sizes.append(len(batch)) or batch)
    recommend([history("1")] * 300, batch_size=given)
    assert sizes[0] == expected and sum(sizes) == 300


def test_events_without_times_are_warned_of_and_users_without_events_are_not(
    make_pipeline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recommend, told = make_pipeline(), []
    monkeypatch.setattr(pipeline_mmm4rec.logger, "warning_once", told.append)
    recommend({"items": []}, empty_histories="default")
    assert not told
    recommend({"items": ["1"]})
    assert told == ["histories without timestamps are read as events a day apart, oldest first"]


@pytest.mark.parametrize("candidates", [[], ["unknown"]])
def test_without_candidates_nothing_is_recommended(make_pipeline: Callable[..., Any], candidates: list[str]) -> None:
    assert make_pipeline()([history("1"), history("2")], candidates=candidates) == [[], []]


def test_times_that_are_not_given_begin_at_the_first_event(make_pipeline: Callable[..., Any]) -> None:
    inputs = make_pipeline().preprocess([{"items": ["1", "2", "3"]}, {"items": ["4"]}])
    assert inputs["timestamps"].tolist() == [[0, 86_400, 172_800], [0, 0, 0]]


def test_ten_items_are_given_or_as_many_as_are_asked_for(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline([f"i{n}" for n in range(15)])
    found = recommend({"items": ["i0"], "timestamps": [T]})
    assert len(found) == 10 and recommend({"items": ["i0"], "timestamps": [T]}, top_k=1) == found[:1]


def test_an_index_leaves_each_user_out_what_he_has_seen_alone(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    histories = [history("1", "2", "3", "5"), history("4"), history("0", "2")]
    expected = recommend(histories, top_k=6)
    recommend.use_index(SimpleNamespace(search=lambda users, k: torch.arange(1, k + 1).expand(len(users), k)))
    found = recommend(histories, top_k=6)
    for own, all_items, seen in zip(found, expected, ({"1", "2", "3", "5"}, {"4"}, {"0", "2"}), strict=True):
        assert [entry["item_id"] for entry in own] == [entry["item_id"] for entry in all_items]
        assert {entry["item_id"] for entry in own} == set(IDS) - seen
