"""Privacy requests: who is to be erased, or never advertised to again, and how far it is. No identifier is in here, only numbers."""

from django.db import models


class PrivacyRequest(models.Model):
    """One wish of one person. What each destination did about it are receipts, a floor above."""

    class Kind(models.TextChoices):
        ERASURE = "erasure", "Erasure"
        SUPPRESSION = "suppression", "Suppression"

    class Source(models.TextChoices):
        PAGE = "page", "By hand"
        API = "api", "Track API"
        COMMAND = "command", "By command"
        LIST = "list", "From a list"

    class State(models.TextChoices):
        RECEIVED = "received", "Received"
        REMOVING = "removing", "Removing"
        CONFIRMED = "confirmed", "Out everywhere"
        DONE = "done", "Done"
        LIFTED = "lifted", "Lifted"

    kind = models.CharField(max_length=11, choices=Kind.choices)
    source = models.CharField(max_length=7, choices=Source.choices)
    state = models.CharField(max_length=9, choices=State.choices, default=State.RECEIVED, db_index=True)
    reference = models.CharField(max_length=100, blank=True, help_text="The asker's own, such as a ticket; no names")
    requested_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    import_file = models.ForeignKey(
        "audiences.ImportFile", null=True, on_delete=models.SET_NULL, related_name="privacy_requests"
    )
    asked_at = models.DateTimeField(help_text="When the person asked; what the law gives runs from here")
    created_at = models.DateTimeField(auto_now_add=True, help_text="When it was taken in here")
    due_at = models.DateTimeField(help_text="By then all of it must be done")
    removal = models.CharField(max_length=32, db_index=True, help_text="As on the tombstones that it left")
    people = models.JSONField(default=list, help_text="profile_no of everybody it is about; empty: nobody was known")
    identities = models.JSONField(
        default=list, help_text="identity_no of every version of their identifiers, and of others' that held the same"
    )
    untouched = models.JSONField(default=list, help_text="Names of the destinations to which nothing was ever sent")
    confirmed_at = models.DateTimeField(null=True, help_text="No platform is to be told any more")
    forgotten_at = models.DateTimeField(null=True, help_text="Identifiers and refused rows are blank")
    events_at = models.DateTimeField(null=True, help_text="No file holds their events any more")
    done_at = models.DateTimeField(null=True)
    lifted_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    lifted_at = models.DateTimeField(null=True)
    lift_reason = models.CharField(max_length=500, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["created_at"],
                name="privacy_open",
                condition=models.Q(state__in=["received", "removing", "confirmed"]),
            )
        ]

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def outcome(self) -> str:
        """The state in words: what is done is called by its kind."""
        if self.state != self.State.DONE:
            return self.get_state_display()
        return "Erased" if self.kind == self.Kind.ERASURE else "Suppressed"


OPEN = (PrivacyRequest.State.RECEIVED, PrivacyRequest.State.REMOVING, PrivacyRequest.State.CONFIRMED)
