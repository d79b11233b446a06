"""The one search box: audiences, destinations, connections, runs, people, pages and actions, by words. A fixed number of queries; it writes nothing."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Q, QuerySet
from django.urls import reverse

from audiences import access, standings
from audiences.models import Audience, User
from audiences.people import biography
from audiences.services import workspace
from destinations.models import Destination, Mapping, Run

SHOWN = 6  # of each group; the catalogue and the lists have all
# What may be a person's e-mail address or phone number is looked for among people only, and never put into an address.
PERSONAL = re.compile(r"@|^\+?[\d\s().-]{7,}$")
_SMALL = {"audiences", "to", "the", "of", "a"}


@dataclass(frozen=True, slots=True)
class Found:
    """One thing to go to. `sub` says which it is; `keys` are the keys that lead there too."""

    url: str
    title: str
    sub: str = ""
    symbol: str = "right"
    keys: str = ""
    mono: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    label: str
    found: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A page or an action that everybody with the permission can go to: its words are what it is also looked for by."""

    name: str
    title: str
    sub: str
    permission: str
    symbol: str
    keys: str = ""
    words: str = ""


ACTIONS = (
    Page("qa:new-audience", "New audience", "Seven steps from a destination to an owner", "setup.edit", "plus", "n", "create set-up start"),
    Page("audiences:upload", "Import people or events", "A CSV or Parquet file", "import.run", "imports", "", "upload file"),
    Page("destinations:choose", "Connect a destination", "An account on a platform", "destination.edit", "destinations", "", "new add account"),
    Page("qa:new-privacy", "New privacy request", "Somebody asks to be erased or suppressed", "privacy.decide", "lock", "", "gdpr ccpa erase delete forget"),
    Page("audiences:people", "Find a person", "By id, e-mail or phone; why they are in or out", "person.view", "people", "g p", "profile trace"),
)  # fmt: skip
PAGES = (
    Page("qa:home", "Home", "What needs you now", "audience.view", "home", "g h", "start today"),
    Page("qa:catalog", "Audiences", "All of them, trouble first", "audience.view", "audiences", "g a", "catalogue catalog list"),
    Page("audiences:overlap", "Overlap", "Who is in two audiences at once", "audience.view", "lookalike", "g o", "matrix heat map exclusion"),
    Page("audiences:imports", "Imports", "Files that were taken in", "import.view", "imports", "g i", "refused rows"),
    Page("destinations:destinations", "Destinations", "Accounts on platforms", "destination.view", "destinations", "g d", "accounts meta google"),
    Page("destinations:runs", "Runs", "What was sent, and when", "run.view", "runs", "g r", "syncs"),
    Page("qa:alerts", "Alerts", "What went wrong and is wrong still", "alert.view", "bell", "g l", "incidents"),
    Page("destinations:warehouse", "Warehouse", "The record in a PostgreSQL of yours", "warehouse.edit", "warehouse", "", "postgresql load export record settings"),
    Page("qa:mails", "Mail", "What Rollcall has mailed to whom", "mail.view", "mail", "", "outbox e-mail"),
    Page("qa:setups", "Set-ups under way", "Audiences begun and not finished", "setup.edit", "setup", "", "steps launch"),
    Page("audiences:activity", "Activity", "Who changed what, and why", "trail.view", "clock", "", "audit trail history"),
    Page("qa:privacy", "Privacy requests", "Who asked to be erased, and how far it is", "privacy.view", "lock", "", "gdpr ccpa erasure delete suppression forget"),
    Page("audiences:naming", "Naming convention", "How audiences are named", "naming.view", "tag", "", "names tokens settings"),
    Page("destinations:rename-names", "Rename in bulk", "What would be called otherwise", "audience.edit", "tag", "", "names convention"),
    Page("audiences:conformance", "Names that depart from the convention", "Audience by audience", "naming.view", "tag", "", "conformance rename"),
    Page("audiences:settings", "Settings", "The workspace", "settings.view", "settings", "g s", "timezone currency workspace"),
    Page("audiences:consent", "Consent policy", "Opt-in or opt-out, by country", "settings.view", "settings", "", "gdpr settings"),
    Page("audiences:users", "Users", "Who signs in, and their roles", "settings.view", "people", "", "invite role settings"),
    Page("audiences:keys", "API keys", "For programs that send events", "settings.view", "key", "", "track settings"),
    Page("audiences:jobs", "Jobs", "Work that is due or under way", "settings.view", "jobs", "", "queue worker settings"),
    Page("audiences:account", "Your account", "Name, time zone, password", "account.edit", "people", "", "profile password keyboard"),
)  # fmt: skip


def find(words: str, user: User, *, people: bool) -> tuple[Group, ...]:
    """What these words lead to, group by group, the likeliest first. Without words: actions and pages.

    `people`: also look for a person by these words. Only where they were posted: they must be in no address.
    """
    words = words.strip()
    parts = words.casefold().split()
    groups: list[Group] = []
    if people and words and access.may(user, "person.view"):
        groups.append(Group("People", tuple(_people(words))))
    if words and not PERSONAL.search(words):
        groups += [
            Group("Audiences", tuple(_audiences(parts))),
            Group("Destinations", tuple(_destinations(parts))),
            Group("Connections", tuple(_connections(parts))),
        ]
    if run := re.fullmatch(r"(?:run |sync |#)?\s*(\d{1,12})", words.casefold()):
        groups.append(Group("Runs", tuple(_runs(int(run[1])))))
    groups.append(Group("Actions", tuple(_pages(ACTIONS, parts, user))))
    groups.append(Group("Go to", tuple(_pages(PAGES, parts, user))))
    return tuple(group for group in groups if group.found)


def _audiences(parts: list[str]) -> Iterable[Found]:
    rows = Audience.objects.filter(_all(parts, "key", "name", "description", "purpose", "live_version__sentence"))
    rows = rows.select_related("live_version").only(
        "key", "name", "purpose", "archived_at", "live_version__sentence"
    )  # fmt: skip
    best = sorted(rows.order_by("key")[:200], key=lambda row: (_rank(row.key, row.name, parts), bool(row.archived_at)))
    for row in best[:SHOWN]:
        sentence = row.live_version.sentence if row.live_version else "No rule is published yet."
        sub = f"Archived. {sentence}" if row.archived_at else sentence
        yield Found(reverse("qa:audience", args=[row.key]), row.name, sub, row.purpose, mono=True)


def _destinations(parts: list[str]) -> Iterable[Found]:
    for row in Destination.objects.filter(_all(parts, "key", "name", "kind")).order_by("name")[:SHOWN]:
        url = reverse("destinations:destination", args=[row.key])
        yield Found(url, row.name, row.get_state_display(), "destinations")


def _connections(parts: list[str]) -> Iterable[Found]:
    """Only where the words name both ends, or the platform's own name or id: else the two groups above have it."""
    fields = ("audience__key", "audience__name", "destination__name", "destination__kind", "remote_name", "remote_id")
    rows: QuerySet[Mapping] = Mapping.objects.filter(_all(parts, *fields)).select_related("audience", "destination")
    for row in rows.order_by("audience__key", "pk")[:SHOWN]:
        sub = f"{row.get_state_display()} · {row.remote_name or 'no audience there yet'}"
        yield Found(
            reverse("destinations:connection", args=[row.pk]), f"{row.audience.name} → {row.destination.name}", sub
        )


def _runs(pk: int) -> Iterable[Found]:
    for row in Run.objects.filter(pk=pk).select_related("mapping__audience", "mapping__destination"):
        title = f"Run {row.pk} · {row.get_state_display()}"
        sub = f"{row.mapping.audience.name} → {row.mapping.destination.name}"
        yield Found(reverse("destinations:run", args=[row.pk]), title, sub, "runs")


def _people(words: str) -> Iterable[Found]:
    """By the whole of an id, an e-mail address or a phone number; shown masked."""
    settings = workspace.current()
    number = biography.find(words[:254], settings.default_region if settings else "US")
    if number is None:
        return
    sub = "Which audiences they are in, and why"
    yield Found(reverse("audiences:person", args=[number]), standings.titles([number])[number], sub, "people")


def _pages(pages: Iterable[Page], parts: list[str], user: User) -> Iterable[Found]:
    wanted = [part for part in parts if part not in _SMALL] or parts
    for one in pages:
        text = f"{one.title} {one.sub} {one.words}".casefold()
        if access.may(user, one.permission) and all(part in text for part in wanted):
            yield Found(reverse(one.name), one.title, one.sub, one.symbol, one.keys)


def _all(parts: list[str], *fields: str) -> Q:
    """Every word in one of the fields."""
    condition = Q()
    for part in parts[:8]:
        one = Q()
        for field in fields:
            one |= Q(**{f"{field}__icontains": part})
        condition &= one
    return condition


def _rank(key: str, name: str, parts: list[str]) -> tuple[int, str]:
    """What begins with the words first, then what holds them in its name, then what only its rule or description holds."""
    text = f"{key} {name}".casefold()
    joined = "_".join(parts)
    if any(one.casefold().startswith(joined) for one in (key, name)):
        return 0, key
    return (1 if all(part in text for part in parts) else 2), key


def personal(words: str) -> bool:
    """Whether the words may be somebody's address or number."""
    return bool(PERSONAL.search(words.strip()))
