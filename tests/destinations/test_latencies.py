"""How fast people leave, on the pages: half of them, 95 of 100, who is past their time, and what nobody knows."""

from datetime import timedelta

import pytest
from django.utils import timezone

from destinations import latencies
from destinations.models import Removal
from tests import filled
from tests.filled import as_

pytestmark = pytest.mark.django_db
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def world() -> filled.Filled:
    return filled.fill()


def left(world, ago, *, cause="purchase", sent=None, received=None, confirmed=None):
    at = timezone.now() - ago
    moments = {"sent_at": sent, "accepted_at": received, "confirmed_at": confirmed}
    Removal.objects.create(
        mapping=world.mapping,
        identity_no=Removal.objects.count() + 1,
        cause=cause,
        left_at=at,
        **{name: at + took * SECOND for name, took in moments.items() if took is not None},
    )


def page(world, client=None, of="connection"):
    address = f"/connections/{world.mapping.pk}/" if of == "connection" else f"/audiences/{world.mapping.audience.key}/"
    return " ".join((client or as_(world, "buyer")).get(address).content.decode().split())


def test_half_and_95_of_100_of_the_last_day_and_week(world):
    for received in (0.2, 0.4, 0.6, 0.8, 3):
        left(world, HOUR, sent=received / 2, received=received)
    left(world, 3 * DAY, received=60, sent=50)
    left(world, 9 * DAY, received=9_000, sent=1)  # longer ago than anybody asks
    left(world, HOUR, cause="diff", received=900, sent=1)  # when they really left, nobody knows

    found = latencies.of([world.mapping.pk])[world.mapping.pk]

    sent, received, confirmed = found.stages
    assert (received.day.people, received.day.half) == (5, 0.6)
    assert received.day.most == pytest.approx(2.56)
    assert (received.week.people, received.week.half) == (6, 0.7)
    assert (sent.day.half, confirmed.week) == (0.3, latencies.Took(0))
    assert found.waiting is None


def test_who_is_on_the_way_and_who_is_past_their_time_by_cause(world):
    left(world, timedelta(minutes=4))
    left(world, timedelta(minutes=6))
    left(world, 23 * HOUR, cause="consent")
    left(world, 25 * HOUR, cause="erasure")

    waiting = latencies.of([world.mapping.pk])[world.mapping.pk].waiting

    assert (waiting.people, waiting.late) == (4, 2)
    assert timezone.now() - waiting.since >= 25 * HOUR
    assert "2 people should have left by now and are not known to have" in page(world)
    assert "2 people should have left by now" in page(world, of="audience")


def test_the_pages_show_how_long_it_takes_and_never_a_zero_for_what_is_not_known(world):
    assert "Nobody has left yet" in page(world)
    assert "are out" not in page(world, of="audience")

    left(world, HOUR, sent=0.02, received=0.42)
    left(world, 2 * HOUR, cause="consent", sent=0.5, received=1.42)
    shown = page(world)

    assert "under 0.1 s" in shown
    assert "0.9 s" in shown  # half of them
    assert "Meta does not say when a removal has taken effect" in shown
    assert "Bought something" in shown
    assert "Consent withdrawn" in shown
    assert "within 0.9 s" in page(world, of="audience")


def test_it_takes_two_queries_whatever_the_number_of_connections(world, django_assert_num_queries):
    left(world, HOUR, received=1)
    with django_assert_num_queries(2):
        assert set(latencies.of([world.mapping.pk, 10**6])) == {world.mapping.pk, 10**6}
