"""The audit trail as a page: found by words, person, kind, deed and day; what was before and after; and that every service leaves a line."""

import inspect
import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from audiences import activity
from audiences.models import AuditEntry, Replacement, User, frozen
from audiences.services import (
    api_keys,
    audiences,
    lists,
    locks,
    naming,
    replacements,
    reviews,
    trail,
    users,
    versions,
    workspace,
)
from tests import filled
from tests.audiences.people_in import identify
from tests.filled import as_

pytestmark = pytest.mark.django_db


@pytest.fixture
def people():
    return filled.users()


def text(response):
    return response.content.decode()


def found(client, **wanted):
    return [line.entry.object_key for line in client.get("/activity/", wanted).context["lines"]]


@pytest.fixture
def lines(people):
    """Three lines: a name, owners, a connection that went live."""
    trail.record(people["marketer"], "audience.changed", "audience", "cart", before={"name": "A"}, after={"name": "B"}, reason="Clearer for buyers")  # fmt: skip
    trail.record(people["admin"], "audience.changed", "audience", "vip", before={"sync_owner": None}, after={"sync_owner": "operator@example.com"})  # fmt: skip
    trail.record(
        None, "mapping.live", "mapping", "cart → meta_main", before={"state": "rehearsal"}, after={"state": "live"}
    )
    return AuditEntry.objects.count()


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({}, ["cart → meta_main", "vip", "cart"]),
        ({"q": "cart"}, ["cart → meta_main", "cart"]),
        ({"q": "clearer BUYERS"}, ["cart"]),
        ({"q": "owners changed"}, ["vip"]),
        ({"q": "went live"}, ["cart → meta_main"]),
        ({"q": "connection"}, ["cart → meta_main"]),
        ({"who": "system"}, ["cart → meta_main"]),
        ({"type": "audience", "who": "admin@example.com"}, ["vip"]),
        ({"type": "audience", "object": "cart"}, ["cart"]),
        ({"verb": "mapping.live"}, ["cart → meta_main"]),
        ({"q": "100%"}, []),
        ({"q": "' OR 1=1 --"}, []),
        ({"q": "a\0b"}, []),
        ({"from": "not-a-day", "to": "9999-12-31"}, ["cart → meta_main", "vip", "cart"]),
        ({"page": "999"}, ["cart → meta_main", "vip", "cart"]),
    ],
)
def test_lines_are_found(people, lines, wanted, keys):
    assert found(as_(people, "marketer"), **wanted) == keys


def test_days_are_the_readers(people, lines):
    User.objects.filter(pk=people["operator"].pk).update(timezone="Pacific/Auckland")
    client = as_(people, "operator")
    at = datetime.fromisoformat("2026-03-05T20:00:00+00:00")  # the sixth in Auckland
    with frozen.set_aside():
        AuditEntry.objects.filter(object_key="vip").update(at=at)

    assert found(client, **{"from": "2026-03-06", "to": "2026-03-06"}) == ["vip"]
    assert found(client, to="2026-03-05") == []
    assert "“From” is after “to”" in text(client.get("/activity/", {"from": "2026-03-07", "to": "2026-03-06"}))


def test_a_line_says_what_changed_in_words_and_leads_to_the_thing(people, lines):
    page = text(as_(people, "marketer").get("/activity/"))

    assert "<del>A</del> → <ins>B</ins>" in page
    assert "Owners changed" in page
    assert "<del>nothing</del> → <ins>operator@example.com</ins>" in page
    assert '<a class="mono" href="/audiences/cart/">cart</a>' in page
    assert "“Clearer for buyers”" in page


def test_moments_in_a_line_are_the_readers(people):
    User.objects.filter(pk=people["operator"].pk).update(timezone="Pacific/Auckland")
    trail.record(None, "audience.test_locked", "audience", "cart", after={"until": "2026-03-05T20:00:00.123456+00:00"})

    assert "Fri 6 Mar 2026, 09:00 NZDT" in text(as_(people, "operator").get("/activity/"))


def test_hostile_words_are_shown_and_never_run(people):
    hostile = "<img src=x onerror=alert(1)>\u202e'\"" + "x" * 10_000
    trail.record(None, "no.such_verb", "thing", hostile[:200], before=hostile, after={"<b>": [hostile], "deep": {"a": [1]}}, reason=hostile)  # fmt: skip

    page = text(as_(people, "admin").get("/activity/"))

    assert "<img src=x" not in page
    assert "No such verb" in page
    assert "As kept" in page  # what was cut can be read whole


def test_many_lines_come_page_by_page_with_their_filters(people):
    for number in range(60):
        trail.record(None, "list.changed", "list", f"list {number}")
    client = as_(people, "admin")

    first = client.get("/activity/", {"type": "list"})
    assert len(first.context["lines"]) == 50
    assert "type=list" in text(first)
    assert len(client.get("/activity/", {"type": "list", "page": 2}).context["lines"]) == 10


def test_the_page_asks_a_fixed_number_of_questions(people, lines, django_assert_max_num_queries):
    client = as_(people, "marketer")
    for number in range(40):
        trail.record(people["admin"], "audience.changed", "audience", f"key_{number}", after={"name": "x"})
    with django_assert_max_num_queries(9):
        client.get("/activity/?q=key")


def test_nothing_on_record_and_nothing_found_are_two_things(people):
    client = as_(people, "admin")

    assert "Nothing on record yet" in text(client.get("/activity/"))
    assert "Nothing on record matches" in text(client.get("/activity/?q=zebra"))


def test_buyers_do_not_read_it_and_get_no_link_to_it(people):
    cart = filled.audience("cart", None, people["marketer"])

    assert as_(people, "buyer").get("/activity/").status_code == 403
    assert "All activity" not in text(as_(people, "buyer").get(f"/audiences/{cart.key}/"))
    assert f"/activity/?type=audience&amp;object={cart.key}" in text(
        as_(people, "marketer").get(f"/audiences/{cart.key}/")
    )


def test_users_settings_and_destinations_show_what_was_done_to_them():
    world = filled.fill()
    client = as_(world.users, "admin")
    users.change_role(actor=world.users["admin"], user=world.users["buyer"], role="marketer")
    trail.record(None, "destination.changed", "destination", "meta_main", after={"name": "x"})
    workspace.change(actor=world.users["admin"], name="Harbour")

    assert "Role changed: marketer" in text(client.get("/settings/users/"))
    assert "Settings changed" in text(client.get("/settings/"))
    assert "Settings changed" in text(client.get("/destinations/meta_main/"))


# ---- every service leaves a line ----


def _services():
    """Functions of the services that take an actor, but for those that pass it on or concern nobody else."""
    passed_on = {"follow", "find_or_invite", "publish_due", "stop_others", "publishable", "left_in_review", "make_live"}
    for module in (api_keys, audiences, lists, locks, naming, replacements, reviews, users, versions, workspace):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            own = function.__module__ == module.__name__ and not name.startswith("_")
            if own and name not in passed_on and "actor" in inspect.signature(function).parameters:
                yield f"{module.__name__.rpartition('.')[2]}.{name}"


def _does_something(people):
    """Service → something that changes something, in an order in which each finds what it needs."""
    owner = people["marketer"]
    three = dict.fromkeys(("definition_owner", "sync_owner", "alert_owner"), owner)
    tree = {"attribute": "country", "op": "is", "value": "DE"}
    made, kept = {}, lists.make("staff", "Staff", None)

    def cart():
        return audiences.Audience.objects.get(key="cart")

    def versioned(rule):
        return versions.save_draft(actor=owner, audience=cart(), segment=rule)

    def until(days):
        return timezone.now() + timedelta(days=days)

    def back():
        first = cart().versions.order_by("number").first()
        return versions.go_back(actor=owner, version=first, reason="x")

    def newest():
        return cart().versions.order_by("number").last()

    def ask():
        return reviews.ask(actor=owner, version=versioned({"not": tree}), reason="x", impact=None)

    return {
        "api_keys.create": lambda: made.update(key=api_keys.create("k", actor=owner)),
        "api_keys.revoke": lambda: api_keys.revoke(api_keys.ApiKey.objects.get(), actor=owner),
        "audiences.create": lambda: audiences.create(actor=owner, key="cart", purpose="retargeting"),
        "audiences.change": lambda: audiences.change(actor=owner, audience=cart(), description="x"),
        "audiences.rename": lambda: audiences.rename(actor=owner, audience=cart(), name="Cart"),
        "audiences.set_owners": lambda: audiences.set_owners(actor=owner, audience=cart(), **three),
        "versions.save_draft": lambda: versioned(tree),
        "versions.publish": lambda: versions.publish(actor=owner, version=cart().versions.get(), reason="x"),
        "audiences.ask_refresh": lambda: audiences.ask_refresh(actor=owner, audience=cart()),
        "locks.set_lock": lambda: locks.set_lock(actor=owner, audience=cart(), until=until(5), note=""),
        "versions.publish_when_free": lambda: versions.publish_when_free(actor=owner, version=versioned({"not": tree}), reason="x"),
        "versions.stop_waiting": lambda: versions.stop_waiting(actor=owner, version=cart().versions.get(number=2)),
        "locks.end_lock": lambda: locks.end_lock(actor=owner, audience=cart()),
        "locks.break_lock": lambda: (
            locks.set_lock(actor=owner, audience=cart(), until=until(5), note=""),
            locks.break_lock(actor=owner, audience=cart(), reason="x"),
        ),
        "versions.discard": lambda: versions.discard(actor=owner, version=cart().versions.get(number=2)),
        "versions.go_back": lambda: (versions.publish(actor=owner, version=versioned({"not": tree}), reason="x"), back()),
        "reviews.ask": lambda: ask(),
        "reviews.withdraw": lambda: reviews.withdraw(actor=owner, version=newest()),
        "reviews.send_back": lambda: (ask(), reviews.send_back(actor=people["admin"], version=newest(), words="x")),
        "reviews.approve": lambda: reviews.approve(
            actor=people["admin"], version=newest(), typed=cart().name, words="x", impact=None, saw=None
        ),
        "reviews.take_back": lambda: reviews.take_back(actor=owner, audience=cart(), seen=newest().number),
        "replacements.publish": lambda: replacements.publish(
            actor=owner, version=versioned({"not": {"not": tree}}), reason="x", retires_at=until(9)
        ),
        "replacements.move": lambda: replacements.move(
            actor=owner, replacement=Replacement.objects.get(), retires_at=until(8)
        ),
        "replacements.keep": lambda: replacements.keep(actor=owner, replacement=Replacement.objects.get(), reason="x"),
        "audiences.hand_over": lambda: audiences.hand_over(
            actor=owner, leaving=owner, successors={(cart().pk, "sync_owner"): people["admin"]}
        ),
        "audiences.set_excluded_by": lambda: (
            audiences.create(actor=None, key="out", purpose="suppression"),
            audiences.set_excluded_by(actor=owner, audience=cart(), suppressions=[_out()]),
        ),
        "audiences.unlink_suppression": lambda: audiences.unlink_suppression(actor=owner, audience=cart(), suppression=_out()),
        "audiences.link_suppression": lambda: audiences.link_suppression(actor=owner, audience=cart(), suppression=_out()),
        "audiences.archive": lambda: audiences.archive(actor=owner, audience=cart(), reason="x"),
        "lists.make": lambda: lists.make("other", "Other", owner),
        "lists.change": lambda: lists.change(kept, owner, add=[1]),
        "lists.describe": lambda: lists.describe(kept, owner, name="Team"),
        "naming.adopt_starter": lambda: naming.adopt_starter(actor=owner),
        "naming.change": lambda: naming.change(actor=owner, convention=_dashed()),
        "naming.name_freely": lambda: naming.name_freely(actor=owner, audience=_out(), name="Free", name_reason="x"),
        "naming.rename_by_convention": None,  # tests/audiences/test_naming_service.py
        "naming.follow_version": None,
        "users.invite": lambda: users.invite(actor=owner, email="new@example.com", role="buyer"),
        "users.change_role": lambda: users.change_role(actor=owner, user=_new(), role="marketer"),
        "users.describe": lambda: users.describe(actor=_new(), user=_new(), name="Neu", timezone="", single_keys=True),
        "users.deactivate": lambda: users.deactivate(actor=owner, user=_new()),
        "users.reactivate": lambda: users.reactivate(actor=owner, user=_new()),
        "workspace.change": lambda: workspace.change(actor=owner, name="Anew"),
    }  # fmt: skip


def _out():
    return audiences.Audience.objects.get(key="out")


def _new():
    return User.objects.get(email="new@example.com")


def _dashed():
    return replace(naming.current(), separator="-")


def test_every_service_that_takes_an_actor_leaves_a_line_of_it(people):
    identify("anna", country="DE")
    deeds = _does_something(people)
    assert set(_services()) == set(deeds), "say in this test what a new service does"

    for name, do in deeds.items():
        if do is None:
            continue
        before = AuditEntry.objects.count()
        do()
        assert AuditEntry.objects.count() > before, f"{name} left no line"


def test_verbs_have_words():
    """Whatever the code records can be read by people."""
    root = Path(__file__).parents[2]
    used: set[str] = set()
    for floor in ("audiences", "destinations", "qa"):
        for file in (root / floor).rglob("*.py"):
            used |= set(re.findall(r'trail\.record\(\s*[\w.()]+,\s*"([a-z_]+\.[a-z_]+)"', file.read_text()))
    assert len(used) > 30
    assert {verb for verb in used if verb not in activity.DEEDS} == set()
