"""Versions of an audience's rules."""

from django.db import models


class SegmentVersion(models.Model):
    """A rule tree with a number. Once published it never changes; going back publishes a copy."""

    class State(models.TextChoices):
        DRAFT = "draft", "Draft"
        IN_REVIEW = "in_review", "In review"
        PUBLISHED = "published", "Published"
        RETIRED = "retired", "Retired"

    audience = models.ForeignKey("audiences.Audience", on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=9, choices=State.choices, default=State.DRAFT)
    segment = models.TextField(help_text="Canonical JSON of the tree")
    sha256 = models.CharField(max_length=64, help_text="Of the canonical JSON")
    sentence = models.TextField(help_text="The tree in plain English")
    reason = models.TextField(blank=True)
    author = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    published_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    published_at = models.DateTimeField(null=True)
    publish_at = models.DateTimeField(
        null=True, db_index=True, help_text="Published by itself then: it waits for the end of a test"
    )
    retires_old_at = models.DateTimeField(
        null=True, help_text="Published beside, as an audience of its own: when the old one retires; null: in its place"
    )

    revision = models.PositiveIntegerField(default=0, help_text="Of a draft: raised by every save, undo and redo")
    outline = models.JSONField(
        null=True,
        help_text="Of a draft: the tree as edited, with what is not finished; null: it says what segment says",
    )
    step = models.PositiveIntegerField(default=0, help_text="Of a draft: the DraftStep that is shown")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["audience", "number"], name="version_number_once")]


class DraftStep(models.Model):
    """A draft as it stood after one change, so that the change can be undone and done again. Gone once it is published."""

    version = models.ForeignKey(SegmentVersion, on_delete=models.CASCADE, related_name="steps")
    number = models.PositiveIntegerField()
    outline = models.JSONField()
    author = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["version", "number"], name="draft_step_once")]


class Preview(models.Model):
    """What one person's editor of one audience counts on, and what it asked last. Its pin stays until they have it recounted."""

    audience = models.ForeignKey("audiences.Audience", on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey("audiences.User", on_delete=models.CASCADE, related_name="+")
    pin = models.ForeignKey("audiences.Pin", null=True, on_delete=models.SET_NULL, related_name="+")
    asked = models.PositiveBigIntegerField(
        default=0, help_text="Raised by every question: the count of an older one stops"
    )
    segment = models.TextField(blank=True, help_text="Canonical JSON of the rule that was asked about last")
    in_background = models.BooleanField(default=False, help_text="It took too long to wait for")
    trouble = models.TextField(blank=True, help_text="Why it could not be counted in the background, in words")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["audience", "user"], name="preview_once")]
