"""Loading a customer's PostgreSQL: however the record changes and whenever a load is killed, what is there is what an export would say."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from pyroaring import BitMap

from audiences import clock, jobs
from audiences.models import AuditEntry, Job, ProfileKey, Refresh
from audiences.people import lake, removal
from audiences.services import refreshes
from destinations import eligibility, secrets
from destinations.connectors.base import Misconfigured
from destinations.eligibility import Step
from destinations.models import Mapping, Operation, Warehouse
from destinations.record import shape, target
from destinations.services import Refused, warehouse
from destinations.services.restoring import restored
from qa import privacy, privacy_page
from tests import migrated
from tests.audiences.people_in import erase, identify, merge, track, until_counted
from tests.destinations import scene, warehouse_scene
from tests.destinations.warehouse_scene import comparable, named, ought

pytestmark = pytest.mark.django_db(transaction=True)
MANAGE = Path(__file__).resolve().parents[2] / "manage.py"


@pytest.fixture(autouse=True)
def own_lake(settings, tmp_path):
    settings.LAKE_URL = str(tmp_path / "lake")


@pytest.fixture
def customer():
    with warehouse_scene.customer() as one:
        yield one


@pytest.fixture
def cart():
    scene.workspace()
    scene.imported("anna", "bert", "carl")
    track("anna", "purchase", at=clock.now_us() - clock.DAY, value=20, note="nul \0 here")
    until_counted()
    return scene.audience("cart", scene.IN)


def count(*audiences, cause=Refresh.Cause.MANUAL):
    until_counted()
    return refreshes.refresh(audiences, cause=cause)


def same(customer, schema="rollcall"):
    """What is there, and what ought to be."""
    expected = ought()
    for table in shape.TABLES:
        there = comparable(table.name, customer.rows(table.name, schema))
        assert there == comparable(table.name, expected[table.name]), table.name
    return {name: len(rows) for name, rows in expected.items()}


def test_the_first_load_makes_the_tables_and_the_next_adds_what_is_new(cart, customer):
    count(cart)
    named(customer)
    assert warehouse.check(actor=None).state_words.endswith(
        "writes to the schema rollcall, which the first load makes."
    )
    row = warehouse.load_here()
    assert same(customer) == {
        "audiences": 1, "memberships": 3, "deliveries": 0, "delivered_people": 0, "events": 1, "holdouts": 0,
    }  # fmt: skip
    assert (row.state, row.rows["memberships"], row.rows["events"]) == ("connected", 3, 1)
    again = warehouse.load_here()
    assert {name: rows for name, rows in again.rows.items() if rows} == {}
    assert again.loaded_up_to > row.loaded_up_to
    identify("bert", **{"in": "no"})
    track("bert", "view")
    count(cart)
    assert warehouse.load_here().rows | {"audiences": 0} == {
        "audiences": 0, "memberships": 1, "deliveries": 0, "delivered_people": 0, "events": 1, "holdouts": 0,
    }  # fmt: skip
    same(customer)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_between_loads_the_warehouse_says_what_an_export_says(
    cart, customer, sandbox, account_number, seed
):
    dice = random.Random(seed)
    track("carl", "view")
    other = scene.audience("viewers", {"event": "view", "count": {"at_least": 1}})
    connected = scene.live(sandbox, account_number, cart)
    Mapping.objects.filter(pk=connected.mapping.pk).update(first_live_at=clock.from_us(0))
    named(customer)
    made = 0

    def somebody():
        known = ProfileKey.objects.filter(kind="id").order_by("profile_no").values_list("value", flat=True)
        return dice.choice(list(known)) if known else "nobody"

    def join():
        nonlocal made
        made += 1
        identify(f"p{made}", email=f"p{made}@example.com", **{"in": dice.choice(("yes", "no"))})

    def nameless():
        """Known by e-mail alone, and by an id later, after whatever comes between."""
        nonlocal made
        made += 1
        identify(f"e{made}@example.com", **{"in": "yes"})
        track(f"e{made}@example.com", "view")

    def gets_a_name():
        rows = ProfileKey.objects.filter(kind="email", value__startswith="e").order_by("profile_no")
        unnamed = [r for r in rows if not ProfileKey.objects.filter(kind="id", profile_no=r.profile_no).exists()]
        if unnamed:
            identify(unnamed[0].value, id=f"named-{unnamed[0].profile_no}")

    def hold_out():
        done = count(cart, cause=Refresh.Cause.SYNC)["cart"]
        if done.state == "done":
            drawn = BitMap(
                n for n in ProfileKey.objects.filter(kind="id").values_list("profile_no", flat=True) if n % 5 == 0
            )
            eligibility.keep(connected.mapping, done.pk, [Step(eligibility.HOLDOUT, drawn, 0)])

    def leave():
        if dice.random() < 0.5:
            erase(somebody())
            return
        with transaction.atomic():
            removal.delete(("id", somebody()), at_us=clock.now_us())

    def unanswered():
        join()
        sandbox.dial("drop", platform="meta", account=account_number, times=1)
        connected.sync(patience=timedelta(0))
        sandbox.clear_dials()

    def told_again():
        Operation.objects.filter(open=True).update(reassert_at=clock.from_us(0))
        connected.sync()

    def an_hour_passes():
        """Calls are read again for an hour; after that only those that are not settled."""
        recent = Operation.objects.filter(prepared_at__gt=timezone.now() - timedelta(hours=1))
        recent.update(prepared_at=F("prepared_at") - timedelta(hours=2))

    def two(act):
        a, b = somebody(), somebody()
        if a != b:
            act(a, b)

    acts = (
        join, join, nameless, gets_a_name,
        lambda: track(somebody(), dice.choice(("view", "purchase")), value=dice.randint(1, 9)),
        lambda: track(somebody(), "view", at=clock.now_us() - dice.randint(1, 90) * clock.DAY),
        lambda: identify(somebody(), **{"in": dice.choice(("yes", "no"))}),
        lambda: two(merge),
        leave,
        lambda: count(cart, other), lambda: count(cart), lambda: connected.sync(), hold_out, unanswered, told_again, an_hour_passes,
        lambda: lake.flush(), lambda: lake.compact(settle=True), lambda: lake.forget_removed(),
        lambda: Refresh.objects.filter(audience=other).exclude(membership__isnull=False).delete(),
    )  # fmt: skip
    for _ in range(6):
        for _ in range(12):
            dice.choice(acts)()
        until_counted()
        warehouse.load_here()
        same(customer)


_FILL = """
from audiences import clock
from audiences.models import Refresh
from audiences.people import lake
from audiences.services import refreshes
from destinations.services import warehouse
from tests.audiences.people_in import identify, track
from tests.destinations import scene
import sys
turn = sys.argv[1]
if turn == "1":
    scene.workspace()
    scene.imported(*(f"p{n}" for n in range(30)))
    scene.audience("cart", scene.IN)
    warehouse.save(actor=None, url=sys.argv[2], schema="rollcall", cadence_seconds=3600, with_events=True)
from audiences.models import Audience
for n in range(10):
    track(f"p{n}", "view", turn=turn)
lake.flush()
for n in range(10):
    identify(f"p{n}", **{"in": "no" if turn == "2" else "yes"})
    track(f"p{n}", "purchase", turn=turn)
if turn == "2":
    from tests.audiences.people_in import merge
    merge("p1", "p2"); merge("p11", "p12")
refreshes.refresh([Audience.objects.get(key="cart")], cause=Refresh.Cause.MANUAL)
"""
_OUGHT = """
import orjson
from tests.destinations.warehouse_scene import ought, comparable
print(orjson.dumps({name: comparable(name, rows) for name, rows in ought().items()}).decode())
"""


@pytest.mark.slow
@pytest.mark.parametrize("turn", ["1", "2"])
def test_a_load_killed_at_any_point_and_run_again_ends_equal(customer, tmp_path, turn):
    environment = {**os.environ, "DATA_DIR": str(tmp_path), "DATABASE_URL": "", "BROKER_URL": "memory://", "LAKE_URL": "",
                   "DJANGO_SETTINGS_MODULE": "config.settings", "PYTHONPATH": str(MANAGE.parent)}  # fmt: skip
    environment.pop("LAKE_URL")

    def python(code, *arguments):
        run = [sys.executable, "-c", "import django; django.setup()\n" + code, *arguments]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def load(fault=""):
        with closing(sqlite3.connect(tmp_path / "rollcall.sqlite3")) as database:  # the dead worker's lease has run out
            database.execute(
                "UPDATE audiences_job SET lease_until = '2000-01-01 00:00:00' WHERE lease_until IS NOT NULL"
            )
            database.commit()
        run = [sys.executable, str(MANAGE), "load_warehouse"]
        return subprocess.run(run, env={**environment, "FAULT": fault}, capture_output=True, text=True, timeout=120)

    migrated.fill(tmp_path)
    python(_FILL, "1", customer.url)
    if turn == "2":
        assert load().returncode == 0
        python(_FILL, "2")
    parts = ["people", "audiences", "memberships", "calls", "events", "end"]
    if turn == "2":
        parts.insert(5, "events_again")
    for part in parts:
        for fault in (f"load.{part}", f"load.{part}.committed"):
            assert load(fault).returncode == -signal.SIGKILL, fault
    done = load()
    assert done.returncode == 0, done.stderr
    expected = orjson.loads(python(_OUGHT))
    for table in shape.TABLES:
        there = comparable(table.name, customer.rows(table.name))
        assert [list(row) for row in there] == expected[table.name], table.name
    assert len(expected["memberships"]) >= 28


def test_a_call_that_is_not_settled_is_looked_at_again_however_old_it_is(cart, customer, sandbox, account_number):
    connected = scene.live(sandbox, account_number, cart)
    sandbox.dial("drop", platform="meta", account=account_number, op="add")
    connected.sync(patience=timedelta(0))
    Operation.objects.update(prepared_at=timezone.now() - timedelta(days=2))
    named(customer)
    for _ in range(2):
        warehouse.load_here()
        assert [(row["outcome"], row["settled"]) for row in customer.rows("deliveries")] == [("unknown", False)]
    Operation.objects.update(reassert_at=timezone.now())
    connected.sync()
    warehouse.load_here()
    assert sorted((row["outcome"], row["settled"]) for row in customer.rows("deliveries")) == [
        ("accepted", True), ("unknown", True),
    ]  # fmt: skip
    same(customer)


def test_a_worker_that_was_overtaken_writes_nothing_more(cart, customer):
    count(cart)
    named(customer)
    warehouse.load_here()
    row = warehouse.get()
    with target.opened(target.address(customer.url), "rollcall") as there:
        there.prepare(str(row.installation), str(row.era), fence=1_000)
        with pytest.raises(jobs.LeaseLost):
            warehouse.load_here()
        with pytest.raises(target.Overtaken):
            there.prepare(str(row.installation), str(row.era), fence=999)


def test_after_a_restore_everything_is_written_anew_whatever_numbers_were_given_twice(cart, customer):
    count(cart)
    track("carl", "view")
    named(customer)
    warehouse.load_here()
    # As if the load above was of a time that the backup does not know: its cursors are ahead of all that there is.
    customer.do(
        """UPDATE rollcall._rollcall SET value = '{"manifest": 900, "hot": 9000000000, "at_us": 9000000000000000}' WHERE part = 'events'""",
        """UPDATE rollcall._rollcall SET value = '{"call": 900}' WHERE part = 'deliveries'""",
        """UPDATE rollcall._rollcall SET value = '{"fence": 900}' WHERE part = 'load'""",
        "INSERT INTO rollcall.events (event_id, external_id, name) VALUES ('never', 'anna', 'view')",
    )
    with pytest.raises(jobs.LeaseLost):
        warehouse.load_here()
    restored(now=timezone.now())
    until_counted()
    warehouse.load_here()
    same(customer)


def test_nobody_who_is_erased_stays_in_the_warehouse_and_nothing_but_external_ids_was_ever_there(
    cart, customer, sandbox, account_number
):
    connected = scene.live(sandbox, account_number, cart)
    connected.sync()
    named(customer)
    warehouse.load_here()
    assert {row["external_id"] for row in customer.rows("events")} == {"anna"}
    erase("anna")
    with transaction.atomic():
        removal.delete(("id", "bert"), at_us=clock.now_us())
    warehouse.load_here()
    for table in ("memberships", "delivered_people", "events", "_people"):
        rows = customer.rows(table)
        assert {row["external_id"] for row in rows} <= {"carl"}, table
        assert "@" not in str(rows)
    same(customer)


def test_a_privacy_request_is_done_when_the_warehouse_too_has_forgotten(cart, customer, monkeypatch):
    monkeypatch.setattr(warehouse, "COMMITTED_WITHIN", timedelta(0))
    count(cart)
    named(customer)
    warehouse.start(actor=None)
    jobs.run_due_here(["compute"], rounds=1)
    request = erase("anna")
    warehouse.stop(actor=None)
    for _ in range(2):
        privacy.follow()
    lake.forget_removed()
    privacy.look_at_files()
    request.refresh_from_db()
    assert request.state == "confirmed"
    assert "loading it is stopped" in privacy_page.shown(request).steps[-1].words
    warehouse.start(actor=None)
    jobs.run_due_here(["compute"], rounds=1)
    privacy.look_at_files()
    request.refresh_from_db()
    assert request.state == "done"
    assert "anna" not in str(customer.rows("_people"))


def test_nothing_outside_the_schema_is_touched_and_what_is_others_is_refused(cart, customer):
    customer.do("CREATE TABLE public.events (id int)", "INSERT INTO public.events VALUES (1)",
                "CREATE SCHEMA theirs", "CREATE TABLE theirs.memberships (who text)",
                f"GRANT ALL ON SCHEMA theirs TO {customer.loader}")  # fmt: skip
    before = customer.tables()
    count(cart)
    named(customer, schema="theirs")
    assert warehouse.check(actor=None).state == "refused"
    with pytest.raises(Misconfigured, match="holds memberships already, which Rollcall has not made"):
        warehouse.load_here()
    assert customer.tables() == before
    named(customer)
    warehouse.load_here()
    assert {name for name in customer.tables() - before if not name.startswith("rollcall.")} == set()
    assert customer.do("SELECT count(*) FROM public.events") == [(1,)]
    assert warehouse.empty(actor=None) == len(target.OURS)
    assert customer.tables() == before


def test_another_rollcall_is_not_written_over(cart, customer):
    count(cart)
    named(customer)
    warehouse.load_here()
    Warehouse.objects.update(installation=uuid.uuid4())
    with pytest.raises(Misconfigured, match="is filled by another Rollcall"):
        warehouse.load_here()


@pytest.mark.parametrize(
    ("before", "schema", "words"),
    [
        (["REVOKE CREATE ON DATABASE {db} FROM {role}"], "rollcall", "CREATE SCHEMA rollcall AUTHORIZATION {role};"),
        (["CREATE SCHEMA record"], "record", "GRANT USAGE, CREATE ON SCHEMA record TO {role};"),
        (
            ["CREATE SCHEMA record", "GRANT USAGE ON SCHEMA record TO {role}"],
            "record",
            "may not make tables in the schema record",
        ),
        (["REVOKE TEMPORARY ON DATABASE {db} FROM PUBLIC"], "rollcall", "GRANT TEMPORARY ON DATABASE {db} TO {role};"),
    ],
)
def test_where_privileges_lack_it_is_said_which_and_how_to_give_them(cart, customer, before, schema, words):
    names = {"db": customer.owner.rpartition("/")[2], "role": customer.loader}
    customer.do(*(statement.format(**names) for statement in before))
    named(customer, schema=schema)
    row = warehouse.check(actor=None)
    assert row.state == "refused"
    assert words.format(**names) in row.state_words
    with pytest.raises(Misconfigured):
        warehouse.load_here()
    assert warehouse.get().state == "refused"


def test_what_is_wrong_with_the_address_is_said_without_the_servers_words(cart, customer):
    for url, words in (
        (customer.url.replace("rc_loader", "no_such"), "user name or the password"),
        (customer.url.replace("rc_warehouse", "no_such"), "There is no such database"),
        (customer.url.replace("127.0.0.1", "127.0.0.2").replace(":5432", ":1"), "could not be reached"),
    ):
        warehouse.save(actor=None, url=url, schema="rollcall", cadence_seconds=3600, with_events=True)
        row = warehouse.check(actor=None)
        assert words in row.state_words and row.state in ("refused", "failing"), row.state_words


def test_the_cadence_loads_it_and_a_failure_shows_and_mends(cart, customer):
    count(cart)
    named(customer)
    warehouse.start(actor=None)
    jobs.run_due_here(["compute"], rounds=1)
    same(customer)
    job = Job.objects.get(task=warehouse.TASK)
    assert job.every_seconds == 3600
    customer.do("ALTER TABLE rollcall.memberships RENAME TO hidden")
    jobs.ask(warehouse.TASK, warehouse.KEY)
    jobs.run_due_here(["compute"], rounds=1)
    row = warehouse.get()
    assert row.state == "refused" and "not as Rollcall made them" in row.state_words
    assert Job.objects.get(pk=job.pk).attempts == 0
    customer.do("ALTER TABLE rollcall.hidden RENAME TO memberships")
    jobs.ask(warehouse.TASK, warehouse.KEY)
    jobs.run_due_here(["compute"], rounds=1)
    assert warehouse.get().state == "connected"
    warehouse.stop(actor=None)
    assert Job.objects.get(pk=job.pk).every_seconds is None


def test_events_can_be_left_out_and_leave_when_they_are_not_wanted_any_more(cart, customer):
    count(cart)
    named(customer)
    warehouse.load_here()
    assert len(customer.rows("events")) == 1
    named(customer, with_events=False)
    track("anna", "view")
    warehouse.load_here()
    assert customer.rows("events") == []
    named(customer, with_events=True)
    until_counted()
    warehouse.load_here()
    same(customer)


def test_the_address_is_sealed_shown_without_its_password_and_on_the_trail(customer):
    named(customer)
    row = Warehouse.objects.get(pk=1)
    assert row.address == f"{customer.loader}@{customer.url.rpartition('@')[2]}"
    assert warehouse_scene.PASSWORD not in str(AuditEntry.objects.values_list("after", flat=True))
    assert secrets.unseal(row.credentials, warehouse.AAD)["url"] == customer.url
    with pytest.raises(secrets.Unreadable):
        secrets.unseal(row.credentials, "2")


def test_a_private_address_is_not_called_unless_allowed(settings, customer):
    settings.ALLOW_PRIVATE_DESTINATIONS = False
    named(customer)
    assert "private address" in warehouse.check(actor=None).state_words


@pytest.mark.parametrize("schema", ["public", "pg_temp", "information_schema", "Rollcall", "a;b", "1st", "x" * 64, ""])
def test_a_schema_that_is_not_for_us_is_refused(schema):
    with pytest.raises(Refused):
        warehouse.save(
            actor=None, url="postgresql://a:b@db.example/x", schema=schema, cadence_seconds=3600, with_events=True
        )
