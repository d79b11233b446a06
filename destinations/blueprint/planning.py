"""From a file's entries to what would change here, and to the changes: settings, lists and audiences. Destinations are connections.py's.

First everything is compared and checked, and nothing is written; then the services do it, in an order in which each finds what it needs.
Whatever the file leaves out stays as it is; in something new it takes its default.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.utils import timezone

from audiences import vocabulary
from audiences.models import Audience, PersonList, SegmentVersion, User, Workspace
from audiences.naming import Convention
from audiences.owners import ROLES
from audiences.segments import explain, grammar
from audiences.segments.tree import Node
from audiences.services import audiences, lists, locks, users, versions, workspace
from audiences.vocabulary import Problem
from destinations.blueprint import names
from destinations.blueprint.entries import AudienceEntry, Blueprint, ListEntry
from destinations.blueprint.notation import Advice

IN_REVIEW = SegmentVersion.State.IN_REVIEW
CREATE, CHANGE, SAME = "create", "change", "unchanged"
INVITED_AS = dict.fromkeys((role.key for role in ROLES), User.Role.MARKETER) | {"sync_health": User.Role.OPERATOR}
ASSUMED_CONSENT = {"default": "opt_out", "by_country": {}}


@dataclass(frozen=True, slots=True)
class Detail:
    """One field, before and after, in words for the screen. Never a secret."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    """`action` is create, change or unchanged; `kind` setting, user, list, audience, destination or mapping."""

    action: str
    kind: str
    key: str
    details: tuple[Detail, ...] = ()


@dataclass(slots=True)
class Plan:
    """What would change, and the steps that change it, in their order."""

    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    steps: list[Callable[[], object]] = field(default_factory=list, repr=False)
    advice: tuple[Advice, ...] = ()
    stopped: list[Problem] = field(default_factory=list)  # by carry_out: connections that a gate kept from going live

    def carry_out(self) -> None:
        """Do it. Should something break off, applying the same file again goes on from there."""
        for step in self.steps:
            step()

    @property
    def changed(self) -> bool:
        return any(change.action != SAME for change in self.changes)

    def add(self, kind: str, key: str, details: Iterable[Detail], *, new: bool = False) -> None:
        found = tuple(details)
        self.changes.append(Change(CREATE if new else CHANGE if found else SAME, kind, key, found))


class Planner:
    """Collects changes, the steps to them, and everything that is wrong."""

    def __init__(self, blueprint: Blueprint, source: str, environment: Mapping[str, str]) -> None:
        self.file, self.source, self.environment = blueprint, source, environment
        self.plan = Plan()
        self.problems: list[Problem] = []
        self.convention: Convention | None = None  # names are held against it
        self.names: dict[str, str] = {}  # built name → the audience that takes it
        self.people: dict[str, str] = {}  # e-mail → role, of everybody whom the file names
        self.audience_rows = {
            row.key: row for row in Audience.objects.select_related("live_version", *(role.field for role in ROLES))
        }

    def wrong(self, path: str, words: str) -> None:
        self.problems.append(Problem(path, words))

    def note_change(self, kind: str, key: str, details: Iterable[tuple[str, str, str]], *, new: bool) -> None:
        self.plan.add(kind, key, [Detail(*detail) for detail in details], new=new)

    def person(self, email: str, role: str, path: str) -> str:
        """Whoever has no account yet is invited. Returns the address as accounts keep it."""
        address = email.strip().lower()
        if not users.is_address(address):
            self.wrong(path, "must be an e-mail address")
        self.people.setdefault(address, role)
        return address

    def users(self) -> None:
        known = set(User.objects.filter(email__in=self.people).values_list("email", flat=True))
        invited = [(email, role) for email, role in self.people.items() if email not in known]
        for email, role in invited:
            self.plan.add("user", email, [Detail("role", "", role), Detail("state", "", "invited")], new=True)
        # Before everything else: audiences and mappings name them.
        self.plan.steps[:0] = [
            partial(users.find_or_invite, actor=None, email=email, role=role) for email, role in invited
        ]

    def settings(self) -> None:
        wanted: dict[str, Any] = {}
        for name, value in self.file.settings.items():
            try:
                wanted |= workspace.check(**{name: value})
            except workspace.SettingRefused as refused:
                self.wrong(f"settings.{name}", str(refused))
        row = workspace.current()
        if row is None and "consent_policy" not in wanted:
            wanted["consent_policy"] = ASSUMED_CONSENT
            self.plan.notes.append(
                "This workspace has no consent policy yet. Opt-out is assumed: people may be sent unless they said no."
                " Change it in the settings, or with settings.consent_policy in the file."
            )
        before = row or Workspace()
        details = [
            Detail(name, "" if row is None else _words(getattr(before, name)), _words(value))
            for name, value in wanted.items()
            if row is None or getattr(before, name) != value
        ]
        if row is None or wanted:
            self.plan.add("setting", "workspace", details, new=row is None)
        if details:
            self.plan.steps.append(lambda: workspace.change(actor=None, reason=self.reason, **wanted))

    @property
    def reason(self) -> str:
        return f"applied from {self.source}"

    def lists(self) -> None:
        rows = {row.key: row for row in PersonList.objects.defer("members")}
        for entry in self.file.lists:
            self._list(entry, rows.get(entry.key))

    def _list(self, entry: ListEntry, row: PersonList | None) -> None:
        wanted = {"name": entry.name, "customerio_segment": entry.customerio_segment}
        if row is None:
            wanted["name"] = entry.name or entry.key
        details = _details(wanted, row)
        if row is None:
            self.plan.steps.append(
                lambda: lists.make(
                    entry.key, entry.name or entry.key, None, customerio_segment=entry.customerio_segment
                )
            )
        elif details:
            changed = {detail.field: wanted[detail.field] for detail in details}
            self.plan.steps.append(lambda: lists.describe(row, None, **changed))
        self.plan.add("list", entry.key, details, new=row is None)

    def audiences(self) -> None:
        rules = {entry.key: entry.segment for entry in self.file.audiences if entry.segment is not None}
        purposes = {key: row.purpose for key, row in self.audience_rows.items() if row.archived_at is None}
        purposes |= {entry.key: entry.purpose for entry in self.file.audiences if entry.purpose}
        names = vocabulary.known()
        numbers = [entry.customerio_segment for entry in self.file.lists if entry.customerio_segment is not None]
        names = names.with_lists((entry.key for entry in self.file.lists), numbers)
        everything = {**vocabulary.live_rules(), **rules}
        changed, links = [], []
        for (
            entry
        ) in self.file.audiences:  # first, so that an audience may stop being a suppression audience in the same file
            if entry.excluded_by is not None and entry.key in self.audience_rows:
                self._unlink(self.audience_rows[entry.key], entry.excluded_by)
        for entry in self.file.audiences:
            row = self.audience_rows.get(entry.key)
            if row is not None and row.archived_at:
                self.wrong(f"{entry.path}.key", f'"{entry.key}" is an archived audience; keys are never reused')
                continue
            details = self._fields(entry, row)
            if entry.segment is not None and self._sound(entry, entry.segment, names, rules, everything):
                detail = _rule_detail(row, entry.segment)
                if detail:
                    details.append(detail)
                    changed.append(entry)
            detail = self._links(entry, row, purposes)
            if detail:
                details.append(detail)
                links.append(entry)
            self.plan.add("audience", entry.key, details, new=row is None)
        self._still_suppressions(purposes)
        for entry in _referred_first(changed):
            self.plan.steps.append(partial(self._publish, entry))
        for entry in links:
            self.plan.steps.append(partial(self._link, entry))

    def _fields(self, entry: AudienceEntry, row: Audience | None) -> list[Detail]:
        """The plain fields, with the step that sets them."""
        owners = self._owners(entry, row)
        named = names.of_audience(self, entry, row)
        given = {
            "name": named.name if named else entry.name,
            "description": entry.description,
            "purpose": entry.purpose,
            "cadence_seconds": entry.cadence,
        }
        wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if row is None:
            wanted.setdefault("name", entry.key)
            if entry.purpose is None:
                self.wrong(f"{entry.path}.purpose", f"is missing; one of {', '.join(Audience.Purpose.values)}")
        try:
            wanted = audiences.check(**wanted)
        except audiences.AudienceRefused as refused:
            for problem in refused.problems:
                self.wrong(f"{entry.path}.{problem.path.removesuffix('_seconds')}", problem.words)
            return []
        details = _details(wanted, row)
        if named:
            details += [Detail(*differs) for differs in named.differs]
        for field_name, email in owners.items():
            before = getattr(row, field_name) if row else None
            if before is None or before.email != email:
                details.append(Detail(field_name, before.email if before else "", email))
        if row is None:
            self.plan.steps.append(lambda: audiences.create(actor=None, key=entry.key, **wanted, **_users(owners)))
        elif details:
            self.plan.steps.append(
                lambda: audiences.change(actor=None, audience=row, reason=self.reason, **wanted, **_users(owners))
            )
        if named and named.step and (row is None or named.differs or named.name != row.name):
            self.plan.steps.append(named.step)
        return details

    def _owners(self, entry: AudienceEntry, row: Audience | None) -> dict[str, str]:
        """Field → e-mail of whom the file names. Who watches the match rate is mailed too, where nobody else is named for that."""
        said = {role.field: getattr(entry, role.field) for role in ROLES}
        if said["alert_owner"] is None and (row is None or row.alert_owner is None):
            said["alert_owner"] = said["sync_owner"]
        wanted = {
            role.field: self.person(said[role.field], INVITED_AS[role.key], f"{entry.path}.owners.{role.key}")
            for role in ROLES
            if said[role.field]
        }
        without = [
            role for role in ROLES if role.needed and not wanted.get(role.field) and not _holder(row, role.field)
        ]
        if without and entry.segment is not None:
            roles = ", ".join(role.label.lower() for role in without)
            self.plan.notes.append(f'Nobody is named for {roles} of "{entry.key}": a person could not publish it.')
        return wanted

    def _sound(
        self,
        entry: AudienceEntry,
        tree: Node,
        names: vocabulary.Vocabulary,
        rules: Mapping[str, Node],
        everything: Mapping[str, Node],
    ) -> bool:
        problems = names.problems(tree, also=rules)
        if not problems:
            try:
                grammar.resolve(tree, everything)
            except grammar.Refused as refused:
                problems = (Problem(refused.path, refused.words),)
        for problem in problems:
            self.wrong(f"{entry.path}.segment" + (f".{problem.path}" if problem.path else ""), problem.words)
        return not problems

    def _links(self, entry: AudienceEntry, row: Audience | None, purposes: Mapping[str, str]) -> Detail | None:
        if entry.excluded_by is None:
            return None
        for index, key in enumerate(entry.excluded_by):
            where = f"{entry.path}.excluded_by[{index}]"
            if key not in purposes:
                self.wrong(where, f'there is no audience "{key}"')
            elif purposes[key] != Audience.Purpose.SUPPRESSION:
                self.wrong(where, f'"{key}" is not a suppression audience')
            elif key == entry.key:
                self.wrong(where, "an audience cannot exclude itself")
        before = sorted(row.excluded_by.values_list("key", flat=True)) if row else []
        after = sorted(entry.excluded_by)
        return Detail("excluded_by", ", ".join(before), ", ".join(after)) if before != after else None

    def _unlink(self, row: Audience, wanted: Sequence[str]) -> None:
        linked = list(row.excluded_by.all())
        kept = [suppression for suppression in linked if suppression.key in wanted]
        if len(kept) < len(linked):
            self.plan.steps.append(lambda: audiences.set_excluded_by(actor=None, audience=row, suppressions=kept))

    def _still_suppressions(self, purposes: Mapping[str, str]) -> None:
        """An audience that others exclude by cannot become something else, unless the file takes those links away too."""
        said = {entry.key: entry.excluded_by for entry in self.file.audiences if entry.excluded_by is not None}
        for entry in self.file.audiences:
            row = self.audience_rows.get(entry.key)
            if row is None or row.purpose != Audience.Purpose.SUPPRESSION or purposes.get(entry.key) == row.purpose:
                continue
            for linked in row.excludes.values_list("key", flat=True):
                if entry.key in said.get(linked, (entry.key,)):
                    self.wrong(f"{entry.path}.purpose", f'must stay suppression: "{linked}" is excluded by it')

    def _publish(self, entry: AudienceEntry) -> None:
        assert entry.segment is not None
        audience = Audience.objects.get(key=entry.key)
        lock = locks.current(audience)
        waiting = audience.versions.filter(state=IN_REVIEW, sha256=grammar.sha256(entry.segment)).first()
        if waiting is None or waiting.publish_at is None:
            waiting = versions.publish_when_free(
                actor=None,
                version=waiting
                or versions.save_draft(
                    actor=None, audience=audience, segment=entry.segment, first_number=entry.first_version
                ),
                reason=self.reason,
                override=self._override(entry),
            )
        if waiting.state != IN_REVIEW:
            return
        if waiting.publish_at is None:
            words = f"v{waiting.number} is left in review: somebody approves it at /audiences/{entry.key}/review/."
        else:
            assert lock is not None
            words = f"It is in test until {lock.until:%Y-%m-%d %H:%M} UTC: v{waiting.number} is left in review and published then."
        self.plan.stopped.append(Problem(entry.key, words))

    def _override(self, entry: AudienceEntry) -> str:
        """Why it is published without a second person: what a mapping of this audience says in the file. Empty: nothing."""
        said = [row.override for row in self.file.mappings if row.audience == entry.key and row.override is not None]
        given = next((one for one in said if one.until is None or not _passed(one.until)), None)
        return f"{given.reason} ({given.by})" if given else ""

    def _link(self, entry: AudienceEntry) -> None:
        suppressions = list(Audience.objects.filter(key__in=entry.excluded_by or ()))
        audiences.set_excluded_by(actor=None, audience=Audience.objects.get(key=entry.key), suppressions=suppressions)


def _passed(text: str) -> bool:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) <= timezone.now()


def _details(wanted: Mapping[str, Any], row: Any) -> list[Detail]:
    """The fields that differ; of something new, all that are said."""
    return [
        Detail(name, _words(getattr(row, name)) if row else "", _words(value))
        for name, value in wanted.items()
        if value is not None and (row is None or getattr(row, name) != value)
    ]


def _rule_detail(row: Audience | None, tree: Node) -> Detail | None:
    live = row.live_version if row else None
    if live and live.sha256 == grammar.sha256(tree):
        return None
    return Detail("rule", f"v{live.number}: {live.sentence}" if live else "", explain.sentence(tree))


def _referred_first(entries: list[AudienceEntry]) -> list[AudienceEntry]:
    """In an order in which every rule comes after those that it refers to. There are no circles: that was checked."""
    by_key = {entry.key: entry for entry in entries}
    ordered: dict[str, AudienceEntry] = {}

    def visit(entry: AudienceEntry) -> None:
        if entry.key in ordered or entry.segment is None:
            return
        for key, _ in grammar.names(entry.segment).audiences:
            if key in by_key:
                visit(by_key[key])
        ordered[entry.key] = entry

    for entry in entries:
        visit(entry)
    return list(ordered.values())


def _holder(row: Audience | None, field: str) -> User | None:
    """Who holds a role and can sign in."""
    user: User | None = getattr(row, field) if row is not None else None
    return user if user is not None and user.is_active else None


def _users(owners: Mapping[str, str]) -> dict[str, Any]:
    return {name: User.objects.get(email=email) for name, email in owners.items()}


def _words(value: Any) -> str:
    if isinstance(value, dict) and "default" in value:
        countries = "".join(f", {country} {answer}" for country, answer in value.get("by_country", {}).items())
        return f"{value['default']}{countries}"
    return "" if value is None else str(value)
