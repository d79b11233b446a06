"""Who is mailed about a change that needs a second person: whoever may approve it, when it waits; whoever asked, when it is decided.

The watch looks at the reviews as they stand, so nothing is lost whichever way a change came into review, and a mail's key makes it one for
each change of state. A review that was withdrawn before anybody looked is told to nobody.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from audiences.models import Review, SegmentVersion, User
from audiences.services import gate
from qa import letters, outbox
from qa.models import Mail

TOLD_FOR = timedelta(days=2)  # an older decision is no news any more
State = Review.State


@dataclass(frozen=True, slots=True)
class Due:
    """A mail about a review in this state, to one person. `key`: what makes it one."""

    review: Review
    to: User

    @property
    def key(self) -> str:
        return f"review:{self.review.pk}:{self.review.state}:{self.to.pk}"


def tell(*, now: datetime | None = None) -> int:
    """Put in the outbox what has not been told yet; how many mails. Two queries, and one for each author whose change waits."""
    due = {one.key: one for one in _due(now or timezone.now())}
    told = set(Mail.objects.filter(dedupe_key__in=due).values_list("dedupe_key", flat=True))
    new = [one for key, one in due.items() if key not in told]
    for one in new:
        outbox.post(to=one.to, letter=letters.of_review(one.review, one.to), key=one.key)
    return len(new)


def _due(now: datetime) -> Iterator[Due]:
    rows = Review.objects.filter(Q(state=State.OPEN) | Q(decided_at__gt=now - TOLD_FOR))
    rows = rows.filter(version__audience__archived_at=None).order_by("pk")
    approvers: dict[int | None, list[User]] = {}
    for review in rows.select_related("version__audience", "asked_by", "decided_by").defer("version__segment"):
        if review.state != State.OPEN:
            asked_by = review.asked_by
            if asked_by is not None and asked_by.is_active and asked_by.pk != review.decided_by_id:
                yield Due(review, asked_by)
        elif review.version.state == SegmentVersion.State.IN_REVIEW:
            author = review.version.author_id
            if author not in approvers:
                approvers[author] = list(gate.approvers(author))
            yield from (Due(review, user) for user in approvers[author] if user.pk != review.asked_by_id)
