"""The seven steps by which an audience is set up: what is chosen on the way, and where one stands, which is read from the data itself."""

from collections.abc import Mapping as Fields
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.core import signing
from django.db import transaction
from django.utils import timezone

from audiences import vocabulary
from audiences.models import Audience, User
from audiences.segments.tree import Node
from audiences.services import audiences, trail
from audiences.services.audiences import AudienceRefused
from destinations import queries
from destinations.connectors import registry
from destinations.connectors.base import Capabilities
from destinations.identities import NAMING
from destinations.models import Destination, Mapping
from destinations.services import Refused, mappings, refuse, runs
from qa import pairs
from qa.models import SetUp, SpotCheck

STEPS = {
    "destination": "Destination and purpose",
    "identity": "Identity coverage",
    "segment": "Segment",
    "connect": "Connect",
    "behaviour": "Add and remove",
    "spot-check": "Spot check",
    "owners": "Owners, go live",
}
LINK_LASTS = timedelta(days=7)
_TWICE = timedelta(minutes=2)  # the same beginning by the same person within this is a second click
_SALT = "qa.setup.engineer"


@dataclass(frozen=True, slots=True)
class Step:
    """`state` is done, now or todo; `note` what was chosen, empty where nothing was."""

    number: int
    key: str
    label: str
    state: str
    note: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A set-up with all that its steps read. `platform` None: its connector is not known here."""

    setup: SetUp
    audience: Audience | None
    mapping: Mapping | None
    kind: str
    platform: Capabilities | None
    tree: Node | None
    linked: tuple[Audience, ...]
    signed: SpotCheck | None
    done: frozenset[str]

    @property
    def purpose(self) -> str:
        return Audience.Purpose(self.setup.purpose).label if self.setup.purpose else ""

    @property
    def place(self) -> str:
        if self.setup.destination:
            return self.setup.destination.name
        return f"{self.platform.label}, to be connected" if self.platform else ""

    @property
    def identifiers(self) -> list[str]:
        return list(self.mapping.identifiers if self.mapping else self.setup.answers.get("identifiers", ()))

    @property
    def current(self) -> str:
        """The first step that is not done; the last one where all are."""
        return next((key for key in STEPS if key not in self.done), "owners")

    @property
    def needs_suppression(self) -> bool:
        return self.setup.purpose == Audience.Purpose.RETARGETING and self.audience is not None and not self.linked

    def steps(self, now: str) -> list[Step]:
        return [
            Step(
                number,
                key,
                label,
                "now" if key == now else "done" if key in self.done else "todo",
                self._note(key) if key in self.done or key == "destination" else "",
            )
            for number, (key, label) in enumerate(STEPS.items(), 1)
        ]

    def _note(self, key: str) -> str:
        if key == "destination":
            return " · ".join(part for part in (self.purpose, self.place) if part)
        if key == "identity":
            words = self.platform.identifiers if self.platform else {}
            shown = [words.get(kind, kind).split(" (")[0] for kind in self.identifiers]
            return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
        if key == "segment" and self.audience and self.audience.live_version:
            return f"{self.audience.key}, v{self.audience.live_version.number}"
        if key == "connect" and self.mapping:
            return str(self.mapping.get_state_display())
        if key == "behaviour" and self.mapping:
            return f"Asks before removing more than {self.mapping.removal_limit}%"
        if key == "spot-check" and self.signed and self.signed.signed_by:
            return f"Signed by {self.signed.signed_by}"
        if key == "owners" and self.audience:
            return str(self.audience.alert_owner or "")
        return ""


def find(pk: int) -> SetUp | None:
    rows = SetUp.objects.select_related(
        "destination", "started_by", "audience__live_version", "mapping__destination", "mapping__audience",
        *(f"audience__{role}_owner" for role in ("definition", "sync", "alert", "backup")),
    )  # fmt: skip
    return rows.filter(pk=pk).first()


def look(setup: SetUp) -> Standing:
    """Where it stands."""
    return look_at([setup])[0]


def look_at(setups: Sequence[SetUp]) -> list[Standing]:
    """Where each stands. Three queries, however many they are."""
    audiences_ = [setup.audience_id for setup in setups if setup.audience_id]
    there = {
        (row.audience_id, row.destination_id): row
        for row in Mapping.objects.filter(audience__in=audiences_).select_related("destination", "audience")
    }
    linked = pairs.partners(audiences_)
    versions = [setup.audience.live_version_id for setup in setups if setup.audience]
    checks = SpotCheck.objects.filter(version__in=[pk for pk in versions if pk], state=SpotCheck.State.SIGNED)
    signed = {check.version_id: check for check in checks.select_related("signed_by").order_by("signed_at")}
    return [_standing(setup, there, linked, signed) for setup in setups]


def _standing(
    setup: SetUp,
    there: Fields[tuple[int, int], Mapping],
    linked: Fields[int, list[Audience]],
    checks: Fields[int, SpotCheck],
) -> Standing:
    audience, mapping = setup.audience, setup.mapping
    if audience and setup.destination_id:  # by its own step or by another door
        mapping = there.get((audience.pk, setup.destination_id), mapping)
    kind = setup.destination.kind if setup.destination else str(setup.answers.get("kind", ""))
    live = audience.live_version if audience else None
    signed = checks.get(live.pk) if live else None
    answers = setup.answers
    owners = audience and audience.definition_owner_id and audience.sync_owner_id and audience.alert_owner_id
    passed = {
        "destination": bool(setup.purpose and kind),
        "identity": bool(answers.get("identifiers") or mapping),
        "segment": live is not None,
        "connect": mapping is not None and mapping.destination.state == Destination.State.CONNECTED,
        "behaviour": mapping is not None and bool(answers.get("behaviour")),
        "spot-check": signed is not None,
        "owners": bool(owners and answers.get("owners")),
    }
    return Standing(
        setup=setup,
        audience=audience,
        mapping=mapping,
        kind=kind,
        platform=queries.platform_of(kind),
        tree=vocabulary.rule(live.segment) if live else None,
        linked=tuple(linked.get(audience.pk, ())) if audience else (),
        signed=signed,
        done=frozenset(key for key, yes in passed.items() if yes),
    )


def open_ones() -> list[SetUp]:
    """Those under way, newest first."""
    rows = SetUp.objects.filter(finished_at=None).select_related(
        "destination", "started_by", "audience__live_version", "mapping__destination", "mapping__audience"
    )
    return list(rows.order_by("-pk")[:200])


def open_for(audience: Audience) -> SetUp | None:
    return SetUp.objects.filter(audience=audience, finished_at=None).order_by("-pk").first()


# --- What a step does.


def begin(
    *,
    actor: User,
    purpose: str = "",
    destination: Destination | None = None,
    kind: str = "",
    audience: Audience | None = None,
) -> SetUp:
    """A new way through the steps; the one just begun where somebody clicked twice. Raises Refused."""
    purpose = audience.purpose if audience else purpose
    if destination is None and not kind and audience is not None:
        first = (
            audience.mappings.exclude(state=Mapping.State.RETIRED).select_related("destination").order_by("pk").first()
        )
        destination = first.destination if first else None
    if not (audience and destination is None and not kind):
        _suits(purpose, destination.kind if destination else kind)
    with transaction.atomic():
        recent = SetUp.objects.select_for_update().filter(
            started_by=actor, purpose=purpose, destination=destination, audience=audience, finished_at=None,
            created_at__gt=timezone.now() - _TWICE,
        )  # fmt: skip
        for row in recent.order_by("-pk"):
            if row.answers.get("kind", "") == ("" if destination else kind):
                return row
        setup = SetUp.objects.create(
            started_by=actor,
            purpose=purpose,
            destination=destination,
            audience=audience,
            mapping=_mapping(audience, destination),
            answers={} if destination or not kind else {"kind": kind},
        )
        trail.record(actor, "setup.started", "set_up", str(setup.pk), after={"purpose": purpose})
    return setup


def choose(*, actor: User, setup: SetUp, purpose: str, destination: Destination | None = None, kind: str = "") -> SetUp:
    """Another purpose or place. What hangs on them already stays what it is. Raises Refused."""
    _suits(purpose, destination.kind if destination else kind)
    with transaction.atomic():
        row = _locked(setup)
        same = row.destination_id == (destination.pk if destination else None)
        if row.mapping_id and not same:
            raise refuse("It is connected already; begin another set-up for another destination.", "target")
        if row.audience and row.audience.purpose != purpose:
            if row.mapping_id:
                raise refuse("The audience is connected for its purpose already; begin another set-up.", "purpose")
            try:
                audiences.change(actor=actor, audience=row.audience, purpose=purpose)
            except AudienceRefused as refused:
                raise refuse(str(refused), "purpose") from refused
        row.purpose, row.destination = purpose, destination
        answers = {name: value for name, value in row.answers.items() if name != "kind"}
        if not same:
            answers.pop("identifiers", None)  # another platform takes others
        row.answers = answers if destination else {**answers, "kind": kind}
        row.mapping = row.mapping or _mapping(row.audience, destination)
        row.save()
    return row


def confirm_identity(*, actor: User, setup: SetUp, identifiers: Sequence[str]) -> SetUp:
    """Which identifiers are sent. Raises Refused."""
    standing = look(setup)
    if standing.platform is None:
        raise refuse("Choose the destination first.")
    kinds = [kind for kind in standing.platform.identifiers if kind in identifiers]
    if unknown := [kind for kind in identifiers if kind not in standing.platform.identifiers]:
        raise refuse(f"{standing.platform.label} does not take {', '.join(unknown)[:100]}", "identifiers")
    if not any(kind in NAMING for kind in kinds):
        names = [words.split(" (")[0] for kind, words in standing.platform.identifiers.items() if kind in NAMING]
        raise refuse(f"Choose at least one that names a person by itself: {', '.join(names)}.", "identifiers")
    if standing.mapping:
        mappings.change(actor=actor, mapping=standing.mapping, identifiers=kinds)
    return _answer(setup, identifiers=kinds)


def take_rule(*, actor: User, setup: SetUp, audience: Audience) -> SetUp:
    """The audience whose rule was published in step 3."""
    with transaction.atomic():
        row = _locked(setup)
        row.audience = audience
        row.mapping = row.mapping or _mapping(audience, row.destination)
        row.save(update_fields=["audience", "mapping"])
    return row


def connect(*, actor: User, setup: SetUp) -> Mapping:
    """The audience to its destination, as a rehearsal; the connection that is there already if somebody was quicker. Raises Refused."""
    standing = look(setup)
    if standing.audience is None:
        raise refuse("Build the segment first: step 3.")
    if setup.destination is None:
        raise refuse("Nothing is connected on the platform yet.")
    if not standing.identifiers:
        raise refuse("Choose the identifiers first: step 2.")
    mapping = standing.mapping
    if mapping is None:
        try:
            mapping = mappings.create(
                actor=actor, audience=standing.audience, destination=setup.destination, identifiers=standing.identifiers
            )
        except Refused:
            mapping = _mapping(standing.audience, setup.destination)
            if mapping is None:
                raise
        else:
            runs.rehearse(actor=actor, mapping=mapping)
    for suppression in standing.linked:
        pairs.connect(actor=actor, audience=standing.audience, suppression=suppression)
    SetUp.objects.filter(pk=setup.pk).update(mapping=mapping)
    return mapping


def confirm_behaviour(
    *, actor: User, setup: SetUp, cadence_seconds: int, removal_limit_percent: int, weekly_spend: Decimal | None
) -> SetUp:
    """How often it is synced, and from which share on a removal waits for a person. Raises Refused."""
    mapping = look(setup).mapping
    if mapping is None:
        raise refuse("Connect it first: step 4.")
    mappings.change(
        actor=actor, mapping=mapping, cadence_seconds=cadence_seconds, removal_limit_percent=removal_limit_percent
    )
    return _answer(setup, weekly_spend=weekly_spend, behaviour=True)


def confirm_owners(*, actor: User, setup: SetUp, **owners: User | None) -> SetUp:
    """Who answers for it. Raises AudienceRefused."""
    if setup.audience is None:
        raise refuse("Build the segment first: step 3.")
    audiences.set_owners(actor=actor, audience=setup.audience, **owners)  # type: ignore[arg-type]
    return _answer(setup, owners=True)


def finish(*, actor: User, setup: SetUp) -> SetUp:
    """It is over: the audience's own pages take it from here."""
    with transaction.atomic():
        row = _locked(setup)
        if row.finished_at is None:
            row.finished_at = timezone.now()
            row.save(update_fields=["finished_at"])
            trail.record(actor, "setup.finished", "set_up", str(row.pk), after={"audience": _key(row)})
    return row


def discard(*, actor: User, setup: SetUp) -> None:
    """Leave the way; what was made on it stays."""
    with transaction.atomic():
        trail.record(actor, "setup.discarded", "set_up", str(setup.pk), after={"audience": _key(setup)})
        SetUp.objects.filter(pk=setup.pk).delete()


# --- Sending the connecting step to somebody who has the credentials.


def link_for(setup: SetUp) -> str:
    """What the link to an engineer carries: which set-up, and when it was made; no secret, and no right."""
    return signing.dumps({"set_up": setup.pk}, salt=_SALT)


def of_link(token: str) -> SetUp | None:
    """The set-up that a link is about; None where the link is not ours, too old, or the set-up gone."""
    try:
        data = signing.loads(token, salt=_SALT, max_age=LINK_LASTS)
    except signing.BadSignature:
        return None
    return find(int(data["set_up"]))


def connected_for(*, actor: User, setup: SetUp, destination: Destination) -> SetUp:
    """An account that was connected for this set-up becomes its destination."""
    with transaction.atomic():
        row = _locked(setup)
        if row.destination_id is None and destination.kind == row.answers.get("kind", destination.kind):
            row.destination = destination
            row.answers = {name: value for name, value in row.answers.items() if name != "kind"}
            row.save(update_fields=["destination", "answers"])
    return row


def _suits(purpose: str, kind: str) -> None:
    if purpose not in Audience.Purpose.values:
        raise refuse("Choose what it is for.", "purpose")
    connector = registry.CONNECTORS.get(kind)
    if connector is None:
        raise refuse("Choose where it goes.", "target")
    if purpose not in connector.capabilities.purposes:
        label = Audience.Purpose(purpose).label.lower()
        raise refuse(f"{connector.capabilities.label} does not take {label} audiences.", "target")


def _mapping(audience: Audience | None, destination: Destination | None) -> Mapping | None:
    if audience is None or destination is None:
        return None
    rows = Mapping.objects.filter(audience=audience, destination=destination).select_related("audience", "destination")
    return rows.first()


def _answer(setup: SetUp, **answers: Any) -> SetUp:
    with transaction.atomic():
        row = _locked(setup)
        if "weekly_spend" in answers:
            row.weekly_spend = answers.pop("weekly_spend")
        row.answers = {**row.answers, **answers}
        row.save(update_fields=["answers", "weekly_spend"])
    return row


def _locked(setup: SetUp) -> SetUp:
    SetUp.objects.select_for_update().get(pk=setup.pk)
    found = find(setup.pk)
    assert found is not None
    return found


def _key(setup: SetUp) -> str:
    return setup.audience.key if setup.audience else ""
