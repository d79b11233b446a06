"""The workspace's naming convention: what it is, changed and kept; and audiences named by it. What a name may be is audiences/naming.py's."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from audiences import channels, naming, rule_names, vocabulary
from audiences.models import Audience, NamingConvention, SegmentVersion, User
from audiences.naming import Convention, NamingRefused, Problem
from audiences.segments import gist
from audiences.segments.gist import Gist
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


def gist_of(audience: Audience) -> Gist | None:
    """What its live rule is about, or its newest draft's; None where it has none yet, or one that is not finished. No query where a
    version is live and at hand."""
    version = audience.live_version
    if version is None and audience.pk is not None:
        version = audience.versions.filter(outline__isnull=True).order_by("-number").first()
    return gist_of_text(version.segment) if version else None


@functools.lru_cache(maxsize=2000)
def gist_of_text(text: str) -> Gist:
    """Of a rule as it is kept: each is read once a process."""
    return gist.of(vocabulary.rule(text))


def contradictions(convention: Convention, audience: Audience, tokens: Mapping[str, str]) -> list[Problem]:
    """The parts that say another than the live rule does, and that nobody has said why. No query, if its live version is at hand."""
    if audience.live_version is None:
        return []
    found = rule_names.against(convention, tokens, gist_of_text(audience.live_version.segment))
    return [problem for problem in found if not overridden(audience, problem.path, tokens)]


def overridden(audience: Audience, token: str, tokens: Mapping[str, str]) -> bool:
    """Whether somebody has said why this value stays, whatever the rule says."""
    said = audience.name_overrides.get(token)
    return bool(said) and said.get("value") == tokens.get(token)


def proposed(convention: Convention, audience: Audience, about: Gist | None) -> dict[str, str]:
    """The parts that its name should have: as chosen, or as its name and key seem to mean; with what the rule says where that is missing
    or contradicts it without a reason."""
    tokens = tokens_of(convention, audience)
    tokens = tokens or naming.guess(convention, audience.name, audience.key)
    if about is None:
        return tokens
    kept = {token: True for token in tokens if overridden(audience, token, tokens)}
    return rule_names.agreed(convention, tokens, about, kept)


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
    *,
    actor: User | None,
    audience: Audience,
    tokens: Mapping[str, str] | None = None,
    reason: str = "",
    departs: Mapping[str, str] | None = None,
    about: Gist | None = None,
    number: int | None = None,
) -> Audience:
    """Give it the name that the convention builds from `tokens` (those that it has, where none are given). Raises NamingRefused.

    A part that contradicts the rule (`about`, its live one where none is given) needs a reason: `departs`, token → why, which stays on
    record beside the name. `number`: the version that the name says, where the one that will be the first live one is known.
    """
    convention = current()
    if convention is None:
        raise NamingRefused(Problem("", "There is no naming convention."))
    chosen = plain(convention, tokens if tokens is not None else tokens_of(convention, audience))
    number = number or number_of(audience)
    name = built(convention, chosen, number)
    free(audience, name)
    fits_everywhere(convention, chosen, number)
    overrides = _overrides(convention, audience, chosen, about or gist_of(audience), departs or {})
    named = {"name": name, "name_tokens": chosen, "name_reason": "", "name_overrides": overrides}
    return _named(actor, audience, reason=reason, **named)


def _overrides(
    convention: Convention,
    audience: Audience,
    chosen: Mapping[str, str],
    about: Gist | None,
    departs: Mapping[str, str],
) -> dict[str, dict[str, str]]:
    """What is to stay though the rule says another, each with its reason. Raises NamingRefused where there is none."""
    kept: dict[str, dict[str, str]] = {}
    wrong = []
    for problem in rule_names.against(convention, chosen, about) if about else ():
        token, why = problem.path, departs.get(problem.path, "").strip()
        if why:
            kept[token] = {"value": chosen[token], "reason": why[:500]}
        elif overridden(audience, token, chosen):
            kept[token] = audience.name_overrides[token]
        else:
            wrong.append(Problem(token, f"{problem.words} Choose what the rule says, or say why it differs."))
    if wrong:
        raise NamingRefused(*wrong)
    return kept


def name_freely(*, actor: User | None, audience: Audience, name: str, name_reason: str, reason: str = "") -> Audience:
    """A name of its own; where there is a convention, it needs a reason, which is shown beside it. Raises NamingRefused."""
    name, name_reason = name.strip(), name_reason.strip()
    if not 1 <= len(name) <= naming.LONGEST or "\0" in name:
        raise NamingRefused(Problem("name", f"must have 1 to {naming.LONGEST} characters"))
    if not name_reason and current() is not None:
        raise NamingRefused(Problem("name_reason", "Say why it departs from the convention, for whoever asks later."))
    named = {"name": name, "name_tokens": audience.name_tokens, "name_reason": name_reason, "name_overrides": {}}
    return _named(actor, audience, reason=reason, **named)


@dataclass(frozen=True, slots=True)
class After:
    """What an audience is called once a version is live. `words`: which parts follow from its rule, and which cannot."""

    before: str
    name: str
    changed: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()

    @property
    def renames(self) -> bool:
        return self.name != self.before


def name_after(audience: Audience, version: SegmentVersion) -> After:
    """What it will be called when this version, a draft, is live."""
    return _after(audience, audience.live_version, version)


def follow_version(*, actor: User | None, audience: Audience, before: SegmentVersion | None = None) -> None:
    """Called in the transaction that makes a version live, on the row held there, in place of `before`: a name that follows the convention
    says the new version, and what its rule says now."""
    assert audience.live_version is not None
    found = _after(audience, before, audience.live_version)
    about = gist_of_text(audience.live_version.segment)
    convention = current()
    overrides = {
        token: said
        for token, said in audience.name_overrides.items()
        if convention and rule_names.against(convention, {token: said.get("value", "")}, about)
    }
    if not found.renames and overrides == audience.name_overrides:
        return
    was, audience.name, audience.name_overrides = audience.name, found.name, overrides
    if audience.name_tokens:
        audience.name_tokens = {**audience.name_tokens, **found.changed}
    audience.save(update_fields=["name", "name_tokens", "name_overrides"])
    if found.renames:
        reason = " ".join(["A new version is live.", *found.words])
        trail.record(actor, "audience.renamed", "audience", audience.key, before=was, after=found.name, reason=reason)


def _after(audience: Audience, before: SegmentVersion | None, version: SegmentVersion) -> After:
    convention = current()
    same = After(audience.name, audience.name)
    read = naming.parse(convention, audience.name) if convention and not audience.name_reason else None
    if convention is None or read is None:
        return same
    words: list[str] = []
    changed: dict[str, str] = {}
    if before is not None:
        kept = {token: True for token in read if overridden(audience, token, read)}
        parts = rule_names.following(
            convention, read, gist_of_text(before.segment), gist_of_text(version.segment), kept
        )
        for part in parts:
            changed |= {part.token: part.after} if part.after else {}
            if part.after:
                words.append(f"{part.rule}: {part.before} becomes {part.after} in it.")
            else:
                words.append(f"{part.rule}, and the name goes on saying {part.before}: somebody has to choose another.")
    name = _as_read(convention, {**read, **changed}, version.number)
    if changed and (not name or _holder(audience, name)):
        words.append(
            f"“{name}” is another audience’s name already: it stays as it was." if name else "It would be too long."
        )
        changed, name = {}, _as_read(convention, read, version.number)
    return After(audience.name, name or audience.name, changed, tuple(words))


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
        said = reason or fields["name_reason"] or "; ".join(one["reason"] for one in fields["name_overrides"].values())
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
    if taken := _holder(audience, name):
        raise NamingRefused(Problem("", f"“{name}” is the name of {taken} already: choose other parts."))


def _holder(audience: Audience | None, name: str) -> str:
    """The key of another audience that has this name; empty: nobody."""
    others = Audience.objects.filter(name=name, archived_at=None)
    if audience is not None:
        others = others.exclude(pk=audience.pk)
    return others.values_list("key", flat=True).first() or ""


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
