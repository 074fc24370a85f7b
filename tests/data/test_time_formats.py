"""Times in a log's own writing, against Python's `strptime`, on every engine."""

import logging
import re
import warnings
from datetime import datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmm4rec_hf.data import load_interactions
from mmm4rec_hf.modeling.timestamps_mmm4rec import to_unix_seconds

FORMATS = [
    "%d.%m.%Y %H:%M",
    "%m/%d/%Y %I:%M %p",
    "%Y%m%d",
    "%Y%m%d%H%M%S",
    "%d-%b-%y",
    "%H:%M:%S [%d] ^%m^ \\%Y, 100%%",
    "%d%b%Y",
    "%m/%d/%Y %H:%M:%S.%f",
]


def log_of(times: Any) -> pl.DataFrame:
    """A log of these times, an item a user."""
    return pl.DataFrame(
        {"user_id": [f"u{n}" for n in range(len(times))], "item_id": ["a"] * len(times), "time": times}
    )


def seconds(log: Any, time_format: str | None) -> list[int]:
    frame = load_interactions(log, timestamp_column="time", time_format=time_format).frame
    return frame.sort("order").select("timestamp").collect("polars")["timestamp"].to_list()


@pytest.mark.parametrize("written", FORMATS)
@given(data=st.data())
@settings(max_examples=10)
def test_every_time_that_a_format_writes_is_read_as_strptime_reads_it(written: str, data: st.DataObject) -> None:
    # Two digits of a year are of 1969 to 2068.
    first, last = (datetime(1969, 1, 1), datetime(2068, 12, 31)) if "%y" in written else (datetime(1000, 1, 1), None)
    times = data.draw(st.lists(st.datetimes(first, last or datetime(9999, 12, 31)), min_size=1, max_size=20))
    texts = [time.strftime(written) for time in times]
    expected = [datetime.strptime(text, written).replace(tzinfo=timezone.utc) for text in texts]
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert seconds(log_of(texts), written) == [(time - epoch) // timedelta(seconds=1) for time in expected]


def test_zeros_in_front_may_lack_and_noon_is_12_pm() -> None:
    day = 1_543_622_400  # 1 December 2018, 00:00 UTC
    assert seconds(log_of(["1.12.2018 9:05", " 01.12.2018 09:05 "]), "%d.%m.%Y %H:%M") == [day + 9 * 3600 + 300] * 2
    clock = ["12/1/2018 12:00 AM", "12/1/2018 1:00 am", "12/1/2018 12:00 PM", "12/1/2018 11:59 pm"]
    assert seconds(log_of(clock), "%m/%d/%Y %I:%M %p") == [day, day + 3600, day + 43_200, day + 86_340]
    log = (
        load_interactions(
            log_of(["1.12.2018 0:00:07.25", "1.12.2018 0:00:07.000000003"]),
            timestamp_column="time",
            time_format="%d.%m.%Y %H:%M:%S.%f",
        )
        .frame.sort("order")
        .collect("polars")
    )
    assert log["timestamp"].to_list() == [day + 7] * 2 and log["subsecond"].to_list() == [250_000_000, 3]
    # Integers too, which without a format are seconds; dates of a type of their own need none.
    assert seconds(log_of([20181201, 20181202]), "%Y%m%d") == [day, day + 86_400]
    assert seconds(log_of([datetime(2018, 12, 1)]), "%d.%m.%Y") == [day]


@pytest.mark.parametrize(
    ("text", "written", "message"),
    [
        (
            "2018.12.31",
            "%d.%m.%Y",
            "'2018.12.31' of user 'u1' and item 'a' is not written as time_format='%d.%m.%Y' says",
        ),
        ("31.12.2018 10:00", "%d.%m.%Y", "is not written as"),
        ("31.12.2018", "%m.%d.%Y", r"is no date or time of day that exists, read by time_format='%m.%d.%Y'"),
        ("29.02.2019", "%d.%m.%Y", "is no date or time of day that exists"),
        ("1.1.2018 24:00", "%d.%m.%Y %H:%M", "is no date or time of day that exists"),
        ("1.1.2018 13:00 PM", "%d.%m.%Y %I:%M %p", "is no date or time of day that exists"),
        ("1.1.2018 0:00 AM", "%d.%m.%Y %I:%M %p", "is no date or time of day that exists"),
        ("", "%d.%m.%Y", "is missing"),
        (None, "%d.%m.%Y", "is missing"),
    ],
)
def test_times_that_a_format_does_not_fit_are_named(text: str | None, written: str, message: str) -> None:
    good = datetime(2018, 1, 1, 1).strftime(written)
    with pytest.raises(ValueError, match=message):
        seconds(log_of([good, text]), written)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("%d.%m.%Y %Z", "holds '%Z'; it is made of %Y, .*ISO 8601"),
        ("%d.%m.%Y %", "holds '%'"),
        ("%d.%d.%Y", "holds '%d' twice"),
        ("%d.%m", "holds no date"),
        ("%d.%m.%Y %y", "holds two years"),
        ("%d.%m.%Y %I:%M", "%I, hours from 1 to 12, goes with %p"),
        ("", "holds no date"),
    ],
)
def test_formats_that_say_no_time_are_refused(written: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seconds(log_of(["31.12.2018"]), written)


def test_a_time_of_unknown_writing_is_refused_with_the_remedy() -> None:
    for text in ("31.12.2018 10:00", "31.12.2018", "12/31/2018"):
        with pytest.raises(ValueError, match="nor an ISO 8601 time; give time_format= how times are written, here"):
            seconds(log_of([text]), None)


@pytest.mark.parametrize(
    ("text", "told", "message"),
    [
        (
            "26/01/2008 08:33:53 PM",
            "%m/%d/%Y %I:%M:%S %p",
            "read by time_format='%m/%d/%Y %I:%M:%S %p'; day and month may be swapped: give "
            "time_format='%d/%m/%Y %I:%M:%S %p'",
        ),
        ("20183112", "%Y%m%d", "day and month may be swapped: give time_format='%Y%d%m'"),
        ("99.12.31", "%d.%m.%y", "read by time_format='%d.%m.%y'; give time_format= how times are written, here '%y"),
        (
            "26/01/2008 08:33:53 PM",
            None,
            "nor an ISO 8601 time; give time_format= how times are written, here '%d/%m/%Y %I:%M:%S %p'",
        ),
        ("01/26/2008 8:33pm", None, "here '%m/%d/%Y %I:%M%p'"),
        ("1.2.2008 20:33", None, "here '%d.%m.%Y %H:%M', or, with the month first, '%m.%d.%Y %H:%M'"),
        ("1-2-08", None, "here '%d-%m-%y', or, with the month first, '%m-%d-%y'"),
        ("99/12/31 1:05", None, "here '%y/%m/%d %H:%M'"),
        ("2008/01/02 20:33:53.5", None, "here '%Y/%m/%d %H:%M:%S.%f'"),
        ("26-Jan-2008, 20:33", None, "here '%d-%b-%Y, %H:%M'"),
        (
            "2008-26-01",
            None,
            "is no date or time of day that exists; give time_format= how times are written, here '%Y-%d-%m'",
        ),
        (
            "26/01/2008",
            "%d.%m.%Y",
            "is not written as time_format='%d.%m.%Y' says; give time_format= how times are written, here '%d/%m/%Y'",
        ),
        ("on day 7", None, "nor an ISO 8601 time; give time_format= how times are written, such as '%d.%m.%Y %H:%M'"),
    ],
)
def test_the_format_that_reads_a_time_is_told(text: str, told: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        seconds(log_of([text]), told)


@pytest.mark.parametrize(
    ("told", "as_others"),
    [
        (None, "'26/01/2020 10:00' of user 'u1' and item 'b' is neither a number nor an ISO 8601 time"),
        (
            "%d/%m/%Y %H:%M",
            "'2020-01-05 10:00' of user 'u0' and item 'a' is not written as time_format='%d/%m/%Y %H:%M' says",
        ),
    ],
)
def test_no_format_is_told_for_a_log_of_two_writings(told: str | None, as_others: str) -> None:
    log = pl.DataFrame(
        {"user_id": ["u0", "u1"], "item_id": ["a", "b"], "time": ["2020-01-05 10:00", "26/01/2020 10:00"]}
    )
    with pytest.raises(
        ValueError, match=rf"{re.escape(as_others)}, while other rows are; write all times in one way$"
    ):
        seconds(log, told)


@pytest.mark.parametrize(("text", "told"), [("31.02.2019", "%d.%m.%Y"), ("1.1.2018 24:00", "%d.%m.%Y %H:%M")])
def test_of_a_time_that_no_format_reads_none_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"read by time_format='{told}'$"):
        seconds(log_of([text]), told)


def test_a_log_that_reads_as_well_with_day_and_month_swapped_is_doubted(
    caplog: pytest.LogCaptureFixture, spark: Any
) -> None:
    import duckdb

    # The first week of February 2018; with the month first it is the 2nd of January to July, 182 days.
    week = [f"{day:02}/02/2018 {day}:00" for day in range(1, 8)]
    told = (
        "no day is above 12 by time_format='%m/%d/%Y %H:%M': with day and month swapped, "
        "time_format='%d/%m/%Y %H:%M', all times could be read too, and would lie within 7 days in place of 182; give "
        "that if the order of events is wrong"
    )
    log = log_of(week)
    for frame in (log, duckdb.sql("select * from log"), spark.createDataFrame(log.rows(), log.columns)):
        caplog.clear()
        first, second, *_ = seconds(frame, "%m/%d/%Y %H:%M")
        assert (first, second) == (1_514_854_800, 1_517_536_800)  # 2 January 1:00, 2 February 2:00
        assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [told]
    caplog.clear()
    # Read as it is, and too few days, or one that only one order reads.
    seconds(log, "%d/%m/%Y %H:%M")
    seconds(log_of(week[:6]), "%m/%d/%Y %H:%M")
    seconds(log_of([*week, "02/13/2018 1:00"]), "%m/%d/%Y %H:%M")
    seconds(log_of([f"{day:02}-Feb-2018" for day in range(1, 8)]), "%d-%b-%Y")
    # By the month, as nobody writes the day between the year and the month.
    seconds(log_of([f"2018{month:02}01" for month in range(1, 13)]), "%Y%m%d")
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_dates_without_separators_are_not_taken_for_seconds_in_silence() -> None:
    for times in ([20190102, 20181201], ["20190102", "20181201"]):
        with pytest.warns(
            UserWarning, match="look like dates, and are read as seconds of 1970; write dates as 2018-12-31"
        ):
            assert seconds(log_of(times), None) == [20190102, 20181201]
        with pytest.warns(UserWarning, match="look like dates"):
            assert to_unix_seconds(times).tolist() == [20190102, 20181201]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seconds(log_of([20190102, 20181201]), "%Y%m%d") == [1_546_387_200, 1_543_622_400]
        assert seconds(log_of([20190102.0, 20181201.0]), "%Y%m%d") == [1_546_387_200, 1_543_622_400]
        assert seconds(log_of([20190102, 1_543_622_400]), None) == [20190102, 1_543_622_400]
        assert to_unix_seconds([20190102], "s").tolist() == [20190102]
    with pytest.raises(ValueError, match="20190102.5 of user 'u0' and item 'a' has decimals"):
        seconds(log_of([20190102.5]), "%Y%m%d")


def test_what_is_told_counts_though_times_look_like_iso_8601() -> None:
    # 5 June and 7 January.
    assert seconds(log_of(["2018-05-06", "2018-07-01"]), "%Y-%d-%m") == [1_528_156_800, 1_515_283_200]
    with pytest.raises(ValueError, match="is not written as time_format='%d.%m.%Y' says"):
        seconds(log_of(["2018-12-01"]), "%d.%m.%Y")


def test_a_usual_format_counts_where_all_times_are_written_so() -> None:
    day, usual = 1_543_622_400, {"time_format": "%d.%m.%Y"}

    def read(times: list[Any], **told: str) -> list[int]:
        log = load_interactions(log_of(times), timestamp_column="time", usual_columns=usual, **told)
        return log.frame.sort("order").select("timestamp").collect("polars")["timestamp"].to_list()

    assert read(["01.12.2018", "2.12.2018"]) == [day, day + 86_400]
    assert read(["2018-12-01", "2018-12-02T00:00:01Z"]) == [day, day + 86_401]
    assert read([day, day + 1]) == read([str(day), str(day + 1)]) == [day, day + 1]
    assert read([datetime(2018, 12, 1)]) == [day]
    assert read(["12/01/2018"], time_format="%m/%d/%Y") == [day]
    assert read([1000 * day], time_unit="ms") == [day]
    with pytest.raises(ValueError, match="'01.12.2018' .* neither"):
        read(["2018-12-01", "01.12.2018"])


@pytest.mark.parametrize("written", FORMATS)
def test_engines_agree(written: str, spark: Any) -> None:
    import duckdb

    times = [datetime(2018, 12, 31, 23, 59, 58), datetime(2000, 2, 29, 0, 0, 1), datetime(2031, 1, 1, 12, 30)]
    log = log_of([time.strftime(written) for time in times])
    expected = [
        int(datetime.strptime(text, written).replace(tzinfo=timezone.utc).timestamp())
        for text in log["time"].to_list()
    ]
    assert seconds(log, written) == expected
    assert seconds(log.to_pandas(), written) == expected
    assert seconds(log.to_arrow(), written) == expected
    assert seconds(duckdb.sql("select * from log order by user_id"), written) == expected
    assert seconds(spark.createDataFrame(log.rows(), log.columns), written) == expected
