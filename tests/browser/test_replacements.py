"""Publishing beside in a real browser: chosen, dated, both sides shown, the date moved and both kept; with scripts and without. And a review that is
counted in the background, which shows its figures by itself."""

import time
from datetime import date, timedelta

import pytest
from playwright.sync_api import expect

from audiences import jobs
from audiences.models import Audience, Measurement, Refresh, Replacement, Workspace
from audiences.people.engines.duckdb import DuckDB
from audiences.services import measurements, refreshes, versions
from destinations.models import Mapping
from destinations.services.replacements import TASK
from tests import filled
from tests.audiences.people_in import identify, track, until_counted
from tests.browser.test_pages import problems

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
VIEWED = {"event": "product_viewed", "count": {"at_least": 1}, "within": "7d"}
LONGER = {"event": "product_viewed", "count": {"at_least": 1}, "within": "8d"}


@pytest.fixture
def views(world: filled.Filled) -> Audience:
    """Three people; connected where its suppression is; a draft that finds the same three."""
    Workspace.objects.update(review_above_percent=20)
    for who in ("ann", "cleo", "dora"):
        identify(who, country="DE")
        track(who, "product_viewed", product="Oilskin jacket")
    made = filled.audience("meta_views_7d", VIEWED, world.users["marketer"])
    made.excluded_by.add(world.buyers)
    for audience in (made, world.buyers):
        Mapping.objects.create(audience=audience, destination=world.destination, identifiers=["email"], state="live")
    refreshes.refresh([made], cause=Refresh.Cause.MANUAL)
    versions.save_draft(actor=world.users["marketer"], audience=made, segment=LONGER)
    until_counted()
    return made


@pytest.mark.parametrize("scripts", [True, False])
def test_a_version_is_published_beside_the_live_one_and_both_are_kept(world, views, open_as, scripts):
    page = open_as("admin", java_script_enabled=scripts)
    page.goto("/audiences/meta_views_7d/review/")
    when = page.get_by_label("The old one retires on")
    expect(when).to_be_hidden()
    page.get_by_role("radio", name="Publish beside").check()
    expect(when).to_have_value(str(date.today() + timedelta(days=14)))
    expect(page.get_by_text("meta_views_7d_v2")).to_be_visible()
    when.fill(str(date.today() + timedelta(days=21)))
    page.get_by_label("Why").fill("A day more finds the weekend")
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.get_by_text("v2 is live as meta_views_7d_v2, beside meta_views_7d")).to_be_visible()
    connections = page.get_by_role("region", name="Where each is sent")
    expect(connections).to_contain_text("are being copied")
    jobs.run_now(TASK, "")
    if not scripts:
        page.reload()
    expect(connections.get_by_role("link", name="Live")).to_have_count(2)
    assert Mapping.objects.get(audience__key="meta_views_7d_v2").state == "live"

    page.goto("/audiences/meta_views_7d/")
    expect(page.get_by_text("Replaced by")).to_contain_text("retires on")
    page.get_by_role("link", name="Move or keep").click()
    page.get_by_label("meta_views_7d retires on").fill(str(date.today() + timedelta(days=30)))
    page.get_by_role("button", name="Move the date").click()
    expect(page.get_by_text("retires at the beginning of")).to_be_visible()
    page.get_by_label("Why it is kept after all").fill("The spring ads run on it")
    page.get_by_role("button", name="Keep meta_views_7d").click()
    expect(page.get_by_text("go on side by side").first).to_be_visible()
    assert Replacement.objects.get().retires_at is None
    assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_serious_is_wrong_with_these_pages(world, views, open_as, scheme, width):
    page = open_as("admin", width=width, color_scheme=scheme)
    page.goto("/audiences/meta_views_7d/review/")
    page.get_by_role("radio", name="Publish beside").check()
    assert problems(page) == []
    page.get_by_label("Why").fill("A day more")
    page.get_by_role("button", name="Publish", exact=True).click()
    jobs.run_now(TASK, "")
    for address in (
        "/audiences/meta_views_7d/replacement/",
        "/audiences/meta_views_7d/",
        "/audiences/meta_views_7d_v2/",
    ):
        page.goto(address)
        assert problems(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_count_that_takes_long_comes_by_itself(world, views, open_as, monkeypatch):
    own = DuckDB._rows

    def slowly(engine, statement, **given):
        time.sleep(0.4)
        return own(engine, statement, **given)

    monkeypatch.setattr(DuckDB, "_rows", slowly)
    monkeypatch.setattr(measurements, "MOMENT", 0.1)
    page = open_as("marketer")
    page.goto("/audiences/meta_views_7d/review/")
    expect(page.get_by_text("Whom it moves is being counted")).to_be_visible()
    expect(page.get_by_label("Why")).to_have_count(0)
    jobs.run_now(measurements.TASK, Measurement.objects.get().version_id)
    expect(page.get_by_text("Whom it moves is being counted")).to_have_count(0)
    expect(page.get_by_role("region", name="What publishing it does")).to_contain_text("3 now")
    page.get_by_label("Why").fill("A day more")
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("v2 is live")
    assert page.complaints == []
