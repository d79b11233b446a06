"""Who answers for an audience: four roles, who holds them, who is mailed, whose audiences are "mine". Reads only; services/audiences.py writes."""

from collections import Counter
from dataclasses import dataclass

from django.db.models import Q

from audiences.models import Audience, User


@dataclass(frozen=True, slots=True)
class Role:
    """`field` is the audience's, `key` what a file calls it; `needed`: nothing is published by a person without it."""

    field: str
    key: str
    label: str
    means: str
    needed: bool = True


@dataclass(frozen=True, slots=True)
class Holding:
    """Somebody holds a role on an audience, or nobody does."""

    audience: Audience
    role: Role
    user: User | None

    @property
    def gone(self) -> bool:
        """Whoever is named can no longer sign in."""
        return self.user is not None and not self.user.is_active


ROLES = (
    Role("definition_owner", "definition", "Definition", "Answers for the rule: what it says, and why"),
    Role("sync_owner", "sync_health", "Match rate", "Watches how many of those sent the platforms find"),
    Role("alert_owner", "alerts", "Alerts", "Is mailed when something is wrong"),
    Role("backup_owner", "backup", "Backup", "Stands in when one of the others is away", needed=False),
)


def alerted(audience: Audience) -> User | None:
    """Who is mailed about it: the owner of its alerts, else of its match rate, else of its rule, else the backup. Nobody who is gone."""
    named = (audience.alert_owner, audience.sync_owner, audience.definition_owner, audience.backup_owner)
    return next((user for user in named if user is not None and user.is_active), None)


def holdings(audience: Audience) -> tuple[Holding, ...]:
    """All four roles of one audience, in order."""
    return tuple(Holding(audience, role, getattr(audience, role.field)) for role in ROLES)


def missing(audience: Audience) -> tuple[Role, ...]:
    """The roles without which no person may publish: nobody is named, or who is named is gone."""
    return tuple(held.role for held in holdings(audience) if held.role.needed and (held.user is None or held.gone))


def held_by(user: User) -> list[Holding]:
    """Every role that somebody holds on an audience that is not archived, by audience. One query."""
    fields = [role.field for role in ROLES]
    named = Q(*((field, user) for field in fields), _connector=Q.OR)
    rows = Audience.objects.filter(named, archived_at=None).select_related("live_version", *fields).order_by("key")
    return [held for row in rows for held in holdings(row) if held.user == user]


def held_by_all() -> dict[int, int]:
    """User → how many roles they hold. One query."""
    fields = [f"{role.field}_id" for role in ROLES]
    rows = Audience.objects.filter(archived_at=None).values_list(*fields)
    return dict(Counter(user for row in rows for user in row if user))


def mine(user: User) -> Q:
    """Audiences on which somebody holds one of the four roles, or that they follow. A condition on Audience; no row comes twice."""
    named = Q(*((role.field, user) for role in ROLES), _connector=Q.OR)
    return named | Q(pk__in=Audience.followers.through.objects.filter(user=user).values("audience_id"))
