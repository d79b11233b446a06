"""Files of people and events taken in, row by row, so that a killed import goes on where its last checkpoint stands.

Reading files is tabular.py's, making people profiles.py's, writing events lake's. Event rows count once by (the file's SHA-256, line).
"""

import gc
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from audiences import faults, jobs
from audiences.clock import MINUTE, now_us
from audiences.models import ImportFile, RefusedRow, User, Workspace
from audiences.people import catalog, lake, payloads, privacy, profiles, refused, survey, tabular
from audiences.people.normalise import FIELDS, PURPOSES, Problem, moment_of
from audiences.people.tabular import BadLine, Row, Unreadable
from audiences.services import trail

TASK = "audiences.import"
PEOPLE_AT_ONCE = 2_000  # people in a write transaction
ROWS_AT_ONCE = 10_000
REFUSED_A_CHECKPOINT = 5_000
LONGEST_PROPERTIES = 100_000  # characters, as the Track API's limit for an event's data
EVENT_FIELDS = ("profile", "time", "name")
CONSENT_FIELDS = ("consent_at", *(f"consent_{purpose}" for purpose in PURPOSES))
PROFILE_FIELDS = ("id", "created_at", *FIELDS, *CONSENT_FIELDS)
FIELDS_OF: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # all, and those that must be there
    ImportFile.Kind.EVENTS: (EVENT_FIELDS, ("profile", "time")),
    ImportFile.Kind.PROFILES: (PROFILE_FIELDS, ("id",)),
    ImportFile.Kind.PRIVACY: (("id", "email", "phone", "identifier"), ()),
}
AHEAD = 5 * MINUTE


class ImportRefused(Exception):
    """The import cannot begin or go on; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What a file looks like: its column names and its first rows."""

    names: list[str]
    sample: list[list[Any]]


@dataclass(slots=True)
class Batch:
    """What has been read since the last checkpoint."""

    events: list[pa.Table] = field(default_factory=list)
    event_count: int = 0
    refused: list[RefusedRow] = field(default_factory=list)
    accepted: int = 0
    read: int = 0


def inspect(path: Path, rows: int = 5) -> Columns:
    """Column names and the first rows. Raises ImportRefused."""
    try:
        with tabular.reading(path) as table:
            return Columns(table.columns, [row.values for row in islice(table.rows, rows) if isinstance(row, Row)])
    except Unreadable as error:
        raise ImportRefused(str(error)) from None


def start(
    path: Path,
    kind: str,
    mapping: Mapping[str, str],
    *,
    event_name: str = "",
    name: str = "",
    actor: User | None = None,
    in_background: bool = True,
    request: Mapping[str, str] | None = None,
) -> ImportFile:
    """Register a file to be taken in. `mapping`: our field → the column; `event_name` names every row's event where no column does;
    `request`: what a list of privacy requests asks (privacy_lists.py).

    A file of events that was taken in before comes back as it is (done); one that stopped goes on. Raises ImportRefused.
    """
    columns = inspect(path, 0).names
    _check_mapping(kind, mapping, event_name, columns)
    sha256 = _sha256(path)
    plan: dict[str, Any] = {"columns": dict(mapping), "event_name": event_name}
    if request:
        plan["request"] = dict(request)
    earlier = ImportFile.objects.filter(kind=kind, sha256=sha256).order_by("-pk").first()
    if earlier and (kind == ImportFile.Kind.EVENTS or earlier.state != ImportFile.State.DONE):
        if earlier.state == ImportFile.State.DONE:
            return earlier
        if earlier.rows_read and earlier.mapping != plan:
            raise ImportRefused(
                "This file was partly taken in with another mapping. Go on with that one, so that no row counts in two ways."
            )
        earlier.mapping, earlier.path = plan, str(path.resolve())
        earlier.state, earlier.error, earlier.cancel_requested = ImportFile.State.WAITING, "", False
        earlier.save()
        import_file = earlier
    else:
        import_file = ImportFile.objects.create(
            kind=kind,
            name=name or path.name,
            path=str(path.resolve()),
            sha256=sha256,
            mapping=plan,
            bytes_total=path.stat().st_size,
            created_by=actor,
        )
    trail.record(
        actor,
        "import.started",
        "import",
        str(import_file.pk),
        after={"kind": kind, "rows_before": import_file.rows_read},
    )
    if in_background:
        jobs.ask(TASK, import_file.pk, queue="intake")
    return import_file


def cancel(import_file: ImportFile, *, actor: User | None) -> None:
    """Ask a running import to stop at its next checkpoint; what was taken in stays."""
    ImportFile.objects.filter(pk=import_file.pk).update(cancel_requested=True)
    trail.record(actor, "import.cancelled", "import", str(import_file.pk))


def run_here(import_file: ImportFile, progress: Callable[[ImportFile], None] | None = None) -> ImportFile:
    """Take the file in, in this process; the row as it is at the end. If the process dies, a worker goes on."""
    with jobs.held(TASK, import_file.pk, queue="intake") as claim:
        _run(claim, progress)
    import_file.refresh_from_db()
    return import_file


@jobs.job(TASK, queue="intake")
def run_job(claim: jobs.Claim) -> None:
    """A worker's way to run_here."""
    _run(claim, None)


def _run(claim: jobs.Claim, progress: Callable[[ImportFile], None] | None) -> None:
    row = ImportFile.objects.get(pk=int(claim.key))
    if row.state in (ImportFile.State.DONE, ImportFile.State.CANCELLED):
        return
    ImportFile.objects.filter(pk=row.pk).update(state=ImportFile.State.READING)
    reader = READERS[row.kind](claim, row)
    try:
        with _collecting_rarely():
            finished = reader.run(progress)
    except (Unreadable, FileNotFoundError, PermissionError) as error:
        words = str(error) if isinstance(error, Unreadable) else "The file is not there any more, or may not be read."
        ImportFile.objects.filter(pk=row.pk).update(
            state=ImportFile.State.FAILED, error=words, finished_at=timezone.now()
        )
        if row.kind == ImportFile.Kind.PRIVACY:
            _forget_upload(Path(row.path))
        return
    state = ImportFile.State.DONE if finished else ImportFile.State.CANCELLED
    ImportFile.objects.filter(pk=row.pk).update(state=state, error="", finished_at=timezone.now())
    survey.ask()
    if finished or row.kind == ImportFile.Kind.PRIVACY:  # who asked to be forgotten lies in no file of ours
        _forget_upload(Path(row.path))


@contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Rows are many and hold no cycles: looking for cycles after every few hundred costs a fifth of an import."""
    usual = gc.get_threshold()
    gc.set_threshold(200_000, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


class _Said(NamedTuple):
    """What an events row says, understood."""

    row: Row
    external_id: str
    at_us: int
    name: str
    properties: dict[str, Any]
    json: str


class Reader(ABC):
    """Reads the file after its checkpoint in chunks and lets the subclass take each in."""

    def __init__(self, claim: jobs.Claim, row: ImportFile) -> None:
        self.claim, self.row = claim, row
        self.columns: Mapping[str, str] = row.mapping["columns"]
        workspace = Workspace.objects.first()
        self.region = workspace.default_region if workspace else "US"
        self.batch = Batch()

    def run(self, progress: Callable[[ImportFile], None] | None) -> bool:
        """True at the end of the file, False if it was cancelled."""
        with tabular.reading(Path(self.row.path)) as table:
            self.position = {name: index for index, name in enumerate(table.columns)}
            rows = islice(table.rows, self.row.rows_read, None)
            while chunk := list(islice(rows, self.chunk_size)):
                self.claim.renew()
                self.batch.read += len(chunk)
                for bad in chunk:
                    if isinstance(bad, BadLine):
                        self.refuse(bad.line, "", bad.reason, bad.raw)
                self.take_in([row for row in chunk if isinstance(row, Row)])
                if self.full():
                    self.checkpoint(table.bytes_read)
                self.claim.progress(bytes_read=table.bytes_read)
                if progress:
                    self.row.bytes_read = table.bytes_read
                    progress(self.row)
                if ImportFile.objects.filter(pk=self.row.pk, cancel_requested=True).exists():
                    self.checkpoint(table.bytes_read)
                    return False
            self.checkpoint(self.row.bytes_total)
        return True

    chunk_size = ROWS_AT_ONCE

    @abstractmethod
    def take_in(self, rows: list[Row]) -> None: ...

    @abstractmethod
    def full(self) -> bool: ...

    def refuse(self, line: int, field: str, reason: str, raw: str) -> None:
        self.batch.refused.append(
            RefusedRow(
                source="import", import_file=self.row, line=line, field=field[:150], reason=reason[:300], raw=raw
            )
        )

    def refuse_row(self, row: Row, field: str, reason: str) -> None:
        self.refuse(row.line, self.columns.get(field, field), reason, _raw(row))

    def withhold(self, row: Row, field: str, ignored: str) -> None:
        """Somebody who was suppressed or erased: the line is on record, and nothing of what it held."""
        reason = refused.WITHHELD.get(ignored, ignored)
        self.refuse(row.line, self.columns.get(field, field), reason, "")

    def checkpoint(self, bytes_read: int) -> None:
        """Everything read so far becomes true at once: events, refused rows, and where reading goes on after a kill."""
        batch, self.batch = self.batch, Batch()
        staged = lake.stage_events(pa.concat_tables(batch.events), origin="import") if batch.events else []
        faults.point("import.staged")
        began = time.monotonic()
        with lake.publishing(staged):
            self.claim.guard()
            if staged:
                lake.publish(staged, import_file=self.row)
            refused.keep(batch.refused, self.region)
            self.row.rows_read += batch.read
            self.row.rows_accepted += batch.accepted
            self.row.rows_refused += batch.read - batch.accepted
            self.row.bytes_read = bytes_read
            self.row.save(update_fields=["rows_read", "rows_accepted", "rows_refused", "bytes_read"])
            faults.point("import.before_commit")
        faults.point("import.committed")
        time.sleep(min(time.monotonic() - began, 1.0))  # let the others write


class _Events(Reader):
    def __init__(self, claim: jobs.Claim, row: ImportFile) -> None:
        super().__init__(claim, row)
        self.known: dict[str, int | str] = {}
        self.event_name = row.mapping["event_name"]
        self.key_prefix = row.sha256[:16]

    def full(self) -> bool:
        return (
            self.batch.event_count >= settings.IMPORT_CHECKPOINT_ROWS or len(self.batch.refused) >= REFUSED_A_CHECKPOINT
        )

    def checkpoint(self, bytes_read: int) -> None:
        self.known.clear()  # people may be removed while a long file is read
        super().checkpoint(bytes_read)

    def take_in(self, rows: list[Row]) -> None:
        received = now_us()
        read = list(self._understood(rows, received))
        if not read:
            return
        self._find_people([said.external_id for said in read], received)
        taken: list[tuple[int, _Said]] = []
        for said in read:
            profile_no = self.known[said.external_id]
            if isinstance(profile_no, str):
                self.withhold(said.row, "profile", profile_no)
            else:
                taken.append((profile_no, said))
        if not taken:
            return
        with transaction.atomic():
            catalog.learn_events(((said.name, said.properties) for _, said in taken), received)
        count = len(taken)
        self.batch.events.append(
            pa.table(
                [
                    pa.array([f"{self.key_prefix}{said.row.line:016x}" for _, said in taken], pa.string()),
                    pa.array([profile_no for profile_no, _ in taken], pa.uint32()),
                    pa.array([said.name for _, said in taken], pa.string()),
                    pa.array([said.at_us for _, said in taken], pa.int64()),
                    pa.repeat(pa.scalar(received, pa.int64()), count),
                    pa.repeat(pa.scalar("import"), count),
                    pa.nulls(count, pa.int64()),
                    pa.array([said.json for _, said in taken], pa.string()),
                ],
                schema=lake.EVENTS,
            )
        )
        self.batch.event_count += count
        self.batch.accepted += count

    def _understood(self, rows: list[Row], received: int) -> Iterator["_Said"]:
        profile_at, time_at = self.position[self.columns["profile"]], self.position[self.columns["time"]]
        name_at = self.position[self.columns["name"]] if "name" in self.columns else None
        used = {profile_at, time_at, name_at}
        others = [(name, index) for name, index in self.position.items() if index not in used]
        times = _moments([row.values[time_at] for row in rows])
        for row, at_us in zip(rows, times, strict=True):
            values = row.values
            external_id = _text(values[profile_at])
            name = self.event_name if name_at is None else _text(values[name_at])
            properties = {key: value for key, index in others if (value := values[index]) is not None and value != ""}
            json = orjson.dumps(properties).decode()
            if problem := _event_problem(external_id, name, at_us, len(json), received):
                self.refuse_row(row, problem.field, problem.reason)
            else:
                assert at_us is not None
                yield _Said(row, external_id, at_us, name, properties, json)

    def _find_people(self, external_ids: list[str], at_us: int) -> None:
        unknown = [external_id for external_id in dict.fromkeys(external_ids) if external_id not in self.known]
        for first in range(0, len(unknown), PEOPLE_AT_ONCE):
            began = time.monotonic()
            with transaction.atomic():
                found = profiles.profile_numbers(unknown[first : first + PEOPLE_AT_ONCE], at_us=at_us)
                privacy.came_back(("id", value) for value, number in found.items() if isinstance(number, str))
                self.known.update(found)
            time.sleep(min(time.monotonic() - began, 1.0))


class _People(Reader):
    chunk_size = PEOPLE_AT_ONCE

    def full(self) -> bool:
        return False  # each chunk is its own checkpoint

    def take_in(self, rows: list[Row]) -> None:
        at_us = now_us()
        renamed = {column: field for field, column in self.columns.items()}
        id_at = self.position[self.columns["id"]]
        attributes_at = [(renamed.get(name, name), index) for name, index in self.position.items() if index != id_at]
        understood: list[tuple[Row, payloads.ProfileRow]] = []
        for row in rows:
            external_id = _text(row.values[id_at])
            # An empty cell says nothing: it does not take away what is known.
            attributes = {n: v for n, i in attributes_at if (v := row.values[i]) is not None and v != ""}
            if problem := _profile_problem(external_id, attributes):
                self.refuse_row(row, problem.field, problem.reason)
                continue
            understood.append(
                (row, payloads.profile_row("id", external_id, attributes, default_region=self.region, at_us=at_us))
            )
        self._write(understood)

    def _write(self, understood: list[tuple[Row, payloads.ProfileRow]]) -> None:
        """The chunk's people and where reading goes on, in one transaction."""
        began = time.monotonic()
        with transaction.atomic():
            self.claim.guard()
            outcomes = profiles.upsert([said for _, said in understood], source=f"import {self.row.pk}")
            for (row, _), outcome in zip(understood, outcomes, strict=True):
                if outcome.refused:
                    self.refuse_row(row, outcome.refused.field, outcome.refused.reason)
                elif outcome.profile_no is None:
                    self.withhold(row, outcome.buried[0][0] if outcome.buried else "id", outcome.ignored)
                else:
                    self.batch.accepted += 1
                    self._note(row, outcome.problems)
            privacy.came_back(key for outcome in outcomes for key in outcome.buried)
            refused.keep(self.batch.refused, self.region)
            self.row.rows_read += self.batch.read
            self.row.rows_accepted += self.batch.accepted
            self.row.rows_refused += self.batch.read - self.batch.accepted
            self.row.save(update_fields=["rows_read", "rows_accepted", "rows_refused"])
            faults.point("import.before_commit")
        self.batch = Batch()
        time.sleep(min(time.monotonic() - began, 1.0))

    def _note(self, row: Row, problems: list[Problem]) -> None:
        """The person was taken in, but not all of it: what was left out is on record beside the refused rows."""
        for problem in problems:
            self.refuse_row(row, problem.field, problem.reason)


READERS: dict[str, type[Reader]] = {ImportFile.Kind.EVENTS: _Events, ImportFile.Kind.PROFILES: _People}


def _check_mapping(kind: str, mapping: Mapping[str, str], event_name: str, columns: list[str]) -> None:
    fields, needed = FIELDS_OF[kind]
    for name, column in mapping.items():
        if name not in fields:
            raise ImportRefused(
                f"--map {name}={column}: there is no field “{name}”. The fields are {', '.join(fields)}."
            )
        if column not in columns:
            raise ImportRefused(
                f"--map {name}={column}: the file has no column “{column}”. It has {', '.join(columns[:20])}."
            )
    for name in needed:
        if name not in mapping:
            raise ImportRefused(
                f"Say which column holds the {name}: --map {name}=COLUMN. The file has {', '.join(columns[:20])}."
            )
    if kind == ImportFile.Kind.EVENTS and bool(event_name) == ("name" in mapping):
        raise ImportRefused("Say what the events are called: either --name NAME or --map name=COLUMN.")
    if len(event_name.encode()) > 100:
        raise ImportRefused("--name is longer than 100 bytes.")


def _event_problem(external_id: str, name: str, at: int | None, length: int, received: int) -> Problem | None:
    if not external_id:
        return Problem("profile", "is empty")
    if len(external_id.encode()) > 150:
        return Problem("profile", "is longer than 150 bytes")
    if not name:
        return Problem("name", "is empty")
    if len(name.encode()) > 100:
        return Problem("name", "is longer than 100 bytes")
    if at is None:
        return Problem("time", "is no time: give ISO 8601, such as 2026-03-01T09:30:00Z, or unix seconds")
    if at < 0:
        return Problem("time", "is before 1970")
    if at > received + AHEAD:
        return Problem("time", "is in the future")
    if length > LONGEST_PROPERTIES:
        return Problem("properties", f"are longer than {LONGEST_PROPERTIES:,} characters")
    return None


def _profile_problem(external_id: str, attributes: Mapping[str, Any]) -> Problem | None:
    if not external_id:
        return Problem("id", "is empty")
    if len(external_id.encode()) > 150:
        return Problem("id", "is longer than 150 bytes")
    for name, value in attributes.items():
        if len(name.encode()) > 150:
            return Problem(name, "has a name longer than 150 bytes")
        if isinstance(value, str) and len(value.encode()) > 1_000:
            return Problem(name, "is longer than 1,000 bytes")
    return None


def _moments(values: list[Any]) -> list[int | None]:
    """`moment_of` each. Columns of plain ISO moments, which most are, are read at once."""
    if all(isinstance(value, str) for value in values):
        for kind in (pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
            try:
                moments: list[int | None] = pa.array(values, pa.string()).cast(kind).cast(pa.int64()).to_pylist()
            except pa.ArrowInvalid:
                continue
            if all(moment is not None and moment >= 0 for moment in moments):  # Arrow reads a year 0, Python does not
                return moments
    return [moment_of(value) for value in values]


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else "" if value is None else str(value)


def _raw(row: Row) -> str:
    return orjson.dumps(row.values, default=str).decode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def uploads() -> Path:
    """Where uploaded files wait to be read. They hold personal data and are removed once taken in."""
    folder = Path(settings.DATA_DIR) / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _forget_upload(path: Path) -> None:
    if path.parent == uploads().resolve():
        path.unlink(missing_ok=True)
