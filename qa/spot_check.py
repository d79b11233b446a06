"""Spot checks: a few real people of one version, each judged by hand and by machine, and a name under the result.

Whom to look at is drawing.py's. A sign-off holds for its version alone: a new version needs a new one.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.dateformat import format as format_date

from audiences import jobs
from audiences.models import Audience, SegmentVersion, User
from audiences.people.engines.base import UnreadableLake
from audiences.services import trail
from destinations.models import Mapping
from destinations.services import refuse
from destinations.trace import Trace
from qa import drawing
from qa.models import SpotCheck, SpotCheckPerson

log = logging.getLogger(__name__)

TASK = "qa.spot_check"
FEWEST, MOST = 10, 20
ENOUGH = 0.9  # below this share of agreement a sign-off says why


@dataclass(frozen=True, slots=True)
class Agreement:
    """So many of so many people are in order."""

    agree: int
    of: int

    @property
    def enough(self) -> bool:
        return self.of > 0 and self.agree >= ENOUGH * self.of

    def __str__(self) -> str:
        return f"{self.agree} of {self.of} agree"


def version_of(audience: Audience) -> SegmentVersion | None:
    """The version that a spot check of this audience is about: the live one, else the newest."""
    return audience.live_version or audience.versions.order_by("-number").first()


def start(*, actor: User, audience: Audience, connection: Mapping | None = None, size: int = MOST) -> SpotCheck:
    """Have people drawn, soon. The one that is being drawn already, if there is one. Raises Refused."""
    if audience.archived_at:
        raise refuse("The audience is archived.")
    version = version_of(audience)
    if version is None:
        raise refuse("The audience has no rule yet: there is nothing to check people against.")
    if not FEWEST <= size <= MOST:
        raise refuse(f"Between {FEWEST} and {MOST} people are drawn.", "size")
    if connection is not None and connection.audience_id != audience.pk:
        raise refuse("This connection is another audience's.", "connection")
    with transaction.atomic():
        Audience.objects.select_for_update().get(pk=audience.pk)
        drawing_now = audience.spot_checks.filter(state=SpotCheck.State.DRAWING, version=version).first()
        if drawing_now is not None:
            return drawing_now
        check = SpotCheck.objects.create(
            audience=audience, version=version, mapping=connection, size=size, asked_by=actor
        )
        after = {"version": version.number, "people": size}
        trail.record(actor, "spot_check.started", "audience", audience.key, after=after)
        jobs.ask(TASK, check.pk)
    return check


@jobs.job(TASK, queue="compute")
def draw(claim: jobs.Claim) -> None:
    """Draw the people of the spot check whose id is the key."""
    check = (
        SpotCheck.objects.select_related("audience", "version", "mapping__destination")
        .filter(pk=int(claim.key), state=SpotCheck.State.DRAWING)
        .first()
    )
    if check is None:
        return
    try:
        drawn = drawing.draw(check.version, check.size, check.mapping)
        claim.renew()
        side = drawing.platform_side(check.mapping, drawn)
    except (drawing.CannotDraw, UnreadableLake) as error:
        words = str(error) if isinstance(error, drawing.CannotDraw) else "Files of the event history could not be read."
        _fail(check, words)
        return
    except jobs.LeaseLost:
        raise
    except Exception as error:
        log.exception("spot check broke off", extra={"spot_check": check.pk})
        _fail(check, f"A fault of ours ({type(error).__name__}); it is in the log.")
        return
    with transaction.atomic():
        claim.guard()
        check.people.all().delete()  # of an attempt that was killed
        SpotCheckPerson.objects.bulk_create(_row(check, person, side) for person in drawn.people)
        SpotCheck.objects.filter(pk=check.pk, state=SpotCheck.State.DRAWING).update(
            state=SpotCheck.State.READY, as_of_us=drawn.as_of_us, means=side.means[:300], drawn_at=timezone.now()
        )


def note(*, actor: User, check: SpotCheck, person: SpotCheckPerson, found: bool | None, words: str) -> None:
    """What somebody found of this person on the platform by looking there themselves. Raises Refused once it is signed."""
    with transaction.atomic():
        row = SpotCheck.objects.select_for_update().get(pk=check.pk)
        if row.state != SpotCheck.State.READY:
            raise refuse("It is signed off already, and a signed spot check does not change. Draw a new one.")
        SpotCheckPerson.objects.filter(pk=person.pk, check_of=row).update(by_hand=found, note=words.strip()[:300])
        after = {"spot_check": row.pk, "found": found}  # whom it is about stays in the spot check
        trail.record(actor, "spot_check.noted", "audience", row.audience.key, after=after)


def sign(*, actor: User, check: SpotCheck, words: str = "") -> SpotCheck:
    """Put a name under it. Raises Refused where it does not hold any more, or agrees too little and nobody says why."""
    words = words.strip()
    with transaction.atomic():
        row = SpotCheck.objects.select_for_update().get(pk=check.pk)
        if row.state == SpotCheck.State.SIGNED:
            raise refuse(f"It was signed off by {row.signed_by or 'somebody'} already.")
        if row.state != SpotCheck.State.READY:
            raise refuse("There is nothing to sign yet.")
        now = version_of(row.audience)
        if now is None or now.pk != row.version_id:
            raise refuse(f"v{now.number if now else '?'} is the version now, and this is about v{row.version.number}.")
        result = agreement(row.people.all())
        if not result.enough and not words:
            raise refuse(f"Only {result}. Say why it may be signed off all the same.", "note")
        row.state, row.signed_by, row.signed_at, row.note = SpotCheck.State.SIGNED, actor, timezone.now(), words
        row.save(update_fields=["state", "signed_by", "signed_at", "note"])
        after = {"version": row.version.number, "agree": result.agree, "of": result.of}
        trail.record(actor, "spot_check.signed", "audience", row.audience.key, after=after, reason=words)
    return row


def last_signed(audience: Audience) -> SpotCheck | None:
    """The sign-off that holds: the newest one of the version that a spot check would be about now."""
    version = version_of(audience)
    if version is None:
        return None
    return _signed(audience).filter(version=version).first()


def standing(audience: Audience) -> str:
    """In a sentence: who signed what, or what is missing."""
    version = version_of(audience)
    if version is None:
        return "Not spot-checked: there is no rule yet."
    found = _signed(audience).first()
    if found is not None and found.version_id == version.pk:
        return f"{signature(found)}."
    waits = audience.spot_checks.filter(version=version).order_by("-pk").values_list("state", flat=True).first()
    now = {
        SpotCheck.State.DRAWING.value: "people are being drawn",
        SpotCheck.State.READY.value: "drawn, and waiting to be signed",
    }.get(waits or "", "not spot-checked yet")
    if found is None:
        return f"v{version.number}: {now}."
    return f"v{version.number}: {now}. Of v{found.version.number}: {signature(found)}."


def signature(check: SpotCheck) -> str:
    """18 of 20 agree, Milo Marketer, 3 Nov"""
    assert check.signed_at is not None
    day = format_date(timezone.localtime(check.signed_at), "j M")
    return f"{agreement(check.people.all())}, {check.signed_by or 'a user who is gone'}, {day}"


def agreement(people: Iterable[SpotCheckPerson]) -> Agreement:
    verdicts = [not disagreement(person) for person in people]
    return Agreement(sum(verdicts), len(verdicts))


def disagreement(person: SpotCheckPerson) -> str:
    """What is wrong with this person, in words; empty: they are in order."""
    if person.judged is None:
        return "Removed while they were being drawn"
    if person.judged != person.counted:
        return f"The count has them {_in(person.counted)}, the rule alone has them {_in(person.judged)}"
    there = person.found if person.by_hand is None else person.by_hand
    wanted = bool(person.receipt.get("wanted"))
    if not person.told or person.told == "unknown":
        return ""  # nothing was held against a platform, or it does not know itself
    if wanted and not (person.counted and not person.step):
        return "Sent, though they should not be"
    if person.told == "rejected":
        return "Refused by the platform, and found there" if there else ""
    told_there = person.told == "present"
    if told_there != wanted:
        return "To be sent, and not told" if wanted else "Not to be sent, and still there as far as was told"
    if there is not None and there != told_there:
        return "Told to be there, and not found" if told_there else "Found there, though never to be or taken out"
    return ""


def _signed(audience: Audience) -> Any:
    signed = audience.spot_checks.filter(state=SpotCheck.State.SIGNED)
    return signed.select_related("version", "signed_by").order_by("-signed_at")


def _row(check: SpotCheck, person: drawing.Drawn, side: drawing.Side) -> SpotCheckPerson:
    told = side.traces.get(person.profile_no)
    return SpotCheckPerson(
        check_of=check,
        profile_no=person.profile_no,
        group=person.group,
        counted=person.counted,
        judged=person.judged,
        rules=person.rules,
        told=told.told if told else "",
        step=told.step if told else "",
        receipt=_receipt(told) if told else {},
        found=side.found.get(person.profile_no),
    )


def _receipt(told: Trace) -> dict[str, Any]:
    call = told.last
    found: dict[str, Any] = {"wanted": told.wanted, "reason": told.reason}
    if call is not None:
        found |= {
            "kind": call.kind,
            "state": call.state,
            "at": (call.answered_at or call.sent_at).isoformat(timespec="seconds"),
            "request": call.request_id,
            "run": call.run_id,
        }
    return found


def _fail(check: SpotCheck, words: str) -> None:
    SpotCheck.objects.filter(pk=check.pk, state=SpotCheck.State.DRAWING).update(
        state=SpotCheck.State.FAILED, error=words
    )


def _in(inside: bool) -> str:
    return "in" if inside else "out"
