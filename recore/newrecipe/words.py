"""Names of columns in many dialects. Compared in lower case, without a type (`user_id:token`) and without anything
that is neither letter nor digit.

Each role has tiers: of two columns that both fit, the one in the earlier tier is taken; two in one tier are a
question for the user.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

Role = Literal["user", "item", "time", "rating"]
Tiers = tuple[frozenset[str], ...]

TYPES: Final = ("token", "token_seq", "float", "float_seq")  # of RecBole's atomic files


def _with_ids(*names: str) -> frozenset[str]:
    """The names themselves and with `id`, `key`, `code` or `no` behind them."""
    return frozenset(name + end for name in names for end in ("", "id", "ids", "key", "code", "no", "idx"))


USER: Final[Tiers] = (
    _with_ids("user", "u") | {"uid", "userhash", "msno"},
    _with_ids(
        "reviewer", "customer", "client", "visitor", "member", "person", "account", "buyer", "listener", "reader",
        "subscriber", "profile", "viewer", "player", "shopper", "student", "learner", "household", "consumer",
        "patient", "owner", "rater",
    ),
    frozenset({"username", "reviewername", "nickname", "login", "email"}),
)  # fmt: skip
SESSION: Final[Tiers] = (
    _with_ids("session", "sess", "visit", "playlist", "basket", "cart", "order", "invoice", "trip") | {"sid"},
)
ITEM: Final[Tiers] = (
    _with_ids("item", "i") | {"iid", "itemhash"},
    _with_ids(
        "movie", "asin", "parentasin", "product", "prod", "sku", "track", "song", "artist", "book", "isbn",
        "article", "news", "video", "venue", "poi", "place", "location", "business", "game", "app", "course",
        "recipe", "anime", "beer", "restaurant", "listing", "hotel", "thread", "page", "content", "offer", "stock",
        "goods", "ad", "doc", "document", "show", "film", "episode", "podcast", "photo", "image", "post", "job",
        "question", "property", "creative", "gmap",
    ),
    frozenset({"url", "itemname", "productname", "trackname", "movietitle", "title", "name"}),
)  # fmt: skip
TIME: Final[Tiers] = (
    frozenset(
        {
            "timestamp", "time", "ts", "t", "unixtime", "unixtimestamp", "unixreviewtime", "datetime", "createdat",
            "eventtime", "eventtimestamp", "createdtime", "utctime", "timestampms", "timems", "epoch", "seconds",
            "second", "minute", "minutes", "clicktime", "servertime", "watchedat", "playedat", "ratedat",
            "interactiontime", "visittime", "checkintime", "addtime", "purchasetime", "starttime", "createtime",
            "at", "when", "occurredat", "unix",
        }
    ),
    frozenset(
        {
            "date", "reviewtime", "reviewdate", "eventdate", "orderdate", "invoicedate", "purchasedate",
            "created", "day", "tdat", "localtime", "updatedat", "modified", "hour",
        }
    ),
)  # fmt: skip
RATING: Final[Tiers] = (
    frozenset(
        {"rating", "ratings", "stars", "star", "overall", "score", "reviewoverall", "reviewscore", "grade"}
    ),
    frozenset({"vote", "votes", "reviewrating", "overallrating", "myrating"}),
)
# What kind of event a row is; no part reads it, so it is told.
EVENT_KIND: Final = frozenset(
    {
        "event",
        "eventtype",
        "action",
        "actiontype",
        "behavior",
        "behaviour",
        "behaviortype",
        "type",
        "interaction",
    }
)

ROLES: Final[dict[Role, Tiers]] = {"user": USER, "item": ITEM, "time": TIME, "rating": RATING}


def plain(name: str) -> str:
    """`user_id:token` → `userid`."""
    head, mark, kind = name.strip().rpartition(":")
    text = head if mark and kind in TYPES else name
    return re.sub(r"[\W_]", "", text.lower())


def typed_header(names: Sequence[str]) -> bool:
    """Whether every name carries a type, as in RecBole's atomic files."""
    return all(name.rpartition(":")[2] in TYPES and ":" in name for name in names)


def known(name: str) -> bool:
    """Whether a name has a meaning here."""
    word = plain(name)
    every = (*USER, *SESSION, *ITEM, *TIME, *RATING, EVENT_KIND)
    return any(word in tier for tier in every)


def by_name(names: Sequence[str], tiers: Tiers) -> list[str]:
    """The columns of the first tier that any name is in."""
    for tier in tiers:
        found = [name for name in names if plain(name) in tier]
        if found:
            return found
    return []
