"""Tests that must not be disturbed: who locks, who ends, who breaks; and what waits."""

from datetime import timedelta

import pytest
from django.utils import timezone

from audiences import jobs, waiting
from audiences.models import AuditEntry, Job, User
from audiences.services import audiences, locks, versions
from audiences.services.audiences import AudienceRefused
from tests import filled
from tests.audiences.people_in import identify, track
from tests.filled import as_

pytestmark = pytest.mark.django_db
GERMAN = {"attribute": "country", "op": "is", "value": "DE"}
WEEK = timedelta(days=7)


@pytest.fixture
def people():
    identify("anna", country="DE")
    track("anna", "purchase", value=10)
    track("anna", "add_to_cart")
    return filled.users()


@pytest.fixture
def cart(people):
    return filled.audience("cart", filled.CART, people["marketer"])


def in_days(days):
    return timezone.now() + timedelta(days=days)


def lock(cart, by, days=7.0, note="two ad sets"):
    return locks.set_lock(actor=by, audience=cart, until=in_days(days), note=note)


def draft(cart, by):
    return versions.save_draft(actor=by, audience=cart, segment=GERMAN)


def text(response):
    return response.content.decode()


def test_publishing_is_refused_while_a_test_goes_on_even_for_a_command(cart, people):
    versions.publish(
        actor=None, version=versions.save_draft(actor=None, audience=cart, segment=filled.BUYERS), reason="x"
    )
    lock(cart, people["buyer"])
    made = draft(cart, people["marketer"])

    for actor in (people["marketer"], None):
        with pytest.raises(AudienceRefused, match=r"test: in test until .*; publish when it ends"):
            versions.publish(actor=actor, version=made, reason="now")
    with pytest.raises(AudienceRefused, match="in test until"):
        versions.go_back(actor=people["marketer"], version=cart.versions.get(number=1), reason="back")

    cart.refresh_from_db()
    assert cart.live_version.number == 2
    assert [row.number for row in cart.versions.order_by("number")] == [1, 2, 3]


def test_what_waits_is_published_when_the_test_ends_as_by_who_asked(cart, people, monkeypatch):
    lock(cart, people["buyer"])
    waits = versions.publish_when_free(
        actor=people["marketer"], version=draft(cart, people["marketer"]), reason="later"
    )
    assert (waits.state, waits.published_at) == ("in_review", None)
    job = Job.objects.get(task=locks.TASK)
    assert abs(job.due_at - waits.publish_at) < timedelta(seconds=5)

    jobs.run_now(locks.TASK, cart.pk)  # too early: it comes again
    waits.refresh_from_db()
    assert waits.state == "in_review"

    now = timezone.now() + WEEK + timedelta(minutes=1)
    monkeypatch.setattr(timezone, "now", lambda: now)
    jobs.run_due_here(["compute"])

    cart.refresh_from_db()
    assert cart.live_version == waits
    assert (cart.live_version.published_by, cart.live_version.reason) == (people["marketer"], "later")
    assert cart.live_version.publish_at is None


def test_a_longer_test_moves_what_waits_and_a_shorter_one_too(cart, people):
    lock(cart, people["buyer"])
    waits = versions.publish_when_free(actor=None, version=draft(cart, None), reason="later")

    for days in (20, 3):
        lock(cart, people["buyer"], days)
        waits.refresh_from_db()
        assert abs(waits.publish_at - in_days(days)) < timedelta(seconds=5)
    assert abs(Job.objects.get(task=locks.TASK).due_at - in_days(3)) < timedelta(seconds=5)
    assert locks.current(cart).pk == cart.test_locks.get().pk


def test_a_lost_job_is_asked_for_again_when_a_worker_starts(cart, people):
    lock(cart, people["buyer"])
    versions.publish_when_free(actor=None, version=draft(cart, None), reason="later")
    Job.objects.all().delete()

    waiting.keep_waiting()

    assert abs(Job.objects.get(task=locks.TASK).due_at - in_days(7)) < timedelta(seconds=5)


def test_what_cannot_be_published_by_then_is_a_draft_again_with_the_reason_on_record(cart, people, monkeypatch):
    lock(cart, people["buyer"])
    waits = versions.publish_when_free(
        actor=people["marketer"], version=draft(cart, people["marketer"]), reason="later"
    )
    audiences.change(actor=None, audience=cart, alert_owner=None)

    now = in_days(8)
    monkeypatch.setattr(timezone, "now", lambda: now)
    jobs.run_due_here(["compute"])

    waits.refresh_from_db()
    assert (waits.state, waits.publish_at, waits.published_by) == ("draft", None, None)
    entry = AuditEntry.objects.get(verb="audience.waits_no_more")
    assert "name an owner for alerts first" in entry.reason


def test_only_one_version_waits_and_what_goes_live_before_takes_its_place(cart, people):
    lock(cart, people["buyer"])
    first = versions.publish_when_free(actor=None, version=draft(cart, None), reason="one")
    back = versions.save_draft(actor=None, audience=cart, segment=filled.BUYERS)
    second = versions.publish_when_free(actor=None, version=back, reason="two")
    first.refresh_from_db()
    assert (first.state, second.state) == ("draft", "in_review")

    Job.objects.all().delete()
    locks.break_lock(actor=people["admin"], audience=cart, reason="wrong audience")
    versions.publish(actor=None, version=first, reason="one after all")

    second.refresh_from_db()
    assert second.state == "draft"
    jobs.run_due_here(["compute"])
    cart.refresh_from_db()
    assert cart.live_version == first


def test_a_lock_is_shortened_and_ended_by_who_set_it_and_made_longer_by_anybody(cart, people):
    lock(cart, people["buyer"])

    with pytest.raises(AudienceRefused, match="Buyer set this test: it may be made longer, not shorter"):
        lock(cart, people["marketer"], 2)
    with pytest.raises(AudienceRefused, match="only Buyer ends this test"):
        locks.end_lock(actor=people["marketer"], audience=cart)
    lock(cart, people["marketer"], 9)
    lock(cart, people["buyer"], 2)
    locks.end_lock(actor=people["buyer"], audience=cart)

    assert locks.current(cart) is None
    verbs = AuditEntry.objects.filter(verb__startswith="audience.test").order_by("pk").values_list("verb", flat=True)
    assert list(verbs) == ["audience.test_locked", "audience.test_moved", "audience.test_moved", "audience.test_ended"]


def test_whose_lock_was_left_behind_may_be_ended_by_anybody(cart, people):
    lock(cart, people["buyer"])
    User.objects.filter(pk=people["buyer"].pk).update(is_active=False)

    locks.end_lock(actor=people["marketer"], audience=cart)

    assert locks.current(cart) is None


def test_breaking_needs_a_reason_and_shows_it_where_the_audience_is_read(cart, people):
    lock(cart, people["buyer"])
    with pytest.raises(AudienceRefused, match="reason: say why"):
        locks.break_lock(actor=people["admin"], audience=cart, reason="  ")

    answer = as_(people, "admin").post("/audiences/cart/test/break/", {"reason": "Legal asked <b>today</b>"})

    assert answer.status_code == 302
    assert locks.current(cart) is None
    for address in ("/audiences/cart/versions/", "/audiences/cart/versions/1/", "/audiences/cart/test/"):
        page = text(as_(people, "buyer").get(address))
        assert "The test lock was broken" in page
        assert "Legal asked &lt;b&gt;today&lt;/b&gt;" in page
    assert AuditEntry.objects.get(verb="audience.test_broken").reason == "Legal asked <b>today</b>"


def test_many_locks_are_read_in_one_question(cart, people, django_assert_num_queries):
    other = filled.audience("other", filled.BUYERS, people["marketer"])
    lock(cart, people["buyer"])

    with django_assert_num_queries(1):
        found = locks.locked_among([cart.pk, other.pk])
        assert {pk: str(held.set_by) for pk, held in found.items()} == {cart.pk: "Buyer"}


@pytest.mark.parametrize(
    ("day", "words"),
    [
        (-1, "It must be in the future."),
        (181, "It must be at most 180 days from now."),
        ("9999-12-31", "It must be at most 180 days from now."),
        ("tomorrow", "Enter a valid date."),
        ("", "This field is required."),
    ],
)
def test_a_day_that_cannot_be_is_refused_beside_its_field(cart, people, day, words):
    until = in_days(day).date().isoformat() if isinstance(day, int) else day

    answer = as_(people, "marketer").post("/audiences/cart/test/set/", {"until": until, "note": "x"})

    assert answer.status_code == 422
    assert words in text(answer)
    assert locks.current(cart) is None


def test_a_day_ends_where_the_reader_is(cart, people):
    User.objects.filter(pk=people["buyer"].pk).update(timezone="America/New_York")
    day = in_days(10).date()

    as_(people, "buyer").post("/audiences/cart/test/set/", {"until": day.isoformat(), "note": ""})

    assert locks.current(cart).until.hour in (4, 5)  # midnight in New York
    page = text(as_(people, "buyer").get("/audiences/cart/test/"))
    assert f'value="{day.isoformat()}"' in page
    assert "midnight in America/New York" in page


@pytest.mark.parametrize(
    ("role", "deed", "status"),
    [
        ("operator", "set", 403),
        ("operator", "end", 403),
        ("buyer", "break", 403),
        ("marketer", "break", 403),
        ("buyer", "set", 302),
        ("admin", "break", 302),
    ],
)
def test_who_may_lock_and_who_may_break(cart, people, role, deed, status):
    if deed != "set":
        lock(cart, people["buyer"])
    fields = {"until": in_days(3).date().isoformat(), "note": "", "reason": "because"}

    assert as_(people, role).post(f"/audiences/cart/test/{deed}/", fields).status_code == status
    assert as_(people, role).get("/audiences/cart/test/").status_code == 200


def test_the_page_of_a_draft_offers_to_wait_and_to_stop_waiting(cart, people):
    lock(cart, people["buyer"])
    made, client = draft(cart, people["marketer"]), as_(people, "marketer")
    page = text(client.get("/audiences/cart/versions/2/"))
    assert "Publish when the test ends" in page
    assert "In test until" in page

    fields = {"reason": "after the test", "sha256": made.sha256}
    refused = client.post("/audiences/cart/versions/2/publish/", fields)
    assert refused.status_code == 422
    assert "In test until" in text(refused)
    assert "after the test" in text(refused)  # what was typed is still there
    client.post("/audiences/cart/versions/2/publish/", {**fields, "when": "free"})
    assert "It waits for the end of the test" in text(client.get("/audiences/cart/versions/2/"))
    assert "v2</a> is published when it ends" in text(client.get("/audiences/cart/test/"))

    client.post("/audiences/cart/versions/2/stop-waiting/")
    made.refresh_from_db()
    assert (made.state, made.publish_at) == ("draft", None)
