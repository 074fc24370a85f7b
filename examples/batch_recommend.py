r"""Recommend to all users of a file, as a nightly job does, on one device or several.

    python examples/batch_recommend.py run/model interactions.csv --output recommendations.parquet

On two processes, and on every GPU of a machine; the users are shared out:

    torchrun --standalone --nproc_per_node 2 examples/batch_recommend.py run/model interactions.csv \
        --output recommendations.parquet
    accelerate launch --multi_gpu examples/batch_recommend.py run/model interactions.csv \
        --output recommendations.parquet

The file is a log, or JSON lines or Parquet with a row a user (`user_id`, `items`, `timestamps`). Columns of other
names are found as `prepare` was told them, or told by the options of `mmm4rec recommend` (`--user-column NAME`, ...).
Memory is that of one batch. Each process writes a part, and the first joins them; the file is whole or not there.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from accelerate import PartialState
from transformers import pipeline

import mmm4rec_hf  # noqa: F401  registers the pipeline
from mmm4rec_hf.cli.columns import add_log_options, log_options
from mmm4rec_hf.cli.histories import History, HistoryFile, open_histories
from mmm4rec_hf.cli.output import hide_bars_without_terminal
from mmm4rec_hf.cli.recommend import Recommended, write
from mmm4rec_hf.cli.running import run_command
from mmm4rec_hf.outputs import replace_file
from mmm4rec_hf.processes import process_state
from mmm4rec_hf.saved_models import find_model
from mmm4rec_hf.training.record import layout_of_log


def main(args: argparse.Namespace) -> None:
    """Recommends to this process's users, and joins the parts."""
    state = process_state()
    args.model = find_model(args.model)
    recommend = pipeline("sequential-recommendation", model=args.model, device=state.device, trust_remote_code=False)
    parts = [args.output.with_name(f".{args.output.stem}.part-{rank}.parquet") for rank in range(state.num_processes)]
    write(parts[state.process_index], recommendations(recommend, args, state))
    state.wait_for_everyone()
    if state.is_main_process:
        users = join(parts, args.output)
        print(f"Recommendations for {users:,} users are in {args.output}")


def batches(file: HistoryFile, batch_size: int) -> Iterator[list[History]]:
    """Users of the file, so many at a time."""
    while batch := list(itertools.islice(file.histories, batch_size)):
        yield batch


def recommendations(recommend: object, args: argparse.Namespace, state: PartialState) -> Iterator[Recommended]:
    """Every num_processes-th batch, beginning with that of this process."""
    layout = layout_of_log(args.model)  # what prepare was told of the log need not be told again
    file = open_histories(args.users, layout=layout, **log_options(args))
    options = {"top_k": args.top_k, "batch_size": args.batch_size, "time_unit": file.time_unit}
    for batch in itertools.islice(batches(file, args.batch_size), state.process_index, None, state.num_processes):
        lists = recommend(batch, empty_histories="default", **options)
        yield from zip(batch, lists, strict=True)


def join(parts: list[Path], output: Path) -> int:
    """Parts to one file; the parts go. The number of users who were recommended something."""
    users = 0
    with replace_file(output) as partial, pq.ParquetWriter(partial, pq.read_schema(parts[0])) as writer:
        for part in parts:
            for batch in pq.ParquetFile(part).iter_batches():
                users += batch.column("rank").to_pylist().count(1)
                writer.write_batch(batch)
    for part in parts:
        part.unlink()
    return users


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="what finetune wrote (its folder, or model/ in it), or a Hub name")
    parser.add_argument("users", type=Path, help="a log, or a file of histories")
    parser.add_argument("--output", type=Path, required=True, help="a .parquet file")
    add_log_options(parser)
    parser.add_argument("--top-k", type=int, default=10, help="items a user")
    parser.add_argument("--batch-size", type=int, default=256, help="users scored at once")
    arguments = parser.parse_args()
    hide_bars_without_terminal()
    sys.exit(run_command("batch_recommend.py", lambda: main(arguments)))
