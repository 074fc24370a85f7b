"""From the columns of any log to the four of `Interactions`: ids as strings, times as seconds, ratings, the order."""

import logging

import narwhals as nw

from . import engines
from .columns import ARGUMENTS
from .readers.files import RawLog
from .times import are_written, with_unix_seconds

logger = logging.getLogger(__name__)

RATING = "^[+-]?[0-9]+([.][0-9]*)?$"
WHOLE_NUMBER = "^[+-]?[0-8]?[0-9]{1,18}$"


def normalized_log(
    raw: RawLog, time_unit: str | None, time_format: str | None, usual_format: str | None
) -> tuple[nw.LazyFrame, dict[str, int]]:
    """A log in its own columns to one in ours, on the engine that holds it.

    Args:
        raw (`RawLog`): The log as its reader found it.
        time_unit (`str`, *optional*): The unit of numeric times, where told.
        time_format (`str`, *optional*): How times are written, where told.
        usual_format (`str`, *optional*): How other logs of the same source write them, if this one does too.

    Returns:
        `tuple[nw.LazyFrame, dict[str, int]]`: Columns `user_id` and `item_id` (string), `timestamp` (int64 seconds),
        `subsecond` (int64 nanoseconds, only for clocks finer than a second), `rating` (float64, where there is one),
        `order` (int64) and, beside an order that was told, `row` (int64); and the numbers of rows read and dropped.

    Raises:
        ValueError: For columns not found or in question, and times that cannot be read.
        TypeError: For ids and times of a type that loses digits or means nothing.
    """
    where = raw.where
    found = raw.columns.resolve(raw.frame.collect_schema().names(), where)
    # Of an order that is told some may be equal, and no engine keeps the rows as they came.
    found["row" if "order" in found else "order"] = "mmm4rec_row"
    frame = engines.with_row_numbers(raw.frame, "mmm4rec_row")
    frame = engines.keep(frame.select(*(nw.col(theirs).alias(ours) for ours, theirs in found.items())))
    schema = frame.collect_schema()
    frame = frame.with_columns(
        *(_as_string(name, schema[name], where) for name in ("user_id", "item_id")),
        *([_as_rating(schema["rating"], where)] if "rating" in found else []),
        _as_order(frame, schema["order"], where),
    )
    frame = engines.compared_to_the_letter(frame, ("user_id", "item_id"))
    frame, statistics = _drop_rows_without_ids(frame, where)
    try:
        if usual_format is not None and time_unit is None and time_format is None and are_written(frame, usual_format):
            time_format = usual_format
        frame = with_unix_seconds(frame, time_unit, time_format)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return frame, raw.statistics | statistics


def _as_string(name: str, dtype: nw.dtypes.DType, where: str) -> nw.Expr:
    if dtype == nw.String or dtype.is_integer() or isinstance(dtype, nw.Categorical | nw.Enum):
        return nw.col(name).cast(nw.String)
    raise TypeError(
        f"the {name} column of {where} is of type {dtype}; ids must be strings or integers. Convert it before, or "
        f"give {ARGUMENTS[name]}= if another column was meant; integers with gaps read as floats and lose digits"
    )


def _as_rating(dtype: nw.dtypes.DType, where: str) -> nw.Expr:
    rating = nw.col("rating")
    if dtype == nw.String:
        # No model reads the ratings, so one that is no number is a missing one.
        rating = nw.when(rating.str.contains(RATING)).then(rating)
    elif not (dtype.is_numeric() or dtype == nw.Unknown):
        raise TypeError(f"the rating column of {where} is of type {dtype}; give rating_column= if another was meant")
    return rating.cast(nw.Float64).alias("rating")


def _as_order(frame: nw.LazyFrame, dtype: nw.dtypes.DType, where: str) -> nw.Expr:
    order = nw.col("order")
    wrong = order.is_null()
    if dtype == nw.String:
        wrong = wrong | ~order.str.contains(WHOLE_NUMBER)
    elif not dtype.is_integer():
        raise TypeError(f"the order column of {where} is of type {dtype}; it must hold integers")
    elif dtype in (nw.UInt64, nw.Int128, nw.UInt128):
        wrong = wrong | (order.cast(nw.Float64).abs() >= 2.0**63)
    # Under another name: the first narwhals do not quote this one, a word of SQL.
    found = frame.filter(wrong).select(value=order).head(1).collect("polars")
    if len(found):
        raise ValueError(f"the order column of {where} holds {found.item()!r}; it must hold integers of 64 bits")
    return order.cast(nw.Int64)


def _drop_rows_without_ids(frame: nw.LazyFrame, where: str) -> tuple[nw.LazyFrame, dict[str, int]]:
    without = {name: nw.col(name).is_null() | (nw.col(name) == "") for name in ("user_id", "item_id")}
    counts = engines.one_row(
        frame.select(
            rows_read=nw.len(),
            rows_without_user=without["user_id"].cast(nw.Int64).sum(),
            rows_without_item=(~without["user_id"] & without["item_id"]).cast(nw.Int64).sum(),
        )
    )
    statistics = {name: int(count or 0) for name, count in counts.items()}
    if statistics["rows_read"] == 0:
        raise ValueError(f"{where} holds no interactions")
    dropped = statistics["rows_without_user"] + statistics["rows_without_item"]
    if dropped == statistics["rows_read"]:
        raise ValueError(f"none of the {dropped} rows of {where} has both a user id and an item id")
    if not dropped:
        return frame, statistics
    logger.warning(
        "%s: dropped %d of %d rows, %d without a user id and %d without an item id",
        *(where, dropped, statistics["rows_read"], statistics["rows_without_user"], statistics["rows_without_item"]),
    )
    return frame.filter(~without["user_id"] & ~without["item_id"]), statistics
