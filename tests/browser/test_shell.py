"""The shell in a real browser: the box that finds everything, keys, toasts that take back, one click into the demo, and what all scripts weigh."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.test_pages import problems

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_the_box_opens_with_a_key_lists_as_one_types_and_goes_with_enter(world, open_as):
    page = open_as("marketer")
    page.goto("/runs/")
    page.keyboard.press("Control+k")
    box = page.get_by_role("combobox", name="Search or go to")
    expect(box).to_be_focused()
    found = page.get_by_role("listbox")
    expect(found.get_by_role("option", name=re.compile("New audience"))).to_be_visible()
    page.keyboard.type("cart")
    first = found.get_by_role("option").first
    expect(first).to_contain_text("meta_cart_24h")
    expect(first).to_have_attribute("aria-selected", "true")
    assert problems(page) == []
    page.keyboard.press("ArrowDown")
    expect(found.get_by_role("option").nth(1)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("meta_cart_24h")
    assert page.complaints == []


def test_escape_leaves_the_box_and_keeps_what_was_typed(world, open_as):
    page = open_as("buyer")
    page.goto("/runs/")
    page.keyboard.press("/")
    page.keyboard.type("nothing like it")
    expect(page.get_by_role("listbox")).to_contain_text("Nothing answers to “nothing like it”")
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()
    expect(page.locator("#find")).to_have_value("nothing like it")
    assert page.url.endswith("/runs/")


def test_a_person_is_found_by_an_address_that_is_never_in_ours(world, open_as):
    page = open_as("marketer")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator("#find").fill("bob@shop.example")
    person = page.get_by_role("option", name=re.compile("Person"))
    expect(person).to_be_visible()
    expect(page.get_by_role("listbox")).not_to_contain_text("bob@shop")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/people/\d+/$"))
    assert not [url for url in asked if "bob" in url]


def test_without_scripts_enter_leads_to_a_page_of_answers(world, open_as):
    page = open_as("buyer", java_script_enabled=False)
    page.locator("#find").fill("cart")
    page.locator("#find").press("Enter")
    assert page.get_by_role("heading", level=1).inner_text() == "Search"
    page.get_by_role("link", name=re.compile("^meta_cart_24h")).first.click()
    assert "meta_cart_24h" in page.get_by_role("heading", level=1).inner_text()


def test_keys_lead_only_where_the_role_may_go(world, open_as):
    page = open_as("buyer")
    page.goto("/runs/")
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.wait_for_timeout(300)
    assert page.url.endswith("/runs/")
    page.keyboard.press("g")
    page.keyboard.press("h")
    expect(page).to_have_title(re.compile("^Home"))
    page.keyboard.press("g")
    page.keyboard.press("o")
    page.wait_for_url("**/overlap/**")


def test_the_demo_is_entered_with_one_click_and_its_card_put_away_and_back(world, open_as, settings):
    settings.DEMO = True
    page = open_as("", reduced_motion="reduce")  # half faded in, a notice has too little contrast
    page.goto("/")
    assert problems(page) == []
    page.get_by_role("button", name=re.compile("^Operator")).click()
    expect(page.get_by_role("heading", name="Your first minute as operator")).to_be_visible()
    assert problems(page) == []
    page.get_by_role("button", name="Put this card away").click()
    expect(page.get_by_role("heading", name="Your first minute as operator")).to_be_hidden()
    toast = page.get_by_role("status").filter(has_text="The card is put away")
    assert problems(page) == []
    toast.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", name="Your first minute as operator")).to_be_visible()
    assert page.complaints == []


def test_the_skip_link_is_first_and_leads_to_the_content(world, open_as):
    page = open_as("buyer")
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_all_scripts_together_are_less_than_70_kb_and_none_is_in_the_page(world, open_as):
    page = open_as("admin")
    scripts = page.eval_on_selector_all("script", "all => all.map(one => one.src)")
    assert all(scripts)
    sizes = {url: len(page.request.get(url).body()) for url in set(scripts)}
    assert sum(sizes.values()) < 70_000, sizes


def test_nothing_moves_for_those_who_asked_for_calm_and_print_leaves_the_shell_out(world, open_as):
    page = open_as("buyer", reduced_motion="reduce")
    duration = "getComputedStyle(document.querySelector('.button, .chip, a')).transitionDuration"
    assert float(page.evaluate(duration).removesuffix("s").split(",")[0].strip().removesuffix("s")) < 0.001
    page.emulate_media(media="print")
    expect(page.get_by_role("navigation", name="Main")).to_be_hidden()
    expect(page.locator("header.top")).to_be_hidden()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
