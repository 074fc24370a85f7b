"""Which event of a user is a target of training, of validation, of testing, or history alone."""

import narwhals as nw

from .columns import ORDER

# The `role` of an event. Every event is history to the later ones of its user, whatever its role.
HISTORY, TRAIN, VALIDATION, TEST = 0, 1, 2, 3
ROLES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


def in_time_order(log: nw.LazyFrame) -> nw.LazyFrame:
    """The log with `position` (1, 2, ... in a user's time order) and `length` (the number of the user's events).

    Events of the same time keep the order of the log: of the column that was told, and then of its rows.
    """
    names = log.collect_schema().names()
    keys = [name for name in ("timestamp", "subsecond", *ORDER) if name in names]
    return log.with_columns(
        position=nw.col("order").cum_count().over("user_id", order_by=keys).cast(nw.Int64),
        length=nw.len().over("user_id").cast(nw.Int64),
    )


def leave_one_out(log: nw.LazyFrame) -> nw.LazyFrame:
    """The published split, as a column `role`: a user's last event tests, the one before validates, the rest trains.

    The first event of a user has no history and is no target.

    Args:
        log (`nw.LazyFrame`): As `in_time_order` returns it.
    """
    from_the_end = nw.col("length") - nw.col("position")
    late = nw.when(from_the_end == 0).then(nw.lit(TEST)).otherwise(nw.lit(VALIDATION))
    target = nw.when(from_the_end <= 1).then(late).otherwise(nw.lit(TRAIN))
    return log.with_columns(role=_with_history(target))


def temporal(log: nw.LazyFrame, valid_from: int, test_from: int) -> nw.LazyFrame:
    """A split at two points in time, as a column `role`: every event from a cut on is a target of that part.

    A target's history is what its user did before it, so nothing after a cut is in a row of before it.

    Args:
        log (`nw.LazyFrame`): As `in_time_order` returns it, with a column `trains`: false of what is history alone.
        valid_from (`int`): Unix seconds; events from then on, and before `test_from`, validate.
        test_from (`int`): Unix seconds; events from then on test.
    """
    late = nw.when(nw.col("timestamp") >= test_from).then(nw.lit(TEST)).otherwise(nw.lit(VALIDATION))
    early = nw.when(nw.col("trains")).then(nw.lit(TRAIN)).otherwise(nw.lit(HISTORY))
    target = nw.when(nw.col("timestamp") >= valid_from).then(late).otherwise(early)
    return log.with_columns(role=_with_history(target))


def _with_history(target: nw.Expr) -> nw.Expr:
    return nw.when(nw.col("position") > 1).then(target).otherwise(nw.lit(HISTORY)).cast(nw.Int8)
