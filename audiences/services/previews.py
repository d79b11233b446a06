"""Counting a rule while it is edited: on data that stays the same until the person has it recounted, and only what they asked last.

A newer question breaks an older count off: at once in this process, before its next statement in any other. What takes too long to be
waited for is counted by a job, which leaves the answers where the next question finds them. What is counted is audiences/preview.py's.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import F

from audiences import clock, jobs
from audiences.models import Audience, Preview, User
from audiences.people import lake
from audiences.people.engines.base import Pinned, Stop
from audiences.segments import grammar
from audiences.segments.tree import Node

TASK = "audiences.preview"
HOLD = timedelta(minutes=30)  # how long the files of an editor's pin are kept after its last question
NEWER, LATE = "a newer question was asked", "it takes too long to be waited for"


@dataclass(frozen=True, slots=True)
class Question:
    """The `asked`-th question of one person's editor, and the data it is about."""

    preview_id: int
    asked: int
    pin: Pinned

    def newest(self) -> bool:
        """Whether nothing was asked after it."""
        return Preview.objects.filter(pk=self.preview_id, asked=self.asked).exists()


@dataclass(frozen=True, slots=True)
class Last:
    """What one person's editor asked last: the rule, and whether it is being counted in the background, or why it could not be.

    `question` None: its data has not been kept, for nobody has asked for half an hour.
    """

    asked: int
    segment: str
    question: Question | None
    in_background: bool
    trouble: str


def ask(*, actor: User, audience: Audience, tree: Node, recount: bool = False) -> Question:
    """Put the newest question. `recount`: about the data as it is now, instead of what the editor has counted on so far."""
    row, _ = Preview.objects.get_or_create(audience=audience, user=actor)
    kept = None if recount else _kept(row)
    pin = kept or lake.pin(clock.now_us(), hold=HOLD)
    with transaction.atomic():
        mine = Preview.objects.filter(pk=row.pk)
        mine.update(
            asked=F("asked") + 1, pin=pin.pin_id, segment=grammar.canonical(tree), in_background=False, trouble=""
        )
        asked = mine.values_list("asked", flat=True).get()
        if kept is None and row.pin_id is not None:
            lake.let_go(Pinned(pin.snapshot, pin.as_of_us, row.pin_id))
    question = Question(row.pk, asked, pin)
    _stop_older(question)
    return question


def hand_over(question: Question) -> None:
    """Have it counted in the background, unless a newer one has been asked."""
    if Preview.objects.filter(pk=question.preview_id, asked=question.asked).update(in_background=True):
        jobs.ask(TASK, question.preview_id)


def last(*, actor: User, audience: Audience) -> Last | None:
    """None: nothing was asked yet."""
    return _last(Preview.objects.filter(audience=audience, user=actor).first())


def in_background(preview_id: int) -> tuple[Last, Audience] | None:
    """What is to be counted in the background, if it still is."""
    row = Preview.objects.select_related("audience__live_version").filter(pk=preview_id, in_background=True).first()
    found = _last(row)
    return (found, row.audience) if found and row else None


def settle(question: Question, trouble: str = "") -> None:
    """It is counted in the background no more: the answers are there, or `trouble` says why not."""
    mine = Preview.objects.filter(pk=question.preview_id, asked=question.asked)
    mine.update(in_background=False, trouble=trouble)


@contextmanager
def stoppable(question: Question) -> Iterator[Stop]:
    """What runs inside is told to stop when a newer question comes to this process."""
    stop = Stop()
    with _lock:
        asked, _ = _under_way.get(question.preview_id, (0, stop))
        if asked > question.asked:
            stop.now(NEWER)
        else:
            _under_way[question.preview_id] = question.asked, stop
    try:
        yield stop
    finally:
        with _lock:
            if _under_way.get(question.preview_id, (0, None))[1] is stop:
                del _under_way[question.preview_id]


_lock = threading.Lock()
_under_way: dict[int, tuple[int, Stop]] = {}


def _stop_older(question: Question) -> None:
    with _lock:
        asked, stop = _under_way.get(question.preview_id, (0, None))
    if stop is not None and asked < question.asked:
        stop.now(NEWER)


def _last(row: Preview | None) -> Last | None:
    if row is None or not row.segment:
        return None
    pin = _kept(row)
    question = Question(row.pk, row.asked, pin) if pin else None
    return Last(row.asked, row.segment, question, row.in_background, row.trouble)


def _kept(row: Preview) -> Pinned | None:
    """The editor's pin, held on to; None: it has none, or it has run out."""
    if row.pin_id is None:
        return None
    try:
        return lake.repin(row.pin_id, hold=HOLD / 2)  # written anew only every so often
    except lake.SnapshotGone:
        return None
