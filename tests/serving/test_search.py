"""Titles by words."""

from mmm4rec_hf.serving.search import TitleSearch

TITLES = ["Star Wars", "A Star Is Born", None, "Crème BRÛLÉE", "wars of the STARS"]
SEARCH = TitleSearch(["50", "51", "x-52", "53", "54"], TITLES)


def test_every_word_must_be_there_in_any_order_case_and_accent() -> None:
    assert SEARCH.find("star", 1, 10).rows == [0, 1, 4]
    assert SEARCH.find("WARS star", 1, 10).rows == [0, 4]
    assert SEARCH.find("creme brulee", 1, 10).rows == [3]
    assert SEARCH.find("Brûlée", 1, 10).rows == [3]
    assert SEARCH.find("star creme", 1, 10).rows == []


def test_an_id_is_found_where_there_is_no_title() -> None:
    assert SEARCH.find("X-5", 1, 10).rows == [2]


def test_a_word_is_not_found_across_title_and_id() -> None:
    assert TitleSearch(["50"], ["Star"]).find("star50", 1, 10).total == 0


def test_pages_have_the_catalogues_order_and_the_last_one_stands_for_later_ones() -> None:
    assert [SEARCH.find("", page, 2).rows for page in (1, 2, 3)] == [[0, 1], [2, 3], [4]]
    beyond = SEARCH.find("", 99, 2)
    assert (beyond.rows, beyond.page, beyond.pages, beyond.total) == ([4], 3, 3, 5)
    nothing = SEARCH.find("nowhere", 5, 2)
    assert (nothing.rows, nothing.page, nothing.pages, nothing.total) == ([], 1, 1, 0)
