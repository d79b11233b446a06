"""Fault 44, killed: a list of erasures, the reading of consent and the forgetting itself die at every named point, and are taken up again. Real processes."""

import signal
import subprocess
import sys

import orjson
import pytest

from tests.destinations.installation import Installation, database_url

__all__ = ["database_url"]

pytestmark = pytest.mark.slow

_ASK = """
import sys
from pathlib import Path
from audiences.people import imports, privacy_lists
path = Path(sys.argv[1])
row = privacy_lists.start(path, actor=None, kind="erasure", source="list", in_background=False)
imports.run_here(row)
"""
_FOLLOW = """
from qa import privacy
privacy.follow()
"""
_STATE = """
from audiences.models import *
from destinations.models import PrivacyReceipt
import orjson
print(orjson.dumps({
    "requests": PrivacyRequest.objects.count(),
    "forgotten": PrivacyRequest.objects.exclude(forgotten_at=None).count(),
    "people": sum(len(one) for one in PrivacyRequest.objects.values_list("people", flat=True)),
    "receipts": list(PrivacyReceipt.objects.values_list("state", flat=True)),
    "live": Profile.objects.filter(state="live", kind="person").count(),
    "emails": Identity.objects.exclude(email="").count(),
    "rows": RefusedRow.objects.exclude(raw="").count(),
    "refused": RefusedRow.objects.filter(source="import").count(),
}).decode())
"""
_REFUSED = """
from audiences.models import RefusedRow
RefusedRow.objects.create(source="track_v1", reason="x", raw='{"email": "p3@example.com"}')
RefusedRow.objects.create(source="track_v1", reason="x", raw='{"email": "p50@example.com"}')
"""


@pytest.fixture
def installation(tmp_path, sandbox, account_number, database_url):
    made = Installation(tmp_path, sandbox, account_number, database_url)
    code, errors = made.sync()
    assert code == 0, errors[-500:]
    return made


def run(installation, code, *arguments, fault=""):
    """The code in a process of its own; its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", "import django; django.setup()\n" + code, *arguments],
        env={**installation.environment, "FAULT": fault},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-2000:]
    return done.returncode


def state(installation):
    return orjson.loads(installation.python(_STATE))


@pytest.mark.parametrize("point", ["privacy_list.before_commit", "privacy_list.committed"])
def test_fault_44_a_list_that_is_killed_is_read_on_and_asks_for_nobody_twice(installation, tmp_path, point):
    path = tmp_path / "list.csv"
    path.write_text("email\n" + "".join(f"p{n}@example.com\n" for n in range(45)) + "not an address\n")
    assert run(installation, _ASK, str(path), fault=point) == -signal.SIGKILL
    between = state(installation)
    assert between["requests"] == between["people"] == (0 if point.endswith("before_commit") else 20)
    installation.python(_EXPIRE)
    assert run(installation, _ASK, str(path)) == 0
    after = state(installation)
    assert (after["requests"], after["people"], after["live"], after["refused"]) == (45, 45, 60 + 1 - 45, 1)


_EXPIRE = """
from django.utils import timezone
from datetime import timedelta
from audiences.models import Job
Job.objects.exclude(lease_until=None).update(lease_until=timezone.now() - timedelta(seconds=1))
"""
POINTS = ["privacy.looked", "privacy.before_forget_commit", "privacy.forgotten", "privacy.rows_forgotten"]


@pytest.mark.parametrize("point", POINTS)
def test_fault_44_forgetting_that_is_killed_anywhere_is_finished_by_the_next_and_forgets_nobody_too_early(
    installation, tmp_path, point
):
    path = tmp_path / "list.csv"
    path.write_text("email\n" + "".join(f"p{n}@example.com\n" for n in range(5)))
    run(installation, _ASK, str(path))
    installation.python(_REFUSED)
    run(installation, _FOLLOW)
    held = state(installation)
    assert (held["emails"], held["rows"], held["receipts"]) == (60, 2, ["removing"] * 5)
    assert installation.sync()[0] == 0
    assert installation.held() == {h for h in installation.held() if h} and len(installation.held()) == 55

    assert run(installation, _FOLLOW, fault=point) == -signal.SIGKILL
    run(installation, _FOLLOW)

    after = state(installation)
    assert (after["forgotten"], after["emails"], after["rows"]) == (5, 55, 1)
    assert after["receipts"] == ["accepted"] * 5


_ADS = """
import sys
from audiences import jobs
from audiences.people import consents
from audiences.services import workspace
from tests.audiences.people_in import identify
consents.AT_ONCE = 10
if sys.argv[1] == "first":
    for n in range(60):
        identify(f"p{n}", ads_ok="no" if n % 3 else "yes")
    workspace.change(actor=None, consent_attributes=[{"attribute": "ads_ok", "purposes": ["ad_user_data"]}])
jobs.run_due_here(["compute"])
"""
_SAID = """
from audiences.models import ChangeLog, Consent, ConsentStatement
print(Consent.objects.filter(granted=False).count(), Consent.objects.filter(granted=True).count(), ConsentStatement.objects.count(),
      ChangeLog.objects.filter(kind="consent").count())
"""


@pytest.mark.parametrize("point", ["consents.before_commit", "consents.some_read"])
def test_fault_43_reading_consent_that_is_killed_is_finished_and_says_nothing_twice(installation, point):
    assert run(installation, _ADS, "first", fault=point) == -signal.SIGKILL
    installation.python(_EXPIRE)
    assert run(installation, _ADS, "again") == 0
    assert installation.python(_SAID).split() == ["40", "20", "60", "60"]
    assert installation.sync()[0] == 0
    assert len(installation.held()) == 20
