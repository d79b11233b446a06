"""Identities in bulk: whose are in force, what a call's rows hold, and which identifiers someone else carries too. Reads only."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from audiences.bitmaps import from_sorted, to_array
from audiences.people import bulk

# A kind of these names a person by itself. The others say something only together with a first and a last name.
NAMING = ("email", "phone", "external_id", "mobile_ad_id")
ADDRESS = ("first_name", "last_name", "zip", "country")
KINDS = (*NAMING, *ADDRESS)
_FEW = 50_000


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a call carries: `people` as a connector takes them. `empty`: of these nothing is left to send; `shared`: for what reason."""

    people: pa.Table = field(repr=False)
    empty: BitMap
    vetoed: BitMap


@dataclass(frozen=True, slots=True)
class Rows:
    """Identities with the identifiers of some kinds, "" where there is none."""

    numbers: list[int]
    profiles: dict[int, int]
    values: dict[str, list[str]] = field(repr=False)

    def carrying(self, kind: str) -> dict[str, list[int]]:
        """Value → the positions of the rows that carry it."""
        found: dict[str, list[int]] = {}
        for position, value in enumerate(self.values[kind]):
            if value:
                found.setdefault(value, []).append(position)
        return found


def in_force(people: BitMap, kinds: Sequence[str]) -> tuple[BitMap, BitMap]:
    """(identity_no, profile_no) of these profiles' current identities that have something to send in one of `kinds`."""
    sendable = " OR ".join(f"{kind} <> ''" for kind in kinds if kind in NAMING)
    if not people or not sendable:
        return BitMap(), BitMap()
    sql = (
        "SELECT identity_no, profile_no FROM audiences_identity "  # noqa: S608 - no values in it
        f"WHERE replaced_at IS NULL AND erased_at IS NULL AND ({sendable})"
    )
    if len(people) <= _FEW:
        chosen, values = bulk.among("profile_no", to_array(people).tolist())
        found = np.array(bulk.fetch(f"{sql} AND {chosen}", values), dtype=np.int64).reshape(-1, 2)
    else:
        found = np.array(bulk.fetch(sql), dtype=np.int64).reshape(-1, 2)
        wanted = np.zeros(max(int(people.max()), int(found[:, 1].max(initial=0))) + 1, dtype=bool)
        wanted[to_array(people)] = True
        found = found[wanted[found[:, 1]]]
    return from_sorted(np.sort(found[:, 0])), from_sorted(np.unique(found[:, 1]))


def current_of(people: Collection[int]) -> dict[int, int]:
    """profile_no → the identity_no in force, of these profiles."""
    chosen, values = bulk.among("profile_no", people)
    sql = f"SELECT profile_no, identity_no FROM audiences_identity WHERE replaced_at IS NULL AND {chosen}"  # noqa: S608
    return dict(bulk.fetch(sql, values)) if people else {}


def of_profiles(people: Collection[int]) -> list[tuple[int, int]]:
    """(identity_no, profile_no) of every identity that these profiles have or had."""
    chosen, values = bulk.among("profile_no", people)
    sql = f"SELECT identity_no, profile_no FROM audiences_identity WHERE {chosen}"  # noqa: S608
    return [(int(a), int(b)) for a, b in bulk.fetch(sql, values)] if people else []


def profiles_of(ids: BitMap) -> dict[int, int]:
    """identity_no → profile_no."""
    found: dict[int, int] = {}
    numbers = to_array(ids).tolist()
    for start in range(0, len(numbers), _FEW):
        chosen, values = bulk.among("identity_no", numbers[start : start + _FEW])
        found.update(
            bulk.fetch(f"SELECT identity_no, profile_no FROM audiences_identity WHERE {chosen}", values)  # noqa: S608
        )
    return found


def rows(ids: BitMap, kinds: Sequence[str]) -> Rows:
    """These identities with what they carry. Names and places without a first and a last name are nothing."""
    chosen, parameters = bulk.among("identity_no", to_array(ids).tolist())
    columns = ", ".join(("identity_no", "profile_no", *kinds))
    found = bulk.fetch(f"SELECT {columns} FROM audiences_identity WHERE {chosen} ORDER BY identity_no", parameters)  # noqa: S608
    numbers, profiles, *values = [list(column) for column in zip(*found, strict=True)] or [
        [] for _ in range(len(kinds) + 2)
    ]
    by_kind = dict(zip(kinds, values, strict=True))
    weak = [kind for kind in kinds if kind in ADDRESS]
    whole = "first_name" in by_kind and "last_name" in by_kind
    for position in range(len(numbers) if weak else 0):
        if not (whole and by_kind["first_name"][position] and by_kind["last_name"][position]):
            for kind in weak:
                by_kind[kind][position] = ""
    return Rows(numbers, dict(zip(numbers, profiles, strict=True)), by_kind)


def removal(found: Rows, there: BitMap | None, sent: Collection[str] = ()) -> Parcel:
    """A removal's rows: without what someone in `there`, who is wanted and on the platform, carries too. None: nobody is spared.

    `sent`: the kinds that the connection sends now; what it only takes back is spared for nobody.
    """
    if there:
        for kind, (positions, others) in _others(found).items():
            if ("last_name" if kind == "address" else kind) not in sent:
                continue
            spared = [p for p, carriers in zip(positions, others, strict=True) if any(c in there for c, _ in carriers)]
            _blank(found, kind, spared)
    return _parcel(found, BitMap())


def sharers(ids: BitMap, kinds: Sequence[str]) -> BitMap:
    """The other identities that carry something which these carry in `kinds`."""
    by_kind = _others(rows(ids, kinds)).values()
    return BitMap(number for _, others in by_kind for carriers in others for number, _ in carriers) - ids


def addition(found: Rows, vetoed: BitMap, intent: BitMap) -> Parcel:
    """An add's rows: without what someone carried who left by erasure, consent or purchase and has not come back since."""
    stopped = BitMap()
    if vetoed:
        for kind, (positions, others) in _others(found).items():
            vetoers = {profile for carriers in others for number, profile in carriers if number in vetoed}
            back = {profile for profile, number in current_of(vetoers).items() if number in intent}
            for position, carriers in zip(positions, others, strict=True):
                own = found.profiles[found.numbers[position]]
                if any(n in vetoed and p != own and p not in back for n, p in carriers):
                    _blank(found, kind, [position])
                    stopped.add(found.numbers[position])
    return _parcel(found, stopped)


def forerunners(found: Rows, kinds: Sequence[str]) -> list[tuple[int, int]]:
    """(old, new) identity numbers of those rows whose profile now has another identity that carries the same in `kinds`."""
    now = current_of(set(found.profiles.values()))
    pairs = [(old, now[profile]) for old, profile in found.profiles.items() if now.get(profile, old) != old]
    if not pairs:
        return []
    successors = rows(BitMap(new for _, new in pairs), kinds)
    old_at = {number: position for position, number in enumerate(found.numbers)}
    new_at = {number: position for position, number in enumerate(successors.numbers)}
    return [
        (old, new)
        for old, new in pairs
        if all(found.values[kind][old_at[old]] == successors.values[kind][new_at[new]] for kind in kinds)
    ]


def coverage(people: BitMap) -> dict[str, int]:
    """How many of these profiles have each kind of identifier, and under "people" how many there are with an identity at all."""
    sums = ", ".join(f"sum(CASE WHEN {kind} <> '' THEN 1 ELSE 0 END)" for kind in KINDS)
    totals = dict.fromkeys(("people", *KINDS), 0)
    numbers = to_array(people).tolist()
    for start in range(0, len(numbers), _FEW):
        chosen, values = bulk.among("profile_no", numbers[start : start + _FEW])
        sql = f"SELECT count(*), {sums} FROM audiences_identity WHERE replaced_at IS NULL AND {chosen}"  # noqa: S608
        for kind, count in zip(totals, bulk.fetch(sql, values)[0], strict=True):
            totals[kind] += int(count or 0)
    return totals


_Others = dict[str, tuple[list[int], list[list[tuple[int, int]]]]]


def _others(found: Rows) -> _Others:
    """For each kind the rows' positions with the other identities (identity_no, profile_no) that carry the same value."""
    result: _Others = {}
    for kind in found.values:
        if kind in NAMING:
            result[kind] = _same_value(found, kind)
    if "first_name" in found.values and "last_name" in found.values:
        result["address"] = _same_address(found)
    return result


def _same_value(found: Rows, kind: str) -> tuple[list[int], list[list[tuple[int, int]]]]:
    at = found.carrying(kind)
    if not at:
        return [], []
    chosen, parameters = bulk.among(kind, list(at))
    # In the very words of the index's condition: SQLite recognises no others.
    sql = f"SELECT {kind}, identity_no, profile_no FROM audiences_identity WHERE NOT ({kind} = '') AND {chosen}"  # noqa: S608
    carriers: dict[str, list[tuple[int, int]]] = {}
    for value, number, profile in bulk.fetch(sql, parameters):
        carriers.setdefault(value, []).append((number, profile))
    return _without_itself(
        found,
        {
            position: carriers[value]
            for value, places in at.items()
            for position in places
            if len(carriers.get(value, ())) > 1
        },
    )


def _same_address(found: Rows) -> tuple[list[int], list[list[tuple[int, int]]]]:
    whole = [p for p, name in enumerate(found.values["last_name"]) if name]
    if not whole:
        return [], []
    kinds = [kind for kind in ADDRESS if kind in found.values]
    same = " AND ".join(f"o.{kind} = r.{kind}" for kind in kinds)
    chosen, parameters = bulk.among("r.identity_no", [found.numbers[p] for p in whole])
    sql = (
        "SELECT r.identity_no, o.identity_no, o.profile_no FROM audiences_identity r JOIN audiences_identity o "  # noqa: S608
        f"ON {same} AND NOT (o.last_name = '') AND NOT (o.first_name = '') WHERE o.identity_no <> r.identity_no AND {chosen}"
    )
    at = {found.numbers[p]: p for p in whole}
    carriers: dict[int, list[tuple[int, int]]] = {}
    for number, other, profile in bulk.fetch(sql, parameters):
        carriers.setdefault(at[number], []).append((other, profile))
    return list(carriers), list(carriers.values())


def _without_itself(
    found: Rows, carriers: Mapping[int, list[tuple[int, int]]]
) -> tuple[list[int], list[list[tuple[int, int]]]]:
    others = {p: [c for c in every if c[0] != found.numbers[p]] for p, every in carriers.items()}
    return list(others), list(others.values())


def _blank(found: Rows, kind: str, positions: Sequence[int]) -> None:
    for name in ADDRESS if kind == "address" else (kind,):
        if name in found.values:
            for position in positions:
                found.values[name][position] = ""


def _parcel(found: Rows, stopped: BitMap) -> Parcel:
    empty = BitMap(n for p, n in enumerate(found.numbers) if not any(values[p] for values in found.values.values()))
    kept = [p for p, n in enumerate(found.numbers) if n not in empty]
    columns: dict[str, Any] = {"identity_no": pa.array([found.numbers[p] for p in kept], pa.int64())}
    for kind, values in found.values.items():
        columns[kind] = pa.array([values[p] or None for p in kept], pa.string())
    return Parcel(pa.table(columns), empty, stopped & empty)
