"""How values read on every page: numbers, ages, health, icons, and what a role may do. It looks nothing up."""

import functools
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import template
from django.contrib.messages.storage.base import Message
from django.template.defaultfilters import date as format_date
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe

from audiences import access, charts, clock, masking
from audiences.models import AuditEntry, Consent

register = template.Library()

CONSENT_USES = {
    Consent.Purpose.AD_USER_DATA: "Use of their data for ads",
    Consent.Purpose.AD_PERSONALIZATION: "Personalised ads",
    Consent.Purpose.ANALYTICS: "Analytics",
}
# What the verbs of the audit trail mean; a verb that is not here is printed as it is.
DEEDS = {
    "audience.created": "Audience made",
    "audience.changed": "Details changed",
    "audience.drafted": "Draft saved",
    "audience.published": "Version published",
    "audience.published_beside": "Version published beside",
    "audience.end_moved": "Its end moved",
    "audience.kept": "Kept after all",
    "audience.review_asked": "Review asked for",
    "audience.approved": "Change approved",
    "audience.self_approved": "Change self-approved",
    "audience.sent_back": "Sent back",
    "audience.review_withdrawn": "Review withdrawn",
    "audience.review_skipped": "Published without a second person",
    "audience.linked": "Linked suppression audiences changed",
    "audience.archived": "Archived",
    "audience.refresh_asked": "Count asked for",
    "audience.renamed": "Renamed",
    "audience.waits": "Waits for the end of a test",
    "audience.waits_no_more": "Waits no more",
    "audience.draft_discarded": "Draft thrown away",
    "audience.refreshed": "Counted",
    "audience.test_locked": "Put in test",
    "audience.test_moved": "End of the test moved",
    "audience.test_ended": "Test ended",
    "audience.test_broken": "Test lock broken",
    "alert.acknowledged": "Alert taken up",
    "alert.limit_set": "Limit of alerts changed",
    "alert.muted": "Alerts muted",
    "alert.snoozed": "Alert let wait",
    "alert.taken_as_usual": "New size taken as usual",
    "alert.unacknowledged": "Alert put down again",
    "alert.unmuted": "Alerts mailed again",
    "alert.unsnoozed": "Alert waits no more",
    "baseline.spend_entered": "Weekly spend entered",
    "list.made": "List made",
    "list.changed": "People put on or taken off",
    "list.described": "List described anew",
    "privacy.asked": "Privacy request taken in",
    "privacy.given_up": "Given up on a platform, on record",
    "privacy.lifted": "Suppression lifted",
    "user.changed": "Account changed",
    "api_key.made": "API key made",
    "api_key.revoked": "API key revoked",
    "destination.created": "Destination connected",
    "destination.changed": "Settings changed",
    "destination.checked": "Checked",
    "record.asked": "Record asked for",
    "record.downloaded": "Record downloaded",
    "record.discarded": "Record thrown away",
    "warehouse.changed": "Warehouse named or changed",
    "warehouse.checked": "Checked",
    "warehouse.started": "Loading the warehouse started",
    "warehouse.stopped": "Loading the warehouse stopped",
    "warehouse.emptied": "Warehouse emptied",
    "mapping.created": "Connected, as a rehearsal",
    "mapping.changed": "Connection changed",
    "mapping.trial": "Trial begun",
    "mapping.live": "Went live",
    "mapping.paused": "Paused",
    "mapping.frozen": "Frozen",
    "mapping.resumed": "Went on",
    "mapping.retired": "Retired",
    "mapping.adopted": "Audience of the platform adopted",
    "mapping.resynced": "Everybody told again",
    "mapping.overridden": "Exception made",
    "mapping.renamed": "Renamed on the platform",
    "mapping.renamed_there": "Seen to be renamed on the platform",
    "mapping.lost": "Its audience is gone on the platform",
    "mapping.found_again": "Its audience is there again",
    "mapping.looked_again": "Looked for again",
    "mapping.recreated": "To be made anew on the platform",
    "mapping.unblocked": "Allowed to call again",
    "database.restored": "Restored from a backup",
    "feed.changed": "Changed how long a feed may be silent",
    "hold.set": "Stopped for safety",
    "hold.lifted": "Safety stop lifted",
    "run.requested": "Sync asked for",
    "run.rehearsed": "Rehearsal asked for",
    "run.cancelled": "Run cancelled",
    "run.approved": "Removal approved",
    "run.retried": "Refused people tried again",
    "setup.started": "Set-up begun",
    "setup.finished": "Set-up finished",
    "setup.discarded": "Set-up discarded",
    "import.started": "Import started",
    "import.cancelled": "Import cancelled",
    "naming.changed": "Naming convention changed",
    "person.revealed": "Identifiers shown",
    "record.exported": "Record of audiences exported",
    "refused.exported": "Refused rows exported",
    "sample.bought": "Made to buy, in the demo",
    "spot_check.started": "Spot check drawn",
    "spot_check.noted": "Looked at by hand in a spot check",
    "spot_check.signed": "Spot check signed off",
    "user.invited": "User invited",
    "user.role_changed": "Role changed",
    "user.deactivated": "User deactivated",
    "user.reactivated": "User let in again",
    "user.password_set": "Password set",
    "workspace.changed": "Settings changed",
    "workspace.set_up": "Workspace set up",
}

# A change of details that is one of owners alone says so.
OWNERS, OWNERS_CHANGED = ("definition_owner", "sync_owner", "alert_owner", "backup_owner"), "Owners changed"

# What each word of health looks like: icon and tone. The word itself is always printed beside them.
HEALTH = {
    "Healthy": ("healthy", "good"),
    "Watch": ("watch", "watch"),
    "Problem": ("problem", "bad"),
    "Paused": ("paused", "idle"),
    "Counting": ("clock", "idle"),
    "Not counted": ("unknown", "idle"),
}
# The states that runs, imports, connections, destinations, counts and versions may be in.
STATES = {
    "good": {"done", "live", "connected", "published", "settled"},
    "bad": {"failed", "refused", "failing", "interrupted", "frozen", "unapplied"},
    "watch": {"partial", "approval", "paused", "cancelled", "in_review", "untested", "unknown"},
    "accent": {
        "queued",
        "counting",
        "diffing",
        "sending",
        "confirming",
        "waiting",
        "making",
        "reading",
        "running",
        "trial",
        "prepared",
        "submitted",
    },
}


@register.simple_tag
@functools.cache
def icon(name: str, label: str = "") -> SafeString:
    """An icon of static/icons.svg; without a label it is decoration and not read out."""
    if label:
        return format_html(
            '<svg class="icon" role="img" aria-label="{}"><use href="{}#{}"/></svg>', label, static("icons.svg"), name
        )
    return format_html('<svg class="icon" aria-hidden="true"><use href="{}#{}"/></svg>', static("icons.svg"), name)


@register.simple_tag
def health(word: str) -> SafeString:
    """Icon, word and colour together."""
    name, tone = HEALTH[word]
    return format_html('<span class="health is-{}">{} {}</span>', tone, icon(name), word)


@register.simple_tag
def state(value: str, words: str) -> SafeString:
    """A state as a badge, coloured by what it means; its words say it."""
    tone = next((tone for tone, values in STATES.items() if value in values), "")
    return format_html('<span class="badge {}">{}</span>', tone, words)


@register.filter
def short(number: int | None, unknown: str = "Not known") -> str | SafeString:
    """48.2k with the whole number in its title; `unknown` in words where there is none."""
    if number is None:
        return unknown
    words = charts.short(number)
    return format_html('<span title="{}">{}</span>', f"{number:,}", words) if abs(number) >= 10_000 else words


@register.filter
def parted(name: str) -> SafeString:
    """A name that a browser may break after its separators, and not within a word."""
    return mark_safe(re.sub(r"([_./·-]+)", r"\1<wbr>", conditional_escape(name)))  # noqa: S308 - escaped just here


@register.filter
def whole(number: int | None, unknown: str = "Not known") -> str:
    return unknown if number is None else f"{number:,}"


@register.filter
def signed(number: int | None, unknown: str = "Not known") -> str:
    """+3,100, −220 or ±0."""
    if number is None:
        return unknown
    return "±0" if number == 0 else f"{'+' if number > 0 else '−'}{charts.short(abs(number))}"


@register.filter
def percent(share: float | None, unknown: str = "Not known") -> str:
    """0.4132 → 41%. Small shares keep a digit, and something is never 0%, nor everything short of it 100%."""
    if share is None:
        return unknown
    value = abs(share) * 100
    sign = "−" if share < 0 else ""
    if 0 < value < 0.1:
        return f"{sign}<0.1%"
    if 99.9 < value < 100:
        return f"{sign}>99.9%"
    return f"{sign}{value:.1f}%" if value < 10 and round(value, 1) % 1 else f"{sign}{value:.0f}%"


@register.filter
def ago(moment: datetime | int | None, never: str = "Never") -> str | SafeString:
    """How long ago, or in how long; the exact time in the reader's zone in its title. Microseconds are taken too."""
    if moment is None:
        return never
    if isinstance(moment, int):
        moment = clock.from_us(moment)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        moment.isoformat(timespec="seconds"),
        exact(moment),
        relative(moment),
    )


@register.filter
def exact(moment: datetime | int | None, never: str = "Never") -> str:
    """Tue 24 Nov 2026, 06:08 CET."""
    if moment is None:
        return never
    if isinstance(moment, int):
        moment = clock.from_us(moment)
    local = timezone.localtime(moment)
    return f"{local:%a} {local.day} {local:%b %Y, %H:%M %Z}"  # Django's own formatting takes thirty times as long


@register.filter
def due(moment: datetime | None, never: str = "Not planned") -> str | SafeString:
    """When something comes: a moment that has passed is due now and waits for a worker."""
    if moment is None:
        return never
    return ago(moment) if moment > timezone.now() else "Due now"


def relative(moment: datetime) -> str:
    seconds = (timezone.now() - moment).total_seconds()
    future, seconds = seconds < 0, abs(seconds)
    if seconds < 45:
        return "in a moment" if future else "just now"
    if seconds < 60 * 60:
        words = f"{max(1, round(seconds / 60))} min"
    elif seconds < 36 * 3600:
        words = f"{round(seconds / 3600)} h"
    elif seconds < 60 * 86400:
        words = f"{round(seconds / 86400)} days"
    else:
        return format_date(timezone.localtime(moment), "j M Y")
    return f"in {words}" if future else f"{words} ago"


@register.filter
def duration(seconds: float | None, unknown: str = "Not known") -> str:
    """900 → 15 min; 7,200 → 2 h."""
    if seconds is None:
        return unknown
    seconds = round(seconds, 1)
    if seconds < 60:
        return f"{seconds:g} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 86400 * 2:
        return f"{seconds / 3600:.1f} h".replace(".0", "")
    return f"{seconds / 86400:.0f} days"


@register.filter
def swiftly(seconds: float | None, unknown: str = "Not yet") -> str:
    """How long something took that should take no time: 0.04 → under 0.1 s; 0.42 → 0.4 s."""
    return "under 0.1 s" if seconds is not None and seconds < 0.1 else duration(seconds, unknown)


@register.filter
def bytes_words(size: int | None) -> str:
    if size is None:
        return "Not known"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size = size / 1000  # type: ignore[assignment]
    raise AssertionError


@register.filter
def consent_use(consent: Consent) -> str:
    """What a consent is about, in words."""
    return CONSENT_USES[Consent.Purpose(consent.purpose)]


@register.filter
def use_of_data(purpose: str) -> str:
    """What consent for a purpose is about, in words."""
    return CONSENT_USES[Consent.Purpose(purpose)]


@register.filter
def said_by(source: str) -> str:
    """Where a statement of consent came from, in words."""
    if source.startswith("import"):
        return f"file {number}" if (number := source.removeprefix("import").strip()) else "a file"
    return {"track_v1": "the Track API", "track_v2": "the Track API", "settings": "the consent settings"}.get(
        source, source
    )


@register.filter
def masked(raw: str) -> str:
    """A refused row without its personal data."""
    return masking.raw(raw)


@register.filter
def deed(entry: AuditEntry) -> str:
    """A line of the trail in words, with what it changed where that is one small thing."""
    words = DEEDS.get(entry.verb) or entry.verb.replace(".", " ").replace("_", " ").capitalize()
    after = entry.after if isinstance(entry.after, dict) else {}
    if entry.verb == "audience.changed" and after and after.keys() <= set(OWNERS):
        words = OWNERS_CHANGED
    if "version" in after:
        words = f"{words}: v{after['version']}"
    elif "role" in after:
        words = f"{words}: {after['role']}"
    elif entry.verb in ("destination.checked", "warehouse.checked"):
        words = f"{words}: {after.get('words', '')}"
    return words


@register.filter
def of(values: Mapping[Any, Any], key: Any) -> Any:
    """What a table says about one key; nothing where it is missing."""
    return values.get(key)


@register.filter
def may(user: Any, permission: str) -> bool:
    return access.may(user, permission)


@register.filter
def who_may(permission: str) -> str:
    return access.who_may(permission)


@register.filter
def undo(message: Message) -> dict[str, Any] | None:
    """What the button of a message does (views/page.py: undoable); None: it has none."""
    tags = message.extra_tags or ""
    return json.loads(tags) if tags.startswith("{") else None


@register.filter
def initials(user: Any) -> str:
    words = (user.name or user.email.split("@")[0]).replace(".", " ").split()
    return "".join(word[0] for word in words[:2]).upper()


@register.simple_tag(takes_context=True)
def here(context: template.Context, prefix: str) -> SafeString | str:
    """aria-current for the rail: the page itself, or one beneath it."""
    path = context["request"].path
    if path == prefix:
        return format_html('aria-current="{}"', "page")
    return format_html('aria-current="{}"', "true") if path.startswith(prefix) else ""
