"""Docstrings in transformers' form as mkdocstrings reads them: types without marks, names that link to their place."""

import re
from typing import Any

import griffe

# `name (`type`, *optional*):` and `first, second (`type`):` at the head of an argument.
_ARGUMENT = re.compile(r"^(\s+)([\w*]+(?:, [\w*]+)*)(?: \((.+)\))?:(?=\s|$)(.*)$")
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):\s*$")
_REFERENCE = re.compile(r"\[`(~?)([\w.]+)`\](?!\[|\()")


class TransformersDocstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object that is read."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """
    A docstring in the form that griffe's reader of Google's style takes.

    Args:
        text (`str`): In transformers' form.
    """
    lines: list[str] = []
    section, indent = "", 0
    # A line above the summary, as after an opening quote alone.
    for line in text.strip("\n").splitlines():
        heading = _SECTION.match(line)
        if heading:
            section, indent = heading.group(1), 0
        elif line and not line[0].isspace():
            section = ""
        elif section in ("Args", "Attributes") and line.strip():
            indent = indent or len(line) - len(line.lstrip())
            found = _ARGUMENT.match(line)
            if found and len(found.group(1)) == indent:
                lines += _argument(*found.groups())
                continue
        elif section in ("Returns", "Yields"):
            line = _result(line)
        lines.append(line)
    return _REFERENCE.sub(r"`\2`", "\n".join(lines))


def _argument(space: str, names: str, kind: str | None, rest: str) -> list[str]:
    plain = f" ({_plain(kind)})" if kind else ""
    return [f"{space}{name}{plain}:{rest}" for name in names.split(", ")]


def _result(line: str) -> str:
    found = re.match(r"^(\s+)(`[^:]+?`(?:[^:`]*)?|\w+\(.+?\)): (.*)$", line)
    return line if found is None else f"{found.group(1)}{_plain(found.group(2))}: {found.group(3)}"


def _plain(kind: str) -> str:
    """A type in words, without marks; its default is read from the signature."""
    words = re.sub(r"\[?`~?([^`]*)`\]?", r"\1", kind).replace("*", "")
    return re.sub(r", optional(, defaults to .*)?$", "", words)
