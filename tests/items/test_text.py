"""The text of an item."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest

from mmm4rec_hf.items.text import item_text


def test_the_published_template_names_title_brand_and_description():
    record = {"description": "Soft.", "brand": "Acme", "title": "Towel", "price": 3}
    assert item_text(record) == "Title: Towel ; Brand: Acme ; Description: Soft. ;"


def test_absent_fields_are_left_out():
    assert item_text({"title": "Towel", "brand": "", "description": None}) == "Title: Towel ;"


def test_other_fields_and_lists_are_written_in_the_order_asked_for():
    record = {"title": "Heat (1995)", "genres": ["Action", "Crime"], "main_category": "Film"}
    text = item_text(record, ("genres", "title", "main_category"))
    assert text == "Genres: Action, Crime ; Title: Heat (1995) ; Main category: Film ;"


@pytest.mark.parametrize("record", [{}, {"title": " \n"}, {"title": float("nan"), "brand": []}])
def test_an_item_without_any_text_has_none(record):
    assert item_text(record) is None


@pytest.mark.parametrize(
    "gap",
    [
        *(None, float("nan"), np.float32("nan"), np.datetime64("NaT"), decimal.Decimal("NaN"), pd.NA, pd.NaT),
        *([pd.NA, None], np.array([]), np.array([None, float("nan")], dtype=object), np.array(None, dtype=object)),
    ],
    ids=repr,
)
def test_a_gap_of_any_library_is_no_text(gap):
    assert item_text({"title": gap}) is None
    assert item_text({"title": ["Mug", gap, "Cup"], "brand": gap}) == "Title: Mug, Cup ;"


def test_values_that_are_false_are_no_gaps():
    record = {"title": 0, "brand": False, "description": datetime.date(1999, 1, 2)}
    assert item_text(record) == "Title: 0 ; Brand: False ; Description: 1999-01-02 ;"


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array(["Comedy", "Drama"], dtype=object), "Comedy, Drama"),
        (np.array(["Comedy", "Drama"]), "Comedy, Drama"),
        (np.array([np.array(["a", "b"]), ["c"]], dtype=object), "a, b, c"),
        (np.array([0.1, 2], dtype=np.float32), "0.1, 2.0"),
        (np.array(["1999-01-02"], dtype="datetime64[ns]").astype("datetime64[D]"), "1999-01-02"),
        (np.array("Mug"), "Mug"),
    ],
    ids=repr,
)
def test_arrays_are_written_as_lists_are(array, text):
    assert item_text({"title": array}) == f"Title: {text} ;"


def test_line_breaks_and_runs_of_spaces_become_one_space():
    assert item_text({"title": "a \n\t b"}) == "Title: a b ;"
