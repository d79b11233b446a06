"""Taking people in by the thousand: finding them, making them, and writing down what changed. Merging and removing are elsewhere.

On PostgreSQL every writer takes its locks in one order: the counter of profiles, profiles by number, the counter of
identities, lists, memberships. On SQLite the transaction holds the only lock.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from django.db import connection
from django.utils import timezone

from audiences.clock import now_us
from audiences.models import ChangeLog, Identity, Profile, ProfileChange, ProfileKey
from audiences.people import bulk, catalog, consents, keys
from audiences.people.normalise import FIELDS, Problem, Said
from audiences.people.payloads import ProfileRow

PERSON, ANONYMOUS = Profile.Kind.PERSON.value, Profile.Kind.ANONYMOUS.value
LIVE = Profile.State.LIVE.value
ATTRIBUTES_AT_MOST = 300

_IDENTITY = ("external_id", *FIELDS)
_NOBODY = ("",) * len(_IDENTITY)
_SHARED = ("email", "phone")  # identifiers that are keys as well


@dataclass(slots=True)
class Outcome:
    """What became of one row. `profile_no` is None when nothing was kept, and `ignored` or `refused` says why."""

    profile_no: int | None = None
    made: bool = False
    ignored: str = ""  # suppressed, erased, unknown
    buried: tuple[keys.Key, ...] = ()  # suppressed or erased: the keys that must not come back
    refused: Problem | None = None
    problems: list[Problem] = field(default_factory=list)  # taken in, but not all of it as given


@dataclass(slots=True)
class _Person:
    """One profile while a batch of rows is folded into it."""

    profile_no: int
    kind: str
    created_us: int
    attributes: dict[str, Any]
    identity: tuple[str, ...] = _NOBODY
    identity_no: int | None = None
    bucket_key: str = ""
    new: bool = False
    changed: bool = False
    consents: dict[str, Said] = field(default_factory=dict)  # by purpose
    as_stored: tuple[str, ...] = _NOBODY


def upsert(
    rows: Sequence[ProfileRow], *, source: str, same_email_is_same_person: bool = False, read_consent: bool = True
) -> list[Outcome]:
    """Take in rows in their order, in the caller's transaction (at most 10,000 of them); one outcome a row.

    An id always wins. `same_email_is_same_person`: an id that is new, with an e-mail that is not, is the same person
    (the Track API); otherwise people found by id are never joined by e-mail (files). `read_consent`: from the attributes
    that the workspace names.
    """
    if not rows:
        return []
    return _Batch(rows, source, same_email_is_same_person, read_consent).run()


def profile_numbers(external_ids: Iterable[str], *, at_us: int) -> dict[str, int | str]:
    """The profile of each external id, in the caller's transaction; unknown ones are made. Of those who must not come back, why."""
    rows = [ProfileRow("id", value, at_us) for value in dict.fromkeys(external_ids)]
    outcomes = upsert(rows, source="import")
    return {
        row.value: outcome.ignored if outcome.profile_no is None else outcome.profile_no
        for row, outcome in zip(rows, outcomes, strict=True)
    }


def cio_id(profile_no: int) -> str:
    """How the Track API names a profile when neither id nor e-mail will do."""
    return f"{profile_no:08x}"


def number_of_cio_id(text: str) -> int | None:
    """The profile_no in a cio_id; None if it is none."""
    try:
        number = int(text.removeprefix("cio_"), 16)
    except ValueError:
        return None
    return number if 0 < number < 2**32 else None


class _Batch:
    """The rows of one upsert, the people they are about, and what is to be written."""

    def __init__(self, rows: Sequence[ProfileRow], source: str, same_email: bool, read_consent: bool) -> None:
        self.rows, self.source, self.same_email = rows, source, same_email
        self.now_us = now_us()
        self.by_key: dict[keys.Key, int] = {}
        self.people: dict[int, _Person] = {}
        self.dead: dict[keys.Key, str] = {}
        self.new_keys: dict[tuple[str, str, int], None] = {}
        self.old_keys: dict[tuple[str, str, int], None] = {}
        self.consents: dict[tuple[int, str], Said] = {}
        says = read_consent and any(row.attributes for row in rows)
        self.consent_rules = consents.rules() if says else ()
        self.implied: list[dict[str, str]] = []  # attributes that the key itself says
        self.first_no = self.next_no = 0  # numbers to give away; 0 until the counter is ours

    def run(self) -> list[Outcome]:
        self._look_up()
        outcomes = [self._fold(row) for row in self.rows]
        self._write()
        kept = [row.attributes for row, outcome in zip(self.rows, outcomes, strict=True) if outcome.profile_no]
        catalog.learn_attributes([*self.implied, *kept], self.now_us)
        return outcomes

    # --- Finding

    def _look_up(self) -> None:
        wanted = {key for row in self.rows for key in self._keys_of(row)}
        for _ in range(3):  # who was removed or merged between our look and our lock is looked for anew
            self.by_key = keys.find(wanted)
            if any(row.create and not any(key in self.by_key for key in self._keys_of(row)) for row in self.rows):
                self._hold_counter()
                if connection.vendor == "postgresql":
                    self.by_key = keys.find(wanted)
            if self._load_people():
                break
        self._load_consents(self._who_says())
        said = {key for row in self.rows for key in self._identifiers_said(row)}
        if said:
            self.dead = keys.tombstoned(said)

    def _hold_counter(self) -> None:
        """Whoever makes people waits here for whoever made them just now."""
        if not self.next_no:
            self.first_no = self.next_no = bulk.take_numbers("profile_no", 0)

    def _keys_of(self, row: ProfileRow) -> list[keys.Key]:
        """The keys that decide who a row is about."""
        if row.kind == "cio_id":
            return []
        found_by: list[keys.Key] = [(row.kind, row.value)]
        if row.external_id:
            found_by.append(("id", row.external_id))
        if row.kind == "id" and self.same_email and row.identifiers.given.get("email"):
            found_by.append(("email", row.identifiers.given["email"]))
        if row.kind == "email":
            found_by.append(("id", row.value))  # shops whose customer ids are e-mail addresses
        return found_by

    def _identifiers_said(self, row: ProfileRow) -> list[keys.Key]:
        """The identifiers that must not be those of someone who was suppressed or erased."""
        said = [(kind, row.identifiers.given[kind]) for kind in _SHARED if row.identifiers.given.get(kind)]
        if row.external_id:
            said.append(("id", row.external_id))
        if row.kind != "cio_id" and (row.kind, row.value) not in self.by_key:
            said.append((row.kind, row.value))
        return said

    def _load_people(self) -> bool:
        """The people that rows say something about, locked by number; whether all were still there."""
        numbers: set[int] = set()
        for row in self.rows:
            if not row.only_found:
                numbers.update(self.by_key[key] for key in self._keys_of(row) if key in self.by_key)
            if row.kind == "cio_id" and (number := number_of_cio_id(row.value)):
                numbers.add(number)
        if numbers:
            self._load(numbers)
        return not numbers & set(self.by_key.values()) - self.people.keys()

    def _load(self, numbers: set[int]) -> None:
        condition, parameters = bulk.among("profile_no", sorted(numbers))
        profiles = bulk.fetch(
            "SELECT profile_no, kind, created_us, attributes, identity_no FROM audiences_profile "  # noqa: S608 - no values in it
            f"WHERE {condition} AND state = 'live' ORDER BY profile_no {bulk.for_update()}",
            parameters,
        )
        identities = self._load_identities([row[4] for row in profiles if row[4] is not None])
        for profile_no, kind, created_us, attributes, identity_no in profiles:
            identity = identities.get(identity_no, _NOBODY)
            self.people[profile_no] = _Person(
                profile_no, kind, created_us, orjson.loads(attributes), identity, identity_no, as_stored=identity
            )

    def _load_identities(self, numbers: list[int]) -> dict[int, tuple[str, ...]]:
        if not numbers:
            return {}
        condition, parameters = bulk.among("identity_no", numbers)
        rows = bulk.fetch(
            f"SELECT identity_no, {', '.join(_IDENTITY)} FROM audiences_identity WHERE {condition}",  # noqa: S608 - no values in it
            parameters,
        )
        return {row[0]: tuple(row[1:]) for row in rows}

    def _load_consents(self, numbers: set[int]) -> None:
        """What these people have said so far."""
        if numbers:
            condition, parameters = bulk.among("profile_no", numbers)
            rows = bulk.fetch(
                f"SELECT profile_no, purpose, granted, at_us, attribute, source FROM audiences_consent WHERE {condition}",  # noqa: S608 - likewise
                parameters,
            )
            self.consents |= {(number, purpose): Said(bool(granted), *said) for number, purpose, granted, *said in rows}

    def _who_says(self) -> set[int]:
        """The people who are known, and of whose consent a row says something."""
        named = {rule.attribute for rule in self.consent_rules}
        rows = [row for row in self.rows if row.consents or named & row.attributes.keys()]
        asked = {self.by_key[key] for row in rows for key in self._keys_of(row) if key in self.by_key}
        return asked | {number_of_cio_id(row.value) or 0 for row in rows if row.kind == "cio_id"}

    # --- Folding

    def _fold(self, row: ProfileRow) -> Outcome:
        outcome = Outcome(problems=list(row.problems))
        profile_no = self._whom(row)
        if profile_no is None:
            outcome.buried = tuple(key for key in dict.fromkeys(self._all_said(row)) if key in self.dead)
            cause = next((self.dead[key] for key in outcome.buried), "")
            if cause or not row.create or row.kind == "cio_id":
                outcome.ignored = cause or "unknown"
                return outcome
            profile_no = self._make(row)
            outcome.made = True
        outcome.profile_no = profile_no
        if not row.only_found:
            if profile_no not in self.people:
                self._load({profile_no})  # whoever else answers to an e-mail that a row above gave up
                self._load_consents({profile_no})
            person = self.people[profile_no]
            said_before = {name for name, value in row.attributes.items() if person.attributes.get(name) == value}
            outcome.problems = [problem for problem in outcome.problems if problem.field not in said_before]
            self._say(row, person, outcome)
        return outcome

    def _whom(self, row: ProfileRow) -> int | None:
        if row.kind == "cio_id":
            number = number_of_cio_id(row.value)
            return number if number in self.people else None
        return next((self.by_key[key] for key in self._keys_of(row) if key in self.by_key), None)

    def _all_said(self, row: ProfileRow) -> list[keys.Key]:
        return [(row.kind, row.value), *self._identifiers_said(row)]

    def _make(self, row: ProfileRow) -> int:
        self._hold_counter()
        profile_no, self.next_no = self.next_no, self.next_no + 1
        external_id = row.value if row.kind == "id" else row.external_id
        kind = ANONYMOUS if row.kind == "anonymous_id" else PERSON
        person = _Person(profile_no, kind, row.created_us or row.at_us, {}, new=True, changed=True)
        person.bucket_key = external_id or uuid.uuid4().hex
        self.people[profile_no] = person
        if kind == PERSON:
            person.identity = (external_id, *_NOBODY[1:])
            if row.kind in _SHARED:
                self._identify(person, {row.kind: row.value})
                person.attributes[row.kind] = row.value
                self.implied.append({row.kind: row.value})
            if external_id:
                self._name(person, "id", external_id)
        self._name(person, row.kind, row.value)
        return profile_no

    def _say(self, row: ProfileRow, person: _Person, outcome: Outcome) -> None:
        merged = {**person.attributes, **row.attributes}
        if sum(value is not None for value in merged.values()) > ATTRIBUTES_AT_MOST:
            outcome.refused = Problem("attributes", f"more than {ATTRIBUTES_AT_MOST} on this person")
            return
        given = dict(row.identifiers.given)
        if row.kind == "id" and row.value != person.identity[0]:
            # A new id with a known e-mail is the newest name of the same person; an older one still finds them.
            if (row.kind, row.value) not in self.by_key:
                given["external_id"] = row.value
        elif row.external_id and row.external_id != person.identity[0]:
            given["external_id"] = row.external_id
        for kind, name in (("id", "external_id"), ("email", "email"), ("phone", "phone")):
            if given.get(name) and (kind, given[name]) in self.dead:
                outcome.problems.append(Problem(name, f"belongs to someone who was {self.dead[kind, given[name]]}"))
                del given[name]
                merged[name] = person.attributes.get(name)
        merged = {name: value for name, value in merged.items() if value is not None}
        owner = self.by_key.get(("id", given.get("external_id", "")))
        if owner is not None and owner != person.profile_no:
            outcome.problems.append(Problem("id", "belongs to another person"))
            del given["external_id"]
        read = consents.read(self.consent_rules, person.attributes, merged)
        outcome.problems += read.problems
        if merged != person.attributes:
            person.attributes, person.changed = merged, True
        if row.created_us is not None and row.created_us != person.created_us:
            person.created_us, person.changed = row.created_us, True
        self._identify(person, given)
        for purpose, (granted, attribute) in read.said.items():
            if purpose not in row.consents:
                self._consent(person, purpose, Said(granted, row.at_us, attribute))
        for purpose, said in row.consents.items():
            self._consent(person, purpose, said)

    def _consent(self, person: _Person, purpose: str, said: Said) -> None:
        before = person.consents.get(purpose) or self.consents.get((person.profile_no, purpose))
        if before is not None and said.at_us < before.at_us:
            return  # an older statement that comes late changes nothing
        if before is not None and said.attribute and not before.attribute and said.granted is before.granted:
            return  # what was said outright needs no attribute to confirm it
        if before is None or said.granted is not before.granted or said.at_us > before.at_us:
            person.consents[purpose] = replace(said, source=said.source or self.source)

    def _identify(self, person: _Person, given: dict[str, str]) -> None:
        if person.kind == ANONYMOUS:
            return  # identified by a merge only
        before = person.identity
        person.identity = tuple(given.get(name, old) for name, old in zip(_IDENTITY, before, strict=True))
        if person.identity == before:
            return
        if person.identity[0] != before[0]:
            self._name(person, "id", person.identity[0])
        for kind in _SHARED:
            position = _IDENTITY.index(kind)
            old, new = before[position], person.identity[position]
            if old != new:
                if old:
                    self._unname(person, kind, old)
                if new:
                    self._name(person, kind, new)

    def _name(self, person: _Person, kind: str, value: str) -> None:
        self.old_keys.pop((kind, value, person.profile_no), None)
        self.new_keys[kind, value, person.profile_no] = None
        held = self.by_key.get((kind, value))
        self.by_key[kind, value] = person.profile_no if held is None else min(held, person.profile_no)

    def _unname(self, person: _Person, kind: str, value: str) -> None:
        if self.new_keys.pop((kind, value, person.profile_no), 0) == 0:
            self.old_keys[kind, value, person.profile_no] = None
        if self.by_key.get((kind, value)) == person.profile_no:
            others = [no for k, v, no in self.new_keys if (k, v) == (kind, value)]
            if (stored := keys.oldest_other((kind, value), person.profile_no)) is not None:
                others.append(stored)
            del self.by_key[kind, value]
            if others:
                self.by_key[kind, value] = min(others)

    # --- Writing

    def _write(self) -> None:
        if self.next_no > self.first_no:
            bulk.take_numbers("profile_no", self.next_no - self.first_no)
        self._write_identities()
        people = self.people.values()
        now = connection.ops.adapt_datetimefield_value(timezone.now())
        bulk.insert(
            Profile,
            ("profile_no", "bucket_key", "kind", "state", "created_us", "attributes", "identity_no", "updated_at"),
            [
                (p.profile_no, p.bucket_key, p.kind, LIVE, p.created_us, _json(p.attributes), p.identity_no, now)
                for p in people
                if p.new
            ],
        )
        bulk.update(
            Profile,
            ("created_us", "attributes", "identity_no", "updated_at"),
            [
                (p.profile_no, p.created_us, _json(p.attributes), p.identity_no, now)
                for p in people
                if not p.new and (p.changed or p.identity != p.as_stored)
            ],
        )
        bulk.execute_many(
            "DELETE FROM audiences_profilekey WHERE kind = %s AND value = %s AND profile_no = %s", list(self.old_keys)
        )
        bulk.insert(ProfileKey, ("kind", "value", "profile_no"), list(self.new_keys), "ON CONFLICT DO NOTHING")
        bulk.insert(ProfileChange, ("profile_no",), [(p.profile_no,) for p in people if p.changed])
        self._write_consents()

    def _write_identities(self) -> None:
        """A new version for each person whose identifiers changed; on one who had some before, the change log says so."""
        renewed = [p for p in self.people.values() if p.kind == PERSON and (p.new or p.identity != p.as_stored)]
        if not renewed:
            return
        now = connection.ops.adapt_datetimefield_value(timezone.now())
        replaced = [p for p in renewed if not p.new]
        bulk.update(Identity, ("replaced_at",), [(p.identity_no, now) for p in replaced if p.identity_no is not None])
        first = bulk.take_numbers("identity_no", len(renewed))
        for number, person in enumerate(renewed, first):
            person.identity_no = number
        bulk.insert(
            Identity,
            ("identity_no", "profile_no", *_IDENTITY, "created_at"),
            [(p.identity_no, p.profile_no, *p.identity, now) for p in renewed],
        )
        log_changes([(p.profile_no, ChangeLog.Kind.IDENTITY, "") for p in replaced], self.now_us)

    def _write_consents(self) -> None:
        changed: list[tuple[int, str, bool, int, str, str]] = []
        confirmed: list[tuple[int, str, bool, int, str, str]] = []
        for person in self.people.values():
            for purpose, said in person.consents.items():
                before = self.consents.get((person.profile_no, purpose))
                outright = before is not None and bool(before.attribute) and not said.attribute
                same = before is not None and before.granted is said.granted and not outright
                (confirmed if same else changed).append(
                    (person.profile_no, purpose, said.granted, said.at_us, said.source, said.attribute)
                )
        consents.write(changed, confirmed)


def log_changes(changes: Sequence[tuple[int, str, str]], at_us: int) -> None:
    """Append (profile_no, kind, name) to the change log, in the caller's transaction."""
    bulk.insert(
        ChangeLog, ("profile_no", "kind", "name", "at_us"), [(no, str(kind), name, at_us) for no, kind, name in changes]
    )


def _json(attributes: dict[str, Any]) -> str:
    return orjson.dumps(attributes).decode()
