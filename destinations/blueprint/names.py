"""A file's naming convention and the parts of audiences' names: checked, and what they would change. Their text is naming.py's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from audiences import channels, naming, rule_names
from audiences.models import Audience
from audiences.naming import NamingRefused
from audiences.segments import gist
from audiences.segments.gist import Gist
from audiences.services import naming as service

if TYPE_CHECKING:
    from destinations.blueprint.entries import AudienceEntry
    from destinations.blueprint.planning import Planner


@dataclass(frozen=True, slots=True)
class Named:
    """What a file says about one audience's name: its name once applied, (field, before, after) of what differs, the step that does it."""

    name: str
    differs: tuple[tuple[str, str, str], ...] = ()
    step: Callable[[], object] | None = field(default=None, repr=False)


def convention(planner: Planner) -> None:
    """Compare the file's convention with the one that is kept; audiences are named by the one that will hold."""
    kept = service.current()
    planner.convention = kept
    if planner.file.naming is None:
        return
    wanted = service.of_data(planner.file.naming)
    faults = naming.faults(wanted, channels.room())
    for fault in faults:
        planner.wrong(f"naming.{_place(fault.path)}", fault.words)
    if faults:
        return
    planner.convention = wanted
    differs = kept is None or naming.to_json(kept) != naming.to_json(wanted)
    planner.note_change(
        "naming",
        "convention",
        [("pattern" if kept is None else "change", "", words) for words in naming.differences(kept, wanted)]
        if differs
        else [],
        new=kept is None,
    )
    if differs:
        planner.plan.steps.append(partial(service.change, actor=None, convention=wanted, reason=planner.reason))


def _place(path: str) -> str:
    """tokens.1.values.0 → tokens[1].values[0], as everywhere in files."""
    first, *rest = path.split(".")
    return first + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in rest)


def of_audience(planner: Planner, entry: AudienceEntry, row: Audience | None) -> Named | None:
    """What the file says of this audience's name by parts or as an exception; None where it says nothing, or a plain name."""
    if entry.name_reason is not None:
        return _excepted(planner, entry, row)
    if entry.tokens is None:
        return None
    where = f"{entry.path}.tokens"
    rules = planner.convention
    if rules is None:
        planner.wrong(where, "needs a naming convention: give one under naming")
        return None
    if entry.name is not None:
        planner.wrong(
            f"{entry.path}.name",
            "stands beside tokens, which make the name; or give a name_reason for a name of its own",
        )
        return None
    known = [token.name for token in rules.tokens if token.kind != naming.VERSION]
    if unknown := [name for name in entry.tokens if name not in known]:
        planner.wrong(f"{where}.{unknown[0][:80]}", f"is no part of a name to choose; there are {', '.join(known)}")
        return None
    tokens = service.plain(rules, entry.tokens)
    number = service.number_of(row) if row and row.live_version else entry.first_version or service.FIRST
    try:
        name = service.built(rules, tokens, number)
        service.fits_everywhere(rules, tokens, number)
    except NamingRefused as refused:
        for problem in refused.problems:
            planner.wrong(f"{where}.{problem.path}" if problem.path else where, problem.words)
        return None
    if taken := _holder(planner, entry, name):
        planner.wrong(where, f"give “{name}”, the name of {taken} already")
        return None
    planner.names[name] = entry.key
    differs = []
    if row is None or row.name_tokens != tokens:
        differs.append(("tokens", _said(row.name_tokens) if row else "", _said(tokens)))
    if row is not None and row.name_reason:
        differs.append(("name_reason", row.name_reason, ""))
    about = gist.of(entry.segment) if entry.segment is not None else service.gist_of(row) if row else None
    departs = _departures(planner, entry, row, rules, tokens, about)
    had = {token: str(said.get("reason", "")) for token, said in row.name_overrides.items()} if row else {}
    if had != departs:
        differs.append(("token_reasons", _said(had), _said(departs)))
    return Named(name, tuple(differs), partial(_build, entry.key, tokens, planner.reason, departs, about, number))


def _departures(
    planner: Planner,
    entry: AudienceEntry,
    row: Audience | None,
    rules: naming.Convention,
    tokens: Mapping[str, str],
    about: Gist | None,
) -> dict[str, str]:
    """Part → why it says another than the rule. A file means what it says: where it gives no reason, that it is in the file is one."""
    found = {}
    for problem in rule_names.against(rules, tokens, about) if about else ():
        why = (entry.token_reasons or {}).get(problem.path, "").strip()
        if not why and row is not None and service.overridden(row, problem.path, tokens):
            why = str(row.name_overrides[problem.path]["reason"])
        if not why:
            planner.plan.notes.append(f'"{entry.key}": {problem.words} It is kept so, as the file has it.')
        found[problem.path] = why or planner.reason
    return found


def _excepted(planner: Planner, entry: AudienceEntry, row: Audience | None) -> Named | None:
    name = entry.name or (row.name if row else "")
    reason = (entry.name_reason or "").strip()
    if not name or not reason:
        planner.wrong(f"{entry.path}.name_reason", "explains a name of its own: give both")
        return None
    differs = [] if row and row.name_reason == reason else [("name_reason", row.name_reason if row else "", reason)]
    return Named(name, tuple(differs), partial(_free, entry.key, name, reason, planner.reason))


def _holder(planner: Planner, entry: AudienceEntry, name: str) -> str:
    """Whose name it is already, here or in the file; empty: nobody's who keeps it."""
    if name in planner.names:
        return planner.names[name]
    named = {one.key for one in planner.file.audiences if one.tokens is not None or one.name is not None}
    rows = (row for row in planner.audience_rows.values() if row.archived_at is None)
    return next((row.key for row in rows if row.name == name and row.key != entry.key and row.key not in named), "")


def _build(
    key: str, tokens: Mapping[str, str], reason: str, departs: Mapping[str, str], about: Gist | None, number: int
) -> None:
    audience = Audience.objects.select_related("live_version").get(key=key)
    service.rename_by_convention(
        actor=None, audience=audience, tokens=tokens, reason=reason, departs=departs, about=about, number=number
    )


def _free(key: str, name: str, name_reason: str, reason: str) -> None:
    service.name_freely(
        actor=None, audience=Audience.objects.get(key=key), name=name, name_reason=name_reason, reason=reason
    )


def _said(tokens: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in tokens.items())
