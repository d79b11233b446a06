"""The workspace's naming convention: of which tokens a name is made."""

from django.db import models


class NamingConvention(models.Model):
    """The one row (pk 1). Without it every name is free."""

    separator = models.CharField(max_length=3, default="_")
    tokens = models.JSONField(
        default=list,
        help_text='In order: [{"name": "intent", "kind": "choice", "values": [{"value": "cart", "means": "…"}]}, …]; audiences/naming.py',
    )
    lengths = models.JSONField(default=dict, help_text="Kind of platform → most characters, where shorter than its own")
    updated_at = models.DateTimeField(auto_now=True)
    updated_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")


class Renaming(models.Model):
    """Audiences that were renamed in one act, so that it can be taken back. Each has a line of its own in the trail, too."""

    at = models.DateTimeField(auto_now_add=True)
    actor = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    reason = models.TextField(blank=True)
    names = models.JSONField(help_text='[{"key", "before": {"name", "name_tokens", …}, "after": {…}}, …]')
    undone_at = models.DateTimeField(null=True)
    undone_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
