"""What an audience must pass before it is done, and a workspace before it is set up; each item read from the data."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count, Max
from django.urls import reverse

from audiences import naming, owners, vocabulary
from audiences.models import Audience, EventName, Identity, User
from audiences.segments import exits
from audiences.services import naming as naming_service
from destinations import queries
from destinations.connectors import registry
from destinations.eligibility import UNREACHABLE
from destinations.models import AT_WORK, Destination, Eligibility, Mapping, Removal
from qa import gates, pairs
from qa.models import Baseline, SpotCheck

ENOUGH = 0.5  # of the people who may be sent, the share that must have one of the chosen identifiers


@dataclass(frozen=True, slots=True)
class Item:
    """`done` None: the data cannot tell, and `words` say why. `url` is where it is put right."""

    key: str
    label: str
    done: bool | None
    words: str
    url: str

    @property
    def word(self) -> str:
        return {True: "Done", False: "Not done", None: "Cannot tell"}[self.done]


def of(audience: Audience) -> tuple[Item, ...]:
    """The brief's eight. A fixed number of queries."""
    rows = Mapping.objects.filter(audience=audience).exclude(state=Mapping.State.RETIRED)
    mappings = list(rows.select_related("audience", "destination").order_by("destination__name"))
    return (
        _place(audience, mappings),
        _identifiers(audience, mappings),
        _time_logic(audience),
        _add_and_remove(audience, mappings),
        _spot_check(audience),
        _name(audience),
        _owners(audience),
        _baseline(audience, mappings),
    )


def _setup(audience: Audience) -> str:
    return reverse("qa:setup", args=[audience.key])


def _place(audience: Audience, mappings: Sequence[Mapping]) -> Item:
    label = "Destination and purpose chosen"
    if not mappings:
        return Item("place", label, False, "It is connected to no destination yet.", _setup(audience))
    places = ", ".join(f"{mapping.destination.name} ({mapping.get_state_display().lower()})" for mapping in mappings)
    words = f"{audience.get_purpose_display()} on {places}."
    return Item("place", label, True, words, reverse("destinations:connections", args=[audience.key]))


def _identifiers(audience: Audience, mappings: Sequence[Mapping]) -> Item:
    label = "Identifiers collected and mapped"
    if not mappings:
        return Item("identifiers", label, False, "No connection says yet which identifiers are sent.", _setup(audience))
    worst = min(mappings, key=lambda mapping: len(mapping.identifiers))
    url = reverse("destinations:connection", args=[worst.pk])
    if not worst.identifiers:
        return Item("identifiers", label, False, f"None is chosen for {worst.destination.name}.", url)
    shares = _reachable(mappings)
    kinds = "; ".join(dict.fromkeys(_kinds(mapping) for mapping in mappings))
    if len(shares) < len(mappings):
        return Item("identifiers", label, None, f"{kinds}. How many people have one is known after a rehearsal.", url)
    lowest = min(mappings, key=lambda mapping: shares[mapping.pk])
    share, url = shares[lowest.pk], reverse("destinations:connection", args=[lowest.pk])
    words = f"{kinds}. {share:.0%} of those who may be sent have one"
    words += f" (on {lowest.destination.name}, the fewest)." if len(mappings) > 1 else "."
    return Item("identifiers", label, share >= ENOUGH, words, url)


def _kinds(mapping: Mapping) -> str:
    platform = queries.platform_of(mapping.destination.kind)
    known = platform.identifiers if platform else {}
    *others, last = (known.get(kind, kind).split(" (")[0] for kind in mapping.identifiers)
    words = f"{', '.join(others)} and {last}" if others else last
    return words[:1] + words[1:].lower()


def _reachable(mappings: Sequence[Mapping]) -> dict[int, float]:
    """Of those who passed every other step, the share that could be sent, at each connection's last plan."""
    ids = [mapping.pk for mapping in mappings]
    newest = dict(
        Eligibility.objects.filter(mapping__in=ids).values_list("mapping").annotate(last=Max("refresh_id")).order_by()
    )
    rows = Eligibility.objects.filter(mapping__in=ids, refresh__in=newest.values(), step=UNREACHABLE)
    return {
        mapping: (remaining / (out + remaining) if out + remaining else 1.0)
        for mapping, refresh, out, remaining in rows.values_list("mapping_id", "refresh_id", "out_count", "remaining")
        if newest[mapping] == refresh
    }


def _time_logic(audience: Audience) -> Item:
    label = "Stable time logic, clear entry and exit"
    url = reverse("audiences:versions", args=[audience.key])
    version = audience.live_version
    if version is None:
        return Item("time", label, False, "No rule is published yet.", _setup(audience))
    if audience.invalid_reason:
        return Item("time", label, False, f"It cannot be counted: {audience.invalid_reason}.", url)
    ways = exits.leaving(vocabulary.rule(version.segment))
    if not ways:
        return Item("time", label, False, "Who is in stays in for ever: nothing in the rule lets anybody leave.", url)
    more = f", and in {len(ways) - 1} more way{'s' if len(ways) > 2 else ''}" if len(ways) > 1 else ""
    return Item("time", label, True, f"People leave {ways[0].words}{more}.", url)


def _add_and_remove(audience: Audience, mappings: Sequence[Mapping]) -> Item:
    label = "Add and remove validated, suppression above all"
    retargets = audience.purpose == Audience.Purpose.RETARGETING
    linked = pairs.partners([audience.pk]).get(audience.pk, [])
    guarded = gates.suppressed_among(mappings)
    removed = Removal.objects.filter(mapping__in=[mapping.pk for mapping in mappings]).aggregate(
        asked=Count("pk"), accepted=Count("accepted_at")
    )
    fix = reverse("qa:pair", args=[audience.key]) if retargets else _setup(audience)
    if retargets and not linked and not all(map(gates.excepted, mappings)):
        return Item("removal", label, False, "No suppression audience is linked.", fix)
    if not mappings:
        return Item("removal", label, False, "Nothing is sent anywhere yet.", _setup(audience))
    for mapping in mappings if retargets else ():
        if mapping.pk not in guarded and not gates.excepted(mapping):
            words = f"{', '.join(other.key for other in linked)} is not at work on {mapping.destination.name} yet."
            return Item("removal", label, False, words, reverse("destinations:connection", args=[mapping.pk]))
    beside = ""
    if retargets:
        beside = f" Suppressed by {', '.join(other.key for other in linked)}." if linked else " By a written exception."
    url = reverse("destinations:connections", args=[audience.key])
    cannot = [mapping for mapping in mappings if not _removes(mapping)]
    if cannot:
        return Item("removal", label, False, f"{cannot[0].destination.name} takes nobody back out.{beside}", url)
    if not any(mapping.first_live_at or mapping.state in AT_WORK for mapping in mappings):
        return Item("removal", label, False, f"Rehearsed only: no platform has taken a removal yet.{beside}", url)
    if removed["accepted"]:
        words = f"{removed['accepted']:,} of {removed['asked']:,} removals received by the platform.{beside}"
        return Item("removal", label, True, words, url)
    if removed["asked"]:
        words = f"{removed['asked']:,} left; the platform has received no removal yet.{beside}"
        return Item("removal", label, False, words, url)
    return Item("removal", label, None, f"Nobody has left yet, so no removal could be seen.{beside}", url)


def _removes(mapping: Mapping) -> bool:
    connector = registry.CONNECTORS.get(mapping.destination.kind)
    return connector is None or connector.capabilities.can_remove


def _spot_check(audience: Audience) -> Item:
    label = "Spot check with real people, seen downstream"
    url = reverse("qa:spot-checks", args=[audience.key])
    signed = SpotCheck.objects.filter(audience=audience, state=SpotCheck.State.SIGNED)
    last = signed.select_related("version", "signed_by").annotate(drawn=Count("people")).order_by("-signed_at").first()
    if last is None:
        return Item("spot-check", label, False, "Nobody has signed one off yet.", url)
    by = f" by {last.signed_by}" if last.signed_by else ""
    if last.version_id != audience.live_version_id:
        number = audience.live_version.number if audience.live_version else None
        words = f"v{last.version.number} was signed off{by}" + (f"; v{number} is live now." if number else ".")
        return Item("spot-check", label, False, words, url)
    means = f" {last.means}" if last.means else ""
    return Item(
        "spot-check", label, True, f"{last.drawn} people of v{last.version.number}, signed off{by}.{means}", url
    )


def _name(audience: Audience) -> Item:
    label = "Name follows the convention"
    url = reverse("audiences:details", args=[audience.key])
    convention = naming_service.current()
    if convention is None:
        return Item("name", label, None, "There is no naming convention yet: any name is free.", url)
    if audience.name_reason:
        return Item("name", label, True, f"A name of its own, on record: “{audience.name_reason}”", url)
    parts = naming.parse(convention, audience.name)
    if parts is None:
        return Item("name", label, False, f"“{audience.name}” does not follow it.", url)
    return Item("name", label, True, " · ".join(f"{token}: {value}" for token, value in parts.items()), url)


def _owners(audience: Audience) -> Item:
    label = "Owners named"
    url = reverse("audiences:owners", args=[audience.key])
    missing = owners.missing(audience)
    if missing:
        roles = " and ".join(role.label.lower() for role in missing)
        return Item("owners", label, False, f"Nobody is named who can sign in for: {roles}.", url)
    named = dict.fromkeys(str(holding.user) for holding in owners.holdings(audience) if holding.user)
    return Item("owners", label, True, ", ".join(named) + ".", url)


def _baseline(audience: Audience, mappings: Sequence[Mapping]) -> Item:
    label = "Baseline recorded"
    frozen = {row.mapping_id: row for row in Baseline.objects.filter(mapping__in=[mapping.pk for mapping in mappings])}
    begun = [mapping for mapping in mappings if mapping.first_live_at]
    if not begun:
        words = "It is taken by itself when it first goes live: size, coverage, received, matched, spend."
        return Item("baseline", label, False, words, _setup(audience))
    url = reverse("qa:audience", args=[audience.key])
    without = [mapping for mapping in begun if mapping.pk not in frozen]
    if without:
        return Item("baseline", label, False, f"None was taken for {without[0].destination.name}.", url)
    row = frozen[begun[0].pk]
    parts = [f"{row.size:,} people"]
    parts += [f"{row.received:,} received"] if row.received is not None else ["received: not known yet"]
    if row.weekly_spend is not None:
        parts.append(f"{row.weekly_spend:,} {row.currency} a week")
    else:
        parts.append("spend: not entered")
    return Item("baseline", label, True, ", ".join(parts) + ".", url)


def workspace_steps() -> tuple[Item, ...]:
    """What a new workspace does first, for its home page: seven, in order. A fixed number of queries."""
    events = EventName.objects.count()
    named = Identity.objects.filter(replaced_at=None, erased_at=None).exclude(email="", phone="").exists()
    live = Audience.objects.filter(archived_at=None, live_version__isnull=False)
    published = live.order_by("live_version__published_at").select_related("live_version").first()
    removals = Removal.objects.filter(accepted_at__isnull=False).exists()
    tested = Destination.objects.filter(state=Destination.State.CONNECTED).order_by("checked_at").first()
    signed = SpotCheck.objects.filter(state=SpotCheck.State.SIGNED).select_related("audience").first()
    alerted = live.filter(alert_owner__is_active=True).count()
    total = live.count() if published else 0
    users = User.objects.filter(is_active=True).count()
    new, key = reverse("qa:new-audience"), published.key if published else ""
    return (
        Item(
            "source",
            "Connect a source",
            events > 0,
            f"{events:,} kinds of events have come in."
            if events
            else "People and events come by file or from your shop.",
            reverse("audiences:imports"),
        ),
        Item(
            "identifiers",
            "Map identifiers",
            named,
            "People have e-mails or phone numbers to be found by."
            if named
            else "Without an e-mail or a phone number no platform finds anybody.",
            reverse("audiences:imports"),
        ),
        Item(
            "segment",
            "Publish a first segment",
            published is not None,
            f"{published.key} is published." if published else "Say whom you want to reach; nothing is sent by that.",
            new,
        ),
        Item(
            "destination",
            "Test a destination",
            tested is not None,
            f"{tested.name} answers." if tested else "Connect an ad account and check what its token may do.",
            reverse("destinations:destinations"),
        ),
        Item(
            "removal",
            "See a removal arrive",
            removals,
            "Platforms have taken people out again."
            if removals
            else "Who buys must leave the ads: the first removal shows it.",
            reverse("destinations:runs"),
        ),
        Item(
            "spot-check",
            "Sign off a spot check",
            signed is not None,
            f"{signed.audience.key} was signed off."
            if signed
            else "Ten to twenty real people, looked at on both sides.",
            reverse("qa:spot-checks", args=[key]) if key else new,
        ),
        Item(
            "owners",
            "Name who is alerted",
            bool(total) and alerted == total,
            f"{alerted} of {total} audiences have somebody who is mailed."
            if total
            else f"{users} {'person' if users == 1 else 'people'} can sign in; each audience names one to be mailed.",
            reverse("audiences:owners", args=[key]) if key else new,
        ),
    )
