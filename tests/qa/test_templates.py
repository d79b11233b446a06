"""Templates beside the rule builder: picked, turned, named by the convention, with the suppression pair; all of it or nothing."""

import pytest

from audiences.models import Audience
from audiences.segments import grammar, recipes
from audiences.services import audiences, drafts, versions
from destinations.models import Mapping
from tests import filled
from tests.filled import as_
from tests.qa.test_setup import begin

pytestmark = pytest.mark.django_db
VIEWED = {"recipe": "viewed", "n_times": "3", "n_days": "7", "n_quiet": "14", "e_view": "add_to_cart", "e_purchase": "purchase"}  # fmt: skip


@pytest.fixture
def world() -> filled.Filled:
    """An audience for retargeting that has no rule yet, beside the usual ones."""
    world = filled.fill()
    owner = world.users["marketer"]
    audiences.create(
        actor=owner, key="new_one", purpose="retargeting", definition_owner=owner, sync_owner=owner, alert_owner=owner
    )
    return world


@pytest.fixture
def client(world):
    return as_(world, "marketer")


@pytest.fixture
def new_one(world):
    return Audience.objects.get(key="new_one")


def named(**parts):
    return {"name-channel": "meta", "name-intent": "viewed", "name-window": "7d", **{f"name-{k}": v for k, v in parts.items()}}  # fmt: skip


def take(client, audience, **changes):
    form = {"act": "take", "number": "0", "revision": "0", "pair": "later", "days": "14", **VIEWED, **changes}
    return client.post(f"/audiences/{audience.key}/templates/", form)


@pytest.mark.parametrize("purpose", ["retargeting", "suppression", "lookalike", "analytics", "warehouse"])
def test_every_template_for_the_purpose_is_there_and_opens(world, client, new_one, purpose):
    Audience.objects.filter(pk=new_one.pk).update(purpose=purpose)
    for recipe in recipes.for_purpose(purpose):
        page = client.get(f"/audiences/new_one/templates/?recipe={recipe.key}")
        assert page.status_code == 200 and recipe.name in page.content.decode()
    for words in ("", "none", "x" * 900, "<b>"):
        assert client.get("/audiences/new_one/templates/", {"recipe": words}).status_code == 200


def test_looking_and_counting_change_nothing(world, client, new_one):
    before = Audience.objects.count()
    page = client.post("/audiences/new_one/templates/", {"act": "count", **VIEWED}, headers={"HX-Request": "true"})
    words = page.content.decode()
    assert "<html" not in words and "Finds now" in words
    assert "did “add_to_cart” at least 3 times in the last 7 days" in words
    assert not new_one.versions.exists() and Audience.objects.count() == before


def test_the_editors_menu_leads_there_and_keeps_what_was_typed(world, client):
    fields = {
        "rule.kind": "all",
        "rule.nots": "0",
        "rule.bare": "1",
        "rule-0.kind": "event",
        "rule-0.event": "purchase",
    }
    answer = client.post(f"/audiences/{world.cart.key}/edit/", {**fields, "do": "template:vip"})
    assert answer.url == f"/audiences/{world.cart.key}/templates/?recipe=vip"
    assert drafts.current(world.cart).outline["items"][0]["event"] == "purchase"


def test_taken_it_is_the_draft_the_name_and_the_pair_at_once(world, client, new_one):
    answer = take(client, new_one, pair="make", days="10", **named(intent="cart"))
    assert answer.status_code == 302 and answer.url == "/audiences/new_one/edit/", answer.content.decode()[-3000:]
    new_one.refresh_from_db()
    assert new_one.name == "meta_cart_7d_v1"
    wanted = recipes.RECIPES["viewed"].rule({"times": 3, "days": 7}, {"view": "add_to_cart", "purchase": "purchase"})
    draft = new_one.versions.get()
    assert draft.state == "draft" and grammar.loads(draft.segment) == grammar.parse(wanted)
    (pair,) = new_one.excluded_by.all()
    assert pair.live_version.sentence == "People who did “purchase” at least once in the last 10 days."
    page = client.get("/audiences/new_one/edit/").content.decode()
    assert "is in the draft" in page and f"{pair.key} is linked" in page and "Undo the rule" in page


def test_the_toast_takes_the_rule_back_and_only_while_nothing_else_was_saved(world, client, new_one):
    take(client, new_one, **named(intent="cart"))
    now = drafts.current(new_one)
    stale = {"do": "undo", "number": "1", "revision": "77"}
    page = client.post("/audiences/new_one/edit/", stale, follow=True).content.decode()
    assert "nothing is done" in page and drafts.current(new_one).outline == now.outline
    client.post("/audiences/new_one/edit/", {"do": "undo", "number": str(now.number), "revision": str(now.revision)})
    assert drafts.current(new_one).outline["items"][0]["event"] == ""


def test_a_pair_that_is_there_is_linked_and_where_one_is_linked_none_is_offered(world, client, new_one):
    there = filled.audience(
        "buyers_14d", {"event": "purchase", "within": "14d"}, world.users["marketer"], "suppression"
    )
    assert "Link <span" in client.get("/audiences/new_one/templates/").content.decode()
    assert take(client, new_one, pair="link:buyers_14d", **named(intent="cart")).status_code == 302
    assert list(new_one.excluded_by.all()) == [there]
    page = client.get("/audiences/new_one/templates/").content.decode()
    assert 'name="pair"' not in page and "Its suppression pair is there" in page
    assert 'name="pair"' not in client.get(f"/audiences/{world.draft.key}/templates/").content.decode()


def test_a_set_up_under_way_says_which_pair_would_do(world, client, new_one):
    filled.audience("buyers_14d", {"event": "purchase", "within": "14d"}, world.users["marketer"], "suppression")
    row = begin(client)
    row.audience = new_one
    row.save()
    assert (
        "Link <span" not in client.get("/audiences/new_one/templates/").content.decode()
    )  # it goes nowhere, and not to Meta EU
    assert not Mapping.objects.filter(audience=new_one).exists()


def test_the_name_of_a_live_audience_is_not_changed_by_a_draft(world, client):
    page = client.get(f"/audiences/{world.cart.key}/templates/").content.decode()
    assert "name-intent" not in page and "until the new version is live" in page
    before = world.cart.name
    assert take(client, world.cart).status_code == 302
    assert Audience.objects.get(pk=world.cart.pk).name == before


def test_somebody_elses_draft_is_not_replaced_unseen(world, client, new_one):
    mine = {"kind": "all", "nots": 0, "items": []}
    drafts.save(actor=world.users["admin"], audience=new_one, edited=mine, number=0, revision=0)
    answer = take(client, new_one, pair="make", **named(intent="cart"))
    assert answer.status_code == 422 and "changed the draft since you opened" in answer.content.decode()
    assert drafts.current(new_one).outline == mine and not new_one.excluded_by.exists()
    now = drafts.current(new_one)
    again = take(client, new_one, number=str(now.number), revision=str(now.revision), **named(intent="cart"))
    assert again.status_code == 302
    client.post("/audiences/new_one/edit/", {"do": "undo", "number": "1", "revision": str(now.revision + 1)})
    assert drafts.current(new_one).outline == mine


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_days": "999"}, "less than or equal to 60"),
        ({"n_days": "many"}, "whole number"),
        ({"n_days": ""}, "required"),
        ({"e_view": "nobody did this"}, "Nobody has been seen doing that"),
        ({"e_view": "<script>"}, "Nobody has been seen doing that"),
        ({"pair": "link:nothing"}, "no longer offered"),
        ({"pair": "make", "days": "3"}, "greater than or equal to 7"),
        ({"pair": "make", "days": ""}, "Say how many days"),
        ({"name-intent": "none of them"}, "not one of the values"),
        ({"name-intent": "", "name-window": ""}, "Choose"),
    ],
)
def test_what_is_entered_wrong_is_said_and_nothing_at_all_is_done(world, client, new_one, changes, words):
    before = Audience.objects.count()
    answer = take(client, new_one, **{"pair": "make", **named(intent="cart"), **changes})
    assert answer.status_code == 422 and words in answer.content.decode()
    new_one.refresh_from_db()
    assert (Audience.objects.count(), new_one.versions.count(), new_one.name) == (before, 0, "new_one")


def test_if_the_pair_cannot_be_made_the_draft_and_the_name_stay_too(world, client, new_one, monkeypatch):
    def refuse(**_):
        raise audiences.AudienceRefused(versions.Problem("", "not just now"))

    monkeypatch.setattr("qa.pairs.make", refuse)
    answer = take(client, new_one, pair="make", **named(intent="cart"))
    assert answer.status_code == 422 and "Nothing is done: not just now" in answer.content.decode()
    new_one.refresh_from_db()
    assert new_one.name == "new_one" and not new_one.versions.exists()


def test_archived_audiences_and_other_roles_have_none(world, client, new_one):
    for role in ("buyer", "operator"):
        assert as_(world, role).get("/audiences/new_one/templates/").status_code == 403
    assert client.get("/audiences/nothing/templates/").status_code == 404
    audiences.archive(actor=world.users["marketer"], audience=new_one, reason="Over")
    assert take(client, new_one).url == "/audiences/new_one/versions/"
