"""Whether a change may go live or first needs a second person. services/versions.py asks here whoever publishes, so that nobody goes round it.

Asking for a review and deciding on one is services/reviews.py's.
"""

from datetime import datetime, timedelta

from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.db.models import Q, QuerySet
from django.utils import timezone

from audiences import access, vocabulary
from audiences.impact import Figures, Impact, Unmeasured, measure
from audiences.models import Audience, Measurement, Review, SegmentVersion, User, Workspace
from audiences.segments.tree import Node
from audiences.services import trail

UNDO = timedelta(minutes=10)
USUAL = 20  # per cent, where no workspace is set up


def look(version: SegmentVersion) -> Impact | None:
    """What publishing it would do, counted now; None where nothing is live, so that nobody is moved, or where it cannot be counted.
    Not inside a transaction: it asks the engine."""
    return look_at(version.audience, vocabulary.rule(version.segment))


def look_at(audience: Audience, tree: Node) -> Impact | None:
    """The same of a rule that is no version yet."""
    audience = Audience.objects.get(pk=audience.pk)
    if audience.live_version_id is None:
        return None
    try:
        return measure(audience, tree)
    except Unmeasured:
        return None


def why(audience: Audience, figures: Figures | None) -> str:
    """Why this change needs a second person, in words; empty: it does not. The first version of an audience moves nobody."""
    if audience.live_version_id is None:
        return ""
    if audience.purpose == Audience.Purpose.SUPPRESSION:
        return "It is a suppression audience: a mistake in it shows advertising to people who must not see it."
    if figures is None:
        return "It cannot be counted just now, so nobody knows how many people it moves."
    limit = limit_percent()
    if figures.share is None or figures.share * 100 <= limit:
        return ""
    enters, leaves = figures.enters or 0, figures.leaves or 0
    moved = f"{enters:,} enter" if enters >= leaves else f"{leaves:,} leave"
    part = (
        f"{figures.share:.0%} of the {figures.before:,} people in it" if figures.before else "where there is nobody now"
    )
    return f"{moved}: {part}. Above {limit}% a second person looks at it first."


def limit_percent() -> int:
    limit = Workspace.objects.values_list("review_above_percent", flat=True).first()
    return USUAL if limit is None else limit


def passes(
    audience: Audience, version: SegmentVersion, impact: Impact | None, *, retires_old_at: datetime | None = None
) -> bool:
    """Whether it may go live in this way: it needs nobody, somebody has approved just this, or it takes back what went live a moment ago."""
    figures = impact.figures if impact else None
    if not why(audience, figures):
        return True
    if version.retires_old_at == retires_old_at and _approved(version, figures):
        return True
    return retires_old_at is None and takes_back(audience, version)


def takes_back(audience: Audience, version: SegmentVersion) -> bool:
    """Whether it says what was live before the last version, which went live less than ten minutes ago."""
    live, before = audience.live_version, last_before(audience)
    if live is None or live.published_at is None or before is None:
        return False
    return live.published_at > timezone.now() - UNDO and before.sha256 == version.sha256


def last_before(audience: Audience) -> SegmentVersion | None:
    """What was live before the live version."""
    gone = audience.versions.filter(state=SegmentVersion.State.RETIRED, published_at__isnull=False)
    return gone.order_by("-published_at", "-number").first()


def approvers(author_id: int | None) -> QuerySet[User]:
    """Who may approve what this user wrote: everybody else who may publish and can sign in."""
    roles = access.PERMISSIONS["audience.publish"]
    unable = Q(pk=author_id) | Q(password__startswith=UNUSABLE_PASSWORD_PREFIX)
    return User.objects.filter(role__in=roles, is_active=True).exclude(unable).order_by("name", "email")


def ask(
    *,
    actor: User | None,
    version: SegmentVersion,
    reason: str,
    figures: Figures | None,
    retires_old_at: datetime | None = None,
) -> Review:
    """Inside a transaction: have it wait for a second person. Asked again for the same rule in the same way, it is the same review.
    `retires_old_at`: it is to be published beside, and the old one retires then."""
    waiting = version.reviews.filter(state=Review.State.OPEN).first()
    if waiting is not None and (waiting.sha256, version.retires_old_at) == (version.sha256, retires_old_at):
        return waiting
    close(version, Review.State.WITHDRAWN, actor, "Asked for anew")
    version.state, version.publish_at, version.published_by = SegmentVersion.State.IN_REVIEW, None, None
    version.reason, version.retires_old_at = reason.strip(), retires_old_at
    version.save(update_fields=["state", "publish_at", "published_by", "reason", "retires_old_at"])
    review = Review(version=version, sha256=version.sha256, asked_by=actor, reason=version.reason)
    see(review, figures)
    review.save()
    trail.record(
        actor,
        "audience.review_asked",
        "audience",
        version.audience.key,
        after={"version": version.number, **way(retires_old_at), **kept(figures)},
        reason=version.reason,
    )
    return review


def close(version: SegmentVersion, state: Review.State, actor: User | None, words: str) -> None:
    """Inside a transaction: what waits or was approved holds no longer, for it was withdrawn, sent back, or its rule is another."""
    standing = version.reviews.filter(state__in=(Review.State.OPEN, Review.State.APPROVED))
    standing.update(state=state, decided_by=actor, decided_at=timezone.now(), words=words)


def went_live(version: SegmentVersion, actor: User | None) -> None:
    """Inside a transaction: a review that nobody decided on is over, and what was counted for it is of no use any more."""
    Measurement.objects.filter(version=version).delete()
    open_ones = version.reviews.filter(state=Review.State.OPEN)
    open_ones.update(
        state=Review.State.WITHDRAWN, decided_by=actor, decided_at=timezone.now(), words="Published without it"
    )


def see(review: Review, figures: Figures | None) -> None:
    """These are the figures that were seen."""
    if figures is not None:
        review.before, review.size = figures.before, figures.size
        review.enters, review.leaves, review.as_of_us = figures.enters, figures.leaves, figures.as_of_us


def seen(review: Review) -> Figures | None:
    if review.size is None or review.as_of_us is None:
        return None
    return Figures(review.before, review.size, review.enters, review.leaves, review.as_of_us)


def _approved(version: SegmentVersion, figures: Figures | None) -> bool:
    review = version.reviews.filter(state=Review.State.APPROVED, sha256=version.sha256).order_by("-pk").first()
    if review is None:
        return False
    then = seen(review)
    if then is None or figures is None:
        return then is figures  # it could not be counted, then or now
    return not figures.far_from(then)


def way(retires_old_at: datetime | None) -> dict[str, str]:
    """For the trail: whether it is published beside, and until when the old one goes on."""
    return {} if retires_old_at is None else {"old_one_retires": retires_old_at.isoformat()}


def kept(figures: Figures | None) -> dict[str, int | None]:
    if figures is None:
        return {}
    return {
        "before": figures.before,
        "size": figures.size,
        "enters": figures.enters,
        "leaves": figures.leaves,
        "as_of_us": figures.as_of_us,
    }
