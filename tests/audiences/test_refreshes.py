"""Counting audiences on the real engine: what becomes live, what stays, and what is said where it cannot be counted."""

import hashlib
import threading
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone
from pyroaring import BitMap

from audiences import bitmaps, clock, history, jobs, members, refreshing
from audiences.models import Audience, AuditEntry, Job, Membership, PersonList, Pin, Refresh, SegmentVersion
from audiences.people.engines.base import UnreadableLake
from audiences.segments import evaluate
from audiences.services import audiences, refreshes, versions
from tests.audiences import people_in
from tests.audiences.people_in import identify, numbers, track

pytestmark = pytest.mark.django_db
BOUGHT = {"event": "purchase", "count": {"at_least": 1}}
GERMAN = {"attribute": "country", "op": "is", "value": "DE"}
as_in_life = pytest.mark.django_db(
    transaction=True
)  # what came in since the last pin is told apart by its transaction on PostgreSQL


def publish(key, segment, **fields):
    audience = Audience.objects.filter(key=key).first() or audiences.create(
        actor=None, key=key, purpose="retargeting", **fields
    )
    draft = versions.save_draft(actor=None, audience=audience, segment=segment)
    versions.publish(actor=None, version=draft, reason="for the test", override="for the test")
    return Audience.objects.get(key=key)


def count(*rows, **options):
    people_in.until_counted()
    return refreshes.refresh(rows, cause=Refresh.Cause.MANUAL, **options)


@pytest.fixture
def people():
    identify("anna", "bert", country="DE")
    identify("carl", country="FR")
    track("anna", "purchase", value=10)
    track("carl", "purchase", value=20)


def test_a_count_says_who_is_in_and_how_many_pass_each_rule(people):
    buyers = publish("german_buyers", {"all": [BOUGHT, GERMAN]})

    done = count(buyers)["german_buyers"]

    assert set(members.of(buyers)) == numbers("anna")
    assert (done.state, done.count, done.version.number, done.error) == ("done", 1, 1, "")
    assert done.rule_counts == {"": 1, "all[0]": 2, "all[1]": 2}
    assert (done.entered_count, done.left_count) == (None, None)  # nothing to compare with
    assert abs(done.as_of_us - clock.now_us()) < clock.MINUTE
    assert Pin.objects.count() == 0


@as_in_life
def test_the_next_count_says_who_entered_and_who_left(people):
    buyers = publish("buyers", {"event": "purchase", "count": {"exactly": 1}})
    count(buyers)
    track("anna", "purchase", value=11)
    track("bert", "purchase", value=12)

    done = count(buyers)["buyers"]

    assert set(bitmaps.unpack(done.entered)) == numbers("bert")
    assert set(bitmaps.unpack(done.left)) == numbers("anna")
    assert (done.entered_count, done.left_count, done.count) == (1, 1, 2)
    assert done.keyframe is None
    assert set(history.members_at(done)) == numbers("bert", "carl") == set(members.of(buyers))


def test_audiences_counted_together_share_a_pin_and_refer_to_each_other(people):
    german = publish("german", GERMAN)
    buyers = publish("german_buyers", {"all": [{"audience": "german"}, BOUGHT]})
    others = publish("others", {"not": {"audience": "german_buyers"}})

    done = count(german, buyers, others)

    assert {key: set(members.of(row)) for key, row in (("german", german), ("buyers", buyers), ("others", others))} == {
        "german": numbers("anna", "bert"),
        "buyers": numbers("anna"),
        "others": numbers("bert", "carl"),
    }
    assert len({(row.as_of_us, row.manifest, row.hot, row.change_seq) for row in done.values()}) == 1


def test_a_reference_means_the_live_version_and_not_the_draft(people):
    publish("base", GERMAN)
    on_top = publish("on_top", {"audience": "base"})
    versions.save_draft(actor=None, audience=Audience.objects.get(key="base"), segment={"not": GERMAN})

    count(on_top)

    assert set(members.of(on_top)) == numbers("anna", "bert")


def test_a_list_is_read_as_it_is_now(people):
    row = PersonList.objects.create(
        key="vip", name="VIP", customerio_segment=12, members=bitmaps.pack(BitMap(numbers("bert")))
    )
    by_key, by_number = publish("by_key", {"list": "vip"}), publish("by_number", {"customerio_segment": 12})
    count(by_key, by_number)
    assert set(members.of(by_key)) == set(members.of(by_number)) == numbers("bert")

    row.members = bitmaps.pack(BitMap(numbers("anna", "carl")))
    row.save()
    count(by_key)
    assert set(members.of(by_key)) == numbers("anna", "carl")


def test_a_name_that_is_gone_fails_in_words_and_leaves_the_members_alone(people):
    PersonList.objects.create(key="vip", name="VIP", members=bitmaps.pack(BitMap(numbers("bert"))))
    vip, german = publish("vips", {"list": "vip"}), publish("german", GERMAN)
    count(vip, german)
    PersonList.objects.all().delete()

    done = count(vip, german)

    assert done["vips"].state == "failed"
    assert done["vips"].error == 'list: no list "vip" is known'
    assert done["german"].state == "done"
    assert set(members.of(vip)) == numbers("bert")
    vip.refresh_from_db()
    assert vip.invalid_reason == 'list: no list "vip" is known'
    assert vip.refresh_due_at > timezone.now()

    PersonList.objects.create(key="vip", name="VIP")
    assert count(vip)["vips"].state == "done"
    vip.refresh_from_db()
    assert vip.invalid_reason == ""
    assert len(members.of(vip)) == 0


def test_what_a_reference_brings_in_must_be_known_too(people):
    PersonList.objects.create(key="vip", name="VIP")
    publish("vips", {"list": "vip"})
    on_top = publish("on_top", {"not": {"audience": "vips"}})
    PersonList.objects.all().delete()

    done = count(on_top)["on_top"]

    assert done.state == "failed"
    assert 'no list "vip" is known' in done.error


def test_an_unreadable_history_fails_all_in_words_and_members_stay(people, monkeypatch):
    buyers = publish("buyers", BOUGHT)
    count(buyers)
    before = Membership.objects.get(audience=buyers).members

    def broken(*_):
        raise UnreadableLake("a file was missing")

    monkeypatch.setattr(evaluate, "compute", broken)
    done = count(buyers)["buyers"]

    assert done.state == "failed"
    assert "could not be read" in done.error
    assert bytes(Membership.objects.get(audience=buyers).members) == bytes(before)


def test_one_audience_that_breaks_the_engine_does_not_stop_the_others(people, monkeypatch):
    german, buyers = publish("german", GERMAN), publish("buyers", BOUGHT)
    own = evaluate.compute

    def brittle(trees, *rest):
        if "buyers" in trees:
            raise ZeroDivisionError("anna@example.com")
        return own(trees, *rest)

    monkeypatch.setattr(evaluate, "compute", brittle)
    done = count(german, buyers)

    assert done["german"].count == 2
    assert done["buyers"].state == "failed"
    assert done["buyers"].error == "The count broke off (ZeroDivisionError); the log has the details."


def test_a_count_of_an_older_moment_does_not_replace_a_newer_one(people):
    buyers = publish("buyers", BOUGHT)
    newer = count(buyers)["buyers"]

    answer = count(buyers, as_of_us=newer.as_of_us - clock.DAY)["buyers"]

    assert answer == newer
    assert Membership.objects.get(audience=buyers).refresh == newer
    assert Refresh.objects.filter(audience=buyers).count() == 1


def test_a_count_of_a_version_that_is_no_longer_live_is_dropped(people, monkeypatch):
    german = publish("german", GERMAN)
    count(german)
    own = evaluate.compute

    def published_meanwhile(*args):
        found = own(*args)
        monkeypatch.setattr(evaluate, "compute", own)  # publishing counts too
        publish("german", {"not": GERMAN})
        return found

    monkeypatch.setattr(evaluate, "compute", published_meanwhile)
    answer = count(german)["german"]

    assert answer.state == "failed"
    assert "Another version" in answer.error
    assert Refresh.objects.filter(audience=german).count() == 1
    german.refresh_from_db()
    assert german.refresh_due_at <= timezone.now()


@as_in_life
def test_every_32nd_count_is_a_keyframe_and_history_replays_to_the_members(people):
    buyers = publish("buyers", {"event": "purchase", "count": {"exactly": 1}})
    seen = []
    for turn in range(34):
        track(("anna", "bert", "carl")[turn % 3], "purchase", turn=turn)
        counted = count(buyers)["buyers"]
        seen.append((counted.pk, members.of(buyers)))

    rows = Refresh.objects.filter(audience=buyers).order_by("id")
    assert [index for index, row in enumerate(rows) if row.keyframe is not None] == [0, 32]
    for pk, expected in seen:
        assert history.members_at(Refresh.objects.get(pk=pk)) == expected


@as_in_life
def test_counts_at_the_same_time_leave_one_history_that_replays(people):
    german, buyers = publish("german", GERMAN), publish("buyers", {"event": "purchase", "count": {"exactly": 1}})
    failures = []

    def work(person):
        try:
            for turn in range(4):
                track(person, "purchase", turn=turn)
                count(german, buyers)
        except Exception as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(person,)) for person in ("anna", "bert", "carl")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count(german, buyers)

    assert failures == []
    for audience in (german, buyers):
        row = Membership.objects.get(audience=audience)
        newest = Refresh.objects.filter(audience=audience).order_by("-as_of_us", "-id").first()
        assert row.refresh == newest
        assert history.members_at(newest) == members.of(audience)
        assert not Refresh.objects.filter(audience=audience).exclude(state="done").exists()
    assert set(members.of(german)) == numbers("anna", "bert")
    assert len(members.of(buyers)) == 0


@as_in_life
def test_a_merge_between_two_counts_leaves_a_history_that_replays(people):
    german = publish("german", GERMAN)
    count(german)
    old, survivor = people_in.number("bert"), people_in.number("anna")
    people_in.merge("anna", "bert")
    assert set(members.of(german)) == {survivor}

    done = count(german)["german"]

    assert set(bitmaps.unpack(done.left)) == {old}
    assert set(history.members_at(done)) == set(members.of(german)) == {survivor}


@as_in_life
def test_a_merge_during_a_count_is_not_undone_by_it(people, monkeypatch):
    german = publish("german", GERMAN)
    count(german)
    own = evaluate.compute

    def merged_meanwhile(*args):
        found = own(*args)
        people_in.merge("carl", "bert")
        return found

    survivor = people_in.number("carl")
    monkeypatch.setattr(evaluate, "compute", merged_meanwhile)
    done = count(german)["german"]

    assert set(members.of(german)) == {people_in.number("anna"), survivor}
    assert done.count == Membership.objects.get(audience=german).count == 2


def test_the_stored_members_carry_the_digest_by_which_a_change_is_seen(people):
    german = publish("german", GERMAN)
    count(german)

    row = Membership.objects.get(audience=german)
    assert row.digest == hashlib.sha256(bytes(row.members)).hexdigest()
    assert row.daily == [[clock.from_us(clock.now_us()).date().isoformat(), 2]]


def test_counting_as_of_a_past_moment_touches_nothing(people):
    identify("dora", country="DE")
    track("dora", "purchase", people_in.us("2020-03-01T00:00:00"))
    track("anna", "purchase", people_in.us("2020-03-02T00:00:00"))
    buyers = publish("buyers", {"event": "purchase", "count": {"at_least": 1}, "within": "1d"})
    before = Refresh.objects.count()

    found = refreshes.compute_as_of([buyers], people_in.us("2020-03-02T00:00:00"))["buyers"]

    assert set(found.members) == numbers("anna")  # half-open: dora's is exactly one day old
    assert found.rule_counts == {"": 1}
    assert Refresh.objects.count() == before
    assert not Membership.objects.exists()


def test_an_audience_without_a_rule_and_an_archived_one_cannot_be_counted(people):
    empty = audiences.create(actor=None, key="empty", purpose="retargeting")
    old = publish("old", GERMAN)
    audiences.archive(actor=None, audience=old, reason="over")

    with pytest.raises(refreshes.NothingToCount, match="empty has no published rule"):
        count(empty)
    with pytest.raises(refreshes.NothingToCount, match="old is archived"):
        count(old)


def test_publishing_has_the_audience_counted_by_the_next_worker(people):
    buyers = publish("buyers", BOUGHT)
    assert jobs.run_due_here(["compute"]) >= 1

    done = Refresh.objects.exclude(cause="backfill").get(audience=buyers)
    assert (done.state, done.cause, done.count) == ("done", "publish", 2)
    buyers.refresh_from_db()
    assert buyers.refresh_cause == "schedule"
    assert timedelta(seconds=890) < buyers.refresh_due_at - timezone.now() <= timedelta(seconds=900)
    assert Job.objects.get(task="audiences.refresh_due").error == ""


def test_only_audiences_that_are_due_are_counted(people):
    due, later = publish("due", GERMAN), publish("later", BOUGHT)
    count(due, later)
    Audience.objects.filter(pk=due.pk).update(refresh_due_at=timezone.now())

    jobs.ask("audiences.refresh_due", "all")
    jobs.run_due_here(["compute"])

    counted = Refresh.objects.exclude(cause="backfill")
    assert counted.filter(audience=due).count() == 2
    assert counted.filter(audience=later).count() == 1


def test_asking_for_a_count_is_on_record_and_counts_by_hand(people):
    german = publish("german", GERMAN)
    count(german)
    audiences.ask_refresh(actor=None, audience=german)
    jobs.run_due_here(["compute"])

    assert Refresh.objects.filter(audience=german).order_by("id").last().cause in ("manual", "backfill")
    assert Refresh.objects.filter(audience=german, cause="manual").count() == 2
    assert AuditEntry.objects.filter(verb="audience.refresh_asked", object_key="german").exists()


def test_a_count_whose_worker_died_does_not_stay_counting(people):
    german = publish("german", GERMAN)
    stuck = Refresh.objects.create(audience=german, version=german.live_version, cause="schedule", as_of_us=1)
    Refresh.objects.filter(pk=stuck.pk).update(started_at=timezone.now() - timedelta(hours=1))

    assert refreshes.give_up_abandoned() == 1

    stuck.refresh_from_db()
    assert (stuck.state, stuck.error) == ("failed", "The worker stopped before it had finished; it is counted again.")


class TestPastDays:
    """The 90 days before the first publish."""

    @pytest.fixture
    def buyers(self):
        identify("anna", "bert", country="DE")
        today = clock.now_us() // clock.DAY * clock.DAY
        track("anna", "purchase", today - 5 * clock.DAY + clock.HOUR)
        track("bert", "purchase", today - 2 * clock.DAY + clock.HOUR)
        track("anna", "purchase", today - 400 * clock.DAY)
        self.today = today
        return publish("buyers", {"event": "purchase", "count": {"at_least": 1}, "within": "2d"})

    def test_each_past_day_has_a_count_and_history_replays(self, buyers):
        jobs.run_due_here(["compute"])

        past = Refresh.objects.filter(audience=buyers, cause="backfill").order_by("as_of_us")
        counts = {(row.as_of_us - self.today) // clock.DAY: row.count for row in past}
        assert sorted(counts) == list(range(-89, 1))
        assert {day: size for day, size in counts.items() if size} == {-4: 1, -3: 1, -1: 1, 0: 1}
        assert [row.keyframe is not None for row in past] == [index % 32 == 0 for index in range(90)]
        assert set(history.members_at(past.get(as_of_us=self.today - 4 * clock.DAY))) == numbers("anna")
        assert set(history.members_at(past.last())) == numbers("bert")
        buyers.refresh_from_db()
        assert buyers.backfill_until_us is None

    def test_the_curve_begins_with_them_and_ends_with_what_is_live(self, buyers):
        jobs.run_due_here(["compute"])

        daily = dict(Membership.objects.get(audience=buyers).daily)
        assert len(daily) == 90
        live = Refresh.objects.exclude(cause="backfill").get(audience=buyers)
        assert daily[clock.from_us(self.today).date().isoformat()] == live.count
        curve = history.curve(buyers)
        assert [point.backfilled for point in curve.points] == [True] * 89 + [False]
        assert [(mark.version, mark.reason) for mark in curve.marks] == [(1, "for the test")]

    def test_killed_in_the_middle_it_goes_on_where_it_stopped(self, buyers, monkeypatch):
        own, days = evaluate.compute, []

        def dies(trees, pin, *rest):
            days.append(pin.as_of_us)
            if len(days) == 47:
                raise KeyboardInterrupt
            return own(trees, pin, *rest)

        count(buyers)
        monkeypatch.setattr(evaluate, "compute", dies)
        claim = jobs.Claim(0, 0, "all")
        monkeypatch.setattr(jobs.Claim, "renew", lambda self: None)
        with pytest.raises(KeyboardInterrupt):
            refreshing.fill_in(claim)
        assert Refresh.objects.filter(audience=buyers, cause="backfill").count() == 40

        monkeypatch.setattr(evaluate, "compute", own)
        refreshing.fill_in(claim)

        past = Refresh.objects.filter(audience=buyers, cause="backfill").order_by("as_of_us")
        assert len({row.as_of_us for row in past}) == len(past) == 90
        assert set(history.members_at(past.get(as_of_us=self.today - 4 * clock.DAY))) == numbers("anna")
        assert sum(row.count for row in past) == 4

    def test_days_before_the_first_event_are_left_out(self):
        identify("anna", country="DE")
        today = clock.now_us() // clock.DAY * clock.DAY
        track("anna", "purchase", today - 3 * clock.DAY + clock.HOUR)
        publish("buyers", BOUGHT)

        jobs.run_due_here(["compute"])

        assert Refresh.objects.filter(cause="backfill").count() == 3

    def test_a_second_version_fills_in_no_past(self, buyers):
        jobs.run_due_here(["compute"])
        publish("buyers", BOUGHT)
        jobs.run_due_here(["compute"])

        assert set(Refresh.objects.filter(cause="backfill").values_list("version__number", flat=True)) == {1}

    def test_a_version_published_before_the_past_is_complete_gets_it_all(self, buyers):
        Refresh.objects.create(
            audience=buyers,
            version=buyers.live_version,
            cause="backfill",
            state="done",
            keyframe=b"",
            count=0,
            as_of_us=self.today - 50 * clock.DAY,
        )
        publish("buyers", BOUGHT)
        jobs.run_due_here(["compute"])

        past = Refresh.objects.filter(cause="backfill")
        assert set(past.values_list("version__number", flat=True)) == {2}
        assert past.count() == 90

    def test_an_audience_that_cannot_be_counted_waits_and_does_not_hold_up_the_others(self, buyers):
        lists = PersonList.objects.create(key="vip", name="VIP")
        broken = publish("broken", {"list": "vip"})
        lists.delete()

        jobs.run_due_here(["compute"])

        broken.refresh_from_db()
        assert broken.backfill_until_us is not None
        assert Refresh.objects.filter(cause="backfill", audience=buyers).count() == 90


def test_versions_are_one_after_the_other(people):
    german = publish("german", GERMAN)
    publish("german", {"not": GERMAN})

    states = SegmentVersion.objects.filter(audience=german).order_by("number").values_list("number", "state")
    assert list(states) == [(1, "retired"), (2, "published")]
