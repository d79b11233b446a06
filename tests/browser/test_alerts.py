"""An alert from the mail that tells of it to its end, in a real browser."""

from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import expect

from qa import outbox, watch
from qa.models import Incident, Limits, Mail
from tests import filled
from tests.qa import moving

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def shop(transactional_db, settings, live_server, tmp_path):
    """An audience with a fortnight behind it that has lost three fifths. Mail goes to files."""
    settings.PUBLIC_URL = live_server.url
    settings.EMAIL_BACKEND = "qa.outbox.Files"
    settings.DATA_DIR = tmp_path
    people = filled.users()
    cart = moving.audience(people["marketer"])
    moving.count(cart, 400, at=timezone.now() - timedelta(minutes=5))
    watch.look()
    outbox.send_due()
    return cart


def sound(page):
    found = Axe().run(page).response["violations"]
    assert [f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in found] == []
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_from_the_mail_to_the_alert_to_taking_it_up_and_back(shop, open_as, width, scheme):
    page = open_as("marketer", width=width, color_scheme=scheme, reduced_motion="reduce")  # a notice stands still
    page.goto("/mail/")
    expect(page.get_by_text("Mail goes to files until EMAIL_URL is set.")).to_be_visible()
    sound(page)
    page.get_by_role("link", name="CRITICAL | cart | size −60%").click()
    frame = page.frame_locator("iframe.mail-frame")
    expect(frame.get_by_text("Dropped 60% since")).to_be_visible()
    sound(page)
    with page.context.expect_page() as opened:  # the mail's own link, from within its frame
        frame.get_by_role("link", name="Open the alert").click()
    alert = opened.value
    alert.complaints = page.complaints
    alert.wait_for_load_state()
    assert Incident.objects.get().acknowledged_by is None  # opening a link has changed nothing
    expect(alert.get_by_role("heading", name="cart", exact=True)).to_be_visible()
    sound(alert)
    alert.get_by_role("button", name="Acknowledge").click()
    expect(alert.get_by_text("Marketer is on it")).to_be_visible()
    alert.get_by_role("button", name="Undo").click()
    expect(alert.get_by_text("Nobody is on it any more.")).to_be_visible()
    alert.get_by_role("button", name="Snooze 1 day").click()
    expect(alert.locator(".status")).to_contain_text("waits until")
    sound(alert)


def test_a_limit_says_what_it_would_have_done_while_it_is_typed(shop, open_as):
    page = open_as("marketer")
    page.goto(f"/alerts/{Incident.objects.get().pk}/")
    field = page.get_by_label("Alert from")
    field.fill("70")
    expect(page.get_by_text("At 70% it would have fired 0 times in 15 days.")).to_be_visible()
    assert not Limits.objects.exists()
    page.get_by_role("button", name="Keep this limit").click()
    expect(page.get_by_text("begin at 70% now")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("The usual limit holds again.")).to_be_visible()
    page.get_by_label("Why it is meant").fill("The rule is narrower now")
    page.get_by_role("button", name="Take as usual").click()
    expect(page.get_by_text("Over", exact=True).first).to_be_visible()
    sound(page)


def test_a_test_alert_is_shown_as_it_would_arrive(shop, open_as):
    page = open_as("buyer")
    page.goto("/alerts/")
    expect(page.locator(".rail .n")).to_have_text("1 open")
    sound(page)
    page.get_by_role("button", name="Send me a test alert").click()
    expect(page.frame_locator("iframe.mail-frame").get_by_text("Nothing is wrong.")).to_be_visible()
    assert Mail.objects.get(to="buyer@example.com").subject.startswith("TEST")
    sound(page)


def test_a_hostile_name_runs_nothing_in_the_frame_of_a_mail(shop, open_as):
    mail = Mail.objects.get()
    Mail.objects.update(html=f'{mail.html}<script>document.title="run"</script><img src="x" onerror="alert(1)">')
    page = open_as("marketer")
    page.on("dialog", lambda dialog: page.complaints.append("a dialog"))
    page.goto(f"/mail/{mail.pk}/")
    expect(page.frame_locator("iframe.mail-frame").get_by_text("Dropped 60%")).to_be_visible()
    assert page.frames[1].title() != "run"
    assert "a dialog" not in page.complaints
