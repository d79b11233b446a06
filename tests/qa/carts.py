"""Ten people with a cart, five of them in Germany, and changes of the audience that holds them, for tests of what goes live and how."""

from typing import Any

from audiences.models import Audience, Refresh, SegmentVersion, User, Workspace
from audiences.services import refreshes, versions
from tests import filled
from tests.audiences.people_in import identify, track
from tests.filled import Filled

CARTS: dict[str, Any] = {"event": "add_to_cart", "count": {"at_least": 1}, "within": "24h"}
FEWER: dict[str, Any] = {"all": [CARTS, {"attribute": "country", "op": "is", "value": "DE"}]}
SAME: dict[str, Any] = {"event": "add_to_cart", "count": {"at_least": 1}, "within": "25h"}


def world() -> Filled:
    made = filled.fill()
    Workspace.objects.update(review_above_percent=20)
    return made


def carts(people: Filled) -> Audience:
    """Counted, live."""
    for number in range(8):
        identify(f"p{number}", email=f"p{number}@shop.example", country="DE" if number < 4 else "FR")
        track(f"p{number}", "add_to_cart")
    made = filled.audience("carts", CARTS, people.users["marketer"])
    refreshes.refresh([made], cause=Refresh.Cause.MANUAL)
    return Audience.objects.get(pk=made.pk)


def draft(audience: Audience, segment: dict[str, Any], author: User | None) -> SegmentVersion:
    return versions.save_draft(actor=author, audience=audience, segment=segment)


def change(audience: Audience, author: User | None, segment: dict[str, Any] = FEWER) -> SegmentVersion:
    """Published, if nobody else has to look at it."""
    return versions.publish(actor=author, version=draft(audience, segment, author), reason="Only Germany")


def live(audience: Audience) -> SegmentVersion | None:
    return Audience.objects.select_related("live_version").get(pk=audience.pk).live_version
