"""Names in a real browser: a convention edited with its effect beside it, and a name built from drop-downs, with scripts and without."""

import pytest
from playwright.sync_api import expect

from audiences import jobs
from audiences.models import Audience
from audiences.services import naming as service
from destinations.models import Mapping
from tests.browser.test_pages import problems
from tests.destinations import scene

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
    page.get_by_label("Why it says another than the rule").fill("it is what we bid for")
    page.get_by_role("button", name="Rename").click()
    assert Audience.objects.get(key="meta_cart_24h").name == "meta_browse_24h_v1"


def test_a_buyer_reads_how_names_are_made_and_changes_nothing(world, open_as):
    page = open_as("buyer")
    page.goto("/settings/naming/")
    expect(page.get_by_role("button", name="Edit the convention")).to_have_attribute("aria-disabled", "true")
    page.get_by_role("link", name="Audiences", exact=True).last.click()
    expect(page.get_by_role("button", name="Fix").first).to_have_attribute("aria-disabled", "true")


# --- As the platform itself shows it.


def worked() -> None:
    """What the workers do meanwhile."""
    jobs.run_due_here(["sync"], rounds=3)


@pytest.fixture
def sent(world, sandbox, account_number) -> scene.Scene:
    """`meta_buyers_7d` is live on a Meta-shaped account of the sandbox."""
    live = scene.live(sandbox, account_number, world.buyers)
    live.sync()
    live.mapping.refresh_from_db()
    return live


def test_a_rename_by_convention_is_seen_on_the_platforms_own_page(sent, open_as):
    page = open_as("marketer")
    there = f"{sent.sandbox.base_url}/accounts/meta/{sent.account}/{sent.mapping.remote_id}/"
    page.goto(there)
    expect(page.get_by_role("heading", level=1)).to_have_text("meta_buyers_7d")
    expect(page.get_by_text("People who did “purchase” at least once in the last 7 days.")).to_be_visible()
    expect(page.get_by_text("Owner: Marketer. Version 1.")).to_be_visible()

    page.goto("/settings/naming/conformance/")
    page.get_by_role("link", name="Fix meta_buyers_7d").click()
    expect(page.get_by_label("Intent")).to_have_value("purchasers")  # the rule says so
    expect(page.get_by_label("Window")).to_have_value("7d")
    page.get_by_role("button", name="Rename", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="is now called meta_purchasers_7d_v1")).to_be_visible()

    page.goto(f"/connections/{sent.mapping.pk}/")
    expect(page.get_by_text("Renamed at the next sync: meta_purchasers_7d_v1")).to_be_visible()
    assert problems(page) == []
    page.get_by_role("button", name="Sync now").click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    worked()
    page.goto(there)
    expect(page.get_by_role("heading", level=1)).to_have_text("meta_purchasers_7d_v1")
    page.goto(f"{sent.sandbox.base_url}/accounts/meta/{sent.account}/")
    expect(page.get_by_role("link", name="meta_purchasers_7d_v1")).to_be_visible()
    assert page.complaints == []


def test_a_bulk_renaming_is_ticked_done_at_once_and_taken_back(sent, open_as):
    page = open_as("marketer")
    page.goto("/settings/naming/conformance/")
    page.get_by_role("link", name="Rename in bulk").click()
    expect(page.get_by_text("Nothing is renamed before you press the button.")).to_be_visible()
    assert problems(page) == []
    page.get_by_label("Rename meta_cart_24h to meta_cart_24h_v1").uncheck()
    page.get_by_label("Rename on the platforms at once").check()
    page.get_by_label("Why they are renamed").fill("as agreed")
    page.get_by_role("button", name="Rename the ticked ones").click()
    done = page.get_by_role("status").filter(has_text="1 audience renamed. Platforms are told in a moment.")
    expect(done).to_be_visible()
    worked()

    def there() -> str:
        return sent.sandbox.audience("meta", sent.mapping.remote_id)["name"]

    assert there() == "meta_purchasers_7d_v1"
    assert Audience.objects.get(key="meta_cart_24h").name == "meta_cart_24h"
    done.get_by_role("button", name="Rename back").click()
    expect(page.get_by_role("status").filter(has_text="1 audience renamed back.")).to_be_visible()
    expect(page.get_by_text("Taken back just now")).to_be_visible()
    worked()
    assert there() == "meta_buyers_7d"
    assert page.complaints == []


def test_a_part_that_contradicts_the_rule_asks_why_as_soon_as_it_is_chosen(world, open_as):
    page = open_as("marketer")
    page.goto("/settings/naming/conformance/meta_cart_24h/")
    why = page.get_by_label("Why it says another than the rule")
    expect(why).to_be_hidden()
    page.get_by_label("Window").select_option("7d")
    expect(page.locator("#built-name")).to_contain_text(
        "The rule looks at the last 24 hours (24h), and the name says 7d."
    )
    expect(why).to_be_visible()
    assert problems(page) == []
    page.get_by_role("button", name="Rename", exact=True).click()
    expect(page.get_by_text("Choose what the rule says, or say why it differs.").first).to_be_visible()
    why.fill("the agency counts in weeks")
    page.get_by_role("button", name="Rename", exact=True).click()
    expect(page.get_by_text("window stays 7d: the agency counts in weeks")).to_be_visible()
    assert Audience.objects.get(key="meta_cart_24h").name == "meta_cart_7d_v1"
    assert page.complaints == [
        "Failed to load resource: the server responded with a status of 422 (Unprocessable Entity)"
    ]


def test_an_audience_that_was_deleted_there_is_shown_and_made_anew_by_whoever_may(sent, open_as):
    sent.sandbox.delete_audience("meta", sent.mapping.remote_id)
    Mapping.objects.update(seen_at=None)
    jobs.ask("destinations.look", "", queue="sync")
    worked()
    page = open_as("operator")
    page.goto(f"/connections/{sent.mapping.pk}/")
    expect(page.get_by_text("Deleted there")).to_be_visible()
    expect(page.get_by_text("it is never made again by itself")).to_be_visible()
    assert problems(page) == []
    page.get_by_role("link", name="Look again…").click()
    page.get_by_role("button", name="Look now").click()
    expect(page.get_by_text("It is not there")).to_be_visible()
    page.goto(f"/connections/{sent.mapping.pk}/")
    page.get_by_role("link", name="Create it anew and send everybody again…").click()
    page.get_by_label("Why").fill("deleted by mistake")
    page.get_by_role("button", name="Create it anew").click()
    expect(page.get_by_role("status").filter(has_text="made anew at the next sync")).to_be_visible()
    worked()
    page.reload()
    expect(page.get_by_text("Deleted there")).to_have_count(0)
    new = Mapping.objects.get(pk=sent.mapping.pk).remote_id
    page.goto(f"{sent.sandbox.base_url}/accounts/meta/{sent.account}/{new}/")
    expect(page.get_by_role("definition").filter(has_text="1").first).to_be_visible()
    assert new != sent.mapping.remote_id
