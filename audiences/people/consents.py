"""Consent as it is read from attributes that a workspace names, and reading everybody's anew when it names others.

What is said in so many words (`consent_analytics: false`) is normalise.py's, and taking either in profiles.py's. Whoever has said
something outright is never overruled by naming an attribute; a later change of the attribute is a later word, and counts.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
from django.db import connection, transaction

from audiences import clock, faults, jobs
from audiences.models import ChangeLog, Consent, ConsentStatement, Profile, Workspace
from audiences.people import bulk
from audiences.people.normalise import PURPOSES, Problem, consent_word

TASK = "audiences.read_consents"
SOURCE = "settings"
AT_ONCE = 2_000  # people in a write transaction
_OLDER_WRITERS = 5.0  # seconds
_ONCE_MORE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Rule:
    """One attribute that says yes or no to some uses. `yes` and `no`: words of the shop's own, lower-cased."""

    attribute: str
    purposes: tuple[str, ...]
    yes: tuple[str, ...] = ()
    no: tuple[str, ...] = ()

    def means(self, value: Any) -> bool | None:
        """What a value says; None where it is no answer. A word that is in both is a no."""
        word = str(value).strip().lower() if isinstance(value, str | int | float) else ""
        if word in self.no:
            return False
        return True if word in self.yes else consent_word(value)


@dataclass(frozen=True, slots=True)
class Reading:
    """What attributes say: purpose → (granted, the attribute), and what could not be read."""

    said: Mapping[str, tuple[bool, str]]
    problems: tuple[Problem, ...] = ()


def rules_of(setting: Iterable[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """The setting as rules; it has been checked when it was saved."""
    return tuple(
        Rule(one["attribute"], tuple(one["purposes"]), tuple(one.get("yes", ())), tuple(one.get("no", ())))
        for one in setting
    )


def rules() -> tuple[Rule, ...]:
    """The workspace's rules, as the transaction sees them."""
    return rules_of(Workspace.objects.filter(pk=1).values_list("consent_attributes", flat=True).first() or ())


def read(rules: Sequence[Rule], before: Mapping[str, Any], after: Mapping[str, Any]) -> Reading:
    """What a change of attributes says. One that stays as it was says nothing new; of two that disagree the no counts."""
    said: dict[str, tuple[bool, str]] = {}
    problems: list[Problem] = []
    for rule in rules:
        value = after.get(rule.attribute)
        if value in (None, "") or before.get(rule.attribute) == value:
            continue
        granted = rule.means(value)
        if granted is None:
            problems.append(Problem(rule.attribute, "does not say whether consent is given: kept as an attribute"))
            continue
        for purpose in rule.purposes:
            if purpose not in said or not granted:
                said[purpose] = granted, rule.attribute
    return Reading(said, tuple(problems))


# --- Everybody anew


@jobs.job(TASK)
def read_everybody(claim: jobs.Claim) -> None:
    """Read the attributes of all people by the rules as they are now; whoever was read by rules that are gone has said nothing."""
    _let_older_writers_end(claim)
    people = Profile.objects.filter(state=Profile.State.LIVE, kind=Profile.Kind.PERSON)
    total, done, changed, last = people.count(), 0, 0, 0
    while numbers := list(people.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:AT_ONCE]):
        began = time.monotonic()
        with transaction.atomic():
            claim.guard()
            changed += _read_some(numbers)
            faults.point("consents.before_commit")
        faults.point("consents.some_read")
        last, done = numbers[-1], done + len(numbers)
        claim.progress(people=done, of=total, changed=changed)
        claim.renew()
        time.sleep(min(time.monotonic() - began, 1.0))
    claim.progress(every=0, people=done, of=total, changed=changed)


def _read_some(numbers: Sequence[int]) -> int:
    """These people, in the caller's transaction; how many statements changed."""
    in_force = rules()
    locked = Profile.objects.select_for_update().filter(pk__in=numbers, state=Profile.State.LIVE).order_by("pk")
    rows = list(locked.values_list("pk", "attributes", "updated_at"))
    standing: dict[int, dict[str, Consent]] = {}
    for consent in Consent.objects.filter(profile_no__in=numbers):
        standing.setdefault(consent.profile_no, {})[consent.purpose] = consent
    set_: list[tuple[int, str, bool, int, str]] = []
    unset: list[tuple[int, str, int, str]] = []
    for number, text, updated_at in rows:
        has = orjson.loads(text)
        said = read(in_force, {}, has).said
        at_us = clock.to_us(updated_at)  # the attributes were so then, at the latest
        for purpose in PURPOSES:
            before = standing.get(number, {}).get(purpose)
            if before is not None and not before.attribute:
                continue  # said outright
            if purpose in said:
                granted, attribute = said[purpose]
                if before is None or (before.granted, before.attribute) != (granted, attribute):
                    set_.append((number, purpose, granted, at_us, attribute))
            elif before is not None and not _still_read(in_force, before, has):
                unset.append((number, purpose, at_us, before.attribute))
    write([(*one[:4], SOURCE, one[4]) for one in set_])
    _take_back(unset)
    return len(set_) + len(unset)


def _take_back(unset: Sequence[tuple[int, str, int, str]]) -> None:
    """What no rule reads any more was never said; what had been said outright before it holds again."""
    outright: dict[tuple[int, str], ConsentStatement] = {}
    rows = ConsentStatement.objects.filter(profile_no__in={one[0] for one in unset}, attribute="")
    for row in rows.exclude(granted=None).order_by("at_us", "pk"):
        outright[row.profile_no, row.purpose] = row
    gone: list[tuple[int, str, None, int, str, str]] = []
    back: list[tuple[int, str, bool, int, str, str]] = []
    for number, purpose, at_us, attribute in unset:
        if (said := outright.get((number, purpose))) is not None:
            back.append((number, purpose, bool(said.granted), said.at_us, said.source, ""))
        else:
            Consent.objects.filter(profile_no=number, purpose=purpose).delete()
            gone.append((number, purpose, None, at_us, SOURCE, attribute))
    write(back)
    _note(gone)


def _still_read(in_force: Sequence[Rule], consent: Consent, has: Mapping[str, Any]) -> bool:
    """A rule still reads this purpose from that attribute, which has no value any more: what it said last stands."""
    named = any(rule.attribute == consent.attribute and consent.purpose in rule.purposes for rule in in_force)
    return named and has.get(consent.attribute) in (None, "")


def write(changed: Sequence[tuple[int, str, bool, int, str, str]], confirmed: Sequence[tuple[Any, ...]] = ()) -> None:
    """Statements (profile_no, purpose, granted, at_us, source, attribute) that change what holds, and those that only confirm it.

    In the caller's transaction. A change goes into the history and the change log, a confirmation only moves its moment.
    """
    bulk.insert(
        Consent,
        ("profile_no", "purpose", "granted", "at_us", "source", "attribute"),
        [*changed, *confirmed],
        "ON CONFLICT (profile_no, purpose) DO UPDATE SET granted = excluded.granted, at_us = excluded.at_us, "
        "source = excluded.source, attribute = excluded.attribute",
    )
    _note(changed)


def _note(changed: Sequence[tuple[int, str, bool | None, int, str, str]]) -> None:
    now_us = clock.now_us()
    bulk.insert(
        ConsentStatement,
        ("profile_no", "purpose", "granted", "at_us", "source", "attribute", "recorded_us"),
        [(*one, now_us) for one in changed],
    )
    bulk.insert(
        ChangeLog,
        ("profile_no", "kind", "name", "at_us"),
        [(number, str(ChangeLog.Kind.CONSENT), purpose, now_us) for number, purpose, *_ in changed],
    )


def _let_older_writers_end(claim: jobs.Claim) -> None:
    """A transaction that began under the old rules may still be about to commit people read by them. One that takes long is not
    waited for: everybody is read once more after it."""
    if connection.vendor != "postgresql" or connection.in_atomic_block:
        return
    began = bulk.fetch("SELECT clock_timestamp()")[0][0]
    until = time.monotonic() + _OLDER_WRITERS
    older = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < %s"
    )
    while bulk.fetch(older, [began])[0][0]:
        if time.monotonic() > until:
            jobs.ask(TASK, claim.key, after=_ONCE_MORE)
            return
        claim.renew()
        time.sleep(0.05)
