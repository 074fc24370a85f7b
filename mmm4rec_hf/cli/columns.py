"""The options that say how a log of interactions is laid out, the same for every command that reads one."""

import argparse
from typing import Any

# What makes a history of a log; ratings tell rows apart that agree in all else.
HISTORY_COLUMNS = ("user", "item", "timestamp", "rating", "order")
TIME_UNITS = ("s", "ms", "us", "ns")


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """
    Adds `--format`, `--user-column` and its like, `--time-unit` and `--time-format`.

    Args:
        parser (`argparse.ArgumentParser`): Of a sub-command.
    """
    parser.add_argument(
        "--format", default="auto", help="csv, parquet, amazon-2018, movielens, ... (default: by name)"
    )
    for column in HISTORY_COLUMNS:
        parser.add_argument(f"--{column}-column", metavar="NAME", help=f"the column of the {column}, if not as usual")
    parser.add_argument("--time-unit", choices=TIME_UNITS, help="of numbers; default: told by their size")
    parser.add_argument(
        "--time-format",
        type=_time_format,
        metavar="FORMAT",
        help="how times are written that are no ISO 8601, such as '%%d.%%m.%%Y %%H:%%M' or '%%m/%%d/%%Y %%I:%%M %%p'",
    )


def log_options(args: argparse.Namespace) -> dict[str, Any]:
    """What these options say, as [`load_interactions`] takes it."""
    told = {f"{column}_column": getattr(args, f"{column}_column") for column in HISTORY_COLUMNS}
    return {"format": args.format, "time_unit": args.time_unit, "time_format": args.time_format} | told


def _time_format(written: str) -> str:
    from ..data.time_formats import TimeFormat

    try:
        TimeFormat(written)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("time_format=")) from None
    return written
