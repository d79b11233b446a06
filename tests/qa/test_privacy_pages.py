"""The pages and the command of privacy requests: an identifier goes in by POST alone, comes out masked or not at all, and states are said."""

import csv
import io
from datetime import timedelta

import orjson
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.utils import timezone

from audiences import jobs
from audiences.models import AuditEntry, Identity, ImportFile, PrivacyRequest, ProfileKey, RefusedRow
from audiences.people import imports
from destinations.models import PrivacyReceipt
from qa import privacy as following
from qa import privacy_page
from tests import filled
from tests.audiences.people_in import erase, number, suppress

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def world():
    return filled.fill()


@pytest.fixture
def admin(world):
    return filled.as_(world, "admin")


def asked(**more):
    return {"identifier": "ann@shop.example", "kind": "erasure", "asked_on": timezone.localdate().isoformat(), **more}


def test_a_request_is_made_in_two_steps_and_shows_the_person_masked(world, admin):
    first = admin.post("/privacy/new/", asked(identifier=" ANN@shop.example ", reference="DSR-17"))
    page = first.content.decode()
    assert first.status_code == 200
    assert "Erase this person?" in page and "a•••@s•••.example" in page and "+49•••78" in page
    assert not PrivacyRequest.objects.exists()

    person = world.person
    unsure = admin.post("/privacy/new/", asked(confirm="1", seen=str(person)))
    assert unsure.status_code == 422 and "Tick this first" in unsure.content.decode()
    other = admin.post("/privacy/new/", asked(confirm="1", sure="on", seen="999"))
    assert other.status_code == 422 and not PrivacyRequest.objects.exists()

    done = admin.post("/privacy/new/", asked(confirm="1", sure="on", seen=str(person), reference="DSR-17"))
    row = PrivacyRequest.objects.get()
    assert done.url == f"/privacy/{row.pk}/"
    assert (row.kind, row.source, row.people, row.reference) == ("erasure", "page", [person], "DSR-17")
    assert row.requested_by == world.users["admin"]
    assert not ProfileKey.objects.filter(profile_no=person).exists()
    line = AuditEntry.objects.get(verb="privacy.asked")
    assert (line.object_key, line.after) == (str(row.pk), {"kind": "erasure", "source": "page", "people": 1})


def test_a_request_begins_on_a_persons_own_page_by_their_number(world, admin):
    assert f'href="/privacy/new/?person={world.person}"' in admin.get(f"/people/{world.person}/").content.decode()
    page = admin.get(f"/privacy/new/?person={world.person}").content.decode()
    assert "a•••@s•••.example" in page and "ann@shop.example" not in page
    body = {key: value for key, value in asked(person=world.person).items() if key != "identifier"}
    confirm = admin.post("/privacy/new/", body).content.decode()
    assert "ann@shop.example" not in confirm
    person = world.person
    admin.post("/privacy/new/", {**body, "confirm": "1", "sure": "on", "seen": str(person)})
    assert PrivacyRequest.objects.get().people == [person]
    assert admin.get(f"/privacy/new/?person={person}").status_code == 404


def test_all_who_answer_to_a_shared_address_are_shown_and_meant(world, admin):
    from tests.destinations.scene import imported

    imported("dad", "mum", email="family@shop.example")
    page = admin.post("/privacy/new/", asked(identifier="family@shop.example")).content.decode()
    assert "Erase these 2 people?" in page and "They all answer to this identifier" in page


def test_somebody_nobody_knows_and_somebody_erased_before_are_told_apart(world, admin):
    unknown = admin.post("/privacy/new/", asked(identifier="ghost@shop.example")).content.decode()
    assert "an identifier nobody has" in unknown and "spelt right" in unknown
    row = erase("ann@shop.example", "email")
    again = admin.post("/privacy/new/", asked()).content.decode()
    assert f'href="/privacy/{row.pk}/"' in again and "cannot come in" in again
    nothing = admin.post("/privacy/new/", asked(identifier="\0"))
    assert nothing.status_code in (200, 422) and PrivacyRequest.objects.count() == 1


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("asked_on", (timezone.localdate() + timedelta(days=2)).isoformat(), "still to come"),
        ("asked_on", "2020-01-01", "More than a year ago"),
        ("reference", "ann@shop.example", "must not hold an e-mail"),
        ("kind", "everything", "valid choice"),
    ],
)
def test_what_makes_no_sense_is_said_at_its_field(admin, field, value, words):
    answer = admin.post("/privacy/new/", asked(**{field: value}))
    assert answer.status_code == 422 and words in answer.content.decode()


def test_only_an_admin_decides_and_an_operator_sees(world, admin):
    row = suppress("bob")
    following.follow()
    operator, marketer = filled.as_(world, "operator"), filled.as_(world, "marketer")
    assert operator.get("/privacy/").status_code == operator.get(f"/privacy/{row.pk}/").status_code == 200
    assert operator.get(f"/privacy/{row.pk}/receipts.csv").status_code == 200
    assert 'href="/privacy/new/"' not in operator.get("/privacy/").content.decode()
    for address in ("/privacy/new/", "/privacy/list/", f"/privacy/{row.pk}/lift/"):
        assert operator.get(address).status_code == operator.post(address, asked()).status_code == 403
    assert marketer.get("/privacy/").status_code == 403
    assert "/privacy/" not in marketer.get("/audiences/").content.decode()


def test_the_list_has_overdue_requests_first_and_says_what_is_late(world, admin):
    now = timezone.now()
    old, late, fresh = erase("ann"), erase("bob"), suppress("ghost@shop.example", "email")
    done = erase("ghost2@shop.example", "email")
    following.follow()
    PrivacyRequest.objects.filter(pk=old.pk).update(due_at=now - timedelta(days=1), state="confirmed")
    PrivacyRequest.objects.filter(pk=late.pk).update(created_at=now - timedelta(hours=25), state="removing")
    assert [row.pk for row in privacy_page.requests(now=now)] == [late.pk, old.pk, done.pk, fresh.pk]
    page = admin.get("/privacy/").content.decode()
    assert "2 overdue" in page and "Past the legal deadline" in page and "Not out everywhere after 24 hours" in page
    overdue = admin.get("/privacy/?state=overdue").content.decode()
    assert f"/privacy/{late.pk}/" in overdue and f"/privacy/{done.pk}/" not in overdue
    kinds = admin.get("/privacy/?kind=suppression").content.decode()
    assert f"/privacy/{fresh.pk}/" in kinds and f"/privacy/{late.pk}/" not in kinds
    assert "No request is under this filter" in admin.get("/privacy/?state=lifted").content.decode()


def test_a_request_shows_its_receipts_and_gives_them_as_csv_without_an_identifier(world, admin):
    world.mapping.state, world.mapping.state_until = "frozen", timezone.now() + timedelta(days=3)
    world.mapping.save()
    row = erase("ann")
    following.follow()
    page = admin.get(f"/privacy/{row.pk}/").content.decode()
    assert "Meta EU" in page and "The connection is frozen until" in page and "Give up on it" in page

    receipt = PrivacyReceipt.objects.get()
    address = f"/privacy/{row.pk}/receipts/{receipt.pk}/give-up/"
    assert "may keep them" in admin.get(address).content.decode()
    assert admin.post(address, {"reason": "no"}).status_code == 422
    admin.post(address, {"reason": "The account was closed in May"})
    following.follow()

    page = admin.get(f"/privacy/{row.pk}/").content.decode()
    assert "Given up on record" in page and "The account was closed in May" in page
    text = b"".join(admin.get(f"/privacy/{row.pk}/receipts.csv").streaming_content).decode()
    (line,) = csv.DictReader(io.StringIO(text))
    assert (line["destination"], line["outcome"], line["reason"]) == (
        "Meta EU", "Given up on record", "The account was closed in May",
    )  # fmt: skip
    for whole in (page, text):
        assert "ann@" not in whole and "15112345678" not in whole
    assert not Identity.objects.filter(email="ann@shop.example").exists()


def test_where_nothing_was_ever_sent_is_said_so(world, admin):
    row = erase("bob")
    following.follow()
    assert "Nothing was ever sent there" in admin.get(f"/privacy/{row.pk}/").content.decode()
    text = b"".join(admin.get(f"/privacy/{row.pk}/receipts.csv").streaming_content).decode()
    assert "Meta EU,,,Nothing was ever sent there" in text


def test_a_spot_check_forgets_what_it_knew_of_somebody_erased(world, admin):
    from qa.models import SpotCheckPerson

    SpotCheckPerson.objects.filter(profile_no=number("ann")).update(note="Ann called")
    person = world.person
    erase("ann")
    world.mapping.ledger.delete()
    following.follow()
    kept = SpotCheckPerson.objects.get(profile_no=person)
    assert (kept.note, kept.rules, kept.receipt) == ("", [], {})
    assert admin.get(f"/audiences/{world.cart.key}/qa/{kept.check_of_id}/").status_code == 200


def test_a_suppression_is_lifted_with_a_reason(world, admin):
    row = suppress("ghost@shop.example", "email")
    following.follow()
    assert admin.post(f"/privacy/{row.pk}/lift/", {"reason": ""}).status_code == 422
    admin.post(f"/privacy/{row.pk}/lift/", {"reason": "Wrote on paper"})
    page = admin.get(f"/privacy/{row.pk}/").content.decode()
    assert "Lifted by Admin" in page and "Wrote on paper" in page
    assert admin.get(f"/privacy/{row.pk}/lift/").status_code == 404
    assert admin.get(f"/privacy/{erase('ann').pk}/lift/").status_code == 404


LIST = b"customer_id,email,note\nann,,x\n,bob@shop.example,y\n,not an address,z\n,,\n,ghost@shop.example,w\n"


def test_a_list_is_taken_in_row_by_row_and_what_cannot_be_read_is_kept(world, admin):
    file = SimpleUploadedFile("requests.csv", LIST)
    body = {"file": file, "kind": "erasure", "asked_on": timezone.localdate().isoformat(), "sure": "on"}
    started = admin.post("/privacy/list/", body)
    (row,) = ImportFile.objects.filter(kind="privacy")
    assert started.url == f"/imports/{row.pk}/"
    jobs.run_due_here(["intake"])
    row.refresh_from_db()
    assert (row.state, row.rows_accepted, row.rows_refused) == ("done", 3, 2)
    assert list(RefusedRow.objects.filter(import_file=row).order_by("line").values_list("line", "reason")) == [
        (4, "not an e-mail address"), (5, "no identifier in this row"),
    ]  # fmt: skip
    assert [(one.source, len(one.people)) for one in PrivacyRequest.objects.order_by("pk")] == [
        ("list", 1), ("list", 1), ("list", 0),
    ]  # fmt: skip
    assert not list(imports.uploads().iterdir())
    assert "requests.csv" in admin.get(f"/privacy/{PrivacyRequest.objects.first().pk}/").content.decode()
    assert admin.get(f"/imports/{row.pk}/").status_code == admin.get("/imports/").status_code == 200


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"name,city\nAnn,Kiel\n", "No column is called"), (b"", "")],
)
def test_a_list_that_names_nobody_is_refused_and_not_kept(admin, content, words):
    body = {"kind": "erasure", "asked_on": timezone.localdate().isoformat(), "sure": "on"}
    answer = admin.post("/privacy/list/", {**body, "file": SimpleUploadedFile("x.csv", content)})
    assert answer.status_code == 422 and words in answer.content.decode()
    assert not list(imports.uploads().iterdir())


def test_the_command_reads_identifiers_from_a_file_and_says_what_it_did(world, tmp_path, capsys):
    world.mapping.ledger.delete()
    path = tmp_path / "ids.txt"
    path.write_text("ann\n\nbob@shop.example\nghost@shop.example\n")
    call_command("erase", str(path), "--json", "--reference", "DSR-9", "--wait", "1")
    said = orjson.loads(capsys.readouterr().out)
    assert (said["rows"], said["refused"]) == (3, [])
    assert [(one["people"], one["state"]) for one in said["requests"]] == [
        (1, "confirmed"),
        (1, "confirmed"),
        (0, "done"),
    ]


def test_the_command_says_what_is_not_through_when_it_waits(world, tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("ann\n")
    with pytest.raises(CommandError, match="Not out everywhere yet"):
        call_command("erase", str(path), "--wait", "1")


def test_the_command_repeats_no_identifier_that_was_given_as_an_argument(world):
    with pytest.raises(CommandError) as told:
        call_command("erase", "ann@shop.example")
    assert "never from arguments" in str(told.value) and "ann" not in str(told.value)


def test_the_command_suppresses_and_says_which_lines_it_could_not_read(world, tmp_path, capsys):
    path = tmp_path / "people.csv"
    path.write_bytes(LIST)
    call_command("erase", str(path), "--suppress", "--asked-on", "2026-01-02")
    said = capsys.readouterr().out
    assert "3 requests taken in from 5 rows; 2 are about people who were known." in said
    assert "line 4: not an e-mail address" in said and "@" not in said
    assert set(PrivacyRequest.objects.values_list("kind", "source")) == {("suppression", "command")}
    assert path.exists()  # it is theirs
    call_command("erase", str(path), "--suppress")
    assert "3 had been asked before." in capsys.readouterr().out
