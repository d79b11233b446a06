"""An import that is killed again and again, anywhere, counts every row once."""

import random
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

POINTS = ["import.staged", "import.before_commit", "import.committed", "stage.events", "stage.rollup", "file.renamed"]


def test_events_killed_at_every_step_count_once(deployment, tmp_path):
    rows = 60_000
    path = tmp_path / "events.csv"
    path.write_text("who,at,n\n" + "".join(f"p{n % 500},2026-{1 + n % 3:02}-01T00:00:00Z,{n}\n" for n in range(rows)))
    words = ("import_events", str(path), "--map", "profile=who", "--map", "time=at", "--name", "visit", "--json")
    small = {"IMPORT_CHECKPOINT_ROWS": "15000"}
    for point in POINTS:
        killed = deployment.manage(*words, check=False, FAULT=point, **small)
        assert killed.returncode == -9, f"{point}: {killed.stdout}{killed.stderr}"
        _let_the_lease_end(deployment)
    dice = random.Random(7)
    for _ in range(3):
        process = deployment.launch(*words, **small)
        time.sleep(dice.uniform(1.0, 2.5))
        process.kill()
        process.wait()
        _let_the_lease_end(deployment)
    done = deployment.json(*words, **small)
    assert (done["rows"], done["accepted"], done["refused"]) == (rows, rows, 0)
    assert _count_and_sum(deployment) == (rows, rows * (rows - 1) // 2, 500)


def _let_the_lease_end(deployment):
    """As thirty seconds would."""
    deployment.manage("shell", "-c", "from audiences.models import Job; Job.objects.update(lease_until=None)")


def _count_and_sum(deployment):
    script = (
        "import duckdb; from audiences.models import LakeFile; from audiences.people.lake import files;"
        "paths=[str(files.absolute(r.path)) for r in LakeFile.objects.filter(kind='events', dead_manifest__isnull=True)];"
        "print(*duckdb.sql(f\"SELECT count(*), sum((properties->>'n')::int), count(distinct profile_no) FROM read_parquet({paths}, union_by_name=true)\").fetchall()[0])"
    )
    out = deployment.manage("shell", "-c", script).stdout.strip().splitlines()[-1]
    return tuple(int(number) for number in out.split())
