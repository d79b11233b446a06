"""The seven steps in a real browser: from nothing to a rehearsal and, suppression first, to live; with scripts and without."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from audiences import jobs
from audiences.models import Audience
from destinations.models import Mapping, Run
from destinations.services import destinations, runs
from qa.models import SetUp

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def problems(page):
    found = Axe().run(page).response["violations"]
    return [f"{one['id']} ({one['impact']}): {one['nodes'][0]['html'][:200]}" for one in found]


@pytest.fixture
def account(world, sandbox, account_number, settings):
    """An account on the sandbox, checked."""
    settings.ALLOW_PRIVATE_DESTINATIONS = True
    made = destinations.create(
        actor=None,
        key="meta_sand",
        kind="meta",
        name="Meta sandbox",
        base_url=sandbox.base_url,
        config={"ad_account_id": account_number},
        credentials={"access_token": "t"},
    )
    return destinations.check(actor=None, destination=made)


def test_the_seven_steps_to_a_rehearsal_and_live(world, account, open_as):
    page = open_as("admin", reduced_motion="reduce")  # axe must not meet a toast half faded in
    page.goto("/audiences/new/")
    page.locator("input[name=purpose][value=retargeting]").check()
    page.locator("input[name=target][value=meta_sand]").check()
    assert problems(page) == []
    page.get_by_role("button", name="Next: identity").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Identity coverage")
    expect(page.get_by_label("E-mail")).to_be_checked()
    page.get_by_role("button", name="Next: segment").click()

    # The count follows the numbers as they are turned, and nothing is published by it.
    expect(page.locator("#preview")).to_contain_text("in the last 24 hours")
    page.get_by_label("Cart untouched for").fill("0")  # they are shopping at this very moment
    page.get_by_label("Cart untouched for").press("Tab")
    expect(page.locator("#preview .value").first).to_have_text("1")
    page.get_by_label("Cart in the last").fill("3")
    page.get_by_label("Cart in the last").press("Tab")
    expect(page.locator("#preview")).to_contain_text("Put the marked fields right")
    page.get_by_label("Cart in the last").fill("48")
    page.get_by_label("Cart in the last").press("Tab")
    expect(page.locator("#preview")).to_contain_text("in the last 2 days")
    assert problems(page) == []
    assert Audience.objects.count() == 3
    # The name's window goes with the rule's, until somebody chooses another.
    expect(page.get_by_label("Window")).to_have_value("")
    page.get_by_label("Cart in the last").fill("24")
    page.get_by_label("Cart in the last").press("Tab")
    expect(page.get_by_label("Window")).to_have_value("24h")
    page.get_by_label("Window").select_option("3d")
    page.get_by_label("Cart in the last").fill("48")
    page.get_by_label("Cart in the last").press("Tab")
    expect(page.locator("#preview")).to_contain_text("in the last 2 days")
    expect(page.get_by_label("Window")).to_have_value("3d")
    page.get_by_label("Intent").select_option("cart")
    page.get_by_role("textbox", name="Key").fill("meta_cart_48h")
    page.get_by_role("button", name="Publish it").click()
    # A name that says another window than the rule needs a reason.
    page.get_by_label("Why it says another than the rule").fill("Three days is what the campaign is called")
    page.get_by_role("button", name="Publish it").click()

    # The pair is offered at once.
    expect(page.get_by_role("heading", name="Suppression first")).to_be_visible()
    page.get_by_role("button", name="Make the pair").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Connect")
    expect(page.get_by_role("main")).to_contain_text("Connected to")
    page.get_by_role("button", name="Connect, as a rehearsal").click()

    # In words, both ways; the rehearsal comes in by itself.
    expect(page.get_by_text("as soon as they do “purchase”")).to_be_visible()
    jobs.run_due_here()
    for run in Run.objects.filter(rehearsal=True, mapping__destination=account):
        runs.run_to_end(run)
    expect(page.locator("#rehearsal")).to_contain_text(re.compile("It would add \\d"), timeout=10_000)
    page.get_by_role("button", name="Next: spot check").click()
    expect(page.get_by_role("link", name="Draw people")).to_be_visible()
    page.get_by_role("link", name=re.compile("Later: owners")).click()
    page.get_by_label("Alerts").select_option(label="Operator")
    page.get_by_role("button", name="Name them").click()
    expect(page.get_by_role("status")).to_contain_text("The owners are named")
    assert problems(page) == []

    # Suppression first: its button is the only one that works.
    live = page.locator(".live-order li")
    expect(live).to_have_count(2)
    expect(live.nth(1).get_by_role("button")).to_have_attribute("aria-disabled", "true")
    live.nth(0).get_by_role("button", name="Go live").click()
    expect(live).to_have_count(1)
    live.get_by_role("button", name="Go live").click()
    expect(page).to_have_url(re.compile("/audiences/meta_cart_48h/$"))
    assert set(Mapping.objects.filter(destination=account).values_list("state", flat=True)) == {"live"}
    assert [words for words in page.complaints if "422" not in words] == []


def test_without_scripts_it_is_counted_by_a_button_and_goes_on_where_it_was_left(world, open_as):
    page = open_as("marketer", java_script_enabled=False)
    page.goto("/audiences/new/?purpose=suppression&destination=meta_main")
    page.get_by_role("button", name="Next: identity").click()
    page.get_by_role("button", name="Next: segment").click()
    page.get_by_label("Bought in the last").fill("9")
    page.get_by_role("button", name="Count it").click()
    expect(page.locator("#preview")).to_contain_text("in the last 9 days")
    expect(page.locator("#preview .value").first).to_have_text("1")
    page.goto("/setup-steps/")
    page.get_by_role("link", name=re.compile("^Go on")).click()
    expect(page).to_have_url(re.compile("/segment/$"))
    assert SetUp.objects.count() == 1


def test_the_step_is_sent_to_an_engineer_who_sees_only_that(world, open_as):
    marketer = open_as("marketer")
    marketer.goto("/audiences/new/?purpose=retargeting")
    marketer.locator("summary", has_text="not connected yet").click()
    marketer.locator('input[value="new:google"]').check()
    marketer.get_by_role("button", name="Next: identity").click()
    marketer.goto(marketer.url.replace("identity", "connect"))
    marketer.get_by_role("link", name="Send this step to an engineer").click()
    link = marketer.locator("#link code").inner_text()
    engineer = open_as("operator")
    engineer.goto(link)
    expect(engineer.get_by_role("heading", level=1)).to_have_text("Connect Google Ads")
    expect(engineer.get_by_text("Marketer is setting up retargeting")).to_be_visible()
    expect(engineer.get_by_label("Access token")).to_be_visible()
    assert problems(engineer) == []
    assert engineer.complaints == []
