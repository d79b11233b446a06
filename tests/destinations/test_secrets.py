"""Credentials at rest: unreadable in a dump, bound to their row, and moved to a new key without a pause."""

import io
import threading

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from audiences.models import AuditEntry
from destinations import secrets
from destinations.models import Account, Destination

CANARY = "EAAB-canary-token-7f3a"
words = st.text(max_size=200)


def make(key: str, plain: dict[str, str]) -> Destination:
    account = Account.objects.create(key=f"meta:{key}")
    destination = Destination.objects.create(key=key, name=key, kind="meta", account=account)
    destination.credentials = secrets.seal(plain, str(destination.pk))
    destination.save()
    return destination


@given(st.dictionaries(words, words, max_size=5), words)
def test_what_is_sealed_opens_again_for_the_same_row(plain, aad):
    assert secrets.unseal(secrets.seal(plain, aad), aad) == plain


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_it_opens_for_no_other_row(one, other):
    sealed = secrets.seal({"token": CANARY}, one)
    if one == other:
        return
    with pytest.raises(secrets.Unreadable):
        secrets.unseal(sealed, other)


def test_sealing_twice_looks_different_each_time():
    assert secrets.seal({"token": CANARY}, "1") != secrets.seal({"token": CANARY}, "1")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s[:-4],
        lambda s: s[:-2] + "AA",
        lambda s: "2" + s[1:],
        lambda s: "nonsense",
        lambda s: "1..",
        lambda s: s.replace(".", ""),
    ],
)
def test_what_was_tampered_with_does_not_open(spoil):
    with pytest.raises(secrets.Unreadable) as told:
        secrets.unseal(spoil(secrets.seal({"token": CANARY}, "1")), "1")
    assert CANARY not in str(told.value)


def test_nothing_sealed_is_nothing():
    assert secrets.unseal("", "1") == {}


def test_older_keys_still_open_and_the_newest_seals():
    with override_settings(CREDENTIALS_KEYS=["old"]):
        sealed = secrets.seal({"token": CANARY}, "1")
    with override_settings(CREDENTIALS_KEYS=["new", "old"]):
        assert secrets.unseal(sealed, "1") == {"token": CANARY}
        assert not secrets.is_newest(sealed)
        assert secrets.is_newest(secrets.seal({}, "1"))
    with override_settings(CREDENTIALS_KEYS=["new"]), pytest.raises(secrets.Unreadable, match="CREDENTIALS_KEYS"):
        secrets.unseal(sealed, "1")


@pytest.mark.django_db
def test_a_dump_of_the_database_shows_no_credential():
    destination = make("meta_main", {"access_token": CANARY, "app_secret": "canary-app-secret"})
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM destinations_destination")
        dump = repr(cursor.fetchall())
    assert CANARY not in dump and "canary-app-secret" not in dump and "access_token" not in dump
    destination.refresh_from_db()
    assert secrets.unseal(destination.credentials, str(destination.pk))["access_token"] == CANARY


@pytest.mark.django_db
def test_credentials_swapped_between_rows_do_not_open():
    one, other = make("one", {"access_token": "1"}), make("other", {"access_token": "2"})
    one.credentials, other.credentials = other.credentials, one.credentials
    for destination in (one, other):
        with pytest.raises(secrets.Unreadable):
            secrets.unseal(destination.credentials, str(destination.pk))


@pytest.mark.django_db
def test_rotation_moves_all_to_the_newest_key_once():
    with override_settings(CREDENTIALS_KEYS=["old"]):
        made = [make(f"d{n}", {"access_token": f"{CANARY}{n}"}) for n in range(3)]
    with override_settings(CREDENTIALS_KEYS=["new", "old"]):
        said = io.StringIO()
        call_command("rotate_credentials", stdout=said)
        assert said.getvalue() == "3 rotated.\n"
        call_command("rotate_credentials", stdout=(again := io.StringIO()))
        assert again.getvalue() == "0 rotated.\n"
    with override_settings(CREDENTIALS_KEYS=["new"]):
        for n, destination in enumerate(made):
            destination.refresh_from_db()
            assert secrets.unseal(destination.credentials, str(destination.pk)) == {"access_token": f"{CANARY}{n}"}
    assert AuditEntry.objects.filter(object_type="destination").count() == 3


@pytest.mark.django_db
def test_rotation_goes_on_past_what_it_cannot_open_and_says_which():
    with override_settings(CREDENTIALS_KEYS=["lost"]):
        make("unreadable", {"access_token": CANARY})
    with override_settings(CREDENTIALS_KEYS=["old"]):
        good = make("zz_good", {"access_token": CANARY})
    with override_settings(CREDENTIALS_KEYS=["new", "old"]):
        with pytest.raises(CommandError, match="unreadable"):
            call_command("rotate_credentials", stdout=io.StringIO())
        good.refresh_from_db()
        assert secrets.is_newest(good.credentials)


@pytest.mark.django_db(transaction=True)
def test_rotation_under_load_loses_no_newer_credentials(monkeypatch):
    """Somebody enters a new token between the command's reading and its writing: the new token stays."""
    with override_settings(CREDENTIALS_KEYS=["old"]):
        destination = make("busy", {"access_token": "before"})
    with override_settings(CREDENTIALS_KEYS=["new", "old"]):
        seal = secrets.seal

        def seal_late(plain: dict[str, str], aad: str) -> str:
            monkeypatch.setattr(secrets, "seal", seal)
            entered = threading.Thread(target=enter)
            entered.start()
            entered.join()
            return seal(plain, aad)

        def enter() -> None:
            Destination.objects.filter(pk=destination.pk).update(
                credentials=seal({"access_token": "after"}, str(destination.pk))
            )
            connection.close()

        monkeypatch.setattr(secrets, "seal", seal_late)
        call_command("rotate_credentials", stdout=(said := io.StringIO()))
        assert said.getvalue() == "0 rotated.\n"
        destination.refresh_from_db()
        assert secrets.unseal(destination.credentials, str(destination.pk)) == {"access_token": "after"}
