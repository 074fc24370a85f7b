"""Which column of a log is the user, the item, the time and the rating."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mmm4rec_hf.suggestions import did_you_mean, nearest

logger = logging.getLogger(__name__)

# Compared in lower case, with letters and digits only: `userId`, `user_id` and RecBole's `user_id:token` are one name.
# Names that stand beside another of the same list in usual logs, such as `updated_at` or `username`, are left out.
ALIASES = {
    "user_id": (
        *("userid", "user", "uid", "reviewerid", "reviewer", "visitorid", "visitor", "memberid", "member"),
        *("customerid", "customer", "customerno", "customernumber", "custid", "buyerid", "buyer"),
        *("clientid", "client", "shopperid", "shopper", "purchaserid", "purchaser"),
    ),
    "item_id": (
        *("itemid", "item", "iid", "itemno", "itemnumber", "asin", "parentasin", "movieid", "trackid", "songid"),
        *("bookid", "videoid", "gameid", "recipeid", "businessid", "productid", "product", "productno"),
        *("productnumber", "articleid", "article", "articleno", "articlenumber", "sku", "stockcode", "lineitemsku"),
    ),
    "timestamp": (
        *("timestamp", "time", "ts", "datetime", "date", "unixtime", "unixtimestamp", "unixreviewtime"),
        *("reviewtime", "reviewdate", "reviewedat", "ratedat", "eventtime", "eventtimestamp", "eventdate"),
        *("eventdatetime", "occurredat", "createdat", "creationtime", "creationdate", "createdon", "viewedat"),
        *("clickedat", "boughtat", "boughton", "purchasedat", "purchasedon", "purchasedate", "purchasetime"),
        *("purchasetimestamp", "orderedat", "orderedon", "orderdate", "ordertime", "ordertimestamp"),
        *("orderdatetime", "placedat", "solddate", "soldat", "saledate", "invoicedate", "transactiondate"),
        *("transactiontime", "transactiontimestamp", "dateofpurchase", "dateoforder", "tdat"),
    ),
    "rating": ("rating", "overall", "score", "stars"),
}
# What else a column of times may be called, in words; a row's own times are no event's.
TIME_LIKE = re.compile(
    r"^(?!(updated|modified|changed|deleted|exported|loaded) )(.* )?(at|on|date|time|timestamp|datetime|when)$"
)
# Layouts that are known by all these names together, where a single name would be in question.
LAYOUTS = (
    {"user_id": "reviewerID", "item_id": "asin", "timestamp": "unixReviewTime", "rating": "overall"},
    {"user_id": "user_id", "item_id": "parent_asin", "timestamp": "timestamp", "rating": "rating"},
)
ARGUMENTS = {
    "user_id": "user_column",
    "item_id": "item_column",
    "timestamp": "timestamp_column",
    "rating": "rating_column",
    "order": "order_column",
}
# What orders the events of one time, and tells no rows apart; the second is there beside an order that was told.
ORDER = ("order", "row")


@dataclass(frozen=True)
class LogColumns:
    """The names, in a log, of the columns this package needs; what is None has not been told or is not there.

    Args:
        user_id (`str`, *optional*): The column of user ids.
        item_id (`str`, *optional*): The column of item ids.
        timestamp (`str`, *optional*): The column of times.
        rating (`str`, *optional*): The column of ratings.
        order (`str`, *optional*): A column of integers that orders events of the same time. Where it is equal, as by
            default, the rows' order counts.
        usual (`Mapping[str, str]`, *optional*): What columns are called in other logs of the same source, by the names
            of `ARGUMENTS`. Such a name counts before those that are usual everywhere, where nothing is told and the
            log has it.
    """

    user_id: str | None = None
    item_id: str | None = None
    timestamp: str | None = None
    rating: str | None = None
    order: str | None = None
    usual: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def ours(cls, names: Collection[str]) -> "LogColumns":
        """Columns that a reader has called by these names of ours."""
        user, item, timestamp, rating, order = (name if name in names else None for name in ARGUMENTS)
        return cls(user, item, timestamp, rating, order)

    def resolve(self, names: Sequence[str], where: str) -> dict[str, str]:
        """The column for each of our names, told or found by alias, among the columns `names` of the log `where`.

        Raises:
            ValueError: If a told column is not there, a needed one is not found, or two come into question.
        """
        told = {"user_id": self.user_id, "item_id": self.item_id, "timestamp": self.timestamp, "rating": self.rating}
        layout: Mapping[str, str] = next((known for known in LAYOUTS if set(known.values()) <= set(names)), {})
        found, missing, not_told = {}, [], []
        for ours, name in told.items():
            if name is None:
                name = self._usual(ours, names) or layout.get(ours) or _find(ours, names, where)
                not_told.append(ours)
            elif name not in names:
                likely = nearest(name, names)
                meant = f", {did_you_mean(likely)}" if likely else ";"
                raise ValueError(f"{ARGUMENTS[ours]}={name!r} is no column of {where}{meant} it has {_listing(names)}")
            if name is not None:
                found[ours] = name
            elif ours != "rating":
                missing.append(ours)
        if missing:
            numbers = "; a log without times needs a column that numbers its rows" if missing == ["timestamp"] else ""
            raise ValueError(
                f"no {_series(missing, 'or')} column found in {where}; it has {_listing(names)}. Give "
                f"{_series([f'{ARGUMENTS[ours]}=' for ours in missing], 'and')}{numbers}; if the first line is data "
                "and no header, give the format or a data frame with named columns"
            )
        order = self._order(found, names, where)
        if order is not None:
            found["order"] = order
        _check_distinct(found, where)
        guessed = [ours for ours in not_told if found.get(ours, ours).split(":")[0] not in (ours, layout.get(ours))]
        self._doubt_times(found, guessed, names, where)
        if guessed:
            logger.info("%s: %s", where, ", ".join(f"the {ours} is read from {found[ours]!r}" for ours in guessed))
        return found

    def _order(self, found: Mapping[str, str], names: Sequence[str], where: str) -> str | None:
        """The column that was told to order events of one time, or the usual one, unless it is another of ours."""
        if self.order is not None and self.order not in names:
            raise ValueError(f"order_column={self.order!r} is no column of {where}; it has {_listing(names)}")
        usual = self.usual.get(ARGUMENTS["order"])
        if self.order is not None or usual is None or usual in found.values():
            return self.order
        if usual not in names:
            logger.info("%s has no column %r: the order of its rows orders events of the same time", where, usual)
            return None
        logger.info("%s: %r orders events of the same time", where, usual)
        return usual

    def _usual(self, ours: str, names: Sequence[str]) -> str | None:
        name = self.usual.get(ARGUMENTS[ours])
        return name if name in names else None

    def _doubt_times(self, found: Mapping[str, str], guessed: Sequence[str], names: Sequence[str], where: str) -> None:
        """Refuses to choose where another column may hold the times: in a wrong order every history would be one."""
        if "timestamp" not in guessed or found["timestamp"] == self.usual.get(ARGUMENTS["timestamp"]):
            return
        others = [name for name in names if name not in found.values() and TIME_LIKE.search(_words(name))]
        if others:
            raise ValueError(
                f"{_series([repr(name) for name in (found['timestamp'], *others)], 'and')} of {where} may each be the "
                f"timestamp column; say which with {ARGUMENTS['timestamp']}={others[0]!r} or the like"
            )


def candidates_for(ours: str, names: Iterable[str]) -> list[str]:
    """The columns whose names are usual ones of ours."""
    return [name for name in names if _key(name) in ALIASES[ours]]


def _find(ours: str, names: Sequence[str], where: str) -> str | None:
    candidates = candidates_for(ours, names)
    if len(candidates) > 1:
        raise ValueError(
            f"{' and '.join(map(repr, candidates))} of {where} may each be the {ours} column; say which with "
            f"{ARGUMENTS[ours]}={candidates[0]!r}"
        )
    return candidates[0] if candidates else None


def _check_distinct(found: Mapping[str, str], where: str) -> None:
    taken: dict[str, str] = {}
    for ours, name in found.items():
        if name in taken:
            raise ValueError(
                f"column {name!r} of {where} is given for both {taken[name]} and {ours}; they must be two columns"
            )
        taken[name] = ours


def _words(name: str) -> str:
    """`watchedAt`, `watched_at` and `watched-at` as `watched at`."""
    return re.sub(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])", " ", name.split(":")[0]).strip().lower()


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.split(":")[0].lower())


def _series(words: Sequence[str], last: str) -> str:
    """`a`, `a and b`, or `a, b and c`."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:20]))
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown or "no columns"
