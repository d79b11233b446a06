"""The doctor says what is wrong and what to do, and its exit code says whether anything is."""

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from audiences.models import Job, Workspace
from qa import soundness

pytestmark = pytest.mark.django_db


def findings():
    return {finding.question: finding for finding in soundness.examine()}


def test_a_sound_deployment_has_no_problem(capsys):
    Workspace.objects.create(name="Acme", consent_policy={"default": "opt_in"})
    assert {finding.state for finding in findings().values()} <= {"ok", "warning"}
    call_command("doctor")
    assert "✓ database" in capsys.readouterr().out


def test_an_unanswered_consent_policy_is_a_problem(capsys):
    Workspace.objects.create(name="Acme")
    assert "nothing is sent" in findings()["workspace"].words
    with pytest.raises(SystemExit) as exit:
        call_command("doctor")
    assert exit.value.code == 1
    assert "→ Settings → Consent." in capsys.readouterr().out


def test_work_that_waits_points_to_the_worker():
    Job.objects.create(task="audiences.flush", key="", due_at=timezone.now() - timedelta(minutes=10))
    assert findings()["work"].state == "warning"
    assert "Start a worker" in findings()["work"].remedy


def test_a_job_that_keeps_failing_is_named():
    Job.objects.create(task="audiences.flush", key="", attempts=3)
    assert "audiences.flush" in findings()["work"].words


def test_an_open_secret_is_a_problem(settings, tmp_path):
    path = tmp_path / "secret_key"
    path.write_text("x")
    path.chmod(0o644)
    settings.SECRET_KEY_FILE = path
    assert findings()["secret_key"].state == "problem"


def test_plain_http_on_an_open_address_is_a_problem(settings):
    settings.PUBLIC_URL = "http://rollcall.example.com"
    assert findings()["settings"].state == "problem"
