"""One person, all three floors: in or out and by which rules, since when and under which version, and what each platform was told. Reads only."""

from dataclasses import dataclass
from typing import Any

from audiences import history, standings
from audiences.history import Stay
from audiences.management.moments import iso
from audiences.models import Audience, Membership
from audiences.people.biography import Biography
from audiences.standings import Standing
from destinations import queries, trace
from destinations.models import Ledger, Mapping
from destinations.trace import Trace


@dataclass(frozen=True, slots=True)
class Told:
    """Where they stand with one connection, in words. `trace` None: it was never planned."""

    connection: Mapping
    platform: str
    trace: Trace | None

    @property
    def step(self) -> tuple[str, str]:
        """The step that took them out and what it means; empty where none did."""
        if self.trace is None or not self.trace.step:
            return "", ""
        return queries.STEPS.get(self.trace.step, (self.trace.step, ""))

    @property
    def concerns(self) -> bool:
        """Whether there is anything to say of them: wanted, taken out, or ever sent."""
        found = self.trace
        return found is not None and (found.wanted or found.ever_sent or found.told != "absent" or bool(found.step))

    @property
    def words(self) -> str:
        """What the platform was told of them, as a sentence about now."""
        found = self.trace
        if found is None:
            return f"Nothing has been planned yet: the connection is {self.connection.get_state_display().lower()}."
        match found.told:
            case "present":
                return "Added, and received." if found.wanted else "Still there: they are to be taken out."
            case "unknown":
                return "Sent, and the outcome is not known. They are told again."
            case "rejected":
                return f"Refused by the platform. {found.reason}".strip()
        if found.wanted:
            return "To be added, and not told yet."
        if found.last is not None and found.last.kind == "remove":
            return (
                "Taken out, and received." if found.last.answered_at else "To be taken out; the outcome is not known."
            )
        return "Never sent."


@dataclass(frozen=True, slots=True)
class Tracing:
    """One person and one audience. `stays`: oldest first; empty: never in by any count on record."""

    life: Biography
    standing: Standing
    counted_us: int | None
    stays: tuple[Stay, ...]
    told: tuple[Told, ...]

    @property
    def audience(self) -> Audience:
        return self.standing.audience

    @property
    def stay(self) -> Stay | None:
        """The last one."""
        return self.stays[-1] if self.stays else None

    @property
    def concerns(self) -> bool:
        return bool(self.standing.counted) or any(told.concerns for told in self.told)


def of(life: Biography, audience: Audience) -> Tracing | None:
    """None where the audience has no published rule, or is archived."""
    found = standings.standings(life, [audience.key])
    if not found:
        return None
    membership = Membership.objects.filter(audience=audience).select_related("refresh").defer("members").first()
    return Tracing(
        life,
        found[0],
        membership.refresh.as_of_us if membership else None,
        tuple(history.stays(audience, life.profile.pk)),
        tuple(_told(life.profile.pk, audience)),
    )


def everywhere(life: Biography) -> list[Tracing]:
    """Every audience that has, had or wants something to do with them, those they are in first. When they came is read of these only."""
    found = []
    counted = dict(Membership.objects.values_list("audience_id", "refresh__as_of_us"))
    told: dict[int, list[Told]] = {}
    for one in _told(life.profile.pk):
        told.setdefault(one.connection.audience_id, []).append(one)
    for standing in standings.standings(life):
        of_it = tuple(told.get(standing.audience.pk, ()))
        if not standing.counted and not any(one.concerns for one in of_it):
            continue
        stays = tuple(history.stays(standing.audience, life.profile.pk))
        found.append(Tracing(life, standing, counted.get(standing.audience.pk), stays, of_it))
    return found


def as_data(found: Tracing, asked: str) -> dict[str, Any]:
    """For machines. `asked` is the id as it was typed; nothing else here names the person."""
    stay, rule = found.stay, found.standing.rule
    version = found.audience.live_version
    return {
        "audience": found.audience.key,
        "version": version.number if version else None,
        "person": asked,
        "profile_no": found.life.profile.pk,
        "in": {
            "count": found.standing.counted,
            "counted_at": iso(found.counted_us) if found.counted_us is not None else None,
            "now": found.standing.now,
            "judged_at": iso(found.life.as_of_us),
        },
        "problem": found.standing.problem or None,
        "rules": [{"path": part.path, "words": part.words, "holds": part.holds} for part in rule.flat()]
        if rule
        else [],
        "decided_by": [part.path for part in found.standing.decisive],
        "since": _since(stay) if stay and stay.left_us is None else None,
        "left": _left(stay) if stay and stay.left_us is not None else None,
        "connections": [_connection(told) for told in found.told],
    }


def _told(profile_no: int, audience: Audience | None = None) -> list[Told]:
    """Their standing with every connection, or with those of one audience."""
    rows = Mapping.objects.filter(audience__archived_at=None).select_related("destination", "audience")
    if audience is not None:
        chosen = list(rows.filter(audience=audience).order_by("destination__name", "pk"))
        planned = set(
            Ledger.objects.filter(mapping__in=chosen, refresh__isnull=False).values_list("mapping", flat=True)
        )
        traces = {row.pk: trace.trace(row, profile_no) for row in chosen if row.pk in planned}
    else:
        chosen = list(rows.order_by("destination__name", "pk"))
        traces = trace.everywhere(profile_no)
    return [Told(row, _label(row), traces.get(row.pk)) for row in chosen]


def _label(row: Mapping) -> str:
    platform = queries.platform_of(row.destination.kind)
    return platform.label if platform else row.destination.kind


def _since(stay: Stay) -> dict[str, Any]:
    return {
        "entered_at": iso(stay.entered_us),
        "version": stay.entered_version,
        "before_first_count": stay.since_before,
        "by_new_version": stay.entered_by_new_version,
        "computed_afterwards": stay.entered_backfilled,
    }


def _left(stay: Stay) -> dict[str, Any]:
    assert stay.left_us is not None
    return {
        "entered_at": iso(stay.entered_us),
        "left_at": iso(stay.left_us),
        "version": stay.left_version,
        "by_new_version": stay.left_by_new_version,
    }


def _connection(told: Told) -> dict[str, Any]:
    row, found = told.connection, told.trace
    step, why = told.step
    last = found.last if found else None
    return {
        "destination": row.destination.key,
        "platform": told.platform,
        "state": row.state,
        "wanted": found.wanted if found else None,
        "step": (found.step or None) if found else None,
        "step_words": f"{step}. {why}" if step else None,
        "told": found.told if found else None,
        "reason": (found.reason or None) if found else None,
        "ever_sent": found.ever_sent if found else None,
        "words": told.words,
        "last_operation": None
        if last is None
        else {
            "kind": last.kind,
            "cause": last.cause,
            "state": last.state,
            "sent_at": last.sent_at,
            "accepted_at": last.answered_at if last.state in ("settled", "submitted") else None,
            "request_id": last.request_id or None,
            "http_status": last.http_status,
            "run": last.run_id,
        },
    }
