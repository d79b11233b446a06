"""The urgent worker: reads what has just happened from the change log and writes down what it decides. verdicts.py judges, urgent.py tells platforms.

Decisions, the errands to say them and how far the log was read are committed together. Read twice, a line decides the same.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import DatabaseError, InterfaceError, transaction
from django.utils import timezone

from audiences import faults, jobs
from audiences.people.engines.base import UnreadableLake
from destinations import changes, errands, ledger, verdicts
from destinations.interest import Index, Interest
from destinations.ledger import Decided
from destinations.models import LogCursor
from destinations.verdicts import News

log = logging.getLogger(__name__)

TASK = "destinations.fast_lane"
CURSOR = "fast lane"
LOOK = 0.02  # seconds between looks
AT_ONCE = 2_000  # lines in one look
_KEEP_CURSOR = timedelta(seconds=1)
_LAKE_AGAIN = 0.2


@dataclass(slots=True)
class FastLane:
    """One reader of the change log. `guard`: called inside the transaction that decides; raises if another reader has taken over."""

    guard: Callable[[], None] = lambda: None
    now: Callable[[], datetime] = timezone.now
    index: Index = field(default_factory=Index)
    _mark: int = -1
    _after: int = 0  # how many lines beyond `_mark` there were at the last look
    _seen: dict[int, int] = field(default_factory=dict)  # seq → mark of lines beyond `_mark` that are done
    _kept_at: datetime | None = None

    def look(self) -> int:
        """Decide about whatever has come in since the last look; how many lines there were that matter."""
        if self._mark < 0:
            self._begin()
        final, after, not_final = changes.beyond(self._mark)
        if after == self._after:  # nothing that had not been there at the last look
            self._mark, self._after = max(self._mark, final), not_final
            return 0
        upto = changes.reach(self._mark, AT_ONCE) if after > AT_ONCE else None
        if upto is not None and upto <= final:
            final, not_final = upto, -1
        else:
            upto = None
        interest = self.index.now()
        lines = [line for line in changes.since(self._mark, interest.events, upto=upto) if line.seq not in self._seen]
        faults.point("lane_read")
        found = _judged(interest, verdicts.news_of(lines)) if lines and interest.connections else {}
        self._write(found, final)
        self._mark, self._after = max(self._mark, final), not_final
        self._seen |= {line.seq: line.mark for line in lines}
        self._seen = {seq: mark for seq, mark in self._seen.items() if mark > self._mark}
        return len(lines)

    def _begin(self) -> None:
        """Where the last reader stopped; the very first one begins now, for what came before is in the counts."""
        row, _ = LogCursor.objects.get_or_create(
            name=CURSOR, defaults={"mark": changes.final_mark(), "moved_at": self.now()}
        )
        self._mark = row.mark

    def _write(self, found: Mapping[int, Sequence[Decided]], mark: int) -> None:
        now = self.now()
        if not found and self._kept_at is not None and now - self._kept_at < _KEEP_CURSOR:
            return
        with transaction.atomic():
            self.guard()
            for mapping_id, decisions in found.items():
                ledger.decide(mapping_id, decisions)
            errands.send([pk for pk, decisions in found.items() if any(_urgent(one) for one in decisions)], now=now)
            LogCursor.objects.filter(name=CURSOR).update(mark=mark, moved_at=now)
            faults.point("lane_before_commit")
        faults.point("lane_after_commit")
        self._kept_at = now


def run(
    claim: jobs.Claim,
    *,
    now: Callable[[], datetime] = timezone.now,
    sleep: Callable[[float], None] = time.sleep,
    on: Callable[[], bool] = jobs.go_on,
) -> None:
    """Look again and again while `on`."""
    lane = FastLane(guard=claim.guard, now=now)
    while True:
        try:
            lane.look()
        except UnreadableLake:  # nothing is lost: the lines are read again
            log.warning("the fast lane waits for files of the lake")
            sleep(_LAKE_AGAIN)
        if not on():
            return
        sleep(LOOK)


def _judged(interest: Interest, news: Mapping[int, News]) -> dict[int, list[Decided]]:
    """What is decided of all; where that breaks off, of each alone, so that one person's data does not stop everybody's."""
    try:
        return verdicts.of(interest, news)
    except (UnreadableLake, DatabaseError, InterfaceError):
        raise
    except Exception:
        log.exception("judging broke off; going on one by one", extra={"people": len(news)})
    found: dict[int, list[Decided]] = {}
    for number, one in news.items():
        try:
            for mapping_id, decisions in verdicts.of(interest, {number: one}).items():
                found.setdefault(mapping_id, []).extend(decisions)
        except (UnreadableLake, DatabaseError, InterfaceError):
            raise
        except Exception:  # the next count has them
            log.exception("somebody could not be judged; the next count decides")
    return found


def _urgent(decided: Decided) -> bool:
    return decided.wanted or decided.there
