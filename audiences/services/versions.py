"""Versions of an audience's rule: drafted, published with a reason, kept waiting for the end of a test, gone back to.

Once published a version never changes; the database refuses it too (models/frozen.py). Every function takes the acting user first
(None: the system, or a command), by keyword, and leaves a line in the audit trail. What needs a second person (services/gate.py) is not
published by any of them but left in review, and comes back in that state. Publishing one beside the live one is services/replacements.py's.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.formats import date_format

from audiences import clock, jobs, owners, replacements, vocabulary
from audiences.impact import Impact
from audiences.models import Audience, Refresh, Review, SegmentVersion, User
from audiences.people import lake
from audiences.segments import explain, grammar
from audiences.segments.tree import Node
from audiences.services import gate, locks, naming, trail
from audiences.services.audiences import AudienceRefused, held, needs_reason, not_archived
from audiences.vocabulary import Problem

State = SegmentVersion.State
OPEN = (State.DRAFT, State.IN_REVIEW)


def save_draft(
    *,
    actor: User | None,
    audience: Audience,
    segment: Node | Mapping[str, Any],
    reason: str = "",
    first_number: int | None = None,
) -> SegmentVersion:
    """Keep a rule as the audience's draft, in place of the draft that is there. Unknown names are kept: only publishing refuses them.
    `first_number`: of an audience's very first version, where that is not 1. Raises AudienceRefused where the rule is not well formed."""
    tree = parse(segment)
    text, digest, sentence = grammar.canonical(tree), grammar.sha256(tree), explain.sentence(tree)
    with transaction.atomic():
        audience = held(audience)
        not_archived(audience)
        draft = audience.versions.filter(state=State.DRAFT).order_by("-number").first()
        if draft is None:
            number = replacements.next_number(audience)
            draft = SegmentVersion(audience=audience, number=(first_number or 1) if number == 1 else number)
        elif draft.sha256 == digest and draft.reason == reason and draft.outline is None:
            return draft
        draft.outline, draft.revision = None, draft.revision + 1
        draft.segment, draft.sha256, draft.sentence, draft.reason, draft.author = text, digest, sentence, reason, actor
        draft.save()
        trail.record(
            actor, "audience.drafted", "audience", audience.key, after={"version": draft.number, "sha256": digest}
        )
    return draft


def publish(
    *, actor: User | None, version: SegmentVersion, reason: str, impact: Impact | None = None, override: str = ""
) -> SegmentVersion:
    """Make a draft the live version, and have it counted at once; after the first one the 90 past days too. A change that needs a second
    person is left in review instead. `impact`: what it does, where that has been counted already. `override`: why nobody is asked.

    Raises AudienceRefused where a name is unknown (with its place and the nearest known ones), references go in a circle, no reason is
    given, a person publishes and an owner is missing (path `owners`), or a test is going on (path `test`).
    """
    impact = impact or gate.look(version)
    with transaction.atomic():
        return _publish(actor, version, reason, impact, override)


def publish_when_free(
    *, actor: User | None, version: SegmentVersion, reason: str, impact: Impact | None = None, override: str = ""
) -> SegmentVersion:
    """Have it published, as by this user, when the test ends; where none is going on, now. What waited before waits no more.
    Raises AudienceRefused as `publish` does."""
    impact = impact or gate.look(version)
    with transaction.atomic():
        audience = held(version.audience)
        lock = locks.current(audience)
        if lock is None:
            return _publish(actor, version, reason, impact, override)
        version = publishable(actor, audience, version, reason, impact)
        stop_others(actor=actor, audience=audience, version=version)
        if left_in_review(actor, audience, version, reason, impact, override):
            return version
        version.state, version.publish_at, version.retires_old_at = State.IN_REVIEW, lock.until, None
        version.reason, version.published_by = reason.strip(), actor
        version.save(update_fields=["state", "publish_at", "retires_old_at", "reason", "published_by"])
        after = {"version": version.number, "publish_at": lock.until.isoformat()}
        trail.record(actor, "audience.waits", "audience", audience.key, after=after, reason=version.reason)
        jobs.ask(locks.TASK, audience.pk, after=max(lock.until - timezone.now(), timedelta(0)))
    return version


def stop_waiting(*, actor: User | None, version: SegmentVersion, reason: str = "") -> SegmentVersion:
    """It is a draft again, is not published by itself, and waits for nobody's approval."""
    with transaction.atomic():
        audience = held(version.audience)
        version = SegmentVersion.objects.select_for_update().get(pk=version.pk)
        if version.state == State.IN_REVIEW:
            _draft_again(actor, audience, version, reason)
    return version


def publish_due(audience: Audience) -> SegmentVersion | None:
    """Publish what has waited for the end of its test. What cannot be published by now is a draft again, with the reason on record."""
    waiting = audience.versions.filter(publish_at__lte=timezone.now(), state=State.IN_REVIEW)
    version = waiting.select_related("published_by", "audience").order_by("number").first()
    if version is None:
        return None
    try:
        return publish(actor=version.published_by, version=version, reason=version.reason)
    except AudienceRefused as refused:
        stop_waiting(actor=None, version=version, reason=f"It could not be published: {refused}")
        return None


def discard(*, actor: User | None, version: SegmentVersion) -> None:
    """Throw a draft away. Raises AudienceRefused for anything that was published."""
    with transaction.atomic():
        audience = held(version.audience)
        found = SegmentVersion.objects.select_for_update().filter(pk=version.pk).first()
        if found is None:
            return
        if found.state not in OPEN:
            raise AudienceRefused(_not_a_draft(found))
        found.delete()
        before = {"version": found.number, "sentence": found.sentence}
        trail.record(actor, "audience.draft_discarded", "audience", audience.key, before=before)


def go_back(
    *, actor: User | None, version: SegmentVersion, reason: str, seen: int | None = None, when_free: bool = False
) -> SegmentVersion:
    """Publish a copy of an earlier version, beside any draft that is there: history is never rewritten. `seen`: the number of the version
    that was live for whoever asks. `when_free`: at the end of the test that is going on. Raises AudienceRefused as `publish` does."""
    impact = None if version.state in OPEN else gate.look(version)
    with transaction.atomic():
        audience = held(version.audience)
        not_archived(audience)
        live = audience.live_version
        if seen is not None and (live is None or live.number != seen):
            went = f"version {live.number} went live" if live else "no version is live"
            raise AudienceRefused(Problem("seen", f"{went} meanwhile; look again"))
        if version.state in OPEN:
            raise AudienceRefused(Problem("", f"version {version.number} was never live"))
        if live is not None and live.sha256 == version.sha256:
            raise AudienceRefused(Problem("", f"version {live.number}, which is live, says the same"))
        copy = SegmentVersion.objects.create(
            audience=audience,
            number=replacements.next_number(audience),
            segment=version.segment,
            sha256=version.sha256,
            sentence=version.sentence,
            author=actor,
        )
        after = {"version": copy.number, "copy_of": version.number}
        trail.record(actor, "audience.drafted", "audience", audience.key, after=after)
        do = publish_when_free if when_free else publish
        return do(actor=actor, version=copy, reason=reason, impact=impact)


def parse(segment: Node | Mapping[str, Any]) -> Node:
    """A rule from JSON data. Raises AudienceRefused with the place."""
    if not isinstance(segment, Mapping):
        return segment
    try:
        return grammar.parse(segment)
    except grammar.Refused as refused:
        raise AudienceRefused(Problem(refused.path, refused.words)) from None


def problems_of(audience: Audience, tree: Node) -> tuple[Problem, ...]:
    """Why this rule cannot be the audience's live one: names that nobody knows here, or a circle of references. Empty: it can."""
    if problems := vocabulary.known().problems(tree, also=[audience.key]):
        return problems
    try:
        vocabulary.resolved(tree, audience.key)
    except grammar.Refused as refused:
        return (Problem(refused.path, refused.words),)
    return ()


def _publish(
    actor: User | None, version: SegmentVersion, reason: str, impact: Impact | None, override: str
) -> SegmentVersion:
    audience = held(version.audience)
    version = publishable(actor, audience, version, reason, impact)
    if lock := locks.current(audience):
        until = date_format(timezone.localtime(lock.until), "j F Y, H:i T")
        raise AudienceRefused(
            Problem("test", f"in test until {until}; publish when it ends, or have an admin break the lock")
        )
    stop_others(actor=actor, audience=audience, version=version)
    if left_in_review(actor, audience, version, reason, impact, override):
        return version
    version.retires_old_at = None
    return make_live(actor, audience, version, reason)


def make_live(actor: User | None, audience: Audience, version: SegmentVersion, reason: str) -> SegmentVersion:
    """Inside a transaction, both rows held, nothing asked any more: it is what the audience's rule says from now on."""
    now = timezone.now()
    named = grammar.names(vocabulary.rule(version.segment))
    lake.want_columns({name for _, name, _ in named.properties}, {name for name, _ in named.attributes})
    before = audience.live_version
    if before is not None:
        before.state = State.RETIRED
        before.save(update_fields=["state"])
    else:
        audience.backfill_until_us = clock.to_us(now)
    version.state, version.publish_at = State.PUBLISHED, None
    version.step = 0
    version.steps.all().delete()
    version.reason, version.published_by, version.published_at = reason.strip(), actor, now
    version.save()
    gate.went_live(version, actor)
    audience.live_version, audience.invalid_reason = version, ""
    audience.refresh_due_at, audience.refresh_cause = now, Refresh.Cause.PUBLISH
    audience.save(
        update_fields=["live_version", "invalid_reason", "backfill_until_us", "refresh_due_at", "refresh_cause"]
    )
    trail.record(
        actor,
        "audience.published",
        "audience",
        audience.key,
        before={"version": before.number} if before else None,
        after={"version": version.number, "sha256": version.sha256},
        reason=version.reason,
    )
    naming.follow_version(actor=actor, audience=audience, before=before)
    jobs.ask("audiences.refresh_due", "all")
    if before is None:
        jobs.ask("audiences.backfill", "all")
    return version


def left_in_review(
    actor: User | None,
    audience: Audience,
    version: SegmentVersion,
    reason: str,
    impact: Impact | None,
    override: str,
    retires_old_at: datetime | None = None,
) -> bool:
    """Whether it needs a second person and now waits for one. Where somebody's word stands in for that, it is on record."""
    if gate.passes(audience, version, impact, retires_old_at=retires_old_at):
        return False
    if override:
        after = {"version": version.number}
        trail.record(actor, "audience.review_skipped", "audience", audience.key, after=after, reason=override)
        return False
    figures = impact.figures if impact else None
    gate.ask(actor=actor, version=version, reason=reason, figures=figures, retires_old_at=retires_old_at)
    return True


def publishable(
    actor: User | None, audience: Audience, version: SegmentVersion, reason: str, impact: Impact | None
) -> SegmentVersion:
    """Its row, held. Raises AudienceRefused with everything that speaks against publishing it, but for a test."""
    not_archived(audience)
    needs_reason(reason)
    version = SegmentVersion.objects.select_for_update().get(pk=version.pk)
    version.audience = audience
    if version.state not in OPEN:
        raise AudienceRefused(_not_a_draft(version))
    if impact is not None and (impact.sha256, impact.live) != (version.sha256, audience.live_version_id):
        raise AudienceRefused(
            Problem("seen", "it has been changed meanwhile, or another version went live; look again")
        )
    if version.outline is not None:
        raise AudienceRefused(
            Problem("", "its rule is not finished; finish it in the editor, or take out what is open")
        )
    problems = problems_of(audience, vocabulary.rule(version.segment))
    if actor is not None and (without := owners.missing(audience)):
        *most, last = [role.label.lower() for role in without]
        roles = f"{', '.join(most)} and {last}" if most else last
        problems += (Problem("owners", f"name an owner for {roles} first, so that somebody answers for it"),)
    if problems:
        raise AudienceRefused(*problems)
    return version


def stop_others(*, actor: User | None, audience: Audience, version: SegmentVersion) -> None:
    """One version at a time waits, and none once another has gone live."""
    for other in audience.versions.select_for_update().filter(state=State.IN_REVIEW).exclude(pk=version.pk):
        _draft_again(actor, audience, other, f"version {version.number} takes its place")


def _draft_again(actor: User | None, audience: Audience, version: SegmentVersion, reason: str) -> None:
    gate.close(version, Review.State.WITHDRAWN, actor, reason)
    version.state, version.publish_at, version.published_by = State.DRAFT, None, None
    version.retires_old_at = None
    version.save(update_fields=["state", "publish_at", "published_by", "retires_old_at"])
    after = {"version": version.number}
    trail.record(actor, "audience.waits_no_more", "audience", audience.key, after=after, reason=reason)


def _not_a_draft(version: SegmentVersion) -> Problem:
    return Problem("", f"version {version.number} is {version.get_state_display().lower()}, not a draft")
