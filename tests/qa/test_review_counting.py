"""A review whose count takes longer than a moment: a job goes on with it, the page says so and shows the figures when they are there."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from audiences import impact, jobs
from audiences.models import Audience, Job, Measurement, Pin, SegmentVersion
from audiences.people.engines.duckdb import DuckDB
from audiences.services import measurements
from tests.audiences.people_in import until_counted
from tests.filled import Filled, as_
from tests.qa import carts as shop
from tests.qa.carts import FEWER, SAME, change, draft, live

pytestmark = pytest.mark.django_db(transaction=True)  # a count takes in what is committed
URL = "/audiences/carts/review/"


@pytest.fixture
def world() -> Filled:
    return shop.world()


@pytest.fixture
def carts(world: Filled) -> Audience:
    return shop.carts(world)


class Slow:
    """An engine that takes its time over every statement, while it is told to; `asked` says how many there were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.asked, own = 0.0, 0, DuckDB._rows

        def rows(engine: DuckDB, statement: Any, **given: Any) -> Any:
            self.asked += 1
            time.sleep(self.seconds)
            return own(engine, statement, **given)

        monkeypatch.setattr(DuckDB, "_rows", rows)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """A page waits a tenth of a second, and a statement takes three."""
    monkeypatch.setattr(measurements, "MOMENT", 0.1)
    made = Slow(monkeypatch)
    made.seconds = 0.3
    return made


@pytest.fixture
def left(world: Filled, carts: Audience) -> SegmentVersion:
    """In review: five of ten would leave."""
    made = change(carts, world.users["marketer"])
    until_counted()
    return made


def count_in_the_background() -> None:
    jobs.run_now(measurements.TASK, Measurement.objects.get().version_id)


def test_the_page_says_that_it_is_counted_and_shows_the_figures_when_they_are_there(
    world: Filled, left: SegmentVersion, slow: Slow
) -> None:
    client = as_(world, "admin")
    text = client.get(URL).content.decode()
    assert "Whom it moves is being counted" in text and "You can decide as soon as it is counted" in text
    assert '<dd class="value">' not in text, "what is not known yet is no number"
    assert 'name="typed"' not in text
    assert f'hx-get="{URL}?version=2"' in text and 'hx-trigger="load delay:2s"' in text
    asked = slow.asked
    assert "is being counted" in client.get(URL, {"version": "2"}).content.decode()
    assert slow.asked == asked, "looking again counts nothing"
    assert Job.objects.filter(task=measurements.TASK, due_at__isnull=False).count() == 1
    count_in_the_background()
    response = client.get(URL)
    figures = response.context["impact"].figures
    assert (figures.before, figures.size, figures.enters, figures.leaves) == (10, 5, 0, 5)
    text = response.content.decode()
    assert "is being counted" not in text and 'name="typed"' in text and "Some who leave" in text
    assert not Pin.objects.exists(), "the data is let go"


def test_htmx_gets_what_depends_on_the_count_and_nothing_else(world: Filled, left: SegmentVersion, slow: Slow) -> None:
    client = as_(world, "admin")
    client.get(URL)
    part = client.get(f"{URL}?version=2", headers={"HX-Request": "true"}).content.decode()
    assert part.strip().startswith('<div id="decision"') and "<html" not in part and "delay:2s" in part
    count_in_the_background()
    part = client.get(f"{URL}?version=2", headers={"HX-Request": "true"}).content.decode()
    assert "delay:2s" not in part and 'name="typed"' in part
    change_of = SegmentVersion.objects.get(pk=left.pk)
    SegmentVersion.objects.filter(pk=change_of.pk).update(state="published")
    part = client.get(f"{URL}?version=2", headers={"HX-Request": "true"}).content.decode()
    assert "It is not open any more" in part


def test_it_is_approved_on_the_figures_of_the_background_without_counting_again(
    world: Filled, carts: Audience, left: SegmentVersion, slow: Slow
) -> None:
    client = as_(world, "admin")
    client.get(URL)
    count_in_the_background()
    saw = client.get(URL).context["saw"]
    asked = slow.asked
    typed = {"version": "2", "saw": saw, "typed": "carts", "words": "Agreed"}
    response = client.post(reverse("qa:approve-review", args=["carts"]), typed)
    assert response.status_code == 302 and slow.asked == asked
    now = live(carts)
    assert now is not None and now.pk == left.pk
    review = left.reviews.get()
    assert (review.size, review.leaves) == (5, 5)


def test_whoever_publishes_does_so_on_the_figures_of_the_background_too(
    world: Filled, carts: Audience, slow: Slow
) -> None:
    found = draft(carts, SAME, world.users["marketer"])
    client = as_(world, "marketer")
    until_counted()
    client.get(URL)
    count_in_the_background()
    asked = slow.asked
    client.post(reverse("audiences:publish", args=["carts", 2]), {"sha256": found.sha256, "reason": "An hour more"})
    now = live(carts)
    assert now is not None and now.pk == found.pk and slow.asked == asked


def test_a_rule_that_is_another_by_now_is_counted_anew_and_the_count_of_the_old_one_is_dropped(
    world: Filled, carts: Audience, slow: Slow
) -> None:
    draft(carts, FEWER, world.users["marketer"])
    client = as_(world, "marketer")
    until_counted()
    client.get(URL)
    first = Measurement.objects.get()
    draft(carts, SAME, world.users["marketer"])
    asked = slow.asked
    jobs.run_now(measurements.TASK, first.version_id)
    assert slow.asked == asked, "nobody waits for it"
    until_counted()
    assert "is being counted" in client.get(URL).content.decode()
    count_in_the_background()
    assert client.get(URL).context["impact"].figures.size == 10


def test_what_was_counted_long_ago_is_counted_anew(world: Filled, left: SegmentVersion, slow: Slow) -> None:
    client = as_(world, "admin")
    client.get(URL)
    count_in_the_background()
    row = Measurement.objects.get()
    Measurement.objects.update(as_of_us=(row.as_of_us or 0) - 11 * 60 * 1_000_000)
    slow.seconds = 0
    measurements.MOMENT = 30.0
    figures = client.get(URL).context["impact"].figures
    assert figures.as_of_us > (row.as_of_us or 0)


def test_a_count_that_breaks_off_says_so_and_is_tried_anew_after_a_minute(
    world: Filled, left: SegmentVersion, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = as_(world, "admin")
    client.get(URL)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("somebody@shop.example")

    own: Callable[..., Any] = impact.measure
    monkeypatch.setattr(impact, "measure", broken)
    jobs.run_due_here(["compute"], rounds=1)
    monkeypatch.setattr(impact, "measure", own)
    response = client.get(URL)
    text = response.content.decode()
    assert "The count broke off" in text and "shop.example" not in Job.objects.get(task=measurements.TASK).error
    assert "nobody knows how many people it moves" in text, "so a second person looks at it"
    Measurement.objects.update(asked_at=timezone.now() - timedelta(minutes=2))
    slow.seconds = 0
    measurements.MOMENT = 30.0
    assert client.get(URL).context["impact"].figures.size == 5


def test_a_count_that_takes_a_moment_leaves_nothing_behind(world: Filled, left: SegmentVersion) -> None:
    assert as_(world, "admin").get(URL).context["impact"].figures.size == 5
    assert not Measurement.objects.exists() and not Job.objects.filter(task=measurements.TASK).exists()
    assert not Pin.objects.exists()


def test_two_who_look_at_once_have_it_counted_once(world: Filled, left: SegmentVersion, slow: Slow) -> None:
    for role in ("admin", "marketer", "buyer"):
        assert "is being counted" in as_(world, role).get(URL).content.decode()
    asked = slow.asked
    count_in_the_background()
    assert 0 < slow.asked - asked <= 4
    assert Client().get(URL).status_code == 302
