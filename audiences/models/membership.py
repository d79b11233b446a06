"""Who is in an audience, now and in the past: bitmaps of profile_no."""

from django.db import models


class Refresh(models.Model):
    """One computation of an audience at a pin. History is every (entered, left) since the last keyframe."""

    class State(models.TextChoices):
        RUNNING = "running", "Counting"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    class Cause(models.TextChoices):
        SCHEDULE = "schedule", "On schedule"
        MANUAL = "manual", "By hand"
        PUBLISH = "publish", "After a publish"
        SYNC = "sync", "For a sync"
        BACKFILL = "backfill", "Past events, today's attributes"

    audience = models.ForeignKey("audiences.Audience", on_delete=models.CASCADE, related_name="refreshes")
    version = models.ForeignKey("audiences.SegmentVersion", on_delete=models.PROTECT)
    state = models.CharField(max_length=7, choices=State.choices, default=State.RUNNING)
    cause = models.CharField(max_length=8, choices=Cause.choices)
    as_of_us = models.BigIntegerField()
    manifest = models.BigIntegerField(default=0)
    hot = models.BigIntegerField(default=0)
    change_seq = models.BigIntegerField(default=0, help_text="Decisions up to here are contained")
    count = models.BigIntegerField(null=True)
    entered_count = models.BigIntegerField(null=True)
    left_count = models.BigIntegerField(null=True)
    keyframe = models.BinaryField(null=True, help_text="All members; on the first and then every 32nd refresh")
    entered = models.BinaryField(null=True)
    left = models.BinaryField(null=True)
    rule_counts = models.JSONField(default=dict, help_text="Path of each rule and group → how many people it holds")
    error = models.TextField(blank=True)
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["audience", "as_of_us"], name="refresh_curve")]


class Membership(models.Model):
    """The members as of the last refresh, whole, for whoever needs them at once. A merge or a removal changes them in between."""

    audience = models.OneToOneField("audiences.Audience", on_delete=models.CASCADE, related_name="membership")
    refresh = models.ForeignKey(Refresh, on_delete=models.PROTECT)
    members = models.BinaryField()
    count = models.BigIntegerField()
    digest = models.CharField(max_length=64, default="", help_text="SHA-256 of `members` as the refresh left them")
    daily = models.JSONField(
        default=list, help_text='The last count of each day, oldest first: [["2026-11-23", 48210], …]'
    )
