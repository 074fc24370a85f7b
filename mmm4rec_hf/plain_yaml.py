"""YAML of plain values: nothing in it is run, and it is no larger than it looks."""

import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

# Some thousand lines; the parser takes seconds for more.
MAX_CHARACTERS = 1 << 20


_BOOL = "tag:yaml.org,2002:bool"


class _PlainLoader(yaml.SafeLoader):
    """
    Without aliases: a few lines of them stand for more values than fit any memory. `no`, `yes`, `on` and `off` are
    texts, as in YAML 1.2: `eval_strategy: no` names a strategy.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"the alias *{event.anchor} is not read; write the values out", event.start_mark
            )
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(
                None, None, f"the tag {event.tag} is not read; write the value alone", event.start_mark
            )
        return super().compose_node(parent, index)


_PlainLoader.add_implicit_resolver(_BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def load_yaml(text: str, where: str) -> Any:
    """
    The plain values of a YAML document.

    Args:
        text (`str`): The document.
        where (`str`): What to call it in an error.

    Raises:
        ValueError: If it is no YAML, is very long, or has tags, aliases or more nesting than Python can read.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{where} has {len(text):,} characters, more than any YAML file of this package")
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where} is no YAML of plain values: {' '.join(str(error).split())}") from error


def read_yaml(path: Path) -> dict[Any, Any]:
    """
    The names and values of a YAML file.

    Args:
        path (`Path`): The file.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: As [`load_yaml`], or if it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no YAML of plain values: {error}") from error
    values = load_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold `name: value` lines, got {type(values).__name__}")
    return values
