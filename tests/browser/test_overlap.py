"""Overlap and rehearsal in a real browser: arrow keys in the table, a cell opened beside it, an exclusion added, both counts changing, and taken back."""

import re

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from audiences.models import Audience, Refresh
from audiences.services import refreshes
from destinations.models import Mapping, Run
from tests import filled
from tests.audiences.people_in import identify, track

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
VIEWED = {"event": "product_viewed", "count": {"at_least": 1}, "within": "7d"}


@pytest.fixture
def views(world: filled.Filled) -> Audience:
    identify("cleo", email="cleo@shop.example")
    for who in ("ann", "cleo"):
        track(who, "product_viewed", product="Oilskin jacket")
    made = filled.audience("meta_views_7d", VIEWED, world.users["marketer"])
    refreshes.refresh([made], cause=Refresh.Cause.MANUAL)
    return made


def shift(page: Page, name: str) -> str:
    """What one number was and is."""
    row = page.locator(".in-force .shift dt", has_text=re.compile(name)).first
    return row.locator("xpath=following-sibling::dd[1]").inner_text()


def test_a_cell_an_exclusion_both_counts_and_the_way_back(world, views, open_as):
    page = open_as("marketer")
    page.goto("/overlap/")
    page.locator('.heat a[href="/overlap/meta_views_7d/meta_cart_24h/"]').click()
    side = page.get_by_role("dialog")
    expect(side.get_by_role("heading", level=1)).to_be_focused()
    expect(side).to_contain_text("1 person is in both")
    assert page.url.endswith("/overlap/"), "the table stays where it is"
    offer = side.locator(".offer", has_text="Leave meta_cart_24h out of meta_views_7d")
    offer.get_by_role("button", name="Add exclusion").click()
    expect(page).to_have_url(re.compile("/overlap/meta_views_7d/meta_cart_24h/$"))
    expect(page.get_by_role("status")).to_contain_text("v2 of meta_views_7d leaves out meta_cart_24h")
    expect(page.locator(".in-force")).to_contain_text("Counting…")
    refreshes.refresh([views], cause=Refresh.Cause.PUBLISH)
    expect(page.locator(".in-force")).not_to_contain_text("Counting…")
    assert shift(page, "meta_views_7d").split() == ["2", "→", ",", "now", "1"]
    assert shift(page, "In both").split() == ["1", "→", ",", "now", "0"]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)
    assert asked == [], "nothing is asked for once the count is there"
    page.locator(".in-force").get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status")).to_contain_text("Undone: v3 of meta_views_7d is as it was before")
    refreshes.refresh([Audience.objects.get(pk=views.pk)], cause=Refresh.Cause.PUBLISH)
    expect(page.get_by_role("heading", name="Leave meta_cart_24h out of meta_views_7d")).to_be_visible()
    assert page.complaints == []


def test_the_table_is_one_stop_of_tab_and_arrows_lead_through_it(world, views, open_as):
    page = open_as("buyer")
    page.goto("/overlap/?sort=name")
    page.locator(".heat td a").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "/overlap/meta_views_7d/meta_cart_24h/"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "/overlap/meta_views_7d/meta_buyers_7d/"
    assert page.locator('.heat td a[tabindex="0"]').count() == 1
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert page.evaluate("document.activeElement.getAttribute('href')") == "/overlap/meta_views_7d/meta_buyers_7d/"


def test_without_scripts_a_choice_a_cell_and_an_exclusion_work(world, views, open_as):
    page = open_as("marketer", java_script_enabled=False)
    page.goto("/overlap/")
    page.get_by_text("Choose audiences").click()
    for key in ("meta_views_7d", "meta_cart_24h"):
        page.get_by_label(key).check()
    page.get_by_role("button", name="Compare these").click()
    assert page.locator(".heat tbody tr").count() == 2
    page.locator('.heat a[href="/overlap/meta_views_7d/meta_cart_24h/"]').click()
    page.locator(".offer").first.get_by_role("button", name="Add exclusion").click()
    assert Audience.objects.get(pk=views.pk).live_version.number == 2


def test_a_rehearsal_is_asked_for_and_its_end_is_seen(world, open_as):
    Mapping.objects.filter(pk=world.mapping.pk).update(state="rehearsal", remote_id="")
    page = open_as("operator")
    page.goto(f"/connections/{world.mapping.pk}/rehearsal/")
    expect(page.get_by_role("heading", name="Not rehearsed yet")).to_be_visible()
    page.get_by_role("button", name="Rehearse", exact=True).click()
    expect(page.get_by_text("Waiting for a worker")).to_be_visible()
    done = {"state": "done", "planned_adds": 24_812, "planned_removes": 3, "unchanged": 0, "batches_planned": 3}
    Run.objects.filter(rehearsal=True).update(**done, started_at=timezone.now(), finished_at=timezone.now())
    expect(page.get_by_text("It would add 24,812 people and remove 3, in 3 calls")).to_be_visible()
    expect(page.get_by_role("link", name="Go live")).to_be_hidden()
    page.reload()
    page.get_by_role("link", name="Go live").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Go live?")
    assert page.complaints == []
