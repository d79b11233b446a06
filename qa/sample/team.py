"""The people of the sample shop: who follows, tests, checks, rehearses and has begun what. Through the services, like a team."""

from datetime import timedelta
from decimal import Decimal

from django.utils import timezone

from audiences import jobs
from audiences.models import Audience, SegmentVersion, TestLock, User
from audiences.services import locks, versions
from destinations.models import Destination, Mapping, Run
from destinations.services import runs
from qa import setup, spot_check
from qa.models import Baseline, SetUp, SpotCheck

IN_TEST = "google_retarget_cart_7d"
IN_REVIEW = "google_suppress_purchasers_7d"
CHECKED = ("meta_retarget_cart_24h", "meta_suppress_purchasers_14d")
FOLLOWED = {
    "buyer@example.com": ("meta_retarget_cart_7d", "meta_vip_spend_365d", "google_retarget_cart_7d"),
    "marketer@example.com": ("meta_vip_spend_365d", "meta_retarget_browse_7d"),
    "operator@example.com": ("google_outlet_browse_30d",),
}
SPEND = {"meta_retarget_cart_24h": "2400", "meta_retarget_cart_7d": "3150", "google_retarget_cart_7d": "1800"}


def user(role: str) -> User:
    return User.objects.get(email=f"{role}@example.com")


def follow() -> None:
    for email, keys in FOLLOWED.items():
        User.objects.get(email=email).follows.add(*Audience.objects.filter(key__in=keys))


def test() -> None:
    """One audience is in a test, and a change to it waits for the end."""
    audience = Audience.objects.get(key=IN_TEST)
    if not TestLock.objects.filter(audience=audience).exists():
        until = (timezone.now() + timedelta(days=9)).replace(hour=18, minute=0, second=0, microsecond=0)
        locks.set_lock(
            actor=user("buyer"),
            audience=audience,
            until=until,
            note="Landing page A against B, read-out on the last day",
        )
    if not audience.versions.filter(state=SegmentVersion.State.IN_REVIEW).exists():
        rule = {
            "all": [
                {"event": "add_to_cart", "count": {"at_least": 1}, "within": "10d"},
                {"event": "purchase", "count": {"exactly": 0}, "within": "10d"},
            ]
        }
        draft = versions.save_draft(actor=user("marketer"), audience=audience, segment=rule)
        versions.publish_when_free(
            actor=user("marketer"), version=draft, reason="Carts stay warm for ten days before the holidays"
        )


def ask_for_review() -> None:
    """A change of a suppression audience waits for somebody else to approve it."""
    audience = Audience.objects.get(key=IN_REVIEW)
    if not audience.versions.filter(state=SegmentVersion.State.IN_REVIEW).exists():
        rule = {"event": "purchase", "count": {"at_least": 1}, "within": "10d"}
        draft = versions.save_draft(actor=user("marketer"), audience=audience, segment=rule)
        versions.publish(
            actor=user("marketer"),
            version=draft,
            reason="Parcels take up to ten days, and nobody buys before theirs is there",
        )


def check() -> None:
    """Two audiences were looked at, person by person, and signed; a third is drawn and waits."""
    marketer = user("marketer")
    for key in (*CHECKED, "meta_retarget_browse_7d"):
        audience = Audience.objects.get(key=key)
        connection = Mapping.objects.filter(audience=audience, state=Mapping.State.LIVE).first()
        row = SpotCheck.objects.filter(audience=audience).first()
        row = row or spot_check.start(actor=marketer, audience=audience, connection=connection, size=12)
        if row.state == SpotCheck.State.DRAWING:
            jobs.run_now(spot_check.TASK, row.pk, queue="compute")
            row.refresh_from_db()
        if key in CHECKED and row.state == SpotCheck.State.READY:
            spot_check.sign(actor=marketer, check=row, words="Looked up in the shop’s own order list")


def begin_one() -> None:
    """A set-up that was left after its second step."""
    marketer = user("marketer")
    if not SetUp.objects.exists():
        row = setup.begin(
            actor=marketer,
            purpose=Audience.Purpose.RETARGETING,
            destination=Destination.objects.get(key="google_main"),
        )
        setup.confirm_identity(actor=marketer, setup=row, identifiers=["email", "phone"])


def rehearse(key: str) -> None:
    """One connection was rehearsed and waits for somebody to let it go live."""
    connection = Mapping.objects.select_related("audience", "destination").get(audience__key=key)
    if (
        connection.state == Mapping.State.REHEARSAL
        and not Run.objects.filter(mapping=connection, rehearsal=True).exists()
    ):
        runs.run_to_end(runs.rehearse(actor=user("operator"), mapping=connection, start=False))


def say_what_is_spent() -> None:
    for key, amount in SPEND.items():
        Baseline.objects.filter(mapping__audience__key=key, weekly_spend=None).update(
            weekly_spend=Decimal(amount), currency="EUR"
        )
