"""Points in time, in whatever form a log or a request holds them, as int64 unix seconds."""

import re
import warnings
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np

TICKS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# The least magnitude that is read as each unit. 1e11 seconds is the year 5138, 1e11 milliseconds is March 1973.
LEAST_MAGNITUDE = {"s": 0, "ms": 10**11, "us": 10**14, "ns": 10**17}

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_INT64 = np.iinfo(np.int64)
_FIRST_DATE, _LAST_DATE = 1900_01_01, 2100_12_31  # written without separators
_BILLION = 10**9
_BEYOND = 2**63 * _BILLION  # the first number that no unit brings into int64
# The longest int64 has 19 digits; int() refuses thousands of them with an error that names no row.
_INTEGER = re.compile(r"[+-]?\d{1,40}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?\d{1,40}(\.\d*)?([eE][+-]?\d{1,3})?", re.ASCII)
_ISO_8601 = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2})(:\d{2})?(?:[.,](\d{1,12}))?(?: ?(?:[Zz]|([+-]\d{2})(?::?(\d{2}))?))?)?",
    re.ASCII,
)


def to_unix_seconds(values: Iterable[Any], time_unit: str | None = None) -> np.ndarray:
    """Unix seconds of a column or batch of points in time: the first of what [`to_unix_time`] returns."""
    return to_unix_time(values, time_unit)[0]


def to_unix_time(values: Iterable[Any], time_unit: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Unix seconds, and what is left of each, of a column or batch of points in time, by integer arithmetic alone.

    Args:
        values (`Iterable`, shape `[n]`): Integers; floats of full precision (float64 below 2**53), whose decimals are
            rounded down with a warning; strings, of digits or in ISO 8601 form, with `Z` or an offset or neither;
            `datetime`, `date`, `numpy.datetime64` or `pandas.Timestamp`. Dates without an offset are UTC.
        time_unit (`str`, *optional*): `"s"`, `"ms"`, `"us"` or `"ns"`, the unit of the numbers. By default one unit is
            read off the magnitude of all numbers together, with a warning where it is not seconds.

    Returns:
        `tuple(np.ndarray)`, each of shape `[n]`, int64: Seconds since 1970-01-01 UTC, rounded down, and the
        nanoseconds from there on, which order the events of one second.

    Raises:
        ValueError: For a missing value, a float that may have lost digits, a string that is no time, numbers of two
            magnitudes, a time beyond int64. The message names the value and its row, counted from 0.
        TypeError: For values of any other type.
    """
    if time_unit is not None and time_unit not in TICKS_PER_SECOND:
        raise ValueError(f"time_unit must be one of {', '.join(map(repr, TICKS_PER_SECOND))}, got {time_unit!r}")
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise TypeError(f"timestamps must be a sequence, got {values!r}; a single one goes into a list")
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        return _datetime64_to_time(values)
    if isinstance(values, np.ndarray) and values.dtype.kind == "i":
        numbers = values.astype(np.int64)
        ticks = TICKS_PER_SECOND[time_unit or _unit_of(numbers)]
        return numbers // ticks, numbers % ticks * (_BILLION // ticks)

    parsed = [_parse(value, row) for row, value in enumerate(values)]
    ticks = TICKS_PER_SECOND[time_unit or _unit_of([whole for whole, _, is_number in parsed if is_number])]
    times = [
        (whole // ticks, whole % ticks * (_BILLION // ticks) + rest // ticks) if is_number else (whole, rest)
        for whole, rest, is_number in parsed
    ]
    for row, (seconds, _) in enumerate(times):
        if not _INT64.min <= seconds <= _INT64.max:
            raise ValueError(f"timestamp {parsed[row][0]} in row {row} lies beyond int64; check the column")
    if any(rest for _, rest, is_number in parsed if is_number):
        warnings.warn(
            "timestamps with decimals are rounded down to whole seconds; events of one second keep their order",
            stacklevel=2,
        )
    pairs = np.array(times, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def unit_by_magnitude(smallest: int, largest: int) -> str:
    """The unit in which all numbers of a column can be read, given two of them.

    Args:
        smallest (`int`): The number closest to 0 that is not 0 itself: 0 is the same time in every unit.
        largest (`int`): The number farthest from 0.

    Returns:
        `str`: `"s"`, `"ms"`, `"us"` or `"ns"`; a warning is issued for all but the first, and for likely dates.

    Raises:
        ValueError: If the two are of different units.
    """
    units = [_unit_of_one(smallest), _unit_of_one(largest)]
    if units[0] != units[1]:
        raise ValueError(
            f"timestamps in two units: {smallest} reads as {units[0]!r}, {largest} as {units[1]!r}; bring the column "
            "to one unit, or give time_unit= if all values are in the same unit"
        )
    # No text holds a value of the column, so that Python shows it once and not for every batch of a server.
    if all(_FIRST_DATE <= number <= _LAST_DATE for number in (smallest, largest)):
        warnings.warn(
            f"times from {_FIRST_DATE} to {_LAST_DATE} look like dates, and are read as seconds of 1970; write dates "
            "as 2018-12-31 (of a log, time_format='%Y%m%d' reads them), or give time_unit=\"s\" if they are seconds",
            stacklevel=2,
        )
    if units[0] != "s":
        warnings.warn(
            f"timestamps of {LEAST_MAGNITUDE[units[0]]:.0e} and above are read as {units[0]!r} for their magnitude; "
            f'give time_unit={units[0]!r} to confirm, or time_unit="s" if they are seconds',
            stacklevel=2,
        )
    return units[0]


def _unit_of_one(number: int) -> str:
    return [unit for unit, least in LEAST_MAGNITUDE.items() if abs(number) >= least][-1]


def _unit_of(numbers: Any) -> str:
    """The unit of a list or int64 array of numbers."""
    if isinstance(numbers, np.ndarray):
        # abs(-2**63) overflows, so the extremes are taken on each side of 0.
        sides = [numbers[numbers > 0], numbers[numbers < 0]]
        numbers = [int(extreme) for side in sides if side.size for extreme in (side.min(), side.max())]
    numbers = [number for number in numbers if number != 0]
    if not numbers:
        return "s"
    return unit_by_magnitude(min(numbers, key=abs), max(numbers, key=abs))


def _datetime64_to_time(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    missing = np.flatnonzero(np.isnat(values))
    if missing.size:
        raise ValueError(f"timestamp in row {missing[0]} is missing (NaT); drop such rows or give them a time")
    seconds = values.astype("datetime64[s]")
    return seconds.astype(np.int64), (values - seconds).astype("timedelta64[ns]").astype(np.int64)


def _parse(value: Any, row: int) -> tuple[int, int, bool]:
    """A number in the log's unit, the billionths of a unit after it and True; or seconds, nanoseconds and False."""
    # NaN, NaT and their kind are the values that differ from themselves; pandas.NaT passes for a datetime.
    if value is None or (isinstance(value, Real | datetime | np.datetime64) and value != value):
        raise ValueError(f"timestamp in row {row} is missing ({value!r}); drop such rows or give them a time")
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"timestamp in row {row} is {value!r}; expected a number, an ISO string or a datetime")
    if isinstance(value, Integral):
        whole = int(value)
        # Beyond int64 in every unit. Told here, because Python refuses to write thousands of digits in an error.
        if not -_BEYOND <= whole < _BEYOND:
            raise ValueError(f"timestamp {Decimal(whole):.3e} in row {row} lies beyond int64; check the column")
        return whole, 0, True
    if isinstance(value, Decimal):
        return *_whole_and_rest(value, row), True
    if isinstance(value, Real):
        # float32 holds whole numbers up to 2**24 only: 1387670430 has become 1387670400 in it.
        digits = np.finfo(type(value)).nmant + 1 if isinstance(value, np.floating) else 53
        if abs(value) >= 2**digits and np.isfinite(float(value)):
            raise ValueError(
                f"timestamp {value!r} in row {row} is a float that may have lost digits (2**{digits} and above); read "
                "the column as integers"
            )
        return *_whole_and_rest(Decimal(float(value)), row), True
    if isinstance(value, str):
        return _parse_string(value, row)
    if isinstance(value, np.datetime64):
        seconds, nanoseconds = _datetime64_to_time(np.array([value]))
        return int(seconds[0]), int(nanoseconds[0]), False
    if isinstance(value, datetime):
        return *_datetime_to_time(value), False
    if isinstance(value, date):
        return *_datetime_to_time(datetime.combine(value, time())), False
    raise TypeError(
        f"timestamp in row {row} is {value!r} ({type(value).__name__}); expected a number, an ISO string or a datetime"
    )


def _whole_and_rest(value: Decimal, row: int) -> tuple[int, int]:
    """A number rounded down, and the billionths that were left."""
    if not value.is_finite():
        raise ValueError(f"timestamp {value} in row {row} is no finite number; check the column")
    if value.adjusted() > 40:
        raise ValueError(f"timestamp {value} in row {row} lies beyond int64; check the column")
    if value.adjusted() < -18:
        return (-1, _BILLION - 1) if value < 0 else (0, 0)
    # int() rounds towards zero, and a decimal context would round at its 28 digits.
    whole = int(value)
    whole -= value < whole
    numerator, denominator = value.as_integer_ratio()
    return whole, (numerator - whole * denominator) * _BILLION // denominator


def _parse_string(value: str, row: int) -> tuple[int, int, bool]:
    text = value.strip()
    if not text:
        raise ValueError(f"timestamp in row {row} is missing ({value!r}); drop such rows or give them a time")
    if _INTEGER.fullmatch(text):
        return int(text), 0, True
    if _DECIMAL.fullmatch(text):
        return *_whole_and_rest(Decimal(text), row), True
    match = _ISO_8601.fullmatch(text)
    try:
        if match is None:
            raise ValueError("expected YYYY-MM-DD, with HH:MM[:SS] and Z or an offset where known")
        day, clock, second, fraction, hours, minutes = match.groups()
        # Spelled out, because Python 3.10 reads neither Z nor other short forms, and no version nanoseconds.
        text = f"{day}T{clock or '00:00'}{second or ':00'}{hours or '+00'}:{minutes or '00'}"
        seconds, _ = _datetime_to_time(datetime.fromisoformat(text))
        return seconds, int(f"{fraction or '':0<9.9}"), False
    except ValueError as error:
        raise ValueError(
            f"timestamp {value!r} in row {row} is neither a number nor an ISO 8601 time: {error}"
        ) from None


def _datetime_to_time(value: datetime) -> tuple[int, int]:
    if value.tzinfo is None:
        value = value.replace(tzinfo=timezone.utc)
    # A pandas.Timestamp gives a timedelta of its own kind, which divides alike.
    seconds, rest = divmod(value - _EPOCH, timedelta(seconds=1))
    return int(seconds), rest // timedelta(microseconds=1) * 1000 + getattr(value, "nanosecond", 0)
