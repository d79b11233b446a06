"""A second person's word on a change: asked for, given by typing the audience's name, refused with words, withdrawn, taken back.

Which changes need one is services/gate.py's; going live is services/versions.py's, which asks the gate again.
"""

from datetime import datetime

from django.db import transaction
from django.utils import timezone

from audiences import vocabulary
from audiences.impact import Figures, Impact
from audiences.models import Audience, Review, SegmentVersion, User
from audiences.services import gate, replacements, trail, versions
from audiences.services.audiences import AudienceRefused, held, needs_reason, not_archived
from audiences.vocabulary import Problem

OPEN = versions.OPEN


def ask(
    *, actor: User, version: SegmentVersion, reason: str, impact: Impact | None, retires_old_at: datetime | None = None
) -> Review:
    """Have it wait for somebody to approve it, though it might not need that. `retires_old_at`: that it is published beside, and the old
    one retires then. Raises AudienceRefused."""
    with transaction.atomic():
        audience, version = _held(version)
        needs_reason(reason)
        if version.state not in OPEN:
            raise AudienceRefused(_decided(version))
        if version.outline is not None:
            raise AudienceRefused(Problem("", "its rule is not finished; finish it in the editor first"))
        if version.publish_at is not None:
            raise AudienceRefused(Problem("", "it waits for the end of a test already"))
        if impact is not None and (impact.sha256, impact.live) != (version.sha256, audience.live_version_id):
            raise AudienceRefused(Problem("seen", "it has been changed meanwhile; look again"))
        if problems := versions.problems_of(audience, vocabulary.rule(version.segment)):
            raise AudienceRefused(*problems)
        if retires_old_at is not None:
            replacements.check(audience, retires_old_at)
        versions.stop_others(actor=actor, audience=audience, version=version)
        figures = impact.figures if impact else None
        return gate.ask(actor=actor, version=version, reason=reason, figures=figures, retires_old_at=retires_old_at)


def alone(user: User, version: SegmentVersion) -> bool:
    """Whether this is its author and nobody else could approve it."""
    return version.author_id == user.pk and not gate.approvers(user.pk).exists()


def may_approve(user: User, version: SegmentVersion) -> bool:
    """Whoever may publish, but not who wrote it, unless there is nobody else."""
    return version.author_id != user.pk or alone(user, version)


def approve(
    *,
    actor: User,
    version: SegmentVersion,
    typed: str,
    words: str,
    impact: Impact | None,
    saw: Figures | None,
    retires_old_at: datetime | None = None,
) -> SegmentVersion:
    """Approve and publish it: beside, where that was asked for, else in its place (at the end of the test that is going on, if there is
    one). `typed`: the audience's name. `saw`: the figures on the page that was read; `impact`: what it does now. `retires_old_at`: where
    nobody has asked, it is approved to be published beside.

    Raises AudienceRefused, with the paths `typed`, `words`, `moved` (the figures are others by now) and those of `versions.publish`.
    """
    with transaction.atomic():
        audience, version = _held(version)
        if version.state not in OPEN:
            raise AudienceRefused(_decided(version))
        if not may_approve(actor, version):
            names = ", ".join(str(user) for user in gate.approvers(actor.pk)[:5])
            raise AudienceRefused(Problem("", f"you wrote it, so somebody else approves it: {names}"))
        by_itself = version.author_id == actor.pk
        problems = []
        if typed.strip() != audience.name:
            problems.append(Problem("typed", f"type “{audience.name}”, exactly as it is written"))
        if "\0" in words or ((by_itself or not version.reason) and not words.strip()):
            problems.append(Problem("words", "say why, for whoever asks later"))
        if problems:
            raise AudienceRefused(*problems)
        now = impact.figures if impact else None
        if (now is None) != (saw is None) or (now is not None and saw is not None and now.far_from(saw)):
            raise AudienceRefused(Problem("moved", "people have moved since you looked; these are the figures of now"))
        review = version.reviews.filter(state=Review.State.OPEN, sha256=version.sha256).first()
        if review is None:
            review = Review(version=version, sha256=version.sha256, reason=version.reason)
            version.retires_old_at = retires_old_at
            version.save(update_fields=["retires_old_at"])
        beside = version.retires_old_at
        review.state, review.decided_by, review.decided_at = Review.State.APPROVED, actor, timezone.now()
        review.words, review.self_approved = words.strip(), by_itself
        gate.see(review, saw)
        review.save()
        after = {"version": version.number, **gate.way(beside), **gate.kept(saw), "self_approved": by_itself}
        verb = "audience.self_approved" if by_itself else "audience.approved"
        trail.record(actor, verb, "audience", audience.key, after=after, reason=review.words)
        why = version.reason or review.words
        if beside is not None:
            return replacements.publish(actor=actor, version=version, reason=why, retires_at=beside, impact=impact)
        return versions.publish_when_free(actor=actor, version=version, reason=why, impact=impact)


def send_back(*, actor: User, version: SegmentVersion, words: str) -> SegmentVersion:
    """It is a draft again, with what is wrong with it. Raises AudienceRefused."""
    return _end(actor, version, Review.State.SENT_BACK, "audience.sent_back", needs_reason(words))


def withdraw(*, actor: User, version: SegmentVersion) -> SegmentVersion:
    """Nobody is asked any more; it is a draft again. Raises AudienceRefused."""
    return _end(actor, version, Review.State.WITHDRAWN, "audience.review_withdrawn", "")


def undoable(audience: Audience) -> SegmentVersion | None:
    """What taking back the live version would put in its place, while that needs nobody: for ten minutes."""
    before = gate.last_before(audience)
    return before if before is not None and gate.takes_back(audience, before) else None


def take_back(*, actor: User, audience: Audience, seen: int) -> SegmentVersion:
    """What was live before goes live again, without a second person, within ten minutes. Raises AudienceRefused."""
    audience = Audience.objects.select_related("live_version").get(pk=audience.pk)
    before = undoable(audience)
    if before is None:
        raise AudienceRefused(Problem("", "ten minutes have passed; roll back on the page of versions instead"))
    return versions.go_back(actor=actor, version=before, reason=f"Undone: v{seen} was published by mistake", seen=seen)


def _end(actor: User, version: SegmentVersion, state: Review.State, verb: str, words: str) -> SegmentVersion:
    with transaction.atomic():
        audience, version = _held(version)
        if version.state != SegmentVersion.State.IN_REVIEW or not version.reviews.filter(state=Review.State.OPEN):
            raise AudienceRefused(Problem("", f"version {version.number} is not in review any more"))
        gate.close(version, state, actor, words)
        version.state, version.retires_old_at = SegmentVersion.State.DRAFT, None
        version.save(update_fields=["state", "retires_old_at"])
        trail.record(actor, verb, "audience", audience.key, after={"version": version.number}, reason=words)
    return version


def _held(version: SegmentVersion) -> tuple[Audience, SegmentVersion]:
    audience = held(version.audience)
    not_archived(audience)
    found = SegmentVersion.objects.select_for_update().filter(pk=version.pk).first()
    if found is None:
        raise AudienceRefused(Problem("", f"version {version.number} was thrown away meanwhile"))
    found.audience = audience
    return audience, found


def _decided(version: SegmentVersion) -> Problem:
    return Problem("", f"version {version.number} is {version.get_state_display().lower()} already")
