"""Delivery beyond one platform and one worker: every connector, receipts, the rate budget, the jobs, the command, forgetting."""

import io
from datetime import timedelta

import orjson
import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone

from audiences import clock, jobs
from audiences.bitmaps import unpack
from audiences.models import AuditEntry, Identity, Job, Membership, ProfileKey, Refresh
from audiences.people import removal
from audiences.services import refreshes
from destinations import budget, identities, leases, tasks
from destinations.models import Account, Destination, Hold, Mapping, Operation, Removal, Run
from destinations.plan import ADD, REMOVE
from destinations.services import Refused, destinations, holds, mappings, removals, runs
from destinations.trace import trace
from tests.audiences.people_in import identify, number, track
from tests.destinations import scene
from tests.destinations.scene import hashes

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def people():
    scene.workspace()
    scene.imported("anna", "bert", "carl")
    track("zoe", "purchase")
    return scene.audience("cart", scene.NO_PURCHASE)


@pytest.mark.parametrize("kind", ["meta", "google", "openlist", "webhook"])
def test_people_come_and_go_on_every_platform(kind, people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people, kind=kind)
    assert connected.sync().state == "done"
    assert connected.emails() == hashes("anna", "bert", "carl")

    track("anna", "purchase")
    identify("bert", email="bert.new@example.com")
    scene.imported("dora")
    run = connected.sync()

    assert (run.state, run.error) == ("done", "")
    assert connected.emails() == hashes("carl", "dora", "bert.new")
    assert not Operation.objects.filter(open=True).exists()


def test_a_receipt_that_fails_has_everybody_told_again(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people, kind="google")
    sandbox.dial("fail", platform="google", account=account_number, op="add", reason="INTERNAL_ERROR")

    connected.sync(patience=timedelta(seconds=20))
    Operation.objects.filter(open=True).update(reassert_at=timezone.now())
    run = connected.sync(patience=timedelta(seconds=20))

    assert run.state == "done"
    assert connected.emails() == hashes("anna", "bert", "carl")


def test_a_receipt_that_takes_long_is_fetched_by_a_job(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people, kind="google")
    sandbox.dial("processing", platform="google", account=account_number, op="add", seconds=1)
    connected.sync(patience=timedelta(0))
    operation = connected.operations()[0]
    assert operation.state == "submitted"
    assert len(unpack(connected.ledger().present)) == 3  # the request id came back: accepted

    deadline = timezone.now() + timedelta(seconds=10)
    while operation.state == "submitted" and timezone.now() < deadline:
        Operation.objects.update(poll_at=timezone.now())
        jobs.ask("destinations.receipts", "", queue="sync")
        jobs.run_due_here(["sync"], rounds=1)
        operation.refresh_from_db()

    assert (operation.state, operation.accepted, operation.open) == ("settled", 3, False)


def test_removals_are_confirmed_by_receipts(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people, kind="google")
    connected.sync()
    track("anna", "purchase")

    connected.sync()

    kept = Removal.objects.get()
    assert kept.cause == "purchase"
    assert kept.left_at <= kept.sent_at <= kept.accepted_at <= kept.confirmed_at


def test_adopting_a_readable_audience_keeps_whom_it_should_and_removes_the_others(people, sandbox, account_number):
    first = scene.live(sandbox, account_number, people, ("external_id",), kind="openlist")
    first.sync()
    remote = Mapping.objects.get().remote_id
    identify("anna", who="anna")
    other = scene.audience("only_anna", {"attribute": "who", "op": "is", "value": "anna"})
    mapping = mappings.create(
        actor=None, audience=other, destination=first.mapping.destination, identifiers=["external_id"]
    )
    mapping = mappings.adopt(actor=None, mapping=mapping, remote_id=remote)
    adopted = scene.Scene(sandbox, mappings.go_live(actor=None, mapping=scene.allowed(mapping)), account_number)
    calls = len(adopted.calls("remove"))

    adopted.sync()

    assert {value for _, value in adopted.held()} == {"anna"}
    assert len(adopted.calls("remove")) == calls + 1


def test_an_adopted_audience_that_is_only_added_to_keeps_its_leftovers(people, sandbox, account_number):
    first = scene.live(sandbox, account_number, people)
    first.sync()
    remote = Mapping.objects.get().remote_id
    scene.imported("dora", who="dora")
    other = scene.audience("dora", {"attribute": "who", "op": "is", "value": "dora"})
    mapping = mappings.create(actor=None, audience=other, destination=first.mapping.destination, identifiers=["email"])
    mapping = mappings.adopt(actor=None, mapping=mapping, remote_id=remote, add_only=True)

    run = scene.Scene(sandbox, mappings.go_live(actor=None, mapping=scene.allowed(mapping)), account_number).sync()

    assert (run.state, run.error, run.added) == ("done", "", 1)
    assert first.emails() == hashes("anna", "bert", "carl", "dora")


# --- The rate budget.


@pytest.fixture
def account():
    return Account.objects.create(key="meta:budget")


def test_tokens_come_back_at_the_platforms_rate(account):
    now = timezone.now()
    taken = 0
    while not budget.take(account.pk, REMOVE, 60, now=now):
        taken += 1

    assert taken == 30
    assert budget.take(account.pk, REMOVE, 60, now=now + timedelta(seconds=1)) == timedelta(0)
    assert budget.take(account.pk, REMOVE, 60, now=now + timedelta(seconds=1)) > timedelta(0)


def test_a_fifth_of_the_budget_is_kept_for_removals(account):
    now = timezone.now()
    adds = 0
    while not budget.take(account.pk, ADD, 60, now=now):
        adds += 1

    assert adds == 24
    assert not budget.take(account.pk, REMOVE, 60, now=now)


def test_no_add_takes_the_token_that_a_removal_waits_for(account):
    now = timezone.now()
    while not budget.take(account.pk, REMOVE, 1, now=now):
        pass
    now += timedelta(seconds=3)
    assert budget.take(account.pk, REMOVE, 1, now=now)  # a removal is waiting

    for second in range(1, 180):
        now += timedelta(seconds=1)
        removal_waits = bool(budget.take(account.pk, REMOVE, 1, now=now))
        if removal_waits:
            assert budget.take(account.pk, ADD, 1, now=now), f"an add went while a removal waited, second {second}"


def test_a_pause_is_a_floor_for_everybody_and_an_hour_at_most(account):
    now = timezone.now()
    until = budget.pause(account.pk, 30, "Slow down", now=now)
    assert timedelta(seconds=30) <= until - now <= timedelta(seconds=33)
    assert budget.pause(account.pk, 5, "Slow down", now=now) == until  # the longer one stands

    for kind in (ADD, REMOVE):
        assert budget.take(account.pk, kind, 600, now=now + timedelta(seconds=29)) > timedelta(0)
    assert not budget.take(account.pk, ADD, 600, now=until)
    assert budget.pause(account.pk, 10**9, "Slow down", now=now) <= now + timedelta(hours=1)


def test_without_a_wish_of_the_platform_pauses_double(account):
    now = timezone.now()
    lengths = [budget.pause(account.pk, None, "", now=now, attempt=n) - now for n in (1, 2, 3)]

    assert timedelta(seconds=2) <= lengths[0] < lengths[1] < lengths[2] <= timedelta(seconds=8.8)


# --- Jobs.


def test_going_live_makes_a_worker_sync_and_retiring_ends_it(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people)

    jobs.run_due_here(["sync"])

    assert Run.objects.get().trigger == "schedule"
    assert connected.emails() == hashes("anna", "bert", "carl")
    job = Job.objects.get(task="destinations.sync")
    assert (job.key, job.every_seconds, job.error) == (str(connected.mapping.pk), 900, "")

    mappings.retire(actor=None, mapping=connected.mapping)
    jobs.run_due_here(["sync"])
    assert connected.emails() == set()
    job.refresh_from_db()
    assert (job.due_at, job.every_seconds) == (None, None)


def test_a_count_on_schedule_makes_the_syncs_due_and_a_syncs_own_does_not(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people)
    jobs.run_due_here(["sync"])
    scene.imported("dora")

    _look()
    assert Run.objects.count() == 1
    refreshes.refresh([people], cause=Refresh.Cause.SCHEDULE)
    _look()

    assert Run.objects.count() == 2
    assert connected.emails() == hashes("anna", "bert", "carl", "dora")
    _look()
    assert Run.objects.count() == 2


def test_a_run_whose_worker_died_is_interrupted_and_taken_up_again(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people)
    Job.objects.all().delete()
    dead = runs.request(actor=None, mapping=connected.mapping, start=False)
    Run.objects.update(state=Run.State.SENDING, started_at=timezone.now())

    _look()

    dead.refresh_from_db()
    assert dead.state == "interrupted"
    assert connected.emails() == hashes("anna", "bert", "carl")


def test_a_count_that_died_keeps_the_sweep_away_no_longer_than_until_a_later_run_has_ended(
    people, sandbox, account_number
):
    connected = scene.live(sandbox, account_number, people)
    Job.objects.all().delete()
    dead = runs.request(actor=None, mapping=connected.mapping, start=False)
    Run.objects.update(state=Run.State.COUNTING, started_at=timezone.now())
    _look()
    dead.refresh_from_db()
    assert dead.state == "counting"

    Run.objects.create(
        mapping=connected.mapping, state=Run.State.FAILED, started_at=timezone.now(), finished_at=timezone.now()
    )
    _look()

    dead.refresh_from_db()
    assert dead.state == "interrupted"
    assert connected.emails() == hashes("anna", "bert", "carl")


def test_a_question_that_nobody_answered_is_asked_again_in_a_minute(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people)
    jobs.run_due_here(["sync"])
    scene.imported("dora")
    sandbox.dial("drop", platform="meta", account=account_number, op="describe")
    runs.request(actor=None, mapping=connected.mapping)

    jobs.run_due_here(["sync"], rounds=1)

    assert Run.objects.order_by("-pk")[0].state == "failed"
    wait = Job.objects.get(task="destinations.sync").due_at - timezone.now()
    assert timedelta(seconds=50) < wait < timedelta(seconds=61)


def test_what_is_unknown_is_told_again_by_the_sweep_when_its_time_has_come(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people)
    sandbox.dial("error", platform="meta", account=account_number, op="add", status=500)
    jobs.run_due_here(["sync"])
    assert len(unpack(connected.ledger().unknown)) == 3
    _look()
    assert connected.emails() == set()

    Operation.objects.update(reassert_at=timezone.now())
    _look()

    assert connected.emails() == hashes("anna", "bert", "carl")


def test_a_worker_that_finds_another_at_work_comes_back_later(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people)
    leases.claim(connected.mapping.pk, leases.BULK, settle=timedelta(seconds=1), now=timezone.now())

    jobs.run_due_here(["sync"], rounds=1)

    assert Run.objects.get().state == "queued"
    assert Job.objects.get(task="destinations.sync").due_at > timezone.now()
    assert connected.calls() == []


def _look():
    jobs.ask("destinations.look", "", queue="sync")
    jobs.run_due_here(["sync"])
    jobs.run_due_here(["sync"])


# --- The command.


def _sync(*arguments):
    out = io.StringIO()
    call_command("sync", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_syncs_and_says_what_it_did(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people)

    line = _sync()
    said = orjson.loads(_sync("cart", "--json"))

    assert line == f"cart → meta_{account_number}: done; added 3, removed 0, unchanged 0\n"
    assert (said["state"], said["added"], said["unchanged"], said["dry_run"]) == ("done", 0, 3, False)
    assert connected.emails() == hashes("anna", "bert", "carl")


def test_a_dry_run_sends_nothing(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people)

    assert "would add 3 and remove 0 in 1 calls" in _sync("--dry-run")
    assert connected.calls() == []


@pytest.mark.parametrize(
    ("keys", "words"), [(["nobody"], "no audience nobody"), (["lonely"], "lonely has no connection")]
)
def test_the_command_says_in_one_line_what_it_cannot_do(people, keys, words):
    scene.audience("lonely", scene.IN)
    with pytest.raises(CommandError, match=words):
        _sync(*keys)


def test_a_failed_connection_fails_the_command_and_the_others_still_sync(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people)
    other = scene.live(sandbox, account_number, scene.audience("all", scene.IN))
    Mapping.objects.filter(pk=connected.mapping.pk).update(blocked_reason="Reconnect Meta.")

    with pytest.raises(CommandError, match=r"cart → .*Reconnect Meta\.$"):
        _sync()

    assert other.emails() == hashes("anna", "bert", "carl")


# --- Services and queries.


def test_credentials_are_sealed_and_in_no_trail(people, sandbox, account_number):
    made = scene.destination(sandbox, account_number)

    assert "token-for-tests" not in made.credentials
    assert "token-for-tests" not in str(list(AuditEntry.objects.values()))
    checked = destinations.check(actor=None, destination=made)
    assert checked.state == Destination.State.CONNECTED
    assert checked.state_words.startswith("Connected to")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"kind": "nope"}, "kind"),
        ({"key": "a b"}, "key"),
        ({"config": {}}, "config.ad_account_id"),
        ({"config": {"ad_account_id": "1", "colour": "red"}}, "colour"),
        ({"config": {"ad_account_id": "1", "access_token": "x"}}, "config.access_token"),
        ({"credentials": {}}, "credentials.access_token"),
    ],
)
def test_a_destination_that_makes_no_sense_is_refused_by_field(fields, path):
    given = {"key": "meta", "kind": "meta", "config": {"ad_account_id": "1"}, "credentials": {"access_token": "x"}}

    with pytest.raises(Refused) as refused:
        destinations.create(actor=None, **{**given, **fields})

    assert path in [problem.path for problem in refused.value.problems]


def test_another_account_is_another_destination(sandbox, account_number):
    made = scene.destination(sandbox, account_number)
    with pytest.raises(Refused, match="another account"):
        destinations.change(actor=None, destination=made, config={"ad_account_id": "987"})


@pytest.mark.parametrize("identifiers", [["country"], ["shoe_size"], []])
def test_a_connection_needs_identifiers_that_name_people_and_that_the_platform_takes(
    people, sandbox, account_number, identifiers
):
    target = scene.destination(sandbox, account_number)
    with pytest.raises(Refused) as refused:
        mappings.create(actor=None, audience=people, destination=target, identifiers=identifiers)
    assert refused.value.problems[0].path == "identifiers"


def test_states_follow_their_rules(people, sandbox, account_number):
    target = scene.destination(sandbox, account_number)
    mapping = mappings.create(actor=None, audience=people, destination=target, identifiers=["email"])
    for forbidden in (mappings.pause, mappings.resume):
        with pytest.raises(Refused):
            forbidden(actor=None, mapping=mapping)

    mapping = mappings.start_trial(actor=None, mapping=scene.allowed(mapping))
    mapping = mappings.pause(actor=None, mapping=mapping)
    assert mappings.resume(actor=None, mapping=mapping).state == "trial"
    mapping = mappings.retire(actor=None, mapping=mapping, reason="Over")
    with pytest.raises(Refused):
        mappings.go_live(actor=None, mapping=mapping)
    verbs = list(AuditEntry.objects.filter(object_type="mapping").order_by("pk").values_list("verb", flat=True))
    assert verbs == [f"mapping.{verb}" for verb in ("created", "overridden", "trial", "paused", "resumed", "retired")]


def test_a_rules_hold_is_set_once_and_lifted_only_by_who_may(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people)
    first = holds.set_hold(
        actor=None, mapping=connected.mapping, direction="adds", reason="Stale", rule="feed", lift_roles=["admin"]
    )
    again = holds.set_hold(actor=None, mapping=connected.mapping, direction="adds", reason="Stale", rule="feed")

    assert again == first
    with pytest.raises(Refused, match="Only admin"):
        holds.lift(actor=scene.workspace(), hold=first, reason="it is back")
    holds.lift(actor=None, hold=first)
    assert Hold.objects.get().lifted_at is not None


def test_coverage_and_a_persons_trace(people, sandbox, account_number):
    scene.imported("guest", email="")
    connected = scene.live(sandbox, account_number, people)
    identify("bert", consent_ad_user_data=False)
    connected.sync()

    members = unpack(Membership.objects.get(audience=people).members)
    covered = identities.coverage(members)
    assert (len(members), covered["people"], covered["email"], covered["phone"]) == (4, 4, 3, 0)
    anna, bert, guest = (trace(connected.mapping, number(id)) for id in ("anna", "bert", "guest"))
    assert (anna.member, anna.step, anna.wanted, anna.told) == (True, "", True, "present")
    assert (bert.member, bert.step, bert.wanted, bert.told) == (True, "consent", False, "absent")
    assert guest.step == "unreachable"


def test_a_deleted_person_is_removed_everywhere_and_only_then_forgotten(people, sandbox, account_number):
    connected = scene.live(sandbox, account_number, people)
    connected.sync()
    profile = ProfileKey.objects.get(kind="id", value="anna").profile_no
    with transaction.atomic():
        removal.delete(("id", "anna"), at_us=clock.now_us())

    assert removals.forget() == 0
    assert Identity.objects.get(profile_no=profile).email == "anna@example.com"
    connected.sync()
    assert connected.emails() == hashes("bert", "carl")
    assert [op.cause for op in connected.operations() if op.kind == "remove"] == ["erasure"]

    assert removals.forget() == 1
    assert Identity.objects.get(profile_no=profile).email == ""
    assert tasks.forget.name == "destinations.forget"
