"""Audiences: made, named, owned, linked, followed, archived. Their rules are services/versions.py's, counting services/refreshes.py's.

Every function takes the acting user first (None: the system, or a command), by keyword, and leaves a line in the audit trail.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from audiences import jobs, vocabulary
from audiences.models import Audience, Refresh, User
from audiences.segments.tree import InAudience, leaves
from audiences.services import trail, users
from audiences.vocabulary import Problem

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
CADENCE = range(60, 30 * 24 * 3600 + 1)  # seconds
OWNERS = ("definition_owner", "sync_owner", "alert_owner", "backup_owner")  # what each is for: audiences/owners.py
FIELDS = ("name", "description", "purpose", *OWNERS, "cadence_seconds")


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
    alert_owner: User | None = None,
    backup_owner: User | None = None,
    cadence_seconds: int = 900,
) -> Audience:
    """A new audience without a rule. The name is the key where none is given. A key is never reused, not even an archived one's."""
    if not KEY.fullmatch(key):
        raise AudienceRefused(
            Problem("key", "must be 1 to 100 letters, digits, _ or -, and begin with one of the first two")
        )
    if key.lower() == "new":
        raise AudienceRefused(Problem("key", "is the address of a page, so no audience is called that"))
    values = check(
        name=name or key,
        description=description,
        purpose=purpose,
        definition_owner=definition_owner,
        sync_owner=sync_owner,
        alert_owner=alert_owner,
        backup_owner=backup_owner,
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
        audience = held(audience)
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
    *,
    actor: User | None,
    audience: Audience,
    definition_owner: User | None,
    sync_owner: User | None,
    alert_owner: User | None,
    backup_owner: User | None = None,
    reason: str = "",
) -> Audience:
    """Who answers for the rule, who watches the match rate, who is mailed on trouble, and who stands in. Raises AudienceRefused for somebody
    who has been deactivated and did not hold the role already."""
    chosen = dict(zip(OWNERS, (definition_owner, sync_owner, alert_owner, backup_owner), strict=True))
    with transaction.atomic():
        row = held(audience)
        gone = [
            Problem(role, f"{user} can no longer sign in: name somebody else")
            for role, user in chosen.items()
            if user is not None and not user.is_active and getattr(row, f"{role}_id") != user.pk
        ]
        if gone:
            raise AudienceRefused(*gone)
        return change(actor=actor, audience=row, reason=reason, **chosen)


def hand_over(
    *,
    actor: User | None,
    leaving: User,
    successors: Mapping[tuple[int, str], User],
    reason: str = "",
    deactivate: bool = False,
) -> None:
    """Give roles that somebody holds to others, by (audience, field of the role); then let them go. All of it or nothing.
    Raises UserRefused where no admin would be left. What they do not hold (any more) stays as it is."""
    with transaction.atomic():
        for audience in Audience.objects.filter(pk__in={pk for pk, _ in successors}).order_by("pk"):
            row = held(audience)
            taken = {
                field: user
                for (pk, field), user in successors.items()
                if pk == row.pk and field in OWNERS and user.is_active and getattr(row, f"{field}_id") == leaving.pk
            }
            change(actor=actor, audience=row, reason=reason or f"Handed over by {leaving.email}", **taken)
        if deactivate:
            users.deactivate(actor=actor, user=leaving, reason=reason)


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


def ask_refresh(*, actor: User | None, audience: Audience) -> None:
    """Have it counted now, by a worker. Raises AudienceRefused where there is nothing to count."""
    with transaction.atomic():
        audience = held(audience)
        not_archived(audience)
        if audience.live_version_id is None:
            raise AudienceRefused(Problem("", f'"{audience.key}" has no published rule yet'))
        audience.refresh_due_at, audience.refresh_cause = timezone.now(), Refresh.Cause.MANUAL
        audience.save(update_fields=["refresh_due_at", "refresh_cause"])
        trail.record(actor, "audience.refresh_asked", "audience", audience.key)
        jobs.ask("audiences.refresh_due", "all")


def set_excluded_by(
    *, actor: User | None, audience: Audience, suppressions: Sequence[Audience], reason: str = ""
) -> None:
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
        audience = held(audience)
        not_archived(audience)
        before = sorted(audience.excluded_by.values_list("key", flat=True))
        if before == sorted(wanted):
            return
        audience.excluded_by.set(wanted.values())
        trail.record(
            actor, "audience.linked", "audience", audience.key, before=before, after=sorted(wanted), reason=reason
        )


def link_suppression(*, actor: User | None, audience: Audience, suppression: Audience, reason: str = "") -> None:
    """One more; linking it again changes nothing."""
    linked = list(audience.excluded_by.all())
    set_excluded_by(actor=actor, audience=audience, suppressions=[*linked, suppression], reason=reason)


def unlink_suppression(*, actor: User | None, audience: Audience, suppression: Audience, reason: str = "") -> None:
    """Its people may be sent again."""
    rest = [linked for linked in audience.excluded_by.all() if linked.pk != suppression.pk]
    set_excluded_by(actor=actor, audience=audience, suppressions=rest, reason=reason)


def archive(*, actor: User | None, audience: Audience, reason: str) -> Audience:
    """No more counting; the key stays taken and the history readable. Raises AudienceRefused while other audiences need it. Where it may
    still be connected, destinations/services/archiving.py is the door."""
    needs_reason(reason)
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
        audience = held(audience)
        if audience.archived_at is None:
            audience.archived_at, audience.refresh_due_at, audience.backfill_until_us = timezone.now(), None, None
            audience.save(update_fields=["archived_at", "refresh_due_at", "backfill_until_us"])
            trail.record(actor, "audience.archived", "audience", audience.key, reason=reason)
    return audience


def follow(*, actor: User, audience: Audience, following: bool) -> None:
    """Show the actor on their home page what happens to it, or no longer. Their own affair: no line in the trail. Asked twice, it is so once."""
    if following:
        audience.followers.add(actor)
    else:
        audience.followers.remove(actor)


def needs_reason(reason: str) -> str:
    """The reason as it is kept. Raises AudienceRefused where there is none."""
    if not reason.strip():
        raise AudienceRefused(Problem("reason", "say why, for whoever asks later"))
    if "\0" in reason:
        raise AudienceRefused(Problem("reason", "holds a NUL character"))
    return reason.strip()


def held(audience: Audience) -> Audience:
    """Its row, locked until the transaction ends."""
    return Audience.objects.select_for_update(of=("self",)).select_related("live_version").get(pk=audience.pk)


def not_archived(audience: Audience) -> None:
    """Raises AudienceRefused."""
    if audience.archived_at:
        raise AudienceRefused(Problem("", f'"{audience.key}" is archived'))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """For the trail: users by their address."""
    return {field: value.email if isinstance(value, User) else value for field, value in values.items()}
