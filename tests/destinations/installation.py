"""An installation of a test's own, driven by processes only: they can be killed anywhere and stopped in the middle."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import psycopg
import pytest

from tests import migrated
from tests.destinations import scene

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"

_FILL = """
import sys
from destinations.sandbox.control import Sandbox
from tests.destinations import scene
from tests.audiences.people_in import track
from destinations.models import Mapping
base_url, account = sys.argv[1:]
scene.workspace()
scene.imported(*(f"p{n}" for n in range(60)))
track("zoe", "purchase")
scene.live(Sandbox(base_url), account, scene.audience("cart", scene.NO_PURCHASE))
"""

CHURN = """
import sys
from tests.destinations import scene
from tests.audiences.people_in import identify, track
first, fresh = int(sys.argv[1]), sys.argv[2]
for n in range(first, first + 5):
    track(f"p{n}", "purchase")
for n in range(first + 5, first + 8):
    identify(f"p{n}", email=f"p{n}.{fresh}@example.com")
scene.imported(*(f"{fresh}{n}" for n in range(5)))
"""

_WANTED = """
from audiences.models import Event, Identity, Profile
import orjson
bought = set(Event.objects.filter(name="purchase").values_list("profile_no", flat=True))
rows = Identity.objects.filter(replaced_at__isnull=True).exclude(profile_no__in=bought).exclude(email="")
print(orjson.dumps(sorted(rows.values_list("email", flat=True))).decode())
"""

LATE_ADDS = """
from audiences import clock
from audiences.bitmaps import unpack
from audiences.models import Event, Identity
from destinations.models import Operation
bought = dict(Event.objects.filter(name="purchase").values_list("profile_no", "received_us"))
owner = dict(Identity.objects.values_list("identity_no", "profile_no"))
print(sum(
    bought.get(owner[number], 2**62) < clock.to_us(operation.prepared_at)
    for operation in Operation.objects.filter(kind="add")
    for number in unpack(operation.identities)
))
"""


class Installation:
    """One DATA_DIR and database, driven by processes only."""

    def __init__(self, folder, sandbox, account, database_url):
        self.folder, self.sandbox, self.account = folder, sandbox, account
        self.environment = {
            **os.environ,
            "DATA_DIR": str(folder),
            "DATABASE_URL": database_url,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "PYTHONPATH": str(MANAGE.parent),
        }
        migrated.fill(folder, database_url)
        self.python(_FILL, sandbox.base_url, account)

    def manage(self, *arguments, check=True, **environment):
        done = subprocess.run(
            [sys.executable, str(MANAGE), *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, done.stderr[-2000:]
        return done

    def python(self, code, *arguments):
        setup = "import django; django.setup()\n"
        done = subprocess.run(
            [sys.executable, "-c", setup + code, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def start_sync(self, **environment):
        return subprocess.Popen(
            [sys.executable, "-c", _SMALL_CALLS, "sync", "--wait", "60"],
            env={**self.environment, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def sync(self, **environment):
        process = self.start_sync(**environment)
        _, errors = process.communicate(timeout=120)
        return process.returncode, errors

    def wanted(self):
        return {scene.sha(email) for email in orjson.loads(self.python(_WANTED))}

    def held(self):
        remote = max(self.sandbox.audiences("meta", self.account), key=lambda row: row["id"])
        return {value for kind, value in self.sandbox.identifiers("meta", remote["id"]) if kind == "email"}


# Calls of seven people, so that a sync of sixty has several of them to be killed in.
_SMALL_CALLS = f"""
import sys, dataclasses
sys.path.insert(0, {str(MANAGE.parent)!r})
import django; django.setup()
from destinations.connectors.meta import Meta
Meta.capabilities = dataclasses.replace(Meta.capabilities, batch_size=7, calls_per_minute=100_000)
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


@pytest.fixture
def database_url():
    """A database of the installation's own, on the server that the tests run on, or SQLite in its folder."""
    url = os.environ.get("DATABASE_URL", "")
    if not url:
        yield ""
        return
    name = f"rc_kills_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        server.execute(f'CREATE DATABASE "{name}"')
        yield urlsplit(url)._replace(path=f"/{name}").geturl()
        server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def installation(tmp_path, sandbox, account_number, database_url):
    return Installation(tmp_path, sandbox, account_number, database_url)
