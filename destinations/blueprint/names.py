"""A file's naming convention and the parts of audiences' names: read, checked, and what they would change. Exporting them is here too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from audiences import channels, naming
from audiences.models import Audience
from audiences.naming import Convention, NamingRefused
from audiences.services import naming as service

if TYPE_CHECKING:
    from destinations.blueprint.entries import AudienceEntry
    from destinations.blueprint.planning import Planner

WRONG = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Named:
    """What a file says about one audience's name: its name once applied, (field, before, after) of what differs, the step that does it."""

    name: str
    differs: tuple[tuple[str, str, str], ...] = ()
    step: Callable[[], object] | None = field(default=None, repr=False)


# --- Reading: plain data in, plain data in the form that is kept out.


def read_convention(data: Any, wrong: WRONG) -> dict[str, Any] | None:
    """{"separator", "tokens", "lengths"}. Values may be a list of texts, a list of {value, means, platform}, or {value: means}."""
    if data is None:
        return None
    if not isinstance(data, dict):
        wrong("naming", "must be fields with values (separator, tokens, lengths)")
        return None
    for name in data:
        if name not in ("separator", "tokens", "lengths"):
            wrong(f"naming.{str(name)[:80]}", "is not known here; there are separator, tokens, lengths")
    tokens = data.get("tokens")
    if not isinstance(tokens, list):
        wrong("naming.tokens", "must be a list, each part with a - before it")
        tokens = []
    lengths = data.get("lengths") or {}
    if not isinstance(lengths, dict):
        wrong("naming.lengths", "must be platforms with numbers, such as {meta: 60}")
        lengths = {}
    return {
        "separator": str(data.get("separator", "_")),
        "tokens": [_token(row, f"naming.tokens[{number}]", wrong) for number, row in enumerate(tokens)],
        "lengths": {str(kind): length for kind, length in lengths.items()},
    }


def _token(row: Any, path: str, wrong: WRONG) -> dict[str, Any]:
    if isinstance(row, str):
        row = {"name": row}
    if not isinstance(row, dict):
        wrong(path, "must be fields with values (name, kind, values, optional)")
        return {}
    for name in row:
        if name not in ("name", "kind", "values", "optional"):
            wrong(f"{path}.{str(name)[:80]}", "is not known here; there are name, kind, values, optional")
    name = str(row.get("name") or "")
    kind = str(row.get("kind") or (name if name in naming.KINDS else naming.CHOICE))
    return {
        "name": name,
        "kind": kind,
        "optional": row.get("optional") is True,
        "values": _values(row.get("values"), f"{path}.values", wrong),
    }


def _values(data: Any, path: str, wrong: WRONG) -> list[dict[str, str]]:
    if data is None:
        return []
    if isinstance(data, dict):
        return [{"value": str(value), "means": str(means or "")} for value, means in data.items()]
    if not isinstance(data, list):
        wrong(path, "must be a list of values, or values with what they mean")
        return []
    found = []
    for number, one in enumerate(data):
        given = one if isinstance(one, dict) else {"value": str(one)}
        if set(given) - {"value", "means", "platform"} or "value" not in given:
            wrong(f"{path}[{number}]", "must be a value, or {value, means}")
            continue
        found.append({name: str(text) for name, text in given.items()})
    return found


def read_tokens(data: Any, path: str, wrong: WRONG) -> dict[str, str] | None:
    """Part → value, of one audience."""
    if data is None:
        return None
    if not isinstance(data, dict) or any(isinstance(value, dict | list | bool) for value in data.values()):
        wrong(path, "must be parts with values, such as {channel: meta, intent: cart}")
        return None
    return {str(name): str(value) for name, value in data.items() if value is not None}


# --- Planning.


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
    number = service.number_of(row) if row else service.FIRST
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
    return Named(name, tuple(differs), partial(_build, entry.key, tokens, planner.reason))


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


def _build(key: str, tokens: Mapping[str, str], reason: str) -> None:
    audience = Audience.objects.select_related("live_version").get(key=key)
    service.rename_by_convention(actor=None, audience=audience, tokens=tokens, reason=reason)


def _free(key: str, name: str, name_reason: str, reason: str) -> None:
    service.name_freely(
        actor=None, audience=Audience.objects.get(key=key), name=name, name_reason=name_reason, reason=reason
    )


def _said(tokens: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in tokens.items())


# --- Exporting.


def written(rules: Convention | None) -> dict[str, Any]:
    """The convention as `read_convention` reads it, without what is so anyway."""
    if rules is None:
        return {}
    tokens = []
    for token in rules.tokens:
        row: dict[str, Any] = {"name": token.name}
        if token.kind != (token.name if token.name in naming.KINDS else naming.CHOICE):
            row["kind"] = token.kind
        if token.optional:
            row["optional"] = True
        if token.kind == naming.CHANNEL:
            renamed = [{"value": v.value, "platform": v.platform} for v in token.values if v.value != v.platform]
            if renamed:
                row["values"] = renamed
        elif token.values:
            row["values"] = {value.value: value.means for value in token.values}
        tokens.append(row)
    made: dict[str, Any] = {"separator": rules.separator, "tokens": tokens}
    return {**made, "lengths": dict(rules.lengths)} if rules.lengths else made


def written_name(rules: Convention | None, row: Audience) -> dict[str, Any]:
    """`tokens` where they make the name; else the name, with its reason where it has one."""
    if rules is not None and row.name_tokens and not row.name_reason:
        try:
            if service.built(rules, row.name_tokens, service.number_of(row)) == row.name:
                return {"tokens": dict(row.name_tokens)}
        except NamingRefused:
            pass
    return {"name": row.name, "name_reason": row.name_reason or None}
