"""Quotes in tables of text: what encloses fields encloses them, what does not takes no rows, and is told."""

import csv
import logging
from pathlib import Path

import pandas as pd
import pytest

from mmm4rec_hf.data import load_interactions
from mmm4rec_hf.data.readers.delimited import read_table


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "titles",
    [
        ('"Best of', "plain", 'the rest"'),
        # What polars refuses to read as enclosed.
        ('"Weird" x', "plain", "plain"),
        ("plain", "plain", '"Best of'),
        ('"Heroes"', '"Best of', 'é"'),
    ],
)
def test_quotes_between_tabs_that_enclose_nothing_take_no_rows(
    tmp_path: Path, titles: tuple[str, ...], end: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.tsv"
    lines = ["user_id\titem_id\ttimestamp\ttitle", *(f"u{n}\ti{n}\t{n}00\t{title}" for n, title in enumerate(titles))]
    path.write_bytes("".join(line + end for line in lines).encode("latin-1"))
    loaded = load_interactions(path)
    assert loaded.frame.sort("order").collect("polars")["user_id"].to_list() == ["u0", "u1", "u2"]
    assert loaded.statistics["rows_read"] == 3
    assert "log.tsv: its quotes do not enclose fields, as each line is a row" in caplog.text
    assert read_table(path, "\t")["title"].to_list() == list(titles)


@pytest.mark.parametrize(
    "rows",
    [
        # All are enclosed, and one quote is missing.
        ['"u1"\t"i1"\t100\t"good"', '"u2"\t"i2"\t200\t"bad', '"u3"\t"i2"\t300\t"ok"'],
        # An id is enclosed where it must be.
        ['u1\t"7"" disk"\t100\tgood', 'u2\ti2\t200\t"bad', 'u3\t"7"" disk"\t300\tok'],
    ],
)
def test_ids_that_a_program_has_quoted_never_keep_their_quotes(tmp_path: Path, rows: list[str]) -> None:
    path = tmp_path / "log.tsv"
    path.write_text("\n".join(["user_id\titem_id\ttimestamp\treview", *rows, ""]))
    with pytest.raises(ValueError, match=r"log.tsv cannot be read as text of columns: .*bad"):
        load_interactions(path)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC, csv.QUOTE_ALL])
@pytest.mark.parametrize("separator", ["\t", ","])
def test_fields_that_a_program_has_quoted_are_read_as_they_were(
    tmp_path: Path, separator: str, quoting: int, caplog: pytest.LogCaptureFixture
) -> None:
    titles = ["a\tb, c", 'say "hi"', '"', "two\nlines", "three\r\nlines\n", 'it "ends', "plain"]
    table = pd.DataFrame({"user_id": "u", "item_id": list("abcdefg"), "timestamp": range(7), "title": titles})
    path = tmp_path / ("log.tsv" if separator == "\t" else "log.csv")
    table.to_csv(path, sep=separator, index=False, quoting=quoting)
    with caplog.at_level(logging.INFO):
        assert read_table(path, separator)["title"].to_list() == titles
        assert not [record for record in caplog.records if record.levelno > logging.INFO]
        loaded = load_interactions(path)
    assert loaded.frame.sort("order").collect("polars")["item_id"].to_list() == list("abcdefg")
    warned = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    # One line of the first title that has two, and two of the next one.
    assert len(warned) == 1 and "3 lines lie inside quoted fields" in warned[0]


def test_lines_that_a_quote_takes_in_a_csv_file_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log.csv"
    titles = ("plain", '"Best of', "plain", "plain", 'the rest"', "plain")
    rows = [f"u{n},i{n},{n}00,{title}\n" for n, title in enumerate(titles)]
    path.write_text("user_id,item_id,timestamp,title\n" + "".join(rows))
    assert load_interactions(path).statistics["rows_read"] == 3
    assert "log.csv: 3 lines lie inside quoted fields, and are no rows; if rows are missing" in caplog.text
    caplog.clear()
    path.write_text('user_id,item_id,timestamp,title\n\nu1,i1,100,"a, b"\n\nu2,i2,200,c\n')
    load_interactions(path)
    assert "inside quoted fields" not in caplog.text
    # The names of the columns take the first row.
    path.write_text('user_id,item_id,timestamp,"title\nu1,i1,100,a"\nu2,i2,200,c\n')
    load_interactions(path)
    assert "log.csv: 1 lines lie inside quoted fields" in caplog.text
