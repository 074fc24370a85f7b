"""Times written in a log's own way, such as `31.12.2018 14:05`: their parts, by expressions that every engine runs.

Engines have readers of such formats, but each of them takes other directives, and says of a time that it cannot read
something else, or nothing.
"""

import re
from typing import NamedTuple

import narwhals as nw

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ANY_MONTH = "|".join("".join(f"[{letter.upper()}{letter}]" for letter in month) for month in MONTHS)
# Those of `strftime`: at most so many digits, all of them where other digits follow at once.
_DIGITS = {"Y": 4, "y": 2, "m": 2, "d": 2, "H": 2, "I": 2, "M": 2, "S": 2, "f": 9}
_WORDS = {"b": f"({_ANY_MONTH})", "p": "[AaPp][Mm]"}
_DATES = ("Ymd", "ymd", "Ybd", "ybd")
_AS_WRITTEN = re.compile(
    "([0-9]{4}|[0-9]{1,2})(?P<mark>[-./ ])(?P<middle>[0-9]{1,2}|[A-Za-z]{3})(?P=mark)(?P<last>[0-9]{4}|[0-9]{1,2})"
    "((?P<gap>[T,; ]+)[0-9]{1,2}:[0-9]{2}(?P<second>:[0-9]{2})?(?P<fraction>[.][0-9]{1,9})?(?P<half> ?[AaPp][Mm])?)?"
)


class Fields(NamedTuple):
    """Parts of dates and times of day, int64; what is below a second stands elsewhere."""

    year: nw.Expr
    month: nw.Expr
    day: nw.Expr
    hour: nw.Expr
    minute: nw.Expr
    second: nw.Expr


class TimeFormat:
    """
    How a log writes its times.

    Args:
        written (`str`):
            With the directives of `strftime` for a year (`%Y`, `%y`: 69 to 99 are of the last century), a month (`%m`,
            `%b`: three letters of its English name), a day (`%d`) and a time of day (`%H`, or `%I` with `%p`; `%M`,
            `%S`, and `%f` for up to nine decimals of a second). Numbers may lack zeros in front, but for those that
            another one follows at once.

    Raises:
        ValueError: For other directives, one that stands twice, or a format without a date.
    """

    def __init__(self, written: str) -> None:
        self.written = written
        self.pattern, self._before, self._widths = "^", dict[str, str](), dict[str, int]()
        pieces = re.findall("%.|%|[^%]", written, re.DOTALL)
        for place, piece in enumerate(pieces):
            if piece[0] != "%" or piece == "%%":
                self.pattern += _literal(piece[-1])
                continue
            directive = piece[1:]
            if directive not in _DIGITS | _WORDS:
                known = ", ".join(f"%{name}" for name in _DIGITS | _WORDS)
                raise ValueError(
                    f"time_format={written!r} holds {piece!r}; it is made of {known} and what stands between them. "
                    "Write times of another form as ISO 8601 (2018-12-31 14:05) before"
                )
            if directive in self._before:
                raise ValueError(f"time_format={written!r} holds {piece!r} twice")
            self._before[directive] = self.pattern
            digits = _DIGITS.get(directive, 0)
            beside = (pieces[other][1:] for other in (place - 1, place + 1) if 0 <= other < len(pieces))
            if not digits:
                self._widths[directive] = 3 if directive == "b" else 2
                self.pattern += _WORDS[directive]
            elif directive == "Y" or (directive != "f" and any(other in _DIGITS for other in beside)):
                self._widths[directive] = digits
                self.pattern += f"[0-9]{{{digits}}}"
            else:
                self._widths[directive] = 0
                self.pattern += f"[0-9]{{1,{digits}}}"
        self.pattern += "$"
        if not any(set(date) <= set(self._before) for date in _DATES):
            raise ValueError(f"time_format={written!r} holds no date: a year %Y or %y, a month %m or %b and a day %d")
        if {"Y", "y"} <= set(self._before) or {"m", "b"} <= set(self._before) or {"H", "I"} <= set(self._before):
            raise ValueError(f"time_format={written!r} holds two years, months or hours")
        if ("I" in self._before) != ("p" in self._before):
            raise ValueError(f"time_format={written!r}: %I, hours from 1 to 12, goes with %p, AM or PM")

    def fields(self, text: nw.Expr) -> Fields:
        """The parts of texts that the pattern holds; what a format lacks is 0."""
        if "b" in self._before:
            month = nw.lit(0, nw.Int64)
            for number, name in enumerate(MONTHS, start=1):
                month = month + number * (self._text(text, "b").str.to_lowercase() == name).cast(nw.Int64)
        else:
            month = self._number(text, "m")
        if "y" in self._before:
            year = self._number(text, "y")
            year = year + 1900 + 100 * (year < 69).cast(nw.Int64)
        else:
            year = self._number(text, "Y")
        if "I" in self._before:
            hour = self._number(text, "I")
            is_after_noon = self._text(text, "p").str.to_lowercase() == "pm"
            # 12 AM is midnight, 12 PM noon; 0 and 13 are no hours of such a clock.
            is_hour = (hour >= 1) & (hour <= 12)
            hour = nw.when(is_hour).then(hour % 12 + 12 * is_after_noon.cast(nw.Int64)).otherwise(nw.lit(24))
        else:
            hour = self._number(text, "H")
        day, minute, second = (self._number(text, directive) for directive in "dMS")
        return Fields(year, month, day, hour, minute, second)

    def billionths(self, text: nw.Expr) -> nw.Expr | None:
        """What such texts say below a second, in nanoseconds; nothing for a format without it."""
        if "f" not in self._before:
            return None
        return nw.concat_str([self._text(text, "f"), nw.lit("000000000")]).str.slice(0, 9).cast(nw.Int64)

    @property
    def swapped(self) -> "TimeFormat | None":
        """The same with day and month in each other's places; nothing where the month has a name."""
        if "b" in self._before:
            return None
        other = {"%d": "%m", "%m": "%d"}
        return TimeFormat(re.sub("%.", lambda found: other.get(found[0], found[0]), self.written, flags=re.DOTALL))

    def _text(self, text: nw.Expr, directive: str) -> nw.Expr:
        rest = text.str.replace_all(self._before[directive], "")
        width = self._widths[directive]
        return rest.str.slice(0, width) if width else rest.str.replace_all("[^0-9].*$", "")

    def _number(self, text: nw.Expr, directive: str) -> nw.Expr:
        return self._text(text, directive).cast(nw.Int64) if directive in self._before else nw.lit(0, nw.Int64)


def guessed_formats(text: str) -> list[list[TimeFormat]]:
    """
    What a time may be written as, by its separators and the digits of its numbers alone.

    Args:
        text (`str`): Such as `26/01/2008 08:33 PM`, without spaces around.

    Returns:
        `list[list[TimeFormat]]`: The likeliest first; within a list, formats that are as likely as each other, of
        which those with the day first come first. Empty for other writings.
    """
    found = _AS_WRITTEN.fullmatch(text)
    if found is None:
        return []
    if len(found[1]) == 4:
        likely = ["Ybd"] if found["middle"].isalpha() else ["Ymd", "Ydm"]
        orders = [[order] for order in likely if len(found["last"]) < 4]
    else:
        year = "Y" if len(found["last"]) == 4 else "y"
        if found["middle"].isalpha():
            orders = [[f"db{year}"]]
        else:
            orders = [[f"dm{year}", f"md{year}"], *([] if year == "Y" else [["ymd"]])]
    clock = ""
    if found["gap"]:
        clock = f"{found['gap']}%{'I' if found['half'] else 'H'}:%M{':%S' if found['second'] else ''}"
        clock += ".%f" if found["fraction"] else ""
        clock += re.sub("..$", "%p", found["half"] or "")
    return [
        [TimeFormat(found["mark"].join(f"%{directive}" for directive in order) + clock) for order in alike]
        for alike in orders
    ]


def _literal(character: str) -> str:
    """A character in a regular expression of any engine."""
    if character in r"[]^\-":
        return f"\\{character}"
    return character if character.isalnum() or character == " " else f"[{character}]"
