"""How a command runs and ends: its log on stderr, its exit status, an error as one line."""

import contextlib
import logging
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any


class UsageError(ValueError):
    """Arguments that cannot be meant, found by the command rather than by its parser: status 2."""


def run_command(
    program: str, command: Callable[[], None], debug: bool = False, translate: Callable[[str], str] = str
) -> int:
    """
    Runs a command of this package.

    Args:
        program (`str`): Its name, which stands before an error.
        command (`Callable`): What it does.
        debug (`bool`, *optional*, defaults to `False`): Whether an error keeps its traceback.
        translate (`Callable`, *optional*):
            The message of an error or of a line of the log to what a person at a terminal is told.

    Returns:
        `int`: Exit status: 0 done, 1 failed and 2 wrong use, with one line on stderr, 130 interrupted.
    """
    _log_to_stderr(translate)
    logging.getLogger("mmm4rec_hf").setLevel(logging.INFO)
    try:
        with _warnings_in_one_line(translate):
            command()
    except BrokenPipeError:
        # Who reads stdout has read enough, as `head` does; Python would complain once more when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"{program}: {'; '.join(['interrupted', *map(str, interrupt.args)])}", file=sys.stderr)
        return 130
    except _failures() as error:
        if debug:
            raise
        cause = _cause(error)
        message = translate(_in_one_line(_told(str(cause)))) or type(cause).__name__
        print(f"{program}: error: {message}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


@contextlib.contextmanager
def _warnings_in_one_line(translate: Callable[[str], str]) -> Iterator[None]:
    """Shows Python's warnings as lines of the log are shown, without the place in the code."""
    before = warnings.formatwarning

    def line(message: Warning | str, *_: Any, **__: Any) -> str:
        return translate(_in_one_line(str(message))) + "\n"

    warnings.formatwarning = line
    try:
        yield
    finally:
        warnings.formatwarning = before


class _Translated(logging.Formatter):
    """Lines of the log in the words of the command line."""

    def __init__(self, translate: Callable[[str], str]) -> None:
        super().__init__("%(message)s")
        self.translate = translate

    def format(self, record: logging.LogRecord) -> str:
        return self.translate(super().format(record))


def _log_to_stderr(translate: Callable[[str], str]) -> None:
    """Unless the log goes elsewhere already."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Translated(translate))
    logging.basicConfig(handlers=[handler])
    # As hub.py does for its own downloads; a command is quiet about those of transformers too.
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)


def _failures() -> tuple[type[Exception], ...]:
    """Errors of Python's own, and what libraries raise for broken files: configurations, weights, pickles."""
    # Imported when something went wrong: a command's help should not wait for them.
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    own = (ValueError, TypeError, OSError, RuntimeError)
    return (*own, StrictDataclassError, SafetensorError, pickle.UnpicklingError)


def _cause(error: BaseException) -> BaseException:
    """What is wrong: a configuration's own check wraps the error that says it."""
    from huggingface_hub.errors import StrictDataclassError

    return error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error


def _in_one_line(message: str) -> str:
    """Spaces within a line stay: a value that is told may have two."""
    return " ".join(line.strip() for line in message.splitlines() if line.strip())


def _told(message: str) -> str:
    """A message without the tracebacks that pipelines put into theirs: the last line says what was wrong."""
    lines = [line for line in message.splitlines() if line.strip()]
    return lines[-1] if "Traceback (most recent call last)" in message else message
