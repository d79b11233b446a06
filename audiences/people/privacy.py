"""Privacy requests as people make them: whom one is about, taking it in, lifting a suppression, and who came back and was refused.

Leaving itself is removal.py's; what platforms are told, and when a request is done, are the floors' above.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import F, Q
from django.utils import timezone

from audiences.models import Identity, ImportFile, PrivacyRequest, Profile, ProfileKey, Tombstone, User
from audiences.people import keys, normalise, profiles, removal
from audiences.people.keys import Key
from audiences.services import trail

Kind, State = PrivacyRequest.Kind, PrivacyRequest.State
PERIOD = timedelta(days=30)  # from when the person asked to when all must be done
PEOPLE_AT_MOST = 20  # an identifier that more people have names nobody
NOTED_EVERY = timedelta(hours=1)

_CAUSES = {Kind.ERASURE: Tombstone.Cause.ERASED, Kind.SUPPRESSION: Tombstone.Cause.SUPPRESSED}


class NotAsked(Exception):
    """The request cannot be taken in as it is; in words, without the identifier."""


@dataclass(frozen=True, slots=True)
class Taken:
    """`made` false: there was such a request already, and nobody new to whom it applies."""

    request: PrivacyRequest | None
    made: bool


def keys_of(text: str, default_region: str) -> list[Key]:
    """What an identifier of unknown kind can be, the likeliest first; empty where it can be nothing."""
    text = text.strip()
    if not text or len(text.encode()) > 254 or "\0" in text:
        return []
    found: list[Key] = []
    if "@" in text and (address := normalise.email(text)):
        found.append(("email", address))
    if (text[:1] == "+" or text.isdigit()) and (number := normalise.phone(text, default_region)):
        found.append(("phone", number))
    if len(text.encode()) <= 150:
        found.insert(0 if text.isdigit() else len(found), ("id", text))
    return found


def meant(candidates: Sequence[Key]) -> list[Key]:
    """Of what an identifier can be, what it is: whatever somebody has or had, else the likeliest."""
    known = [key for key in candidates if whom([key])]
    return known or list(candidates[:1])


def whom(said: Iterable[Key], *, of_the_removed: bool = True) -> list[int]:
    """Everybody whom these keys lead to today; with them, `of_the_removed`, whoever left and is not forgotten yet."""
    wanted = set(said)
    by_kind: dict[str, list[str]] = {}
    for kind, value in wanted:
        by_kind.setdefault(kind, []).append(value)
    found = {int(value, 16) for kind, value in wanted if kind == "cio_id" and profiles.number_of_cio_id(value)}
    found = set(Profile.objects.filter(pk__in=found, state=Profile.State.LIVE).values_list("pk", flat=True))
    for kind, values in by_kind.items():
        rows = ProfileKey.objects.filter(kind=kind, value__in=values)
        found |= set(rows.values_list("profile_no", flat=True))
    if of_the_removed:
        held = Q(pk__in=[])
        for kind, column in (("id", "external_id"), ("email", "email"), ("phone", "phone")):
            if by_kind.get(kind):
                held |= Q(**{f"{column}__in": by_kind[kind]})
        numbers = set(Identity.objects.filter(held, erased_at=None).values_list("profile_no", flat=True))
        numbers |= {number for request in earlier(wanted) for number in request.people}
        gone = Profile.objects.filter(pk__in=numbers - found, state=Profile.State.DELETED)
        found |= set(gone.values_list("pk", flat=True))
    return sorted(found)


def earlier(said: Iterable[Key]) -> list[PrivacyRequest]:
    """The requests that keep these keys from coming back, the newest first."""
    wanted = [key for key in said if key[0] != "cio_id"]
    if not wanted or not Tombstone.objects.exists():
        return []
    digests = keys.digests(wanted).values()
    removals = Tombstone.objects.filter(digest__in=list(digests)).values_list("removal", flat=True)
    return list(PrivacyRequest.objects.filter(removal__in=list(removals)).order_by("-pk"))


def ask(
    said: Collection[Key],
    *,
    kind: str,
    source: str,
    at_us: int,
    people: Collection[int] | None = None,
    actor: User | None = None,
    asked_at: datetime | None = None,
    reference: str = "",
    import_file: ImportFile | None = None,
) -> Taken:
    """Take in a request, in the caller's transaction: whom it is about leaves at once, and can never come back by these keys.

    `people`: chosen among those that the keys lead to; None: all of them. Nobody need be known: the keys are kept from coming
    in all the same. Raises NotAsked.
    """
    cause = _CAUSES[Kind(kind)]
    chosen = whom(said, of_the_removed=kind == Kind.ERASURE) if people is None else sorted(people)
    if len(chosen) > PEOPLE_AT_MOST:
        raise NotAsked(f"more than {PEOPLE_AT_MOST} people answer to this: name them by customer id")
    outright = {key for key in said if key[0] != "cio_id"}
    if not chosen:
        if not outright:
            return Taken(None, False)
        buried = keys.tombstoned(outright)
        if all(buried.get(key) in (cause, Tombstone.Cause.ERASED) for key in outright):
            return Taken(next(iter(earlier(outright)), None), False)
    before = [request.removal for request in earlier(outright)] if kind == Kind.ERASURE else []
    gone = removal.remove_for_good(chosen, cause, outright, at_us=at_us)
    # What a suppression had buried beside these keys is erased with them: nobody lifts it any more.
    Tombstone.objects.filter(removal__in=before).update(cause=cause, removal=gone.removal)
    now = timezone.now()
    asked = min(asked_at or now, now)
    request = PrivacyRequest.objects.create(
        kind=kind,
        source=source,
        reference=reference[:100],
        requested_by=actor,
        import_file=import_file,
        asked_at=asked,
        due_at=asked + PERIOD,
        removal=gone.removal,
        people=gone.people,
        identities=gone.identities,
    )
    after = {"kind": str(kind), "source": str(source), "people": len(gone.people)}
    trail.record(actor, "privacy.asked", "privacy", str(request.pk), after=after)
    return Taken(request, True)


def lift(request: PrivacyRequest, *, actor: User | None, reason: str = "") -> None:
    """A suppression ends, in the caller's transaction: who left may come in anew, as somebody new. Raises NotAsked."""
    row = PrivacyRequest.objects.select_for_update().get(pk=request.pk)
    if row.kind != Kind.SUPPRESSION or row.state == State.LIFTED:
        raise NotAsked("Only a suppression that stands can be lifted.")
    if row.is_open and row.people:
        raise NotAsked("They are still being taken out everywhere; it can be lifted when that is done.")
    removal.unbury(row.removal)
    row.state, row.lifted_by, row.lifted_at, row.lift_reason = State.LIFTED, actor, timezone.now(), reason[:500]
    row.save(update_fields=["state", "lifted_by", "lifted_at", "lift_reason"])
    trail.record(actor, "privacy.lifted", "privacy", str(row.pk), reason=reason)


def unsuppress(key: Key) -> bool:
    """The Track API's way to lift: all that this key's suppression buried may come back, at once. Whether there was one."""
    digest = keys.digests([key])[key]
    suppressed = Tombstone.objects.filter(kind=key[0], digest=digest, cause=Tombstone.Cause.SUPPRESSED)
    removals = list(suppressed.values_list("removal", flat=True))
    lifted = sum(removal.unbury(one) for one in removals)
    rows = PrivacyRequest.objects.filter(removal__in=removals)
    rows.update(lifted_at=timezone.now(), lift_reason="Unsuppressed by the Track API")
    rows.filter(state=State.DONE).update(state=State.LIFTED)  # one under way is when it is done
    return bool(lifted)


def came_back(said: Iterable[Key]) -> set[Key]:
    """Note that these buried keys were met again and refused, in the caller's transaction; those to put on record: each once an hour."""
    wanted = set(said)
    if not wanted:
        return set()
    digests = keys.digests(wanted)
    now = timezone.now()
    rows = Tombstone.objects.filter(digest__in=list(digests.values()))
    lately = set(rows.filter(refused_at__gt=now - NOTED_EVERY).values_list("digest", flat=True))
    rows.update(refused=F("refused") + 1, refused_at=now)
    return {key for key, digest in digests.items() if digest not in lately}
