"""The database comes back from an older backup (row 15 of the matrix): nothing is believed of any platform before it was told again."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from urllib.parse import urlsplit

import orjson
import psycopg
import pytest

from tests.destinations.installation import Installation, database_url
from tests.destinations.scene import sha

__all__ = ["database_url"]
pytestmark = pytest.mark.slow

_HOUR = """
from tests.audiences.people_in import identify, track
from tests.destinations import scene
for n in range(10):
    track(f"p{n}", "purchase")
identify("p11", email="p11.new@example.com")
scene.imported(*(f"late{n}" for n in range(5)))
"""
_SENT_AGAIN = """
from tests.audiences.people_in import identify, track
from tests.destinations import scene
for n in range(10):
    track(f"p{n}", "purchase")
identify("p11", email="p11.new@example.com")
scene.imported(*(f"late{n}" for n in range(3)))
"""
_BELIEVED = """
from audiences.bitmaps import unpack
from destinations.models import Hold, Ledger, Operation, Run
import orjson
ledger = Ledger.objects.get()
print(orjson.dumps({
    "present": len(unpack(ledger.present)), "unknown": len(unpack(ledger.unknown)), "rejected": len(unpack(ledger.rejected)),
    "epoch": ledger.epoch, "holds": list(Hold.objects.filter(lifted_at=None).values_list("rule", "direction")),
    "running": Run.objects.filter(state__in=("sending", "confirming")).count(),
}).decode())
"""
_LIFT = """
from destinations.models import Hold
from destinations.services import holds
for hold in Hold.objects.filter(lifted_at=None, rule="restored"):
    holds.lift(actor=None, hold=hold)
"""


class Restorable(Installation):
    """Its database and lake can be kept and brought back."""

    def back_up(self):
        shutil.copytree(self.folder / "lake", self.folder / "lake.kept", dirs_exist_ok=True)
        if url := self.environment["DATABASE_URL"]:
            dump = ["pg_dump", "--format=custom", f"--file={self.folder}/kept.dump", url]
            subprocess.run(dump, check=True, capture_output=True)
            return
        with (
            closing(sqlite3.connect(self.folder / "rollcall.sqlite3")) as own,
            closing(sqlite3.connect(self.folder / "kept.sqlite3")) as kept,
        ):
            own.backup(kept)

    def restore(self, *, ahead: int = 0):
        """`ahead`: as if the server that the backup was made on had been so many transactions ahead of this one."""
        shutil.rmtree(self.folder / "lake")
        shutil.copytree(self.folder / "lake.kept", self.folder / "lake")
        url = self.environment["DATABASE_URL"]
        if not url:
            for name in ("rollcall.sqlite3", "rollcall.sqlite3-wal", "rollcall.sqlite3-shm"):
                (self.folder / name).unlink(missing_ok=True)
            shutil.copy(self.folder / "kept.sqlite3", self.folder / "rollcall.sqlite3")
            return
        name = urlsplit(url).path.lstrip("/")
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as server:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            server.execute(f'CREATE DATABASE "{name}"')
        subprocess.run(["pg_restore", "--no-owner", f"--dbname={url}", f"{self.folder}/kept.dump"], check=True)
        with psycopg.connect(url, autocommit=True) as own:
            for table, column in (
                ("audiences_event", "xid"), ("audiences_changelog", "xid"), ("audiences_profilechange", "xid"),
                ("destinations_ledger", "change_seq"), ("destinations_decision", "seq"), ("audiences_refresh", "hot"),
                ("audiences_refresh", "change_seq"),
            ):  # fmt: skip
                own.execute(f"UPDATE {table} SET {column} = {column} + {ahead}")

    def believed(self):
        return orjson.loads(self.python(_BELIEVED))


@pytest.fixture
def installation(tmp_path, sandbox, account_number, database_url):
    made = Restorable(tmp_path, sandbox, account_number, database_url)
    made.python("from audiences.people import lake\nlake.project_profiles()")
    return made


def test_fault_15_after_a_restore_nothing_is_believed_until_told_again_and_the_platform_ends_as_intended(installation):
    assert installation.sync()[0] == 0
    installation.back_up()
    before = installation.believed()
    installation.python(_HOUR)
    assert installation.sync()[0] == 0  # ten have left, five have come, one has another address
    lost = installation.held()

    installation.restore(ahead=1_000_000)
    said = installation.manage("restored").stdout

    after = installation.believed()
    assert "60 people on 1 connections are told again." in said
    assert (after["present"], after["rejected"], after["unknown"]) == (0, 0, 60)
    assert (after["epoch"], after["running"]) == (before["epoch"] + 1, 0)
    assert after["holds"] == [["restored", "both"]]

    # Comparisons are held: what the backup knows of nothing is told to anybody.
    assert installation.sync()[0] == 0
    assert installation.held() == lost

    installation.python(_SENT_AGAIN)
    installation.python(_LIFT)
    code, errors = installation.sync()
    assert code == 0, errors[-1000:]
    # Two people came after the backup and were not sent again: nobody here knows them any more.
    strangers = installation.held() - installation.wanted()
    assert installation.wanted() <= installation.held()
    assert len(strangers) == 2
    assert installation.believed()["present"] == len(installation.wanted())


def test_fault_15_a_lake_that_was_not_restored_with_the_database_is_said_and_nothing_is_changed(installation):
    before = installation.believed()
    shutil.rmtree(installation.folder / "lake")

    refused = installation.manage("restored", check=False)

    assert refused.returncode == 1
    assert "files of the lake that the database counts on are missing" in refused.stderr
    assert installation.believed() == before


def test_fault_15_with_everybody_whoever_was_sent_after_the_backup_and_is_known_here_is_taken_out_too(installation):
    installation.python(
        "from tests.audiences.people_in import identify\nidentify('out', email='out@example.com', **{'in': 'no'})"
    )
    assert installation.sync()[0] == 0
    installation.back_up()
    installation.python("from tests.audiences.people_in import identify\nidentify('out', **{'in': 'yes'})")
    assert installation.sync()[0] == 0
    assert len(installation.held()) == 61

    installation.restore()
    installation.manage("restored", "--complete", "--everybody")
    code, errors = installation.sync()

    assert code == 0, errors[-1000:]
    assert installation.held() == installation.wanted() - {sha("out@example.com")}
