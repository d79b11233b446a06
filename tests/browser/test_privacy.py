"""A privacy request from the form to its receipts, and consent read from an attribute, in a real browser against a real sandbox."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from audiences import jobs
from audiences.models import PrivacyRequest
from qa import privacy as following
from tests import filled
from tests.audiences.people_in import identify
from tests.destinations import scene

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def shop(sandbox, account_number):
    filled.users()
    for id in ("ann", "bob"):
        identify(
            id, email=f"{id}@shop.example", phone="+491511234567" + str(len(id)), **{"in": "yes"}, ads_ok=id == "ann"
        )
    connected = scene.live(sandbox, account_number, scene.audience("cart", scene.IN))
    connected.sync()
    return connected


def sound(page):
    found = Axe().run(page).response["violations"]
    assert [f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in found] == []
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_somebody_is_erased_from_form_to_receipt(shop, open_as, width, scheme):
    page = open_as("admin", width=width, color_scheme=scheme)
    page.goto("/privacy/new/")
    sound(page)
    page.get_by_label("Customer id, e-mail or phone").fill("ann@shop.example")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("heading", name="Erase this person?")).to_be_visible()
    expect(page.get_by_text("a•••@s•••.example")).to_be_visible()
    sound(page)
    page.get_by_role("button", name="Erase", exact=True).click()
    expect(page.get_by_text("Tick this first")).to_be_visible()
    page.complaints.clear()  # the browser's own line about the 422
    sound(page)
    page.get_by_label("I have made sure that it is they who ask").check()
    page.get_by_role("button", name="Erase", exact=True).click()
    page.wait_for_url(re.compile(r"/privacy/\d+/$"))
    assert "ann" not in page.url
    following.follow()
    expect(page.get_by_text("It goes with the next call to this platform.")).to_be_visible()  # by itself
    sound(page)
    shop.sync()
    following.follow()
    expect(page.get_by_text("It sends no confirmation")).to_be_visible()
    sound(page)
    page.goto("/privacy/")
    expect(page.get_by_text("1 of 1 through")).to_be_visible()
    sound(page)
    assert PrivacyRequest.objects.get().forgotten_at is not None


def test_an_attribute_is_read_as_consent_and_the_page_shows_how_far_it_is(shop, open_as):
    page = open_as("admin")
    page.goto("/settings/consent/")
    page.get_by_role("combobox", name="Attribute").fill("ads_ok")
    page.get_by_label("Use of their data for ads").check()
    page.get_by_label("Personalised ads").check()
    page.get_by_role("button", name="Read this attribute").click()
    expect(page.locator("#reading").get_by_text("are read anew")).to_be_visible()
    sound(page)
    jobs.run_due_here(["compute"])
    expect(page.locator("#reading").get_by_text("are read anew")).not_to_be_visible()  # by itself
    row = page.get_by_role("row", name=re.compile("ads_ok"))
    expect(row.get_by_role("cell").nth(2)).to_have_text("2")
    sound(page)
    shop.sync()
    assert shop.emails() == {scene.sha("ann@shop.example")}
