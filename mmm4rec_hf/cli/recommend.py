"""`mmm4rec recommend`: histories to ranked items."""

import argparse
import contextlib
import csv
import itertools
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..saved_models import find_model
from .columns import HISTORY_COLUMNS, add_log_options, log_options
from .output import add_json_option, hide_bars_without_terminal, print_json, print_table
from .running import UsageError

logger = logging.getLogger(__name__)

FIELDS = ("user_id", "rank", "item_id", "score", "text_score", "image_score", "title")
# The parts of a score by the words of a table; the third is one of models with use_cooccurrence.
PARTS = {"text_score": "text", "image_score": "picture", "cooccurrence_score": "log"}
OUTPUT_SUFFIXES = (".jsonl", ".csv", ".parquet")
_ROWS_PER_GROUP = 100_000
# Ids that a message names, and events of a user that a table does.
_SHOWN = 3
# Of a number of 32 bits: rounding.
_SAME = 1e-5

# A history, which has a user_id, and its items, best first.
Recommended = tuple[dict[str, Any], list[dict[str, Any]]]


def add_parser(subparsers: Any) -> None:
    """Adds `recommend` to the command's parser."""
    parser = subparsers.add_parser(
        "recommend",
        help="recommend items for one history or for a file of users",
        description=(
            "Reads a model's folder (or its Hub name) and one history, or a file: JSON lines or Parquet with user_id, "
            "items and timestamps (lists), or a log of interactions with a row an event. Writes the best items with "
            "their scores; the score is the sum of a text part and a picture part, and with use_cooccurrence of what "
            "the training log adds."
        ),
        epilog=(
            "examples:\n"
            "  mmm4rec recommend run/model --history 50 172 --timestamps 891035000 891035500 --top-k 5\n"
            "  mmm4rec recommend run/model --input interactions.csv --output recommendations.parquet\n"
            "  mmm4rec recommend run/model --input orders.csv --user-column kunde --item-column artikel \\\n"
            "      --timestamp-column gekauft_am --user c0017 --user c0042"
        ),
    )
    parser.add_argument("model", help="what `finetune` wrote (its folder, or model/ in it), or a Hub name")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--history", nargs="+", metavar="ID", help="items of one user, oldest first")
    what.add_argument("--input", "-i", type=Path, metavar="FILE", help="a file of users, or a log of interactions")
    parser.add_argument("--timestamps", nargs="+", metavar="TIME", help="of the history: unix numbers or ISO dates")
    parser.add_argument(
        "--user",
        nargs="+",
        action="extend",
        metavar="ID",
        help="with --input: only these users of the file; may be given several times",
    )
    add_log_options(parser)
    parser.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help=f"{', '.join(OUTPUT_SUFFIXES)}; default: printed"
    )
    parser.add_argument("--top-k", type=int, default=10, help="items a user (default: %(default)s)")
    parser.add_argument("--include-history", action="store_true", help="recommend what the user had, too")
    parser.add_argument("--candidates", nargs="+", metavar="ID", help="the only items to recommend")
    parser.add_argument(
        "--why",
        action="store_true",
        help="also the item of the history that is nearest to each recommended one, by text, by picture and, of a "
        "model with use_cooccurrence, in the log",
    )
    parser.add_argument(
        "--unknown-items", choices=("skip", "error"), default="skip", help="ids that the model lacks (default: skip)"
    )
    parser.add_argument(
        "--empty-histories",
        choices=("error", "default", "skip"),
        help="users without a known item: an error, the ranking of someone without events, one for all of them, or "
        "left out and counted (default: skip those of a file, an error for --history and --user); `default` without "
        "--history and --input prints that ranking",
    )
    parser.add_argument("--batch-size", type=int, default=256, help="users scored at once (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: an accelerator where there is one)")
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    """Runs `mmm4rec recommend`."""
    _check(args)
    if args.empty_histories is None:
        # One of many must not stop the others; who is named is asked for.
        args.empty_histories = "skip" if args.input is not None and args.user is None else "error"
    if args.history is None and args.input is None:
        args.history = []  # of someone without events
    hide_bars_without_terminal()
    from transformers import pipeline

    model = find_model(args.model)
    recommender: Any = pipeline(  # type: ignore[call-overload]
        "sequential-recommendation", model=model, device=args.device, trust_remote_code=False
    )
    with _unknown_items_counted(recommender.processor):
        _recommend(args, recommender, model)


@contextlib.contextmanager
def _unknown_items_counted(processor: Any) -> Iterator[None]:
    """Keeps the processor from warning of unknown items, which the command counts and names."""
    log = logging.getLogger(type(processor).__module__)

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("items that the catalogue does not hold")

    log.addFilter(is_other)
    try:
        yield
    finally:
        log.removeFilter(is_other)


def _recommend(args: argparse.Namespace, recommender: Any, model: str) -> None:
    from ..training.record import layout_of_log
    from .histories import open_histories

    options = {
        "top_k": args.top_k,
        "exclude_history": not args.include_history,
        "candidates": args.candidates,
        "unknown_items": args.unknown_items,
        "empty_histories": args.empty_histories,
    }
    if unknown := _unknown(recommender.processor, args.candidates or (), args.unknown_items):
        counts = f"{len(unknown):,}", f"{len(args.candidates):,}"
        logger.info("%s of %s candidates are unknown to the model (%s)", *counts, ", ".join(unknown[:_SHOWN]))
    lists: Iterable[Recommended]
    time_unit = args.time_unit
    if args.history is not None:
        asked = _history(args)
        history = {"user_id": "1"} | asked
        lists = [(history, recommender(asked, time_unit=time_unit, **options))]
        known = _Known(recommender.processor, args.unknown_items)
        known.has(history)
        known.tell(1, "gets the ranking of someone without events")
    else:
        file = open_histories(args.input, users=args.user, layout=layout_of_log(model), **log_options(args))
        time_unit = file.time_unit
        options |= {"time_unit": time_unit, "batch_size": args.batch_size}
        lists = _recommend_all(recommender, file.histories, args, options)
    if args.why:
        lists = _explained(lists, recommender, model, time_unit)
    if args.output is not None:
        fields: tuple[str, ...] = FIELDS
        if recommender.model.config.use_cooccurrence:
            fields = (*FIELDS[:-1], "cooccurrence_score", FIELDS[-1])
        users = write(args.output, lists, fields)
        print(f"Recommendations for {users:,} users are in {args.output}", file=sys.stderr)
    elif args.history is not None and not args.json:
        _print_list(next(iter(lists))[1], _features_alike(recommender.model))
    elif args.history is not None:
        print_json(next(iter(lists))[1])
    elif args.user is not None and not args.json:
        alike = _features_alike(recommender.model)
        for history, items in lists:
            recent = _last_names(recommender.processor, history, file.time_unit)
            user = [str(history["user_id"]), f"{len(history['items']):,}", recent]
            print_table(["user", "events", "the last ones"], [user])
            _print_list(items, alike)
            print()
    else:
        for line in _lines(lists):
            print(line)


def _check(args: argparse.Namespace) -> None:
    """
    Raises:
        UsageError: For options that do not belong together.
    """
    if args.user is not None and args.input is None:
        raise UsageError("--user picks users out of a file: name one by --input FILE")
    if args.history is None and args.input is None and args.empty_histories != "default":
        raise UsageError(
            "whom to recommend to? give --history ID ..., or --input FILE; --empty-histories default alone "
            "recommends to someone without events"
        )
    if args.output is not None and args.output.suffix not in OUTPUT_SUFFIXES:
        raise UsageError(f"--output must end in {', '.join(OUTPUT_SUFFIXES)}, got {args.output.name!r}")
    if args.why and args.output is not None and args.output.suffix != ".jsonl":
        raise UsageError(f"--why has no columns in a {args.output.suffix} file; write .jsonl, or leave it out")
    if args.timestamps is not None and args.history is None:
        raise UsageError("--timestamps belong to --history; a file has times of its own")
    of_file = [f"--{column}-column" for column in HISTORY_COLUMNS if getattr(args, f"{column}_column") is not None]
    if args.format != "auto":
        of_file.append("--format")
    if args.time_format is not None:
        of_file.append("--time-format")
    if of_file and args.input is None:
        verb = "tells" if len(of_file) == 1 else "tell"
        raise UsageError(f"{', '.join(of_file)} {verb} how a file is laid out; give it as --input FILE")
    if args.history is not None and args.empty_histories == "skip":
        raise UsageError("--empty-histories skip leaves users of a file out; a --history is one user's")
    if args.batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {args.batch_size}")


def _history(args: argparse.Namespace) -> dict[str, Any]:
    history: dict[str, Any] = {"items": args.history}
    if args.timestamps is not None:
        history["timestamps"] = [int(stamp) if stamp.lstrip("-").isdecimal() else stamp for stamp in args.timestamps]
    return history


def _recommend_all(
    recommender: Any, histories: Iterable[dict[str, Any]], args: argparse.Namespace, options: dict[str, Any]
) -> Iterator[Recommended]:
    """Batch by batch, so that a file of any length takes the memory of one batch."""
    from tqdm.auto import tqdm

    from ..modeling.pipeline_mmm4rec import in_batches

    processor = recommender.processor
    counted = _Counted(tqdm(histories, desc="Recommending", unit="user", disable=None))
    known, is_leaving_out = _Known(processor, args.unknown_items), args.empty_histories == "skip"
    if is_leaving_out:
        options["empty_histories"] = "default"  # of none that is left
    wanted = (history for history in counted if known.has(history) or not is_leaving_out)
    for batch in in_batches(wanted, args.batch_size):
        yield from zip(batch, recommender(batch, **options), strict=True)
    if known.without == counted.number and is_leaving_out:
        raise ValueError(
            f"none of the {counted.number:,} users of {args.input} has an item that the model knows, whose ids look "
            f"like {', '.join(map(repr, processor.item_ids[:3]))}"
        )
    left_out = "are left out; --empty-histories default gives them the ranking of someone without events"
    known.tell(counted.number, left_out if is_leaving_out else "get the ranking of someone without events")


def _explained(
    lists: Iterable[Recommended], recommender: Any, model: str, time_unit: str | None
) -> Iterator[Recommended]:
    """With the nearest items of the history; the catalogue saved with the model knows which have no picture."""
    from ..explanations import explain
    from ..serving.loading import saved_catalog

    catalog = saved_catalog(model)
    if catalog is not None and catalog.item_ids != recommender.processor.item_ids:
        catalog = None  # of other items than the model was given since
    for history, items in lists:
        explain(items, history, recommender, catalog, time_unit)
        yield history, items


def write(path: Path, lists: Iterable[Recommended], fields: Sequence[str] = FIELDS) -> int:
    """
    Writes recommendations to a file that is whole or not there.

    Args:
        path (`Path`): JSON lines hold a line a user; CSV and Parquet a row a recommendation.
        lists (`Iterable`): A history, which has a `user_id`, and its recommendations.
        fields (`Sequence[str]`, *optional*): Columns of CSV and Parquet.

    Returns:
        `int`: The number of users.
    """
    from ..outputs import replace_file

    counted = _Counted(lists)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as partial:
        if path.suffix == ".parquet":
            _write_parquet(partial, counted, fields)
        else:
            with partial.open("w", encoding="utf-8", newline="") as file:
                if path.suffix == ".jsonl":
                    file.writelines(line + "\n" for line in _lines(counted))
                else:
                    writer = csv.DictWriter(file, fields)
                    writer.writeheader()
                    writer.writerows(_rows(counted))
    return counted.number


class _Counted:
    """Counts what it passes on."""

    def __init__(self, source: Iterable[Any]) -> None:
        self.source = source
        self.number = 0

    def __iter__(self) -> Iterator[Any]:
        for entry in self.source:
            self.number += 1
            yield entry


class _Known:
    """Counts events of items that a model does not know, and histories that have no others."""

    def __init__(self, processor: Any, unknown_items: str) -> None:
        self.processor, self.unknown_items = processor, unknown_items
        self.events = self.unknown = self.without = 0
        self._items, self._users = dict[str, None](), list[str]()

    def has(self, history: Mapping[str, Any]) -> bool:
        """Whether one of the items of a history is known. What is no list is refused where the model reads it."""
        items = history.get("items")
        if not isinstance(items, list):
            return True
        unknown = _unknown(self.processor, items, self.unknown_items)
        self.events += len(items)
        self.unknown += len(unknown)
        if len(self._items) < _SHOWN:
            self._items |= dict.fromkeys(unknown)
        if len(unknown) < len(items):
            return True
        self.without += 1
        self._users += [repr(history["user_id"])][: _SHOWN - len(self._users)]
        return False

    def tell(self, users: int, what: str) -> None:
        """Logs the counts; `what` becomes of users without a known item."""
        if self.unknown:
            counts, such = (f"{self.unknown:,}", f"{self.events:,}"), ", ".join([*self._items][:_SHOWN])
            logger.info(
                "%s of %s events are of items that the model does not know (%s), and are skipped", *counts, such
            )
        if self.without:
            counts, such = (f"{self.without:,}", f"{users:,}"), ", ".join(self._users)
            logger.info("%s of %s users have no known item (%s) and %s", *counts, such, what)


def _unknown(processor: Any, items: Sequence[Any], unknown_items: str) -> list[str]:
    """Those of some ids that a model does not know, as messages show them."""
    places = set(processor.rows(items, unknown_items)[1])
    return [repr(item) for place, item in enumerate(items) if place not in places]


def _lines(lists: Iterable[Recommended]) -> Iterator[str]:
    for history, items in lists:
        yield json.dumps({"user_id": history["user_id"], "recommendations": items}, ensure_ascii=False)


def _rows(lists: Iterable[Recommended]) -> Iterator[dict[str, Any]]:
    for history, items in lists:
        for rank, item in enumerate(items, start=1):
            yield {"user_id": str(history["user_id"]), "rank": rank} | item


def _write_parquet(path: Path, lists: Iterable[Recommended], fields: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"user_id": pa.string(), "rank": pa.int32(), "item_id": pa.string(), "title": pa.string()}
    schema = pa.schema([(name, types.get(name, pa.float32())) for name in fields])
    rows = _rows(lists)
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(rows, _ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _features_alike(model: Any) -> dict[str, str]:
    """The parts of a score for which all items have the same features, as where none has a picture."""
    alike = {}
    for part, features in (("text_score", model.items.text_features), ("image_score", model.items.image_features)):
        own = features[1:]  # behind the padding item's
        if len(own) and bool((own == own[0]).all()):
            alike[part] = PARTS[part]
    return alike


def _last_names(processor: Any, history: Mapping[str, Any], time_unit: str | None) -> str:
    """Titles, or else ids, of the last known events in time, in which a file's need not stand."""
    inputs, _ = processor.read_histories([history], time_unit=time_unit, empty_histories="default")
    rows = inputs["input_ids"][0][inputs["attention_mask"][0] == 1][-_SHOWN:].tolist()
    return ", ".join(processor.title(row) or processor.item_ids[row - 1] for row in rows)


def _nearest(why: Mapping[str, dict[str, Any] | None]) -> str:
    """By text, by picture and in the log, where there is one, the item of the history with its cosine or its share."""
    told = []
    for name, found in why.items():
        if found is not None:
            figure = f"{found['share']:.0%}" if "share" in found else f"{found['similarity']:.2f}"
            told.append(f"{PARTS[f'{name}_score']}: {found['title'] or found['item_id']} ({figure})")
    return ", ".join(told)


def _print_list(items: list[dict[str, Any]], alike: Mapping[str, str]) -> None:
    """
    Prints recommendations as a table, without a part of the score that is the same for all items.

    Args:
        items (`list[dict]`): Best first.
        alike (`Mapping[str, str]`): Of [`_features_alike`]. Vectors of items' own may tell these apart all the same.
    """
    parts = {name: word for name, word in PARTS.items() if not items or name in items[0]}
    notes = []
    for name, word in alike.items():
        values = [item[name] for item in items]
        if values and max(values) - min(values) <= _SAME * max(1.0, *map(abs, values)):
            del parts[name]
            notes.append(f"No item has a {word} of its own: {values[0]:.3f} of each score is the {word} part of all.")
    rows = []
    for rank, item in enumerate(items, start=1):
        scores = [f"{item[name]:.3f}" for name in ("score", *parts)]
        why = [_nearest(item["why"])] if "why" in item else []
        rows.append([str(rank), *scores, item["item_id"], item["title"] or "", *why])
    nearest = ["nearest of the history"] if items and "why" in items[0] else []
    print_table(["rank", "score", *parts.values(), "item", "title", *nearest], rows)
    for note in notes:
        print(note)
