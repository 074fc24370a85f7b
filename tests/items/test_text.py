"""The text of an item."""

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


def test_line_breaks_and_runs_of_spaces_become_one_space():
    assert item_text({"title": "a \n\t b"}) == "Title: a b ;"
