"""What an accepted call leaves behind: events counted once, people merged, removed, suppressed and erased."""

import threading
import time

import orjson
import pytest
from django.db import connection
from pyroaring import BitMap

from audiences import bitmaps
from audiences.models import (
    Alias,
    Audience,
    ChangeLog,
    Consent,
    Event,
    EventKey,
    EventName,
    Identity,
    Membership,
    PersonList,
    PrivacyRequest,
    Profile,
    ProfileKey,
    PropertyName,
    Refresh,
    RefusedRow,
    SegmentVersion,
    Tombstone,
)
from audiences.people import intake, keys, profiles, removal
from audiences.people.payloads import Context, entity_v2
from audiences.services import lists
from tests.audiences.people_in import erase

NOW = 1_790_000_000_000_000
HERE = Context(NOW, "US")
db = pytest.mark.django_db


def _entity(action, who, **fields):
    identifiers = who if isinstance(who, dict) else {"id": who}
    return entity_v2({"type": "person", "action": action, "identifiers": identifiers, **fields}, HERE)


def _event(who, name="purchase", **fields):
    return _entity("event", who, name=name, **fields)


def _identify(who, **attributes):
    return _entity("identify", who, attributes=attributes)


def _merge(primary, secondary):
    return entity_v2(
        {"type": "person", "action": "merge", "primary": {"id": primary}, "secondary": {"id": secondary}}, HERE
    )


def _accept(*calls):
    return intake.accept(calls, "track_v2", received_us=NOW)


def _no(external_id):
    return ProfileKey.objects.get(kind="id", value=external_id).profile_no


def _attributes(profile_no):
    return orjson.loads(Profile.objects.get(pk=profile_no).attributes)


# --- Counted once


@db
def test_the_same_event_id_counts_once_whoever_sends_it_again():
    for _ in range(3):
        _accept(_event("1", id="01J", attributes={"value": 5}), _event("1", id="01J", attributes={"value": 5}))
    assert Event.objects.count() == ChangeLog.objects.filter(kind="event").count() == EventKey.objects.count() == 1
    assert not RefusedRow.objects.exists()


@db
def test_the_same_id_with_other_content_keeps_the_first_and_records_the_conflict():
    _accept(_event("1", id="01J", attributes={"value": 5}))
    _accept(_event("1", id="01J", attributes={"value": 6}))
    _accept(_event("1", id="01K", attributes={"value": 1}), _event("1", id="01K", attributes={"value": 2}))
    assert sorted(Event.objects.values_list("properties", flat=True)) == ['{"value":1}', '{"value":5}']
    assert list(RefusedRow.objects.values_list("source", "field", "reason")) == [("track_v2", "id", "conflict")] * 2


@db
def test_without_an_id_profile_name_explicit_time_and_data_are_the_event():
    same = {"timestamp": 1_789_000_000, "attributes": {"value": 5}}
    _accept(_event("1", **same), _event("1", **same))
    _accept(_event("1", **same))
    assert Event.objects.count() == 1
    _accept(
        _event("2", **same),
        _event("1", name="refund", **same),
        _event("1", timestamp=1_789_000_001, attributes={"value": 5}),
        _event("1", timestamp=1_789_000_000, attributes={"value": 6}),
    )
    assert Event.objects.count() == 5


@db
def test_the_same_person_by_email_and_by_id_is_one_when_there_is_no_event_id():
    _accept(_identify("1", email="ann@example.com"))
    _accept(_event("1", timestamp=1_789_000_000), _event({"email": "Ann@example.com"}, timestamp=1_789_000_000))
    assert Event.objects.count() == 1


@db
def test_with_neither_id_nor_timestamp_each_call_counts():
    _accept(_event("1"), _event("1"))
    _accept(_event("1"))
    assert Event.objects.count() == 3
    assert len(set(Event.objects.values_list("event_key", flat=True))) == 3
    assert not EventKey.objects.exists()


@db
def test_a_time_in_the_future_is_clamped_flagged_and_still_counts_once():
    far = 1_790_000_000 + 10 * 365 * 86_400
    _accept(_event("1", timestamp=far))
    intake.accept(
        [
            entity_v2(
                {"type": "person", "action": "event", "identifiers": {"id": "1"}, "name": "purchase", "timestamp": far},
                Context(NOW + 60_000_000, "US"),
            )
        ],
        "track_v2",
        received_us=NOW + 60_000_000,
    )
    event = Event.objects.get()
    assert event.time_us == event.received_us + 5 * 60 * 1_000_000
    assert RefusedRow.objects.filter(field="timestamp").exists()


@pytest.mark.django_db(transaction=True)
def test_a_duplicate_purchase_from_twenty_threads_is_one_event():
    errors = []
    ready = threading.Barrier(20)

    def send():
        try:
            ready.wait()
            for _ in range(5):
                _accept(_event("buyer", id="01JPURCHASE", attributes={"value": 5}))
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Event.objects.count() == ChangeLog.objects.count() == EventKey.objects.count() == 1
    assert Profile.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_twenty_threads_on_the_same_few_people_make_each_of_them_once():
    errors = []
    ready = threading.Barrier(20)

    def send(thread):
        try:
            ready.wait()
            for turn in range(5):
                people = [f"p{(thread + turn + n) % 7}" for n in range(4)]
                _accept(
                    *(_identify(who, email=f"{who}@example.com", turn=turn) for who in people),
                    *(_event(who, id=f"{who}-{turn}") for who in reversed(people)),
                )
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Profile.objects.count() == Identity.objects.filter(replaced_at=None).count() == 7
    assert Event.objects.count() == 35
    assert sorted(Profile.objects.values_list("pk", flat=True)) == list(range(1, 8))


@pytest.mark.django_db(transaction=True)
def test_calls_that_wait_are_committed_together_and_one_that_fails_fails_alone(monkeypatch):
    """Twelve threads; whatever is taken in with the poisoned call is taken in again without it."""
    sizes, failures, really = [], [], intake._take_in

    def watched(calls, *rest):
        sizes.append(len(calls))
        time.sleep(0.02)  # let the others gather
        if any(call.name == "poison" for call in calls):
            raise ValueError("poisoned")
        return really(calls, *rest)

    monkeypatch.setattr(intake, "_take_in", watched)
    ready = threading.Barrier(12)

    def send(index):
        try:
            ready.wait()
            _accept(_event(f"p{index}", name="poison" if index == 5 else "purchase"))
        except ValueError:
            failures.append(index)
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=(index,)) for index in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [5]
    assert Event.objects.count() == 11
    assert max(sizes) > 1


@db
def test_keys_of_events_are_forgotten_after_thirty_days():
    _accept(_event("1", id="a"))
    assert keys.forget_event_keys(NOW) == 0
    assert keys.forget_event_keys(NOW + 1) == 1
    _accept(_event("1", id="a"))
    assert Event.objects.count() == 2


# --- Events and what they teach


@db
def test_an_event_of_an_unknown_id_makes_the_person():
    _accept(_event("new"))
    assert Event.objects.get().profile_no == _no("new")
    assert Profile.objects.get().kind == "person"


@db
def test_event_names_and_property_types_are_learnt_and_conflicts_counted():
    _accept(
        _event("1", attributes={"value": 12.5, "category": "shoes", "gift": True, "at": "2026-11-01", "sku": "00042"})
    )
    _accept(_event("1", attributes={"value": "a lot"}), _event("1", attributes={"value": "13.25"}))
    assert EventName.objects.get().name == "purchase"
    assert dict(PropertyName.objects.values_list("name", "type")) == {
        "value": "number",
        "category": "text",
        "gift": "boolean",
        "at": "time",
        "sku": "text",
    }
    assert PropertyName.objects.get(name="value").conflicts == 1


@db
def test_calls_of_one_batch_are_taken_in_their_order():
    _accept(
        _identify("1", plan="gold"),
        _event("1", id="a"),
        _entity("delete", "1"),
        _event("1", id="b"),
        _identify("1", plan="new"),
    )
    first, second = Event.objects.order_by("id").values_list("profile_no", flat=True)
    assert first != second == _no("1")
    assert _attributes(second) == {"plan": "new"}


# --- Anonymous visitors and merges


@db
def test_a_visitor_is_outside_the_people_until_identified_which_is_a_merge():
    _accept(_event({"anonymous_id": "v1"}, name="page"))
    visitor = Profile.objects.get()
    assert (visitor.kind, visitor.identity_no) == ("anonymous", None)
    _accept(_identify("1", anonymous_id="v1", plan="gold"))
    person = _no("1")
    visitor.refresh_from_db()
    assert visitor.state == "merged"
    assert Alias.objects.get(old_no=visitor.pk).survivor_no == person
    logged = ChangeLog.objects.get(kind="merge")
    assert (logged.profile_no, logged.name) == (visitor.pk, str(person))
    _accept(_event({"anonymous_id": "v1"}, name="page"))
    assert Event.objects.order_by("-id").first().profile_no == person


@db
def test_a_shared_device_is_the_last_identified_persons_from_then_on():
    _accept(_identify("1", anonymous_id="v1"), _event({"anonymous_id": "v1"}), _identify("2", anonymous_id="v1"))
    _accept(_event({"anonymous_id": "v1"}))
    assert list(Event.objects.order_by("id").values_list("profile_no", flat=True)) == [_no("1"), _no("2")]
    assert not Alias.objects.exists()


@db
def test_a_merge_gives_the_survivor_what_it_lacks_and_moves_the_ids():
    _accept(
        _identify("1", plan="gold", country="DE", created_at=1_600_000_000),
        _identify("2", plan="basic", city="Rome", email="two@example.com", created_at=1_500_000_000),
    )
    survivor, old = _no("1"), _no("2")
    (outcome,) = _accept(_merge("1", "2"))
    assert outcome.profile_no == survivor
    assert _attributes(survivor) == {
        "plan": "gold",
        "country": "DE",
        "created_at": 1_600_000_000,
        "city": "Rome",
        "email": "two@example.com",
    }
    identity = Identity.objects.get(pk=Profile.objects.get(pk=survivor).identity_no)
    assert (identity.external_id, identity.email, identity.country) == ("1", "two@example.com", "DE")
    assert Identity.objects.get(profile_no=old).replaced_at is not None
    assert Profile.objects.get(pk=survivor).created_us == 1_500_000_000_000_000
    assert _no("2") == survivor
    assert set(ProfileKey.objects.values_list("profile_no", flat=True)) == {survivor}
    _accept(_merge("1", "2"))  # a repeat finds them one already
    assert Alias.objects.count() == 1


@db
def test_chains_of_merges_are_folded():
    _accept(*(_identify(who) for who in "abc"))
    a, b, c = (_no(who) for who in "abc")
    _accept(_merge("b", "a"), _merge("c", "b"))
    assert dict(Alias.objects.values_list("old_no", "survivor_no")) == {a: c, b: c}


@db
def test_a_merge_keeps_what_was_said_last_about_consent():
    for who, granted, at_us in (("1", True, NOW), ("2", False, NOW + 1)):
        call = entity_v2(
            {
                "type": "person",
                "action": "identify",
                "identifiers": {"id": who},
                "attributes": {"consent_analytics": granted},
            },
            Context(at_us, "US"),
        )
        intake.accept([call], "track_v2", received_us=at_us)
    _accept(_merge("1", "2"))
    assert list(Consent.objects.values_list("profile_no", "granted")) == [(_no("1"), False)]


@db
def test_a_merge_renames_the_person_on_lists_and_in_current_audiences_at_once():
    _accept(_identify("1"), _identify("2"), _identify("3"))
    one, two, three = (_no(who) for who in "123")
    kept = lists.make("vips", "VIPs", None)
    lists.change(kept, None, add=[two, three])
    audience = Audience.objects.create(key="a", name="A", purpose="retargeting")
    version = SegmentVersion.objects.create(audience=audience, number=1, segment="{}", sha256="", sentence="")
    refresh = Refresh.objects.create(audience=audience, version=version, cause="manual", as_of_us=NOW)
    Membership.objects.create(audience=audience, refresh=refresh, members=bitmaps.pack(BitMap([one, two])), count=2)
    _accept(_merge("1", "2"))
    kept.refresh_from_db()
    assert set(lists.members(kept)) == {one, three}
    membership = Membership.objects.get()
    assert (set(bitmaps.unpack(membership.members)), membership.count) == ({one}, 1)


@db
def test_merging_into_nobody_is_refused_and_merging_nobody_changes_nothing():
    _accept(_identify("1"))
    nobody, nothing = _accept(_merge("9", "1"), _merge("1", "9"))
    assert nobody.refused.field == "primary"
    assert nothing.refused is None
    assert not Alias.objects.exists()


# --- Leaving


@db
def test_a_deleted_person_leaves_and_a_later_identify_makes_a_new_one():
    _accept(_identify("1", email="ann@example.com", consent_analytics=True))
    old = _no("1")
    _accept(_entity("delete", "1"))
    profile = Profile.objects.get(pk=old)
    assert (profile.state, profile.attributes) == ("deleted", "{}")
    assert not ProfileKey.objects.exists()
    assert not Consent.objects.exists()
    assert list(ChangeLog.objects.filter(kind="delete").values_list("profile_no", flat=True)) == [old]
    _accept(_identify({"email": "ann@example.com"}))
    assert ProfileKey.objects.get(kind="email").profile_no != old


@db
def test_a_suppressed_person_does_not_come_back_until_unsuppressed():
    _accept(_identify("1", email="ann@example.com"))
    _accept(_entity("suppress", "1"))
    ignored = _accept(_identify("1", plan="gold"), _event("1"), _event({"email": "ann@example.com"}))
    assert {outcome.ignored for outcome in ignored} == {"suppressed"}
    assert not Event.objects.exists()
    _accept(_entity("unsuppress", "1"))
    assert not Tombstone.objects.exists()
    _accept(_identify("1", email="ann@example.com"))
    assert Profile.objects.get(pk=_no("1")).state == "live"


@db
def test_someone_nobody_knows_can_be_suppressed_in_advance():
    _accept(_entity("suppress", {"email": "Ann@example.com"}))
    assert _accept(_identify("1", email="ann@example.com"))[0].ignored == "suppressed"


@db
def test_an_erased_person_cannot_be_revived_and_leaves_no_words_behind():
    _accept(_identify("1", email="ann@example.com", anonymous_id="v1"), _identify("2", email="old@example.com"))
    person = _no("1")
    _accept(_merge("1", "2"), _event("1", attributes={"card": "Ann"}))
    assert erase("1").people == [person]
    assert not Event.objects.exists()
    assert Profile.objects.get(pk=person).attributes == "{}"
    _accept(_entity("unsuppress", "1"))
    revived = _accept(
        _identify("1"),
        _identify({"email": "ann@example.com"}),
        _event({"anonymous_id": "v1"}),
        _identify("3", email="old@example.com"),
        _event("2"),
    )
    assert {outcome.ignored for outcome in revived} == {"erased"}
    assert ChangeLog.objects.filter(kind="erasure", profile_no=person).count() == 1
    assert Identity.objects.filter(email="ann@example.com").exists()  # until every platform was told
    assert removal.forget_identifiers([person]) == 2
    assert not Identity.objects.exclude(email="").exists()
    assert Profile.objects.get(pk=person).bucket_key == f"gone-{person}"  # it was the first id
    assert erase("1").people == [person]  # the same request, once more
    assert PrivacyRequest.objects.count() == 1


@db
def test_leaving_takes_a_person_off_every_list():
    _accept(_identify("1"), _identify("2"))
    kept = lists.make("vips", "VIPs", None)
    lists.change(kept, None, add=[_no("1"), _no("2")])
    two = _no("2")
    _accept(_entity("delete", "1"))
    kept.refresh_from_db()
    assert (set(lists.members(kept)), kept.count) == ({two}, 1)


@db
def test_a_cio_id_names_a_person_and_never_makes_one():
    _accept(_identify("1"))
    number = _no("1")
    _accept(_identify({"cio_id": profiles.cio_id(number)}, plan="gold"))
    assert _attributes(number) == {"plan": "gold"}
    for unknown in ("cio_ffff", "zz", "-1", "ffffffffff"):
        assert _accept(_event({"cio_id": unknown}))[0].ignored == "unknown"
    assert Profile.objects.count() == 1


# --- Lists


@db
def test_manual_segments_take_people_by_id_email_or_cio_id_and_ignore_unknown_ones():
    _accept(_identify("1"), _identify({"email": "two@example.com"}), _identify("3"), _event({"anonymous_id": "v"}))
    lists.make("vips", "VIPs", None, customerio_segment=12)
    two = ProfileKey.objects.get(kind="email").profile_no
    assert lists.change_by_segment(12, "id", ["1", "nobody"], add=True) == 1
    lists.change_by_segment(12, "email", ["two@example.com"], add=True)
    lists.change_by_segment(12, "cio_id", [profiles.cio_id(_no("3")), "fff"], add=True)
    assert set(lists.members(PersonList.objects.get())) == {_no("1"), two, _no("3")}
    lists.change_by_segment(12, "id", ["1", "2"], add=False)
    assert set(lists.members(PersonList.objects.get())) == {two, _no("3")}
    with pytest.raises(lists.NoSuchList):
        lists.change_by_segment(13, "id", ["1"], add=True)
