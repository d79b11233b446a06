"""The audit trail: who changed what, from what, to what, and why."""

from django.db import models


class AuditEntry(models.Model):
    """One change. Rows are only ever added."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    actor = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL)
    actor_label = models.CharField(max_length=254, help_text="The e-mail then, or `system`")
    verb = models.CharField(max_length=60, help_text="e.g. audience.published")
    object_type = models.CharField(max_length=40)
    object_key = models.CharField(max_length=200)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    reason = models.TextField(blank=True)

    class Meta:
        indexes = [models.Index(fields=["object_type", "object_key", "-at"], name="trail_of_object")]
