"""In a real browser: a nested rule is built with the keyboard alone, undone, met by somebody else's; and all of it without scripts."""

import re
from itertools import pairwise

import pytest
from playwright.sync_api import expect

from audiences.models import AttributeName, Audience
from audiences.people import survey
from audiences.segments import grammar
from audiences.services import audiences, drafts, versions
from tests import filled
from tests.browser.test_pages import problems

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def press(page, name, value=""):
    """Go with Tab from where the focus is to the button of this name, and press Enter."""
    for _ in range(60):
        page.keyboard.press("Tab")
        here = page.evaluate(
            "[document.activeElement.tagName, document.activeElement.textContent.trim(), document.activeElement.value || '']"
        )
        if here[0] == "BUTTON" and here[1] == name and here[2].startswith(value):
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"Tab does not lead to {name}")


def focus(page, field):
    expect(page.locator(f'[id="{field}"]')).to_be_focused()


def test_a_nested_rule_is_built_with_the_keyboard_alone(world, open_as):
    world.draft.versions.all().delete()
    page = open_as("marketer")
    page.goto(f"/audiences/{world.draft.key}/edit/")
    page.locator('[id="rule-0.event"]').focus()
    page.keyboard.type("add_to_cart")
    for _ in range(4):
        page.keyboard.press("Tab")
    page.keyboard.type("24")
    press(page, "Group", "add-group:rule")
    focus(page, "rule-1-0.event")
    page.keyboard.type("purchase")
    press(page, "Rule", "add-rule:rule-1")
    focus(page, "rule-1-1.event")
    page.keyboard.type("product_viewed")
    press(page, "Exclude people who…")
    focus(page, "rule-2-0.event")
    page.keyboard.type("purchase")
    for _ in range(4):
        page.keyboard.press("Tab")
    page.keyboard.type("3")
    page.keyboard.press("Tab")
    expect(page.locator("#editor")).to_contain_text("2 fields are still open")
    for field in ("rule-1-0.last", "rule-1-1.last"):
        page.locator(f'[id="{field}"]').focus()
        page.keyboard.type("7")
        page.keyboard.press("Tab")
    week = {"within": "7d"}
    wanted = grammar.parse(
        {
            "all": [
                {"event": "add_to_cart", "within": "24d"},
                {"any": [{"event": "purchase", **week}, {"event": "product_viewed", **week}]},
                {"not": {"any": [{"event": "purchase", "within": "3d"}]}},
            ]
        }
    )
    for _ in range(50):
        if grammar.loads(world.draft.versions.get().segment) == wanted:
            break
        page.wait_for_timeout(200)  # each change is saved on its own
    assert grammar.loads(world.draft.versions.get().segment) == wanted
    assert problems(page) == []
    assert page.complaints == []


def test_nothing_is_lost_by_whoever_types_faster_than_it_is_saved(world, open_as):
    page = open_as("marketer")
    page.goto(f"/audiences/{world.cart.key}/edit/")
    page.route("**/edit/", lambda route: (page.wait_for_timeout(400), route.continue_()))
    page.locator('[id="rule-0.last"]').fill("36")
    page.keyboard.press("Tab")  # is being saved from here on
    page.wait_for_timeout(200)
    page.locator('[id="rule-1.last"]').fill("9")
    page.keyboard.press("Tab")
    press(page, "Rule", "add-rule:rule")
    focus(page, "rule-2.event")
    said = page.locator("#editor")
    expect(page.locator('[id="rule-0.last"]')).to_have_value("36")
    expect(page.locator('[id="rule-1.last"]')).to_have_value("9")
    expect(said).to_contain_text("still open")
    page.keyboard.type("product_viewed")
    page.keyboard.press("Tab")
    page.locator('[id="rule-2.last"]').fill("5")
    page.keyboard.press("Tab")
    for words in ("in the last 36 hours", "in the last 9 days", "“product_viewed” at least once in the last 5 days"):
        expect(page.locator(".editor-said")).to_contain_text(words)
    page.unroute_all(behavior="wait")
    assert page.complaints == []


def test_a_button_that_only_has_the_focus_while_something_is_saved_is_not_pressed(world, open_as):
    page = open_as("marketer")
    page.goto(f"/audiences/{world.cart.key}/edit/")
    page.locator('[id="rule-0.last_unit"]').select_option("d")
    page.locator('[value="remove:rule-1"]').focus()
    expect(page.locator("#said")).to_contain_text("in the last 24 days")
    expect(page.locator("#said")).to_contain_text("purchase")
    expect(page.locator('[value="remove:rule-1"]')).to_be_focused()
    assert page.complaints == []


def test_undo_redo_and_what_is_typed_meanwhile(world, open_as):
    page = open_as("marketer")
    page.goto(f"/audiences/{world.cart.key}/edit/")
    page.get_by_role("button", name="Remove this rule").first.click()
    expect(page.locator(".editor-said")).not_to_contain_text("add_to_cart")
    focus(page, "rule-0.event")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".editor-said")).to_contain_text("add_to_cart")
    page.get_by_role("button", name="Redo").click()
    expect(page.locator(".editor-said")).not_to_contain_text("add_to_cart")
    page.route("**/edit/", lambda route: (page.wait_for_timeout(300), route.continue_()))
    page.locator('[id="rule-0.last"]').fill("8")
    page.locator('[id="rule-0.last"]').press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.locator('[id="rule-0.event"]').fill("add_to_cart")
    page.wait_for_timeout(900)
    assert page.locator('[id="rule-0.event"]').input_value() == "add_to_cart"
    page.keyboard.press("Tab")
    expect(page.locator(".editor-said")).to_contain_text("did not do “add_to_cart” in the last 8 days")
    page.unroute_all(behavior="wait")
    assert page.complaints == []


def test_a_screen_reader_hears_the_sentence_and_the_size_and_not_the_form(world, open_as):
    """A live region must stay in the page and only its words change; what does not change is not said again."""
    page = open_as("marketer")
    page.goto(f"/audiences/{world.cart.key}/edit/")
    expect(page.locator("#preview")).to_contain_text("of 2 people")
    page.evaluate("""() => {
        window.heard = [];
        const regions = [...document.querySelectorAll("#said, #preview-said")];
        for (const region of regions) {
            new MutationObserver(() => window.heard.push([region.id, region.textContent.trim()])).observe(region, { childList: true, subtree: true });
        }
        window.regions = regions;
    }""")
    assert page.locator("#editor [aria-live], #editor [role=status]").count() == 1
    page.locator('[id="rule-0.last"]').fill("36")
    page.keyboard.press("Tab")
    expect(page.locator("#said")).to_contain_text("in the last 36 hours")
    expect(page.locator("#preview-said")).to_contain_text("0 more and 0 fewer than version 1")
    page.get_by_role("button", name="Duplicate this rule").first.click()
    page.get_by_role("button", name="Remove this rule").first.click()
    expect(page.locator('[id="rule-2"]')).to_have_count(0)
    heard = page.evaluate("window.heard")
    assert page.evaluate("window.regions.every((region) => region.isConnected)")
    said = [words for at, words in heard if at == "said"]
    assert "in the last 36 hours" in said[0] and all(a != b for a, b in pairwise(said))
    assert all("Duplicate" not in words for _, words in heard)


def test_keys_undo_and_redo_outside_of_text_fields_and_leave_them_their_own(world, open_as):
    page = open_as("marketer")
    page.goto(f"/audiences/{world.cart.key}/edit/")
    said = page.locator("#said")
    page.get_by_role("button", name="Remove this rule").first.click()
    focus(page, "rule-0.event")
    page.locator('[id="rule-0.kind"]').focus()
    page.keyboard.press("Control+z")
    expect(said).to_contain_text("add_to_cart")
    focus(page, "rule-0.kind")
    page.keyboard.press("Control+Shift+z")
    expect(said).not_to_contain_text("add_to_cart")
    page.keyboard.press("Meta+z")
    expect(said).to_contain_text("add_to_cart")
    page.keyboard.press("Control+y")
    expect(said).not_to_contain_text("add_to_cart")
    page.locator('[id="rule-0.event"]').focus()
    page.keyboard.type("x")
    page.keyboard.press("Control+z")
    expect(page.locator('[id="rule-0.event"]')).to_have_value("purchase")
    page.wait_for_timeout(400)
    expect(said).not_to_contain_text("add_to_cart")
    page.get_by_role("button", name="Keyboard").click()
    expect(page.get_by_role("dialog")).to_contain_text("Undo in the rule builder")
    assert page.complaints == []


def test_a_field_shows_what_has_been_seen_and_takes_it_by_arrows_or_a_press(world, open_as):
    survey.take()
    page = open_as("marketer")
    page.goto(f"/audiences/{world.cart.key}/edit/")
    expect(page.locator("#preview")).to_contain_text("of 2 people")
    event, list_ = page.locator('[id="rule-0.event"]'), page.get_by_role("listbox", name="Event")
    event.click()
    expect(list_.get_by_role("option")).to_have_count(2)  # all of them, though one is typed already
    expect(list_).to_contain_text(re.compile(r"purchase\s*\d+ times? · \d+% of people · seen"))
    page.keyboard.press("Escape")
    expect(list_).to_have_count(0)
    assert event.get_attribute("aria-expanded") == "false"
    event.fill("purch")
    page.keyboard.press("ArrowDown")
    assert page.locator(f'[id="{event.get_attribute("aria-activedescendant")}"]').text_content().startswith("purchase")
    assert problems(page) == []
    page.keyboard.press("Enter")
    expect(event).to_have_value("purchase")
    expect(page.locator("#said")).to_contain_text("People who did “purchase”")
    focus(page, "rule-0.event")
    page.keyboard.press("ArrowDown")
    list_.get_by_role("option").filter(has_text="add_to_cart").click()
    expect(event).to_have_value("add_to_cart")
    expect(page.locator("#said")).to_contain_text("People who did “add_to_cart”")
    assert world.cart.versions.get(number=2).outline is None
    page.keyboard.press("Tab")
    expect(list_).to_have_count(0)
    assert page.complaints == []


def test_of_many_values_the_line_with_the_cursor_is_chosen_for(world, open_as):
    kept = {"type": "text", "times": 30, "people": 30, "usual": [["pro", 20], ["free", 10]]}
    AttributeName.objects.create(name="plan", first_seen_us=1, last_seen_us=1, **kept)
    rule = {"attribute": "plan", "op": "in", "value": ["old"]}
    versions.save_draft(actor=world.users["marketer"], audience=world.cart, segment=rule)
    page = open_as("marketer")
    page.goto(f"/audiences/{world.cart.key}/edit/")
    values = page.locator('[id="rule-0.values"]')
    values.focus()
    page.keyboard.press("Control+End")
    page.keyboard.type("\nfr")
    expect(page.get_by_role("listbox", name="Values, one a line").get_by_role("option")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(values).to_have_value("old\nfree")
    expect(page.locator("#said")).to_contain_text("free")
    assert page.complaints == []


def test_a_template_is_picked_turned_named_and_paired_and_taken_back(world, open_as):
    owner = world.users["marketer"]
    audiences.create(
        actor=owner, key="fresh", purpose="retargeting", definition_owner=owner, sync_owner=owner, alert_owner=owner
    )
    page = open_as("marketer")
    page.goto("/audiences/fresh/edit/")
    page.get_by_role("button", name="Pick a template").click()
    page.get_by_role("link", name="Win back, 60 days").click()
    preview = page.locator("#preview")
    expect(preview).to_contain_text("did not do “purchase” in the last 60 days")
    page.get_by_label("Nothing bought for").fill("90")
    page.get_by_label("Nothing bought for").press("Tab")
    expect(preview).to_contain_text("did not do “purchase” in the last 90 days")
    expect(page.get_by_label("Window")).to_have_value("90d")
    page.get_by_label("Channel").select_option("meta")
    page.get_by_label("Intent").select_option("winback")
    expect(page.locator("#built-name")).to_contain_text("meta_winback_90d_v1")
    expect(page.get_by_label(f"Link {world.buyers.key}")).to_be_checked()
    page.get_by_label("Make another").check()
    assert problems(page) == []
    page.get_by_role("button", name="Use it").click()
    page.wait_for_url("**/edit/")
    toast = page.locator(".toast")
    expect(toast).to_contain_text("suppress_purchasers_14d is linked")
    expect(page.locator("#said")).to_contain_text("in the last 90 days")
    toast.get_by_role("button", name="Undo the rule").click()
    expect(page.locator("#said")).to_contain_text("fields are still open")
    fresh = Audience.objects.get(key="fresh")
    assert fresh.name == "meta_winback_90d_v1"
    assert fresh.excluded_by.get().live_version.sentence.endswith("in the last 14 days.")
    assert page.complaints == []


def test_a_rule_is_dragged_to_another_place_and_back_by_undo(world, open_as):
    rule = {"all": [{"list": "staff"}, filled.CART["all"][0], {"any": [filled.CART["all"][1], {"list": "staff"}]}]}
    versions.save_draft(actor=world.users["marketer"], audience=world.cart, segment=rule)
    page = open_as("marketer")
    page.goto(f"/audiences/{world.cart.key}/edit/")
    grip = page.locator('[id="rule-0"] .rule-grip')
    grip.drag_to(page.locator('[id="rule-2-1"]'), target_position={"x": 200, "y": 4})
    expect(page.locator('[id="rule-1-1.kind"]')).to_have_value("list")
    expect(page.locator('[id="rule-1-2.kind"]')).to_have_value("list")
    expect(page.locator('[id="rule-0.event"]')).to_have_value("add_to_cart")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator('[id="rule-0.kind"]')).to_have_value("list")
    group = page.locator('[id="rule-2"] > .rule-items > .rule-moves .rule-grip')
    group.drag_to(page.locator('[id="rule-2-1"]'))  # not into itself
    page.locator('[id="rule-0"] .rule-grip').drag_to(page.locator(".editor-said"))
    page.wait_for_timeout(400)
    assert grammar.loads(world.cart.versions.get(number=2).segment) == grammar.parse(rule)
    assert page.locator(".drop-before, .drop-after").count() == 0
    assert page.complaints == []


def test_who_edits_an_older_draft_sees_both_and_chooses(world, open_as):
    page = open_as("marketer")
    page.goto(f"/audiences/{world.cart.key}/edit/")
    now = drafts.current(world.cart)
    longer = {**now.outline, "items": [{**now.outline["items"][0], "last": "9"}, *now.outline["items"][1:]]}
    drafts.save(actor=world.users["admin"], audience=world.cart, edited=longer, number=0, revision=0)
    page.locator('[id="rule-0.last"]').fill("36")
    page.locator('[id="rule-0.last"]').press("Tab")
    expect(page.get_by_role("heading", name="Yours")).to_be_visible()
    expect(page.locator("#main")).to_contain_text("in the last 9 hours")
    assert problems(page) == []
    page.get_by_role("button", name="Go on with yours").click()
    expect(page.locator(".editor-said")).to_contain_text("in the last 36 hours")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".editor-said")).to_contain_text("in the last 9 hours")
    assert page.complaints == []


@pytest.mark.parametrize("width", [1280, 390])
def test_all_of_it_goes_without_scripts(world, open_as, width):
    page = open_as("marketer", width=width, java_script_enabled=False)
    page.goto(f"/audiences/{world.cart.key}/edit/")
    page.get_by_role("button", name="Exclude people who…").click()
    page.locator('[id="rule-2-0.kind"]').select_option("audience")
    page.get_by_role("button", name="Save draft").click()
    page.locator('[id="rule-2-0.key"]').fill(world.buyers.key)
    page.get_by_role("button", name="Save draft").click()
    expect(page.locator(".editor-said")).to_contain_text(f"“{world.buyers.key}”")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".editor-said")).to_contain_text("1 field is still open")
    draft = world.cart.versions.get(number=2)
    assert draft.outline["items"][2]["items"][0]["key"] == ""


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_nothing_on_it_is_hard_to_use(world, open_as, theme, width):
    rule = {
        "any": [
            filled.CART,
            {"not": {"any": [{"list": "staff"}]}},
            {"sequence": [{"event": "add_to_cart"}, {"event": "purchase"}]},
        ]
    }
    versions.save_draft(actor=world.users["marketer"], audience=world.cart, segment=rule)
    page = open_as("marketer", width=width, color_scheme=theme)
    page.goto(f"/audiences/{world.cart.key}/edit/")
    assert problems(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
