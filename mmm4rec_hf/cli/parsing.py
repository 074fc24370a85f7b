"""What the parsers of all sub-commands share: help with examples, options out of a file, completion of the shell."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..suggestions import did_you_mean, nearest, remedy

OPTIONS_FILE = "--options"
# How changes of a recipe stand on the line.
KEY_VALUE = "key=value"
# Arguments that name a file or a folder without a type that says so.
_PATHS = {"log", "items", "model", "runs", "recipe", "catalog"}


class HelpFormatter(argparse.HelpFormatter):
    """argparse's, whose examples stay on lines of their own, to be copied."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = text.split("\n\n")
        return "\n\n".join(
            "\n".join(indent + line for line in part.splitlines())
            if part.startswith(("example", " "))
            else super(HelpFormatter, self)._fill_text(part, width, indent)
            for part in parts
        )


class Parser(argparse.ArgumentParser):
    """
    argparse's, which says in one line what is wrong, as the usage of a command with many options would hide it, and
    what was meant by an option or a command that there is not.
    """

    def error(self, message: str) -> NoReturn:
        """Ends with status 2."""
        see = " see" if message.endswith("?") else "; see"
        self.exit(2, f"{self.prog}: error: {message}{see} {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuses what it does not know by itself: the program's parser would name its own help, not the command's."""
        words = list(sys.argv[1:] if args is None else args)
        if not sub_parsers(self):
            self._check_options(words)
        found, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _check_options(self, words: list[str]) -> None:
        """Before argparse misses another option that is required, as that may be the one that was mistyped."""
        for place, word in enumerate(words):
            if word == "--":
                return
            option, equals, value = word.partition("=")
            if not option.startswith("--") or " " in word or option in self._option_string_actions:
                continue
            known = [string for string in self._option_string_actions if string.startswith("--")]
            near = nearest(option, [string for string in known if string not in ("--help", "--debug")])
            if near:
                self.error(f"unrecognized arguments: {word}; {did_you_mean(near)}")
            if any(action.metavar == KEY_VALUE for action in self._actions):
                value = value if equals else " ".join(words[place + 1 : place + 2])
                key = option.strip("-").replace("-", "_")
                given = f"{key}={'...' if not value or value.startswith('-') else value}"
                self.error(f"unrecognized arguments: {word}; what a recipe holds is given as {given}")
            self.error(f"unrecognized arguments: {word}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            self.error(f"no command is named {value!r}; {remedy(str(value), action.choices)}")
        super()._check_value(action, value)


def sub_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's sub-commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and all below it."""
    yield parser
    for child in sub_parsers(parser).values():
        yield from all_parsers(child)


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Adds `--print-completion SHELL`; where a file or a folder belongs, those are offered."""
    import shtab

    shtab.add_argument_to(parser, help="print what completes commands in this shell: mmm4rec.bash, for `source`")
    for each in all_parsers(parser):
        for action in each._actions:
            if action.choices is None and (action.type is Path or action.dest in _PATHS):
                is_folder = action.metavar == "FOLDER"
                action.complete = shtab.DIRECTORY if is_folder else shtab.FILE  # type: ignore[attr-defined]


def add_options_file(parser: argparse.ArgumentParser) -> None:
    """Adds `--options FILE`, which [`with_options_of_file`] reads."""
    parser.add_argument(
        OPTIONS_FILE,
        metavar="FILE",
        type=Path,
        help="YAML that holds any of these options, such as `k-core: 5`; what stands on the line wins",
    )


def with_options_of_file(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> list[str]:
    """
    The arguments of a command line with those of its `--options` file.

    Args:
        parser (`argparse.ArgumentParser`): Of the program.
        argv (`Sequence[str]`, *optional*): Arguments after the program's name, those of the process by default.

    Returns:
        `list[str]`: What the file names by position goes first, options that the line lacks go last. A file that
        cannot be used ends the program with status 2.
    """
    line = list(sys.argv[1:] if argv is None else argv)
    parsers = sub_parsers(parser)
    place = next((n for n, word in enumerate(line) if word in parsers), None)
    if place is None:
        return line
    child, own = parsers[line[place]], line[place + 1 :]
    path, own = _taken_out(own)
    if path is None or not any(OPTIONS_FILE in action.option_strings for action in child._actions):
        return line
    known = {_name(action): action for action in child._actions if action.dest not in ("help", "debug", "options")}
    positional: list[str] = []
    options: list[str] = []
    for key, value in _read(child, Path(path)).items():
        action = known.get(str(key).replace("_", "-"))
        if action is None:
            child.error(f"{path}: no option is named {key!r}; {remedy(str(key), known)}")
        if not action.option_strings:
            positional += _words(value)
        elif not _is_given(action, own):
            options += _option(child, path, action, value)
    return [*line[: place + 1], *positional, *own, *options]


def _taken_out(words: list[str]) -> tuple[str | None, list[str]]:
    """The file that `--options` names, and the other words."""
    for place, word in enumerate(words):
        if word.startswith(f"{OPTIONS_FILE}="):
            return word.partition("=")[2], words[:place] + words[place + 1 :]
        if word == OPTIONS_FILE and place + 1 < len(words):
            return words[place + 1], words[:place] + words[place + 2 :]
    return None, words


def _read(parser: argparse.ArgumentParser, path: Path) -> dict[Any, Any]:
    from ..plain_yaml import read_yaml

    try:
        return read_yaml(path)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _name(action: argparse.Action) -> str:
    """`k-core` of `--k-core`; the name of an argument that is given by its place."""
    long = [string for string in action.option_strings if string.startswith("--")]
    return (long[0] if long else action.dest).lstrip("-").replace("_", "-")


def _is_given(action: argparse.Action, words: list[str]) -> bool:
    return any(word == string or word.startswith(f"{string}=") for word in words for string in action.option_strings)


def _option(parser: argparse.ArgumentParser, path: str, action: argparse.Action, value: Any) -> list[str]:
    string = next(string for string in action.option_strings if string.startswith("--"))
    if action.nargs == 0:
        if not isinstance(value, bool):
            parser.error(f"{path}: {_name(action)} must be true or false, got {value!r}")
        return [string] if value else []
    if value is None:
        return []
    words = _words(value)
    # A value that begins with a dash is a value all the same.
    return [f"{string}={words[0]}"] if action.nargs is None and len(words) == 1 else [string, *words]


def _words(value: Any) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]
