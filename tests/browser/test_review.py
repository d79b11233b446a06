"""A change before it goes live, in a real browser: another user reads it and approves it by its name; who is alone approves it and takes it back."""

import pytest
from playwright.sync_api import expect

from audiences.models import Audience, Refresh, SegmentVersion, User, Workspace
from audiences.services import audiences, refreshes, versions
from tests import filled
from tests.audiences.people_in import identify, track

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
VIEWED = {"event": "product_viewed", "count": {"at_least": 1}, "within": "7d"}
GERMAN = {"all": [VIEWED, {"attribute": "country", "op": "is", "value": "DE"}]}


@pytest.fixture
def views(world: filled.Filled) -> Audience:
    """Three people, of whom one is in Germany; a draft that keeps only that one."""
    Workspace.objects.update(review_above_percent=20)
    for who, country in (("ann", "DE"), ("cleo", "FR"), ("dora", "FR")):
        identify(who, country=country)
        track(who, "product_viewed", product="Oilskin jacket")
    made = filled.audience("meta_views_7d", VIEWED, world.users["marketer"])
    refreshes.refresh([made], cause=Refresh.Cause.MANUAL)
    versions.save_draft(actor=world.users["marketer"], audience=made, segment=GERMAN)
    return made


def live(audience: Audience) -> SegmentVersion | None:
    return Audience.objects.select_related("live_version").get(pk=audience.pk).live_version


def test_another_user_reads_it_and_approves_it(world, views, open_as):
    page = open_as("marketer")
    page.goto("/audiences/meta_views_7d/review/")
    expect(page.get_by_role("region", name="What publishing it does")).to_contain_text("67%")
    page.get_by_label("Why").fill("Only Germany is delivered to")
    page.get_by_role("button", name="Ask for a review").click()
    expect(page.get_by_role("status")).to_contain_text("v2 is in review")
    assert page.complaints == []

    page = open_as("admin")
    page.goto("/")
    page.get_by_role("link", name="Review it").first.click()
    page.goto("/audiences/meta_views_7d/review/")
    expect(page.get_by_role("heading", name="Some who leave")).to_be_visible()
    page.get_by_label("Type the audience’s name").fill("meta_views")
    page.get_by_role("button", name="Approve and publish").click()
    expect(page.get_by_text("exactly as it is written")).to_be_visible()
    page.get_by_label("Type the audience’s name").fill("meta_views_7d")
    page.get_by_label("What you say to it").fill("Agreed")
    page.get_by_role("button", name="Approve and publish").click()
    expect(page.get_by_role("status")).to_contain_text("v2 is approved and live")
    now = live(views)
    assert now is not None and now.number == 2 and now.published_by == world.users["admin"]
    assert [words for words in page.complaints if "422" not in words] == []


def test_who_is_alone_approves_it_and_takes_it_back(world, views, open_as):
    User.objects.exclude(role="admin").update(is_active=False)
    own = dict.fromkeys(("definition_owner", "sync_owner", "alert_owner"), world.users["admin"])
    audiences.set_owners(actor=None, audience=views, **own)
    versions.save_draft(actor=world.users["admin"], audience=views, segment=GERMAN, reason="mine now")
    page = open_as("admin")
    page.goto("/audiences/meta_views_7d/review/")
    expect(page.get_by_text("nobody else here may approve it")).to_be_visible()
    page.get_by_label("Type the audience’s name").fill("meta_views_7d")
    page.get_by_label("Why").fill("Nobody else works here")
    page.get_by_role("button", name="Approve it myself and publish").click()
    expect(page.get_by_role("status")).to_contain_text("v2 is self-approved and live")
    page.goto("/audiences/meta_views_7d/versions/")
    expect(page.get_by_text("Self-approved")).to_be_visible()
    page.goto("/audiences/meta_views_7d/review/")
    page.get_by_role("button", name="Take v2 back").click()
    expect(page.get_by_role("status")).to_contain_text("Taken back: v3 says what was live before")
    now = live(views)
    assert now is not None and now.sha256 == views.versions.get(number=1).sha256
    assert page.complaints == []
