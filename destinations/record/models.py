"""What exists of the warehouse of record besides what it tells of: exports that people asked for, and the warehouse that is written to."""

import uuid
from datetime import datetime

from django.db import models

from audiences import clock


class RecordExport(models.Model):
    """One export of an audience's record for a period. Its file is kept for some days, and no longer than nobody in it is erased."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        MAKING = "making", "Being made"
        DONE = "done", "Ready"
        FAILED = "failed", "Failed"
        WITHDRAWN = "withdrawn", "Withdrawn"
        EXPIRED = "expired", "No longer kept"

    class Format(models.TextChoices):
        CSV = "csv", "CSV"
        PARQUET = "parquet", "Parquet"

    audience = models.ForeignKey("audiences.Audience", on_delete=models.CASCADE, related_name="record_exports")
    tables = models.JSONField(default=list, help_text="Names of record/shape.py's tables")
    file_format = models.CharField(max_length=7, choices=Format.choices)
    start_us = models.BigIntegerField()
    end_us = models.BigIntegerField(help_text="Up to this moment, and not with it")
    state = models.CharField(max_length=9, choices=State.choices, default=State.WAITING)
    rows = models.JSONField(default=dict, help_text="Table → how many rows")
    bytes = models.BigIntegerField(null=True)
    error = models.TextField(blank=True)
    change_seq = models.BigIntegerField(default=0, help_text="Change-log mark when its people were named")
    requested_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)
    kept_until = models.DateTimeField(null=True)

    @property
    def first_day(self) -> datetime:
        """A moment of the first day of the period."""
        return clock.from_us(self.start_us)

    @property
    def last_day(self) -> datetime:
        """A moment of the last one."""
        return clock.from_us(self.end_us - 1)


class Warehouse(models.Model):
    """The customer's PostgreSQL into which the record is loaded. One row (pk 1), which is never deleted."""

    class State(models.TextChoices):
        UNTESTED = "untested", "Not checked yet"
        CONNECTED = "connected", "Connected"
        REFUSED = "refused", "Refused"
        FAILING = "failing", "Failing"

    installation = models.UUIDField(default=uuid.uuid4, help_text="What is written there carries it")
    era = models.UUIDField(
        default=uuid.uuid4,
        help_text="What was loaded under another one is of a time that has not been: all is loaded anew",
    )
    address = models.CharField(max_length=400, blank=True, help_text="user@host:port/database, to be shown")
    credentials = models.TextField(blank=True, help_text="Encrypted (destinations/secrets.py)")
    credentials_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    credentials_at = models.DateTimeField(null=True)
    schema = models.CharField(max_length=63, default="rollcall")
    cadence_seconds = models.PositiveIntegerField(default=3600)
    with_events = models.BooleanField(default=True)
    running = models.BooleanField(default=False, help_text="Loaded by its cadence")
    state = models.CharField(max_length=9, choices=State.choices, default=State.UNTESTED)
    state_words = models.TextField(blank=True)
    checked_at = models.DateTimeField(null=True)
    tried_at = models.DateTimeField(null=True, help_text="When a load last ended, however it did")
    loaded_at = models.DateTimeField(null=True, help_text="When a load last ended well")
    loaded_up_to = models.DateTimeField(null=True, help_text="What was so at this moment is in it")
    rows = models.JSONField(default=dict, help_text="Table → rows written by the last load that ended well")
