"""The commands refresh and members: what they print, and the one line with which they fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from audiences import members
from audiences.models import Audience, Membership, PersonList, Profile, Refresh
from audiences.services import audiences, versions
from tests.audiences.people_in import identify, number, track, us

pytestmark = pytest.mark.django_db
BOUGHT = {"event": "purchase", "count": {"at_least": 1}}


@pytest.fixture
def buyers():
    identify("00042", "carl", "Änne", "zoe", country="DE")
    identify("guest@example.com", country="DE")  # known by an e-mail alone
    for person in ("00042", "carl", "Änne", "guest@example.com"):
        track(person, "purchase", us("2026-03-01T12:00:00"), value=10)
    return publish("buyers", BOUGHT)


def publish(key, segment):
    audience = audiences.create(actor=None, key=key, purpose="retargeting")
    draft = versions.save_draft(actor=None, audience=audience, segment=segment)
    versions.publish(actor=None, version=draft, reason="for the test", override="for the test")
    return Audience.objects.get(key=key)


def test_refresh_counts_all_audiences_and_says_how_many(buyers, capsys):
    publish("nobody", {"event": "purchase", "count": {"at_least": 2}})

    call_command("refresh")

    assert capsys.readouterr().out == "buyers  4 people (v1)\nnobody  0 people (v1)\n"
    assert Membership.objects.count() == 2
    call_command("refresh", "buyers")
    assert capsys.readouterr().out == "buyers  4 people, 0 entered, 0 left (v1)\n"


def test_refresh_for_machines(buyers, capsys):
    call_command("refresh", "--json")

    [row] = json.loads(capsys.readouterr().out)
    assert (row["audience"], row["state"], row["version"], row["count"], row["entered"]) == (
        "buyers",
        "done",
        1,
        4,
        None,
    )
    assert row["rule_counts"] == {"": 4}


def test_refresh_as_of_a_past_moment_touches_nothing(buyers, capsys):
    call_command("refresh", "--as-of", "2026-03-01")
    call_command("refresh", "buyers", "--as-of", "2026-03-01T13:00:00+01:00", "--json")

    printed = capsys.readouterr()
    assert printed.out.startswith("buyers  0 people as of 2026-03-01T00:00:00Z\n")
    assert '"count": 4' in printed.out
    assert "today's attributes" in printed.err
    assert not Refresh.objects.exists()
    assert not Membership.objects.exists()


def test_one_audience_that_cannot_be_counted_fails_the_command_and_not_the_others(buyers, capsys):
    PersonList.objects.create(key="vip", name="VIP")
    publish("vips", {"list": "vip"})
    PersonList.objects.all().delete()

    with pytest.raises(CommandError, match=r'^Not counted: vips\. list: no list "vip" is known$'):
        call_command("refresh")

    assert "buyers  4 people" in capsys.readouterr().out
    with pytest.raises(CommandError, match="vips: list"):
        call_command("refresh", "vips", "--as-of", "2026-03-01")


def test_members_are_external_ids_sorted_with_their_zeros(buyers, capsys):
    call_command("refresh")
    capsys.readouterr()

    call_command("members", "buyers")

    printed = capsys.readouterr()
    assert printed.out == "00042\ncarl\nÄnne\n"
    assert printed.err == "1 of 4 members have no external id and are not listed.\n"


def test_many_members_are_streamed_in_the_same_order(buyers, capsys, monkeypatch):
    monkeypatch.setattr(members, "FEW", 0)
    Profile.objects.filter(pk=number("carl")).update(state="deleted")
    call_command("members", "buyers", "--as-of", "2026-04-01")

    assert capsys.readouterr().out == "00042\nÄnne\n"


def test_members_as_of_a_past_moment(buyers, capsys):
    track("zoe", "purchase", us("2026-05-01T00:00:00"))

    call_command("members", "buyers", "--as-of", "2026-04-30")
    assert capsys.readouterr().out == "00042\ncarl\nÄnne\n"
    call_command("members", "buyers", "--as-of", "2026-05-01")
    assert capsys.readouterr().out == "00042\ncarl\nzoe\nÄnne\n"


def test_members_of_an_uncounted_audience_is_an_error_and_not_nobody(buyers):
    with pytest.raises(CommandError, match=r"buyers has not been counted yet: manage\.py refresh buyers"):
        call_command("members", "buyers")


@pytest.mark.parametrize("command", ["refresh", "members"])
def test_a_key_that_nothing_has_fails_in_one_line(buyers, command):
    with pytest.raises(CommandError, match=r"^There is no audience byers\.$"):
        call_command(command, "byers")


@pytest.mark.parametrize("text", ["yesterday", "1998-13-01", "", "99999-01-01"])
def test_a_moment_that_cannot_be_read_is_refused(buyers, text):
    with pytest.raises(CommandError, match="is not a moment; write 1998-07-01"):
        call_command("refresh", "--as-of", text)


def test_with_nothing_to_count_refresh_says_what_to_do():
    with pytest.raises(CommandError, match="no audience with a published rule yet"):
        call_command("refresh")


def test_commands_bring_an_empty_folder_up_to_date_first(tmp_path):
    environment = {**os.environ, "DATA_DIR": str(tmp_path / "new"), "DATABASE_URL": ""}

    def manage(*arguments):
        root = Path(__file__).resolve().parents[2]
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    overlap = manage("overlap", "--json")
    assert (overlap.returncode, json.loads(overlap.stdout)) == (0, {"audiences": [], "pairs": []})
    refresh = manage("refresh")
    assert refresh.returncode == 1
    assert refresh.stderr.strip().splitlines()[-1].startswith("CommandError: There is no audience")
    assert "Traceback" not in refresh.stderr
