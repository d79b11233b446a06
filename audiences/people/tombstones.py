"""The tombstones as a file that outlives the database: whom a restored backup must not bring back. Keyed hashes only, no identifier.

Backups are of the past: whoever was erased since then is in them. The file is small; copied more often than backups are made, it
says afterwards whom to ask for again. It fits the database that it came from and its backups, for the hashes' key is in there.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import orjson
from django.db import transaction

from audiences.clock import now_us
from audiences.models import PrivacyRequest, ProfileKey, Tombstone
from audiences.people import intake, keys, privacy

AT_ONCE = 5_000
_PROOF = ("", "tombstones")  # its digest tells whether a file's hashes are of this database's key


class WrongFile(Exception):
    """Not such a file, or of another database; in words."""


@dataclass(frozen=True, slots=True)
class Buried:
    """What applying a file did: hashes that were missing, and people who had come back with the backup."""

    hashes: int
    people: int


def lines() -> Iterator[str]:
    """JSON, one object a line; the first says of which key the others are."""
    yield orjson.dumps({"proof": keys.digests([_PROOF])[_PROOF]}).decode()
    rows = Tombstone.objects.order_by("pk").values("kind", "digest", "cause", "removal")
    for row in rows.iterator(chunk_size=AT_ONCE):
        yield orjson.dumps(row).decode()


def apply(text: Iterable[str], progress: Callable[[int, int], None] = lambda done, of: None) -> Buried:
    """Bury again what the file has and the database has not, and ask again for whoever is back. Raises WrongFile."""
    causes = _read(text)
    missing = causes.keys() - set(Tombstone.objects.values_list("kind", "digest"))
    asked = 0
    total, done, last = ProfileKey.objects.count(), 0, 0
    while rows := list(ProfileKey.objects.filter(pk__gt=last).order_by("pk")[:AT_ONCE]):
        digests = keys.digests((row.kind, row.value) for row in rows)
        for row in rows:
            found = causes.get((row.kind, digests[row.kind, row.value]))
            if found is not None and ProfileKey.objects.filter(pk=row.pk).exists():  # not gone with somebody before
                asked += _ask_again(row, found[0])
        last, done = rows[-1].pk, done + len(rows)
        progress(done, total)
    with transaction.atomic():  # those of whom only the hash is left
        Tombstone.objects.bulk_create(
            [
                Tombstone(kind=kind, digest=digest, cause=causes[kind, digest][0], removal=causes[kind, digest][1])
                for kind, digest in sorted(missing)
            ],
            batch_size=1_000,
            ignore_conflicts=True,
        )
    return Buried(len(missing), asked)


def _read(text: Iterable[str]) -> dict[tuple[str, str], tuple[str, str]]:
    causes: dict[tuple[str, str], tuple[str, str]] = {}
    proof = ""
    for number, line in enumerate(text, 1):
        try:
            row = orjson.loads(line)
            if number == 1:
                proof = row["proof"]
                continue
            if row["cause"] not in Tombstone.Cause.values or len(row["digest"]) != 64:
                raise ValueError
            causes[row["kind"], row["digest"]] = row["cause"], row["removal"][:32]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise WrongFile(f"Line {number} is none that `tombstones` writes.") from None
    if not hmac.compare_digest(proof, keys.digests([_PROOF])[_PROOF]):
        raise WrongFile("This file is of another database: its hashes say nothing here.")
    return causes


def _ask_again(row: ProfileKey, cause: str) -> int:
    kind = PrivacyRequest.Kind.ERASURE if cause == Tombstone.Cause.ERASED else PrivacyRequest.Kind.SUPPRESSION
    taken = intake.in_transaction(
        lambda: privacy.ask(
            [(row.kind, row.value)] if row.kind != ProfileKey.Kind.ANONYMOUS else [],
            kind=kind,
            source=PrivacyRequest.Source.COMMAND,
            at_us=now_us(),
            people=[row.profile_no],
            reference="after a restore",
        )
    )
    return int(taken.made)
