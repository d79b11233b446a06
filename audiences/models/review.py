"""What a second person said of a change before it went live, and the figures that were seen then; and whom a change finds, where that takes long."""

from typing import ClassVar

from django.db import models


class Review(models.Model):
    """A version that waits for somebody to approve it, or what became of it. The figures are those of its asking, then of its decision."""

    class State(models.TextChoices):
        OPEN = "open", "Waits for approval"
        APPROVED = "approved", "Approved"
        SENT_BACK = "sent_back", "Sent back"
        WITHDRAWN = "withdrawn", "Withdrawn"

    version = models.ForeignKey("audiences.SegmentVersion", on_delete=models.CASCADE, related_name="reviews")
    sha256 = models.CharField(max_length=64, help_text="Of the rule that was looked at")
    state = models.CharField(max_length=9, choices=State.choices, default=State.OPEN)
    asked_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    asked_at = models.DateTimeField(auto_now_add=True)
    reason = models.TextField(blank=True, help_text="Why it should go live, says who asked")
    decided_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    decided_at = models.DateTimeField(null=True)
    words = models.TextField(blank=True, help_text="What was said on deciding")
    self_approved = models.BooleanField(default=False, help_text="By its author: nobody else could")
    before = models.PositiveIntegerField(null=True, help_text="People at the last count; null: not counted")
    size = models.PositiveIntegerField(null=True, help_text="People under the version; null: not counted")
    enters = models.PositiveIntegerField(null=True)
    leaves = models.PositiveIntegerField(null=True)
    as_of_us = models.BigIntegerField(null=True, help_text="The moment of these figures")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["version"], condition=models.Q(state="open"), name="review_open_once")
        ]


class Measurement(models.Model):
    """Whom a version that is not live yet finds, counted in the background: it took too long to be waited for. Its newest count."""

    version = models.OneToOneField("audiences.SegmentVersion", on_delete=models.CASCADE, related_name="measurement")
    sha256 = models.CharField(max_length=64, help_text="Of the rule that is counted")
    pin = models.ForeignKey("audiences.Pin", null=True, on_delete=models.SET_NULL, related_name="+")
    asked_at = models.DateTimeField()
    as_of_us = models.BigIntegerField(null=True, help_text="The moment it was counted for; null: not counted yet")
    members = models.BinaryField(null=True)
    trouble = models.TextField(blank=True, help_text="Why it could not be counted, in words")
