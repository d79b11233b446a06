"""Whether a platform that lets us read its members holds whom we believe it holds. Nothing is put right here: a person does that.

Platforms that nobody can read (Meta, Google) are not compared; there, what a call left unknown is told again, and sizes are watched.
"""

from datetime import datetime, timedelta

from django.db.models import Q
from pyroaring import BitMap

from audiences.bitmaps import unpack
from audiences.models import Identity
from destinations import ledger
from destinations.connectors import registry
from destinations.connectors.base import Connector
from destinations.models import TELLS, Ledger, Mapping, Operation

EVERY = timedelta(days=1)
_READABLE = tuple(kind for kind, connector in registry.CONNECTORS.items() if connector.capabilities.can_read_members)


def due(now: datetime) -> list[Mapping]:
    """Connections that were not compared for a day, and of which no call is open just now."""
    rows = Mapping.objects.filter(
        Q(drift_at=None) | Q(drift_at__lt=now - EVERY),
        destination__kind__in=_READABLE,
        state__in=TELLS,
        blocked_reason="",
    )
    rows = rows.exclude(remote_id="").exclude(operations__open=True).select_related("destination", "audience")
    return [row for row in rows if "external_id" in row.identifiers]


def compare(mapping: Mapping, connector: Connector, now: datetime) -> bool:
    """Read the members and count who is missing there, who should have left, and whom nobody here ever sent. False: it moved meanwhile."""
    before = ledger.look(mapping.pk, now=now).state
    ever = unpack(Ledger.objects.values_list("ever_sent", flat=True).get(mapping=mapping))
    there = set(connector.read_members(mapping.remote_id))
    if Operation.objects.filter(mapping=mapping, prepared_at__gte=now).exists():
        return False
    ours = _external_ids(before.present)
    strangers = there - ours - _external_ids(before.unknown | before.intent | before.again)
    left = strangers & _external_ids(ever)
    mapping.drift_missing, mapping.drift_left, mapping.drift_foreign = (
        len(ours - there),
        len(left),
        len(strangers - left),
    )
    mapping.drift_at = now
    mapping.save(update_fields=["drift_missing", "drift_left", "drift_foreign", "drift_at"])
    return True


def _external_ids(identities: BitMap) -> set[str]:
    found: set[str] = set()
    numbers = list(identities)
    for start in range(0, len(numbers), 10_000):
        rows = Identity.objects.filter(identity_no__in=numbers[start : start + 10_000]).exclude(external_id="")
        found.update(rows.values_list("external_id", flat=True))
    return found
