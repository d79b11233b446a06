"""In a real browser: the preview counts by itself, keeps its data until it is recounted, follows an edit, and does without scripts."""

import pytest
from playwright.sync_api import expect

from audiences import jobs, preview
from audiences.services import versions
from tests import filled
from tests.audiences.people_in import identify, track, until_counted
from tests.browser.test_pages import problems

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
CART = filled.CART["all"][0]


@pytest.fixture
def address(world):
    versions.save_draft(actor=world.users["marketer"], audience=world.cart, segment=CART)
    until_counted()
    return f"/audiences/{world.cart.key}/preview/"


def one_more():
    identify("cem", email="cem@shop.example")
    track("cem", "add_to_cart")
    until_counted()


def test_the_page_counts_by_itself_and_keeps_its_data_until_it_is_recounted(address, open_as):
    page = open_as("marketer")
    page.goto(address)
    panel = page.locator("#preview")
    expect(panel).to_contain_text("of 2 people")
    expect(panel).to_contain_text("+1 −0")
    one_more()
    page.reload()
    expect(panel).to_contain_text("of 2 people")
    assert problems(page) == []
    page.get_by_role("button", name="Recount").click()
    expect(panel).to_contain_text("of 3 people")
    assert page.complaints == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_beside_the_editor_stand_size_age_change_reach_rules_overlap_and_masked_people(
    world, address, open_as, scheme, width
):
    page = open_as("marketer", width=width, color_scheme=scheme)
    page.goto(f"/audiences/{world.cart.key}/edit/")
    panel = page.locator("#preview")
    expect(panel).to_contain_text("of 2 people")
    if width == 390:  # where the panel lies below the rule, its number stays in sight
        expect(page.locator("#preview-said")).to_be_in_viewport()
        assert page.locator("#preview-said").bounding_box()["width"] == 390
    said = " ".join(panel.inner_text().split())
    for words in (
        "As of just now",
        "Finds 2 of 2 people, 100% · exact",
        "Against v1, live +1 −0",
        "1 person on the same data",
    ):
        assert words in said, words
    assert "E-mail 2 100%" in said and "Phone 1 50%" in said and "Own id 2 100%" in said
    assert "People by each rule alone Did “add_to_cart” at least once in the last 24 hours 2" in said
    assert f"Also in {world.buyers.name} 1 50%" in said
    people = panel.locator(".also").last.inner_text()
    assert people.count("•••@s•••.example") == 2 and "ann@" not in people and "bob" not in people.lower()
    assert problems(page) == [] and page.complaints == []


def test_without_scripts_it_is_counted_and_recounted_by_buttons(address, open_as):
    page = open_as("marketer", width=390, java_script_enabled=False)
    page.goto(address)
    page.get_by_role("button", name="Count the people").click()
    expect(page.locator("#preview")).to_contain_text("of 2 people")
    one_more()
    page.get_by_role("button", name="Recount").click()
    expect(page.locator("#preview")).to_contain_text("of 3 people")


def test_what_takes_long_is_shown_by_itself_once_it_is_there(address, open_as, monkeypatch):
    page = open_as("marketer")
    panel = page.locator("#preview")
    with monkeypatch.context() as hurried:
        hurried.setattr(preview, "PATIENCE", -1.0)  # gone before it begins
        page.goto(address)
        expect(panel).to_contain_text("Taking longer; it runs in the background.")
        assert problems(page) == []
    jobs.run_due_here(["compute"])
    expect(panel).to_contain_text("of 2 people")
    assert page.complaints == []


def test_the_preview_beside_the_editor_follows_an_edit(world, address, open_as):
    page = open_as("marketer")
    page.goto(f"/audiences/{world.cart.key}/edit/")
    panel = page.locator("#preview")
    expect(panel).to_contain_text("+1 −0")
    page.locator('[name="rule-0.event"]').fill("purchase")
    page.locator('[name="rule-0.event"]').press("Tab")
    expect(panel).to_contain_text("Did “purchase” at least once in the last 24 hours")
    expect(panel).to_contain_text("+1 −1")
    page.locator('[name="rule-0.event"]').fill("")
    page.locator('[name="rule-0.event"]').press("Tab")
    expect(panel).to_contain_text("Not counted yet: the rule is not finished.")
    assert page.complaints == []
