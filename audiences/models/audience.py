"""Audiences: the governed thing that marketers, buyers and platforms agree on; the tests that must not be disturbed; and which replaces which."""

from typing import ClassVar

from django.db import models


class Audience(models.Model):
    class Purpose(models.TextChoices):
        RETARGETING = "retargeting", "Retargeting"
        SUPPRESSION = "suppression", "Suppression"
        LOOKALIKE = "lookalike", "Lookalike seed"
        ANALYTICS = "analytics", "Analytics"
        WAREHOUSE = "warehouse", "Warehouse"

    key = models.SlugField(max_length=100, unique=True, help_text="Immutable, and never reused")
    name = models.CharField(max_length=200)
    name_tokens = models.JSONField(default=dict, help_text="Token of the naming convention → its value here")
    name_reason = models.TextField(blank=True, help_text="Why the name departs from the convention; empty: it does not")
    name_overrides = models.JSONField(
        default=dict, help_text='Token → {"value", "reason"}: stays though the rule says another'
    )
    description = models.TextField(blank=True)
    purpose = models.CharField(max_length=11, choices=Purpose.choices)
    definition_owner = models.ForeignKey(
        "audiences.User", null=True, on_delete=models.PROTECT, related_name="defines", help_text="Answers for the rule"
    )
    sync_owner = models.ForeignKey(
        "audiences.User",
        null=True,
        on_delete=models.PROTECT,
        related_name="watches",
        help_text="Watches the match rate",
    )
    alert_owner = models.ForeignKey(
        "audiences.User", null=True, on_delete=models.PROTECT, related_name="alerted", help_text="Is mailed on trouble"
    )
    backup_owner = models.ForeignKey(
        "audiences.User", null=True, on_delete=models.PROTECT, related_name="stands_in", help_text="Stands in for them"
    )
    followers = models.ManyToManyField("audiences.User", related_name="follows")
    live_version = models.ForeignKey("audiences.SegmentVersion", null=True, on_delete=models.PROTECT, related_name="+")
    cadence_seconds = models.PositiveIntegerField(default=900, help_text="How often it is counted")
    refresh_due_at = models.DateTimeField(
        null=True, db_index=True, help_text="Null: never (no live version, or archived)"
    )
    refresh_cause = models.CharField(max_length=8, default="schedule", help_text="A Refresh.Cause, for the next count")
    backfill_until_us = models.BigIntegerField(
        null=True, help_text="Days before this moment are still to be computed; null: nothing to do"
    )
    invalid_reason = models.TextField(blank=True, help_text="Why the live version cannot be counted, in words")
    excluded_by = models.ManyToManyField(
        "self", symmetrical=False, related_name="excludes", help_text="Linked suppression audiences"
    )
    archived_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class TestLock(models.Model):
    """An audience is in a test until a date: its rule does not change before, unless an admin breaks the lock."""

    audience = models.ForeignKey(Audience, on_delete=models.CASCADE, related_name="test_locks")
    until = models.DateTimeField()
    note = models.CharField(max_length=300, blank=True, help_text="What is tested")
    set_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    set_at = models.DateTimeField(auto_now_add=True)
    broken_at = models.DateTimeField(null=True)
    broken_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    broken_reason = models.TextField(blank=True)


class Replacement(models.Model):
    """A version was published beside its audience, as the first of a new one. The old one goes on until a date, then retires; or both are kept."""

    old = models.ForeignKey(Audience, on_delete=models.CASCADE, related_name="replacements")
    new = models.OneToOneField(Audience, on_delete=models.CASCADE, related_name="replaces")
    retires_at = models.DateTimeField(
        null=True, db_index=True, help_text="When the old one retires; null: both are kept"
    )
    made_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    made_at = models.DateTimeField(auto_now_add=True)
    connected_at = models.DateTimeField(null=True, help_text="When the old one's connections were copied")
    begun_at = models.DateTimeField(null=True, help_text="When the old one's connections were retired")
    hindered = models.JSONField(default=list, help_text="Why it has not retired though its date has come, in words")
    hindered_since = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["old"], condition=models.Q(retires_at__isnull=False), name="replacement_open_once"
            )
        ]
