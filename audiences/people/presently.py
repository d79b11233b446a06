"""A few people as rules see them this moment, with whatever has been accepted until now. What asks about many is people/engines/'s.

A count reads hot events up to a mark below which all are final; here those that were committed a moment ago are read as well, by the
table's own index. What is in files is the engine's to read, and stays the same from one look to the next until there are new files.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from audiences import clock
from audiences.bitmaps import unpack
from audiences.models import PersonList
from audiences.people import engines, lake
from audiences.people.engines import histories
from audiences.people.engines.base import UnreadableLake
from audiences.people.pins import Pinned, Snapshot
from audiences.segments.judge import Occurrence, Person, list_key
from audiences.segments.tree import InCustomerioSegment, InList, Leaf

_TRIES = 3
LATELY = 5 * clock.SECOND  # calls that are committed together bear the moment of the last of them


@dataclass(frozen=True, slots=True)
class Present:
    """People by profile_no, merges applied, and the moment they are to be judged at. Numbers that no profile has are not in it.

    `before`: the same people as if what has lately been accepted had not come.
    """

    people: dict[int, Person]
    before: dict[int, Person]
    as_of_us: int


def people(since: Mapping[int, int], leaves: Iterable[Leaf]) -> Present:
    """These profiles with everything that these leaves ask about, lists included. Raises UnreadableLake.

    `since`: profile_no → from which moment on (µs) what was accepted is lately; what is in files already never is.
    One statement about the events in files whatever the number of people, one about those that are not in files yet.
    """
    asked = list(leaves)
    for left in reversed(range(_TRIES)):
        try:
            return _people(since, asked)
        except UnreadableLake:
            if not left:
                raise
    raise AssertionError("unreachable")


def _people(since: Mapping[int, int], leaves: Sequence[Leaf]) -> Present:
    needed = histories.needed(leaves)
    with lake.one_moment():
        manifest = lake.take_snapshot().manifest
        became = lake.merged_into(since)
        numbers = sorted({*since, *became})
        hot = lake.hot_events_of(numbers, needed.events)
        as_of_us = clock.now_us()
    # The same mark for every look, so that the engine's view of the files is made once for each manifest.
    pin = Pinned(Snapshot(manifest=manifest, hot=0, profiles=0, change_seq=0), as_of_us)
    found = engines.current().people(numbers, pin, needed)
    filed: dict[int, list[Occurrence]] = defaultdict(list)
    for number, person in found.items():
        filed[became.get(number, number)].extend(person.events)
    fresh: dict[int, list[tuple[int, Occurrence]]] = defaultdict(list)
    for number, name, time_us, received_us, given in hot:
        fresh[became.get(number, number)].append((received_us, Occurrence(name, time_us, json.loads(given))))
    lists = _lists_of(found, leaves)
    now: dict[int, Person] = {}
    before: dict[int, Person] = {}
    for number in since.keys() & found.keys():
        own = replace(found[number], events=tuple(filed[number]), lists=frozenset(lists[number]))
        now[number] = replace(own, events=(*own.events, *(event for _, event in fresh[number])))
        earlier = (event for at, event in fresh[number] if at < since[number] - LATELY)
        before[number] = replace(own, events=(*own.events, *earlier))
    return Present(now, before, as_of_us)


def _lists_of(profile_nos: Collection[int], leaves: Iterable[Leaf]) -> dict[int, set[str]]:
    named = {list_key(leaf) for leaf in leaves if isinstance(leaf, InList | InCustomerioSegment)}
    on: dict[int, set[str]] = defaultdict(set)
    for key, number, packed in PersonList.objects.values_list("key", "customerio_segment", "members") if named else ():
        keys = {list_key(InList(key))} | ({list_key(InCustomerioSegment(number))} if number is not None else set())
        if keys & named:
            members = unpack(packed)
            for profile_no in profile_nos:
                if profile_no in members:
                    on[profile_no] |= keys
    return on
