"""A spot check from drawing to signature, and the story of a purchase, in a real browser against a real sandbox."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from audiences import jobs
from qa.models import SpotCheck
from tests import filled
from tests.audiences.people_in import identify, number, track
from tests.destinations import scene
from tests.destinations.conftest import account_number, sandbox  # noqa: F401  fixtures

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
CART = {
    "all": [
        {"event": "add_to_cart", "count": {"at_least": 1}, "within": "7d"},
        {"event": "purchase", "count": {"exactly": 0}, "within": "7d"},
    ]
}


@pytest.fixture
def shop(sandbox, account_number, settings):  # noqa: F811
    settings.DEMO = True
    filled.users()
    for n in range(24):
        identify(f"c{n:05d}", email=f"c{n}@shop.example")
        track(f"c{n:05d}", "add_to_cart" if n < 16 else "product_viewed")
    for n in range(12, 16):
        track(f"c{n:05d}", "purchase")
    bought = scene.audience("bought", {"event": "purchase", "count": {"at_least": 1}}, purpose="suppression")
    made = scene.audience("cart", CART)
    made.excluded_by.add(bought)
    for audience in (bought, made):
        scene.live(sandbox, account_number, audience).sync()


def sound(page):
    found = Axe().run(page).response["violations"]
    assert [f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in found] == []
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_people_are_drawn_looked_at_and_signed_off(shop, open_as, width, scheme):
    page = open_as("marketer", width=width, color_scheme=scheme)
    page.goto("/audiences/cart/qa/")
    sound(page)
    page.get_by_role("button", name="Draw people").click()
    expect(page.get_by_text("Drawing 20 people…")).to_be_visible()
    sound(page)
    jobs.run_due_here(["compute"])
    expect(page.get_by_role("heading", name=re.compile("^Inside · "))).to_be_visible()  # by itself
    first = page.locator(".checkups > li").first
    first.locator("summary").click()
    expect(first.get_by_text("The rule, judged for this person alone")).to_be_visible()
    sound(page)
    first.get_by_label("Found", exact=True).check()
    first.get_by_label("Note").fill("seen in the list")
    first.get_by_role("button", name="Note it").click()
    expect(page).to_have_url(re.compile("#person-"))
    page.get_by_role("button", name="Sign off as Marketer").click()
    expect(page.get_by_text("Signed off by Marketer")).to_be_visible()
    sound(page)
    assert SpotCheck.objects.get().state == "signed"


def test_without_scripts_a_spot_check_can_be_signed_all_the_same(shop, open_as):
    page = open_as("operator", java_script_enabled=False)
    page.goto("/audiences/cart/qa/")
    page.get_by_role("button", name="Draw people").click()
    jobs.run_due_here(["compute"])
    page.get_by_role("link", name="Look again").click()
    page.get_by_role("button", name="Sign off as Operator").click()
    assert SpotCheck.objects.get().signed_by.role == "operator"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_person_buys_and_both_sides_change_before_ones_eyes(shop, open_as, width, scheme):
    page = open_as("marketer", width=width, color_scheme=scheme)
    page.goto(f"/people/{number('c00003')}/")
    expect(page.get_by_text("Added, and received.").first).to_be_visible()  # the part that the floor above adds
    sound(page)
    for part in ("platforms/", "story/", "audiences/cart/"):
        page.goto(f"/people/{number('c00003')}/{part}")
        page.wait_for_load_state("networkidle")
        sound(page)
    page.goto(f"/people/{number('c00003')}/")
    page.get_by_role("button", name="Make this person buy").click()
    expect(page.get_by_text("Telling 2 of 2…")).to_be_visible()
    expect(page.get_by_text("This person: in", exact=True)).to_have_count(1)
    sound(page)
    jobs.run_due_here(["sync"])
    expect(page.get_by_text("Both sides agree.")).to_be_visible()
    expect(page.get_by_text("This person: not in")).to_have_count(1)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    stands = page.locator(".clock .time").inner_text()
    page.wait_for_timeout(1500)
    assert asked == []
    assert page.locator(".clock .time").inner_text() == stands
    sound(page)
