"""The workspace's naming convention: what it is, changed and kept; and audiences named by it. What a name may be is audiences/naming.py's."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from audiences import channels, naming
from audiences.models import Audience, NamingConvention, User
from audiences.naming import Convention, NamingRefused, Problem
from audiences.services import trail

FIRST = 1  # the version that a name says before anything is published


class Changed(Exception):
    """Somebody else has saved the convention since it was read. `row` is theirs."""

    def __init__(self, row: NamingConvention | None) -> None:
        super().__init__("somebody else has saved the convention meanwhile")
        self.row = row


def row() -> NamingConvention | None:
    return NamingConvention.objects.select_related("updated_by").filter(pk=1).first()


def current() -> Convention | None:
    """The convention; None where every name is free."""
    return of_row(row())


def of_row(kept: NamingConvention | None) -> Convention | None:
    if kept is None or not kept.tokens:
        return None
    return of_data({"separator": kept.separator, "tokens": kept.tokens, "lengths": kept.lengths})


def of_data(data: Mapping[str, Any]) -> Convention:
    """A convention from plain data, with every platform there is among its channels."""
    return naming.from_json(data, channels.values())


def stamp(kept: NamingConvention | None) -> str:
    """Which state of it somebody has seen."""
    return kept.updated_at.isoformat() if kept else ""


def starter() -> Convention:
    """Channel, intent, window, version."""
    return naming.starter(channels.values())


def room(convention: Convention | None, kind: str) -> int:
    """How many characters of a name fit on a platform of this kind: its own limit, or the convention's where that is less."""
    own = channels.room().get(kind, naming.LONGEST)
    return min(own, convention.lengths.get(kind, own)) if convention else own


def change(*, actor: User | None, convention: Convention, seen: str | None = None, reason: str = "") -> Convention:
    """Keep this convention from now on; names stay what they are until somebody renames them.

    `seen` is the `stamp` of what the actor has before them: raises Changed where it is another by now. Raises NamingRefused.
    """
    if found := naming.faults(convention, channels.room()):
        raise NamingRefused(*found)
    data = naming.to_json(convention)
    with transaction.atomic():
        kept = NamingConvention.objects.select_for_update().filter(pk=1).first()
        if seen is not None and seen != stamp(kept):
            raise Changed(row())
        before = of_row(kept)
        if before is not None and naming.to_json(before) == data:
            return convention
        NamingConvention.objects.update_or_create(pk=1, defaults={**data, "updated_by": actor})
        trail.record(
            actor,
            "naming.changed",
            "naming",
            "1",
            before=naming.to_json(before) if before else None,
            after=data,
            reason=reason or "; ".join(naming.differences(before, convention))[:1000],
        )
    return convention


def adopt_starter(*, actor: User | None) -> Convention:
    """Begin with channel, intent, window, version. Raises Changed where there is a convention already."""
    return change(actor=actor, convention=starter(), seen="")


# --- Names of audiences.


def number_of(audience: Audience) -> int:
    """The version that its name says: the live one's, or the first that will be."""
    return audience.live_version.number if audience.live_version else FIRST


def tokens_of(convention: Convention | None, audience: Audience) -> dict[str, str]:
    """Token → value as it was chosen; or as the name says it where nobody has chosen."""
    if audience.name_tokens:
        return {str(token): str(value) for token, value in audience.name_tokens.items()}
    read = naming.parse(convention, audience.name) if convention else None
    version = convention.of_kind(naming.VERSION) if convention else None
    return {token: value for token, value in (read or {}).items() if version is None or token != version.name}


def built(convention: Convention, tokens: Mapping[str, str], version_number: int | None, *, channel: str = "") -> str:
    """The name that these values give, checked to the length of its platform. Raises NamingRefused."""
    token = convention.of_kind(naming.CHANNEL)
    kind = channel or convention.platform(str(tokens.get(token.name, ""))) if token else channel
    return naming.build(convention, tokens, channel=channel, version=version_number, length=room(convention, kind))


def name_of(audience: Audience, version_number: int | None = None, convention: Convention | None = None) -> str:
    """What it should be called when this version (the live one, where none is given) is live; its name where it has one of its own, or
    where the convention cannot say."""
    convention = convention or current()
    if convention is None or audience.name_reason:
        return audience.name
    try:
        return built(convention, tokens_of(convention, audience), version_number or number_of(audience))
    except NamingRefused:
        return audience.name


def name_on(convention: Convention | None, audience: Audience, kind: str) -> str:
    """What it is called on a platform of this kind: the same parts with that platform's channel. An audience whose name does not follow the
    convention, for a reason or not yet, is called there exactly as here. Raises NamingRefused where it does not fit there."""
    if convention is not None and not audience.name_reason:
        read = naming.parse(convention, audience.name)
        if read and _as_read(convention, read, number_of(audience)) == audience.name:
            return built(convention, read, _said(convention, read, number_of(audience)), channel=kind)
    if too_long := naming.length_problem(audience.name, room(convention, kind)):
        raise NamingRefused(Problem("", too_long))
    return audience.name


def rename_by_convention(
    *, actor: User | None, audience: Audience, tokens: Mapping[str, str] | None = None, reason: str = ""
) -> Audience:
    """Give it the name that the convention builds from `tokens` (those that it has, where none are given). Raises NamingRefused."""
    convention = current()
    if convention is None:
        raise NamingRefused(Problem("", "There is no naming convention."))
    chosen = plain(convention, tokens if tokens is not None else tokens_of(convention, audience))
    name = built(convention, chosen, number_of(audience))
    free(audience, name)
    fits_everywhere(convention, chosen, number_of(audience))
    return _named(actor, audience, name=name, name_tokens=chosen, name_reason="", reason=reason)


def name_freely(*, actor: User | None, audience: Audience, name: str, name_reason: str, reason: str = "") -> Audience:
    """A name of its own; where there is a convention, it needs a reason, which is shown beside it. Raises NamingRefused."""
    name, name_reason = name.strip(), name_reason.strip()
    if not 1 <= len(name) <= naming.LONGEST or "\0" in name:
        raise NamingRefused(Problem("name", f"must have 1 to {naming.LONGEST} characters"))
    if not name_reason and current() is not None:
        raise NamingRefused(Problem("name_reason", "Say why it departs from the convention, for whoever asks later."))
    return _named(actor, audience, name=name, name_tokens=audience.name_tokens, name_reason=name_reason, reason=reason)


def follow_version(*, actor: User | None, audience: Audience) -> None:
    """Called in the transaction that makes a version live, on the row held there: a name that follows the convention says the new version."""
    convention = current()
    if convention is None or audience.name_reason or convention.of_kind(naming.VERSION) is None:
        return
    read = naming.parse(convention, audience.name)
    name = _as_read(convention, read, number_of(audience)) if read else audience.name
    if name and name != audience.name:
        before, audience.name = audience.name, name
        audience.save(update_fields=["name"])
        trail.record(
            actor,
            "audience.renamed",
            "audience",
            audience.key,
            before=before,
            after=name,
            reason="a new version is live",
        )


def _as_read(convention: Convention, read: Mapping[str, str], version_number: int) -> str:
    """The same name with this version; empty where it became too long for its platform, which the conformance page says."""
    try:
        return built(convention, read, _said(convention, read, version_number))
    except NamingRefused:
        return ""


def _said(convention: Convention, read: Mapping[str, str], version_number: int) -> int | None:
    """The version, unless the name leaves it out, where it may."""
    token = convention.of_kind(naming.VERSION)
    return version_number if token and token.name in read else None


def _named(actor: User | None, audience: Audience, *, reason: str, **fields: Any) -> Audience:
    with transaction.atomic():
        held = Audience.objects.select_for_update(of=("self",)).select_related("live_version").get(pk=audience.pk)
        if held.archived_at:
            raise NamingRefused(Problem("", f"“{held.key}” is archived."))
        before = {name: getattr(held, name) for name in fields}
        if before == fields:
            return held
        for name, value in fields.items():
            setattr(held, name, value)
        held.save(update_fields=list(fields))
        said = reason or fields["name_reason"]
        trail.record(actor, "audience.renamed", "audience", held.key, before=before, after=fields, reason=said)
    return held


def plain(convention: Convention, tokens: Mapping[str, str]) -> dict[str, str]:
    """Only what the convention knows and the audience must remember; a channel by its platform."""
    kept = {}
    for token in convention.tokens:
        value = str(tokens.get(token.name, "") or "").strip()
        if value and token.kind != naming.VERSION:
            kept[token.name] = convention.platform(value) if token.kind == naming.CHANNEL else value
    return kept


def free(audience: Audience | None, name: str) -> None:
    """Raises NamingRefused where another audience has this name."""
    others = Audience.objects.filter(name=name, archived_at=None)
    if audience is not None:
        others = others.exclude(pk=audience.pk)
    if taken := others.values_list("key", flat=True).first():
        raise NamingRefused(Problem("", f"“{name}” is the name of {taken} already: choose other parts."))


def fits_everywhere(convention: Convention, tokens: Mapping[str, str], version_number: int) -> None:
    """Wherever it may be connected later, its name must fit. Raises NamingRefused."""
    wrong = [
        Problem("", too_long)
        for _, label, name, most in on_platforms(convention, tokens, version_number)
        if (too_long := naming.length_problem(name, most, label))
    ]
    if wrong:
        raise NamingRefused(*wrong)


def on_platforms(
    convention: Convention, tokens: Mapping[str, str], version_number: int
) -> list[tuple[str, str, str, int]]:
    """(kind, its label, the name there, how many characters fit) for every platform; nothing while the values do not make a name."""
    found = []
    for channel in channels.known():
        try:
            name = naming.build(
                convention, tokens, channel=channel.kind, version=version_number, length=10 * naming.LONGEST
            )
        except NamingRefused:
            return []
        found.append((channel.kind, channel.label, name, room(convention, channel.kind)))
    return found
