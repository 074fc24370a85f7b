"""Recipes on a command line: the file, and `key=value` changes of it."""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .output import hide_bars_without_terminal
from .parsing import KEY_VALUE, Parser
from .running import UsageError, run_command


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the recipe's file and the changes of it."""
    parser.add_argument("recipe", nargs="?", help="a YAML file")
    add_changes(parser)


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Adds the changes alone."""
    parser.add_argument("changes", nargs="*", metavar=KEY_VALUE, help="values in place of the file's")


def recipe_arguments(args: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The file, if any, and the changes; a first argument with an equals sign is a change."""
    if args.recipe is not None and "=" in args.recipe and not Path(args.recipe).is_file():
        return None, [args.recipe, *args.changes]
    return args.recipe, args.changes


def read_recipe(kind: type, path: str | None, changes: list[str]) -> Any:
    """
    As [`load_recipe`]; a key or a value that cannot be meant is wrong use, a file that is not there is not.

    Raises:
        UsageError: For such a key or value.
    """
    from mmm4rec_hf.training.recipes import load_recipe

    try:
        return load_recipe(kind, path, changes)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


@contextlib.contextmanager
def saying_how_to_go_on(output_dir: str) -> Iterator[None]:
    """
    Lets an interrupted training end with what giving the same command again does.

    Args:
        output_dir (`str`): Of its recipe.
    """
    try:
        yield
    except KeyboardInterrupt:
        from ..training.folders import CHECKPOINTS_NAME

        # Those that are being written begin with a dot.
        has_checkpoint = any(Path(output_dir, CHECKPOINTS_NAME).glob("checkpoint-*"))
        begin = "goes on from the last checkpoint" if has_checkpoint else "begins anew, as there is no checkpoint yet"
        raise KeyboardInterrupt(f"the same command {begin}") from None


def run_script(
    program: str, description: str, recipe_class: type, run: Callable[[Any], Any], report: Callable[[Any, Any], None]
) -> int:
    """
    A script of `examples/`: reads `--config` and changes, runs the recipe and prints what came of it.

    Args:
        program (`str`): Its name, which stands before an error.
        description (`str`): What `--help` says.
        recipe_class (`type`): The recipe's dataclass.
        run (`Callable`): The recipe to a result.
        report (`Callable`): Prints recipe and result.

    Returns:
        `int`: Exit status, see [`run_command`].
    """
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--config", help="a YAML recipe, such as those of configs/")
    add_changes(parser)
    args = parser.parse_args()
    hide_bars_without_terminal()

    def command() -> None:
        recipe = read_recipe(recipe_class, args.config, args.changes)
        with saying_how_to_go_on(recipe.output_dir):
            result = run(recipe)
        report(recipe, result)

    return run_command(program, command)
