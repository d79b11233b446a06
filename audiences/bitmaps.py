"""Sets of whole numbers as Roaring bitmaps: to and from bytes and arrays, and through a history of changes. No tables here."""

from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap


def pack(bitmap: BitMap) -> bytes:
    """The bytes that a BinaryField keeps. The empty set is b""."""
    if not bitmap:
        return b""
    bitmap.run_optimize()
    return bitmap.serialize()


def unpack(data: bytes | memoryview | None) -> BitMap:
    """The set that `pack` wrote."""
    return BitMap.deserialize(bytes(data)) if data else BitMap()


def from_mask(mask: npt.NDArray[np.bool_]) -> BitMap:
    """The positions that are true."""
    return from_sorted(np.flatnonzero(mask))


def from_sorted(numbers: npt.NDArray[np.integer]) -> BitMap:
    """A set from ascending numbers; array('I') because pyroaring walks any other sequence object by object."""
    return BitMap(array("I", numbers.astype(np.uint32, copy=False).tobytes()))


def to_array(bitmap: BitMap) -> npt.NDArray[np.uint32]:
    """The members, ascending."""
    return np.frombuffer(bitmap.to_array(), dtype=np.uint32) if bitmap else np.empty(0, np.uint32)


def replay(keyframe: BitMap, changes: Iterable[tuple[BitMap, BitMap]]) -> BitMap:
    """The keyframe after each (entered, left) in turn."""
    members = BitMap(keyframe)
    for entered, left in changes:
        members |= entered
        members -= left
    return members
