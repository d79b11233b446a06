"""Archiving an audience for good: only once no platform keeps people for it. The rest is the floor below's."""

from django.db import transaction

from audiences.models import Audience, User
from audiences.services import audiences
from audiences.services.audiences import AudienceRefused
from audiences.vocabulary import Problem
from destinations.models import Mapping

SHOWN = 3


def connected(audience: Audience) -> list[Mapping]:
    """The connections that must be retired first: until then people stay on the platform."""
    rows = Mapping.objects.filter(audience=audience).exclude(state=Mapping.State.RETIRED)
    return list(rows.select_related("destination").order_by("destination__name", "pk"))


def archive(*, actor: User | None, audience: Audience, reason: str) -> Audience:
    """No more counting. Raises AudienceRefused while it is connected, while other audiences need it, and without a reason."""
    with transaction.atomic():
        audience = audiences.held(audience)
        if standing := connected(audience):
            names = [mapping.destination.name for mapping in standing]
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise AudienceRefused(
                Problem(
                    "connections",
                    f"still connected to {', '.join(names[:SHOWN])}{more}: retire those connections first",
                )
            )
        return audiences.archive(actor=actor, audience=audience, reason=reason)
