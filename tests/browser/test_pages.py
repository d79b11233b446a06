"""The pages in a real browser: nothing that axe finds, no complaint of the console, and what keys, htmx and no scripts at all do."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import Page, expect

from audiences.models import ImportFile, User
from audiences.people import imports as files
from destinations.models import Mapping, Run
from tests import filled

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def problems(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']} ({one['impact']}): {one['nodes'][0]['html'][:200]}" for one in found]


def pages(world: filled.Filled) -> list[str]:
    """The addresses that open as pages; the others are saved as files, or are the inside of another."""
    return [address for address in filled.addresses(world) if not address.endswith((".csv", "/html/"))]


WIDTHS = (390, 720, 1101, 1280)


@pytest.mark.timeout(600)
def test_no_page_is_wider_than_its_window_nor_has_what_axe_finds_in_either_theme_nor_a_complaint_of_the_browser(
    world, open_as
):
    page = open_as("admin", reduced_motion="reduce")  # colours change at once
    filled.running(world.mapping)
    found: dict[str, list[str]] = {}
    for address in pages(world):
        page.goto(address)
        page.wait_for_load_state("networkidle") if "runs" not in address else page.wait_for_timeout(300)
        wrong: list[str] = []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(200)
            wrong += [f"{scheme}: {problem}" for problem in problems(page)]
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(50)
            if not page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"):
                wrong.append(f"wider than {width}")
        if wrong := wrong + page.complaints:
            found[address] = wrong
            page.complaints.clear()
    assert found == {}


def test_axe_finds_nothing_on_the_pages_before_the_door(world, open_as):
    for scheme in ("light", "dark"):
        page = open_as("", color_scheme=scheme)
        page.goto("/sign-in/")
        assert problems(page) == []
        page.get_by_role("button", name="Sign in").click()
        page.get_by_label("E-mail").fill("x@example.com")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("E-mail or password is wrong")
        assert problems(page) == []
        User.objects.filter(role="admin").update(password="!")
        page.goto("/sign-in/")
        expect(page.get_by_role("heading", level=1)).to_have_text("Set up Rollcall")
        assert problems(page) == []
        User.objects.filter(role="admin").update(password=world.users["admin"].password)


def test_the_first_set_up_by_keyboard_alone(open_as):
    page = open_as("")
    page.goto("/")
    expect(page).to_have_url(re.compile("/setup/$"))
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.get_by_label("Your e-mail").focus()
    for text in ("ada@example.com", "harbour-lights-9", "harbour-lights-9", "Harbour Goods"):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    page.get_by_label(re.compile("opt-out")).first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Rollcall is set up")
    assert User.objects.get().email == "ada@example.com"
    assert page.complaints == []


def test_keys_search_go_move_open_copy_and_help(world, open_as):
    page = open_as("buyer")
    page.keyboard.press("/")
    expect(page.get_by_label("Search audiences")).to_be_focused()
    page.keyboard.type("cart")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page).to_have_url(re.compile(r"q=cart"))
    page.keyboard.press("Escape")
    expect(page.get_by_label("Search audiences")).to_have_value("cart")
    page.keyboard.press("j")
    expect(page.locator("tr.current a").first).to_be_focused()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.keyboard.press("c")
    expect(page.get_by_text("Copied meta_cart_24h")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "meta_cart_24h"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("meta_cart_24h")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page.get_by_role("heading", level=1)).to_have_text("Runs")


def test_single_keys_do_nothing_when_they_are_turned_off(world, open_as):
    page = open_as("buyer")
    page.goto("/account/")
    page.get_by_label(re.compile("Single keys")).uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Saved")
    page.keyboard.press("?")
    page.keyboard.press("g")
    page.keyboard.press("r")
    page.wait_for_timeout(300)
    assert page.url.endswith("/account/")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_going_back_after_a_search_shows_the_list_as_it_was(world, open_as):
    page = open_as("buyer")
    page.get_by_label("Search audiences").fill("buyers")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name="meta_buyers_7d").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("meta_buyers_7d")
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_label("Search audiences")).to_have_value("buyers")
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(3)


def test_a_run_moves_before_ones_eyes_and_then_stops_asking(world, open_as):
    run = filled.running(world.mapping)
    page = open_as("buyer")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if f"/runs/{run.pk}/" in request.url else None)
    page.goto(f"/runs/{run.pk}/")
    expect(page.get_by_text("36 of 92 batches")).to_be_visible()
    Run.objects.filter(pk=run.pk).update(batches_done=70)
    expect(page.get_by_text("70 of 92 batches")).to_be_visible()
    Run.objects.filter(pk=run.pk).update(state="done", finished_at=timezone.now())
    expect(page.locator(".steps .done")).to_have_count(6)
    seen = len(asked)
    page.wait_for_timeout(3000)
    assert len(asked) == seen
    assert page.complaints == []


def test_a_session_that_ends_while_a_page_polls_leads_to_the_sign_in(world, open_as):
    run = filled.running(world.mapping)
    page = open_as("buyer")
    page.goto(f"/runs/{run.pk}/")
    page.context.clear_cookies()
    page.wait_for_url(f"**/sign-in/?next=%2Fruns%2F{run.pk}%2F")
    assert page.locator("h1").count() == 1


def test_without_scripts_everything_is_still_there(world, open_as):
    page = open_as("operator", java_script_enabled=False)
    page.get_by_label("Search audiences").fill("cart")
    page.get_by_role("button", name="Search").click()
    assert page.locator("tbody tr").count() == 1
    page.get_by_role("link", name="Meta EU").first.click()
    page.locator("details.menu summary.button").click()
    page.get_by_role("link", name="Pause…").click()
    page.get_by_label("Why").fill("too costly")
    page.get_by_role("button", name="Pause").click()
    assert Mapping.objects.get(pk=world.mapping.pk).state == "paused"
    assert page.get_by_text("Paused. Removals go on.").is_visible()


def test_the_menu_opens_on_a_phone_and_closes_with_escape(world, open_as):
    page = open_as("operator", width=390)
    rail = page.get_by_role("navigation", name="Main")
    expect(rail).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    expect(rail).to_be_visible()
    assert problems(page) == []
    page.keyboard.press("Escape")
    expect(rail).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    rail.get_by_role("link", name="Destinations").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Destinations")


def test_dark_is_chosen_by_hand_and_kept(world, open_as):
    page = open_as("buyer", color_scheme="light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_label(re.compile("account$")).click()
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.goto("/runs/")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_a_file_is_imported_in_the_browser_and_its_end_is_seen(world, open_as, tmp_path):
    file = tmp_path / "people.csv"
    file.write_text("customer_id,mail,tier\n" + "".join(f"c{n},c{n}@shop.example,gold\n" for n in range(20)) + ",x,y\n")
    page = open_as("operator")
    page.goto("/imports/")
    page.get_by_role("link", name="Import a file").click()
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_label("Customer id")).to_have_value("customer_id")
    expect(page.get_by_label("E-mail")).to_have_value("mail")
    page.get_by_role("button", name="Start the import").click()
    expect(page.get_by_text("Waiting for a worker")).to_be_visible()
    files.run_here(ImportFile.objects.get(name="people.csv"))
    expect(page.get_by_text("Ended")).to_be_visible()
    expect(page.get_by_role("cell", name="is empty")).to_be_visible()
    assert page.complaints == []


def test_a_person_is_found_and_each_audience_explained(world, open_as):
    page = open_as("marketer")
    page.goto("/people/")
    page.get_by_label("Customer id, e-mail or phone").fill("bob@shop.example")
    page.get_by_role("button", name="Find").click()
    page.wait_for_url(re.compile(r"/people/\d+/$"))
    assert "bob" not in page.url
    out = page.locator(".standings li").filter(has_text="meta_cart_24h").first
    expect(out).to_contain_text("Not met: Did not do “purchase” in the last 3 days")
    out.locator("summary").click()
    expect(out.get_by_label("Holds").first).to_be_visible()
    expect(out.get_by_label("Does not hold").first).to_be_visible()
