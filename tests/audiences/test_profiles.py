"""Taking people in: who a row is about, what it changes, and what is written down about it."""

import orjson
import pytest
from django.db import transaction

from audiences.models import (
    AttributeName,
    ChangeLog,
    Consent,
    Counter,
    Identity,
    Profile,
    ProfileChange,
    ProfileKey,
    Tombstone,
)
from audiences.people import profiles
from audiences.people.payloads import profile_row
from tests.audiences.people_in import suppress

pytestmark = pytest.mark.django_db
NOW = 1_790_000_000_000_000


def _row(value, attributes=None, *, kind="id", at_us=NOW, **more):
    return profile_row(kind, value, attributes or {}, default_region="US", at_us=at_us, **more)


def _upsert(*rows, track=False):
    with transaction.atomic():
        return profiles.upsert(rows, source="test", same_email_is_same_person=track)


def _numbers(outcomes):
    return [outcome.profile_no for outcome in outcomes]


def _attributes(profile_no):
    return orjson.loads(Profile.objects.get(pk=profile_no).attributes)


def _identity(profile_no):
    return Identity.objects.get(pk=Profile.objects.get(pk=profile_no).identity_no)


def test_a_new_person_gets_a_number_an_identity_and_keys():
    (made,) = _upsert(_row("00042", {"email": " Ann@Example.com", "phone": "(202) 555-0143", "plan": "gold"}))
    assert made.made
    profile = Profile.objects.get(pk=made.profile_no)
    assert (profile.kind, profile.state, profile.bucket_key, profile.created_us) == ("person", "live", "00042", NOW)
    assert orjson.loads(profile.attributes) == {"email": " Ann@Example.com", "phone": "(202) 555-0143", "plan": "gold"}
    identity = _identity(made.profile_no)
    assert (identity.external_id, identity.email, identity.phone) == ("00042", "ann@example.com", "+12025550143")
    assert set(ProfileKey.objects.values_list("kind", "value")) == {
        ("id", "00042"),
        ("email", "ann@example.com"),
        ("phone", "+12025550143"),
    }
    assert ProfileChange.objects.filter(profile_no=made.profile_no).count() == 1
    assert set(AttributeName.objects.values_list("name", flat=True)) == {"email", "phone", "plan"}


def test_a_later_row_adds_to_what_is_there_and_null_takes_away():
    _upsert(_row("1", {"plan": "gold", "city": "Rome"}))
    (again,) = _upsert(_row("1", {"plan": "basic", "city": None}))
    assert not again.made
    assert _attributes(again.profile_no) == {"plan": "basic"}


def test_the_same_row_again_writes_nothing():
    _upsert(_row("1", {"email": "a@example.com", "consent_analytics": True}))
    before = ProfileChange.objects.count(), ChangeLog.objects.count(), Identity.objects.count()
    _upsert(_row("1", {"email": "a@example.com", "consent_analytics": True}))
    assert (ProfileChange.objects.count(), ChangeLog.objects.count(), Identity.objects.count()) == before


def test_numbers_are_dense_and_identity_numbers_too():
    _upsert(*(_row(str(n)) for n in range(5)), _row("0"), _row("1", {"plan": "x"}))
    _upsert(_row("7"), _row("7"), _row("8"))
    assert sorted(Profile.objects.values_list("pk", flat=True)) == list(range(1, 8))
    assert sorted(Identity.objects.values_list("pk", flat=True)) == list(range(1, 8))
    assert Counter.objects.get(pk="profile_no").value == 7


def test_a_changed_identifier_makes_a_new_identity_and_the_change_log_says_so():
    (made,) = _upsert(_row("1", {"email": "old@example.com", "country": "DE"}))
    before = _identity(made.profile_no)
    _upsert(_row("1", {"email": "new@example.com"}))
    after = _identity(made.profile_no)
    before.refresh_from_db()
    assert before.replaced_at is not None
    assert (after.email, after.country, after.replaced_at) == ("new@example.com", "DE", None)
    assert after.identity_no != before.identity_no
    assert list(ChangeLog.objects.values_list("profile_no", "kind")) == [(made.profile_no, "identity")]
    assert not ProfileKey.objects.filter(value="old@example.com").exists()


def test_attributes_that_are_no_identifiers_keep_the_identity():
    (made,) = _upsert(_row("1", {"email": "a@example.com", "plan": "gold"}))
    before = _identity(made.profile_no).identity_no
    _upsert(_row("1", {"plan": "basic"}))
    assert _identity(made.profile_no).identity_no == before
    assert not ChangeLog.objects.exists()


def test_a_malformed_email_stays_an_attribute_and_is_reported_once():
    first, second = _upsert(_row("1", {"email": "ann at home"}), _row("1", {"email": "ann at home"}))
    assert [(problem.field, "not an e-mail" in problem.reason) for problem in first.problems] == [("email", True)]
    assert second.problems == []
    assert _attributes(first.profile_no) == {"email": "ann at home"}
    assert _identity(first.profile_no).email == ""
    assert not ProfileKey.objects.filter(kind="email").exists()


def test_a_malformed_email_in_place_of_a_good_one_ends_the_identifier():
    (made,) = _upsert(_row("1", {"email": "ann@example.com"}))
    _upsert(_row("1", {"email": "none"}))
    assert _identity(made.profile_no).email == ""
    assert not ProfileKey.objects.filter(kind="email").exists()


def test_files_never_join_people_by_email():
    outcomes = _upsert(_row("1", {"email": "both@example.com"}), _row("2", {"email": "both@example.com"}))
    assert len(set(_numbers(outcomes))) == 2
    assert ProfileKey.objects.filter(kind="email", value="both@example.com").count() == 2


def test_the_oldest_answers_to_a_shared_email():
    first, _ = _upsert(_row("1", {"email": "both@example.com"}), _row("2", {"email": "both@example.com"}))
    (found,) = _upsert(_row("both@example.com", {"plan": "gold"}, kind="email"))
    assert found.profile_no == first.profile_no


def test_when_the_oldest_gives_up_a_shared_email_the_next_one_answers():
    outcomes = _upsert(
        _row("1", {"email": "both@example.com"}),
        _row("2", {"email": "both@example.com"}),
    )
    later = _upsert(_row("1", {"email": "own@example.com"}), _row("both@example.com", {"plan": "gold"}, kind="email"))
    assert _numbers(later) == _numbers(outcomes)
    assert _attributes(outcomes[1].profile_no)["plan"] == "gold"


def test_through_the_track_api_a_known_email_with_a_new_id_is_the_same_person():
    (first,) = _upsert(_row("ann@example.com", {"plan": "gold"}, kind="email"), track=True)
    (second,) = _upsert(_row("42", {"email": "ANN@example.com"}), track=True)
    assert second.profile_no == first.profile_no
    assert _identity(first.profile_no).external_id == "42"
    (third,) = _upsert(_row("43", {"email": "ann@example.com"}), track=True)
    assert third.profile_no == first.profile_no
    assert _numbers(_upsert(_row("42"), _row("43"), track=True)) == [first.profile_no] * 2


def test_an_id_wins_over_an_email():
    first, second = _upsert(_row("1", {"email": "one@example.com"}), _row("2", {"email": "two@example.com"}))
    (found,) = _upsert(_row("2", {"email": "one@example.com"}), track=True)
    assert found.profile_no == second.profile_no != first.profile_no


def test_an_id_that_is_another_persons_is_not_taken_over():
    one, two = _upsert(_row("1", {"email": "one@example.com"}), _row("2"))
    (found,) = _upsert(_row("one@example.com", {"plan": "gold"}, kind="email", external_id="2"), track=True)
    assert found.profile_no == one.profile_no
    assert [problem.field for problem in found.problems] == ["id"]
    assert _attributes(one.profile_no)["plan"] == "gold"
    assert ProfileKey.objects.get(kind="id", value="2").profile_no == two.profile_no


def test_a_person_found_by_email_takes_on_a_free_id():
    (one,) = _upsert(_row("one@example.com", kind="email"))
    _upsert(_row("one@example.com", kind="email", external_id="77"), track=True)
    assert _numbers(_upsert(_row("77"))) == [one.profile_no]
    assert _identity(one.profile_no).external_id == "77"


def test_a_row_that_only_updates_makes_nobody():
    (nobody,) = _upsert(_row("1", {"plan": "gold"}, create=False))
    assert (nobody.profile_no, nobody.ignored) == (None, "unknown")
    assert not Profile.objects.exists()
    assert not AttributeName.objects.exists()


def test_more_than_300_attributes_on_a_person_are_refused_and_the_person_stays_as_they_were():
    _upsert(_row("1", {f"a{n}": n for n in range(299)}))
    over, other = _upsert(_row("1", {"x": 1, "y": 2}), _row("2", {"x": 1}))
    assert over.refused.field == "attributes"
    assert len(_attributes(over.profile_no)) == 299
    assert _attributes(other.profile_no) == {"x": 1}


def test_consents_are_kept_with_their_source_and_logged_when_they_change():
    (made,) = _upsert(_row("1", {"consent": {"ad_user_data": True, "analytics": False}}))
    assert set(Consent.objects.values_list("purpose", "granted", "source")) == {
        ("ad_user_data", True, "test"),
        ("analytics", False, "test"),
    }
    _upsert(_row("1", {"consent_ad_user_data": "denied", "consent_analytics": False}))
    assert Consent.objects.get(profile_no=made.profile_no, purpose="ad_user_data").granted is False
    logged = list(ChangeLog.objects.filter(kind="consent").order_by("seq").values_list("name", flat=True))
    assert sorted(logged[:2]) == ["ad_user_data", "analytics"]
    assert logged[2:] == ["ad_user_data"]


def test_consent_given_and_taken_in_one_batch_is_taken():
    _upsert(_row("1", {"consent_analytics": True}), _row("1", {"consent_analytics": False}))
    assert Consent.objects.get().granted is False
    _upsert(_row("1", {"consent_analytics": True}), _row("1", {"consent_analytics": False}))
    assert Consent.objects.get().granted is False


def test_an_older_statement_about_consent_that_comes_late_changes_nothing():
    _upsert(_row("1", {"consent_analytics": False}))
    _upsert(_row("1", {"consent_analytics": True}, at_us=NOW - 1))
    assert list(Consent.objects.values_list("granted", "at_us")) == [(False, NOW)]
    _upsert(_row("1", {"consent_analytics": True}, at_us=NOW + 1))
    assert list(Consent.objects.values_list("granted", "at_us")) == [(True, NOW + 1)]


def test_created_at_is_when_the_person_began():
    (made,) = _upsert(_row("1", {"created_at": 1_500_000_000}))
    assert Profile.objects.get(pk=made.profile_no).created_us == 1_500_000_000_000_000
    (odd,) = _upsert(_row("2", {"created_at": "long ago"}))
    assert Profile.objects.get(pk=odd.profile_no).created_us == NOW
    assert [problem.field for problem in odd.problems] == ["created_at"]


def test_profile_numbers_makes_who_is_missing_and_says_why_somebody_must_not_come_back():
    suppress("gone")
    with transaction.atomic():
        known = profiles.profile_numbers(["1", "gone", "1", "2"], at_us=NOW)
    assert set(known) == {"1", "2", "gone"}
    assert known["gone"] == "suppressed"


def test_a_batch_says_the_same_as_its_rows_one_by_one():
    rows = [
        _row("1", {"email": "a@example.com"}),
        _row("a@example.com", {"plan": "gold"}, kind="email"),
        _row("2", {"email": "a@example.com", "phone": "+12025550143"}),
        _row("1", {"email": "b@example.com"}),
        _row("a@example.com", {"n": 1}, kind="email"),
        _row("3", {"email": "b@example.com", "consent_analytics": True}),
        _row("+12025550143", {"m": 2}, kind="phone"),
        _row("1", {"email": None, "plan": None}),
        _row("b@example.com", {"o": 3}, kind="email"),
    ]

    def picture():
        keys = set(ProfileKey.objects.values_list("kind", "value", "profile_no"))
        people = {p.pk: orjson.loads(p.attributes) for p in Profile.objects.all()}
        now = {i.profile_no: (i.external_id, i.email, i.phone) for i in Identity.objects.filter(replaced_at=None)}
        return keys, people, now

    for track in (False, True):
        pictures = []
        for chunks in ([rows], [[row] for row in rows]):
            savepoint = transaction.savepoint()
            numbers = [outcome.profile_no for chunk in chunks for outcome in _upsert(*chunk, track=track)]
            pictures.append((numbers, *picture()))
            transaction.savepoint_rollback(savepoint)
        assert pictures[0] == pictures[1]


# --- Those who must not come back


def test_a_suppressed_person_is_not_made_again_by_any_of_their_identifiers():
    _upsert(_row("1", {"email": "ann@example.com"}))
    suppress("1")
    by_id, by_email, both = _upsert(
        _row("1", {"plan": "gold"}), _row("ann@example.com", kind="email"), _row("9", {"email": "ann@example.com"})
    )
    assert [outcome.ignored for outcome in (by_id, by_email, both)] == ["suppressed"] * 3
    assert not Profile.objects.filter(state="live").exists()


def test_a_live_person_does_not_take_on_a_suppressed_identifier():
    _upsert(_row("1", {"email": "ann@example.com"}), _row("2", {"email": "bob@example.com"}))
    suppress("1")
    (bob,) = _upsert(_row("2", {"email": "ann@example.com", "plan": "gold"}))
    assert _identity(bob.profile_no).email == "bob@example.com"
    assert _attributes(bob.profile_no) == {"email": "bob@example.com", "plan": "gold"}
    assert [problem.field for problem in bob.problems] == ["email"]


def test_tombstones_hold_no_identifier_and_no_plain_hash():
    import hashlib

    _upsert(_row("1", {"email": "ann@example.com"}))
    suppress("1")
    digests = set(Tombstone.objects.values_list("digest", flat=True))
    assert len(digests) == 2
    assert hashlib.sha256(b"ann@example.com").hexdigest() not in digests


def test_tombstones_hold_through_every_rotation_of_the_credentials_keys(settings):
    settings.CREDENTIALS_KEYS = ["first"]
    suppress("1")
    for newest, older in (("second", "first"), ("third", "second"), ("fourth", "third")):
        settings.CREDENTIALS_KEYS = [newest, older]
        assert _upsert(_row("1"))[0].ignored == "suppressed"  # read under the older key, wrapped by the newest
    settings.CREDENTIALS_KEYS = ["fourth"]
    assert _upsert(_row("1"))[0].ignored == "suppressed"
