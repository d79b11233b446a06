"""An audience that was deleted on its platform, as every page says it: since when it is known, what stands still, who may do what about it."""

import html
import re
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.utils import timezone

from destinations.models import Mapping
from qa.checks import facts
from qa.checks.registry import KINDS
from tests import filled
from tests.filled import as_

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> filled.Filled:
    cache.clear()
    made = filled.fill()
    Mapping.objects.update(
        lost="gone",
        lost_at=timezone.now() - timedelta(hours=3),
        blocked_reason="Meta knows no such audience, or does not show it to us (code 100/33).",
    )
    return made


def words(response) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html.unescape(response.content.decode())).split())


@pytest.mark.parametrize("at", ["/audiences/", "/audiences/meta_cart_24h/"])
def test_lists_and_the_audience_s_page_say_deleted_where_and_since_when(world, at):
    page = words(as_(world, "buyer").get(at))
    assert "Deleted on Meta EU, seen " in page
    assert "deleted there" in page.lower()
    assert "Open in the ad account" not in page  # it leads nowhere


def test_the_connection_says_what_may_be_done_and_by_whom(world):
    at = f"/connections/{world.mapping.pk}/"
    page = words(as_(world, "operator").get(at))
    assert re.search(r"Deleted on Meta EU, seen 3 h\w* ago", page)
    assert "code 100/33" in page
    for button in ("Create it anew and send everybody again…", "Look again…", "Retire the connection…"):
        assert button in page
    assert "It is seen to, call again" not in page
    page = words(as_(world, "marketer").get(at))
    assert "Create it anew" not in page
    assert "Admin or operator may create it anew, look again or retire it." in page


def test_creating_it_anew_has_a_page_of_its_own_and_needs_the_role(world):
    at = f"/connections/{world.mapping.pk}/do/recreate/"
    page = words(as_(world, "operator").get(at))
    assert "Ad sets that name the deleted one must be pointed at the new one." in page
    assert as_(world, "marketer").post(at).status_code == 403
    assert Mapping.objects.get().remote_id == "2385"
    assert as_(world, "operator").post(at, {"reason": "by mistake"}).status_code == 302
    assert (Mapping.objects.get().remote_id, Mapping.objects.get().lost) == ("", "")
    # Pressed twice: it is not lost any more, so it cannot be done, and says so.
    again = as_(world, "operator").post(at, {"reason": "by mistake"}, follow=True)
    assert "cannot be done from there" in words(again)


def test_a_blocked_one_offers_no_new_one(world):
    Mapping.objects.update(lost="blocked")
    page = words(as_(world, "operator").get(f"/connections/{world.mapping.pk}/"))
    assert "Blocked on Meta EU, seen" in page
    assert "Create it anew" not in page


def test_names_on_platforms_and_the_rehearsal_say_it_too(world):
    page = words(as_(world, "buyer").get("/settings/naming/platforms/"))
    assert "It was deleted there." in page
    page = words(as_(world, "operator").get(f"/connections/{world.mapping.pk}/rehearsal/"))
    assert "Its audience is not there" in page


def test_the_alert_is_about_the_deletion_and_names_the_remedy(world):
    [one] = [reading.finding for reading in KINDS["blocked"].look(facts.load()) if reading.finding]
    assert one.figure == "audience deleted there"
    assert one.sentence.startswith("Deleted on Meta EU, seen ")
    assert "create it anew, which sends everybody again, or retire it" in one.remedy


def test_a_name_that_somebody_gave_it_there_is_shown_until_it_is_put_right(world):
    Mapping.objects.update(
        lost="", lost_at=None, blocked_reason="", remote_name="mine", renamed_there="mine",
        renamed_there_at=timezone.now(),
    )  # fmt: skip
    for at in ("/audiences/meta_cart_24h/", f"/connections/{world.mapping.pk}/", "/settings/naming/platforms/"):
        assert "Somebody renamed it there to “mine”, seen " in words(as_(world, "buyer").get(at)), at
    Mapping.objects.update(remote_name="meta_cart_24h")
    assert "Somebody renamed it" not in words(as_(world, "buyer").get("/audiences/meta_cart_24h/"))
