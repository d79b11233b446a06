"""The sandbox's platforms in this process, and what goes wrong on the way to them. Real connectors, real wire formats, no socket.

The platform never hangs on to time that has not come: requests that it applies late wait in its own journal.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from destinations.connectors.base import OutcomeUnknown
from destinations.sandbox.journal import Dial, Journal
from destinations.sandbox.server import App
from destinations.sandbox.store import Audience, Store
from destinations.sandbox.web import Drop, Request, Response
from tests.simulation.clockwork import Clockwork
from tests.simulation.people import Value

TIMEOUT = 30.0  # seconds after which the client gives up
_META = {"EMAIL": "email", "PHONE": "phone", "EXTERN_ID": "external_id"}
_GOOGLE = {"emailAddress": "email", "phoneNumber": "phone"}
_OPENLIST = {"email_sha256": "email", "external_id": "external_id"}


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push carries, read from the wire: `rows` in their order, each a set of what the platform compares."""

    kind: str  # add or remove
    rows: list[set[Value]]

    @property
    def values(self) -> set[Value]:
        return set().union(*self.rows)


class Script(Journal):
    """A journal whose dials are the schedule's: what becomes of the next call is decided when it comes in. It logs nothing."""

    wish: Dial | None = None

    def take_dial(self, platform: str, account: str, op: str, audience: str) -> Dial | None:
        dial, self.wish = self.wish, None
        return dial

    def log(self, **_: Any) -> None:
        pass

    def next_late(self) -> float | None:
        row = self._database.one("SELECT min(due) due FROM late")
        return row["due"] if row else None


class World:
    """One sandbox, kept over many schedules. `clock` is the running schedule's."""

    def __init__(self, folder: Path) -> None:
        self.clock: Clockwork | None = None
        self.store = Store(folder / "platform.sqlite3", now=self._now)
        self.journal = Script(self.store._database, self._now)
        self.store.journal = self.journal
        self.app = App(self.store)
        self.audience: Audience | None = None

    def _now(self) -> float:
        return 0.0 if self.clock is None else self.clock.epoch()

    def begin(self, clock: Clockwork, kind: str, account: str, description: str) -> Audience:
        """An empty audience on an empty platform."""
        self.clock, self.journal.wish = clock, None
        with self.store._database.writing() as db:
            for table in ("member", "audience", "late", "request"):
                db.execute(f"DELETE FROM {table}")
        return self.store.create(kind, account, "audience", description=description)

    def held(self, audience: Audience) -> set[Value]:
        """The platform's own member set."""
        return set(self.store.identifiers(audience))

    def apply_late(self) -> bool:
        """Let what is due take effect; whether anything was."""
        due = self.journal.take_late()
        for text in due:
            self.journal.wish = None
            self.app.handle(Request.thawed(text))
        return bool(due)

    def next_late(self) -> float | None:
        """When something takes effect next, in seconds of the clockwork."""
        due = self.journal.next_late()
        return None if due is None or self.clock is None else due - (self.clock.epoch() - self.clock.t)


# Seconds until the platform has it, seconds until the answer is there, and what befalls it.
Fate = tuple[float, float, Dial | None]


class Wire:
    """The way to the platform. `fate` says what befalls a request; `sent` and `dealt` hear of it on its way there and back."""

    def __init__(
        self,
        world: World,
        fate: Callable[[str, Pushed | None], Fate],
        sent: Callable[[Pushed | None], None],
        dealt: Callable[[Pushed | None, Dial | None, Response | None], None],
    ) -> None:
        self.world, self.fate, self.sent, self.dealt = world, fate, sent, dealt

    def send(self, request: httpx.Request, seconds: float) -> httpx.Response:
        """The answer to a call that may take so many seconds."""
        clock = self.world.clock
        assert clock is not None
        began = clock.t
        clock.point("wire")
        if clock.t - began >= seconds:  # http.Door looks at its deadline before it writes
            raise OutcomeUnknown("The platform did not answer in time.")
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Request(request.method, request.url.raw_path.decode(), headers, request.read())
        op, pushed = understand(asked)
        self.sent(pushed)
        there, back, dial = self.fate(op, pushed)
        if there >= seconds:  # it is on its way, and nobody waits for it any more
            self.world.journal.put_late(clock.epoch() + there, asked.again().frozen())
            self.dealt(pushed, Dial(0, "overslept", {}), None)
            clock.elapse(seconds)
            clock.point("answer")
            raise OutcomeUnknown("The platform did not answer in time.")
        clock.elapse(there)
        self.world.apply_late()
        self.world.journal.wish = dial
        answer: Response | None = None
        with suppress(Drop):
            answer = self.world.app.handle(asked)
        self.world.journal.wish = None
        self.dealt(pushed, dial, answer)
        clock.elapse(min(back, seconds - there))
        clock.point("answer")
        if answer is None:
            raise OutcomeUnknown("The platform dropped the connection before it had answered.")
        if there + back >= seconds:
            raise OutcomeUnknown("The platform did not answer in time.")
        return httpx.Response(answer.status, headers=list(answer.headers), content=answer.body, request=request)


class Line(httpx.BaseTransport):
    """A connector's transport, in the place of connectors.http.Door."""

    def __init__(self, wire: Wire, seconds: float) -> None:
        self._wire, self._seconds = wire, seconds

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._wire.send(request, self._seconds)


def understand(request: Request) -> tuple[str, Pushed | None]:
    """(add, remove, poll or other, and what a push carries)."""
    path, given = request.path, request.fields
    if path.endswith("/users"):
        op, payload = "remove" if given.get("method") == "DELETE" else "add", given["payload"]
        kinds = [_META[name] for name in payload["schema"]]
        rows = [{(kind, value) for kind, value in zip(kinds, row, strict=True) if value} for row in payload["data"]]
    elif "/audienceMembers:" in path:
        op = "add" if path.endswith("ingest") else "remove"
        people = [member["userData"]["userIdentifiers"] for member in given["audienceMembers"]]
        rows = [{(_GOOGLE[name], value) for one in person for name, value in one.items()} for person in people]
    elif "/members:" in path:
        op = path.rpartition(":")[2]
        rows = [{(_OPENLIST[name], value) for name, value in member.items()} for member in given["members"]]
    else:
        return ("poll" if "requestStatus" in path else "other"), None
    return op, Pushed(op, rows)
