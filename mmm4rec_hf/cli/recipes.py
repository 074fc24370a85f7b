"""Recipes on a command line: the file, and `key=value` changes of it."""

import argparse
from pathlib import Path


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the recipe's file and the changes of it."""
    parser.add_argument("recipe", nargs="?", help="a YAML file")
    add_changes(parser)


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Adds the changes alone."""
    parser.add_argument("changes", nargs="*", metavar="key=value", help="values in place of the file's")


def recipe_arguments(args: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The file, if any, and the changes; a first argument with an equals sign is a change."""
    if args.recipe is not None and "=" in args.recipe and not Path(args.recipe).is_file():
        return None, [args.recipe, *args.changes]
    return args.recipe, args.changes
