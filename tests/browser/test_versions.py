"""In a real browser: a version is published, looked at beside the one before, and taken back; a test makes it wait; owners are handed over."""

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from audiences.models import Audience, User
from audiences.services import versions
from qa.models import SpotCheck
from tests import filled
from tests.browser.test_pages import problems

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
LONGER = {"all": [filled.CART["all"][0], {**filled.CART["all"][1], "within": "14d"}]}


@pytest.fixture
def draft(world):
    return versions.save_draft(actor=world.users["marketer"], audience=world.cart, segment=LONGER)


def test_a_version_is_published_with_a_reason_and_rolled_back_from_the_toast(world, draft, open_as):
    SpotCheck.objects.filter(audience=world.cart).update(
        state="signed", signed_by=world.users["operator"], signed_at=timezone.now(), version=world.cart.live_version
    )
    page = open_as("marketer")
    page.goto(f"/audiences/{world.cart.key}/versions/")
    signed = page.locator(f"#sign-off-{world.cart.live_version_id}")
    expect(signed).to_contain_text("by Operator")
    page.get_by_role("link", name="v2").click()
    expect(page.get_by_text("Window of “purchase” 3 → 14 days.")).to_be_visible()
    page.get_by_label("Why").fill("A longer look")
    page.get_by_role("button", name="Publish", exact=True).click()

    expect(page.locator(".toast")).to_contain_text("v2 is live and is being counted.")
    assert problems(page) == []
    page.get_by_role("button", name="Roll back to v1").click()
    expect(page.locator(".toast")).to_contain_text("v3, a copy of v1, is live")
    expect(page.get_by_role("heading", level=1)).to_have_text("v3")
    page.get_by_label("Compared with").select_option("2")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("Window of “purchase” 14 → 3 days.")).to_be_visible()
    assert page.complaints == []


def test_a_buyer_locks_a_marketer_waits_and_an_admin_breaks_it_on_record(world, draft, open_as):
    world.cart.test_locks.all().delete()
    address = f"/audiences/{world.cart.key}/test/"
    buyer = open_as("buyer", width=390)
    buyer.goto(address)
    buyer.get_by_label("In test to the end of").fill((timezone.now() + timedelta(days=9)).date().isoformat())
    buyer.get_by_label("What is tested").fill("Two ad sets")
    buyer.get_by_role("button", name="Lock it").click()
    expect(buyer.locator(".toast")).to_contain_text("Until then its rule does not change")

    marketer = open_as("marketer")
    marketer.goto(f"/audiences/{world.cart.key}/versions/2/")
    marketer.get_by_label("Why").fill("After the test")
    marketer.get_by_role("button", name="Publish when the test ends").click()
    expect(marketer.get_by_text("It waits for the end of the test")).to_be_visible()
    assert problems(marketer) == []

    admin = open_as("admin")
    admin.goto(address)
    admin.get_by_label("Why the test may be disturbed").fill("Legal asked")
    admin.get_by_role("button", name="Break the lock").click()
    expect(admin.get_by_text("“Legal asked”").first).to_be_visible()
    assert problems(admin) == []
    assert buyer.complaints == marketer.complaints == admin.complaints == []


def test_who_goes_hands_over_what_they_own(world, open_as):
    page = open_as("admin")
    page.goto("/settings/users/")
    row = page.get_by_role("row").filter(has_text="marketer@example.com")
    row.get_by_role("button", name="Deactivate").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Hand over from Marketer")
    page.get_by_label("Hand everything over to").select_option(label="Admin (admin)")
    page.get_by_label(f"Match rate of {world.cart.key}").select_option(label="Operator (operator)")
    page.get_by_role("button", name="Hand over and deactivate").click()

    expect(page.locator(".toast")).to_contain_text("Marketer can no longer sign in.")
    cart = Audience.objects.get(pk=world.cart.pk)
    assert (str(cart.definition_owner), str(cart.sync_owner)) == ("Admin", "Operator")
    assert not User.objects.get(email="marketer@example.com").is_active


def test_the_trail_is_searched_while_one_types(world, open_as):
    page = open_as("operator")
    page.goto("/activity/")
    page.get_by_label("Words").press_sequentially("no such thing", delay=10)
    expect(page.get_by_text("Nothing on record matches")).to_be_visible()
    assert "q=no+such+thing" in page.url or "q=no%20such%20thing" in page.url
    page.get_by_role("link", name="Clear filters").first.click()
    page.get_by_label("Kind of thing").select_option("audience")
    expect(page.get_by_text("Version published: v1").first).to_be_visible()
    page.wait_for_url("**type=audience**")
    assert page.complaints == []
