"""Faults about people themselves (rows 33 to 35 and 43 to 45 of the matrix): changed identifiers, shared ones, merges, withdrawn
consent, erasures, and rows that are not what they should be. Each is forced for real, and held against the sandbox's own member set.
"""

import base64
import dataclasses
import gzip
import json
import threading
import time
from datetime import timedelta

import orjson
import pytest
from django.db import connections, transaction
from django.test import Client
from django.utils import timezone

from audiences import jobs
from audiences.bitmaps import unpack
from audiences.models import (
    Consent,
    Event,
    Identity,
    ImportFile,
    LakeFile,
    PrivacyRequest,
    Profile,
    ProfileKey,
    RefusedRow,
    Tombstone,
    User,
)
from audiences.people import imports, lake, privacy, privacy_lists
from audiences.services import api_keys, workspace
from destinations.connectors.meta import Meta
from destinations.models import Mapping, Operation, PrivacyReceipt, Run
from destinations.services import Refused, erasures, mappings, runs
from qa import privacy as following
from tests.audiences.people_in import erase, identify, merge, number, suppress, track
from tests.destinations import scene
from tests.destinations.scene import hashes, sha

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def one_a_call(monkeypatch):
    """Calls of one person each, so that a run has several."""
    monkeypatch.setattr(Meta, "capabilities", dataclasses.replace(Meta.capabilities, batch_size=1))


def during(connected, act):
    """A run in which `act` happens once, after its first call."""
    done = []

    def between(run):
        if not done:
            done.append(True)
            act()

    run = runs.request(actor=None, mapping=connected.mapping, start=False)
    return runs.run_to_end(run, progress=between)


def carried_since(moment, *identities):
    """Of the calls prepared after this moment, the adds that carry one of these."""
    adds = Operation.objects.filter(kind="add", prepared_at__gt=moment)
    return [op.pk for op in adds if set(unpack(op.identities)) & set(identities)]


def current_hashes():
    rows = Identity.objects.filter(replaced_at=None).values_list("email", "phone")
    return {sha(email) for email, _ in rows if email} | {sha(phone.lstrip("+")) for _, phone in rows if phone}


# --- 33: identifiers that change


@pytest.mark.parametrize("kind", ["meta", "google", "openlist"])
def test_fault_33_after_a_change_of_identifiers_the_platform_holds_none_of_the_old_ones(kind, sandbox, account_number):
    scene.workspace()
    scene.imported("anna", "bert", phone="+4915112345678")
    track("zoe", "purchase")
    made = scene.audience("cart", scene.NO_PURCHASE)
    kinds = ("email", "external_id") if kind == "openlist" else ("email", "phone")
    connected = scene.live(sandbox, account_number, made, kinds, kind=kind)
    connected.sync()
    before = connected.held()

    identify("anna", email="anna.new@example.com", phone="+4915187654321")
    identify("bert", phone=None)
    connected.sync()

    held = {value for _, value in connected.held()}
    assert held and held != {value for _, value in before}
    assert sha("anna@example.com") not in held and sha("anna.new@example.com") in held
    assert {value for value in held if len(value) == 64} <= current_hashes() | {sha("+4915187654321")}


def test_fault_33_an_address_that_changes_during_a_run_is_not_left_behind(cart, one_a_call):
    during(cart, lambda: identify("anna", email="anna.new@example.com"))
    cart.sync()
    assert cart.emails() == hashes("anna.new", "bert", "carl")


# --- 34: identifiers that are shared


@pytest.fixture
def family(sandbox, account_number):
    """Anna and Bert with one address, Carl beside them."""
    scene.workspace()
    scene.imported("anna", "bert", email="family@example.com")
    scene.imported("carl")
    track("zoe", "purchase")
    connected = scene.live(sandbox, account_number, scene.audience("cart", scene.NO_PURCHASE))
    connected.sync()
    assert connected.emails() == hashes("family", "carl")
    return connected


def test_fault_34_a_shared_address_stays_while_one_of_them_is_wanted(family):
    identify("anna", **{"in": "no"})
    family.sync()
    assert family.emails() == hashes("family", "carl")
    identify("bert", **{"in": "no"})
    family.sync()
    assert family.emails() == hashes("carl")


@pytest.mark.parametrize("veto", ["purchase", "consent", "erasure", "suppression"])
def test_fault_34_a_purchase_a_no_or_a_request_of_one_takes_the_shared_address_away_for_good(family, veto):
    match veto:
        case "purchase":
            track("anna", "purchase")
        case "consent":
            identify("anna", consent_ad_user_data=False)
        case "erasure":
            erase("anna")
        case "suppression":
            suppress("anna")
    for _ in range(3):
        family.sync()
        assert family.emails() == hashes("carl")
        following.follow()  # what is forgotten of Anna must not let Bert's copy go out again
    if veto in ("erasure", "suppression"):
        assert PrivacyRequest.objects.get().forgotten_at is not None
        assert not Identity.objects.filter(email="family@example.com").exists()
        assert Identity.objects.get(profile_no=number("bert"), replaced_at=None).email == ""
        assert ProfileKey.objects.filter(kind="id", value="bert").exists()


def test_fault_34_a_number_that_many_have_names_nobody_and_stays_with_them():
    scene.workspace()
    scene.imported(*(f"p{n}" for n in range(25)), phone="+4940123456")
    request = erase("p1")
    assert Identity.objects.filter(phone="+4940123456", replaced_at=None).count() == 24
    assert not Tombstone.objects.filter(kind="phone").exists()
    assert len(request.identities) == 1
    with pytest.raises(privacy.NotAsked, match="more than 20"):
        erase("+4940123456", "phone")


def test_fault_34_who_took_on_the_address_in_a_transaction_that_did_not_know_yet_gives_it_back(cart):
    """On PostgreSQL a writer that had looked for tombstones before the removal may commit after it."""
    cart.sync()
    request = erase("anna")
    buried = list(Tombstone.objects.all())
    Tombstone.objects.all().delete()
    identify("dora", email="anna@example.com", **{"in": "yes"})
    Tombstone.objects.bulk_create(buried)
    for _ in range(3):
        cart.sync()
        following.follow()
    assert cart.emails() == hashes("bert", "carl")
    request.refresh_from_db()
    assert request.forgotten_at and not Identity.objects.filter(email="anna@example.com").exists()
    assert Identity.objects.get(profile_no=number("dora"), replaced_at=None).email == ""


# --- 35: merges


def test_fault_35_a_merge_during_a_run_orphans_no_hash(cart, one_a_call):
    during(cart, lambda: merge("bert", "carl"))
    cart.sync()
    assert cart.emails() == hashes("anna", "bert")
    owners = dict(Identity.objects.values_list("identity_no", "profile_no"))
    live = set(Profile.objects.filter(state="live").values_list("pk", flat=True))
    ledger = cart.ledger()
    assert {owners[identity] for identity in unpack(ledger.present)} <= live
    assert not unpack(ledger.unknown)


def test_fault_35_who_is_merged_and_then_erased_is_out_by_both_names(cart):
    cart.sync()
    merge("bert", "carl")
    erase("bert")
    cart.sync()
    assert cart.emails() == hashes("anna")
    following.follow()
    assert PrivacyRequest.objects.get().forgotten_at is not None
    assert not Identity.objects.exclude(email="").exclude(email="anna@example.com").exists()


# --- 43: consent


WITHDRAWALS = {
    "outright": lambda id: identify(id, consent_ad_user_data=False),
    "by an attribute": lambda id: identify(id, ads_ok="no"),
    "by another reading of an attribute": lambda id: (
        identify(id, marketing="gone"),
        workspace.change(
            actor=None, consent_attributes=[{"attribute": "marketing", "purposes": ["ad_user_data"], "no": ["gone"]}]
        ),
        jobs.run_due_here(["compute"]),
    ),
}


@pytest.mark.parametrize("way", WITHDRAWALS)
def test_fault_43_no_batch_holds_anybody_who_withdrew_before_it_was_prepared(cart, one_a_call, way):
    workspace.change(actor=None, consent_attributes=[{"attribute": "ads_ok", "purposes": ["ad_user_data"]}])
    jobs.run_due_here(["compute"])
    withdrawn = {}

    def withdraw():
        there = next(id for id in ("anna", "bert", "carl") if sha(f"{id}@example.com") in cart.emails())
        ahead = next(id for id in ("anna", "bert", "carl") if sha(f"{id}@example.com") not in cart.emails())
        for id in (there, ahead):
            withdrawn[id] = scene.identity_of(id)
            WITHDRAWALS[way](id)
        withdrawn["at"] = timezone.now()

    during(cart, withdraw)

    at = withdrawn.pop("at")
    assert not carried_since(at, *withdrawn.values())
    assert cart.emails() == hashes("anna", "bert", "carl") - hashes(*withdrawn)
    removed = [op for op in cart.operations() if op.kind == "remove"]
    assert [op.cause for op in removed] == ["consent"]


def test_fault_43_consent_for_one_use_is_not_consent_for_another(cart, sandbox, account_number):
    analytics = scene.live(
        sandbox, account_number, scene.audience("funnel", scene.NO_PURCHASE, purpose="analytics"), kind="openlist",
        identifiers=("email",),
    )  # fmt: skip
    identify("anna", consent_analytics=False)
    identify("bert", consent_ad_personalization="denied")
    cart.sync()
    analytics.sync()
    assert cart.emails() == hashes("anna", "carl")
    assert {value for kind, value in analytics.held() if kind == "email"} == hashes("bert", "carl")


# --- 44: erasure


def receipt(request=None):
    return PrivacyReceipt.objects.get(**({"request": request} if request else {}))


def pii(id_="anna"):
    return Identity.objects.filter(email=f"{id_}@example.com").exists()


def to_the_end(request):
    """Every job that has to come along comes along; the files are swept as if ten minutes had passed."""
    following.follow()
    following.look_at_files()
    lake.project_profiles()
    lake.forget_removed()
    LakeFile.objects.exclude(dead_at=None).update(dead_at=timezone.now() - timedelta(hours=1))
    lake.sweep_files()
    following.look_at_files()
    request.refresh_from_db()
    return request


def test_fault_44_an_erasure_while_the_call_is_out_is_removed_then_forgotten_and_cannot_come_back(cart, sandbox):
    sandbox.dial("hang", platform="meta", account=cart.account, op="add", seconds=2, apply=True)
    working = threading.Thread(target=lambda: (cart.sync(), connections.close_all()))
    working.start()
    deadline = time.monotonic() + 20
    while not Operation.objects.filter(state="prepared").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    request = erase("anna")
    following.follow()
    assert pii() and PrivacyRequest.objects.get().state == "removing"
    working.join()
    Operation.objects.filter(open=True).update(reassert_at=timezone.now())

    cart.sync()

    assert cart.emails() == hashes("bert", "carl")
    assert [op.cause for op in cart.operations() if op.kind == "remove"] == ["erasure"]
    following.follow()
    request.refresh_from_db()
    assert (request.state, pii()) == ("confirmed", False)
    kept = receipt()
    assert (kept.state, kept.identifiers, bool(kept.platform_request_id)) == ("accepted", ["email"], True)
    assert kept.left_at <= kept.sent_at <= kept.accepted_at


def test_fault_44_nothing_is_forgotten_while_a_platform_has_not_taken_the_removal(cart, sandbox):
    cart.sync()
    sandbox.dial("error", platform="meta", account=cart.account, op="remove", status=500, times=None)
    request = erase("anna")
    for _ in range(2):
        cart.sync(patience=timedelta(0))
        following.follow()
        assert pii() and cart.emails() == hashes("anna", "bert", "carl")
    request.refresh_from_db()
    assert (request.state, receipt().state) == ("removing", "removing")
    assert receipt().waits

    sandbox.clear_dials()
    Operation.objects.filter(open=True).update(reassert_at=timezone.now())
    cart.sync()
    following.follow()
    assert (pii(), cart.emails()) == (False, hashes("bert", "carl"))


def test_fault_44_a_platform_that_is_given_up_on_record_no_longer_keeps_identifiers(cart, sandbox):
    admin = User.objects.create(email="admin@example.com", role="admin")
    cart.sync()
    mappings.freeze(
        actor=None, mapping=cart.mapping, reason="Account under review", until=timezone.now() + timedelta(hours=1)
    )
    request = erase("anna")
    following.follow()
    assert "frozen" in receipt().waits
    with pytest.raises(Refused):
        erasures.give_up(actor=admin, receipt=receipt(), reason=" ")
    assert pii()

    erasures.give_up(actor=admin, receipt=receipt(), reason="The account was closed in May")
    following.follow()

    request.refresh_from_db()
    assert (request.state, pii()) == ("confirmed", False)
    kept = receipt()
    assert (kept.state, kept.given_up_by, kept.given_up_reason) == ("given_up", admin, "The account was closed in May")
    with pytest.raises(Refused):
        erasures.give_up(actor=admin, receipt=kept, reason="Once more")


def test_fault_44_an_erasure_goes_ahead_of_everything_and_past_every_hold(cart, sandbox, one_a_call):
    scene.imported(*(f"p{n}" for n in range(4)))
    cart.sync()
    before = cart.operations()[-1].pk
    for n in range(3):
        identify(f"p{n}", **{"in": "no"})
    scene.imported("q1", "q2")
    track("p3", "purchase")
    erase("anna")
    cart.sync()
    later = [(op.kind, op.cause) for op in cart.operations() if op.pk > before]
    assert later[0] == ("remove", "erasure")
    assert later[1] == ("remove", "purchase")


def test_fault_44_everywhere_that_holds_somebody_is_told_and_what_holds_nobody_is_named(cart, sandbox, account_number):
    for kind in ("google", "openlist"):
        scene.live(sandbox, account_number, cart.mapping.audience, kind=kind).sync()
    scene.destination(sandbox, account_number, "webhook")
    cart.sync()
    request = erase("anna@example.com", "email")
    for _ in range(2):
        for mapping in Mapping.objects.all():
            scene.Scene(sandbox, mapping, account_number).sync()
        following.follow()
    request.refresh_from_db()
    states = dict(PrivacyReceipt.objects.values_list("platform", "state"))
    assert states == {"meta": "accepted", "google": "confirmed", "openlist": "accepted"}
    assert request.untouched == [f"webhook_{account_number}"]
    for mapping in Mapping.objects.all():
        assert sha("anna@example.com") not in {v for _, v in scene.Scene(sandbox, mapping, account_number).held()}


@pytest.mark.parametrize("asked", ["erasure", "suppression"])
def test_fault_44_who_is_gone_comes_back_by_no_identifier_and_no_door(cart, asked, tmp_path):
    identify("anna", phone="+4915112345678", shoe_size="38")
    track("anna", "purchase", note="Anna's parcel")
    lake.flush()
    lake.project_profiles()
    track("anna", "view")
    RefusedRow.objects.create(source="import", reason="is no time", raw='["anna", "anna@example.com", "yesterday"]')
    RefusedRow.objects.create(source="track_v2", reason="x", raw='{"identifiers": {"email": " ANNA@Example.com"}}')
    RefusedRow.objects.create(source="track_v1", reason="not JSON", raw='{"phone": "0151 1234 5678", "broken')
    other = RefusedRow.objects.create(source="import", reason="is no time", raw='["bert", "bert@example.com", ""]')
    Run.objects.create(mapping=cart.mapping, trigger="person", rehearsal=True, sample_payload='["9f86d0…"]')
    workspace.change(actor=None, default_region="DE")
    cart.sync()
    person = number("anna")

    request = (erase if asked == "erasure" else suppress)("anna")
    cart.sync()
    request = to_the_end(request)

    assert request.state == "done" and request.done_at
    assert Profile.objects.get(pk=person).attributes == "{}"
    assert not Event.objects.filter(profile_no=person).exists()
    assert not lake.holding([person])
    assert [row.pk for row in RefusedRow.objects.exclude(raw="")] == [other.pk]
    assert not Run.objects.exclude(sample_payload="").exists()
    assert not Consent.objects.filter(profile_no=person).exists()
    for model in (Identity, Profile, ProfileKey, RefusedRow, PrivacyRequest, PrivacyReceipt, Tombstone, ImportFile):
        text = str(list(model.objects.values()))
        assert "anna" not in text and "15112345678" not in text, model

    # Every door, by every identifier.
    word = {"erasure": "erased on request", "suppression": "suppressed on request"}[asked]
    key = api_keys.create("Shop", actor=None)
    api = Client(headers={"authorization": "Basic " + _basic(key)})
    for identifiers in ({"id": "anna"}, {"email": "anna@example.com"}, {"phone": "+4915112345678"}):
        body = {"type": "person", "action": "identify", "identifiers": identifiers, "attributes": {"plan": "gold"}}
        assert api.post("/api/v2/entity", body, content_type="application/json").status_code == 200
    api.post(
        "/api/v1/customers/anna2", {"email": "Anna@example.com"}, content_type="application/json"
    )  # another id, the same address
    file = tmp_path / "people.csv.gz"
    file.write_bytes(
        gzip.compress(b"id,email,phone\nanna,,\nx1,ANNA@example.com,\nx2,,0151 12345678\ndora,dora@example.com,\n")
    )
    people = {"id": "id", "email": "email", "phone": "phone"}
    done = imports.run_here(imports.start(file, "profiles", people, in_background=False))
    events = tmp_path / "events.csv"
    events.write_text("who,when\nanna,2026-05-01\ndora,2026-05-01\n")
    told = imports.start(events, "events", {"profile": "who", "time": "when"}, event_name="view", in_background=False)
    told = imports.run_here(told)
    assert (done.rows_accepted, done.rows_refused) == (1, 3)
    assert (told.rows_accepted, told.rows_refused) == (1, 1)
    late = RefusedRow.objects.filter(pk__gt=other.pk)
    assert set(late.values_list("reason", "raw")) == {(word, "")}
    assert set(late.filter(source="import").values_list("line", flat=True)) == {2, 3, 4}
    assert set(late.filter(source="track_v2").values_list("field", flat=True)) == {"id", "email", "phone"}
    assert not Identity.objects.filter(email="anna@example.com").exists()
    assert not ProfileKey.objects.filter(value__in=["anna", "anna@example.com", "+4915112345678"]).exists()
    assert sum(Tombstone.objects.values_list("refused", flat=True)) >= 8
    cart.sync()
    assert sha("anna@example.com") not in cart.emails()


def test_fault_44_a_broken_call_about_somebody_erased_is_on_record_without_what_it_held(cart):
    erase("anna")
    key = api_keys.create("Shop", actor=None)
    api = Client(headers={"authorization": "Basic " + _basic(key)})
    body = '{"data": {"email": "anna@example.com"}}'
    assert api.post("/api/v1/customers/bert/events", body, content_type="application/json").status_code == 400
    assert api.post("/api/v1/customers/bert/events", '{"data": {}}', content_type="application/json").status_code == 400
    assert [bool(row.raw) for row in RefusedRow.objects.order_by("pk")] == [False, True]


def test_fault_44_an_erasure_of_somebody_suppressed_before_cannot_be_lifted(cart):
    cart.sync()
    first = suppress("anna")
    cart.sync()
    to_the_end(first)
    second = erase("anna@example.com", "email")
    assert second.people == first.people
    with transaction.atomic():
        assert not privacy.unsuppress(("id", "anna"))
    identify("anna", email="anna@example.com")
    assert not ProfileKey.objects.filter(value="anna").exists()
    assert Profile.objects.get(pk=first.people[0]).state == "erased"


def test_fault_44_a_suppression_that_is_lifted_lets_a_new_person_in(cart):
    cart.sync()
    request = suppress("anna")
    with pytest.raises(privacy.NotAsked, match="still being taken out"), transaction.atomic():
        privacy.lift(request, actor=None)
    cart.sync()
    request = to_the_end(request)
    with transaction.atomic():
        privacy.lift(request, actor=None, reason="Asked again to be written to")
    identify("anna", email="anna@example.com", **{"in": "yes"})
    cart.sync()
    assert cart.emails() == hashes("anna", "bert", "carl")
    assert number("anna") not in request.people


def test_fault_44_somebody_nobody_knows_is_kept_from_coming_in(cart):
    request = erase("ghost@example.com", "email")
    following.follow()
    request.refresh_from_db()
    assert (request.people, request.state, request.outcome) == ([], "done", "Erased")
    identify("ghost", email="ghost@example.com")
    assert not ProfileKey.objects.filter(value__startswith="ghost").exists()


# --- 45: rows that are not what they should be

WRONG = {
    "NUL": b"a\x00b,nul@example.com,gold",
    "bytes that are no UTF-8": b"\xff\xfe,utf@example.com,gold",
    "too many cells": b"many,many@example.com,gold,and,more",
    "no id": b",noid@example.com,gold",
    "an id beyond its limit": b"x" * 151 + b",long@example.com,gold",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_fault_45_a_bad_row_is_set_aside_and_every_other_row_comes_in(wrong, tmp_path):
    scene.workspace()
    rows = [f"good{n},good{n}@example.com,gold".encode() for n in range(40)]
    file = tmp_path / "people.csv"
    file.write_bytes(b"\n".join([b"id,email,plan", *rows[:20], WRONG[wrong], *rows[20:], b""]))
    done = imports.run_here(imports.start(file, "profiles", {"id": "id", "email": "email"}, in_background=False))
    assert (done.state, done.rows_read, done.rows_accepted, done.rows_refused) == ("done", 41, 40, 1)
    assert RefusedRow.objects.get().line == 22
    assert ProfileKey.objects.filter(kind="id", value__startswith="good").count() == 40

    again = tmp_path / "erase.csv"
    again.write_bytes(file.read_bytes())
    asked = privacy_lists.start(
        again, actor=None, kind="erasure", source="list", in_background=False, reference="spring"
    )
    asked = imports.run_here(asked)
    assert (asked.rows_accepted, asked.rows_refused) == (40, 1) if wrong != "no id" else (41, 0)
    assert not Profile.objects.filter(state="live").exists()


@pytest.mark.parametrize(
    "text", ["a\x00b", "\ud800", "\udfff lone", "аnna", "anna\u202egnp", "İSTANBUL", "🧦" * 30, "a" * 10_000]
)
def test_fault_45_whatever_an_api_call_holds_it_is_taken_in_or_refused_and_the_next_one_counts(text):
    scene.workspace()
    key = api_keys.create("Shop", actor=None)
    api = Client(headers={"authorization": "Basic " + _basic(key)})
    item = {"type": "person", "action": "identify", "identifiers": {"id": text}, "attributes": {"city": text}}
    good = {"type": "person", "action": "identify", "identifiers": {"id": "good"}, "attributes": {"city": "Kiel"}}
    body = json.dumps({"batch": [item, good]}).encode()
    answer = api.post("/api/v2/batch", body, content_type="application/json")
    assert answer.status_code in (200, 207)
    refused = len(orjson.loads(answer.content).get("errors", ()))
    assert ProfileKey.objects.filter(kind="id").count() == 2 - refused
    assert number("good")
    assert RefusedRow.objects.count() == refused
    assert ProfileKey.objects.filter(kind="id", value="anna").count() == 0  # what looks like it is not it


def _basic(key):
    return base64.b64encode(f"{key.key.site_id}:{key.secret}".encode()).decode()
