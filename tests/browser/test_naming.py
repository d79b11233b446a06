"""Names in a real browser: a convention edited with its effect beside it, and a name built from drop-downs, with scripts and without."""

import pytest
from playwright.sync_api import expect

from audiences.models import Audience
from audiences.services import naming as service
from tests.browser.test_pages import problems

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
EDIT = "/settings/naming/edit/"


def test_a_convention_is_edited_and_its_effect_seen_before_it_is_saved(world, open_as):
    tokens = {"channel": "meta", "intent": "cart", "window": "24h"}
    service.rename_by_convention(actor=None, audience=world.cart, tokens=tokens)
    page = open_as("marketer")
    page.goto(EDIT)
    page.get_by_role("button", name="Choice", exact=True).click()
    expect(page.get_by_label("Called").nth(4)).to_be_focused()
    page.get_by_role("button", name="Move intent2 up").click()
    expect(page.get_by_label("Called").nth(3)).to_have_value("intent2")
    page.get_by_role("button", name="Remove intent2", exact=True).click()
    expect(page.get_by_label("Called")).to_have_count(4)

    page.get_by_label("Between the parts").fill("-")
    page.get_by_label("Between the parts").press("Tab")
    effect = page.get_by_role("complementary", name="What it would do")
    expect(effect).to_contain_text("1 would stop following")
    expect(effect).to_contain_text("meta-cart-1h-v1")
    effect.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("1 name would stop following")
    assert problems(page) == []
    page.get_by_role("button", name="Save all the same").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Naming")
    expect(page.get_by_role("status").filter(has_text="Saved")).to_be_visible()
    assert service.current().separator == "-"
    assert page.complaints == []


def test_enter_in_a_field_of_the_editor_removes_and_saves_nothing(world, open_as):
    page = open_as("admin")
    page.goto(EDIT)
    page.get_by_label("Called").first.press("Enter")
    expect(page.get_by_label("Called")).to_have_count(4)
    expect(page).to_have_url(page.url)
    assert service.current() == service.starter()


def test_what_is_wrong_stands_at_its_field(world, open_as):
    page = open_as("marketer")
    page.goto(EDIT)
    field = page.get_by_label("Value 1 of intent", exact=True)
    field.fill("up_down")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("“up_down” holds the separator “_”").first).to_be_visible()
    expect(field).to_be_focused()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was saved")
    assert problems(page) == []


def test_a_name_is_built_from_drop_downs_and_its_length_seen(world, open_as):
    page = open_as("marketer")
    page.goto("/settings/naming/conformance/")
    page.get_by_role("link", name="Fix meta_buyers_7d").click()
    page.get_by_label("Intent").select_option("purchasers")
    page.get_by_label("Window").select_option("7d")
    expect(page.locator("#built-name")).to_contain_text("meta_purchasers_7d_v1")
    expect(page.locator("#built-name")).to_contain_text("21 of 200")
    assert problems(page) == []
    page.get_by_label("Why it is renamed").fill("so that buyers find it")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("status").filter(has_text="is now called meta_purchasers_7d_v1")).to_be_visible()
    expect(page.locator(f"#names-{world.cart.pk}")).to_contain_text("Meta EU")
    assert page.complaints == []


def test_names_work_without_scripts(world, open_as):
    page = open_as("marketer", java_script_enabled=False)
    page.goto(EDIT)
    page.get_by_role("button", name="Move window up").click()
    assert page.get_by_label("Called").nth(1).input_value() == "window"
    page.goto("/settings/naming/conformance/meta_cart_24h/")
    page.get_by_label("Intent").select_option("browse")
    page.get_by_role("button", name="Build name").click()
    assert "meta_browse_24h_v1" in page.locator("#built-name").inner_text()
    page.get_by_role("button", name="Rename").click()
    assert Audience.objects.get(key="meta_cart_24h").name == "meta_browse_24h_v1"


def test_a_buyer_reads_how_names_are_made_and_changes_nothing(world, open_as):
    page = open_as("buyer")
    page.goto("/settings/naming/")
    expect(page.get_by_role("button", name="Edit the convention")).to_have_attribute("aria-disabled", "true")
    page.get_by_role("link", name="Audiences", exact=True).last.click()
    expect(page.get_by_role("button", name="Fix").first).to_have_attribute("aria-disabled", "true")
