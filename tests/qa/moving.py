"""Numbers that move, for tests of alerts: an audience with days behind it, and counts written as rows."""

from datetime import datetime, timedelta

from django.utils import timezone
from pyroaring import BitMap

from audiences import bitmaps, clock
from audiences.models import Audience, Membership, Refresh, SegmentVersion, User, frozen
from qa import watch
from qa.models import Incident, Mail
from tests import filled
from tests.audiences.people_in import track


def days(*counts: int, until: datetime | None = None) -> list[list[object]]:
    """Daily counts that end yesterday."""
    last = (until or timezone.now()).date() - timedelta(days=1)
    return [[(last - timedelta(days=len(counts) - 1 - n)).isoformat(), count] for n, count in enumerate(counts)]


def count(
    audience: Audience, people: int, *, at: datetime | None = None, daily: list[list[object]] | None = None
) -> Refresh:
    """A count, as it would have ended at that moment; the daily counts before it, where given."""
    moment = at or timezone.now()
    audience.refresh_from_db()
    done = Refresh.objects.create(
        audience=audience, version=audience.live_version, state="done", cause="schedule", as_of_us=clock.to_us(moment),
        count=people, entered_count=0, left_count=0, finished_at=moment,
    )  # fmt: skip
    Refresh.objects.filter(pk=done.pk).update(started_at=moment)
    row = Membership.objects.filter(audience=audience).first()
    known = daily if daily is not None else (row.daily if row else [])
    today = moment.date().isoformat()
    known = [pair for pair in known if pair[0] != today] + [[today, people]]
    values = {"refresh": done, "members": bitmaps.pack(BitMap(range(3))), "count": people, "daily": known}
    Membership.objects.update_or_create(audience=audience, defaults=values)
    return done


def audience(owner: User, key: str = "cart", *, usual: int = 1_000, now: int | None = None) -> Audience:
    """Published, counted, a fortnight at its usual size."""
    track("somebody", "purchase")
    track("somebody", "add_to_cart")
    made = filled.audience(key, filled.BUYERS, owner, "analytics")
    long_ago = timezone.now() - timedelta(days=60)
    with frozen.set_aside():
        SegmentVersion.objects.filter(audience=made).update(published_at=long_ago)
    Audience.objects.filter(pk=made.pk).update(cadence_seconds=86_400)
    count(made, usual if now is None else now, daily=days(*[usual] * 14), at=timezone.now() - timedelta(hours=8))
    return Audience.objects.get(pk=made.pk)


def looks(number: int = 1, **options: object) -> tuple[int, int]:
    """So many looks; how many incidents they opened and ended in all."""
    found = [watch.look(**options) for _ in range(number)]  # type: ignore[arg-type]
    return sum(one for one, _ in found), sum(two for _, two in found)


def the(kind: str) -> Incident:
    return Incident.objects.get(kind=kind)


def subjects() -> list[str]:
    return list(Mail.objects.order_by("pk").values_list("subject", flat=True))
