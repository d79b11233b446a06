"""What pages show of versions: each with the sizes before and after it, and two of them side by side. Reads only; services/versions.py writes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django.db.models import Max, Min

from audiences import vocabulary
from audiences.models import Audience, Refresh, Review, SegmentVersion
from audiences.segments import diff
from audiences.segments.diff import Diff

State = SegmentVersion.State
WAS_LIVE = (State.PUBLISHED, State.RETIRED)


@dataclass(frozen=True, slots=True)
class Row:
    """A version; `size` at its first count, `before` at the last count of what was live before it. None: not counted (yet)."""

    version: SegmentVersion
    live: bool
    previous: SegmentVersion | None  # what was live before it; for a draft, what is live
    size: int | None
    before: int | None
    approval: Review | None = None  # a second person's, or the author's own

    @property
    def change(self) -> int | None:
        return None if self.size is None or self.before is None else self.size - self.before

    @property
    def share(self) -> float | None:
        return self.change / self.before if self.change is not None and self.before else None

    @property
    def waits(self) -> bool:
        return self.version.publish_at is not None


@dataclass(frozen=True, slots=True)
class Compared:
    """`version` beside `against` (None: there was nothing before)."""

    row: Row
    against: SegmentVersion | None
    diff: Diff
    json: str
    against_json: str

    @property
    def version(self) -> SegmentVersion:
        return self.row.version


def rows(audience: Audience) -> tuple[Row, ...]:
    """Newest first. Four queries."""
    found = list(audience.versions.select_related("author", "published_by").order_by("-number"))
    first, last = _sizes(audience)
    before = _live_before(found, audience)
    approved = Review.objects.filter(version__audience=audience, state=Review.State.APPROVED).select_related(
        "decided_by"
    )
    approvals = {review.version_id: review for review in approved.order_by("pk")}
    return tuple(
        Row(
            version,
            version.pk == audience.live_version_id,
            previous := before.get(version.pk),
            first.get(version.pk),
            last.get(previous.pk) if previous else None,
            approvals.get(version.pk),
        )
        for version in found
    )


def compare(audience: Audience, number: int, against: int | None = None) -> Compared | None:
    """Version `number` beside another one; where none is named, beside what was live before it. None: there is no such version."""
    found = {row.version.number: row for row in rows(audience)}
    row = found.get(number)
    if row is None or (against is not None and against not in found):
        return None
    other = found[against].version if against is not None else row.previous
    if other is not None and other.pk == row.version.pk:
        other = None if against is None else other
    tree = vocabulary.rule(row.version.segment)
    made = diff.between(vocabulary.rule(other.segment), tree) if other else diff.nothing_before(tree)
    if other is not None and other != row.previous:
        sizes = {one.version.pk: one.size for one in found.values()}
        row = Row(row.version, row.live, row.previous, row.size, sizes[other.pk], row.approval)
    return Compared(row, other, made, _json(row.version), _json(other) if other else "")


def _sizes(audience: Audience) -> tuple[dict[int, int], dict[int, int]]:
    """How many people the first and the last count under each version found; the days computed afterwards do not count."""
    done = Refresh.objects.filter(audience=audience, state=Refresh.State.DONE).exclude(cause=Refresh.Cause.BACKFILL)
    ends: list[Any] = list(done.values_list("version").annotate(Min("pk"), Max("pk")))
    wanted = {pk for _, low, high in ends for pk in (low, high)}
    known = Refresh.objects.filter(pk__in=wanted).values_list("pk", "count")
    counts = {pk: count for pk, count in known if count is not None}
    return (
        {version: counts[low] for version, low, _ in ends if low in counts},
        {version: counts[high] for version, _, high in ends if high in counts},
    )


def _live_before(found: Sequence[SegmentVersion], audience: Audience) -> dict[int, SegmentVersion]:
    """What was live when each went live; what is live, for one that has not."""
    published = sorted((row for row in found if row.published_at and row.state in WAS_LIVE), key=_when)
    before = {after.pk: row for row, after in pairwise(published)}
    live = next((row for row in found if row.pk == audience.live_version_id), None)
    if live is not None:
        before |= {row.pk: live for row in found if row.state not in WAS_LIVE}
    return before


def _when(version: SegmentVersion) -> Any:
    return version.published_at, version.number


def _json(version: SegmentVersion) -> str:
    return json.dumps(json.loads(version.segment), indent=2, ensure_ascii=False)
