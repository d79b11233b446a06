"""Due work survives lost hints, doubled hints and dead workers."""

from datetime import timedelta

import pytest
from celery import current_app
from django.utils import timezone

from audiences import jobs
from audiences.models import Job

ran: list[str] = []


@jobs.job("tests.note")
def note(claim: jobs.Claim) -> None:
    ran.append(claim.key)
    if claim.key == "asks-again":
        jobs.ask("tests.note", "asks-again", after=timedelta(hours=1))
    if claim.key == "breaks":
        raise ValueError("mary@example.com")


@pytest.fixture(autouse=True)
def _forget():
    ran.clear()


@pytest.fixture
def hints(monkeypatch):
    given: list[int] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, args, queue: given.append(args[0]), raising=False)
    return given


@pytest.mark.django_db
def test_asking_twice_runs_once():
    jobs.ask("tests.note", 7)
    jobs.ask("tests.note", 7)
    assert jobs.run_due_here() == 1
    assert ran == ["7"]
    assert jobs.run_due_here() == 0


@pytest.mark.django_db
def test_a_hint_for_a_job_that_is_held_does_nothing():
    jobs.ask("tests.note", 7)
    row = Job.objects.get()
    Job.objects.update(lease_until=timezone.now() + timedelta(seconds=5))
    note(row.pk)
    assert ran == []


@pytest.mark.django_db
def test_a_job_whose_worker_died_runs_again_when_the_lease_ends():
    jobs.ask("tests.note", 7)
    Job.objects.update(due_at=None, lease_until=timezone.now() - timedelta(seconds=1), fence=3)
    assert jobs.run_due_here() == 1
    assert Job.objects.get().fence == 4


@pytest.mark.django_db
def test_an_outdated_claim_can_neither_renew_nor_settle():
    jobs.ask("tests.note", 7)
    row = Job.objects.get()
    old = jobs.Claim(row.pk, 1, "7")
    Job.objects.update(fence=2, lease_until=timezone.now() + timedelta(seconds=5))
    with pytest.raises(jobs.LeaseLost):
        old.renew()
    jobs._settle(old, None)
    assert Job.objects.get().lease_until is not None


@pytest.mark.django_db
def test_what_is_asked_for_while_it_runs_runs_once_more():
    jobs.ask("tests.note", "asks-again")
    jobs.run_due_here()
    assert Job.objects.get().due_at > timezone.now() + timedelta(minutes=50)


@pytest.mark.django_db
def test_a_failing_job_is_tried_again_later_and_its_error_holds_no_words_of_the_exception():
    jobs.ask("tests.note", "breaks")
    assert jobs.run_due_here() == 1
    row = Job.objects.get()
    assert row.due_at > timezone.now()
    assert row.attempts == 1
    assert row.error.startswith("ValueError in note:")


@pytest.mark.django_db
def test_a_repeating_job_is_due_again_after_its_time():
    jobs.keep_doing("tests.note", "often", every=timedelta(minutes=10))
    jobs.run_due_here()
    assert timedelta(minutes=9) < Job.objects.get().due_at - timezone.now() <= timedelta(minutes=10)


@pytest.mark.django_db
def test_a_lost_hint_is_given_again(hints):
    jobs.ask("tests.note", 7)
    assert jobs.sweep() == 1
    assert jobs.sweep() == 0
    Job.objects.update(hinted_at=timezone.now() - 2 * jobs.HINT_AGAIN, due_at=timezone.now() - 3 * jobs.HINT_AGAIN)
    assert jobs.sweep() == 1
    assert len(hints) == 2


@pytest.mark.django_db
def test_slow_work_never_fills_the_worker_so_that_urgent_work_waits(hints):
    for key in range(5):
        jobs.ask("tests.note", key)
    jobs.ask("tests.note", "now", queue="urgent")
    assert jobs.sweep(slots=2) == 3
    assert Job.objects.get(key="now").pk in hints


@pytest.mark.django_db
def test_a_job_held_here_is_nobody_elses_until_it_ends():
    with jobs.held("tests.note", 7) as claim:
        claim.renew()
        with pytest.raises(jobs.Busy), jobs.held("tests.note", 7):
            pass
        assert jobs.run_due_here() == 0
    with jobs.held("tests.note", 7):
        pass


@pytest.mark.django_db
def test_what_a_dead_command_held_is_taken_over_by_a_worker():
    with pytest.raises(jobs.LeaseLost), jobs.held("tests.note", 7) as claim:
        Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        assert jobs.run_due_here() == 1
        claim.renew()
    assert ran == ["7"]


@pytest.mark.django_db
def test_a_command_that_failed_says_so_on_the_row_and_is_not_tried_again():
    with pytest.raises(ValueError), jobs.held("tests.note", 7):
        raise ValueError("mary@example.com")
    row = Job.objects.get()
    assert row.error.startswith("ValueError in test_a_command")
    assert row.due_at is None
    assert jobs.run_due_here() == 0


@pytest.mark.django_db
def test_what_must_be_done_now_is_done_before_going_on():
    jobs.run_now("tests.note", 7)
    assert ran == ["7"]


@pytest.mark.django_db
def test_a_job_whose_worker_is_asked_to_stop_ends_at_a_safe_place_and_is_due_at_once(monkeypatch):
    @jobs.job("tests.long")
    def long(claim):
        while True:
            ran.append("step")
            if len(ran) == 3:
                jobs.stop()
            claim.renew()

    monkeypatch.setattr(jobs, "_asked_to_stop", type(jobs._asked_to_stop)())
    jobs.keep_doing("tests.long", "", every=timedelta(hours=1))
    long(Job.objects.get(task="tests.long").pk)
    row = Job.objects.get(task="tests.long")
    assert ran == ["step"] * 3
    assert (row.attempts, row.error, row.lease_until) == (0, "", None)
    assert row.due_at <= timezone.now()
    jobs.nap(60)  # does not wait any more
