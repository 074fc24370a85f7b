"""Messages of the interface in Python, as someone at a terminal is told them."""

import argparse
import re
import shlex

from .parsing import sub_parsers

_GIVE_ITEMS = "a base has none: mmm4rec finetune start_from=... sequences=... catalog=... gives it a shop's"
# Calls, by what does the same on the command line.
_CALLS = (
    (r"\bprepare_sequences\(item_ids=\)", "mmm4rec prepare --items"),
    (r"\bprepare_sequences\b(?!\()", "mmm4rec prepare"),
    (r"\bcatalog\.encode\(encoder\)", "mmm4rec encode"),
    (
        r"load it with from_pretrained\(\.\.\., catalog=catalog\) or call set_items\(catalog\) before \w+",
        _GIVE_ITEMS,
    ),
    (r"call set_items\(catalog\) or load one that was saved with items", _GIVE_ITEMS),
    (r"call set_items\(catalog\) (?:first|before near items are counted)", _GIVE_ITEMS),
    (r"add it with catalog\.add_items, or", "add it as examples/new_items.py does, or"),
    (r"give the format or a data frame with named columns", "give --format"),
    (r"\bgive ItemEncoder (?=\w+=)", "give "),
    (r"name one that holds all as root=", "name one that holds all as --image-root"),
    (r"give a root= that holds them", "give an --image-root that holds them"),
    (r"given as root=, where", "given as --image-root, where"),
    (r"\broot= names another place", "--image-root names another place"),
    (
        r"The repository (.+?) (?:contains|references) custom code .*`trust_remote_code=True` to allow custom code to "
        r"be run\.",
        r"\1 needs code of its own, which no command runs; if you trust it, load it in Python with "
        "trust_remote_code=True",
    ),
    (r"\bpass unreadable_pictures='missing'", "give --unreadable-pictures missing"),
)
# Options of the model that its configuration's errors tell to give, as a recipe names them.
_OF_MODEL = r"(?<![\w.-])(?=(?:n_groups|head_dim)=\d)"
# Of a file the users are known, and their places are those in a batch; one history on the line has neither.
_HISTORIES = (
    (r"\bhistory \d+ \(user ((['\"]).*?\2)\)", r"the history of user \1"),
    (
        r"(the history of user .*); leave the user out, or pass (?=empty_histories)",
        r"\1; --empty-histories skip leaves such users out; or pass ",
    ),
    (r"(?<![\w/.-])history 0(?![\w/.-])", "the history"),
)


def with_options(message: str) -> str:
    """A message with calls of Python as the commands and options that do the same, for any program of this package."""
    for pattern, told in _CALLS:
        message = re.sub(pattern, told, message)
    return message


def as_options(parser: argparse.ArgumentParser, command: str, message: str) -> str:
    """
    A message with arguments and calls of Python, such as `time_unit="s"`, as a command's options: `--time-unit s`.

    Args:
        parser (`argparse.ArgumentParser`): Of the program.
        command (`str`): The sub-command.
        message (`str`): Of an error or a warning.
    """
    message = with_options(message)
    if command in ("finetune", "pretrain"):
        message = re.sub(_OF_MODEL, "model.", message)
    if command == "recommend":
        message = re.sub(r"(?<= and )history 0\b", "the first one", message)
        for pattern, told in _HISTORIES:
            message = re.sub(pattern, told, message)
    for action in sub_parsers(parser)[command]._actions:
        long = [string for string in action.option_strings if string.startswith("--")]
        if long:
            message = _with_option(message, action, long[0])
    return message


def _with_option(message: str, action: argparse.Action, option: str) -> str:
    """With its value in quotes, which a shell gets where it needs them, or without one, and then the bare name, if it
    is no word of English."""
    form = rf"(?<![\w-]){re.escape(action.dest)}="
    message = re.sub(rf"{form}([\"'])(.*?)\1", lambda found: f"{option} {shlex.quote(found[2])}", message)
    message = re.sub(rf"{form}(?=[\s,;:.)]|$)", option, message)
    if action.nargs == 0:
        message = re.sub(rf"{form}True\b", option, message)
    if "_" in action.dest:
        message = re.sub(rf"(?<![\w./'\"-]){re.escape(action.dest)}(?![\w./'\"=-]\w)", option, message)
    return message
