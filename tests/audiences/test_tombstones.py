"""After a restore nobody comes back who was erased meanwhile: the tombstones are kept in a file of hashes beside the backups."""

import pytest
from django.core.management import CommandError, call_command

from audiences.models import KeptSecret, PrivacyRequest, Profile, ProfileKey, Tombstone
from tests.audiences.people_in import erase, identify, number, suppress, track

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def backup(tmp_path, capsys):
    """Three people; two leave and a third who never was; then the database is of before, and the file of after."""
    for id in ("ann", "bob", "cem"):
        identify(id, email=f"{id}@example.com", phone=f"+4915112345{len(id) + ord(id[0])}")
    erase("nobody@example.com", "email")
    before = Tombstone.objects.get()
    erase("ann@example.com", "email")
    suppress("bob")
    capsys.readouterr()
    call_command("tombstones")
    path = tmp_path / "tombstones.jsonl"
    path.write_text(capsys.readouterr().out)
    Tombstone.objects.exclude(pk=before.pk).delete()
    PrivacyRequest.objects.all().delete()
    for id in ("ann", "bob"):
        identify(id, email=f"{id}@example.com")
    track("ann", "view")
    return path


def test_a_file_of_hashes_erases_and_suppresses_again_whom_a_backup_brought_back(backup, capsys):
    assert "@" not in backup.read_text() and "ann" not in backup.read_text()
    numbers = {number("ann"), number("bob")}

    call_command("tombstones", "--apply", str(backup))

    assert "2 requests were asked again" in capsys.readouterr().out
    assert set(Profile.objects.filter(pk__in=numbers).values_list("state", flat=True)) == {"erased", "deleted"}
    assert set(ProfileKey.objects.filter(kind="id").values_list("value", flat=True)) == {"cem"}
    assert set(PrivacyRequest.objects.values_list("kind", "reference")) == {
        ("erasure", "after a restore"),
        ("suppression", "after a restore"),
    }
    identify("x", phone="+4915112345100")  # Ann's, which nobody here had said again
    assert not ProfileKey.objects.filter(value="x").exists()

    call_command("tombstones", "--apply", str(backup))
    assert "0 hashes were missing; 0 requests" in capsys.readouterr().out


def test_a_file_of_another_database_or_none_at_all_is_refused(backup, tmp_path):
    KeptSecret.objects.all().delete()
    with pytest.raises(CommandError, match="another database"):
        call_command("tombstones", "--apply", str(backup))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"proof": "x"}\n["ann@example.com"]\n')
    with pytest.raises(CommandError, match="Line 2 is none"):
        call_command("tombstones", "--apply", str(bad))
    with pytest.raises(CommandError, match="no such file"):
        call_command("tombstones", "--apply", str(tmp_path / "none"))
