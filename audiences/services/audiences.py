"""Audiences and their versions: made, named, owned, published, linked, archived. Counting is services/refreshes.py's.

Every function takes the acting user first (None: the system, or a command), by keyword, and leaves a line in the audit trail.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from audiences import clock, jobs, vocabulary
from audiences.models import Audience, Refresh, SegmentVersion, User
from audiences.people import lake
from audiences.segments import explain, grammar
from audiences.segments.tree import InAudience, Node, leaves
from audiences.services import trail
from audiences.vocabulary import Problem

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
CADENCE = range(60, 30 * 24 * 3600 + 1)  # seconds
FIELDS = ("name", "description", "purpose", "definition_owner", "sync_owner", "cadence_seconds")


class AudienceRefused(Exception):
    """Nothing was changed. Each problem has the field or the place in the rule, and words."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def create(
    *,
    actor: User | None,
    key: str,
    purpose: str,
    name: str = "",
    description: str = "",
    definition_owner: User | None = None,
    sync_owner: User | None = None,
    cadence_seconds: int = 900,
) -> Audience:
    """A new audience without a rule. The name is the key where none is given. A key is never reused, not even an archived one's."""
    if not KEY.fullmatch(key):
        raise AudienceRefused(
            Problem("key", "must be 1 to 100 letters, digits, _ or -, and begin with one of the first two")
        )
    values = check(
        name=name or key,
        description=description,
        purpose=purpose,
        definition_owner=definition_owner,
        sync_owner=sync_owner,
        cadence_seconds=cadence_seconds,
    )
    try:
        with transaction.atomic():
            audience = Audience.objects.create(key=key, **values)
            trail.record(actor, "audience.created", "audience", key, after=_plain(values))
    except IntegrityError:
        raise AudienceRefused(
            Problem("key", f'"{key}" is taken, perhaps by an archived audience; keys are never reused')
        ) from None
    return audience


def change(*, actor: User | None, audience: Audience, reason: str = "", **fields: Any) -> Audience:
    """Change the FIELDS named; the others stay. Raises AudienceRefused and changes nothing if one is refused."""
    values = check(**fields)
    with transaction.atomic():
        audience = _locked(audience)
        before = {field: getattr(audience, field) for field in values}
        changed = {field: value for field, value in values.items() if value != before[field]}
        if not changed:
            return audience
        if "purpose" in changed and before["purpose"] == Audience.Purpose.SUPPRESSION:
            linked = list(audience.excludes.values_list("key", flat=True)[:3])
            if linked:
                raise AudienceRefused(Problem("purpose", f"is the suppression audience of {', '.join(linked)}"))
        for field, value in changed.items():
            setattr(audience, field, value)
        audience.save(update_fields=list(changed))
        was = _plain({field: before[field] for field in changed})
        trail.record(
            actor, "audience.changed", "audience", audience.key, before=was, after=_plain(changed), reason=reason
        )
    return audience


def rename(*, actor: User | None, audience: Audience, name: str, reason: str = "") -> Audience:
    """The name on screen; the key stays what it is."""
    return change(actor=actor, audience=audience, name=name, reason=reason)


def set_owners(
    *, actor: User | None, audience: Audience, definition_owner: User | None, sync_owner: User | None, reason: str = ""
) -> Audience:
    """Who answers for the rule, and who is mailed when a sync drops."""
    return change(
        actor=actor, audience=audience, definition_owner=definition_owner, sync_owner=sync_owner, reason=reason
    )


def check(**fields: Any) -> dict[str, Any]:
    """These FIELDS in the form in which they are kept. Raises AudienceRefused naming all that is wrong."""
    problems, values = [], dict(fields)
    for field in ("name", "description"):
        if field in values:
            values[field] = values[field].strip()
            low, high = (1, 200) if field == "name" else (0, 10_000)
            if not low <= len(values[field]) <= high:
                problems.append(Problem(field, f"must have {low} to {high:,} characters"))
            elif "\0" in values[field]:
                problems.append(Problem(field, "holds a NUL character"))
    if "purpose" in values and values["purpose"] not in Audience.Purpose.values:
        problems.append(Problem("purpose", f"must be one of {', '.join(Audience.Purpose.values)}"))
    if "cadence_seconds" in values and values["cadence_seconds"] not in CADENCE:
        problems.append(Problem("cadence_seconds", "must be from one minute to 30 days"))
    if problems:
        raise AudienceRefused(*problems)
    return values


def save_draft(
    *, actor: User | None, audience: Audience, segment: Node | Mapping[str, Any], reason: str = ""
) -> SegmentVersion:
    """Keep a rule as the audience's draft, in place of the draft that is there. Unknown names are kept: only publishing refuses them.
    Raises AudienceRefused where the rule is not well formed."""
    tree = parse(segment)
    text, digest, sentence = grammar.canonical(tree), grammar.sha256(tree), explain.sentence(tree)
    with transaction.atomic():
        audience = _locked(audience)
        _not_archived(audience)
        draft = audience.versions.filter(state=SegmentVersion.State.DRAFT).order_by("-number").first()
        if draft is None:
            last = audience.versions.aggregate(last=Max("number"))["last"] or 0
            draft = SegmentVersion(audience=audience, number=last + 1)
        elif draft.sha256 == digest and draft.reason == reason:
            return draft
        draft.segment, draft.sha256, draft.sentence, draft.reason, draft.author = text, digest, sentence, reason, actor
        draft.save()
        trail.record(
            actor, "audience.drafted", "audience", audience.key, after={"version": draft.number, "sha256": digest}
        )
    return draft


def publish(*, actor: User | None, version: SegmentVersion, reason: str) -> SegmentVersion:
    """Make a draft the live version, and have it counted at once; after the first one the 90 past days too.
    Raises AudienceRefused where a name is unknown (with its place and the nearest known ones), references go in a circle, no reason is given."""
    if not reason.strip():
        raise AudienceRefused(Problem("reason", "say why, for whoever asks later"))
    tree = vocabulary.rule(version.segment)
    problems = problems_of(version.audience, tree)
    if problems:
        raise AudienceRefused(*problems)
    named = grammar.names(tree)
    now = timezone.now()
    with transaction.atomic():
        lake.want_columns({name for _, name, _ in named.properties}, {name for name, _ in named.attributes})
        audience = _locked(version.audience)
        _not_archived(audience)
        version = SegmentVersion.objects.select_for_update().get(pk=version.pk)
        if version.state not in (SegmentVersion.State.DRAFT, SegmentVersion.State.IN_REVIEW):
            raise AudienceRefused(
                Problem("", f"version {version.number} is {version.get_state_display().lower()}, not a draft")
            )
        before = audience.live_version
        if before is not None:
            before.state = SegmentVersion.State.RETIRED
            before.save(update_fields=["state"])
        else:
            audience.backfill_until_us = clock.to_us(now)
        version.state, version.reason, version.published_by, version.published_at = (
            SegmentVersion.State.PUBLISHED,
            reason.strip(),
            actor,
            now,
        )
        version.save()
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
            reason=reason.strip(),
        )
        jobs.ask("audiences.refresh_due", "all")
        if before is None:
            jobs.ask("audiences.backfill", "all")
    return version


def go_back(*, actor: User | None, version: SegmentVersion, reason: str) -> SegmentVersion:
    """Publish a copy of an earlier version: history is never rewritten."""
    draft = save_draft(actor=actor, audience=version.audience, segment=vocabulary.rule(version.segment))
    return publish(actor=actor, version=draft, reason=reason)


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
    problems = vocabulary.known().problems(tree, also=[audience.key])
    if problems or not any(isinstance(leaf, InAudience) for _, leaf in leaves(tree)):
        return problems
    try:
        grammar.resolve(tree, {**vocabulary.live_rules(), audience.key: tree})
    except grammar.Refused as refused:
        return (Problem(refused.path, refused.words),)
    return ()


def ask_refresh(*, actor: User | None, audience: Audience) -> None:
    """Have it counted now, by a worker. Raises AudienceRefused where there is nothing to count."""
    with transaction.atomic():
        audience = _locked(audience)
        _not_archived(audience)
        if audience.live_version_id is None:
            raise AudienceRefused(Problem("", f'"{audience.key}" has no published rule yet'))
        audience.refresh_due_at, audience.refresh_cause = timezone.now(), Refresh.Cause.MANUAL
        audience.save(update_fields=["refresh_due_at", "refresh_cause"])
        trail.record(actor, "audience.refresh_asked", "audience", audience.key)
        jobs.ask("audiences.refresh_due", "all")


def set_excluded_by(*, actor: User | None, audience: Audience, suppressions: Sequence[Audience]) -> None:
    """Exactly these suppression audiences take their people out of what this one sends."""
    wanted = {suppression.key: suppression for suppression in suppressions}
    for key, suppression in wanted.items():
        if suppression.purpose != Audience.Purpose.SUPPRESSION:
            raise AudienceRefused(Problem("excluded_by", f'"{key}" is not a suppression audience'))
        if suppression.archived_at:
            raise AudienceRefused(Problem("excluded_by", f'"{key}" is archived'))
        if key == audience.key:
            raise AudienceRefused(Problem("excluded_by", "an audience cannot exclude itself"))
    with transaction.atomic():
        audience = _locked(audience)
        _not_archived(audience)
        before = sorted(audience.excluded_by.values_list("key", flat=True))
        if before == sorted(wanted):
            return
        audience.excluded_by.set(wanted.values())
        trail.record(actor, "audience.linked", "audience", audience.key, before=before, after=sorted(wanted))


def link_suppression(*, actor: User | None, audience: Audience, suppression: Audience) -> None:
    """One more; linking it again changes nothing."""
    linked = list(audience.excluded_by.all())
    set_excluded_by(actor=actor, audience=audience, suppressions=[*linked, suppression])


def unlink_suppression(*, actor: User | None, audience: Audience, suppression: Audience) -> None:
    """Its people may be sent again."""
    rest = [linked for linked in audience.excluded_by.all() if linked.pk != suppression.pk]
    set_excluded_by(actor=actor, audience=audience, suppressions=rest)


def archive(*, actor: User | None, audience: Audience, reason: str) -> Audience:
    """No more counting; the key stays taken and the history readable. Raises AudienceRefused while other audiences need it."""
    mentions = [
        key
        for key, tree in vocabulary.live_rules().items()
        if key != audience.key and any(leaf == InAudience(audience.key) for _, leaf in leaves(tree))
    ]
    linked = list(audience.excludes.filter(archived_at=None).values_list("key", flat=True))
    if mentions or linked:
        needed = ", ".join(sorted({*mentions, *linked})[:5])
        raise AudienceRefused(Problem("", f"needed by {needed}: change those first"))
    with transaction.atomic():
        audience = _locked(audience)
        if audience.archived_at is None:
            audience.archived_at, audience.refresh_due_at, audience.backfill_until_us = timezone.now(), None, None
            audience.save(update_fields=["archived_at", "refresh_due_at", "backfill_until_us"])
            trail.record(actor, "audience.archived", "audience", audience.key, reason=reason)
    return audience


def _locked(audience: Audience) -> Audience:
    return Audience.objects.select_for_update(of=("self",)).select_related("live_version").get(pk=audience.pk)


def _not_archived(audience: Audience) -> None:
    if audience.archived_at:
        raise AudienceRefused(Problem("", f'"{audience.key}" is archived'))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """For the trail: users by their address."""
    return {field: value.email if isinstance(value, User) else value for field, value in values.items()}
