"""Baselines: taken when a connection first goes live, completed by its first sync, and then left alone."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.test import Client
from django.utils import timezone

from audiences import clock
from audiences.models import AuditEntry, Refresh
from destinations.models import Ledger, Mapping, Run
from qa import baseline
from qa.models import Baseline, SetUp
from tests import filled
from tests.qa import moving

pytestmark = pytest.mark.django_db


@pytest.fixture
def world():
    world = filled.fill()
    Run.objects.all().delete()
    return world


def went_live(world: filled.Filled, *, ago: timedelta = timedelta(0)) -> Mapping:
    Mapping.objects.filter(pk=world.mapping.pk).update(first_live_at=timezone.now() - ago)
    world.mapping.refresh_from_db()
    return world.mapping


def synced(world: filled.Filled, *, ago: timedelta = timedelta(0), **numbers: int) -> None:
    at = timezone.now() - ago
    Run.objects.create(
        mapping=world.mapping, state="done", trigger="schedule", started_at=at, finished_at=at, **numbers
    )


def test_nothing_is_taken_before_it_goes_live(world):
    assert baseline.freeze() == 0
    assert Baseline.objects.count() == 0


def test_it_holds_size_version_and_identifiers_of_the_count_before_it_went_live(world):
    mapping = went_live(world)
    moving.count(world.cart, 900, at=timezone.now() + timedelta(minutes=5))
    assert baseline.freeze() == 1
    row = Baseline.objects.get()
    counted = Refresh.objects.filter(audience=world.cart, as_of_us__lte=clock.to_us(mapping.first_live_at)).latest("pk")
    assert row.size == counted.count
    assert row.version == world.cart.live_version
    assert row.received is None
    assert set(row.coverage) >= {"email", "phone"}
    assert all(0 <= share <= 1 for share in row.coverage.values())
    assert baseline.freeze() == 0


def test_received_and_matched_follow_after_the_first_sync_and_then_nothing_changes_it(world):
    went_live(world)
    baseline.freeze()
    assert Baseline.objects.get().completed_at is None
    synced(world, added=700, unchanged=100)
    Ledger.objects.filter(mapping=world.mapping).update(
        present_count=2
    )  # what came later is not what was received then
    Mapping.objects.filter(pk=world.mapping.pk).update(matched_low=500, matched_high=600)
    assert baseline.freeze() == 1
    row = Baseline.objects.get()
    assert (row.received, row.matched_low, row.matched_high) == (800, 500, 600)
    assert row.completed_at is not None
    Ledger.objects.update(present_count=1)
    Mapping.objects.update(matched_low=1, matched_high=2)
    moving.count(world.cart, 5)
    assert baseline.freeze() == 0
    row.refresh_from_db()
    assert (row.received, row.matched_low) == (800, 500)


def test_matched_has_two_days_and_is_then_unknown_in_words(world):
    went_live(world, ago=timedelta(days=3))
    synced(world, ago=timedelta(hours=10))
    baseline.freeze()
    row = Baseline.objects.get()
    assert row.received == 0
    assert row.completed_at is None
    Run.objects.update(finished_at=timezone.now() - timedelta(hours=49))
    baseline.freeze()
    row.refresh_from_db()
    assert row.completed_at is not None
    assert row.matched_low is None
    assert row.matched_words == "Meta did not say"


def test_a_sync_before_it_went_live_completes_nothing(world):
    synced(world, ago=timedelta(hours=1))
    went_live(world)
    baseline.freeze()
    assert Baseline.objects.get().received is None


def test_spend_comes_from_the_set_up_or_is_entered_once_complete(world):
    SetUp.objects.create(audience=world.cart, weekly_spend=Decimal("2400.00"))
    went_live(world)
    baseline.freeze()
    row = Baseline.objects.get()
    assert row.weekly_spend == Decimal("2400.00")
    assert row.currency == "EUR"
    with pytest.raises(baseline.BaselineRefused):
        Baseline.objects.update(completed_at=timezone.now())
        baseline.enter_spend(actor=world.users["marketer"], baseline=row, amount=Decimal(1))


def test_spend_is_entered_on_the_page_and_is_on_record(world):
    went_live(world)
    baseline.freeze()
    row = Baseline.objects.get()
    web = Client()
    web.force_login(world.users["marketer"])
    answer = web.post(f"/baselines/{row.pk}/spend/", {"amount": "1850.50"})
    assert answer["Location"] == f"/audiences/{world.cart.key}/#baseline"
    row.refresh_from_db()
    assert row.weekly_spend == Decimal("1850.50")
    assert AuditEntry.objects.get(verb="baseline.spend_entered").after["weekly_spend"] == "1850.50"


@pytest.mark.parametrize("amount", ["", "-1", "abc", "NaN", "Infinity", "1e20", "1.234"])
def test_an_amount_that_makes_no_sense_is_refused(world, amount):
    went_live(world)
    baseline.freeze()
    row = Baseline.objects.get()
    web = Client()
    web.force_login(world.users["marketer"])
    assert "Not kept" in web.post(f"/baselines/{row.pk}/spend/", {"amount": amount}, follow=True).content.decode()
    row.refresh_from_db()
    assert row.weekly_spend is None


def test_then_and_now_beside_each_other_never_print_0_for_unknown(world, django_assert_num_queries):
    went_live(world)
    baseline.freeze()
    moving.count(world.cart, 3)
    with django_assert_num_queries(3):
        (one,) = baseline.of(world.cart)
    size, received, matched = one.lines
    assert (size.then, size.now, size.change) == ("1", "3", 2.0)
    assert (received.then, received.change) == ("Not known yet", None)
    assert matched.then == "Not known yet"
    assert one.asks_spend
