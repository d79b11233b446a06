"""Accounts on platforms, which audience goes where, and the ledger of what each platform has been told.

Bitmaps here hold `identity_no`; they change only under the row lock of their mapping's ledger.
"""

from django.db import models

from destinations import plan
from destinations.record.models import RecordExport as RecordExport
from destinations.record.models import Warehouse as Warehouse

SUPPRESSION_LIMIT = 5  # percent


class Account(models.Model):
    """The rate budget that destinations on one platform account share. A pause is a floor that every worker keeps."""

    key = models.CharField(max_length=200, unique=True, help_text="`<kind>:<account id>`")
    tokens = models.FloatField(default=0)
    refilled_at = models.DateTimeField(null=True)
    paused_until = models.DateTimeField(null=True)
    pause_reason = models.CharField(max_length=300, blank=True)
    failures = models.PositiveIntegerField(
        default=0, help_text="Calls in a row that the platform did not answer properly"
    )
    removal_waits_until = models.DateTimeField(null=True, help_text="Until then adds leave the next token to a removal")


class Destination(models.Model):
    """An account on a platform, with credentials that are written and never shown."""

    class State(models.TextChoices):
        UNTESTED = "untested", "Not checked yet"
        CONNECTED = "connected", "Connected"
        REFUSED = "refused", "Reconnect"
        FAILING = "failing", "Failing"

    key = models.SlugField(max_length=100, unique=True)
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=30, help_text="A key of connectors/registry.py")
    base_url = models.URLField(blank=True, max_length=500, help_text="Left empty: the platform's own")
    config = models.JSONField(default=dict)
    credentials = models.TextField(blank=True, help_text="Encrypted (destinations/secrets.py)")
    credentials_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    credentials_at = models.DateTimeField(null=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="destinations")
    state = models.CharField(max_length=9, choices=State.choices, default=State.UNTESTED)
    state_words = models.TextField(blank=True, help_text="What the last check or call said, in a sentence")
    checked_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class Mapping(models.Model):
    """One audience → one destination."""

    class State(models.TextChoices):
        REHEARSAL = "rehearsal", "Rehearsal"
        TRIAL = "trial", "Trial"
        LIVE = "live", "Live"
        PAUSED = "paused", "Paused"
        FROZEN = "frozen", "Frozen"
        RETIRED = "retired", "Retired"

    class Lost(models.TextChoices):
        """What became of the remote audience there. While it is lost nothing is called but the question whether it is there again."""

        GONE = "gone", "Deleted there"
        BLOCKED = "blocked", "Blocked there"

    audience = models.ForeignKey("audiences.Audience", on_delete=models.CASCADE, related_name="mappings")
    destination = models.ForeignKey(Destination, on_delete=models.PROTECT, related_name="mappings")
    identifiers = models.JSONField(default=list, help_text="Identifier kinds of the connector, in order")
    remote_id = models.CharField(max_length=200, blank=True)
    remote_name = models.CharField(max_length=400, blank=True, help_text="Its name there, as last told or seen")
    own_name = models.CharField(
        max_length=400, blank=True, help_text="Chosen by a person for this connection; empty: as the audience is named"
    )
    remote_description = models.TextField(blank=True, help_text="What is said of it there, as last told")
    made_at = models.DateTimeField(null=True, help_text="When we made it; null once the platform was seen to know it")
    seen_at = models.DateTimeField(null=True, help_text="When the platform was last asked about it")
    renamed_there = models.CharField(max_length=400, blank=True, help_text="The name that somebody gave it there")
    renamed_there_at = models.DateTimeField(null=True, help_text="When that was seen")
    lost = models.CharField(max_length=7, choices=Lost.choices, blank=True, help_text="Empty: it is there")
    lost_at = models.DateTimeField(null=True, help_text="When that was first seen")
    adopted = models.BooleanField(default=False, help_text="The remote audience was there before us")
    add_only = models.BooleanField(default=False, help_text="Leftovers of an adopted audience stay, and are shown")
    state = models.CharField(max_length=9, choices=State.choices, default=State.REHEARSAL)
    state_reason = models.TextField(blank=True)
    state_until = models.DateTimeField(null=True, help_text="When a freeze ends")
    state_before = models.CharField(max_length=9, blank=True, help_text="What a pause or a freeze goes back to")
    state_at = models.DateTimeField(auto_now_add=True)
    first_live_at = models.DateTimeField(null=True, help_text="When it first went live")
    cadence_seconds = models.PositiveIntegerField(default=900)
    trial_percent = models.PositiveSmallIntegerField(default=1)
    removal_limit_percent = models.PositiveSmallIntegerField(
        default=50, help_text="A run that would remove more waits for a named approval"
    )
    override = models.JSONField(
        null=True, help_text='{"by": e-mail, "reason": …, "until": …}: passes the gates, on record'
    )
    matched_low = models.BigIntegerField(null=True)
    matched_high = models.BigIntegerField(null=True)
    matched_words = models.CharField(
        max_length=200, blank=True, help_text='Where no number is given: "Meta does not say"'
    )
    matched_at = models.DateTimeField(null=True)
    drift_missing = models.BigIntegerField(null=True, help_text="People who should be there and were not, when read")
    drift_foreign = models.BigIntegerField(null=True, help_text="People there whom nobody here ever sent")
    drift_left = models.BigIntegerField(null=True, help_text="People there who were sent once and are no longer wanted")
    drift_at = models.DateTimeField(null=True)
    blocked_reason = models.TextField(blank=True, help_text="Misconfigured: no calls until a person has acted")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["audience", "destination"], name="mapping_once")]

    @property
    def removal_limit(self) -> int:
        """The percentage of those there that one run may remove unasked. Who leaves suppression is shown advertisements again."""
        suppression = self.audience.purpose == "suppression"
        return min(self.removal_limit_percent, SUPPRESSION_LIMIT) if suppression else self.removal_limit_percent


# Whose platform is told at least of who leaves; and whose people are, or may be, there and are meant to be: a rehearsal has sent nothing,
# a retired connection is being emptied.
TELLS = (Mapping.State.TRIAL, Mapping.State.LIVE, Mapping.State.PAUSED)
AT_WORK = (*TELLS, Mapping.State.FROZEN)


class Ledger(models.Model):
    """What a mapping wants (`intent`) and what its platform has been told. present, unknown and rejected are disjoint."""

    mapping = models.OneToOneField(Mapping, on_delete=models.CASCADE, related_name="ledger")
    refresh = models.ForeignKey("audiences.Refresh", null=True, on_delete=models.SET_NULL, related_name="+")
    base = models.BinaryField(default=b"", help_text="Eligible identities as of the refresh, before later decisions")
    present = models.BinaryField(default=b"", help_text="Accepted by the platform")
    unknown = models.BinaryField(default=b"", help_text="Sent, outcome not known")
    rejected = models.BinaryField(default=b"", help_text="Refused as an add; reason and retry time in Rejection")
    ever_sent = models.BinaryField(default=b"")
    reassert = models.BinaryField(
        default=b"", help_text="Told again, by intent, whatever was said: after an adoption, a resync, new identifiers"
    )
    reassert_since = models.DateTimeField(null=True, help_text="Only a call prepared after this settles `reassert`")
    vetoed = models.BinaryField(
        default=b"", help_text="Left by erasure, consent or purchase: nobody else sends what they carried"
    )
    withdraw = models.BinaryField(default=b"", help_text="Sent with identifier kinds that this mapping no longer sends")
    withdraw_kinds = models.JSONField(default=list, help_text="Those kinds")
    wanted_count = models.BigIntegerField(
        default=0, help_text="How many are in `base`, for lists; so with the next four"
    )
    present_count = models.BigIntegerField(default=0)
    unknown_count = models.BigIntegerField(default=0)
    rejected_count = models.BigIntegerField(default=0)
    ever_sent_count = models.BigIntegerField(default=0)
    change_seq = models.BigIntegerField(default=0, help_text="Decisions up to here are absorbed in `base`")
    epoch = models.PositiveIntegerField(default=0)
    urgent_fence = models.BigIntegerField(default=0)
    urgent_until = models.DateTimeField(null=True)
    urgent_holder = models.CharField(max_length=120, blank=True, help_text="The process that holds the lease")
    bulk_fence = models.BigIntegerField(default=0)
    bulk_until = models.DateTimeField(null=True)
    bulk_holder = models.CharField(max_length=120, blank=True)


class Decision(models.Model):
    """One identity's in or out between refreshes, written by the fast lane. intent = base overlaid by these, latest seq last."""

    class Cause(models.TextChoices):
        ERASURE = "erasure"
        CONSENT = "consent"
        PURCHASE = "purchase"
        RULE = "rule"
        IDENTITY = "identity"

    mapping = models.ForeignKey(Mapping, on_delete=models.CASCADE, related_name="decisions")
    identity_no = models.BigIntegerField()
    seq = models.BigIntegerField(help_text="Change-log seq that caused it")
    wanted = models.BooleanField(help_text="In, else out")
    cause = models.CharField(max_length=8, choices=Cause.choices)
    at = models.DateTimeField(null=True, help_text="When what caused it was accepted here")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(fields=["mapping", "seq"], name="decision_overlay"),
            models.Index(fields=["mapping", "identity_no"], name="decision_of"),
        ]


class LogCursor(models.Model):
    """How far a reader has come in the change log: everything with a mark up to here is done."""

    name = models.CharField(max_length=30, unique=True)
    mark = models.BigIntegerField()
    moved_at = models.DateTimeField()


class Errand(models.Model):
    """A connection for which something urgent has to be said, from `due_at` on (null: nothing). Errands of one destination are run together."""

    mapping = models.OneToOneField(Mapping, on_delete=models.CASCADE, related_name="errand")
    due_at = models.DateTimeField(null=True)
    asked = models.BigIntegerField(
        default=0, help_text="Rises whenever it is sent, so that nothing asked for meanwhile is lost"
    )
    failures = models.PositiveIntegerField(default=0, help_text="In a row: the pause grows with them")

    class Meta:
        indexes = [models.Index(fields=["due_at"], name="errand_due", condition=models.Q(due_at__isnull=False))]


class Eligibility(models.Model):
    """One step of the fixed order (eligibility.py) for a mapping at a refresh: whom it took out (profile_no), and how many remain."""

    mapping = models.ForeignKey(Mapping, on_delete=models.CASCADE, related_name="eligibility")
    refresh = models.ForeignKey("audiences.Refresh", on_delete=models.CASCADE, related_name="+")
    position = models.PositiveSmallIntegerField()
    step = models.CharField(max_length=20)
    taken_out = models.BinaryField(default=b"")
    out_count = models.BigIntegerField(default=0)
    remaining = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["mapping", "refresh", "position"], name="eligibility_once")]


class Run(models.Model):
    """One sync of a mapping, from its wish to its end."""

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        COUNTING = "counting", "Counting"
        DIFFING = "diffing", "Comparing"
        SENDING = "sending", "Sending"
        CONFIRMING = "confirming", "Confirming"
        NEEDS_APPROVAL = "approval", "Needs approval"
        DONE = "done", "Done"
        PARTIAL = "partial", "Done with rejections"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"
        INTERRUPTED = "interrupted", "Interrupted"

    class Trigger(models.TextChoices):
        SCHEDULE = "schedule", "On schedule"
        PERSON = "person", "By hand"
        COMMAND = "command", "By command"
        RETRY = "retry", "Retry of rejected rows"

    mapping = models.ForeignKey(Mapping, on_delete=models.CASCADE, related_name="runs")
    refresh = models.ForeignKey("audiences.Refresh", null=True, on_delete=models.SET_NULL, related_name="+")
    state = models.CharField(max_length=11, choices=State.choices, default=State.QUEUED)
    trigger = models.CharField(max_length=8, choices=Trigger.choices)
    rehearsal = models.BooleanField(default=False, help_text="Planned and shown, nothing sent")
    requested_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    planned_adds = models.BigIntegerField(null=True)
    planned_removes = models.BigIntegerField(null=True)
    unchanged = models.BigIntegerField(null=True)
    added = models.BigIntegerField(default=0)
    removed = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0)
    unknown = models.BigIntegerField(default=0)
    batches_planned = models.PositiveIntegerField(default=0)
    batches_done = models.PositiveIntegerField(default=0)
    sample_payload = models.TextField(blank=True, help_text="The first call's body, masked")
    error = models.TextField(blank=True)
    cancel_requested = models.BooleanField(default=False)
    approved_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    approved_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)


ENDED = (Run.State.DONE, Run.State.PARTIAL, Run.State.FAILED, Run.State.CANCELLED, Run.State.INTERRUPTED)


class Operation(models.Model):
    """One API call, written ahead: committed as prepared before it is made, and its outcome after.

    One that stays prepared beyond its lease is unknown. accepted + rejected + unknown = count, always.
    """

    class Kind(models.TextChoices):
        ADD = "add"
        REMOVE = "remove"

    class Lane(models.TextChoices):
        URGENT = "urgent"
        BULK = "bulk"

    class State(models.TextChoices):
        PREPARED = "prepared", "In flight"
        SUBMITTED = "submitted", "Received, outcome to come"
        SETTLED = "settled", "Done"
        UNKNOWN = "unknown", "Outcome not known"
        UNAPPLIED = "unapplied", "Refused as a whole"

    mapping = models.ForeignKey(Mapping, on_delete=models.CASCADE, related_name="operations")
    run = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, related_name="operations")
    lane = models.CharField(max_length=6, choices=Lane.choices)
    kind = models.CharField(max_length=6, choices=Kind.choices)
    cause = models.CharField(max_length=10, help_text="A cause of plan.py")
    fence = models.BigIntegerField()
    epoch = models.PositiveIntegerField(default=0)
    version = models.ForeignKey("audiences.SegmentVersion", null=True, on_delete=models.SET_NULL, related_name="+")
    remote_id = models.CharField(max_length=200)
    identifiers = models.JSONField(default=list, help_text="The kinds that the call carries")
    identities = models.BinaryField(help_text="What the call carries")
    unsettled = models.BinaryField(
        default=b"", help_text="Those whose outcome is still unknown, or who are to be told again"
    )
    open = models.BooleanField(default=True, help_text="While `unsettled` holds anyone")
    count = models.PositiveIntegerField()
    accepted = models.PositiveIntegerField(default=0)
    rejected = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=9, choices=State.choices, default=State.PREPARED)
    request_id = models.CharField(max_length=200, blank=True, help_text="The platform's own")
    http_status = models.PositiveSmallIntegerField(null=True)
    error = models.TextField(blank=True, help_text="In words, without a person's data")
    reassert_at = models.DateTimeField(null=True, help_text="When what is unknown is sent again, by current intent")
    poll_at = models.DateTimeField(null=True, help_text="When to ask for the receipt")
    prepared_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["mapping"], name="operation_open", condition=models.Q(open=True)),
            models.Index(fields=["poll_at"], name="operation_poll", condition=models.Q(state="submitted")),
        ]

    @property
    def why(self) -> str:
        """Its cause, for people."""
        return plan.WORDS.get(self.cause, self.cause)


class Rejection(models.Model):
    """An identity that the platform refused, with why and when it is tried again."""

    mapping = models.ForeignKey(Mapping, on_delete=models.CASCADE, related_name="rejections")
    identity_no = models.BigIntegerField()
    kind = models.CharField(max_length=6, choices=Operation.Kind.choices)
    code = models.CharField(max_length=80)
    reason = models.CharField(max_length=300)
    attempts = models.PositiveIntegerField(default=1)
    retry_at = models.DateTimeField(null=True, help_text="Null: not before a person or a change of identity")
    operation = models.ForeignKey(Operation, null=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["mapping", "identity_no", "kind"], name="rejection_once")]


class Refusal(models.Model):
    """Whom the platform refused in one call, by its code: kept with the call, while a Rejection tells only how it stands now."""

    operation = models.ForeignKey(Operation, on_delete=models.CASCADE, related_name="refusals")
    code = models.CharField(max_length=80)
    reason = models.CharField(max_length=300)
    identities = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["operation", "code"], name="refusal_once")]


class Removal(models.Model):
    """The life of one removal: left, sent, accepted, confirmed. Kept so that latency is measured and overdue ones are seen."""

    mapping = models.ForeignKey(Mapping, on_delete=models.CASCADE, related_name="removals")
    identity_no = models.BigIntegerField()
    cause = models.CharField(max_length=10)
    left_at = models.DateTimeField(
        help_text="When what made them leave was accepted here, or when a count found them gone"
    )
    sent_at = models.DateTimeField(null=True)
    accepted_at = models.DateTimeField(null=True)
    confirmed_at = models.DateTimeField(null=True)
    took_ms = models.BigIntegerField(null=True, help_text="From left to accepted")

    class Meta:
        indexes = [
            models.Index(fields=["mapping", "identity_no"], name="removal_of"),
            models.Index(fields=["mapping", "left_at"], name="removal_waits", condition=models.Q(accepted_at=None)),
            models.Index(fields=["mapping", "accepted_at"], name="removal_took"),
        ]


class Hold(models.Model):
    """Stopped for safety: which direction, why, since when, who may lift it."""

    class Direction(models.TextChoices):
        ADDS = "adds", "Adds"
        REMOVES = "removes", "Removals by comparison"
        BOTH = "both", "Adds and removals"

    mapping = models.ForeignKey(Mapping, on_delete=models.CASCADE, related_name="holds")
    direction = models.CharField(max_length=7, choices=Direction.choices)
    rule = models.CharField(max_length=40, help_text="The rule that set it, or `person`")
    reason = models.TextField()
    on_release = models.TextField(blank=True, help_text="What happens when it is lifted, and when it lifts itself")
    people = models.BigIntegerField(null=True, help_text="How many removals wait, where the rule counted them")
    excused = models.BooleanField(
        default=False, help_text="A person lifted it, and what tripped the rule has not been over since"
    )
    set_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    lift_roles = models.JSONField(default=list, help_text="Roles that may lift it")
    created_at = models.DateTimeField(auto_now_add=True)
    until = models.DateTimeField(null=True)
    lifted_at = models.DateTimeField(null=True)
    lifted_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    lift_reason = models.TextField(blank=True)


class Exclusion(models.Model):
    """People whom nobody, or no audience of one destination, may send: a list or an audience. Suppression audiences pass."""

    destination = models.ForeignKey(Destination, null=True, on_delete=models.CASCADE, help_text="Null: everywhere")
    person_list = models.ForeignKey("audiences.PersonList", null=True, on_delete=models.CASCADE)
    audience = models.ForeignKey("audiences.Audience", null=True, on_delete=models.CASCADE)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(person_list__isnull=False) ^ models.Q(audience__isnull=False),
                name="exclusion_names_one",
            )
        ]


class PrivacyReceipt(models.Model):
    """What one connection's platform was told about one privacy request. It names nobody, and outlives the ledger's own rows."""

    class State(models.TextChoices):
        REMOVING = "removing", "Removing"
        ACCEPTED = "accepted", "Removed, and received by the platform"
        CONFIRMED = "confirmed", "Removed, and confirmed by the platform"
        ABSENT = "absent", "Had been taken out before"
        GIVEN_UP = "given_up", "Given up on record"

    request = models.ForeignKey("audiences.PrivacyRequest", on_delete=models.CASCADE, related_name="receipts")
    mapping = models.ForeignKey(Mapping, null=True, on_delete=models.SET_NULL, related_name="+")
    destination = models.CharField(max_length=200, help_text="Its name then; so with the next two")
    platform = models.CharField(max_length=30)
    audience = models.CharField(max_length=100)
    state = models.CharField(max_length=9, choices=State.choices, default=State.REMOVING)
    identifiers = models.JSONField(default=list, help_text="The kinds that were taken out")
    left_at = models.DateTimeField(help_text="From when on they were to leave")
    sent_at = models.DateTimeField(null=True)
    accepted_at = models.DateTimeField(null=True)
    confirmed_at = models.DateTimeField(null=True)
    platform_request_id = models.CharField(max_length=200, blank=True)
    waits = models.TextField(blank=True, help_text="Why it is not through yet, in words")
    given_up_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL, related_name="+")
    given_up_at = models.DateTimeField(null=True)
    given_up_reason = models.CharField(max_length=500, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["request", "mapping"], name="privacy_receipt_once")]
