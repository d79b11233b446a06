"""A version published beside: as the first of an audience of its own, while the old one goes on until a date. The date moved, or both kept.

The old one's rule, members and connections stay untouched. Copying its connections and retiring it is destinations/services/replacements.py's.
"""

from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from audiences import replacements
from audiences.impact import Impact
from audiences.models import Audience, Replacement, SegmentVersion, User
from audiences.services import audiences, gate, trail, versions
from audiences.services.audiences import AudienceRefused, held, needs_reason, not_archived
from audiences.vocabulary import Problem

LONGEST = timedelta(days=365)


def publish(
    *,
    actor: User | None,
    version: SegmentVersion,
    reason: str,
    retires_at: datetime,
    impact: Impact | None = None,
    override: str = "",
) -> SegmentVersion:
    """Make a draft the first live version of an audience of its own, with the same purpose, owners, followers and suppression; the audience
    that it was drafted for stays as it is, and retires then. A change that needs a second person is left in review instead.

    A test of the old audience is not disturbed by it. Raises AudienceRefused as `versions.publish` does, and with the path `retires_at`.
    """
    impact = impact or gate.look(version)
    with transaction.atomic():
        old = held(version.audience)
        version = versions.publishable(actor, old, version, reason, impact)
        check(old, retires_at)
        if versions.left_in_review(actor, old, version, reason, impact, override, retires_at):
            versions.stop_others(actor=actor, audience=old, version=version)
            return version
        new = _successor(actor, old, version)
        Replacement.objects.create(old=old, new=new, retires_at=retires_at, made_by=actor)
        after = {"version": version.number, "audience": new.key, **gate.way(retires_at)}
        trail.record(actor, "audience.published_beside", "audience", old.key, after=after, reason=reason.strip())
        version.audience, version.retires_old_at = new, retires_at
        return versions.make_live(actor, new, version, reason)


def check(old: Audience, retires_at: datetime) -> None:
    """Raises AudienceRefused where nothing can be published beside this audience that retires it then."""
    if old.live_version_id is None:
        raise AudienceRefused(Problem("", f'no version of "{old.key}" is live, so there is nothing to publish beside'))
    standing = replacements.standing(old).by
    if standing is not None:
        raise AudienceRefused(
            Problem("", f'"{old.key}" is being replaced by "{standing.new.key}" already; keep it after all first')
        )
    _moment(retires_at)


def move(*, actor: User | None, replacement: Replacement, retires_at: datetime, reason: str = "") -> Replacement:
    """The old one retires at another moment; also where both were to be kept. Raises AudienceRefused once it has begun to retire."""
    _moment(retires_at)
    with transaction.atomic():
        row = _held(replacement)
        before = row.retires_at
        if before is None:
            not_archived(row.new)
            check(row.old, retires_at)
        elif before == retires_at:
            return row
        row.retires_at, row.hindered, row.hindered_since = retires_at, [], None
        row.save(update_fields=["retires_at", "hindered", "hindered_since"])
        trail.record(
            actor,
            "audience.end_moved",
            "audience",
            row.old.key,
            before={"retires": before.isoformat() if before else None},
            after={"retires": retires_at.isoformat(), "replaced_by": row.new.key},
            reason=reason,
        )
    return row


def keep(*, actor: User | None, replacement: Replacement, reason: str) -> Replacement:
    """The old one does not retire: both go on. Raises AudienceRefused once it has begun to."""
    reason = needs_reason(reason)
    with transaction.atomic():
        row = _held(replacement)
        if row.retires_at is None:
            return row
        before = {"retires": row.retires_at.isoformat(), "replaced_by": row.new.key}
        row.retires_at, row.hindered, row.hindered_since = None, [], None
        row.save(update_fields=["retires_at", "hindered", "hindered_since"])
        trail.record(actor, "audience.kept", "audience", row.old.key, before=before, reason=reason)
    return row


def _successor(actor: User | None, old: Audience, version: SegmentVersion) -> Audience:
    planned = replacements.successor(old, version)
    owners = {field: getattr(old, field) for field in audiences.OWNERS}
    new = audiences.create(
        actor=actor,
        key=planned.key,
        name=planned.name,
        purpose=old.purpose,
        description=old.description,
        cadence_seconds=old.cadence_seconds,
        **owners,
    )
    new.name_tokens, new.name_overrides = planned.name_tokens, planned.name_overrides
    new.name_reason = planned.name_reason
    new.save(update_fields=["name_tokens", "name_overrides", "name_reason"])
    new.followers.set(old.followers.all())
    suppressions = list(old.excluded_by.filter(archived_at=None))
    if suppressions:
        audiences.set_excluded_by(actor=actor, audience=new, suppressions=suppressions)
    for other in old.excludes.filter(archived_at=None).order_by("pk"):
        words = f"Published beside {old.key}, whose people it leaves out"
        audiences.link_suppression(actor=actor, audience=other, suppression=new, reason=words)
    return new


def _moment(retires_at: datetime) -> None:
    now = timezone.now()
    if retires_at <= now:
        raise AudienceRefused(Problem("retires_at", "the old one's end must be in the future"))
    if retires_at > now + LONGEST:
        raise AudienceRefused(Problem("retires_at", f"the old one's end must be within {LONGEST.days} days"))


def _held(replacement: Replacement) -> Replacement:
    """Its row, held. Raises AudienceRefused where the old one has ended or begun to."""
    old = held(replacement.old)
    row = Replacement.objects.select_for_update(of=("self",)).select_related("new").get(pk=replacement.pk)
    row.old = old
    if old.archived_at is not None:
        raise AudienceRefused(Problem("", f'"{old.key}" is archived'))
    if row.begun_at is not None:
        raise AudienceRefused(Problem("", f'"{old.key}" has begun to retire: its connections have ended'))
    return row
