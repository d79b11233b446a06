"""Counting audiences: one pin for all that are due, one answer per leaf, one short transaction per audience.

What a rule means is segments/; who answers leaves is people/engines/. Past counts are read by history.py.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from pyroaring import BitMap

from audiences import bitmaps, clock, faults, history, vocabulary
from audiences.models import Alias, Audience, Membership, PersonList, Refresh, User
from audiences.people import engines, lake
from audiences.people.engines.base import Pinned, Stop, UnreadableLake
from audiences.segments import evaluate, grammar
from audiences.segments.evaluate import Computed
from audiences.segments.judge import list_key
from audiences.segments.tree import InCustomerioSegment, InList, Node, leaves
from audiences.services import trail

log = logging.getLogger(__name__)

KEYFRAME_EVERY = 32
HOLD = timedelta(minutes=30)  # how long the files of a pin are kept for a count that takes long
ABANDONED = timedelta(minutes=30)
DAILY_KEPT = 91  # days of counts kept beside the members, for lists and small charts
LATE_COMMIT = timedelta(minutes=1)  # an alias may be stamped before the pin and committed after it


class NothingToCount(Exception):
    """The audience has no rule that could be counted, in words."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What can be counted (references resolved), and what cannot and why."""

    trees: Mapping[str, Node]
    problems: Mapping[str, str]


def refresh(
    audiences: Iterable[Audience], *, cause: str, as_of_us: int | None = None, actor: User | None = None
) -> dict[str, Refresh]:
    """Count these audiences' live versions now (or as of the moment given) and make the result what is live.

    One pin for all. Returns each audience's Refresh by key: done, or failed with words in `error` and its members untouched.
    Where a newer count, or a newer version, went live meanwhile, that one stays and is returned. Raises NothingToCount.
    """
    rows = _countable(audiences)
    rules = rules_of(rows)
    now = clock.now_us() if as_of_us is None else as_of_us
    with pinned(now) as pin:
        running = _begin(rows, cause, pin)
        for key, words in rules.problems.items():
            _fail(running[key], words, invalid=True)
        computed = _compute(rules.trees, pin, running)
    faults.point("count.computed")
    done: dict[str, Refresh] = {}
    for audience in rows:
        counting = running[audience.key]
        if audience.key in computed:
            counting = _record(audience, counting, computed[audience.key])
        done[audience.key] = counting
        if actor is not None:
            trail.record(actor, "audience.refreshed", "audience", audience.key, after={"count": counting.count})
    return done


def compute_as_of(audiences: Sequence[Audience], as_of_us: int) -> dict[str, Computed]:
    """Members and rule counts as of a past moment, by key; nothing live is touched, nothing is written.

    Past events, today's attributes, consent, lists and deletions. Raises NothingToCount where a rule cannot be counted.
    """
    rows = _countable(audiences)
    rules = rules_of(rows)
    for key, words in rules.problems.items():
        raise NothingToCount(f"{key}: {words}")
    with pinned(as_of_us) as pin:
        return evaluate.compute(rules.trees, pin, engines.current(), lists_of(rules.trees.values()))


def members_of(tree: Node, pin: Pinned, stop: Stop | None = None) -> BitMap:
    """Whom one rule finds, its references resolved. Nothing is kept. Raises UnreadableLake, and Stopped once `stop` was told so."""
    return evaluate.compute({"": tree}, pin, engines.current(), lists_of([tree]), stop)[""].members


def pinned(as_of_us: int) -> AbstractContextManager[Pinned]:
    """What people and events are there now, held still until the block ends."""
    return lake.pinned(as_of_us, hold=HOLD)


def hold(pin: Pinned) -> None:
    """Keep the pin for as long again. Raises lake.SnapshotGone if it ran out."""
    assert pin.pin_id is not None
    lake.repin(pin.pin_id, hold=HOLD)


def rules_of(audiences: Sequence[Audience]) -> Rules:
    """The live rules of these audiences, references inlined; or why they cannot be counted here and now."""
    names, live = vocabulary.known(), vocabulary.live_rules()
    trees: dict[str, Node] = {}
    problems: dict[str, str] = {}
    for audience in audiences:
        assert audience.live_version is not None
        tree = vocabulary.rule(audience.live_version.segment)
        found = names.problems(tree)
        if found:
            problems[audience.key] = "; ".join(map(str, found))
            continue
        try:
            resolved = grammar.resolve(tree, live)
        except grammar.Refused as refused:
            problems[audience.key] = str(refused)
            continue
        # What a reference brings in must be known too: the rule it names may have been published when it was.
        found = names.problems(resolved)
        if found:
            problems[audience.key] = "an audience it refers to cannot be counted: " + "; ".join(map(str, found))
        else:
            trees[audience.key] = resolved
    return Rules(trees, problems)


def lists_of(trees: Iterable[Node]) -> dict[str, BitMap]:
    """The members, now, of the lists that these rules name, by `list_key`."""
    named = {leaf for tree in trees for _, leaf in leaves(tree) if isinstance(leaf, InList | InCustomerioSegment)}
    keys = [leaf.key for leaf in named if isinstance(leaf, InList)]
    numbers = [leaf.id for leaf in named if isinstance(leaf, InCustomerioSegment)]
    rows = PersonList.objects.filter(Q(key__in=keys) | Q(customerio_segment__in=numbers))
    found: dict[str, BitMap] = {}
    for key, number, packed in rows.values_list("key", "customerio_segment", "members"):
        found[list_key(InList(key))] = members = bitmaps.unpack(packed)
        if number is not None:
            found[list_key(InCustomerioSegment(number))] = members
    return found


def give_up_abandoned() -> int:
    """Counts whose worker died end as failed, so that no page says "Counting…" for ever; how many."""
    stale = Refresh.objects.filter(state=Refresh.State.RUNNING, started_at__lt=timezone.now() - ABANDONED)
    return stale.update(
        state=Refresh.State.FAILED,
        error="The worker stopped before it had finished; it is counted again.",
        finished_at=timezone.now(),
    )


def _countable(audiences: Iterable[Audience]) -> list[Audience]:
    keys = {audience.pk: audience.key for audience in audiences}
    rows = list(Audience.objects.filter(pk__in=keys).select_related("live_version").order_by("key"))
    for audience in rows:
        if audience.archived_at:
            raise NothingToCount(f"{audience.key} is archived")
        if audience.live_version is None:
            raise NothingToCount(f"{audience.key} has no published rule yet")
    return rows


def _begin(audiences: Sequence[Audience], cause: str, pin: Pinned) -> dict[str, Refresh]:
    made = Refresh.objects.bulk_create(
        Refresh(
            audience=audience,
            version=audience.live_version,
            cause=cause,
            as_of_us=pin.as_of_us,
            manifest=pin.snapshot.manifest,
            hot=pin.snapshot.hot,
            change_seq=pin.snapshot.change_seq,
        )
        for audience in audiences
    )
    return {counting.audience.key: counting for counting in made}


def _compute(trees: Mapping[str, Node], pin: Pinned, running: Mapping[str, Refresh]) -> dict[str, Computed]:
    """All at once; where that breaks off, one by one, so that one audience's trouble does not stop the others."""
    if not trees:
        return {}
    engine, lists = engines.current(), lists_of(trees.values())
    try:
        return evaluate.compute(trees, pin, engine, lists)
    except UnreadableLake:
        for key in trees:
            _fail(
                running[key], "Files of the event history could not be read, three times in a row. It is tried again."
            )
        return {}
    except Exception:
        log.exception("counting broke off; going on one by one", extra={"audiences": len(trees)})
    computed = {}
    for key, tree in trees.items():
        try:
            computed.update(evaluate.compute({key: tree}, pin, engine, lists))
        except Exception as error:
            log.exception("audience could not be counted", extra={"audience": key})
            _fail(running[key], f"The count broke off ({type(error).__name__}); the log has the details.")
    return computed


def _record(audience: Audience, counting: Refresh, computed: Computed) -> Refresh:
    """Make it live, unless something newer is. Returns the Refresh that is live afterwards."""
    with transaction.atomic():
        current = Audience.objects.select_for_update().get(pk=audience.pk)
        membership = Membership.objects.select_for_update().filter(audience=audience).first()
        before = _light().get(pk=membership.refresh_id) if membership else None
        if before is not None and _age(before) > _age(counting):
            counting.delete()
            return before
        if current.archived_at or current.live_version_id != counting.version_id:
            counting.delete()  # what it would say is not true any more
            counting.state, counting.error = (
                Refresh.State.FAILED,
                "Another version went live meanwhile; that one is counted next.",
            )
            return counting
        members = _merged_meanwhile(computed.members, counting)
        previous = _members_before(membership, before)
        fill(counting, members, previous, keyframe=_keyframe_due(audience))
        counting.rule_counts = dict(computed.rule_counts)
        counting.save()
        packed = bitmaps.pack(members)
        values = {
            "refresh": counting,
            "members": packed,
            "count": len(members),
            "digest": hashlib.sha256(packed).hexdigest(),
            "daily": with_days(membership.daily if membership else _backfilled(audience), [counting]),
        }
        Membership.objects.update_or_create(audience=audience, defaults=values)
        next_due = counting.started_at + timedelta(seconds=current.cadence_seconds)
        Audience.objects.filter(pk=audience.pk).update(
            invalid_reason="", refresh_due_at=next_due, refresh_cause=Refresh.Cause.SCHEDULE
        )
        faults.point("count.before_commit")
    return counting


def fill(counting: Refresh, members: BitMap, previous: BitMap | None, *, keyframe: bool) -> None:
    """What a finished count says. `previous` None: there was none, so nobody is said to have entered or left."""
    counting.count = len(members)
    if previous is not None:
        entered, left = members - previous, previous - members
        counting.entered, counting.left = bitmaps.pack(entered), bitmaps.pack(left)
        counting.entered_count, counting.left_count = len(entered), len(left)
    if keyframe or previous is None:
        counting.keyframe = bitmaps.pack(members)
    counting.state, counting.error, counting.finished_at = Refresh.State.DONE, "", timezone.now()


def with_days(daily: Sequence[Sequence[Any]], counts: Iterable[Refresh], *, earlier: bool = False) -> list[list[Any]]:
    """The counts of the days with these added. Of one day the later count stays: these, unless they are `earlier`."""
    known = {day: count for day, count in daily}  # noqa: C416  its rows are lists, not pairs, to mypy
    added = {clock.from_us(counting.as_of_us).date().isoformat(): counting.count for counting in counts}
    days = {**added, **known} if earlier else {**known, **added}
    return [[day, days[day]] for day in sorted(days)[-DAILY_KEPT:]]


def _light() -> QuerySet[Refresh]:
    """Without the sets, which may be large."""
    return Refresh.objects.defer("keyframe", "entered", "left", "rule_counts")


def _age(counting: Refresh) -> tuple[int, int, int]:
    return counting.as_of_us, counting.manifest, counting.hot


def _members_before(membership: Membership | None, before: Refresh | None) -> BitMap | None:
    """As the last count left them. Where a merge or a removal has changed the stored members since, history is replayed:
    entered and left must follow on from it, or it could not be replayed later."""
    if membership is None or before is None:
        return None
    if hashlib.sha256(bytes(membership.members)).hexdigest() == membership.digest:
        return bitmaps.unpack(membership.members)
    return history.members_at(before)


def _merged_meanwhile(members: BitMap, counting: Refresh) -> BitMap:
    """Merges committed after the pin have already moved the stored members; the new ones must not undo that."""
    recent = Alias.objects.filter(merged_at__gte=counting.started_at - LATE_COMMIT)
    pairs = [(old, survivor) for old, survivor in recent.values_list("old_no", "survivor_no") if old in members]
    if not pairs:
        return members
    return (members - BitMap(old for old, _ in pairs)) | BitMap(survivor for _, survivor in pairs)


def _backfilled(audience: Audience) -> list[list[Any]]:
    past = _light().filter(audience=audience, cause=Refresh.Cause.BACKFILL, state=Refresh.State.DONE)
    return with_days([], past.order_by("as_of_us"))


def _keyframe_due(audience: Audience) -> bool:
    live = Refresh.objects.filter(audience=audience, state=Refresh.State.DONE).exclude(cause=Refresh.Cause.BACKFILL)
    recent = live.order_by("-as_of_us", "-id").values_list("pk", flat=True)[: KEYFRAME_EVERY - 1]
    return not Refresh.objects.filter(pk__in=list(recent), keyframe__isnull=False).exists()


def _fail(counting: Refresh, words: str, *, invalid: bool = False) -> None:
    """Say why; the members stay as they are. It is tried again when it is due."""
    counting.state, counting.error, counting.finished_at = Refresh.State.FAILED, words, timezone.now()
    with transaction.atomic():
        counting.save(update_fields=["state", "error", "finished_at"])
        audience = Audience.objects.select_for_update().get(pk=counting.audience_id)
        if audience.live_version_id != counting.version_id or audience.archived_at:
            return
        audience.refresh_due_at = timezone.now() + timedelta(seconds=audience.cadence_seconds)
        audience.refresh_cause = Refresh.Cause.SCHEDULE
        if invalid:
            audience.invalid_reason = words
        audience.save(update_fields=["refresh_due_at", "refresh_cause", "invalid_reason"])
