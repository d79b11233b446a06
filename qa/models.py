"""Incidents and the mail about them, spot checks, baselines, set-ups under way. Fields and constraints only."""

from typing import ClassVar

from django.db import models


class Incident(models.Model):
    """An edge in health: opened when something went wrong, recovered when it was right again. One row a change, never one a look."""

    class Severity(models.TextChoices):
        CRITICAL = "critical", "Problem"
        WARNING = "warning", "Watch"

    kind = models.CharField(max_length=30, help_text="A key of qa/checks/registry.py")
    subject = models.CharField(
        max_length=80, help_text="What it is about: `audience:<pk>`, `mapping:<pk>`, `destination:<pk>`"
    )
    audience = models.ForeignKey("audiences.Audience", null=True, on_delete=models.CASCADE, related_name="incidents")
    mapping = models.ForeignKey("destinations.Mapping", null=True, on_delete=models.CASCADE, related_name="incidents")
    destination = models.ForeignKey(
        "destinations.Destination", null=True, on_delete=models.CASCADE, related_name="incidents"
    )
    severity = models.CharField(max_length=8, choices=Severity.choices)
    sentence = models.TextField(help_text="What happened, since when, likely why; without a person's data")
    remedy = models.TextField(blank=True, help_text="What to do")
    facts = models.JSONField(default=dict, help_text="Label → value, as mails and pages list them")
    causes = models.JSONField(default=list, help_text="Likely causes in words, the likeliest first")
    figure = models.CharField(max_length=60, blank=True, help_text="What a mail's subject ends with: `size −41%`")
    since = models.DateTimeField(help_text="When it began, as far as is known")
    opened_at = models.DateTimeField(auto_now_add=True, db_index=True)
    recovered_at = models.DateTimeField(null=True)
    recovered_words = models.CharField(max_length=300, blank=True, help_text="How it came right again")
    clean_looks = models.PositiveSmallIntegerField(
        default=0, help_text="Looks at new data, in a row, that found nothing"
    )
    clean_at = models.CharField(max_length=80, blank=True, help_text="The data of the last of them")
    owner = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    acknowledged_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    acknowledged_at = models.DateTimeField(null=True)
    snoozed_until = models.DateTimeField(null=True)
    snoozed_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["kind", "subject"], condition=models.Q(recovered_at=None), name="incident_open_once"
            )
        ]


class Limits(models.Model):
    """What an audience's numbers may do before somebody is mailed, where it differs from the usual; and whether it is mute."""

    audience = models.OneToOneField("audiences.Audience", on_delete=models.CASCADE, related_name="limits")
    size_share = models.FloatField(null=True, help_text="0.3: 30 % up or down against the median; null: the usual")
    adds_share = models.FloatField(null=True)
    usual_from = models.DateTimeField(
        null=True, help_text="Nothing is compared with what was before: taken as usual then"
    )
    muted_until = models.DateTimeField(null=True)
    mute_reason = models.TextField(blank=True)
    changed_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")


class Mail(models.Model):
    """The outbox: written in the transaction that opens or closes an incident, sent by a worker, kept."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        SENT = "sent", "Sent"
        FOLDED = "folded", "In a digest"
        FAILED = "failed", "Given up"

    dedupe_key = models.CharField(max_length=120, unique=True)
    incident = models.ForeignKey(Incident, null=True, on_delete=models.CASCADE, related_name="mails")
    digest = models.ForeignKey(
        "self", null=True, on_delete=models.SET_NULL, related_name="folded", help_text="The mail that tells it instead"
    )
    to = models.EmailField()
    subject = models.CharField(max_length=300)
    text = models.TextField()
    html = models.TextField()
    message_id = models.CharField(max_length=200)
    references = models.CharField(max_length=200, blank=True, help_text="Message id of the mail it follows")
    state = models.CharField(max_length=7, choices=State.choices, default=State.WAITING)
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField(null=True, db_index=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True)


class SpotCheck(models.Model):
    """Ten to twenty real people of one version, each judged, and what was really sent of them."""

    class State(models.TextChoices):
        DRAWING = "drawing", "Drawing people"
        READY = "ready", "Ready to sign"
        SIGNED = "signed", "Signed off"
        FAILED = "failed", "Failed"

    audience = models.ForeignKey("audiences.Audience", on_delete=models.CASCADE, related_name="spot_checks")
    version = models.ForeignKey("audiences.SegmentVersion", on_delete=models.PROTECT, related_name="spot_checks")
    mapping = models.ForeignKey(
        "destinations.Mapping", null=True, on_delete=models.SET_NULL, related_name="spot_checks"
    )
    state = models.CharField(max_length=7, choices=State.choices, default=State.DRAWING)
    size = models.PositiveSmallIntegerField(default=20, help_text="How many people were asked for")
    as_of_us = models.BigIntegerField(null=True)
    means = models.CharField(max_length=300, blank=True, help_text="How the platform's side was looked at, in words")
    error = models.TextField(blank=True)
    asked_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    drawn_at = models.DateTimeField(null=True)
    signed_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    signed_at = models.DateTimeField(null=True)
    note = models.TextField(blank=True)


class SpotCheckPerson(models.Model):
    """One of them. Numbers and words only: identifiers are read when the page is shown."""

    class Group(models.TextChoices):
        INSIDE = "inside", "Inside"
        LEFT = "left", "Just left"
        OUTSIDE = "outside", "Just outside"

    check_of = models.ForeignKey(SpotCheck, on_delete=models.CASCADE, related_name="people")
    profile_no = models.BigIntegerField()
    group = models.CharField(max_length=7, choices=Group.choices)
    counted = models.BooleanField(help_text="What the count says")
    judged = models.BooleanField(null=True, help_text="What the rule says of the person alone")
    rules = models.JSONField(default=list, help_text='[{"path": …, "words": …, "holds": …}, …]')
    told = models.CharField(max_length=10, blank=True, help_text="As destinations/trace.py says; empty: no connection")
    step = models.CharField(max_length=20, blank=True, help_text="The step of eligibility that took them out")
    receipt = models.JSONField(
        default=dict, help_text="Whether they were wanted, and the last call that carried them; empty: no connection"
    )
    found = models.BooleanField(null=True, help_text="On the platform; null: it does not say")
    by_hand = models.BooleanField(null=True, help_text="What a person found there")
    note = models.CharField(max_length=300, blank=True)


class Baseline(models.Model):
    """What was so when a connection first went live, to measure everything later against."""

    mapping = models.OneToOneField("destinations.Mapping", on_delete=models.CASCADE, related_name="baseline")
    size = models.BigIntegerField()
    coverage = models.JSONField(default=dict, help_text="Identifier kind → share of people who have it")
    received = models.BigIntegerField(null=True, help_text="After the first live run; null: not yet")
    matched_low = models.BigIntegerField(null=True)
    matched_high = models.BigIntegerField(null=True)
    matched_words = models.CharField(max_length=200, blank=True)
    weekly_spend = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    currency = models.CharField(max_length=3, blank=True)
    version = models.ForeignKey("audiences.SegmentVersion", null=True, on_delete=models.SET_NULL, related_name="+")
    frozen_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True, help_text="When received and matched were filled in")


class SetUp(models.Model):
    """A way through the seven steps, so that it goes on where it was left. What is done is read from the data itself."""

    destination = models.ForeignKey("destinations.Destination", null=True, on_delete=models.SET_NULL, related_name="+")
    purpose = models.CharField(max_length=11, blank=True)
    audience = models.ForeignKey("audiences.Audience", null=True, on_delete=models.CASCADE, related_name="set_ups")
    mapping = models.ForeignKey("destinations.Mapping", null=True, on_delete=models.SET_NULL, related_name="+")
    weekly_spend = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    answers = models.JSONField(default=dict, help_text="What cannot be read from elsewhere, by step")
    started_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)
