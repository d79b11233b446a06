"""The catalogue and an audience's page in a real browser: found, filtered, copied, followed and opened, with a keyboard, a pointer or no scripts."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from audiences.models import Audience
from destinations.models import Mapping
from qa.models import Incident
from tests.browser.test_pages import problems
from tests.qa.curves import grown

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
LONG = "meta_retargeting_abandonedcart_returningcustomers_365d_v1"


@pytest.fixture
def pair(world):
    """The cart and what it pairs with, both on the platform by their names there."""
    Audience.objects.filter(pk=world.cart.pk).update(name=LONG, alert_owner=world.users["buyer"])
    Mapping.objects.filter(pk=world.mapping.pk).update(remote_name=LONG)
    Mapping.objects.create(
        audience=world.buyers, destination=world.destination, state="live", remote_id="9", remote_name="buyers_there"
    )
    return world


def clipboard(page) -> str:
    return page.evaluate("navigator.clipboard.readText()")


def test_one_press_copies_include_and_exclude_for_the_ad_set(pair, open_as):
    page = open_as("buyer")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Include + exclude").click()
    expect(page.get_by_text("Copied to the clipboard")).to_be_visible()
    assert clipboard(page) == f"Include: {LONG}\nExclude: buyers_there"
    page.get_by_role("button", name=f"Copy {LONG}", exact=True).click()
    expect(page.get_by_text(f"Copied {LONG}")).to_be_visible()
    assert clipboard(page) == LONG
    expect(page).to_have_url(re.compile("/audiences/$"))
    assert page.complaints == []


def test_words_filters_and_chips_stay_in_an_address_that_can_be_sent(pair, open_as):
    page = open_as("buyer")
    page.get_by_label("Search audiences").fill("purchase")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_label("Owner", exact=True).select_option(label="Buyer (1)")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page).to_have_url(re.compile("owner="))
    page.get_by_label("Owner", exact=True).select_option(label="Owner")
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page).to_have_url(re.compile(r"\?q=purchase$"))
    page.get_by_role("link", name=re.compile("Suppression")).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page).to_have_url(re.compile(r"q=purchase.*only=suppression|only=suppression.*q=purchase"))
    expect(page.get_by_label("Search audiences")).to_have_value("purchase")
    page.get_by_label("Search audiences").fill("zebra")
    expect(page.get_by_role("heading", name="No audience matches “zebra”")).to_be_visible()
    expect(page).to_have_url(re.compile("q=zebra"))
    assert problems(page) == []
    page.get_by_role("link", name="Clear filters").click()
    expect(page.locator("tbody tr")).to_have_count(3)
    assert page.complaints == []


def test_a_row_opens_where_it_is_pressed_and_its_star_stays_on_the_page(pair, open_as):
    page = open_as("buyer")
    star = page.locator("tbody tr").filter(has_text="abandonedcart").get_by_role("button", name=f"Follow {LONG}")
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    assert pair.users["buyer"].follows.count() == 1
    star.click()
    expect(star).to_have_attribute("aria-pressed", "false")
    assert pair.users["buyer"].follows.count() == 0
    page.locator("tbody tr").filter(has_text="abandonedcart").locator(".size-cell").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(LONG)
    assert page.complaints == []


@pytest.mark.parametrize("width", [1280, 900, 390])
def test_names_break_between_their_words_only(pair, open_as, width):
    page = open_as("buyer", width=width)
    lines = page.evaluate(
        """() => [...document.querySelectorAll(".catalog .name-line a")].flatMap((link) => {
            const words = [...link.childNodes].filter((node) => node.nodeType === 3);
            return words.filter((node) => {
                const range = document.createRange();
                range.selectNodeContents(node);
                return range.getClientRects().length > 1;
            }).map((node) => node.textContent);
        })"""
    )
    assert lines == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_an_audience_with_an_alert_says_it_and_its_curve_has_the_same_as_a_table(pair, open_as):
    grown(pair.cart, usual=1000, now=590)
    Incident.objects.create(
        kind="size", subject=f"audience:{pair.cart.pk}", audience=pair.cart, severity="critical",
        since=timezone.now() - timedelta(hours=2), sentence="Dropped 41% since Mon 09:00.", remedy="Go back.",
    )  # fmt: skip
    for scheme in ("light", "dark"):
        page = open_as("buyer", color_scheme=scheme)
        page.goto("/audiences/")
        assert problems(page) == []
        expect(page.locator("tbody tr").first).to_contain_text("Dropped 41% since Mon 09:00.")
        page.goto(f"/audiences/{pair.cart.key}/")
        expect(page.locator(".notice.bad")).to_contain_text("Dropped 41% since Mon 09:00. Go back.")
        expect(page.locator(".chart.wide-only .alert.bad circle")).to_be_visible()
        page.get_by_text("The same as a table").click()
        expect(page.get_by_role("region", name="Size by day")).to_contain_text("590")
        assert problems(page) == []
        assert page.complaints == []


def test_without_scripts_everything_is_a_link_or_a_button(pair, open_as):
    page = open_as("buyer", java_script_enabled=False)
    page.get_by_label("Search audiences").fill("buyers")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("button", name=re.compile("^Follow meta_buyers")).click()
    expect(page).to_have_url(re.compile(r"/audiences/\?.*q=buyers"))
    expect(page.get_by_role("button", name=re.compile("^Follow meta_buyers"))).to_have_attribute("aria-pressed", "true")
