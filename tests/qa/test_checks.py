"""What the watch takes for wrong, what it lets pass, and what it says of it."""

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from audiences.models import Audience, PrivacyRequest, Refresh, SegmentVersion, frozen
from audiences.services import versions
from destinations.models import Hold, Mapping, Operation, Removal, Run
from qa import limits
from qa.checks import facts
from qa.checks.registry import KINDS
from qa.models import Incident, Limits
from tests import filled, many
from tests.qa import moving

pytestmark = pytest.mark.django_db
NOW = timezone.now()
DAY = timedelta(days=1)


def found(kind: str, *, slow: bool = False) -> list[facts.Finding]:
    loaded = facts.load(slow=slow)
    return [reading.finding for reading in KINDS[kind].look(loaded) if reading.finding]


@pytest.fixture
def people():
    return filled.users()


@pytest.fixture
def world():
    world = filled.fill()
    Mapping.objects.filter(pk=world.mapping.pk).update(first_live_at=NOW - 20 * DAY)
    Run.objects.all().update(state="done", finished_at=timezone.now())
    return world


def ran(world: filled.Filled, state: str, *, ago: timedelta = timedelta(0), **values) -> Run:
    at = timezone.now() - ago
    run = Run.objects.create(
        mapping=world.mapping, state=state, trigger="schedule", started_at=at, finished_at=at, **values
    )
    Run.objects.filter(pk=run.pk).update(created_at=at)
    return run


# ---- Size


@pytest.mark.parametrize(("now", "severity"), [(590, "critical"), (1_400, "warning"), (2_600, "critical")])
def test_a_size_that_moved_more_than_it_may_is_found_down_and_up(people, now, severity):
    moving.audience(people["marketer"], now=now)
    (one,) = found("size")
    assert one.severity == severity
    assert f"{now:,} people, where 1,000 is usual" in one.sentence


@pytest.mark.parametrize("now", [800, 1_000, 1_200])
def test_a_size_within_its_limits_is_not(people, now):
    moving.audience(people["marketer"], now=now)
    assert found("size") == []


def test_few_people_are_chance(people):
    moving.audience(people["marketer"], usual=90, now=10)
    assert found("size") == []


def test_nothing_is_usual_before_three_days_are_known(people):
    one = moving.audience(people["marketer"])
    moving.count(one, 10, daily=moving.days(1_000, 1_000))
    assert found("size") == []
    moving.count(one, 10, daily=moving.days(1_000, 1_000, 1_000))
    assert len(found("size")) == 1


def test_what_was_usual_long_ago_is_no_measure_while_the_days_since_are_being_filled_in(people):
    made = moving.audience(people["marketer"])
    long_ago = moving.days(*[600] * 20, until=NOW - 10 * DAY)
    moving.count(made, 1_000, daily=long_ago)
    assert found("size") == []
    moving.count(made, 1_000, daily=[*long_ago, *moving.days(*[600] * 10)])
    assert len(found("size")) == 1


def test_an_audience_may_have_a_limit_of_its_own(people):
    one = moving.audience(people["marketer"], now=590)
    Limits.objects.create(audience=one, size_share=0.5)
    assert found("size") == []
    Limits.objects.update(size_share=0.4)
    assert len(found("size")) == 1


def test_a_weekend_that_comes_every_week_does_not_hide_a_drop_nor_make_one(people):
    one = moving.audience(people["marketer"])
    weeks = [1_000, 1_020, 980, 1_010, 990, 760, 740] * 2
    moving.count(one, 770, daily=moving.days(*weeks))
    assert found("size") == []
    moving.count(one, 400, daily=moving.days(*weeks))
    assert len(found("size")) == 1


def test_what_was_wrong_is_no_part_of_what_is_usual(people):
    """A week at half its size would make half its size usual, and hide that it is still wrong."""
    one = moving.audience(people["marketer"])
    daily = moving.days(*[1_000] * 7, *[500] * 7)
    moving.count(one, 500, daily=daily)
    assert found("size") == []  # nobody saw the week: half is usual now
    Incident.objects.create(
        kind="size", subject=f"audience:{one.pk}", audience=one, severity="critical", sentence="x", since=NOW - 7 * DAY
    )
    (still,) = found("size")
    assert "where 1,000 is usual" in still.sentence


def test_a_change_that_was_taken_as_usual_is(people):
    one = moving.audience(people["marketer"])
    moving.count(one, 500, daily=moving.days(*[1_000] * 7, *[500] * 7))
    since = NOW - 7 * DAY
    Incident.objects.create(
        kind="size",
        subject=f"audience:{one.pk}",
        audience=one,
        severity="critical",
        sentence="x",
        since=since,
        recovered_at=NOW,
    )
    Limits.objects.create(audience=one, usual_from=since)
    assert found("size") == []
    moving.count(one, 200)
    (lower,) = found("size")
    assert "where 500 is usual" in lower.sentence


def test_the_sentence_says_since_when_and_after_which_version_by_whom(people):
    one = moving.audience(people["marketer"])
    moving.count(one, 1_000, at=NOW - timedelta(hours=6))
    draft = versions.save_draft(actor=people["marketer"], audience=one, segment=filled.CART)
    versions.publish(actor=people["marketer"], version=draft, reason="Only the best customers", override="for the test")
    with frozen.set_aside():
        SegmentVersion.objects.filter(pk=draft.pk).update(published_at=NOW - timedelta(hours=5))
    dropped = moving.count(one, 590, at=NOW - timedelta(hours=4))
    moving.count(one, 595, at=NOW - timedelta(hours=1))
    moving.looks()
    incident = moving.the("size")
    assert incident.sentence.startswith("Dropped 41% since ")
    assert ", after v2 by Marketer: 590 people, where 1,000 is usual." in incident.sentence
    assert abs(incident.since - dropped.finished_at) < timedelta(seconds=1)
    assert incident.causes[0] == "Version 2 was published by Marketer 60 min before: “Only the best customers”"
    assert incident.figure == "size −41%"
    assert incident.facts["Usual"].startswith("1,000 people")


def test_a_drop_under_the_same_version_blames_no_version(people):
    one = moving.audience(people["marketer"])
    moving.count(one, 1_000, at=NOW - timedelta(hours=3))
    moving.count(one, 300, at=NOW - timedelta(hours=1))
    moving.looks()
    incident = moving.the("size")
    assert "after v" not in incident.sentence
    assert incident.causes[0].startswith("Events that the rule needs arrive late")


@given(st.lists(st.integers(0, 5_000), max_size=60), st.floats(0.05, 5.0))
def test_a_wider_limit_never_speaks_on_a_day_on_which_a_narrower_one_has_not_spoken_first(counts, share):
    """The first day that either speaks of is the narrower one's: until then both have seen the same usual."""
    series = [(NOW.date() - timedelta(days=len(counts) - n), count) for n, count in enumerate(counts)]
    narrow, wide = limits.firings(series, share), limits.firings(series, share * 1.5)
    if wide:
        assert narrow
        assert narrow[0][0] <= wide[0][0]


@given(st.lists(st.integers(1_000, 5_000), min_size=4, max_size=40), st.integers(2, 50))
def test_only_shares_count_not_sizes(counts, factor):
    series = [(NOW.date() - timedelta(days=len(counts) - n), count) for n, count in enumerate(counts)]
    larger = [(day, count * factor) for day, count in series]
    assert limits.firings(series, 0.3) == limits.firings(larger, 0.3)


def test_one_stretch_of_bad_days_is_one_alert():
    series = [
        (NOW.date() - timedelta(days=20 - n), count)
        for n, count in enumerate([1_000] * 8 + [400] * 5 + [1_000] * 3 + [2_000])
    ]
    assert len(limits.firings(series, 0.3)) == 2
    assert limits.firings(series, 4.1) == []


# ---- Received adds


def adds(world: filled.Filled, *days: int) -> None:
    """People received on each of the last days, the last first."""
    for ago, number in enumerate(days):
        ran(world, "done", ago=ago * DAY + timedelta(hours=2), added=number)


@pytest.mark.parametrize(("today", "words"), [(40, "80% fewer"), (900, "350% more"), (0, "received nobody new")])
def test_received_adds_that_moved_are_found_down_and_up(world, today, words):
    Run.objects.all().delete()
    adds(world, today, *[200] * 7)
    (one,) = found("adds", slow=True)
    assert words in one.sentence
    assert "Meta EU" in one.sentence


@pytest.mark.parametrize("days", [[150, *[200] * 7], [0, *[30] * 7]])
def test_adds_within_their_limits_and_very_few_are_not(world, days):
    Run.objects.all().delete()
    adds(world, *days)
    assert found("adds", slow=True) == []


def test_the_first_days_of_a_connection_are_no_measure(world):
    Run.objects.all().delete()
    Mapping.objects.update(first_live_at=NOW - 3 * DAY)
    adds(world, 10, 200, 5_000)
    assert found("adds", slow=True) == []


# ---- What must simply be so


def test_a_failed_sync_is_found_and_a_later_good_one_is_not(world):
    assert found("run") == []
    ran(world, "failed", error="The platform answered 503 for an hour.")
    (one,) = found("run")
    assert "The sync to Meta EU failed" in one.sentence
    assert "The platform answered 503 for an hour." in one.causes[0]
    ran(world, "done")
    assert found("run") == []


def test_a_run_whose_worker_died_has_time_to_be_taken_up(world):
    ran(world, "interrupted")
    assert found("run") == []
    Run.objects.filter(state="interrupted").update(finished_at=timezone.now() - timedelta(minutes=6))
    (one,) = found("run")
    assert one.severity == "warning"


def test_a_refused_account_is_one_incident_and_its_syncs_are_none(world):
    Mapping.objects.create(
        audience=world.buyers,
        destination=world.destination,
        identifiers=["email"],
        state="live",
        blocked_reason="revoked",
    )
    Mapping.objects.update(blocked_reason="revoked")
    ran(world, "failed", error="revoked")
    world.destination.state, world.destination.state_words = "refused", "Error validating access token."
    world.destination.save()
    (one,) = found("token")
    assert "2 audiences go there" in one.sentence
    assert one.causes[0] == "The platform said: Error validating access token."
    assert found("run") == found("blocked") == found("late") == []


def test_a_connection_that_is_stopped_until_somebody_acts_is_found(world):
    Mapping.objects.update(blocked_reason="The audience is gone at Meta.")
    (one,) = found("blocked")
    assert one.causes == ("The audience is gone at Meta.",)
    assert found("run") == []


def test_a_stop_by_a_rule_is_found_and_one_by_a_person_is_not(world):
    Hold.objects.create(mapping=world.mapping, direction="adds", rule="person", reason="x")
    assert found("hold") == []
    Hold.objects.create(mapping=world.mapping, direction="both", rule="shrunk", reason="Nobody is left in it.")
    (one,) = found("hold")
    assert one.causes == ("Nobody is left in it.",)
    Hold.objects.update(lifted_at=timezone.now())
    assert found("hold") == []


def test_a_removal_that_waits_for_a_name_is_found(world):
    run = ran(world, "approval", planned_removes=4_200)
    (one,) = found("approval")
    assert "would remove 4,200 people" in one.sentence
    Run.objects.filter(pk=run.pk).update(approved_at=timezone.now())
    assert found("approval") == []


@pytest.mark.parametrize(
    ("cause", "minutes", "late"),
    [("purchase", 4, False), ("purchase", 6, True), ("rule", 60, False), ("rule", 60 * 25, True)],
)
def test_a_removal_has_its_deadline(world, cause, minutes, late):
    Removal.objects.create(
        mapping=world.mapping, identity_no=7, cause=cause, left_at=timezone.now() - timedelta(minutes=minutes)
    )
    assert len(found("removals")) == late
    Removal.objects.update(accepted_at=timezone.now())
    assert found("removals") == []


def test_a_removal_without_an_answer_is_overdue_after_half_an_hour(world):
    Operation.objects.create(
        mapping=world.mapping, lane="bulk", kind="remove", cause="left", fence=1, remote_id="1", identities=b"", count=12,
        state="unknown", open=True, prepared_at=timezone.now() - timedelta(minutes=31),
    )  # fmt: skip
    (one,) = found("removals")
    assert one.sentence.startswith("12 people should have left Meta EU")


def test_retargeting_without_suppression_beside_it_is_found_unless_somebody_has_written_why(world):
    (one,) = found("suppression")
    assert "without a suppression audience" in one.sentence
    until = (timezone.now() + DAY).isoformat()
    Mapping.objects.filter(pk=world.mapping.pk).update(
        override={"by": "a@example.com", "reason": "A test", "until": until}
    )
    assert found("suppression") == []
    until = (timezone.now() - DAY).isoformat()
    Mapping.objects.filter(pk=world.mapping.pk).update(
        override={"by": "a@example.com", "reason": "A test", "until": until}
    )
    assert len(found("suppression")) == 1
    Mapping.objects.create(audience=world.buyers, destination=world.destination, identifiers=["email"], state="live")
    assert found("suppression") == []


def test_a_count_that_is_older_than_three_of_its_cadences_is_stale(world):
    assert found("stale") == []
    late = timezone.now() - timedelta(seconds=900 * 3 + 60)
    moving.count(world.cart, 1, at=late)
    (one,) = found("stale")
    assert "though it should be every 15 minutes" in one.sentence


def test_a_sync_that_did_not_come_is_overdue_unless_one_is_under_way(world):
    assert found("late") == []
    Run.objects.update(finished_at=timezone.now() - timedelta(minutes=46))
    (one,) = found("late")
    assert "No sync to Meta EU has ended since" in one.sentence
    filled.running(world.mapping)
    assert found("late") == []


def test_a_count_that_failed_and_a_rule_that_cannot_be_counted_are_found(world):
    Refresh.objects.create(
        audience=world.cart,
        version=world.cart.live_version,
        state="failed",
        cause="schedule",
        as_of_us=1,
        error="The engine is away.",
    )
    (one,) = found("count")
    assert one.causes == ("The engine is away.",)
    Audience.objects.filter(pk=world.buyers.pk).update(invalid_reason="it names an audience that is archived")
    assert len(found("count")) == 2


def test_an_archived_audience_and_one_without_a_rule_are_looked_at_by_nobody(world):
    Mapping.objects.update(blocked_reason="x")
    Audience.objects.update(archived_at=timezone.now())
    loaded = facts.load(slow=True)
    assert [reading.subject for kind in KINDS.values() for reading in kind.look(loaded) if reading.finding] == []


@pytest.mark.parametrize("slow", [False, True])
def test_looking_asks_the_same_number_of_questions_however_many_audiences_there_are(people, slow):
    def asked(number: int) -> int:
        with transaction.atomic():
            many.audiences(number, people["admin"])
            with CaptureQueriesContext(connection) as captured:
                loaded = facts.load(slow=slow)
                for kind in KINDS.values():
                    list(kind.look(loaded))
            transaction.set_rollback(True)
        return len(captured)

    assert asked(3) == asked(30) <= 17


# ---- Privacy


@pytest.mark.parametrize(
    ("state", "taken_in", "due_in", "severity"),
    [
        ("removing", 23, 29, None),
        ("removing", 25, 29, "warning"),
        ("received", 25, 29, "warning"),
        ("confirmed", 25, 29, None),
        ("confirmed", 800, -1, "critical"),
        ("done", 800, -1, None),
    ],
)
def test_a_privacy_request_that_takes_longer_than_it_may_is_one_alert(people, state, taken_in, due_in, severity):
    now = timezone.now()
    for n in range(2):
        row = PrivacyRequest.objects.create(
            kind="erasure", source="page", state=state, asked_at=now, due_at=now + due_in * DAY, removal=str(n)
        )
        PrivacyRequest.objects.filter(pk=row.pk).update(created_at=now - timedelta(hours=taken_in))
    told = found("privacy")
    assert [one.severity for one in told] == ([severity] if severity else [])
    if told:
        assert "2 privacy requests are overdue" in told[0].sentence
