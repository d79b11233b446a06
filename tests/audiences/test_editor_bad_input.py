"""Whatever is sent to the rule builder gets a clear answer, and nobody's work is lost by it."""

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiences.models import AttributeName, Audience, EventName, PersonList, PropertyName, SegmentVersion
from audiences.segments import grammar, outline
from audiences.segments.outline_edits import DEEDS
from audiences.segments.outline_forms import MAX_ITEMS, MAX_PARTS
from audiences.services import audiences, drafts, versions
from tests import filled
from tests.audiences.test_editor import EVERYTHING, Form, address, form_at, press

pytestmark = pytest.mark.django_db
HOSTILE = [
    '"><img src=x onerror=alert(1)>',
    "</textarea><script>alert(1)</script>",
    "{{ 7|add:7 }}{% csrf_token %}",
    "'; DROP TABLE audiences_audience; --",
    "nul\0 in it",
    "\u202eright to left\u2066",
    "a\r\nb\tc",
    "x" * 20_000,
    "🛒" * 50,
    '"half a quote',
    "\ufffe\uffff",
]


@pytest.fixture
def world(db):
    return filled.fill()


@pytest.fixture
def client(world):
    client = Client()
    client.force_login(world.users["marketer"])
    return client


@pytest.fixture
def everything(world):
    """A draft in which every kind of rule stands."""
    return versions.save_draft(actor=world.users["marketer"], audience=world.cart, segment=EVERYTHING)


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_texts_in_every_field_are_text_and_come_back_as_they_were_typed(world, client, everything, evil):
    fields = form_at(client, world.cart)
    choices = (".kind", ".nots", ".bare", ".op", ".unit", ".times", ".window", ".measure", ".which", ".complete")
    typed = {name for name in fields if name.startswith("rule") and not name.endswith((*choices, "_unit"))}
    answer = client.post(address(world.cart), {**fields, **dict.fromkeys(typed, evil), "do": "save"})
    assert answer.status_code in (200, 302, 422)
    page = client.get(address(world.cart)).content.decode()
    assert "<img src=x" not in page and "<script>alert" not in page
    plain = evil.replace("\0", "").replace("\r\n", "\n")
    again = Form(page).fields
    assert {again[name] for name in typed if not name.endswith(".values")} == {plain}
    assert {again[name] for name in typed if name.endswith(".values")} == {plain}
    preview = client.post(f"/audiences/{world.cart.key}/preview/", {**fields, **dict.fromkeys(typed, evil)})
    assert preview.status_code == 200 and "<img src=x" not in preview.content.decode()


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_addresses_and_buttons_change_nothing(world, client, evil):
    before = form_at(client, world.cart)
    for name in ("do", "number", "revision", "json", "asked", "focus"):
        answer = client.post(address(world.cart), {**before, name: evil})
        assert answer.status_code in (200, 302, 409, 422), name
    assert client.get(address(world.cart), {"focus": evil}).status_code == 200
    for do in ("fix:", "up:", "move:", "template:", "remove:", "exclude:"):
        assert client.post(address(world.cart), {**before, "do": do + evil}).status_code in (200, 302)
    after = form_at(client, world.cart)
    assert {k: v for k, v in after.items() if k.startswith("rule")} == {
        k: v for k, v in before.items() if k.startswith("rule")
    }


def rows(number, kind="list"):
    form = {"rule.kind": "all", "rule.nots": "0"}
    return form | {f"rule-{n}.{field}": value for n in range(number) for field, value in (("kind", kind), ("key", "x"))}


def test_a_rule_of_too_many_parts_is_refused_in_words_and_what_was_saved_stays(world, client):
    press(client, world.cart, "save", **{"rule-0.last": "36"})
    saved = form_at(client, world.cart)
    stands = {"number": saved["number"], "revision": saved["revision"]}
    answer = client.post(address(world.cart), {**rows(MAX_ITEMS + 1), **stands, "do": "save"})
    words = answer.content.decode()
    assert answer.status_code == 422 and "at most 2,000 parts" in words and "What was saved before stands here" in words
    assert form_at(client, world.cart) == saved
    looked = client.post(f"/audiences/{world.cart.key}/preview/", rows(MAX_ITEMS + 1)).content.decode()
    assert "A rule has at most 2,000 parts" in looked


def test_one_more_than_fits_is_refused_in_words_where_it_is_added(world, client):
    saved = form_at(client, world.cart)
    answer = client.post(
        address(world.cart), {**rows(MAX_ITEMS - 1), "number": "0", "revision": "0", "do": "duplicate:rule-0"}
    )
    assert answer.status_code == 422 and "at most 2,000 parts" in answer.content.decode()
    many = {f"rule-0.where{n}.name": "p" for n in range(MAX_PARTS)}
    answer = press(client, world.cart, "add-condition:rule-0", **many)
    assert answer.status_code == 422 and "at most 40 conditions or steps" in answer.content.decode()
    assert Form(answer.content.decode()).fields["rule-0.where39.name"] == "p"  # what was typed still stands there
    assert form_at(client, world.cart) == saved
    deep = {"rule" + "-0" * n + ".kind": "all" for n in range(60)}
    client.post(address(world.cart), {**deep, "number": "0", "revision": "0", "do": "save"})
    assert client.get(address(world.cart)).status_code == 200


def test_more_rules_than_can_be_counted_say_so_and_are_kept(world, client):
    answer = client.post(address(world.cart), {**rows(401), "number": "0", "revision": "0", "do": "review"})
    assert answer.status_code == 422 and "the most is 400" in answer.content.decode()
    assert len(drafts.current(world.cart).outline["items"]) == 401


def test_a_form_larger_than_a_request_may_be_is_answered_in_words(world, client):
    saved = form_at(client, world.cart)
    answer = client.post(address(world.cart), {**saved, "rule-0.event": "x" * 1_100_000, "do": "save"})
    assert answer.status_code == 400 and "Nothing was changed" in answer.content.decode()
    assert form_at(client, world.cart) == saved


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "must be"),
        ("null", "must be"),
        ('{"all": "x"}', "must be"),
        ('{"event": 5}', "must be"),
        ('{"event": "purchase", "count": {"at_least": "2"}}', "must be"),
        ('{"event": "purchase", "count": {"at_least": 1e400}}', ""),
        ('{"attribute": "x", "op": "between", "value": [1]}', ""),
        ('{"attribute": "x", "op": "is", "value": {"a": 1}}', ""),
        ("[" * 5_000, ""),
        ('{"not":' * 30 + '{"list": "x"}' + "}" * 30, "deep"),
        ('{"event": "a", "event": "b"}', ""),
        ("{", ""),
        ("", ""),
        ('{"list": "\\ud800"}', ""),
        ('{"unknown": 1}', ""),
    ],
)
def test_json_of_the_wrong_kind_is_refused_beside_its_field_and_stays_there(world, client, text, words):
    before = form_at(client, world.cart)
    answer = press(client, world.cart, "paste", json=text)
    page = answer.content.decode()
    assert answer.status_code == 422 and words in page and 'id="json-error"' in page
    assert Form(page).fields["json"].strip() == text.strip()
    assert form_at(client, world.cart) == before


def test_what_a_rule_names_and_is_there_no_more_is_said_at_its_field_and_kept(world, client):
    rule = {
        "all": [
            {"event": "purchase", "within": "7d", "where": [{"property": "value", "op": "gt", "value": 5}]},
            {"attribute": "country", "op": "is", "value": "DE"},
            {"list": "staff"},
            {"audience": world.buyers.key},
            {"event": "add_to_cart", "within": "9d"},
        ]
    }
    versions.save_draft(actor=world.users["marketer"], audience=world.cart, segment=rule)
    before = form_at(client, world.cart)
    PropertyName.objects.filter(event="purchase", name="value").delete()
    AttributeName.objects.filter(name="country").delete()
    PersonList.objects.all().delete()
    EventName.objects.filter(name="add_to_cart").delete()
    world.cart.excluded_by.clear()
    audiences.archive(actor=world.users["admin"], audience=world.buyers, reason="Over")
    page = client.get(address(world.cart)).content.decode()
    for field in ("rule-0.where0.name", "rule-1.name", "rule-2.key", "rule-3.key", "rule-4.event"):
        assert f'id="{field}.problem"' in page, field
    assert "is archived" in page
    assert form_at(client, world.cart) == before
    answer = press(client, world.cart, "review")
    assert answer.status_code == 422 and not world.cart.versions.filter(state="in_review").exists()
    looked = client.post(f"/audiences/{world.cart.key}/preview/", before).content.decode()
    assert "Put this right" in looked and "Finds" not in looked


def test_another_audiences_draft_step_or_version_is_never_reached(world, client):
    other = filled.audience("other_one", filled.CART, world.users["marketer"])
    theirs = versions.save_draft(
        actor=world.users["admin"], audience=other, segment={"event": "purchase", "within": "3d"}
    )
    before = drafts.current(other)
    mine = form_at(client, world.cart)
    for do in ("save", "undo", "redo", "keep", "fix:no-exit:", "remove:rule-0", "review"):
        client.post(address(world.cart), {**mine, "number": str(theirs.number), "revision": "99", "do": do})
        client.post(address(world.cart), {"number": str(theirs.number), "revision": str(theirs.revision), "do": do})
    now = drafts.current(other)
    assert (now.outline, now.number, now.revision) == (before.outline, before.number, before.revision)
    assert not SegmentVersion.objects.filter(audience=other, state="in_review").exists()
    for number in (0, 7, 10**12):
        assert client.get(f"/audiences/{world.cart.key}/versions/{number}/").status_code == 404
    for what in ("approve", "ask", "send-back", "withdraw", "undo"):
        for number in ("", "7", "-1", "x", str(10**30)):
            forged = {"version": number, "seen": number, "typed": other.key, "words": "x", "reason": "x", "saw": "x"}
            answer = client.post(f"/audiences/{world.cart.key}/review/{what}/", forged)
            assert answer.status_code in (302, 404, 409, 422), (what, number, answer.status_code)
    assert SegmentVersion.objects.filter(state="published").count() == 3
    assert Audience.objects.get(pk=world.cart.pk).live_version.number == 1


TEXTS = st.one_of(
    st.sampled_from(HOSTILE[:7]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.sampled_from(["", "0", "-1", "1", "7", "99999999999", "1e3", "purchase", "add_to_cart", "value", "2026-02-30"]),
)
PLACES = st.one_of(
    st.from_regex(r"\Arule(-[0-3]){0,4}(\.(step|where)[0-2]){0,2}\Z"),
    st.from_regex(r"\Arule(-[0-3]){1,3}:rule(-[0-3]){1,3}(:after)?\Z"),
    TEXTS,
)
FIELDS = st.one_of(
    st.from_regex(
        r"\Arule(-[0-5]){0,3}(\.(step|where)[0-3]){0,2}\.(kind|nots|bare|event|op|value|values|name|key|window|times|n|span)\Z"
    ),
    TEXTS,
)


@pytest.mark.parametrize("htmx", [False, True])
def test_of_whatever_is_posted_the_draft_survives(world, client, htmx):
    """Each answer is a page or a refusal in words; the editor opens afterwards; and if the draft says something else than before, what it
    said before is one press of Undo away."""
    headers = {"HX-Request": "true"} if htmx else {}
    versions.save_draft(actor=world.users["marketer"], audience=world.cart, segment=EVERYTHING)
    start = drafts.current(world.cart).outline
    deeds = st.sampled_from([*sorted(DEEDS), "move", "save", "undo", "redo", "review", "keep", "live", "fix", "paste", "template", "", "fly"])  # fmt: skip

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        changed=st.dictionaries(FIELDS, TEXTS, max_size=6),
        gone=st.floats(0, 1),
        deed=deeds,
        place=PLACES,
        honest=st.booleans(),
        json=TEXTS,
    )
    def post(changed, gone, deed, place, honest, json):
        now = drafts.current(world.cart)
        form = outline.form_of(now.outline)
        kept = dict(sorted(form.items())[int(gone * len(form)) if gone > 0.6 else 0 :])
        stands = (
            {"number": str(now.number), "revision": str(now.revision)} if honest else {"number": "3", "revision": "x"}
        )
        sent = {**kept, **changed, **stands, "do": f"{deed}:{place}" if place else deed, "json": json}
        answer = client.post(address(world.cart), sent, headers=headers)
        assert answer.status_code in (200, 302, 409, 422), answer.status_code
        assert client.get(address(world.cart)).status_code == 200
        after = drafts.current(world.cart)
        assert outline.of_post(outline.form_of(after.outline)) == after.outline
        if after.outline != now.outline and deed not in ("undo", "redo"):
            back = drafts.undo(
                actor=world.users["marketer"], audience=world.cart, number=after.number, revision=after.revision
            )
            assert back.outline == now.outline
        if drafts.current(world.cart).outline != start:
            drafts.save(
                actor=world.users["marketer"],
                audience=world.cart,
                edited=start,
                number=drafts.current(world.cart).number,
                revision=drafts.current(world.cart).revision,
            )

    post()
    assert grammar.canonical(outline.tree_of(drafts.current(world.cart).outline)[0])
