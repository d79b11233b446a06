"""Spot checks over a real platform: whom they draw, what they say of each, and what it takes to sign one off."""

import itertools
import logging

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from audiences import clock, jobs
from audiences.models import Audience, AuditEntry, Consent, User, frozen
from audiences.segments import evaluate
from audiences.segments.tree import All, InList, Not, leaves
from audiences.segments.tree import Any as AnyOf
from audiences.services import audiences as audience_services
from audiences.services import versions
from destinations.services import Refused
from qa import drawing, spot_check
from qa.models import SpotCheck, SpotCheckPerson
from tests import filled
from tests.audiences.people_in import identify, number, numbers, track
from tests.destinations import scene
from tests.destinations.scene import IN

pytestmark = pytest.mark.django_db(transaction=True)
READERS = {"all": [IN, {"event": "email_opened", "count": {"at_least": 1}, "within": "30d"}]}


def ids(letter, count):
    return [f"{letter}{n:05d}" for n in range(count)]


@pytest.fixture
def readers(sandbox, account_number):
    """30 inside, 8 who opened no mail for long, 8 who are not in, 20 who are nowhere near; a connection whose members can be read."""
    people = filled.users()
    for letter, count, inside in (("a", 30, "yes"), ("b", 8, "yes"), ("c", 8, "no"), ("d", 20, "no")):
        for id in ids(letter, count):
            identify(id, email=f"{id}@shop.example", phone="+4915112345678", **{"in": inside})
    for id in (*ids("a", 30), *ids("c", 8)):
        track(id, "email_opened")
    for id in ids("b", 8):
        track(id, "email_opened", at=clock.now_us() - 60 * clock.DAY)
    made = scene.audience("readers", READERS, purpose="analytics")
    live = scene.live(sandbox, account_number, made, ["external_id", "email"], kind="openlist")
    live.sync()
    return made, live, people


def drawn(made, live, actor, size=20):
    check = spot_check.start(actor=actor, audience=made, connection=live.mapping if live else None, size=size)
    jobs.run_due_here(["compute"])
    check.refresh_from_db()
    return check


def test_half_are_inside_a_quarter_just_left_and_a_quarter_missed_by_one_rule(readers):
    made, live, people = readers
    for id in ids("a", 6):
        identify(id, **{"in": "no"})
    live.sync()

    check = drawn(made, live, people["marketer"])

    assert (check.state, check.error) == ("ready", "")
    of = {
        group: set(check.people.filter(group=group).values_list("profile_no", flat=True))
        for group in ("inside", "left", "outside")
    }
    assert (len(of["inside"]), len(of["left"]), len(of["outside"])) == (10, 5, 5)
    assert of["inside"] <= numbers(*ids("a", 30)) - numbers(*ids("a", 6))
    assert of["left"] <= numbers(*ids("a", 6))
    # Nobody of the twenty who fail both rules, and somebody for each rule that keeps people out by itself.
    assert of["outside"] <= numbers(*ids("a", 6), *ids("b", 8), *ids("c", 8))
    assert of["outside"] & numbers(*ids("b", 8))
    assert of["outside"] & (numbers(*ids("c", 8)) | numbers(*ids("a", 6)))


def test_each_rule_is_shown_with_whether_it_holds_and_the_platform_is_read(readers):
    made, live, people = readers
    check = drawn(made, live, people["marketer"])

    inside = check.people.filter(group="inside")
    for person in inside:
        assert (person.counted, person.judged, person.told, person.step, person.found) == (
            True,
            True,
            "present",
            "",
            True,
        )
        assert [rule["holds"] for rule in person.rules] == [True, True, True]
        assert person.receipt["wanted"] and person.receipt["kind"] == "add" and person.receipt["at"]
    for person in check.people.exclude(group="inside"):
        assert (person.counted, person.judged, person.told, person.found) == (False, False, "absent", False)
        assert sum(rule["decides"] for rule in person.rules) == 1
    assert "let us read its members: all 30" in check.means
    assert str(spot_check.agreement(check.people.all())) == "20 of 20 agree"


def test_whoever_is_lost_at_the_platform_is_found_out(readers, sandbox):
    made, live, people = readers
    live.mapping.refresh_from_db()
    sandbox.forget("openlist", live.mapping.remote_id, 30)

    check = drawn(made, live, people["marketer"])

    result = spot_check.agreement(check.people.all())
    assert (result.agree, result.of, result.enough) == (10, 20, False)
    assert {spot_check.disagreement(one) for one in check.people.filter(group="inside")} == {
        "Told to be there, and not found"
    }


def test_a_step_of_eligibility_explains_who_is_in_and_not_sent(readers):
    made, live, people = readers
    for id in ids("a", 30)[:25]:
        Consent.objects.create(
            profile_no=number(id), purpose="analytics", granted=False, at_us=clock.now_us(), source="test"
        )
    live.sync()

    check = drawn(made, live, people["marketer"])

    stopped = check.people.filter(group="inside", step="consent")
    assert stopped.count() >= 5
    for person in stopped:
        assert (person.told, person.found, person.receipt["wanted"], person.receipt["kind"]) == (
            "absent",
            False,
            False,
            "remove",
        )
        assert spot_check.disagreement(person) == ""


def test_whoever_came_after_the_last_sync_is_not_held_against_it(readers):
    made, live, people = readers
    for n in range(40):
        identify(f"late{n:03d}", email=f"late{n}@shop.example", **{"in": "yes"})
        track(f"late{n:03d}", "email_opened")

    check = drawn(made, live, people["marketer"])

    late = numbers(*(f"late{n:03d}" for n in range(40)))
    assert not late & set(check.people.values_list("profile_no", flat=True))
    assert spot_check.agreement(check.people.all()).enough


def test_what_was_sent_of_an_older_version_is_not_held_against_the_new_one(readers):
    made, live, people = readers
    scene.audience("readers", IN, purpose="analytics")
    made = Audience.objects.get(key="readers")

    check = drawn(made, live, people["marketer"])

    assert check.version.number == 2
    assert "was last told of v1, and this is v2. Sync, then draw again." in check.means
    assert set(check.people.values_list("told", flat=True)) == {""}


def test_a_platform_that_lets_nobody_read_shows_its_receipts(readers, sandbox, account_number):
    made, _, people = readers
    made.purpose = "suppression"  # Meta takes no analytics audiences
    made.save()
    meta = scene.live(sandbox, f"9{account_number}", made, ["email"])
    meta.sync()

    check = drawn(made, meta, people["marketer"])

    assert check.means.startswith("Meta lets nobody read members.")
    inside = check.people.filter(group="inside")
    assert {person.found for person in inside} == {None}
    assert all(person.receipt["request"] for person in inside)
    assert spot_check.agreement(check.people.all()).enough


def test_a_platform_that_cannot_be_reached_leaves_its_side_open(readers, sandbox, account_number):
    made, live, people = readers
    sandbox.dial("error", platform="openlist", account=account_number, op="members", status=500, times=None)
    check = drawn(made, live, people["marketer"])
    sandbox.clear_dials()

    assert check.state == "ready"
    assert "could not be read" in check.means
    assert {person.found for person in check.people.all()} == {None}


def test_by_hand_counts_for_more_than_what_the_platform_said_and_ends_with_the_signature(readers):
    made, live, people = readers
    check = drawn(made, live, people["marketer"])
    person = check.people.filter(group="inside").first()

    spot_check.note(actor=people["operator"], check=check, person=person, found=False, words=" not in the list ")

    person.refresh_from_db()
    assert (person.by_hand, person.note) == (False, "not in the list")
    assert spot_check.disagreement(person) == "Told to be there, and not found"
    spot_check.sign(actor=people["marketer"], check=check)
    with pytest.raises(Refused, match="signed off already"):
        spot_check.note(actor=people["operator"], check=check, person=person, found=True, words="")


def test_below_nine_in_ten_a_signature_says_why(readers, sandbox):
    made, live, people = readers
    live.mapping.refresh_from_db()
    sandbox.forget("openlist", live.mapping.remote_id, 30)
    check = drawn(made, live, people["marketer"])

    with pytest.raises(Refused, match="Only 10 of 20 agree"):
        spot_check.sign(actor=people["marketer"], check=check, words="  ")
    signed = spot_check.sign(actor=people["marketer"], check=check, words="Emptied there by hand, told again tonight")

    assert (signed.state, signed.signed_by, signed.note) == (
        "signed",
        people["marketer"],
        "Emptied there by hand, told again tonight",
    )
    with pytest.raises(Refused, match="signed off by Marketer already"):
        spot_check.sign(actor=people["operator"], check=check)


def test_a_new_version_needs_a_new_spot_check(readers):
    made, live, people = readers
    assert spot_check.standing(made) == "v1: not spot-checked yet."
    check = drawn(made, live, people["marketer"])
    assert spot_check.standing(made) == "v1: drawn, and waiting to be signed."
    late = drawn(made, live, people["marketer"])
    spot_check.sign(actor=people["marketer"], check=check)
    assert spot_check.last_signed(made) == check
    assert spot_check.standing(made).startswith("20 of 20 agree, Marketer, ")

    scene.audience("readers", IN, purpose="analytics")
    made = Audience.objects.get(key="readers")

    assert spot_check.last_signed(made) is None
    assert spot_check.standing(made).startswith("v2: not spot-checked yet. Of v1: 20 of 20 agree, Marketer, ")
    with pytest.raises(Refused, match="v2 is the version now"):
        spot_check.sign(actor=people["marketer"], check=late)


def test_a_draft_can_be_checked_before_it_is_published(readers):
    _, _, people = readers
    made = audience_services.create(actor=None, key="soon", purpose="analytics")
    draft = versions.save_draft(actor=None, audience=made, segment=IN)

    check = drawn(made, None, people["marketer"], size=10)

    assert check.version == draft
    assert check.people.filter(group="inside").count() == 5
    assert check.people.filter(group="outside").count() == 5
    assert spot_check.standing(made) == "v1: drawn, and waiting to be signed."


def test_near_misses_fail_one_rule_and_come_near_it(readers):
    made, _, _ = readers
    found = drawing.draw(spot_check.version_of(made), 20, None)
    outside = [person for person in found.people if person.group == "outside"]
    assert len(outside) == 10  # nobody has left, so there are more of them
    assert {person.profile_no for person in outside} <= numbers(*ids("b", 8), *ids("c", 8))
    for person in outside:
        assert [rule["holds"] for rule in person.rules if not rule["group"]].count(False) == 1


def test_a_rule_that_cannot_be_counted_fails_in_words(readers):
    made, _, people = readers
    check = SpotCheck.objects.create(
        audience=made,
        version=made.versions.create(
            number=7, segment='{"event":"never_seen","count":{"at_least":1}}', sha256="x", sentence="x"
        ),
        asked_by=people["marketer"],
    )
    jobs.ask(spot_check.TASK, check.pk)
    jobs.run_due_here(["compute"])
    check.refresh_from_db()
    assert check.state == "failed"
    assert "never_seen" in check.error


def test_asking_twice_draws_once(readers):
    made, live, people = readers
    first = spot_check.start(actor=people["marketer"], audience=made, connection=live.mapping)
    assert spot_check.start(actor=people["operator"], audience=made, connection=live.mapping) == first
    assert SpotCheck.objects.count() == 1


def test_an_audience_without_a_rule_has_nothing_to_check(readers):
    _, _, people = readers
    bare = audience_services.create(actor=None, key="bare", purpose="analytics")
    with pytest.raises(Refused, match="no rule yet"):
        spot_check.start(actor=people["marketer"], audience=bare)


_trees = st.recursive(
    st.just("leaf"),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from([All, AnyOf]), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just(Not), inner),
    ),
    max_leaves=6,
)


def _grown(shape, numbers):
    """The shape with a leaf of its own at each place."""
    if shape == "leaf":
        return InList(f"list{next(numbers)}")
    kind, inner = shape
    return Not(_grown(inner, numbers)) if kind is Not else kind(tuple(_grown(one, numbers) for one in inner))


@given(_trees, st.randoms(use_true_random=False))
def test_a_leaf_decides_of_exactly_those_for_whom_flipping_it_flips_the_whole(shape, chance):
    tree, universe = _grown(shape, itertools.count()), BitMap(range(24))
    answers = {leaf: BitMap(n for n in universe if chance.random() < 0.5) for _, leaf in leaves(tree)}
    whole = evaluate.members(tree, universe, answers)
    found = dict(drawing.pivots(tree, universe, lambda node: evaluate.members(node, universe, answers)))
    assert found.keys() == answers.keys()
    for leaf, held in answers.items():
        flipped = evaluate.members(tree, universe, {**answers, leaf: universe - held})
        assert found[leaf] == whole ^ flipped


def test_the_pages_ask_as_much_of_many_checks_as_of_one(client, readers):
    made, live, people = readers
    signed_in(client, people, "marketer")
    address = reverse("qa:spot-checks", args=["readers"])

    def asked(url):
        with CaptureQueriesContext(connection) as queries:
            assert client.get(url).status_code == 200
        return len(queries)

    small = drawn(made, live, people["marketer"], size=10)
    of_one, of_ten = asked(address), asked(reverse("qa:spot-check", args=["readers", small.pk]))
    checks = [drawn(made, live, people["marketer"], size=20) for _ in range(3)]
    assert asked(address) == of_one <= 14
    assert asked(reverse("qa:spot-check", args=["readers", checks[0].pk])) == of_ten <= 14


# --- The pages


def signed_in(client, people, role):
    client.force_login(people[role])
    return client


def test_the_pages_lead_from_drawing_to_a_signature(client, readers):
    _, live, people = readers
    signed_in(client, people, "marketer")
    address = reverse("qa:spot-checks", args=["readers"])
    assert "v1: not spot-checked yet." in client.get(address).content.decode()

    started = client.post(reverse("qa:draw-spot-check", args=["readers"]), {"connection": live.mapping.pk, "size": 10})
    drawing_page = client.get(started.url, headers={"HX-Request": "true"})
    assert drawing_page.status_code == 200
    assert "Drawing 10 people" in drawing_page.content.decode()
    jobs.run_due_here(["compute"])
    ready = client.get(started.url, headers={"HX-Request": "true"})
    assert ready.status_code == 286  # htmx stops asking
    text = client.get(started.url).content.decode()
    assert "10 of 10" in text and "Inside · 5" in text

    check = SpotCheck.objects.get()
    person = check.people.first()
    noted = client.post(
        reverse("qa:note-spot-check", args=["readers", check.pk, person.pk]), {"by_hand": "yes", "note": "in the UI"}
    )
    assert noted.url.endswith(f"#person-{person.pk}")
    signed = client.post(reverse("qa:sign-spot-check", args=["readers", check.pk]), {"note": ""}, follow=True)
    assert "Signed off: 10 of 10 agree, Marketer" in signed.content.decode()
    again = client.post(reverse("qa:sign-spot-check", args=["readers", check.pk]), {"note": ""}, follow=True)
    assert "signed off by Marketer already" in again.content.decode()
    assert list(AuditEntry.objects.filter(verb__startswith="spot_check").values_list("verb", flat=True)) == [
        "spot_check.started", "spot_check.noted", "spot_check.signed",
    ]  # fmt: skip


def test_a_poor_result_is_not_signed_without_a_note(client, readers, sandbox):
    made, live, people = readers
    live.mapping.refresh_from_db()
    sandbox.forget("openlist", live.mapping.remote_id, 30)
    check = drawn(made, live, people["marketer"])
    signed_in(client, people, "marketer")
    answer = client.post(reverse("qa:sign-spot-check", args=["readers", check.pk]), {"note": ""})
    assert answer.status_code == 422
    assert "Say why it may be signed off all the same." in answer.content.decode()


@pytest.mark.parametrize(
    "form",
    [
        {"size": "3"},
        {"size": "twenty"},
        {"size": "20", "connection": "999999"},
        {"size": "20", "connection": "x' OR 1"},
        {},
    ],
)
def test_a_forged_form_is_answered_beside_its_fields(client, readers, form):
    _, _, people = readers
    signed_in(client, people, "marketer")
    answer = client.post(reverse("qa:draw-spot-check", args=["readers"]), form)
    assert answer.status_code == 422
    assert not SpotCheck.objects.exists()


def test_forged_numbers_and_long_notes_break_nothing(client, readers):
    made, live, people = readers
    check = drawn(made, live, people["marketer"], size=10)
    other = scene.audience("other", IN, purpose="analytics")
    signed_in(client, people, "marketer")
    for address in (
        reverse("qa:spot-check", args=["other", check.pk]),
        reverse("qa:spot-check", args=["readers", 10**30]),
        reverse("qa:spot-checks", args=["nothing"]),
    ):
        assert client.get(address).status_code == 404
    person = check.people.first()
    assert client.post(reverse("qa:note-spot-check", args=["readers", check.pk, 10**30]), {}).status_code == 404
    note = reverse("qa:note-spot-check", args=["readers", check.pk, person.pk])
    assert client.post(note, {"note": "x" * 10_000}).status_code == 422
    assert client.post(note, {"by_hand": "maybe"}).status_code == 422
    client.post(note, {"by_hand": "no", "note": "<img onerror=alert(1)>"})
    text = client.get(reverse("qa:spot-check", args=["readers", check.pk])).content.decode()
    assert "<img" not in text and "&lt;img onerror" in text
    assert other.spot_checks.count() == 0


def test_the_buyer_sees_none_of_it(client, readers):
    made, live, people = readers
    check = drawn(made, live, people["marketer"], size=10)
    signed_in(client, people, "buyer")
    for address in (reverse("qa:spot-checks", args=["readers"]), reverse("qa:spot-check", args=["readers", check.pk])):
        assert client.get(address).status_code == 403
    assert client.post(reverse("qa:draw-spot-check", args=["readers"]), {"size": "20"}).status_code == 403
    assert client.post(reverse("qa:sign-spot-check", args=["readers", check.pk])).status_code == 403


def test_nothing_personal_is_kept_shown_or_logged(client, readers, caplog):
    made, live, people = readers
    caplog.set_level(logging.DEBUG)
    check = drawn(made, live, people["marketer"])
    signed_in(client, people, "marketer")
    text = client.get(reverse("qa:spot-check", args=["readers", check.pk])).content.decode()
    rows = str(list(SpotCheckPerson.objects.values())) + str(list(SpotCheck.objects.values()))
    trail = str(list(AuditEntry.objects.values()))
    for place in (text, rows, trail, caplog.text):
        assert "shop.example" not in place
        assert "15112345678" not in place
    for id in (*ids("a", 30), *ids("b", 8), *ids("c", 8)):
        assert id not in rows + trail + caplog.text + text  # ids are masked too


def test_users_who_are_gone_keep_their_signature_readable(client, readers):
    made, live, people = readers
    check = drawn(made, live, people["marketer"], size=10)
    leaver = User.objects.create(email="leaver@example.com", role="marketer", name="Lea Leaver")
    spot_check.sign(actor=leaver, check=check)
    with frozen.set_aside():  # the audit trail, which names them, is kept from changes
        leaver.delete()
    assert "a user who is gone" in spot_check.standing(made)
