"""A naming convention and the parts of a name as a file has them: read and written. What they would change is names.py's."""

from collections.abc import Callable
from typing import Any

from audiences import naming
from audiences.models import Audience
from audiences.naming import Convention, NamingRefused
from audiences.services import naming as service

WRONG = Callable[[str, str], None]


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
                reasons = {token: said["reason"] for token, said in row.name_overrides.items()}
                return {"tokens": dict(row.name_tokens), "token_reasons": reasons or None}
        except NamingRefused:
            pass
    return {"name": row.name, "name_reason": row.name_reason or None}
