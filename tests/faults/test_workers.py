"""Faults of workers (rows 1 to 3, 7 and 8 of the matrix): processes that are killed, doubled, or stopped and woken too late."""

import os
import signal
import time

import orjson
import pytest

from tests.destinations.installation import CHURN, LATE_ADDS, database_url, installation

__all__ = ["database_url", "installation"]
pytestmark = pytest.mark.slow

# What the ledger believes of each of its people, and whom the platform holds, by e-mail hash.
_BELIEF = """
import orjson
from audiences.bitmaps import unpack
from audiences.models import Identity
from destinations.models import Ledger, Operation
from tests.destinations.scene import sha
row = Ledger.objects.get()
email = dict(Identity.objects.values_list("identity_no", "email"))
said = {name: sorted(sha(email[n]) for n in unpack(getattr(row, name))) for name in ("present", "unknown")}
said["fence"] = row.bulk_fence
said["states"] = list(Operation.objects.order_by("pk").values_list("state", flat=True))
said["calls"] = Operation.objects.count()
print(orjson.dumps(said).decode())
"""
_LEASE_OVER = """
from django.utils import timezone
from datetime import timedelta
from destinations.models import Ledger
Ledger.objects.update(bulk_until=timezone.now() - timedelta(seconds=1))
"""
_MEMBERS = """
import orjson
from audiences.bitmaps import unpack
from audiences.models import Membership, Refresh
row = Membership.objects.select_related("refresh").get()
print(orjson.dumps({
    "members": list(unpack(row.members)), "count": row.count, "refresh": row.refresh_id, "state": row.refresh.state,
    "halves": Refresh.objects.exclude(state="done").filter(pk=row.refresh_id).count(),
}).decode())
"""


def belief(installation):
    return orjson.loads(installation.python(_BELIEF))


def no_false_claim(installation):
    """Whoever the ledger calls present is there."""
    assert set(belief(installation)["present"]) <= installation.held()


def test_fault_01_killed_after_the_platform_took_a_call_its_people_are_unknown_and_are_told_again(installation):
    code, _ = installation.sync(FAULT="after_call_before_settle")
    assert code == -signal.SIGKILL
    said = belief(installation)
    assert len(said["unknown"]) == 7 == len(installation.held())
    assert said["present"] == []

    installation.python(CHURN, "0", "x")
    assert installation.sync()[0] == 0

    assert installation.held() == installation.wanted()
    no_false_claim(installation)


def test_fault_02_killed_before_the_call_its_people_are_told_by_the_next_run(installation):
    code, _ = installation.sync(FAULT="after_prepare")
    assert code == -signal.SIGKILL
    assert belief(installation)["states"] == ["prepared"]

    assert installation.sync()[0] == 0

    said = belief(installation)
    assert "prepared" not in said["states"]
    assert installation.held() == installation.wanted()
    no_false_claim(installation)


@pytest.mark.parametrize("point", ["count.computed", "count.before_commit"])
def test_fault_03_killed_inside_a_count_half_of_it_is_never_used(installation, point):
    assert installation.sync()[0] == 0
    before = orjson.loads(installation.python(_MEMBERS))
    installation.python(CHURN, "0", "x")

    killed = installation.manage("refresh", check=False, FAULT=point)

    assert killed.returncode == -signal.SIGKILL
    assert orjson.loads(installation.python(_MEMBERS)) == before
    assert installation.sync()[0] == 0
    after = orjson.loads(installation.python(_MEMBERS))
    assert after["state"] == "done" and len(after["members"]) == after["count"]
    assert installation.held() == installation.wanted()


def test_fault_07_of_workers_that_start_one_sync_at_once_one_sends_and_each_fence_is_higher(installation):
    before = belief(installation)["fence"]
    started = [installation.start_sync() for _ in range(4)]
    words = [process.communicate(timeout=180)[1] for process in started]

    assert [process.returncode for process in started] == [0, 0, 0, 0], words
    said = belief(installation)
    assert said["fence"] > before
    assert installation.held() == installation.wanted()
    assert (
        len([state for state in said["states"] if state == "settled"]) == len(said["states"]) == 9
    )  # 60 people by sevens


def test_fault_08_a_worker_that_sleeps_past_its_lease_changes_nothing_when_it_wakes(installation):
    sandbox, account = installation.sandbox, installation.account
    dial = sandbox.dial("hang", platform="meta", account=account, op="add", skip=2, seconds=4, apply=True)
    zombie = installation.start_sync()
    until = time.monotonic() + 60
    while belief(installation)["states"].count("prepared") == 0 or belief(installation)["calls"] < 3:
        assert time.monotonic() < until
        time.sleep(0.1)
    os.kill(zombie.pid, signal.SIGSTOP)
    sandbox.clear_dials(dial)
    installation.python(_LEASE_OVER)
    installation.python(CHURN, "0", "x")
    assert installation.sync()[0] == 0  # another worker takes over
    taken_over = belief(installation)

    os.kill(zombie.pid, signal.SIGCONT)
    zombie.communicate(timeout=180)

    woken = belief(installation)
    assert set(woken["present"]) - set(taken_over["present"]) <= installation.wanted()
    no_false_claim(installation)
    assert installation.sync()[0] == 0
    assert installation.held() == installation.wanted()
    assert installation.python(LATE_ADDS).strip() == "0"
