import math
import warnings
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmm4rec_hf import MMM4RecProcessor
from mmm4rec_hf.data import load_interactions, prepare_sequences
from mmm4rec_hf.data.times import with_unix_seconds
from mmm4rec_hf.modeling.timestamps_mmm4rec import to_unix_seconds, to_unix_time, unit_by_magnitude

# 2013-12-22 00:00:00 UTC, in every form.
SOLSTICE = 1387670400
FORMS: list[Any] = [
    SOLSTICE,
    float(SOLSTICE),
    "1387670400",
    "1387670400.0",
    "2013-12-22",
    "2013-12-22T00:00:00Z",
    "2013-12-22 01:00:00+01:00",
    "2013-12-22T01:00+01",
    "2013-12-21T20:30:00.999-0330",
    datetime(2013, 12, 22),
    datetime(2013, 12, 22, 2, tzinfo=timezone(timedelta(hours=2))),
    date(2013, 12, 22),
    np.datetime64("2013-12-22"),
    pd.Timestamp("2013-12-22"),
    pd.Timestamp("2013-12-22 09:00", tz="Asia/Tokyo"),
]


def log_of(times: Any) -> nw.LazyFrame:
    """A log of these times, in its own columns, before they are read."""
    ids = {"user_id": ["u"] * len(times), "item_id": ["a"] * len(times), "order": range(len(times))}
    return nw.from_native(pl.LazyFrame({"timestamp": times, **ids}))


@pytest.mark.parametrize("value", FORMS, ids=repr)
def test_every_form_of_a_time_gives_the_same_second(value: Any) -> None:
    seconds = to_unix_seconds([value, value])
    assert seconds.dtype == np.int64
    assert seconds.tolist() == [SOLSTICE, SOLSTICE]


@pytest.mark.parametrize(("unit", "factor"), [("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_finer_units_are_told_by_magnitude_with_one_warning(unit: str, factor: int) -> None:
    with pytest.warns(UserWarning, match=f"'{unit}'") as caught:
        assert to_unix_seconds([SOLSTICE * factor, (SOLSTICE + 30) * factor + factor - 1]).tolist() == [
            SOLSTICE,
            SOLSTICE + 30,
        ]
    assert len(caught) == 1
    assert to_unix_seconds([SOLSTICE * factor], time_unit=unit).tolist() == [SOLSTICE]
    assert to_unix_seconds(np.array([SOLSTICE * factor]), time_unit=unit).tolist() == [SOLSTICE]


def test_a_stated_unit_overrides_the_magnitude() -> None:
    assert to_unix_seconds([10**12], time_unit="s").tolist() == [10**12]
    assert to_unix_seconds([1999], time_unit="ms").tolist() == [1]


def test_nanoseconds_keep_their_last_digit() -> None:
    # As a float 1387670400999999999 would be the next second.
    assert to_unix_seconds([1387670400999999999], time_unit="ns").tolist() == [SOLSTICE]
    assert to_unix_seconds([-1], time_unit="ns").tolist() == [-1]


def test_an_array_gives_whole_seconds_and_the_nanoseconds_after_them() -> None:
    seconds, rest = to_unix_time(np.array([1387670400123, -1]), "ms")
    assert seconds.dtype == rest.dtype == np.int64
    assert (seconds.tolist(), rest.tolist()) == ([SOLSTICE, -1], [123_000_000, 999_000_000])


@pytest.mark.filterwarnings("ignore:timestamps with decimals")
def test_the_smallest_decimals_are_the_last_nanosecond_before_0_and_0() -> None:
    seconds, rest = to_unix_time([Decimal("-1e-30"), Decimal("1e-30")])
    assert (seconds.tolist(), rest.tolist()) == ([-1, 0], [999_999_999, 0])
    # A double would round this up to a whole second.
    seconds, rest = to_unix_time([Decimal("0.99999999999999999999")])
    assert (seconds.tolist(), rest.tolist()) == ([0], [999_999_999])


def test_two_units_in_one_column_are_refused_with_both_values() -> None:
    with pytest.raises(ValueError, match=r"1387670400 reads as 's', 1387670400000 as 'ms'"):
        to_unix_seconds([SOLSTICE, SOLSTICE * 1000])
    # A 0 says nothing of the unit.
    for kind in (list, np.array):
        with pytest.raises(ValueError, match=r"1387670400 reads as 's', 1387670400000 as 'ms'"):
            to_unix_seconds(kind([0, SOLSTICE, SOLSTICE * 1000]))
        with pytest.raises(ValueError, match=r"-1387670400 reads as 's', -1387670400000 as 'ms'"):
            to_unix_seconds(kind([0, -SOLSTICE, -SOLSTICE * 1000]))


def test_a_unit_is_that_of_numbers_and_not_of_dates() -> None:
    assert (
        to_unix_seconds([date(2013, 12, 22), datetime(2013, 12, 22), SOLSTICE * 1000], "ms").tolist() == [SOLSTICE] * 3
    )


def test_a_double_is_trusted_with_53_bits_and_no_more() -> None:
    most = np.float64(2**53 - 1)
    assert to_unix_seconds([most, float(most)], "us").tolist() == [(2**53 - 1) // 10**6] * 2
    for refused in (np.float64(2**53), float(2**53)):
        with pytest.raises(ValueError, match=r"may have lost digits \(2\*\*53 and above\)"):
            to_unix_seconds([refused], "us")


def test_zero_is_a_time_in_every_unit() -> None:
    with pytest.warns(UserWarning, match="'ms'"):
        assert to_unix_seconds([0, SOLSTICE * 1000]).tolist() == [0, SOLSTICE]


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NaT, np.datetime64("NaT"), "", " "], ids=repr)
def test_a_missing_time_is_refused_with_its_row(missing: Any) -> None:
    with pytest.raises(ValueError, match="row 1 is missing"):
        to_unix_seconds([SOLSTICE, missing])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("inf"), "no finite number"),
        ("1e500", "beyond int64"),
        (2.0**53, "lost digits"),
        ("yesterday", "neither a number nor an ISO 8601 time"),
        ("2013-02-30", "neither a number nor an ISO 8601 time"),
        ("1" * 5000, "neither a number nor an ISO 8601 time"),
        (10**40, "beyond int64"),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.filterwarnings("ignore:timestamps of")
def test_what_is_no_time_is_refused_with_its_row(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match="row 0") as caught:
        to_unix_seconds([value])
    assert reason in str(caught.value)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.filterwarnings("ignore:timestamps of")
def test_numbers_of_thousands_of_digits_are_refused_with_their_row(sign: int) -> None:
    # Python itself writes no integer of more than 4,300 digits.
    for value, shown in ((sign * 10**5000, f"{sign}.000e"), (Decimal(f"{sign}e5000"), f"{sign}E")):
        with pytest.raises(ValueError, match=rf"timestamp {shown}\+5000 in row 1 lies beyond int64"):
            to_unix_seconds([SOLSTICE, value])


def test_the_first_and_the_last_nanosecond_of_int64_are_read() -> None:
    first, last = -(2**63) * 10**9, 2**63 * 10**9 - 1
    seconds, rest = to_unix_time([first, last], "ns")
    assert (seconds.tolist(), rest.tolist()) == ([-(2**63), 2**63 - 1], [0, 10**9 - 1])
    for beyond in (first - 1, last + 1):
        with pytest.raises(ValueError, match=r"timestamp -?9\.223e\+27 in row 1 lies beyond int64"):
            to_unix_seconds([0, beyond], "ns")


def test_whole_numbers_in_text_have_no_rest() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seconds, rest = to_unix_time(["7", " -8 ", "+9"], "s")
    assert (seconds.tolist(), rest.tolist()) == ([7, -8, 9], [0, 0, 0])


def test_unsigned_numbers_beyond_int64_are_read() -> None:
    seconds, rest = to_unix_time(np.array([2**63, 2**64 - 1], np.uint64), "ns")
    assert (seconds.tolist(), rest.tolist()) == ([9_223_372_036, 18_446_744_073], [854_775_808, 709_551_615])


@pytest.mark.parametrize(
    ("least", "most"),
    [("s", "ms"), ("s", "us"), ("s", "ns"), ("ms", "us"), ("ms", "ns"), ("us", "ns")],
)
def test_times_of_two_units_are_refused(least: str, most: str) -> None:
    ticks = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    with pytest.raises(ValueError, match=rf"in two units: .* reads as '{least}', .* as '{most}'"):
        unit_by_magnitude(SOLSTICE * ticks[least], SOLSTICE * ticks[most])


def test_a_warning_names_the_line_that_asked() -> None:
    for ask, arguments, warned in (
        (to_unix_time, ([0.5],), "decimals"),
        (unit_by_magnitude, (20131222, 20131223), "look like dates"),
        (unit_by_magnitude, (SOLSTICE * 1000, SOLSTICE * 1000), "read as 'ms'"),
    ):
        with pytest.warns(UserWarning, match=warned) as caught:
            ask(*arguments)
        assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("first", "last", "are_dates"),
    [(19000101, 21001231, True), (19000100, 21001231, False), (19000101, 21001232, False)],
)
def test_numbers_of_eight_digits_look_like_dates_from_1900_to_2100(first: int, last: int, are_dates: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert unit_by_magnitude(first, last) == "s"
    assert ["look like dates" in str(warning.message) for warning in caught] == [True] * are_dates


@pytest.mark.parametrize("value", [True, [1], b"1", object()], ids=lambda value: type(value).__name__)
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="row 0"):
        to_unix_seconds([value])


def test_one_value_without_a_list_is_refused() -> None:
    with pytest.raises(TypeError, match="into a list"):
        to_unix_seconds("2013-12-22")
    with pytest.raises(ValueError, match="time_unit must be one of"):
        to_unix_seconds([1], time_unit="m")


moments = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30))
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.lists(moments, min_size=1, max_size=5), offsets, st.sampled_from(["T", " "]))
def test_the_columns_expressions_agree_with_the_reading_of_single_strings(
    values: list[datetime], offset: timezone, separator: str
) -> None:
    texts = [value.replace(tzinfo=offset).isoformat(separator) for value in values]
    frame = log_of(texts)
    column = with_unix_seconds(frame, None).collect()
    expected = [
        (value.replace(tzinfo=offset) - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(seconds=1)
        for value in values
    ]
    assert column["timestamp"].to_list() == expected
    assert column["subsecond"].to_list() == [value.microsecond * 1000 for value in values]
    assert to_unix_seconds(texts).tolist() == expected


# Seconds up to 2**52, a hundred million years; of nanoseconds, all that int64 holds.
@given(
    st.one_of(
        st.tuples(st.integers(-(2**61), 2**61), st.sampled_from([("ms", 10**3), ("us", 10**6)])),
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.just(("ns", 10**9))),
    )
)
@example((-(2**63), ("ns", 10**9)))
def test_seconds_and_what_they_leave_make_up_the_number(drawn: tuple[int, tuple[str, int]]) -> None:
    number, unit = drawn
    frame = log_of([number])
    row = with_unix_seconds(frame, unit[0]).collect()
    seconds, subsecond = row["timestamp"].item(), row["subsecond"].item()
    assert seconds * 10**9 + subsecond == number * (10**9 // unit[1])
    assert 0 <= subsecond < 10**9
    assert to_unix_seconds([number], time_unit=unit[0]).tolist() == [seconds]


@pytest.mark.filterwarnings("ignore:timestamps with decimals")
@given(st.text(alphabet="0123456789-+:. TtZzé", max_size=30))
def test_a_string_of_a_column_is_read_as_a_single_one_or_refused(text: str) -> None:
    frame = log_of([text])
    try:
        column = with_unix_seconds(frame, "s").collect()["timestamp"].to_list()
    except ValueError:
        return
    assert to_unix_seconds([text], time_unit="s").tolist() == column


# A number with decimals, in seconds; its seconds rounded down, and the nanoseconds that were left.
DECIMALS = [
    ("1387670400.25", SOLSTICE, 250_000_000),
    ("-1.25", -2, 750_000_000),
    ("-0.5", -1, 500_000_000),
    ("+3.", 3, 0),
    ("7.000", 7, 0),
    ("1387670400.123456789123", SOLSTICE, 123_456_789),
    ("-1.0000000000001", -2, 999_999_999),
]


@pytest.mark.filterwarnings("ignore:timestamps with decimals")
@pytest.mark.parametrize(("text", "seconds", "nanoseconds"), DECIMALS)
def test_decimals_are_rounded_down_and_what_is_left_is_kept(text: str, seconds: int, nanoseconds: int) -> None:
    assert [part.tolist() for part in to_unix_time([text])] == [[seconds], [nanoseconds]]
    assert [part.tolist() for part in to_unix_time([Decimal(text)])] == [[seconds], [nanoseconds]]
    frame = log_of([text, "0.5"])
    column = with_unix_seconds(frame, None).collect()
    assert column.select("timestamp", "subsecond").rows() == [(seconds, nanoseconds), (0, 500_000_000)]


def test_decimals_of_finer_units_are_rounded_down_too() -> None:
    with pytest.warns(UserWarning, match="decimals are rounded down"):
        assert [part.tolist() for part in to_unix_time([1387670400123.5], "ms")] == [[SOLSTICE], [123_500_000]]
    frame = log_of([1387670400123.5, -0.5])
    column = with_unix_seconds(frame, "ms").collect()
    assert column.select("timestamp", "subsecond").rows() == [(SOLSTICE, 123_500_000), (-1, 999_500_000)]


@pytest.mark.filterwarnings("ignore:timestamps with decimals")
@given(st.lists(st.floats(-(2.0**52), 2.0**52), min_size=1, max_size=4))
def test_floats_are_rounded_down_in_columns_and_alone(values: list[float]) -> None:
    expected = [math.floor(value) for value in values]
    assert to_unix_seconds(values, time_unit="s").tolist() == expected
    frame = log_of(values)
    column = with_unix_seconds(frame, "s").collect()
    assert column["timestamp"].to_list() == expected
    if "subsecond" in column.columns:
        left = [(value - floor) * 1e9 for value, floor in zip(values, expected, strict=True)]
        assert column["subsecond"].to_list() == pytest.approx(left, abs=1)
        assert column["subsecond"].min() >= 0 and column["subsecond"].max() < 10**9


def test_decimals_are_counted_and_keep_the_order_of_one_second(caplog: pytest.LogCaptureFixture) -> None:
    log = pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["c", "b", "a"], "timestamp": [10.75, 10.5, 9.0]})
    prepared = prepare_sequences(load_interactions(log), k_core=0)
    assert prepared.item_ids == ["a", "b", "c"] and prepared.events["item"][:] == [1, 2, 3]
    assert prepared.events["timestamp"][:] == [9, 10, 10]
    assert "2 of 3 timestamps have decimals" in caplog.text
    processor = MMM4RecProcessor()
    processor.set_items(SimpleNamespace(item_ids=["a", "b", "c"], titles=[None] * 3))
    with pytest.warns(UserWarning, match="decimals"):
        batch = processor(histories=[{"items": ["c", "b", "a"], "timestamps": [10.75, 10.5, 9.0]}])
    assert batch["input_ids"].tolist() == [[1, 2, 3]] and batch["timestamps"].tolist() == [[9, 10, 10]]


@pytest.mark.parametrize(
    "value",
    [
        np.datetime64("1969-12-31T23:59:59.5"),
        "1969-12-31T23:59:59.5Z",
        datetime(1969, 12, 31, 23, 59, 59, 500000),
        pd.Timestamp("1969-12-31T23:59:59.5"),
    ],
    ids=repr,
)
def test_what_is_left_of_a_second_is_the_same_in_every_form(value: Any) -> None:
    assert [part.tolist() for part in to_unix_time([value])] == [[-1], [500_000_000]]


def test_times_in_float32_are_refused_for_the_seconds_they_lost() -> None:
    stored = np.array([SOLSTICE + 30], dtype=np.float32)
    assert int(stored[0]) != SOLSTICE + 30
    with pytest.raises(ValueError, match="lost digits"):
        to_unix_seconds(stored)
    frame = log_of(stored)
    with pytest.raises(ValueError, match="lost digits"):
        with_unix_seconds(frame, None)


UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def seconds_of(column: Any, **options: Any) -> list[int]:
    """A log's times in its own order; the column is of any library."""
    ids = {"user_id": ["u"] * len(column), "item_id": [f"i{n}" for n in range(len(column))]}
    log: Any
    if isinstance(column, pa.Array):
        log = pa.table({**ids, "timestamp": column})
    elif isinstance(column, pl.Series):
        log = pl.DataFrame(ids).with_columns(timestamp=column)
    else:
        log = pd.DataFrame(ids).assign(timestamp=column)
    return load_interactions(log, **options).frame.sort("order").collect("polars")["timestamp"].to_list()


@pytest.mark.filterwarnings("ignore:timestamps of")
@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_in_every_type_of_column_gives_the_same_seconds(unit: str) -> None:
    # Before 1970 as well, where rounding goes the other way.
    expected = [-SOLSTICE, SOLSTICE, SOLSTICE + 30]
    numbers = [second * UNITS[unit] for second in expected]
    columns: list[Any] = [
        pl.Series(numbers),
        pl.Series(list(map(str, numbers))),
        pl.Series([f"{number}.0" for number in numbers]),
        pl.Series(list(map(str, numbers)), dtype=pl.Categorical),
        pl.Series(list(map(Decimal, numbers))),
        pd.Series(numbers),
        pd.Series(numbers, dtype="Int64"),
        pd.Series(numbers, dtype=object),
        pd.Series(list(map(str, numbers)), dtype="category"),
        pa.array(numbers),
        pa.array(map(str, numbers), pa.large_string()),
        pa.array(numbers, pa.timestamp(unit)),
        pa.array(numbers, pa.timestamp(unit, "Asia/Tokyo")),
        pd.Series(np.array(numbers, dtype=f"datetime64[{unit}]")),
        pd.Series(np.array(numbers, dtype=f"datetime64[{unit}]")).dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
        pd.Series([np.datetime64(number, unit) for number in numbers], dtype=object),
    ]
    if unit != "s":
        columns += [pl.Series(numbers).cast(pl.Datetime(unit, zone)) for zone in (None, "America/New_York")]
    if unit != "ns":  # as floats, nanoseconds have lost digits
        columns += [pl.Series(list(map(float, numbers))), pd.Series(numbers, dtype="float64")]
    for column in columns:
        assert seconds_of(column) == expected, (type(column), column)
    for alone in (numbers, list(map(str, numbers)), np.array(numbers), np.array(numbers, dtype=f"datetime64[{unit}]")):
        assert to_unix_seconds(alone).tolist() == expected


def test_text_and_dates_of_every_library_give_the_same_seconds() -> None:
    texts = ["2013-12-22", "2013-12-22T00:00:00Z", "2013-12-22 09:00:00+09:00", "2013-12-21T19:30-0430"]
    for column in (pl.Series(texts), pd.Series(texts), pd.Series(texts, dtype="category"), pa.array(texts)):
        assert seconds_of(column) == [SOLSTICE] * 4
    day = date(2013, 12, 22)
    for column in (pl.Series([day]), pd.Series([day]), pa.array([day]), pa.array([day], pa.date64())):
        assert seconds_of(column) == [SOLSTICE]


@pytest.mark.filterwarnings("ignore:timestamps of")
@pytest.mark.parametrize(
    ("number", "seconds"),
    [
        (10**11 - 1, 10**11 - 1),
        (10**11, 10**8),
        (10**14 - 1, 10**11 - 1),
        (10**14, 10**8),
        (10**17 - 1, 10**11 - 1),
        (10**17, 10**8),
        (-(10**11) + 1, -(10**11) + 1),
        (-(10**11), -(10**8)),
        (-(10**14) + 1, -(10**11)),
        (-(10**17) + 1, -(10**11)),
        (2**63 - 1, 9223372036),
        (-(2**63), -9223372037),
        (0, 0),
        (-1, -1),
    ],
)
def test_the_unit_changes_where_it_is_said_to(number: int, seconds: int) -> None:
    assert to_unix_seconds([number]).tolist() == [seconds]
    assert to_unix_seconds(np.array([number])).tolist() == [seconds]
    assert seconds_of(pl.Series([number])) == [seconds]
    if abs(number) < 9 * 10**18:
        assert seconds_of(pl.Series([str(number)])) == [seconds]


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        (pl.Series([2**64 - 1], dtype=pl.UInt64), ValueError, "18446744073709551615 .* lies beyond int64"),
        (pl.Series(["9223372036854775808"]), ValueError, "neither a plain number below 9e18"),
        (pl.Series(["1.38767E+09"]), ValueError, "neither a plain number below 9e18"),
        (
            pl.Series(["2024-01-01", "yesterday"]),
            ValueError,
            "'yesterday' of user 'u' .* is neither a number nor an ISO 8601",
        ),
        (pl.Series(["01/02/2024"]), ValueError, "'01/02/2024' .* is neither a number nor an ISO 8601 time"),
        (pl.Series([1.3876704e18]), ValueError, "may have lost digits"),
        (pl.Series([timedelta(1)]), TypeError, "Duration"),
        (pl.Series([True]), TypeError, "Boolean"),
        (pl.Series([[1]]), TypeError, "List"),
        (pd.Series([SOLSTICE, pd.NaT], dtype="datetime64[ns]"), ValueError, "item 'i1' is missing"),
        (pd.Series([1, None], dtype="Int64"), ValueError, "item 'i1' is missing"),
    ],
    ids=str,
)
def test_columns_that_hold_no_times_are_refused(column: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        seconds_of(column)


def test_the_last_seconds_of_int64_are_read_and_those_beyond_are_refused() -> None:
    ends = [-(2**63), 2**63 - 1]
    assert to_unix_seconds(ends, "s").tolist() == ends
    for row, beyond in enumerate((-(2**63) - 1, 2**63)):
        with pytest.raises(ValueError, match=f"timestamp {beyond} in row {row} lies beyond int64; check the column"):
            to_unix_seconds([0] * row + [beyond], "s")


@pytest.mark.parametrize(
    "numbers", [[1, 10**12], [-1, 10**12], [-(10**12), 1, 10**12], [-(10**12), -1, 10**12]], ids=str
)
def test_one_number_of_another_unit_is_found_on_either_side_of_zero(numbers: list[int]) -> None:
    for column in (numbers, np.array(numbers)):
        with pytest.raises(ValueError, match="timestamps in two units"):
            to_unix_seconds(column)


def test_decimals_are_numbers_of_the_columns_unit() -> None:
    with pytest.warns(UserWarning, match="rounded down"):
        seconds, nanoseconds = to_unix_time([Decimal("1300000000000.5"), "-1300000000000.5"], "ms")
    # Half a millisecond after, and half a millisecond before.
    assert seconds.tolist() == [1_300_000_000, -1_300_000_001] and nanoseconds.tolist() == [500_000, 999_500_000]


def test_dates_have_no_unit() -> None:
    seconds, nanoseconds = to_unix_time([np.datetime64("2010-01-01T00:00:00.000000007")], "ms")
    assert seconds.tolist() == [1_262_304_000] and nanoseconds.tolist() == [7]


def test_a_zero_is_zero_however_it_is_written() -> None:
    seconds, nanoseconds = to_unix_time(["0e-30", Decimal("0E-30"), "0.0"])
    assert seconds.tolist() == nanoseconds.tolist() == [0, 0, 0]


def test_floats_are_taken_as_far_as_their_type_is_exact() -> None:
    for kind, first in ((np.float16, 2**11), (np.float32, 2**24), (np.float64, 2**53)):
        assert to_unix_seconds([kind(first - 1)], "s").tolist() == [first - 1]
        with pytest.raises(ValueError, match="may have lost digits"):
            to_unix_seconds([kind(first)], "s")


@pytest.mark.parametrize("year", [1960, 2020])
def test_nanoseconds_of_pandas_are_kept(year: int) -> None:
    stamp = pd.Timestamp(f"{year}-09-13 12:26:40.123456789")
    for value in (stamp, stamp.tz_localize("UTC")):
        seconds, nanoseconds = to_unix_time([value])
        assert seconds.tolist() == [int(datetime(year, 9, 13, 12, 26, 40, tzinfo=timezone.utc).timestamp())]
        assert nanoseconds.tolist() == [123_456_789]


def test_parts_of_a_nanosecond_are_rounded_down() -> None:
    with pytest.warns(UserWarning, match="rounded down"):
        assert to_unix_time(["1600000000123456789.999999999"], "ns")[1].tolist() == [123_456_789]
