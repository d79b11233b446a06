"""The first minute of the demo: four things to do, by role, each a link into the sample shop as it is now."""

from dataclasses import dataclass

from django.urls import reverse

from audiences.models import Audience, User
from destinations.models import Destination, Mapping
from qa.models import Incident, Mail
from qa.sample import story
from qa.sample.fill import FAILING, REHEARSED, VIP

COOKIE = "tour"
BUY_AGAINST = "meta_retarget_cart_7d"
BOTH = ("meta_retarget_browse_7d", "meta_retarget_viewed3_14d")


@dataclass(frozen=True, slots=True)
class Step:
    symbol: str
    title: str
    words: str
    url: str
    action: str


def steps(user: User) -> list[Step]:
    """Those whose rows are there already: the shop is filled while one looks around."""
    role = User.Role(user.role)
    offered = {
        User.Role.MARKETER: (_drop, _purchase, _overlap, _new),
        User.Role.BUYER: (_find, _drop, _overlap, _test),
        User.Role.OPERATOR: (_token, _rehearsal, _purchase, _drop),
        User.Role.ADMIN: (_drop, _purchase, _overlap, _new),
    }[role]
    return [step for step in (offer() for offer in offered) if step is not None]


def _drop() -> Step | None:
    """The incident of the VIP audience, and its mail."""
    opened = Incident.objects.filter(audience__key=VIP).order_by("-pk").values_list("pk", flat=True).first()
    if opened is None:
        return None
    mail = Mail.objects.filter(incident=opened).order_by("pk").values_list("pk", flat=True).first()
    return Step(
        "watch",
        "See what dropped, and who was told",
        "Two days ago a new version took two fifths of the people out of an audience. Its owner got a mail within minutes.",
        reverse("qa:mail", args=[mail]) if mail else reverse("qa:alert", args=[opened]),
        "Open the mail" if mail else "Open the alert",
    )


def _purchase() -> Step | None:
    found = story.candidate()
    if found is None:
        return None
    return Step(
        "people",
        "Make a person buy",
        "Take somebody who sees your ads, let them buy, and watch the clock: out of retargeting, into suppression, at Meta too.",
        reverse("audiences:person", args=[found]),
        "Pick a person",
    )


def _overlap() -> Step | None:
    keys = set(Audience.objects.filter(key__in=BOTH, membership__isnull=False).values_list("key", flat=True))
    if keys != set(BOTH):
        return None
    a, b = BOTH
    return Step(
        "lookalike",
        "Stop bidding against yourself",
        "Two audiences share thousands of people. Leave one out of the other, and see both counts change.",
        reverse("audiences:overlap-cell", args=[a, b]),
        "See the overlap",
    )


def _new() -> Step:
    return Step(
        "plus",
        "Set up a new audience",
        "Seven steps from a destination to an owner, with its suppression audience beside it. Leave any time and go on later.",
        reverse("qa:new-audience"),
        "Begin",
    )


def _find() -> Step:
    return Step(
        "search",
        "Find an audience to buy against",
        "Each has a name, a plain sentence, its size at the platform and its health. Copy what to include and what to exclude.",
        reverse("qa:catalog"),
        "Browse audiences",
    )


def _test() -> Step | None:
    if not Audience.objects.filter(key=BUY_AGAINST).exists():
        return None
    return Step(
        "lock",
        "Keep it still while you test",
        "Mark an audience as in test until a date: nobody changes its rule before, unless an admin breaks the lock and says why.",
        reverse("qa:audience", args=[BUY_AGAINST]),
        "Open an audience",
    )


def _token() -> Step | None:
    if not Destination.objects.filter(key=FAILING).exists():
        return None
    return Step(
        "key",
        "Mend a refused account",
        "Google took back the outlet’s token. See what stopped, what still is right there, and connect it again.",
        reverse("destinations:destination", args=[FAILING]),
        "Open the account",
    )


def _rehearsal() -> Step | None:
    pk = Mapping.objects.filter(audience__key=REHEARSED).values_list("pk", flat=True).first()
    if pk is None:
        return None
    return Step(
        "eye",
        "Rehearse before anything is sent",
        "Who would be added and removed, what a call would look like, how many calls and how long. Then let it go live.",
        reverse("destinations:rehearsal", args=[pk]),
        "Open the rehearsal",
    )
