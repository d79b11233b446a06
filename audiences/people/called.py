"""What people are called outside, by number, for whoever names many at once: the external ids of the living, merges applied. Reads only.

Who was removed or erased has no name here, and neither has who was never given an external id.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from django.db import connections
from pyroaring import BitMap

from audiences import bitmaps
from audiences.people.lake.hot import read, read_aliases
from audiences.people.lake.manifest import one_moment

Numbers = npt.NDArray[np.uint32]

_IN_FORCE = (
    "SELECT p.profile_no, i.external_id FROM audiences_profile p JOIN audiences_identity i ON i.identity_no = p.identity_no"
    " WHERE p.state = 'live' AND NOT (i.external_id = '') ORDER BY p.profile_no"
)
_NAMED = pa.schema([("profile_no", pa.uint32()), ("external_id", pa.string())])
_CHUNK = 50_000


@dataclass(frozen=True)
class Called:
    """External ids by profile number. About 30 bytes a person, as one Arrow array and one array of places."""

    ids: pa.Array = field(repr=False)
    people: Numbers = field(repr=False)  # the profile numbers that `ids` belong to, ascending
    _place: npt.NDArray[np.int32] = field(repr=False)  # number, also one that was merged → place in `ids`, or −1

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, profile_nos: npt.NDArray[np.integer]) -> pa.Array:
        """The external id of each, null where it has none."""
        places = self._places(profile_nos)
        return self.ids.take(pa.array(places, mask=places < 0))

    def survivors(self, profile_nos: npt.NDArray[np.integer]) -> Numbers:
        """Who each number is today, merges applied; 0 where it is nobody who can be named."""
        places = self._places(profile_nos)
        if not self.people.size:
            return np.zeros(places.size, np.uint32)
        return np.where(places < 0, np.uint32(0), self.people[places]).astype(np.uint32)

    def named(self, people: BitMap) -> int:
        """How many of these have a name."""
        return int(np.count_nonzero(self._places(bitmaps.to_array(people)) >= 0))

    def _places(self, profile_nos: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        known = profile_nos < self._place.size
        if known.all():
            return self._place[profile_nos]
        places = np.full(profile_nos.size, -1, np.int32)
        places[known] = self._place[profile_nos[known]]
        return places


def everybody() -> Called:
    """All who can be named, as they are called in this moment."""
    with one_moment() as cursor:
        batches = list(read(cursor, _IN_FORCE, _NAMED, chunk=_CHUNK))
        aliases = read_aliases(cursor)
    ids = pa.concat_arrays([batch.column(1) for batch in batches]) if batches else pa.array([], pa.string())
    people = np.concatenate([batch.column(0).to_numpy() for batch in batches]) if batches else np.empty(0, np.uint32)
    old, survivors = (aliases[name].to_numpy() for name in ("old_no", "survivor_no"))
    place = np.full(1 + max(int(people.max(initial=0)), int(old.max(initial=0))), -1, np.int32)
    place[people] = np.arange(people.size, dtype=np.int32)
    known = survivors < place.size
    place[old[known]] = place[survivors[known]]
    return Called(ids, people, place)


def merged_people() -> dict[int, int]:
    """old number → survivor of every person (not visitor) who turned out to be somebody else: those may be in past counts."""
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "SELECT old_no, survivor_no FROM audiences_alias a JOIN audiences_profile p ON p.profile_no = a.old_no"
            " WHERE p.kind = 'person'"
        )
        return dict(cursor.fetchall())
