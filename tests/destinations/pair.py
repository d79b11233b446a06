"""A retargeting audience and its suppression audience, live and in sync, and the fast lane that reads what happens, in this process."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from destinations import leases, urgent
from destinations.fastlane import FastLane
from destinations.models import Destination, Operation
from destinations.sandbox.control import Sandbox
from tests.audiences.people_in import identify, track, until_counted
from tests.destinations import scene
from tests.destinations.scene import Scene, hashes

BOUGHT = {"event": "purchase", "count": {"at_least": 1}, "within": "180d"}
PEOPLE = ("anna", "bert", "carl")


@dataclass
class Pair:
    """A retargeting audience and the suppression audience that it is linked to, both live; the lane that reads what happens."""

    cart: Scene
    bought: Scene
    lane: FastLane

    def happens(self, now: Callable[[], datetime] = timezone.now) -> None:
        """The lane looks, and what it sends is delivered. No sync and no count."""
        self.lane.look()
        for destination in Destination.objects.all():
            urgent.deliver(destination.pk, now=now)

    def causes(self) -> set[tuple[str, str]]:
        """(kind, cause) of the calls that were said urgently."""
        return set(Operation.objects.filter(lane=leases.URGENT).values_list("kind", "cause"))


def made(sandbox: Sandbox, account: str, rule: dict[str, Any] = scene.NO_PURCHASE) -> Pair:
    scene.workspace()
    scene.imported(*PEOPLE)
    identify("zoe", email="zoe@example.com")
    track("zoe", "purchase")
    suppression = scene.audience("bought_180d", BOUGHT, "suppression")
    retargeting = scene.audience("cart", rule)
    retargeting.excluded_by.add(suppression)
    bought, cart = scene.live(sandbox, account, suppression), scene.live(sandbox, account, retargeting)
    until_counted()
    bought.sync()
    cart.sync()
    lane = FastLane()
    lane.look()
    found = Pair(cart, bought, lane)
    assert (cart.emails(), bought.emails()) == (hashes(*PEOPLE), hashes("zoe"))
    return found
