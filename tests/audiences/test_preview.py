"""The live preview: what it says, on which data, that only what was asked last is counted, and what becomes of a count that takes long."""

import html
import re
import threading
import time

import pytest
from django.test import Client

from audiences import access, jobs, preview
from audiences.models import Audience, Identity, Pin, Preview, Profile, ProfileChange
from audiences.people import engines
from audiences.people.engines.base import Stop, Stopped, UnreadableLake
from audiences.people.engines.duckdb import DuckDB
from audiences.segments import grammar, outline
from audiences.segments.leaves import Statement
from audiences.services import previews, refreshes, versions
from audiences.services.previews import LATE, NEWER
from tests import filled
from tests.audiences.people_in import identify, number, track, until_counted

pytestmark = pytest.mark.django_db
# Where data changes between two counts: what one transaction writes is one moment to PostgreSQL.
committed = pytest.mark.django_db(transaction=True)
CART = {"event": "add_to_cart", "count": {"at_least": 1}, "within": "24h"}
NO_PURCHASE = {"event": "purchase", "count": {"exactly": 0}, "within": "3d"}
GERMAN = {"attribute": "country", "op": "is", "value": "DE"}
EVENTFUL = {"all": [CART, NO_PURCHASE, GERMAN, {"event": "product_view", "count": {"at_least": 1}}]}


@pytest.fixture
def world():
    return filled.fill()


@pytest.fixture
def client(world):
    return signed_in(world, "marketer")


def signed_in(world, role):
    client = Client()
    client.force_login(world.users[role])
    return client


def draft(world, segment, audience=None):
    return versions.save_draft(actor=world.users["marketer"], audience=audience or world.cart, segment=segment)


def url(world):
    return f"/audiences/{world.cart.key}/preview/"


def shown(response, status=200):
    """The words of the answer."""
    assert response.status_code == status, response.content[:500]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


def htmx(client, address, **post):
    return client.post(address, post, headers={"HX-Request": "true"})


def answer(world, segment, audience=None):
    tree, audience = grammar.parse(segment), audience or world.cart
    question = previews.ask(actor=world.users["marketer"], audience=audience, tree=tree)
    return preview.answer(question, audience, tree, people=True)


@pytest.fixture
def statements(monkeypatch):
    """Every statement that the engine asks about leaves, as it is asked; `hooks` run before each."""
    asked, hooks, own = [], [], DuckDB._rows

    def noted(self, statement, **given):
        for hook in hooks:
            hook()
        asked.append(statement.sql)
        return own(self, statement, **given)

    monkeypatch.setattr(DuckDB, "_rows", noted)
    return asked, hooks


@committed
def test_the_size_is_exact_and_stands_beside_the_live_version_counted_on_the_same_data(world):
    track("bob", "add_to_cart")
    identify("cem", email="cem@shop.example", country="DE")
    track("cem", "add_to_cart")  # since the last count, whose one member is ann
    until_counted()
    found = answer(world, {"all": [CART, {"not": {"event": "page_view", "count": {"at_least": 1}}}]})
    assert (found.people, found.of) == (3, 3)
    assert (found.change.number, found.change.people, found.change.plus, found.change.minus) == (1, 2, 1, 0)
    narrower = answer(world, {"all": [*filled.CART["all"], GERMAN, {"attribute": "tier", "op": "is", "value": "gold"}]})
    assert (narrower.people, narrower.change.plus, narrower.change.minus) == (1, 0, 1)


def test_every_rule_and_group_has_the_people_that_it_finds_alone(world):
    found = answer(world, {"all": [CART, {"any": [GERMAN, {"not": CART}]}, {"not": {"all": [CART, GERMAN]}}]})
    assert [(part.path, part.depth, part.people) for part in found.parts] == [
        ("", 0, 0),
        ("all[0]", 1, 2),
        ("all[1]", 1, 1),
        ("all[1].any[0]", 2, 1),
        ("all[1].any[1]", 2, 0),
        ("all[2]", 1, 1),
        ("all[2].not.all[0]", 2, 2),
        ("all[2].not.all[1]", 2, 1),
    ]
    words = [part.words for part in found.parts]
    assert words[0] == "All of these"
    assert words[2] == "At least one of these"
    assert words[5] == "Not all of these together"
    assert words[4] == "Did not do “add_to_cart” in the last 24 hours"
    assert max(part.width for part in found.parts) == 100


def test_where_nobody_is_in_it_the_rule_that_matches_nobody_is_named_or_that_there_is_none(world, client):
    draft(world, {"all": [CART, {"event": "purchase", "count": {"at_least": 7}}]})
    assert "nobody matches one of its rules: Did “purchase” at least 7 times at any time ." in shown(
        client.post(url(world))
    )
    draft(world, {"all": [CART, {"not": CART}, {"event": "purchase", "count": {"at_least": 1}}]})
    assert "nobody matches one of its rules: Did not do “add_to_cart” in the last 24 hours ." in shown(
        client.post(url(world))
    )
    draft(world, {"all": [GERMAN, {"event": "purchase", "count": {"at_least": 1}}]})
    assert "Nobody is in it, though each rule has people" in shown(client.post(url(world)))


@committed
def test_reach_counts_who_carries_each_identifier_now_and_nobody_whose_identifier_was_replaced(world):
    identify("dan", email="dan@shop.example")
    identify("dan", email="")
    until_counted()
    found = answer(world, {"not": {"attribute": "tier", "op": "is", "value": "lead"}})
    people = found.people
    assert people == 3
    reach = {part.words: part.people for part in found.reach}
    in_force = Identity.objects.filter(replaced_at=None)
    assert reach == {
        "E-mail": in_force.exclude(email="").count(),
        "Phone": in_force.exclude(phone="").count(),
        "Own id": in_force.exclude(external_id="").count(),
    }
    assert reach["Phone"] == 1


def test_the_people_shown_are_masked_and_only_for_roles_that_may_see_people(world, client, monkeypatch):
    draft(world, CART)
    page = client.post(url(world)).content.decode()
    assert f"/people/{number('ann')}/" in page
    assert "a•••@s•••.example" in page
    assert "ann@shop.example" not in page
    assert "+4915112345678" not in page
    monkeypatch.setitem(access.PERMISSIONS, "person.view", frozenset({"admin"}))
    page = client.post(url(world)).content.decode()
    assert "Finds" in page
    assert "/people/" not in re.sub(r'<nav class="rail".*?</nav>', "", page, flags=re.DOTALL)
    assert "•••" not in page


def test_who_has_been_removed_since_the_data_was_fixed_is_not_shown(world):
    assert {one.profile_no for one in answer(world, CART).sample} == {number("ann"), number("bob")}
    ann = number("ann")
    Profile.objects.filter(pk=ann).update(state=Profile.State.ERASED)
    assert ann not in {one.profile_no for one in answer(world, CART).sample}


def test_overlap_names_the_counted_audiences_that_share_most_with_it_and_never_itself(world):
    both = filled.audience("carts", CART, world.users["marketer"])
    refreshes.refresh([both], cause="manual")
    found = answer(world, CART).overlaps
    assert [(one.key, one.people, one.share) for one in found] == [("carts", 2, 1.0), ("meta_buyers_7d", 1, 0.5)]


@committed
def test_the_data_stays_the_same_until_it_is_recounted(world, client):
    draft(world, CART)
    first = htmx(client, url(world))
    assert "Finds 2 of 2 people" in shown(first)
    pin = Preview.objects.get().pin
    track("new", "add_to_cart")
    identify("new", email="new@shop.example")
    until_counted()
    assert "Finds 2 of 2 people" in shown(htmx(client, url(world)))
    assert Preview.objects.get().pin == pin
    asked = Preview.objects.get().asked
    again = shown(htmx(client, url(world), asked=asked, recount="1"))
    assert "Finds 3 of 3 people" in again
    assert Preview.objects.get().pin != pin
    assert not Pin.objects.filter(pk=pin.pk).exists(), "what nobody counts on any more is let go"
    assert "Finds 3 of 3 people" in shown(htmx(client, url(world)))


@committed
def test_each_person_has_data_of_their_own(world, client):
    draft(world, CART)
    client.post(url(world))
    track("new", "add_to_cart")
    identify("new", email="new@shop.example")
    until_counted()
    assert "Finds 3 of 3 people" in shown(signed_in(world, "admin").post(url(world)))
    assert "Finds 2 of 2 people" in shown(client.post(url(world)))


def test_after_a_change_of_one_rule_only_that_rule_is_asked(world, statements):
    asked, _ = statements
    answer(world, EVENTFUL)
    first = len(asked)
    assert first >= 4
    answer(world, {"all": [*EVENTFUL["all"][:3], {"event": "product_view", "count": {"at_least": 2}}]})
    assert len(asked) == first + 1
    answer(world, EVENTFUL)
    assert len(asked) == first + 1, "what was asked before is remembered"


def test_an_older_count_asks_no_more_leaves_once_a_newer_question_is_there(world, statements):
    asked, hooks = statements
    newer = grammar.parse(CART)

    def edited_meanwhile():
        if len(asked) == 2:  # two are asked, and then somebody types
            hooks.clear()
            previews.ask(actor=world.users["marketer"], audience=world.cart, tree=newer)

    hooks.append(edited_meanwhile)
    with pytest.raises(Stopped, match=NEWER):
        answer(world, {"all": [{"event": name, "count": {"at_least": 3}} for name in ("a", "b", "c", "d", "e", "f")]})
    assert len(asked) <= 3, "of eight it asks no other than the one it was at"


def test_another_process_hears_of_a_newer_question_before_its_next_statement(world, statements):
    asked, hooks = statements
    hooks.append(lambda: len(asked) == 2 and Preview.objects.update(asked=99))  # no word of it in this process
    with pytest.raises(Stopped, match=NEWER):
        answer(world, {"all": [{"event": name, "count": {"at_least": 3}} for name in ("a", "b", "c", "d", "e", "f")]})
    assert len(asked) == 3


def test_a_statement_under_way_is_interrupted():
    stop, engine = Stop(), engines.current()
    endless = Statement("SELECT count(*) AS n FROM range(1000000000000) AS t(i) WHERE hash(i) % 7 = 3", {})
    threading.Timer(0.3, stop.now, [NEWER]).start()
    begun = time.monotonic()
    with pytest.raises(Stopped, match=NEWER), stop.after(60, LATE):
        list(engine._rows(endless, stop=stop))
    with pytest.raises(Stopped, match=LATE), (late := Stop()).after(0.3, LATE):
        list(engine._rows(endless, stop=late))
    assert time.monotonic() - begun < 30


def test_a_newer_edit_cancels_the_older_count_and_is_itself_answered(world, client, statements):
    asked, hooks = statements
    several = {
        "all": [{**CART, "within": "9d"}, NO_PURCHASE, GERMAN, {"event": "*", "count": {"at_least": 1}, "within": "3d"}]
    }
    older, newer = (outline.form_of(outline.of_tree(grammar.parse(rule))) for rule in (several, CART))
    answers = []

    def edited_meanwhile():
        if len(asked) == 1:
            hooks.clear()
            answers.append((htmx(client, url(world), **newer), len(asked)))

    hooks.append(edited_meanwhile)
    overtaken = htmx(client, url(world), **older)
    [(answered, so_many)] = answers
    assert overtaken.status_code == 204
    assert overtaken.content == b""
    assert "Finds 2 of 2 people" in shown(answered)
    assert len(asked) == so_many + 1, "the older one ends the statement that it was at, and asks no other"


def test_what_takes_long_goes_on_in_the_background_and_is_shown_when_it_is_there(world, client, monkeypatch):
    draft(world, CART)
    own = DuckDB.members

    def slowly(self, leaves, pin, stop=None):
        time.sleep(0.2)
        return own(self, leaves, pin, stop)

    with monkeypatch.context() as slow:
        slow.setattr(preview, "PATIENCE", 0.05)
        slow.setattr(DuckDB, "members", slowly)
        words = shown(htmx(client, url(world)))
        assert "Taking longer; it runs in the background" in words
        assert "Finds" not in words
        row = Preview.objects.get()
        assert row.in_background
        assert "Taking longer" in shown(htmx(client, url(world), asked=row.asked, look="1")), "it is not counted here"
    jobs.run_due_here(["compute"])
    row.refresh_from_db()
    assert not row.in_background
    found = htmx(client, url(world), asked=row.asked, look="by-itself")
    assert "Finds 2 of 2 people" in shown(found)
    assert "load delay" not in found.content.decode(), "and it is not asked for again"


def test_the_background_gives_up_what_a_newer_question_has_replaced(world, statements):
    asked, _ = statements
    tree = grammar.parse(EVENTFUL)
    previews.hand_over(previews.ask(actor=world.users["marketer"], audience=world.cart, tree=tree))
    previews.ask(actor=world.users["marketer"], audience=world.cart, tree=tree)
    jobs.run_due_here(["compute"])
    assert asked == []


def test_looking_by_itself_for_what_is_not_the_newest_question_gets_no_answer(world, client):
    draft(world, CART)
    client.post(url(world))
    for forged in ("0", "99", "x", "", "1" * 400):
        assert htmx(client, url(world), asked=forged, look="by-itself").status_code == 204


def test_a_button_of_an_older_window_counts_what_is_stored_now(world, client):
    draft(world, CART)
    client.post(url(world))
    draft(world, GERMAN)
    for button in ("look", "recount"):
        assert "Finds 1 of 2 people" in shown(htmx(client, url(world), asked="0", **{button: "1"}))


def test_data_that_nobody_has_held_on_to_is_said_to_be_gone_and_recount_brings_it_back(world, client):
    draft(world, CART)
    client.post(url(world))
    Pin.objects.all().delete()
    asked = Preview.objects.get().asked
    assert "has been let go. Press Recount." in shown(htmx(client, url(world), asked=asked, look="by-itself"))
    assert "Finds 2 of 2 people" in shown(htmx(client, url(world), asked=asked, recount="1"))


def test_an_unreadable_history_is_said_in_words_with_what_to_do(world, client, monkeypatch):
    draft(world, CART)

    def unreadable(*_, **__):
        raise UnreadableLake("a file was missing 3 times")

    monkeypatch.setattr(DuckDB, "members", unreadable)
    words = shown(htmx(client, url(world)))
    assert "Files of the event history could not be read. Press Recount" in words
    assert "Finds" not in words


def test_a_rule_that_names_what_nobody_has_seen_is_not_counted_as_nobody(world, client):
    draft(world, {"event": "purchse", "count": {"at_least": 1}})
    words = shown(htmx(client, url(world)))
    assert 'no event "purchse" is known; nearest: "purchase"' in words
    assert "Finds" not in words


def test_a_live_version_that_cannot_be_counted_is_not_known_rather_than_nobody(world):
    other = filled.audience("other", CART, world.users["marketer"])
    refers = filled.audience("refers", {"all": [CART, {"audience": "other"}]}, world.users["marketer"])
    assert answer(world, CART, refers).change.people == 2
    Audience.objects.filter(pk=other.pk).update(live_version=None)
    change = answer(world, CART, refers).change
    assert (change.people, change.plus, change.minus) == (None, None, None)
    assert "no live audience with the key" in change.trouble


def test_an_audience_in_a_rule_is_counted_by_its_own_rule(world):
    found = answer(world, {"all": [CART, {"not": {"audience": "meta_buyers_7d"}}]})
    assert found.people == 1
    assert [part.people for part in found.parts] == [1, 2, 1]


@committed
def test_an_empty_store_says_so_instead_of_nobody(client, world):
    draft(world, CART)
    Profile.objects.update(state=Profile.State.ERASED)
    ProfileChange.objects.bulk_create(
        ProfileChange(profile_no=pk) for pk in Profile.objects.values_list("pk", flat=True)
    )
    until_counted()
    words = shown(client.post(url(world)))
    assert "No people yet" in words
    assert "Finds 0" not in words


def test_the_page_alone_counts_nothing_and_offers_to(world, client, statements):
    asked, _ = statements
    draft(world, CART)
    page = client.get(url(world))
    assert "Count the people" in shown(page)
    assert asked == []
    assert not Preview.objects.exists()
    assert "Finds" in shown(client.post(url(world)))


def test_an_audience_without_any_rule_says_what_comes_next(world, client):
    words = shown(client.post(f"/audiences/{world.draft.key}/preview/"))
    assert "Once a rule is complete you see here whom it finds." in words


def test_the_rule_in_the_form_is_counted_before_it_is_saved(world, client):
    draft(world, GERMAN)
    form = outline.form_of(outline.of_tree(grammar.parse(CART)))
    assert "Finds 2 of 2 people" in shown(htmx(client, url(world), **form))
    assert "Finds 1 of 2 people" in shown(htmx(client, url(world)))
    unfinished = {**form, "rule-0.event": ""}
    words = shown(htmx(client, url(world), **unfinished))
    assert "Not counted yet: the rule is not finished." in words
    assert "Finds" not in words


def test_whatever_is_posted_gets_an_answer(world, client):
    hostile = "<img src=x onerror=alert(1)>\u202e'\"" + "x" * 10_000
    for form in (
        {"rule.kind": hostile},
        {
            "rule.kind": "all",
            "rule-0.kind": "event",
            "rule-0.event": hostile,
            "rule-0.times": "at_least",
            "rule-0.n": "9" * 500,
        },
        {
            "rule.kind": "any",
            "rule-0.kind": "attribute",
            "rule-0.name": "tier",
            "rule-0.op": "gte",
            "rule-0.value": hostile,
        },
        {"rule.kind": "all", "rule.nots": "-1"},
        {"rule.kind": "all", "rule-0.kind": "audience", "rule-0.key": world.cart.key},
        {f"rule{'-0' * depth}.kind": "all" for depth in range(60)},
    ):
        page = htmx(client, url(world), **form)
        assert page.status_code == 200
        assert "<img" not in page.content.decode()
        assert "Finds" not in page.content.decode()


def test_a_first_version_has_nothing_to_be_compared_with(world, client):
    draft(world, CART, world.draft)
    words = shown(client.post(f"/audiences/{world.draft.key}/preview/"))
    assert "Finds 2 of 2 people" in words
    assert "Against" not in words


def test_only_roles_that_edit_may_ask(world):
    for role, status in (("buyer", 403), ("operator", 403), ("admin", 200)):
        assert signed_in(world, role).post(url(world)).status_code == status
