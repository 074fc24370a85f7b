"""Names that may have been meant by one that there is not: of options, columns and commands."""

import difflib
import re
from collections.abc import Iterable

_MOST = 3
# As `difflib.get_close_matches` counts likeness, from 0 to 1.
_LIKE, _WORD_LIKE = 0.6, 0.8
# More names than these nobody reads in one line.
_LISTED = 30


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """
    The names that may have been meant, the most likely first.

    Args:
        name (`str`): What there is not, `epochs`.
        known (`Iterable[str]`): What there is.

    Returns:
        `list[str]`: Three at most: those whose initials it is (`lr` of `learning_rate`), else those that hold all its
        words (`num_train_epochs`), else the one that is spelled most alike. Case, `_` and `-` do not count.
    """
    spellings = {each: _spelling(each) for each in known}
    wanted = _spelling(name)
    same = [each for each, spelling in spellings.items() if spelling == wanted]
    if same:
        return same[:_MOST]
    if len(wanted) > 1:
        found = [each for each, spelling in spellings.items() if "".join(re.findall(r"\b\w", spelling)) == wanted]
        if found:
            return found[:_MOST]
    found = [each for each, spelling in spellings.items() if wanted and _holds(spelling.split(), wanted.split())]
    if found:
        return sorted(found, key=lambda each: -_likeness(wanted, spellings[each]))[:_MOST]
    close = difflib.get_close_matches(wanted, spellings.values(), n=1, cutoff=_LIKE)
    return [each for each, spelling in spellings.items() if close and spelling == close[0]][:1]


def remedy(name: str, known: Iterable[str], listed_in: str | None = None) -> str:
    """
    What an error says of a name that there is not: `did you mean 'num_train_epochs'?`, or what there is.

    Args:
        name (`str`): What there is not.
        known (`Iterable[str]`): What there is.
        listed_in (`str`, *optional*): What lists many names, to be named in their place.
    """
    known = list(known)
    near = nearest(name, known)
    if near:
        return did_you_mean(near)
    if listed_in is not None and len(known) > _LISTED:
        return f"{listed_in} lists all {len(known)}"
    return f"there are {', '.join(sorted(known))}"


def did_you_mean(names: list[str]) -> str:
    """`did you mean 'a', 'b' or 'c'?`"""
    *others, last = map(repr, names)
    return f"did you mean {', '.join(others) + ' or ' if others else ''}{last}?"


def _spelling(name: str) -> str:
    return " ".join(re.findall(r"[^\s_-]+", name.lower()))


def _holds(words: list[str], wanted: list[str]) -> bool:
    """Whether each of the wanted words is there, `epoch` as `epochs`, `len` as `length`."""
    return all(
        any(_likeness(one, other) >= _WORD_LIKE or (len(one) > 2 and other.startswith(one)) for other in words)
        for one in wanted
    )


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
