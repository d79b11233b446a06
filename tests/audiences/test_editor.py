"""The rule builder: what its form says is kept at once, can be undone, meets other editors, and is never lost, with or without scripts."""

import json
import time
from html.parser import HTMLParser

import pytest
from django.test import Client

from audiences.models import DraftStep, SegmentVersion
from audiences.segments import grammar, outline
from audiences.services import audiences, drafts, versions
from audiences.services.audiences import AudienceRefused
from tests import filled

pytestmark = pytest.mark.django_db


class Form(HTMLParser):
    """The fields of the editor's form, as a browser would send them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.focus, self.buttons = "", []
        self._select = self._area = ""
        self.feed(html)

    def handle_starttag(self, tag, given):
        about = dict(given)
        if "autofocus" in about:
            self.focus = about.get("name", "")
        if tag == "input" and about.get("name"):
            self.fields[about["name"]] = about.get("value") or ""
        elif tag == "select":
            self._select = about["name"]
        elif tag == "option" and self._select and (self._select not in self.fields or "selected" in about):
            self.fields[self._select] = about["value"]
        elif tag == "textarea":
            self._area = about["name"]
            self.fields[self._area] = ""
        elif tag == "button" and about.get("name") == "do":
            self.buttons.append(about["value"])

    def handle_endtag(self, tag):
        self._select = "" if tag == "select" else self._select
        if tag == "textarea":
            self.fields[self._area] = self.fields[self._area].removeprefix("\n")
            self._area = ""

    def handle_data(self, data):
        if self._area:
            self.fields[self._area] += data


@pytest.fixture
def world(db):
    return filled.fill()


@pytest.fixture
def client(world):
    client = Client()
    client.force_login(world.users["marketer"])
    return client


def address(audience):
    return f"/audiences/{audience.key}/edit/"


def form_at(client, audience):
    """The fields of its form, without the token against forgery, which is another one each time."""
    found = Form(client.get(address(audience)).content.decode()).fields
    return {name: value for name, value in found.items() if name.startswith("rule") or name in ("number", "revision")}


def press(client, audience, do, **changes):
    """Press a button of the form after changing some fields; the page that comes of it."""
    fields = form_at(client, audience) | changes
    return client.post(address(audience), {**fields, "do": do}, follow=True)


def test_looking_changes_nothing_and_the_form_says_the_live_rule(world, client):
    fields = form_at(client, world.cart)
    tree, problems = outline.tree_of(outline.of_post(fields))
    assert problems == () and tree == grammar.parse(filled.CART)
    assert not DraftStep.objects.exists() and world.cart.versions.count() == 1


EVERYTHING = {
    "any": [
        {"attribute": "plan", "op": "in", "value": ["", "a b", "two\nlines", '"quoted"']},
        {"attribute": "size", "op": "between", "value": [1, 2.5]},
        {"attribute": "signed_up", "op": "before", "value": "2024-05-01T10:00:00Z"},
        {"attribute": "signed_up", "op": "within_next", "value": "90m"},
        {"attribute": "plan", "op": "missing"},
        {"event": "*", "count": {"between": [2, 4]}, "within": {"from": "2024-05-01", "to": "2024-06-01"}},
        {"event": "purchase", "count": {"exactly": 0}, "known_for": "30d", "within": "3d"},
        {"event": "purchase", "sum": "value", "op": "is", "value": 12, "where": [{"property": "sku", "op": "starts_with", "value": "x"}]},
        {"event": "purchase", "first": "occurrence", "op": "between", "value": {"from": "2024-05-01", "to": "2024-06-01"}},
        {"sequence": [{"event": "a", "where": [{"property": "p", "op": "gt", "value": 1}]}, {"event": "b", "within": "2h"}], "complete": False},
        {"not": {"not": {"known_for": "8w"}}},
        {"not": {"all": [{"list": "staff"}, {"audience": "other"}, {"all": [{"any": [{"all": [{"customerio_segment": 7}]}]}]}]}},
        {"bucket": {"salt": "s", "from": 0, "to": 12.5}},
    ]
}  # fmt: skip


def test_the_page_shows_and_sends_every_kind_of_rule(world, client):
    press(client, world.cart, "paste", json=json.dumps(EVERYTHING))
    fields = form_at(client, world.cart)
    tree, problems = outline.tree_of(outline.of_post(fields))
    assert problems == () and tree == grammar.parse(EVERYTHING)
    before = world.cart.versions.get(number=2).revision
    client.post(address(world.cart), {**fields, "do": "save"})
    assert world.cart.versions.get(number=2).revision == before


def test_a_rule_is_added_filled_in_and_kept_as_a_draft(world, client):
    answer = press(client, world.cart, "add-rule:rule")
    page = Form(answer.content.decode())
    assert page.focus == "rule-2.event"
    answer = press(client, world.cart, "save", **{"rule-2.event": "purchase", "rule-2.n": "3", "rule-2.last": "7"})
    draft = world.cart.versions.get(number=2)
    assert answer.status_code == 200 and draft.state == "draft"
    assert grammar.loads(draft.segment) == grammar.parse(
        {"all": [*filled.CART["all"], {"event": "purchase", "count": {"at_least": 3}, "within": "7d"}]}
    )
    assert draft.outline is None and draft.revision == 2


def test_what_is_not_finished_is_kept_and_cannot_be_published(world, client):
    press(client, world.cart, "add-rule:rule")
    draft = world.cart.versions.get(number=2)
    assert draft.outline is not None and grammar.loads(draft.segment) == grammar.parse(filled.CART)
    with pytest.raises(AudienceRefused, match="not finished"):
        versions.publish(actor=world.users["marketer"], version=draft, reason="Too early")
    answer = press(client, world.cart, "review")
    assert answer.status_code == 422 and "Say which event." in answer.content.decode()


def test_undo_and_redo_go_through_every_step_and_a_new_step_forgets_what_was_undone(world, client):
    before = form_at(client, world.cart)
    press(client, world.cart, "add-group:rule")
    press(client, world.cart, "remove:rule-0")
    assert "rule-2.kind" not in form_at(client, world.cart)
    press(client, world.cart, "undo")
    assert form_at(client, world.cart)["rule-2.kind"] == "any"
    press(client, world.cart, "undo")
    assert {**form_at(client, world.cart), "number": "", "revision": "", "json": ""} == {
        **before,
        "number": "",
        "revision": "",
        "json": "",
    }
    press(client, world.cart, "redo")
    assert form_at(client, world.cart)["rule-2.kind"] == "any"
    press(client, world.cart, "duplicate:rule-0")
    assert not drafts.current(world.cart).can_redo


def test_only_the_last_fifty_steps_are_kept(world, client):
    who = world.users["marketer"]
    for times in range(60):
        now = drafts.current(world.cart)
        edited = outline.of_tree(grammar.parse({"event": "purchase", "count": {"at_least": times + 1}}))
        drafts.save(actor=who, audience=world.cart, edited=edited, number=now.number, revision=now.revision)
    assert DraftStep.objects.count() == drafts.MAX_STEPS


def test_two_editors_meet_and_neither_loses_anything(world, client):
    mine = form_at(client, world.cart) | {"rule-0.last": "36"}
    other = Client()
    other.force_login(world.users["admin"])
    press(other, world.cart, "save", **{"rule-1.last": "9"})
    answer = client.post(address(world.cart), {**mine, "do": "save"})
    page = answer.content.decode()
    assert answer.status_code == 409
    assert "in the last 36 hours" in page and "in the last 9 days" in page
    kept = Form(page).fields
    client.post(address(world.cart), {**kept, "do": "undo"})
    assert "in the last 9 days" in world.cart.versions.get(number=2).sentence
    press(client, world.cart, "redo")
    assert "in the last 36 hours" in world.cart.versions.get(number=2).sentence


def test_who_goes_on_with_their_own_has_the_others_by_undo(world, client):
    mine = form_at(client, world.cart) | {"rule-0.last": "36"}
    other = Client()
    other.force_login(world.users["admin"])
    press(other, world.cart, "save", **{"rule-1.last": "9"})
    kept = Form(client.post(address(world.cart), {**mine, "do": "save"}).content.decode()).fields
    client.post(address(world.cart), {**kept, "do": "keep"})
    draft = world.cart.versions.get(number=2)
    assert "in the last 36 hours" in draft.sentence
    press(client, world.cart, "undo")
    assert "in the last 9 days" in world.cart.versions.get(number=2).sentence


def test_the_same_form_sent_twice_is_one_step(world, client):
    fields = form_at(client, world.cart) | {"rule-0.last": "36", "do": "save"}
    assert client.post(address(world.cart), fields).status_code == 302
    assert client.post(address(world.cart), fields).status_code == 302
    assert world.cart.versions.get(number=2).revision == 1


def test_a_draft_of_somebody_elses_tool_can_be_undone_too(world, client):
    press(client, world.cart, "save", **{"rule-0.last": "36"})
    versions.save_draft(actor=None, audience=world.cart, segment=filled.BUYERS)
    assert form_at(client, world.cart)["rule-0.event"] == "purchase"
    press(client, world.cart, "add-rule:rule")
    press(client, world.cart, "undo")
    press(client, world.cart, "undo")
    assert form_at(client, world.cart)["rule-0.last"] == "36"


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"rule-0.n": "many"}, "rule-0.n", "whole number"),
        ({"rule-0.last": "9999999"}, "rule-0.last", "must be from 1m"),
        ({"rule-0.event": "no_such_event"}, "rule-0.event", "is known"),
        ({"rule-1.window": "range", "rule-1.from": "31 May", "rule-1.to": "2024-06-01"}, "rule-1.from", "date or time"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(world, client, changes, field, words):
    fields = form_at(client, world.cart) | changes
    answer = client.post(address(world.cart), {**fields, "do": "save"})
    page = answer.content.decode()
    assert answer.status_code == 422
    assert f'id="{field}.problem"' in page and words in page.lower().replace("must be a date", "date")
    assert Form(page).fields[field] == fields[field]


def test_what_is_doubtful_is_said_at_its_rule_and_put_right_by_one_press(world, client):
    answer = press(client, world.cart, "paste", json='{"event": "add_to_cart"}')
    fixes = [value for value in Form(answer.content.decode()).buttons if value.startswith("fix:no-time-window:")]
    assert len(fixes) == 1
    press(client, world.cart, fixes[0])
    assert form_at(client, world.cart)["rule-0.window"] == "last"


def test_it_is_put_right_from_the_drafts_page_too_and_taken_back(world, client):
    draft = versions.save_draft(
        actor=world.users["marketer"], audience=world.cart, segment={"event": "add_to_cart", "count": {"at_least": 1}}
    )
    at = f"/audiences/{world.cart.key}/versions/{draft.number}/"
    found = Form(client.get(at).content.decode())
    (fix,) = [value for value in found.buttons if value.startswith("fix:no-time-window:")]
    pressed = {"do": fix, "number": found.fields["number"], "revision": found.fields["revision"]}
    page = client.post(address(world.cart), pressed, follow=True).content.decode()
    assert "The rule is put right in the draft." in page and ">Undo<" in page
    assert form_at(client, world.cart)["rule-0.window"] == "last"
    stale = client.post(address(world.cart), pressed, follow=True).content.decode()
    assert "has been changed since that page was loaded, so nothing is done" in stale
    now = drafts.current(world.cart)
    client.post(address(world.cart), {"do": "undo", "number": str(now.number), "revision": str(now.revision)})
    assert form_at(client, world.cart)["rule-0.window"] == "ever"
    gone = {"do": "fix:no-time-window:nowhere", "number": str(now.number), "revision": str(now.revision + 1)}
    assert "nothing left to be put right" in client.post(address(world.cart), gone, follow=True).content.decode()


def test_a_button_of_another_page_never_empties_the_draft(world, client):
    before = form_at(client, world.cart)
    for do in ("save", "undo", "redo", "remove:rule-0", "review", ""):
        client.post(address(world.cart), {"do": do, "number": "7", "revision": "7"})
    assert form_at(client, world.cart) == before and world.cart.versions.count() == 1
    client.post(address(world.cart), {"do": "save"})
    assert form_at(client, world.cart) == before


def test_hostile_names_are_text(world, client):
    evil = '"><img src=x onerror=alert(1)>'
    answer = press(client, world.cart, "save", **{"rule-0.event": evil})
    assert "<img" not in answer.content.decode()
    assert form_at(client, world.cart)["rule-0.event"] == evil


@pytest.mark.parametrize("do", ["up:rule-99", "remove:rule", "add-rule:rule-0-7", "fly:rule", "undo", "recipe:none", "down:" + "x" * 500, "fix:no:where", "add-step:rule-0"])  # fmt: skip
def test_forged_buttons_change_nothing(world, client, do):
    before = form_at(client, world.cart)
    assert press(client, world.cart, do).status_code == 200
    assert form_at(client, world.cart) == before


def test_the_live_rule_and_json_replace_the_rule(world, client):
    press(client, world.cart, "remove:rule-1")
    press(client, world.cart, "live")
    assert form_at(client, world.cart)["rule-1.times"] == "zero"
    press(client, world.cart, "paste", json='{"list": "staff"}')
    assert form_at(client, world.cart)["rule-0.kind"] == "list"
    answer = press(client, world.cart, "paste", json='{"lust": 1}')
    assert answer.status_code == 422 and "{&quot;lust&quot;: 1}" in answer.content.decode()
    assert form_at(client, world.cart)["rule-0.kind"] == "list"


def test_a_first_rule_begins_empty(world, client):
    world.draft.versions.all().delete()
    assert form_at(client, world.draft)["rule-0.event"] == ""
    press(client, world.draft, "add-rule:rule")
    assert world.draft.versions.get().sentence == drafts.UNFINISHED


def test_steps_are_gone_once_it_is_published(world, client):
    press(client, world.cart, "save", **{"rule-0.last": "36"})
    draft = world.cart.versions.get(number=2)
    assert draft.steps.count() == 2
    world.cart.test_locks.all().delete()
    done = versions.publish(actor=world.users["marketer"], version=draft, reason="Longer")
    if done.state == SegmentVersion.State.PUBLISHED:
        assert not DraftStep.objects.filter(version=draft).exists()


def test_archived_audiences_and_other_roles_have_no_editor(world, client):
    buyer = Client()
    buyer.force_login(world.users["buyer"])
    assert buyer.get(address(world.cart)).status_code == 403
    assert client.get("/audiences/nowhere/edit/").status_code == 404
    fields = form_at(client, world.draft)
    audiences.archive(actor=world.users["admin"], audience=world.draft, reason="Over")
    assert client.get(address(world.draft)).status_code == 302
    assert client.post(address(world.draft), {**fields, "do": "add-rule:rule"}).status_code == 302
    assert not DraftStep.objects.exists()


def test_a_draft_that_was_thrown_away_meanwhile_is_a_conflict_too(world, client):
    press(client, world.cart, "save", **{"rule-0.last": "36"})
    mine = form_at(client, world.cart) | {"rule-0.last": "48"}
    versions.discard(actor=world.users["admin"], version=world.cart.versions.get(number=2))
    answer = client.post(address(world.cart), {**mine, "do": "save"})
    assert answer.status_code == 409 and "thrown away" in answer.content.decode()
    client.post(address(world.cart), {**Form(answer.content.decode()).fields, "do": "keep"})
    assert "in the last 2 days" in world.cart.versions.get(state="draft").sentence


def test_a_whole_rule_goes_on_to_its_review(world, client):
    fields = form_at(client, world.cart) | {"rule-0.last": "36"}
    answer = client.post(address(world.cart), {**fields, "do": "review"})
    assert (answer.status_code, answer.url) == (302, f"/audiences/{world.cart.key}/review/")
    assert "in the last 36 hours" in world.cart.versions.get(number=2).sentence


def test_a_thousand_rules_are_shown_and_edited(world, client):
    one = {"event": "purchase", "count": {"at_least": 2}, "within": "7d"}
    many = outline.of_tree(grammar.parse({"all": [{"any": [one] * 20} for _ in range(20)]}))
    many["items"] = (many["items"] * 3)[:50]
    now = drafts.current(world.cart)
    drafts.save(
        actor=world.users["marketer"], audience=world.cart, edited=many, number=now.number, revision=now.revision
    )
    begun = time.perf_counter()
    answer = press(client, world.cart, "duplicate:rule-49-19")
    assert answer.status_code == 200 and "the most is 400" in answer.content.decode()
    assert len(drafts.current(world.cart).outline["items"][49]["items"]) == 21
    assert time.perf_counter() - begun < 20
