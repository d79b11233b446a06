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
