"""The record in files: who was a member when, what was told to platforms and what became of it, what people did; by external id alone."""

import csv
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command
from pyroaring import BitMap

from audiences import bitmaps, clock, history, spreadsheets
from audiences.models import AuditEntry, Refresh
from audiences.people import lake
from audiences.services import refreshes
from destinations import eligibility
from destinations.eligibility import Step
from destinations.models import Mapping, Operation
from destinations.record import files, shape
from tests.audiences.people_in import erase, identify, merge, number, track, until_counted
from tests.destinations import scene

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_lake(settings, tmp_path):
    settings.LAKE_URL = str(tmp_path / "lake")


def exported(folder, *arguments, file_format="parquet"):
    """table → rows, as written by the command."""
    call_command("export_record", *arguments, "--to-folder", str(folder), "--format", file_format)
    if file_format == "parquet":
        return {path.stem: pq.read_table(path).to_pylist() for path in folder.glob("*.parquet")}
    return {path.stem: list(csv.DictReader(path.open(newline=""))) for path in folder.glob("*.csv")}


def moment(us):
    return clock.from_us(us)


@pytest.fixture
def cart():
    scene.workspace()
    scene.imported("anna", "bert", "carl")
    identify("nameless@example.com", **{"in": "yes"})  # known by e-mail alone: has no name to be called by
    track("anna", "purchase", at=clock.now_us() - clock.DAY, value=20, note="=1+1")
    until_counted()
    return scene.audience("cart", scene.IN)


def test_memberships_are_what_history_says_of_each(cart, tmp_path):
    refreshes.refresh([cart], cause=Refresh.Cause.MANUAL)
    identify("bert", **{"in": "no"})
    until_counted()
    refreshes.refresh([cart], cause=Refresh.Cause.MANUAL)
    identify("bert", **{"in": "yes"})
    until_counted()
    refreshes.refresh([cart], cause=Refresh.Cause.MANUAL)

    rows = exported(tmp_path / "out")["memberships"]

    told = {(row["external_id"], row["entered_at"]): row for row in rows}
    assert len(told) == len(rows) == 4
    for id in ("anna", "bert", "carl"):
        for stay in history.stays(cart, number(id)):
            row = told[id, moment(stay.entered_us)]
            assert row["audience_key"] == "cart"
            assert row["left_at"] == (None if stay.left_us is None else moment(stay.left_us))
            assert (row["entered_version"], row["since_before"]) == (stay.entered_version, stay.since_before)


def test_a_period_shows_the_record_as_it_was_at_its_end(cart, tmp_path):
    first = refreshes.refresh([cart], cause=Refresh.Cause.MANUAL)["cart"]
    identify("bert", **{"in": "no"})
    until_counted()
    second = refreshes.refresh([cart], cause=Refresh.Cause.MANUAL)["cart"]
    between, after = moment(second.as_of_us - 1).isoformat(), moment(second.as_of_us + 1).isoformat()

    early = exported(tmp_path / "early", "cart", "--to", between)["memberships"]
    late = exported(tmp_path / "late", "cart", "--from", after)["memberships"]

    assert {row["external_id"]: row["left_at"] for row in early} == {"anna": None, "bert": None, "carl": None}
    assert {row["external_id"] for row in late} == {"anna", "carl"}
    assert {row["entered_at"] for row in late} == {moment(first.as_of_us)}


def test_events_are_those_of_the_period_of_whoever_was_a_member_wherever_they_lie(cart, tmp_path):
    refreshes.refresh([cart], cause=Refresh.Cause.MANUAL)
    track("zoe", "purchase", value=1)  # no member
    track("carl", "view", at=clock.now_us() - 40 * clock.DAY)
    until_counted()
    lake.flush()
    track("carl", "purchase", value=7)
    since = datetime.now(UTC) - timedelta(days=10)

    mine = exported(tmp_path / "mine", "cart", "--from", since.isoformat())["events"]
    everybody = exported(tmp_path / "all")["events"]

    assert sorted((row["external_id"], json.loads(row["properties"])["value"]) for row in mine) == [
        ("anna", 20),
        ("carl", 7),
    ]
    assert sorted(row["external_id"] for row in everybody) == ["anna", "carl", "carl", "zoe"]


def test_what_was_told_to_a_platform_is_told_for_each_call_and_each_person_in_it(
    cart, sandbox, account_number, tmp_path
):
    connected = scene.live(sandbox, account_number, cart)
    bad = scene.sha("bert@example.com")
    sandbox.dial("poison", platform="meta", account=connected.account, op="add", times=None, values=[bad])
    connected.sync()
    sandbox.clear_dials()
    identify("anna", **{"in": "no"})
    until_counted()
    connected.sync()
    Operation.objects.filter(kind="add").update(open=False)

    found = exported(tmp_path / "out", "cart")

    calls = {row["delivery_id"]: row for row in found["deliveries"]}
    operations = {operation.pk: operation for operation in Operation.objects.all()}
    assert calls.keys() == operations.keys()
    for key, row in calls.items():
        operation = operations[key]
        assert (row["kind"], row["people"], row["destination_key"]) == (
            operation.kind,
            operation.count,
            "meta_" + account_number,
        )
        if row["outcome"] == "accepted":
            assert (row["accepted"], row["rejected"], row["unknown"]) == (operation.accepted, operation.rejected, 0)
    last = {}  # what became of each at the last call that carried them
    for row in sorted(found["delivered_people"], key=lambda row: row["delivery_id"]):
        last[row["external_id"], calls[row["delivery_id"]]["kind"]] = (row["outcome"], bool(row["reason"]))
    assert last == {
        ("anna", "add"): ("accepted", False), ("bert", "add"): ("rejected", True), ("carl", "add"): ("accepted", False),
        ("anna", "remove"): ("accepted", False),
    }  # fmt: skip


def test_what_a_platform_refused_stays_with_the_call_when_it_takes_the_person_later(
    cart, sandbox, account_number, tmp_path
):
    connected = scene.live(sandbox, account_number, cart)
    bad = scene.sha("bert@example.com")
    sandbox.dial("poison", platform="meta", account=connected.account, op="add", times=None, values=[bad])
    connected.sync()
    sandbox.clear_dials()
    connected.mapping.rejections.update(retry_at=clock.from_us(0))
    connected.sync()
    assert not connected.mapping.rejections.exists()

    rows = exported(tmp_path, "cart", "--table", "delivered_people")["delivered_people"]

    berts = [row["outcome"] for row in rows if row["external_id"] == "bert"]
    assert berts[-2:] == ["rejected", "accepted"]


def test_where_a_platform_does_not_say_whom_it_refused_nobody_is_called_accepted(
    cart, sandbox, account_number, tmp_path
):
    connected = scene.live(sandbox, account_number, cart)
    sandbox.dial("partial", platform="meta", account=connected.account, op="add", rows=[0])
    connected.sync()

    found = exported(tmp_path, "cart", "--table", "delivered_people", "--table", "deliveries")

    assert [(row["accepted"], row["rejected"]) for row in found["deliveries"]] == [(3, 1)]
    assert {row["outcome"] for row in found["delivered_people"]} == {"unknown"}
    assert set(found) == {"delivered_people", "deliveries"}


def test_arms_are_told_once_each_from_the_first_sync_that_held_anybody_out(cart, sandbox, account_number, tmp_path):
    connected = scene.live(sandbox, account_number, cart)
    Mapping.objects.filter(pk=connected.mapping.pk).update(first_live_at=clock.from_us(0))
    everyone = {id: number(id) for id in ("anna", "bert", "carl")}
    moments = []
    for out, excluded in ((set(), set()), ({"anna"}, {"bert"}), ({"anna"}, set())):
        done = refreshes.refresh([cart], cause=Refresh.Cause.SYNC)["cart"]
        steps = [
            Step(eligibility.EXCLUDED, BitMap(everyone[id] for id in excluded), 0),
            Step(eligibility.HOLDOUT, BitMap(everyone[id] for id in out), 0),
        ]
        eligibility.keep(connected.mapping, done.pk, steps)
        moments.append(moment(done.as_of_us))

    rows = exported(tmp_path / "out", "cart", "--table", "holdouts")["holdouts"]

    assert {(row["external_id"], row["arm"], row["assigned_at"]) for row in rows} == {
        ("anna", "holdout", moments[1]),
        ("carl", "treated", moments[1]),
        ("bert", "treated", moments[2]),
    }
    assert {row["connection_id"] for row in rows} == {connected.mapping.pk}


def test_nobody_who_was_erased_or_removed_is_in_it_and_no_identifier_but_the_external_id(
    cart, sandbox, account_number, tmp_path
):
    connected = scene.live(sandbox, account_number, cart)
    connected.sync()
    merge("carl", "bert")
    erase("anna")
    until_counted()
    refreshes.refresh([cart], cause=Refresh.Cause.MANUAL)

    for file_format in ("parquet", "csv"):
        found = exported(tmp_path / file_format, file_format=file_format)
        named = {row["external_id"] for rows in found.values() for row in rows if "external_id" in row}
        assert named == {"carl"}
        assert "@" not in json.dumps(found, default=str)
    sent = [row for row in found["delivered_people"] if row["external_id"] == "carl"]
    assert len(sent) == len({row["delivery_id"] for row in sent})  # sent as two people, who are one


def test_csv_says_what_parquet_says_and_runs_in_no_spreadsheet(cart, tmp_path):
    refreshes.refresh([cart], cause=Refresh.Cause.MANUAL)
    identify("=HYPERLINK(1)", **{"in": "yes"})
    until_counted()
    refreshes.refresh([cart], cause=Refresh.Cause.MANUAL)
    exact = exported(tmp_path / "p", file_format="parquet")
    spread = exported(tmp_path / "c", file_format="csv")

    def shown(value):
        if isinstance(value, datetime):
            return value.strftime("%Y-%m-%d %H:%M:%S.%fZ")
        if isinstance(value, bool):
            return str(value).lower()
        return "" if value is None else spreadsheets.inert(value) if isinstance(value, str) else str(value)

    for table in shape.TABLES:
        assert [{k: shown(v) for k, v in row.items()} for row in exact[table.name]] == spread[table.name], table.name
    assert "'=HYPERLINK(1)" in {row["external_id"] for row in spread["memberships"]}
    assert "=HYPERLINK(1)" in {row["external_id"] for row in exact["memberships"]}


def test_tables_with_empty_parts_are_written_as_they_are(tmp_path):
    """Arrow's own CSV writer gives what it wrote before once more for an empty batch."""
    schema = shape.HOLDOUTS.schema
    rows = pa.Table.from_pylist([dict.fromkeys(schema.names) | {"external_id": "x" * 500, "arm": "treated"}], schema)
    for file_format in ("csv", "parquet"):
        path = tmp_path / file_format
        with path.open("wb") as stream, files.writing(stream, shape.HOLDOUTS, file_format) as writer:
            for part in (rows, schema.empty_table(), pa.concat_tables([rows.slice(0, 0), rows]), rows.slice(0, 0)):
                writer.write(part)
        found = pq.read_table(path).num_rows if file_format == "parquet" else len(path.read_text().splitlines()) - 1
        assert found == 2
        assert b"\0" not in path.read_bytes() or file_format == "parquet"


def test_the_command_refuses_in_words_and_what_it_did_is_on_the_trail(cart, tmp_path):
    with pytest.raises(CommandError, match="There is no audience nope"):
        exported(tmp_path, "nope")
    with pytest.raises(CommandError, match="--from must be before --to"):
        exported(tmp_path, "--from", "2026-02-01", "--to", "2026-01-01")
    refreshes.refresh([cart], cause=Refresh.Cause.MANUAL)
    exported(tmp_path, "cart")
    entry = AuditEntry.objects.get(verb="record.exported")
    assert (entry.object_key, entry.after["rows"]["memberships"]) == ("cart", 3)


def test_sizes_say_how_many_can_be_named(cart, tmp_path):
    never = scene.audience("never", {"attribute": "in", "op": "is", "value": "no"})
    refreshes.refresh([cart], cause=Refresh.Cause.MANUAL)
    rows = {row["audience_key"]: row for row in exported(tmp_path)["audiences"]}
    assert (rows["cart"]["members"], rows["cart"]["members_named"], rows["cart"]["live_version"]) == (4, 3, 1)
    assert (rows[never.key]["members"], rows[never.key]["counted_at"]) == (None, None)
    assert bitmaps.unpack(cart.membership.members)


def test_every_column_is_described():
    words = (Path(__file__).parents[2] / "docs" / "warehouse.md").read_text()
    for table in shape.TABLES:
        section = words.split(f"### `{table.name}`")[1].split("\n### ")[0].split("\n## ")[0]
        described = [
            name
            for line in section.splitlines()
            if line.startswith("| `")
            for name in re.findall(r"`(\w+)`", line.split("|")[1])
        ]
        assert described == table.names
