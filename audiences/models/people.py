"""People and their events as the control database holds them: truth, hot rows, and which lake files are live.

Times named `…_us` are microseconds since 1970 UTC (audiences/clock.py). JSON that the lake copies is kept as text, exactly as accepted.
"""

from django.db import models
from django.db.models.expressions import Func


class TransactionId(Func):
    """The writing transaction's id on PostgreSQL, where rows become visible out of id order; 0 on SQLite, where they cannot."""

    template = "0"
    arity = 0
    output_field = models.BigIntegerField()

    def as_postgresql(self, compiler, connection, **context):
        return self.as_sql(compiler, connection, template="(pg_current_xact_id()::text::bigint)", **context)


class Counter(models.Model):
    """Dense numbers that are never reused: `profile_no`, `identity_no`, `manifest`."""

    name = models.CharField(max_length=32, primary_key=True)
    value = models.BigIntegerField(default=0)


class Profile(models.Model):
    """One human, or an anonymous visitor who may turn out to be one. `profile_no` fits in uint32."""

    class Kind(models.TextChoices):
        PERSON = "person"
        ANONYMOUS = "anonymous"

    class State(models.TextChoices):
        LIVE = "live"
        DELETED = "deleted"
        ERASED = "erased"
        MERGED = "merged"

    profile_no = models.BigIntegerField(primary_key=True)
    bucket_key = models.CharField(max_length=200, help_text="Fixed at creation: the first external id, else a UUID")
    kind = models.CharField(max_length=9, choices=Kind.choices, default=Kind.PERSON)
    state = models.CharField(max_length=7, choices=State.choices, default=State.LIVE)
    created_us = models.BigIntegerField(help_text="`created_at` as given, else when first seen")
    attributes = models.TextField(default="{}", help_text="JSON object")
    identity_no = models.BigIntegerField(null=True, help_text="The identity in force; null for anonymous visitors")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        indexes = [models.Index(fields=["profile_no"], name="profile_gone", condition=~models.Q(state="live"))]


class ProfileKey(models.Model):
    """How a profile is found. An id names one profile; an e-mail or phone may be shared, and the oldest answers."""

    class Kind(models.TextChoices):
        ID = "id"
        EMAIL = "email"
        PHONE = "phone"
        ANONYMOUS = "anonymous_id"

    kind = models.CharField(max_length=12, choices=Kind.choices)
    value = models.CharField(max_length=255)
    profile_no = models.BigIntegerField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "value", "profile_no"], name="profilekey_once"),
            models.UniqueConstraint(
                fields=["kind", "value"],
                condition=models.Q(kind__in=["id", "anonymous_id"]),
                name="profilekey_names_one",
            ),
        ]


class Identity(models.Model):
    """One version of a profile's identifiers, normalised but never hashed. A changed identifier makes a new row."""

    identity_no = models.BigIntegerField(primary_key=True)
    profile_no = models.BigIntegerField(db_index=True)
    external_id = models.CharField(max_length=150, blank=True)
    email = models.CharField(max_length=254, blank=True, help_text="Trimmed and lower-cased")
    phone = models.CharField(max_length=20, blank=True, help_text="E.164")
    mobile_ad_id = models.CharField(max_length=64, blank=True)
    first_name = models.CharField(max_length=100, blank=True)
    last_name = models.CharField(max_length=100, blank=True)
    country = models.CharField(max_length=2, blank=True, help_text="ISO 3166 alpha-2, upper case")
    zip = models.CharField(max_length=20, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    replaced_at = models.DateTimeField(null=True)
    erased_at = models.DateTimeField(null=True)

    class Meta:  # who else carries an identifier is asked for every batch of removals
        indexes = [
            models.Index(fields=["email"], name="identity_by_email", condition=~models.Q(email="")),
            models.Index(fields=["phone"], name="identity_by_phone", condition=~models.Q(phone="")),
            models.Index(fields=["external_id"], name="identity_by_external", condition=~models.Q(external_id="")),
            models.Index(fields=["mobile_ad_id"], name="identity_by_ad_id", condition=~models.Q(mobile_ad_id="")),
            models.Index(
                fields=["last_name", "first_name", "zip"],
                name="identity_by_address",
                condition=~models.Q(last_name="") & ~models.Q(first_name=""),
            ),
        ]


class Consent(models.Model):
    """What a profile has said about one use of its data. No row: it has said nothing, and the workspace's policy decides."""

    class Purpose(models.TextChoices):
        AD_USER_DATA = "ad_user_data"
        AD_PERSONALIZATION = "ad_personalization"
        ANALYTICS = "analytics"

    profile_no = models.BigIntegerField()
    purpose = models.CharField(max_length=20, choices=Purpose.choices)
    granted = models.BooleanField()
    at_us = models.BigIntegerField(help_text="When it was said, as last confirmed")
    source = models.CharField(max_length=40)
    attribute = models.CharField(
        max_length=150, blank=True, help_text="The attribute it was read from; empty: said in so many words"
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["profile_no", "purpose"], name="consent_once")]


class ConsentStatement(models.Model):
    """A change of what a profile has said, kept for as long as the profile is."""

    profile_no = models.BigIntegerField(db_index=True)
    purpose = models.CharField(max_length=20, choices=Consent.Purpose.choices)
    granted = models.BooleanField(null=True, help_text="Null: the attribute it was read from is read no more")
    at_us = models.BigIntegerField(help_text="When it was said")
    recorded_us = models.BigIntegerField()
    source = models.CharField(max_length=40)
    attribute = models.CharField(max_length=150, blank=True)


class Event(models.Model):
    """A hot event: accepted, not yet in the lake. A flush deletes exactly the ids that its file holds."""

    event_key = models.CharField(max_length=32, help_text="128 bits as hex")
    profile_no = models.BigIntegerField(db_index=True)
    name = models.CharField(max_length=100)
    time_us = models.BigIntegerField()
    received_us = models.BigIntegerField()
    source = models.CharField(max_length=20)
    properties = models.TextField(default="{}", help_text="JSON object")
    xid = models.BigIntegerField(db_default=TransactionId())

    class Meta:
        indexes = [models.Index(fields=["xid"], condition=models.Q(xid__gt=0), name="event_by_xid")]  # empty on SQLite


class EventKey(models.Model):
    """The keys of the last 30 days of API events, so that a repeat counts once; `content` tells a repeat from a conflict."""

    key = models.CharField(max_length=32, primary_key=True)
    content = models.CharField(max_length=32)
    received_us = models.BigIntegerField(db_index=True)


class ChangeLog(models.Model):
    """What happened to whom, written in the accepting transaction; floors above read it by cursor."""

    class Kind(models.TextChoices):
        EVENT = "event"
        CONSENT = "consent"
        DELETE = "delete"
        ERASURE = "erasure"
        MERGE = "merge"
        IDENTITY = "identity"

    seq = models.BigAutoField(primary_key=True)
    profile_no = models.BigIntegerField()
    kind = models.CharField(max_length=8, choices=Kind.choices)
    name = models.CharField(
        max_length=100, blank=True, help_text="The event's name; on a merge, the survivor's profile_no"
    )
    at_us = models.BigIntegerField()
    xid = models.BigIntegerField(db_default=TransactionId())

    class Meta:
        indexes = [
            models.Index(fields=["xid"], condition=models.Q(xid__gt=0), name="changelog_by_xid")
        ]  # empty on SQLite


class ProfileChange(models.Model):
    """A profile whose attributes, state or kind differ from the lake's projection; a new projection deletes exactly the ids it saw."""

    profile_no = models.BigIntegerField()
    xid = models.BigIntegerField(db_default=TransactionId())

    class Meta:
        indexes = [
            models.Index(fields=["xid"], condition=models.Q(xid__gt=0), name="profilechange_by_xid")
        ]  # empty on SQLite


class Alias(models.Model):
    """A merge: events of `old_no` are the survivor's. Chains are folded when written, so one look-up is enough."""

    old_no = models.BigIntegerField(primary_key=True)
    survivor_no = models.BigIntegerField(db_index=True)
    merged_at = models.DateTimeField(auto_now_add=True)


class Tombstone(models.Model):
    """A keyed hash of an identifier that must not come back."""

    class Cause(models.TextChoices):
        SUPPRESSED = "suppressed"
        ERASED = "erased"

    kind = models.CharField(max_length=12, choices=ProfileKey.Kind.choices)
    digest = models.CharField(max_length=64)
    cause = models.CharField(max_length=10, choices=Cause.choices)
    removal = models.CharField(
        max_length=32, db_index=True, help_text="The same on all tombstones that one removal left"
    )
    refused = models.PositiveIntegerField(default=0, help_text="How often it came back and was refused")
    refused_at = models.DateTimeField(null=True, help_text="When it last did")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "digest"], name="tombstone_once")]


class PersonList(models.Model):
    """A list kept by hand or through the Track API: a Roaring bitmap of profile_no, changed under the row's lock."""

    key = models.SlugField(max_length=100, unique=True)
    name = models.CharField(max_length=200)
    customerio_segment = models.PositiveIntegerField(
        null=True, unique=True, help_text="The segment id that Track API calls use"
    )
    members = models.BinaryField(default=b"")
    count = models.PositiveIntegerField(default=0)
    changed_at = models.DateTimeField(auto_now=True)


class Counted(models.Model):
    """A name with what the last survey found of it (people/survey.py); all null until there was one since it was first seen."""

    times = models.PositiveBigIntegerField(
        null=True, help_text="Of a property: in the seven days before the newest event"
    )
    people = models.PositiveBigIntegerField(null=True, help_text="Live people; of a property, in those days")

    class Meta:
        abstract = True


class Survey(models.Model):
    """When names were last counted, and how many live people there were then. One row."""

    people = models.PositiveBigIntegerField()
    as_of_us = models.BigIntegerField()


class AttributeName(Counted):
    """An attribute that profiles have been seen with. A rule may name it only if it is here."""

    class Type(models.TextChoices):
        TEXT = "text"
        NUMBER = "number"
        BOOLEAN = "boolean"
        TIME = "time"

    name = models.CharField(max_length=150, primary_key=True)
    usual = models.JSONField(null=True, help_text="[[value, people], …]: values that many share, the most usual first")
    type = models.CharField(max_length=7, choices=Type.choices, help_text="As first seen")
    conflicts = models.PositiveBigIntegerField(default=0, help_text="Values seen that do not fit the type")
    first_seen_us = models.BigIntegerField()
    last_seen_us = models.BigIntegerField()


class EventName(Counted):
    """An event name that has been seen. A rule may name it only if it is here."""

    name = models.CharField(max_length=100, primary_key=True)
    first_seen_us = models.BigIntegerField()
    last_seen_us = models.BigIntegerField(help_text="When one last came in, to the minute")
    usual_silence_us = models.BigIntegerField(
        default=0, help_text="The longest time between two arrivals lately; older ones fade"
    )
    allowed_silence_seconds = models.PositiveIntegerField(
        null=True, help_text="Longer than this and it counts as stopped; 0: never; null: as is usual (feeds.py)"
    )
    newest_us = models.BigIntegerField(
        null=True, help_text="When it last happened, which may be long before it came in"
    )


class PropertyName(Counted):
    """A property seen on an event."""

    event = models.CharField(max_length=100)
    name = models.CharField(max_length=150)
    usual = models.JSONField(null=True, help_text="As an attribute's")
    type = models.CharField(max_length=7, choices=AttributeName.Type.choices)
    conflicts = models.PositiveBigIntegerField(default=0)
    first_seen_us = models.BigIntegerField()
    last_seen_us = models.BigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["event", "name"], name="propertyname_once")]


class LakeColumn(models.Model):
    """A property or attribute that has typed columns in lake files written since: `p<id>` and `p<id>_num`, or `a<id>` and `a<id>_num`."""

    class Kind(models.TextChoices):
        PROPERTY = "property"
        ATTRIBUTE = "attribute"

    kind = models.CharField(max_length=9, choices=Kind.choices)
    name = models.CharField(max_length=150, help_text="A property has the same column on all events")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "name"], name="lakecolumn_once")]


class ImportFile(models.Model):
    """A file of people or events being read in, with what a resumed reading needs to go on where it stopped."""

    class Kind(models.TextChoices):
        PROFILES = "profiles"
        EVENTS = "events"
        PRIVACY = "privacy"

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        READING = "reading", "Reading"
        DONE = "done", "Done"
        CANCELLED = "cancelled", "Cancelled"
        FAILED = "failed", "Failed"

    kind = models.CharField(max_length=8, choices=Kind.choices)
    name = models.CharField(max_length=255, help_text="The file's name, without its folder")
    path = models.TextField()
    sha256 = models.CharField(max_length=64, blank=True)
    mapping = models.JSONField(default=dict, help_text='{"id": "customer_id", …}: our field → the column')
    state = models.CharField(max_length=9, choices=State.choices, default=State.WAITING)
    bytes_total = models.BigIntegerField(default=0)
    bytes_read = models.BigIntegerField(default=0)
    rows_read = models.BigIntegerField(
        default=0, help_text="Data rows up to the checkpoint: a resumed reading starts after them"
    )
    rows_accepted = models.BigIntegerField(default=0)
    rows_refused = models.BigIntegerField(default=0)
    error = models.TextField(blank=True)
    cancel_requested = models.BooleanField(default=False)
    created_by = models.ForeignKey("audiences.User", null=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)


class RefusedRow(models.Model):
    """A row that was not taken in, whole, with where it stood and why. It holds personal data: shown masked, exported by permission."""

    source = models.CharField(max_length=20, help_text="`import`, `track_v1`, `track_v2`")
    import_file = models.ForeignKey(ImportFile, null=True, on_delete=models.CASCADE)
    line = models.BigIntegerField(null=True, help_text="1 is the header")
    field = models.CharField(max_length=150, blank=True)
    reason = models.CharField(max_length=300)
    raw = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)


class LakeFile(models.Model):
    """One file of the lake. It is live in manifest m when added_manifest ≤ m and (dead_manifest is null or > m)."""

    class Kind(models.TextChoices):
        EVENTS = "events"
        PROFILES = "profiles"

    kind = models.CharField(max_length=8, choices=Kind.choices)
    path = models.CharField(max_length=300, unique=True, help_text="Relative to the lake's root")
    rollup_path = models.CharField(max_length=300, blank=True, help_text="Activity roll-up of an events file")
    month = models.CharField(max_length=7, blank=True, help_text="YYYY-MM of an events file")
    min_time_us = models.BigIntegerField(null=True)
    max_time_us = models.BigIntegerField(null=True)
    rows = models.BigIntegerField()
    bytes = models.BigIntegerField()
    hot_min = models.BigIntegerField(null=True, help_text="Lowest mark of the hot rows that a flush put here")
    hot_max = models.BigIntegerField(null=True, help_text="Highest, likewise")
    columns = models.JSONField(default=dict, help_text='Typed columns that the file has: {"price": "p3"}')
    origin = models.CharField(max_length=10, help_text="flush, import, compaction or projection")
    import_file = models.ForeignKey(ImportFile, null=True, on_delete=models.SET_NULL)
    added_manifest = models.BigIntegerField(db_index=True)
    dead_manifest = models.BigIntegerField(null=True)
    dead_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)


class Pin(models.Model):
    """A moment of the data that a computation holds on to: files live at its manifest are not unlinked before `expires_at`."""

    manifest = models.BigIntegerField()
    hot = models.BigIntegerField(help_text="Hot events up to here: id on SQLite, transaction id on PostgreSQL")
    profiles = models.BigIntegerField(help_text="Profile changes up to here, likewise")
    change_seq = models.BigIntegerField(help_text="Change-log seq up to which decisions are contained")
    as_of_us = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)
