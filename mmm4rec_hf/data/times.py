"""A log's column of times as int64 unix seconds, by expressions that every engine runs.

The rules are those of `to_unix_time`, which reads one batch of values in Python; this reads whole logs. What a
clock finer than a second tells about the order inside a second is kept in a column of its own. A log without a column
of times is refused before, by `LogColumns.resolve` in `columns.py`; docs/faq.md says what can be done with one.
"""

import logging
import re
from collections.abc import Callable
from datetime import date
from numbers import Integral
from typing import Any

import narwhals as nw
import polars as pl

from mmm4rec_hf.modeling.timestamps_mmm4rec import TICKS_PER_SECOND, to_unix_seconds, unit_by_magnitude

from . import engines
from .columns import ORDER
from .time_formats import Fields, TimeFormat, guessed_formats

logger = logging.getLogger(__name__)

# At most 19 digits, and then no 9 before them: all of these fit int64.
NUMBER = r"^ *[+-]?[0-8]?[0-9]{1,18}([.][0-9]*)? *$"
NEARLY_NUMBER = r"\s*[+-]?[0-9][0-9.,]*([eE][+-]?[0-9]+)?\s*"
DATE_LIKE = r"\s*[0-9]{1,4}[.][0-9]{1,2}[.][0-9]{1,4}\s*"
DECIMALS = "[.]0*[1-9]"
ISO_8601 = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2})?([.,][0-9]{1,12})?( ?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?))?)?$"
)
BILLION = 10**9
SECONDS_A_YEAR = 31_556_952
_MISSING = "is missing; drop such rows or give them a time"
_UNREAL = "is no date or time of day that exists"
# No format reads both.
_OTHERS = ", while other rows are; write all times in one way"
# That so many days of the calendar have none above the 12th happens by chance to 2 logs in a thousand.
_DAYS_TO_DOUBT = 7


def with_unix_seconds(frame: nw.LazyFrame, time_unit: str | None, time_format: str | None = None) -> nw.LazyFrame:
    """The frame with its column `timestamp` as int64 unix seconds and, for a finer clock, a column `subsecond`.

    Args:
        frame (`nw.LazyFrame`): Has the columns `user_id`, `item_id`, `order`, and `timestamp` of any type that
            `to_unix_time` reads.
        time_unit (`str`, *optional*): The unit of numbers; by default told by their magnitude, with a warning.
        time_format (`str`, *optional*): How strings and numbers are written, as [`TimeFormat`] takes it.

    Returns:
        `nw.LazyFrame`: `timestamp` is rounded down; `subsecond` is what that took off, in nanoseconds. Numbers with
        decimals are counted and logged.

    Raises:
        ValueError: For missing or unreadable times, with the first one's value, user and item; for two units in one
            column.
        TypeError: For a column of another type.
    """
    if time_unit is not None and time_unit not in TICKS_PER_SECOND:
        raise ValueError(f"time_unit must be one of {', '.join(map(repr, TICKS_PER_SECOND))}, got {time_unit!r}")
    dtype = frame.collect_schema()["timestamp"]
    if time_format is not None:
        frame, dtype = _as_written(frame)
    if isinstance(dtype, nw.Categorical | nw.Enum | nw.Decimal):
        frame, dtype = frame.with_columns(nw.col("timestamp").cast(nw.String)), nw.String()
    if dtype == nw.String:
        text = nw.col("timestamp")
        _refuse(frame, text.is_null() | (text == ""), _MISSING)
        return _from_strings(frame, time_unit) if time_format is None else _from_format(frame, TimeFormat(time_format))
    _refuse(frame, nw.col("timestamp").is_null(), _MISSING)
    if dtype.is_integer():
        if dtype in (nw.UInt64, nw.Int128, nw.UInt128):
            _refuse(frame, nw.col("timestamp").cast(nw.Float64).abs() >= 2.0**63, "lies beyond int64")
        return _from_numbers(frame.with_columns(nw.col("timestamp").cast(nw.Int64)), time_unit)
    if dtype.is_float():
        return _from_floats(frame, time_unit)
    if engines.holds_nanoseconds(frame, "timestamp"):
        return _in_seconds(_finite(engines.with_epoch_nanoseconds(frame, "timestamp")), TICKS_PER_SECOND["ns"])
    if isinstance(dtype, nw.Datetime | nw.Date):
        return _in_seconds(_finite(engines.with_epoch_microseconds(frame, "timestamp")), TICKS_PER_SECOND["us"])
    raise TypeError(f"the timestamp column is of type {dtype}; expected numbers, ISO 8601 strings or datetimes")


def point_in_time(value: Any, time_unit: str | None, time_format: str | None) -> int:
    """Unix seconds of one point in time, such as the cut of a split.

    Args:
        value (`int`, `float`, `str` or `datetime`): As the log's times are, or else as `to_unix_time` reads it.
        time_unit (`str`, *optional*): The unit of the log's numbers, where it was told, and then of this one.
        time_format (`str`, *optional*): How the log's times are written, where it was told.

    Raises:
        ValueError: For what is no time.
        TypeError: For values of other types.
    """
    text = str(value).strip()
    if (
        time_format is not None
        and isinstance(value, str | Integral)
        and re.search(TimeFormat(time_format).pattern, text)
    ):
        told = TimeFormat(time_format)
        if not _reads(told, text):
            raise ValueError(f"{_UNREAL}, read by time_format={time_format!r}")
        one = nw.from_native(pl.LazyFrame({"timestamp": [text]}))
        return int(engines.one_row(one.select(seconds=_seconds(told.fields(nw.col("timestamp")))))["seconds"])
    try:
        return int(to_unix_seconds([value], time_unit)[0])
    except ValueError as error:
        ways = "a number or as 2016-01-31 14:05:00"
        if time_format is not None:
            ways += f", or written as time_format={time_format!r} says"
        raise ValueError(f"is no time that can be read; give it as {ways}") from error


def _finite(frame: nw.LazyFrame) -> nw.LazyFrame:
    """The frame, whose dates and times were none of them missing, unless one is DuckDB's `infinity`."""
    if frame.implementation is nw.Implementation.DUCKDB:
        _refuse(frame, nw.col("timestamp").is_null(), "is infinite; drop such rows or give them a time")
    return frame


def are_written(frame: nw.LazyFrame, time_format: str) -> bool:
    """Whether all times of a frame with a column `timestamp` are written so."""
    frame, dtype = _as_written(frame)
    if dtype != nw.String:
        return False
    is_so = nw.col("timestamp").str.strip_chars().str.contains(TimeFormat(time_format).pattern)
    return bool(engines.one_row(frame.select(n=is_so.cast(nw.Int64).min()))["n"])


def _as_written(frame: nw.LazyFrame) -> tuple[nw.LazyFrame, nw.dtypes.DType]:
    """The frame with whole numbers, such as 20181231, in digits, and the type of its times."""
    dtype, number = frame.collect_schema()["timestamp"], nw.col("timestamp")
    if dtype.is_float():
        _refuse(frame, number.is_nan(), _MISSING)
        _refuse(
            frame, number != number.round(), "has decimals, of which no time_format= tells; read the column as text"
        )
        frame, dtype = frame.with_columns(number.cast(nw.Int64)), nw.Int64()
    if dtype.is_integer():
        frame, dtype = frame.with_columns(number.cast(nw.String)), nw.String()
    return frame, dtype


def floor_divide(number: nw.Expr, divisor: int) -> nw.Expr:
    """`number // divisor` in int64, exact for results below 2**52.

    Spark's own division goes through floats, and is off by one at times for nanoseconds.
    """
    # Towards zero, and back by one below it: the multiple on the other side may lie beyond int64.
    below = (number < 0).cast(nw.Int64)
    multiple = number + below * divisor - floor_remainder(number, divisor)
    return (multiple / divisor).round().cast(nw.Int64) - below


def floor_remainder(number: nw.Expr, divisor: int) -> nw.Expr:
    """What [`floor_divide`] leaves, from 0 to below `divisor`; on DuckDB `%` has the sign of the number at times."""
    rest = number % divisor
    return rest + (rest < 0).cast(nw.Int64) * divisor


def _from_numbers(frame: nw.LazyFrame, time_unit: str | None) -> nw.LazyFrame:
    return _in_seconds(frame, _ticks(frame, time_unit))


def _ticks(frame: nw.LazyFrame, time_unit: str | None) -> int:
    """Units a second of the numbers in `timestamp`."""
    number = nw.col("timestamp")
    positive, negative = nw.when(number > 0).then(number), nw.when(number < 0).then(number)
    extremes = engines.one_row(
        frame.select(a=positive.min(), b=positive.max(), c=negative.min(), d=negative.max())
    ).values()
    known = sorted((int(value) for value in extremes if value is not None), key=abs)
    if time_unit is None:
        time_unit = unit_by_magnitude(known[0], known[-1]) if known else "s"
    elif known:
        _doubt(time_unit, known[-1])
    return TICKS_PER_SECOND[time_unit]


def _doubt(time_unit: str, largest: int) -> None:
    """Warns of a unit by which all events lie within a year of 1970, or some in another age."""
    year = 1970 + largest / TICKS_PER_SECOND[time_unit] / SECONDS_A_YEAR
    if not 1 <= abs(year - 1970) <= 1031:
        logger.warning(
            "by time_unit=%r the event that is furthest from 1970 lies in the year %d: is another unit meant?",
            *(time_unit, year),
        )


def _in_seconds(frame: nw.LazyFrame, ticks: int) -> nw.LazyFrame:
    number = nw.col("timestamp")
    if ticks == 1:
        return frame
    subsecond = floor_remainder(number, ticks) * (BILLION // ticks)
    return frame.with_columns(timestamp=floor_divide(number, ticks), subsecond=subsecond)


def _from_decimals(frame: nw.LazyFrame, time_unit: str | None) -> nw.LazyFrame:
    """As [`_from_numbers`], for numbers rounded down whose billionths, 0 to 999,999,999, stand in `rest`."""
    counts = engines.one_row(frame.select(n=(nw.col("rest") > 0).cast(nw.Int64).sum(), rows=nw.len()))
    if not counts["n"]:
        return _from_numbers(frame.drop("rest"), time_unit)
    logger.warning(
        "%d of %d timestamps have decimals; they are rounded down to whole seconds, and keep their order",
        *(counts["n"], counts["rows"]),
    )
    ticks = _ticks(frame, time_unit)
    frame = _in_seconds(frame, ticks)
    below = nw.lit(0, nw.Int64) if ticks == 1 else nw.col("subsecond")
    return frame.with_columns(subsecond=below + floor_divide(nw.col("rest"), ticks)).drop("rest")


def _from_floats(frame: nw.LazyFrame, time_unit: str | None) -> nw.LazyFrame:
    limit = 2.0**24 if frame.collect_schema()["timestamp"] == nw.Float32 else 2.0**53
    number = nw.col("timestamp").cast(nw.Float64)
    _refuse(frame, number.is_nan(), _MISSING)
    _refuse(frame, number.abs() >= limit, "is a float that may have lost digits; read the column as integers")
    # Rounding down out of rounding, which every engine has.
    whole = number.round() - (number.round() > number).cast(nw.Float64)
    rest = ((number - whole) * float(BILLION)).round().cast(nw.Int64)
    frame = frame.with_columns(timestamp=whole.cast(nw.Int64), rest=rest)
    # What is closer to the next unit than a billionth stays in its own.
    rest = nw.col("rest")
    return _from_decimals(
        frame.with_columns(rest=nw.when(rest < BILLION).then(rest).otherwise(nw.lit(BILLION - 1))), time_unit
    )


def _from_strings(frame: nw.LazyFrame, time_unit: str | None) -> nw.LazyFrame:
    text = nw.col("timestamp")
    is_number, is_iso = text.str.contains(NUMBER), text.str.contains(ISO_8601)
    known = is_number | is_iso
    _refuse(frame, ~known, lambda value: _why_no_time(value, any_alike=engines.count(frame.filter(known)) > 0))
    has_decimals = is_number & text.str.contains(DECIMALS)
    kinds = {"dates": is_iso, "decimals": has_decimals}
    has = engines.one_row(frame.select(**{name: kind.cast(nw.Int64).max() for name, kind in kinds.items()}))
    date_text = nw.when(is_iso).then(text).otherwise(nw.lit("1970-01-01"))
    if has["dates"]:
        is_real = _is_real(_iso_fields(date_text)) & (_offset_seconds(date_text).abs() < 86_400)
        _refuse(frame, ~is_real, lambda value: _UNREAL + _remedy(value))
        frame = frame.with_columns(text=date_text)
    number_text = nw.when(is_number).then(text.str.replace_all(" ", "")).otherwise(nw.lit("0"))
    if has["decimals"]:
        whole, rest = _whole_and_rest(number_text)
        numbers = _from_decimals(frame.with_columns(timestamp=whole, rest=rest), time_unit)
    else:
        whole = _integer(number_text.str.replace_all("[.]0*", ""))
        numbers = _from_numbers(frame.with_columns(timestamp=whole), time_unit)
    if not has["dates"]:
        return numbers
    if "subsecond" not in numbers.collect_schema().names():
        numbers = numbers.with_columns(subsecond=nw.lit(0, nw.Int64))
    date_text = nw.col("text")
    return numbers.with_columns(
        timestamp=nw.col("timestamp") + _seconds(_iso_fields(date_text)) - _offset_seconds(date_text),
        subsecond=nw.col("subsecond") + _billionths(date_text),
    ).drop("text")


def _from_format(frame: nw.LazyFrame, time_format: TimeFormat) -> nw.LazyFrame:
    text, told = nw.col("timestamp").str.strip_chars(), f"time_format={time_format.written!r}"

    def is_unreal(value: str) -> str:
        swapped, remedy = time_format.swapped, _remedy(value)
        if swapped is not None and _reads(swapped, value):
            remedy = f"; day and month may be swapped: give time_format={swapped.written!r}"
        return f"{_UNREAL}, read by {told}{remedy}"

    is_so = text.str.contains(time_format.pattern)

    def is_other(value: str) -> str:
        others = _OTHERS if engines.count(frame.filter(is_so)) else _remedy(value)
        return f"is not written as {told} says{others}"

    _refuse(frame, ~is_so, is_other)
    fields = time_format.fields(text)
    _refuse(frame, ~_is_real(fields), is_unreal)
    _doubt_order(frame, time_format, fields)
    below = time_format.billionths(text)
    return frame.with_columns(timestamp=_seconds(fields), **({} if below is None else {"subsecond": below}))


def _doubt_order(frame: nw.LazyFrame, time_format: TimeFormat, fields: Fields) -> None:
    """Warns of a format whose day and month could be swapped for all rows, which would then lie closer together."""
    swapped = time_format.swapped
    # Nobody writes the day between the year and the month.
    if swapped is None or time_format.written.strip().startswith(("%Y", "%y")):
        return
    year, month, day, *_ = fields
    # By far the cheapest question settles it for nearly every log.
    last = engines.one_row(frame.select(day=day.max()))["day"]
    if last is None or last > 12:
        return
    frame = frame.select(told=year * 372 + month * 31 + day, swapped=year * 372 + day * 31 + month)
    ends = {f"{end}_{name}": getattr(nw.col(name), end)() for name in ("told", "swapped") for end in ("min", "max")}
    found = engines.one_row(frame.select(days=nw.col("told").n_unique(), **ends))
    if found["days"] < _DAYS_TO_DOUBT:
        return
    # A log that begins and ends within the first days of a month has no day above 12 either, and is short as it is.
    span = {name: (_date(found[f"max_{name}"]) - _date(found[f"min_{name}"])).days + 1 for name in ("told", "swapped")}
    if span["swapped"] < span["told"]:
        logger.warning(
            "no day is above 12 by time_format=%r: with day and month swapped, time_format=%r, all times could be "
            "read too, and would lie within %d days in place of %d; give that if the order of events is wrong",
            *(time_format.written, swapped.written, span["swapped"], span["told"]),
        )


def _date(place: int) -> date:
    """Of a day's place in a calendar whose months all have 31 days, which is cheap to count in any engine."""
    months, day = divmod(place - 32, 31)
    return date(months // 12, months % 12 + 1, day + 1)


def _reads(time_format: TimeFormat, text: str) -> bool:
    """Whether a text is written so and is a time that exists."""
    column, one = nw.col("timestamp"), nw.from_native(pl.LazyFrame({"timestamp": [text.strip()]}))
    one = one.filter(column.str.contains(time_format.pattern))
    return engines.count(one) == 1 and engines.count(one.filter(_is_real(time_format.fields(column)))) == 1


def _remedy(text: str, otherwise: str = "") -> str:
    """To give the format by which a text is a time that exists, or what to say where that is not to be seen."""
    for alike in guessed_formats(text.strip()):
        fit = [repr(guess.written) for guess in alike if _reads(guess, text)]
        if fit:
            return f"; give time_format= how times are written, here {', or, with the month first, '.join(fit)}"
    return otherwise


def _whole_and_rest(text: nw.Expr) -> tuple[nw.Expr, nw.Expr]:
    """Numbers in decimals rounded down, and the billionths that were left: -1.25 is -2 and 750,000,000."""
    after = _billionths(text)
    borrow = (text.str.slice(0, 1) == "-") & text.str.contains(DECIMALS)
    whole = _integer(text.str.replace_all("[.].*$", "")) - borrow.cast(nw.Int64)
    least = nw.when(after > 0).then(after).otherwise(nw.lit(1))
    return whole, nw.when(borrow).then(BILLION - least).otherwise(after)


def _integer(text: nw.Expr) -> nw.Expr:
    return text.cast(nw.Int64)


def _clock_field(text: nw.Expr, start: int) -> nw.Expr:
    """Two digits of the time of day, or 0 where the string ends before them, or has an offset there."""
    digits = text.str.slice(start, 2)
    is_field = digits.str.contains("^[0-9]{2}$") & text.str.slice(start - 1, 1).str.contains("^[:Tt ]$")
    return _integer(nw.when(is_field).then(digits).otherwise(nw.lit("0")))


def _offset_seconds(text: nw.Expr) -> nw.Expr:
    # The date and the time of day go, and the colon of the offset: "Z", "+01", "+0130" or nothing is left.
    offset = text.str.replace_all(r"^.{10}([Tt ][0-9:]*([.,][0-9]*)? ?)?", "").str.replace_all(":", "")
    sign = nw.when(offset.str.slice(0, 1) == "-").then(nw.lit(-1)).otherwise(nw.lit(1))
    hours = nw.when(offset.str.contains("^[+-]")).then(offset.str.slice(1, 2)).otherwise(nw.lit("0"))
    minutes = nw.when(offset.str.contains("^[+-][0-9]{4}")).then(offset.str.slice(3, 2)).otherwise(nw.lit("0"))
    return sign * (_integer(hours) * 3600 + _integer(minutes) * 60)


def _iso_fields(text: nw.Expr) -> Fields:
    year, month, day = (_integer(text.str.slice(start, length)) for start, length in ((0, 4), (5, 2), (8, 2)))
    return Fields(year, month, day, *(_clock_field(text, start) for start in (11, 14, 17)))


def _is_real(fields: Fields) -> nw.Expr:
    year, month, day, hour, minute, second = fields
    leap = ((year % 4 == 0) & (year % 100 != 0)) | (year % 400 == 0)
    # Months of 31 and 30 days take turns, and start again in August.
    days = nw.when(month == 2).then(28 + leap.cast(nw.Int64)).otherwise(30 + (month + (month >= 8).cast(nw.Int64)) % 2)
    in_month = (month >= 1) & (month <= 12) & (day >= 1) & (day <= days)
    return (year >= 1) & in_month & (hour < 24) & (minute < 60) & (second < 60)


def _seconds(fields: Fields) -> nw.Expr:
    year, month, day, hour, minute, second = fields
    # Years that start in March put the leap day last, so that days before a month follow one formula.
    year = year - (month <= 2).cast(nw.Int64)
    month = (month + 9) % 12
    leap_days = floor_divide(year, 4) - floor_divide(year, 100) + floor_divide(year, 400)
    days = year * 365 + leap_days + floor_divide(month * 153 + 2, 5) + day - 1 - 719_468
    return days * 86_400 + hour * 3600 + minute * 60 + second


def _billionths(text: nw.Expr) -> nw.Expr:
    """Nine digits behind the decimal point, or comma, of a number or of a time of day."""
    fraction = text.str.replace_all("^[^.,]*[.,]?", "").str.replace_all("[^0-9].*$", "")
    return _integer(nw.concat_str([fraction, nw.lit("000000000")]).str.slice(0, 9))


def _why_no_time(text: str, any_alike: bool) -> str:
    """The reason to refuse a text, of a number how it is written, or its size; `any_alike`: other rows are times."""
    if re.fullmatch(NEARLY_NUMBER, text) and not re.fullmatch(DATE_LIKE, text):
        return "is neither a plain number below 9e18 nor an ISO 8601 time"
    if any_alike:
        return f"is neither a number nor an ISO 8601 time{_OTHERS}"
    otherwise = (
        "; give time_format= how times are written, such as '%d.%m.%Y %H:%M'" if re.search("[0-9]", text) else ""
    )
    return f"is neither a number nor an ISO 8601 time{_remedy(text, otherwise)}"


def _refuse(frame: nw.LazyFrame, wrong: nw.Expr, reason: str | Callable[[Any], str]) -> None:
    """Raise for the first row that an expression finds wrong."""
    names = ("user_id", "item_id", "timestamp")
    order = [name for name in ORDER if name in frame.collect_schema().names()]
    first = engines.in_order(frame.filter(wrong), *order).select(*names).head(1).collect("polars")
    if len(first):
        # Not the row's number, which is no line's: files have headers, and their rows an order of their own.
        user, item, value = first.row(0)
        why = reason if isinstance(reason, str) else reason(value)
        raise ValueError(f"timestamp {value!r} of user {user!r} and item {item!r} {why}")
