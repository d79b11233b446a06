"""The audience on the platform itself: seen to be renamed or deleted there, made anew only by a person, and described in our words."""

from datetime import timedelta

import pytest
from django.utils import timezone
from pyroaring import BitMap

from audiences import jobs
from audiences.models import Audience, AuditEntry, Identity, User
from audiences.segments import grammar
from audiences.services import naming as service
from destinations import fastlane, leases, ledger, placements, remote_descriptions, remotes, tasks, urgent
from destinations.connectors import registry
from destinations.models import Mapping, Operation, Rejection, Removal
from destinations.services import Refused, destinations, erasures, mappings, runs
from tests.audiences.people_in import identify, track
from tests.destinations import scene
from tests.destinations.scene import hashes

pytestmark = pytest.mark.django_db(transaction=True)
LATER = timedelta(hours=1, minutes=1)


def person(*ids: str, **attributes) -> None:
    for id in ids:
        identify(id, **{"email": f"{id}@example.com", "in": "yes", **attributes})


@pytest.fixture
def cart(sandbox, account_number) -> scene.Scene:
    """A live connection to a Meta-shaped account, with two people there."""
    scene.workspace()
    person("anna", "bert")
    track("zoe", "purchase")
    live = scene.live(sandbox, account_number, scene.audience("cart", scene.NO_PURCHASE))
    live.sync()
    return live


def fresh(live: scene.Scene) -> Mapping:
    live.mapping = Mapping.objects.select_related("audience__live_version", "destination").get(pk=live.mapping.pk)
    return live.mapping


def an_hour_later(live: scene.Scene) -> None:
    """What the worker does of its own accord: it finds what it has not looked at for an hour, and looks."""
    Mapping.objects.filter(pk=live.mapping.pk).update(seen_at=timezone.now() - LATER)
    jobs.ask("destinations.look", "", queue="sync")
    jobs.run_due_here(["sync"], rounds=3)


def trail(verb: str) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(verb=verb).order_by("pk"))


# --- Deleted there.


def test_a_deletion_is_seen_by_a_look_though_there_is_nobody_to_send(cart):
    cart.sandbox.delete_audience("meta", fresh(cart).remote_id)
    an_hour_later(cart)
    mapping = fresh(cart)
    assert (mapping.lost, mapping.state) == ("gone", "live")
    assert mapping.lost_at is not None and "no such audience" in mapping.blocked_reason
    [line] = trail("mapping.lost")
    assert (line.object_key, line.after["lost"]) == (f"cart → {mapping.destination.key}", "gone")
    an_hour_later(cart)
    assert len(trail("mapping.lost")) == 1
    assert fresh(cart).lost_at == mapping.lost_at  # since when, not when last


@pytest.mark.parametrize("kind", ["meta", "google", "openlist"])
def test_after_a_404_nothing_but_a_question_is_called_until_it_is_seen_again(sandbox, account_number, kind):
    scene.workspace()
    person("anna", "bert")
    track("zoe", "purchase")
    live = scene.live(sandbox, account_number, scene.audience("cart", scene.NO_PURCHASE), kind=kind)
    live.sync()
    remote_id = fresh(live).remote_id
    sandbox.dial("refuse", platform=kind, audience=remote_id, op="add", why="gone")
    person("carl")
    run = live.sync()
    assert run.state == "failed"
    assert fresh(live).lost == "gone"

    before = len(live.calls())
    person("dora")
    identify("anna", **{"in": "no"})
    with pytest.raises(Refused, match="is stopped"):
        runs.request(actor=None, mapping=fresh(live))
    with pytest.raises(Refused, match="Look again"):
        mappings.unblock(actor=None, mapping=fresh(live))
    destinations.change(actor=None, destination=fresh(live).destination, name="Another name")
    runs.perform(fresh(live))
    assert len(live.calls()) == before
    assert fresh(live).lost == "gone"

    assert mappings.look_again(actor=None, mapping=fresh(live)).lost == ""
    jobs.run_due_here(["sync"], rounds=3)
    assert live.sync().state == "done"
    assert live.calls()[before]["op"] == "describe"
    assert live.emails() == hashes("bert", "carl", "dora")
    assert len(live.calls("create")) == 1


def test_a_purchase_that_meets_a_404_is_the_last_call_and_is_made_good_in_the_new_one(cart):
    lane = fastlane.FastLane()
    lane.look()
    cart.sandbox.delete_audience("meta", fresh(cart).remote_id)
    track("anna", "purchase")
    assert lane.look()
    urgent.deliver(cart.mapping.destination_id)
    assert fresh(cart).lost == "gone"
    before = len(cart.sandbox.calls("meta"))
    track("bert", "purchase")
    lane.look()
    urgent.deliver(cart.mapping.destination_id)
    assert len(cart.sandbox.calls("meta")) == before
    person("carl")
    mappings.recreate(actor=None, mapping=fresh(cart))
    jobs.run_due_here(["sync"], rounds=3)
    assert cart.emails() == hashes("carl")


def test_one_that_comes_back_is_found_by_the_next_look_and_goes_on(cart):
    remote_id = fresh(cart).remote_id
    cart.sandbox.dial("refuse", audience=remote_id, op="describe", why="gone")
    an_hour_later(cart)
    assert fresh(cart).lost == "gone"
    an_hour_later(cart)
    assert (fresh(cart).lost, fresh(cart).blocked_reason) == ("", "")
    assert len(trail("mapping.found_again")) == 1


def test_a_refused_look_that_finds_nothing_says_so_and_changes_nothing(cart):
    cart.sandbox.delete_audience("meta", fresh(cart).remote_id)
    an_hour_later(cart)
    with pytest.raises(Refused, match="It is not there"):
        mappings.look_again(actor=None, mapping=fresh(cart))
    assert fresh(cart).lost == "gone"


def test_it_is_made_anew_only_by_a_person_and_everybody_is_sent_again(cart):
    person("carl")
    cart.sync()
    old = fresh(cart).remote_id
    cart.sandbox.delete_audience("meta", old)
    identify("bert", **{"in": "no"})
    assert cart.sync().state == "failed"
    assert len(cart.calls("create")) == 1

    operator = User.objects.get(email="operator@example.com")
    mappings.recreate(actor=operator, mapping=fresh(cart), reason="deleted by mistake")
    view = ledger.look(cart.mapping.pk, now=timezone.now())
    assert not (view.state.present or view.state.unknown or view.state.rejected)
    assert not Operation.objects.filter(open=True).exists()
    assert not Removal.objects.filter(accepted_at=None).exists()
    jobs.run_due_here(["sync"], rounds=3)

    mapping = fresh(cart)
    assert (mapping.lost, mapping.blocked_reason) == ("", "")
    assert mapping.remote_id not in ("", old)
    assert cart.emails() == hashes("anna", "carl")
    assert len(cart.calls("create")) == 2
    [line] = trail("mapping.recreated")
    assert (line.actor_label, line.reason) == ("operator@example.com", "deleted by mistake")
    assert line.before["remote_id"] == old
    with pytest.raises(Refused, match="not known to be deleted"):
        mappings.recreate(actor=operator, mapping=mapping)


def test_refused_people_are_tried_again_in_the_new_audience_and_a_late_answer_of_the_old_one_changes_nothing(cart):
    person("carl")
    cart.sandbox.dial("partial", platform="meta", account=cart.account, op="add", rows=[0])
    cart.sync()
    lease = leases.claim(cart.mapping.pk, leases.BULK, settle=timedelta(seconds=60), now=timezone.now())
    Mapping.objects.filter(pk=cart.mapping.pk).update(lost="gone", lost_at=timezone.now(), blocked_reason="gone")
    mappings.recreate(actor=None, mapping=fresh(cart))
    with pytest.raises(leases.LeaseLost):
        ledger.rebase(lease, BitMap(), refresh_id=None, change_seq=0, now=timezone.now())
    assert not Rejection.objects.filter(mapping=cart.mapping).exists()
    jobs.run_due_here(["sync"], rounds=3)
    assert cart.emails() == hashes("anna", "bert", "carl")


def test_one_that_is_gone_can_be_retired_and_keeps_nobodys_identifiers(cart):
    cart.sandbox.delete_audience("meta", fresh(cart).remote_id)
    an_hour_later(cart)
    before = len(cart.calls())
    mappings.retire(actor=None, mapping=fresh(cart))
    jobs.run_due_here(["sync"], rounds=3)
    assert runs.is_empty(fresh(cart))
    assert len(cart.calls()) == before
    assert fresh(cart).state == "retired"
    assert not any(told.held for told in erasures.books())  # so that nobody who is erased is kept for its sake
    assert Identity.objects.exists()


def test_one_that_is_deleted_while_it_is_emptied_has_ended(cart):
    mappings.retire(actor=None, mapping=fresh(cart))
    cart.sandbox.delete_audience("meta", fresh(cart).remote_id)
    run = cart.sync()
    assert run.state == "done"
    assert "gone there" in run.error
    assert runs.is_empty(fresh(cart))


def test_what_was_made_a_moment_ago_is_not_taken_for_deleted(sandbox, account_number):
    scene.workspace()
    person("anna")
    track("zoe", "purchase")
    live = scene.live(sandbox, account_number, scene.audience("cart", scene.NO_PURCHASE))
    sandbox.dial("refuse", platform="meta", account=account_number, op="add", why="gone")
    run = live.sync()
    assert run.state == "failed"
    assert "a moment ago" in run.error
    assert (fresh(live).lost, fresh(live).blocked_reason) == ("", "")
    assert live.sync().state == "done"
    assert live.emails() == hashes("anna")


def test_a_blocked_one_is_no_deleted_one_and_goes_on_when_it_is_allowed_again(cart):
    cart.sandbox.dial("refuse", audience=fresh(cart).remote_id, op="add", why="blocked")
    person("carl")
    cart.sync()
    assert fresh(cart).lost == "blocked"
    with pytest.raises(Refused, match="not known to be deleted"):
        mappings.recreate(actor=None, mapping=fresh(cart))
    an_hour_later(cart)
    assert fresh(cart).lost == ""
    assert cart.emails() == hashes("anna", "bert", "carl")


def test_a_platform_that_is_away_is_not_one_that_has_lost_it(cart):
    cart.sandbox.dial("error", audience=fresh(cart).remote_id, op="describe", status=500)
    an_hour_later(cart)
    assert fresh(cart).lost == ""
    cart.sandbox.dial("error", audience=fresh(cart).remote_id, op="describe", status=500)
    with pytest.raises(Refused, match="does not answer just now"):
        mappings.look_again(actor=None, mapping=fresh(cart))
    cart.sandbox.dial("refuse", audience=fresh(cart).remote_id, op="describe", why="revoked")
    with pytest.raises(Refused, match="no longer accepts the access token"):
        mappings.look_again(actor=None, mapping=fresh(cart))
    Mapping.objects.update(blocked_reason="")
    assert mappings.look_again(actor=None, mapping=fresh(cart)).lost == ""
    cart.sandbox.dial("throttle", audience=fresh(cart).remote_id, op="describe", seconds=30)
    Mapping.objects.update(seen_at=None)
    assert remotes.see(fresh(cart)) >= timedelta(seconds=30)
    assert fresh(cart).lost == ""


def test_what_sends_nothing_yet_and_what_has_ended_is_not_looked_at(cart):
    before = len(cart.calls())
    for state in ("rehearsal", "retired"):
        Mapping.objects.update(state=state, seen_at=None)
        tasks.look_there(jobs.Job.objects.get_or_create(task=remotes.LOOK, key=str(cart.mapping.pk))[0].pk)
    assert len(cart.calls()) == before


# --- Renamed there.


def test_a_rename_is_seen_by_a_look_shown_and_then_put_right(cart):
    with registry.open(fresh(cart).destination) as connector:
        connector.rename(cart.mapping.remote_id, "My carts")
    an_hour_later(cart)
    mapping = fresh(cart)
    assert (mapping.remote_name, mapping.renamed_there) == ("My carts", "My carts")
    [line] = trail("mapping.renamed_there")
    assert (line.before, line.after) == ("cart", "My carts")
    [place] = placements.of([mapping.audience_id], service.current())[mapping.audience_id]
    assert "Somebody renamed it there to “My carts”" in place.renamed
    assert place.trouble == ""

    cart.sync()
    assert fresh(cart).remote_name == "cart"
    assert trail("mapping.renamed")[-1].reason == "somebody had renamed it there"
    [place] = placements.of([mapping.audience_id], service.current())[mapping.audience_id]
    assert place.renamed == ""


def test_a_name_here_follows_there_by_a_look_without_a_sync(cart):
    service.name_freely(actor=None, audience=Audience.objects.get(key="cart"), name="Carts", name_reason="")
    before = len(cart.calls("add"))
    jobs.ask(remotes.LOOK, cart.mapping.pk, queue="sync")
    jobs.run_due_here(["sync"], rounds=1)
    assert fresh(cart).remote_name == "Carts"
    assert cart.sandbox.audience("meta", cart.mapping.remote_id)["name"] == "Carts"
    assert len(cart.calls("add")) == before


# --- Described there.


@pytest.mark.parametrize("kind", list(registry.CONNECTORS))
def test_our_sentence_the_owners_name_the_version_and_a_link_are_said_there(sandbox, account_number, settings, kind):
    settings.PUBLIC_URL = "https://rollcall.example"
    scene.workspace()
    person("anna")
    track("zoe", "purchase")
    owner = User.objects.create(email="mary@example.com", name="Mary Smith", role="marketer")
    made = scene.audience("cart", scene.NO_PURCHASE)
    Audience.objects.update(definition_owner=owner)
    live = scene.live(sandbox, account_number, made, kind=kind)
    live.sync()

    def said() -> str:
        return sandbox.audience(kind, fresh(live).remote_id)["description"]

    assert said() == (
        "People whose in is “yes”, and who never did “purchase”."
        " Owner: Mary Smith. Version 1. https://rollcall.example/audiences/cart/"
    )
    made_by = [call["op"] for call in live.calls()]
    assert "describe_as" not in made_by  # it was made so

    wider = {"all": [scene.IN, {"event": "purchase", "count": {"exactly": 0}, "within": "60d"}]}
    scene.audience("cart", wider)
    User.objects.update(name="Mary Jones")
    run = live.sync()
    assert (run.planned_adds, run.planned_removes) == (0, 0)
    assert said() == (
        "People whose in is “yes”, and who did not do “purchase” in the last 60 days."
        " Owner: Mary Jones. Version 2. https://rollcall.example/audiences/cart/"
    )
    assert fresh(live).remote_description == said()
    before = len(live.calls())
    live.sync()
    assert len(live.calls()) == before


def test_what_somebody_wrote_there_instead_is_put_right_and_a_refused_text_stops_no_sync(cart):
    with registry.open(fresh(cart).destination) as connector:
        connector.describe_as(cart.mapping.remote_id, "mine")
    an_hour_later(cart)
    assert cart.sandbox.audience("meta", cart.mapping.remote_id)["description"].startswith("People whose in")
    cart.sandbox.dial("refuse", audience=cart.mapping.remote_id, op="describe_as", why="poison")
    scene.audience("cart", {"all": [scene.IN, {"event": "purchase", "count": {"exactly": 0}, "within": "60d"}]})
    assert cart.sync().state == "done"
    assert cart.emails() == hashes("anna", "bert")


def test_one_that_cannot_be_made_with_a_description_is_made_without(sandbox, account_number):
    scene.workspace()
    person("anna")
    track("zoe", "purchase")
    live = scene.live(sandbox, account_number, scene.audience("cart", scene.NO_PURCHASE))
    sandbox.dial("refuse", platform="meta", account=account_number, op="create", why="poison")
    assert live.sync().state == "done"
    assert live.emails() == hashes("anna")


def test_an_adopted_audience_keeps_what_is_said_of_it(cart):
    mappings.retire(actor=None, mapping=fresh(cart))
    other = scene.audience("other", scene.NO_PURCHASE)
    mapping = mappings.create(actor=None, audience=other, destination=cart.mapping.destination, identifiers=["email"])
    mapping = mappings.adopt(actor=None, mapping=mapping, remote_id=cart.mapping.remote_id)
    assert remote_descriptions.of(mapping) is None


def test_nobodys_address_and_no_person_of_a_rule_is_told_to_a_platform(cart):
    owner = User.objects.create(email="mary@example.com", name="mary@example.com", role="marketer")
    Audience.objects.update(definition_owner=owner)
    for rule in (
        {"attribute": "email", "op": "is", "value": "kim@example.com"},
        {"attribute": "first_name", "op": "in", "value": ["Kim"]},
        {"attribute": "in", "op": "is", "value": "kim@example.com"},
        {"event": "purchase", "where": [{"property": "zip", "op": "is", "value": "94105"}]},
        {"not": {"attribute": "note", "op": "is", "value": "+49 30 1234567"}},
    ):
        assert remote_descriptions.names_people(grammar.parse(rule)), rule
    for rule in (
        {"attribute": "membership_tier", "op": "is", "value": "gold"},
        {"attribute": "product_name", "op": "is", "value": "Shoe"},
        {"attribute": "email", "op": "exists"},
        {"event": "purchase", "sum": "value", "op": "gte", "value": 5000000},
    ):
        assert not remote_descriptions.names_people(grammar.parse(rule)), rule
    text = remote_descriptions.of(fresh(cart))
    assert "@" not in text
    assert "Owner" not in text


def test_a_long_sentence_is_cut_at_a_word_and_the_rest_stays_whole():
    sentence = f"People who did {'“viewed” or ' * 60}nothing."
    link = "https://rollcall.example/audiences/cart/"
    text = remote_descriptions.compose(sentence, "Mary Smith", 3, link, 250)
    assert len(text) <= 250
    assert text.endswith("… Owner: Mary Smith. Version 3. https://rollcall.example/audiences/cart/")
    start = text.partition("…")[0]
    assert sentence.startswith(start)
    assert sentence[len(start)] in " ,."
    assert remote_descriptions.compose("People who.", "", None, link, 250) == f"People who. {link}"
    assert remote_descriptions.compose(sentence, "Mary Smith", 3, link, 40) == "Owner: Mary Smith. Version 3."
    for room in range(1, 400):
        assert len(remote_descriptions.compose(sentence, "Mary Smith", 3, link, room)) <= room
