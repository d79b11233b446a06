"""Rows that were not taken in, kept with why; and what of them is not kept: anything that names somebody who is to be forgotten.

A row is judged by its values: each, taken as an id, an e-mail and a phone, is held against the tombstones' keyed hashes. A short id
may meet a number that means something else; then a row too many is emptied, never one too few.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from audiences.models import RefusedRow
from audiences.people import keys
from audiences.people.keys import Key
from audiences.people.normalise import email, phone

WITHHELD = {"erased": "erased on request", "suppressed": "suppressed on request"}
AT_ONCE = 500

_PHONE = re.compile(r"\+?\(?\d[\d\s()./-]{5,30}\d")
_WORD = re.compile(r"[^\s\"',;:{}\[\]<>\\]+")


def keep(rows: Sequence[RefusedRow], default_region: str) -> None:
    """Put rows on record, in the caller's transaction, those about people who are to be forgotten without what they held."""
    if not rows:
        return
    wanted = [row for row in rows if row.raw]
    named = {id(row): set(names(row.raw, default_region)) for row in wanted}
    buried = keys.tombstoned(key for some in named.values() for key in some)
    for row in wanted:
        if buried.keys() & named[id(row)]:
            row.raw = ""
    RefusedRow.objects.bulk_create(rows, batch_size=1_000)


def forget(digests: set[tuple[str, str]], default_region: str, after: int = 0) -> tuple[int, int | None]:
    """Empty what is kept of rows that name one of these tombstones (kind, digest), in the caller's transaction.

    Looks at AT_ONCE rows after the number `after`; (how many were emptied, the number to go on from, None at the end).
    """
    rows = list(RefusedRow.objects.filter(pk__gt=after).exclude(raw="").order_by("pk")[:AT_ONCE].only("pk", "raw"))
    named = {row.pk: set(names(row.raw, default_region)) for row in rows}
    known = keys.digests(key for some in named.values() for key in some)
    gone = [pk for pk, some in named.items() if any((key[0], known[key]) in digests for key in some)]
    RefusedRow.objects.filter(pk__in=gone).update(raw="")
    return len(gone), rows[-1].pk if len(rows) == AT_ONCE else None


def names(raw: str, default_region: str) -> Iterator[Key]:
    """Whoever a row may be about: each of its values as every kind of identifier that it could be."""
    try:
        content: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:  # cut off, or never JSON
        texts: Iterable[str] = [*_WORD.findall(raw), *_PHONE.findall(raw)]
    else:
        texts = _values(content)
    for text in texts:
        if not text or len(text) > 300:
            continue
        yield "id", text
        yield "anonymous_id", text
        if "@" in text and (address := email(text)):
            yield "email", address
        if _PHONE.fullmatch(text) and (number := phone(text, default_region)):
            yield "phone", number


def _values(content: Any) -> Iterator[str]:
    waiting = [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str):
            yield one.strip()
        elif isinstance(one, int | float) and not isinstance(one, bool):
            yield str(one)
