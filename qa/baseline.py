"""Baselines: what was so when a connection first went live, frozen by the watch, and set against now. Once complete it never changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from pyroaring import BitMap

from audiences import clock, history
from audiences.bitmaps import unpack
from audiences.models import Audience, Membership, Refresh, User, Workspace
from audiences.services import trail
from destinations import identities, placements
from destinations.connectors import registry
from destinations.models import Mapping, Run
from qa.models import Baseline, SetUp

MATCHING = timedelta(hours=48)  # platforms take up to two days to say how many they found
SAMPLE = 200_000
MOST_SPEND = Decimal(9999999999)


class BaselineRefused(Exception):
    """It cannot be done, in words for a person."""


@dataclass(frozen=True, slots=True)
class Line:
    """One number then and now. `change`: its share, None where one of them is not known."""

    label: str
    then: str
    now: str
    change: float | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A baseline beside the present. `asks_spend`: nobody has said yet what was spent in a week, in `currency`. `coverage`: identifiers
    in words, with the share of people who had them; the three that most had."""

    baseline: Baseline
    mapping: Mapping
    lines: Sequence[Line]
    asks_spend: bool
    currency: str
    coverage: Sequence[tuple[str, float]]


def of(audience: Audience) -> list[Compared]:
    """Of each connection that has gone live. Three queries."""
    rows = (
        Baseline.objects.filter(mapping__audience=audience)
        .select_related("mapping__destination", "mapping__ledger", "mapping__audience", "version")
        .defer(
            "version__segment", "mapping__destination__credentials", "mapping__ledger__base", "mapping__ledger__present",
            "mapping__ledger__unknown", "mapping__ledger__rejected", "mapping__ledger__ever_sent", "mapping__ledger__reassert",
            "mapping__ledger__vetoed", "mapping__ledger__withdraw",
        )
        .order_by("mapping__destination__name", "pk")
    )  # fmt: skip
    size = Membership.objects.filter(audience=audience).values_list("count", flat=True).first()
    workspace = Workspace.objects.first()
    return [_compared(row, size, workspace.currency if workspace else "") for row in rows]


def freeze(*, now: datetime | None = None) -> int:
    """Take those that are missing, and fill in what was not known yet; how many rows changed. The watch calls it at each look."""
    now = now or timezone.now()
    changed = 0
    new = Mapping.objects.filter(first_live_at__isnull=False, baseline=None, audience__membership__isnull=False)
    for mapping in new.select_related("audience", "destination").order_by("pk")[:20]:
        changed += _take(mapping, now)
    unready = Baseline.objects.filter(completed_at=None).select_related("mapping__destination", "mapping__audience")
    for row in unready.order_by("pk"):
        changed += _complete(row, now)
    return changed


def enter_spend(*, actor: User, baseline: Baseline, amount: Decimal) -> Baseline:
    """What was spent on it in a week, as somebody knows it. Once all is known it stays. Raises BaselineRefused."""
    if not amount.is_finite() or not 0 <= amount <= MOST_SPEND:
        raise BaselineRefused("Enter an amount of money, such as 2400.")
    with transaction.atomic():
        row = Baseline.objects.select_for_update().get(pk=baseline.pk)
        if row.weekly_spend is not None and row.completed_at is not None:
            raise BaselineRefused("The baseline is complete and stays as it is.")
        before = {"weekly_spend": str(row.weekly_spend) if row.weekly_spend is not None else None}
        workspace = Workspace.objects.first()
        row.weekly_spend, row.currency = amount.quantize(Decimal("0.01")), workspace.currency if workspace else ""
        row.save(update_fields=["weekly_spend", "currency"])
        mapping = Mapping.objects.select_related("audience", "destination").get(pk=row.mapping_id)
        after = {
            "weekly_spend": str(row.weekly_spend),
            "currency": row.currency,
            "destination": mapping.destination.key,
        }
        trail.record(actor, "baseline.spend_entered", "audience", mapping.audience.key, before=before, after=after)
    return row


def _take(mapping: Mapping, now: datetime) -> int:
    """Size and version as of the last count before it went live, else of the first after; identifiers of whom it holds now."""
    assert mapping.first_live_at is not None
    membership = Membership.objects.filter(audience=mapping.audience).select_related("refresh__version").first()
    if membership is None:
        return 0
    counted: Refresh = history.refresh_at(mapping.audience, clock.to_us(mapping.first_live_at)) or membership.refresh
    spend = (
        SetUp.objects.filter(
            Q(mapping=mapping) | Q(audience=mapping.audience, mapping=None), weekly_spend__isnull=False
        )
        .order_by("-pk")
        .values_list("weekly_spend", flat=True)
        .first()
    )
    workspace = Workspace.objects.first()
    values = {
        "size": counted.count if counted.count is not None else membership.count,
        "coverage": _coverage(mapping, unpack(membership.members)),
        "version_id": counted.version_id,
        "weekly_spend": spend,
        "currency": workspace.currency if workspace and spend is not None else "",
        "frozen_at": now,
    }
    _, made = Baseline.objects.get_or_create(mapping=mapping, defaults=values)
    return int(made)


def _coverage(mapping: Mapping, people: BitMap) -> dict[str, float]:
    connector = registry.CONNECTORS.get(mapping.destination.kind)
    if connector is None or not people:
        return {}
    if len(people) > SAMPLE:
        people = BitMap(list(people)[:: len(people) // SAMPLE + 1])
    found, whole = identities.coverage(people), len(people)
    return {kind: round(found[kind] / whole, 4) for kind in connector.capabilities.identifiers if kind in found}


def _complete(row: Baseline, now: datetime) -> int:
    """Received, once a sync has ended; matched, once the platform says, or has had two days to."""
    mapping = row.mapping
    ended = (
        Run.objects.filter(mapping=mapping, rehearsal=False, state__in=(Run.State.DONE, Run.State.PARTIAL))
        .filter(finished_at__gte=mapping.first_live_at)
        .order_by("pk")
        .first()
    )
    if ended is None or ended.finished_at is None:
        return 0
    values: dict[str, Any] = {}
    if row.received is None:
        values["received"] = ended.added + (ended.unchanged or 0)
    known = mapping.matched_low is not None or mapping.matched_high is not None
    silent = bool(mapping.matched_words) and not known
    if known or silent or now - ended.finished_at > MATCHING:
        values |= {
            "matched_low": mapping.matched_low,
            "matched_high": mapping.matched_high,
            "matched_words": ""
            if known
            else mapping.matched_words or f"{placements.label(mapping.destination.kind)} did not say",
            "completed_at": now,
        }
    return Baseline.objects.filter(pk=row.pk, completed_at=None).update(**values) if values else 0


def _compared(row: Baseline, size: int | None, currency: str) -> Compared:
    mapping = row.mapping
    ledger = getattr(mapping, "ledger", None)
    there = ledger.present_count if ledger is not None and row.received is not None else None
    lines = [
        _line("Size", row.size, size),
        _line("Received by the platform", row.received, there),
        Line("Matched", _matched(row, row.received), placements.matched(mapping, "{:,}".format)),
    ]
    return Compared(row, mapping, lines, row.weekly_spend is None, row.currency or currency, _in_words(row))


def _in_words(row: Baseline) -> list[tuple[str, float]]:
    connector = registry.CONNECTORS.get(row.mapping.destination.kind)
    words = connector.capabilities.identifiers if connector else {}
    named = [
        (words.get(kind, kind).split(" (")[0], share)
        for kind, share in row.coverage.items()
        if share and kind in identities.NAMING
    ]
    return sorted(((_lower(word), share) for word, share in named), key=lambda pair: -pair[1])[:3]


def _lower(word: str) -> str:
    """E-mail → e-mail; IDFA stays."""
    return word if word[:2].isupper() else word[:1].lower() + word[1:]


def _line(label: str, then: int | None, now: int | None) -> Line:
    change = round((now - then) / then, 3) if then and now is not None else None
    was, is_ = ("Not known yet" if value is None else f"{value:,}" for value in (then, now))
    return Line(label, was, is_, change)


def _matched(row: Baseline, received: int | None) -> str:
    low, high = row.matched_low, row.matched_high
    if low is None and high is None:
        return row.matched_words or "Not known yet"
    if low is None or high is None or low == high:
        return f"{(high if low is None else low) or 0:,}"
    return f"{low:,}–{high:,}"
