"""Due work: every task that must happen is a row with a lease. The broker only wakes workers. And the workers themselves, and what they count."""

from django.db import models


class Job(models.Model):
    """Run `task` (a Celery task's name) for `key` at `due_at`. A worker claims it by raising the fence and setting a lease."""

    task = models.CharField(max_length=80)
    key = models.CharField(max_length=120, help_text="What it is about; one row per (task, key)")
    queue = models.CharField(max_length=10, default="compute", help_text="urgent, sync, compute or intake")
    due_at = models.DateTimeField(null=True, help_text="Null: nothing to do")
    every_seconds = models.PositiveIntegerField(null=True, help_text="Due again so long after it began")
    hinted_at = models.DateTimeField(null=True, help_text="When a worker was last told of it")
    lease_until = models.DateTimeField(null=True)
    fence = models.BigIntegerField(default=0)
    attempts = models.PositiveIntegerField(default=0, help_text="In a row without success")
    error = models.TextField(blank=True)
    progress = models.JSONField(default=dict)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task", "key"], name="job_once")]
        indexes = [models.Index(fields=["due_at"], name="job_due", condition=models.Q(due_at__isnull=False))]


class Worker(models.Model):
    """A worker process, by its own word. One that stays silent is gone, or lives and takes nothing any more (audiences/pulse.py)."""

    name = models.CharField(max_length=200, primary_key=True, help_text="Celery's: `urgent@<host>`")
    queues = models.JSONField(default=list)
    threads = models.PositiveIntegerField(default=1)
    running = models.PositiveIntegerField(default=0, help_text="Jobs in hand; as many as threads: it can take no more")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField(help_text="When it last took what it was sent, or was seen to be full")


class Tally(models.Model):
    """A counter of all processes together (audiences/tallies.py)."""

    name = models.CharField(max_length=60)
    labels = models.CharField(max_length=120, blank=True)
    value = models.FloatField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name", "labels"], name="tally_once")]
