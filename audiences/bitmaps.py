"""Sets of whole numbers as Roaring bitmaps: to and from bytes and arrays, and through a history of changes. No tables here."""

from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

_CONTAINER = 65_536
_NO_RUNS = 12_346


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
    if np.count_nonzero(mask) * 16 < mask.size:
        return from_sorted(np.flatnonzero(mask))
    return BitMap.deserialize(_serialized(mask))


def _serialized(mask: npt.NDArray[np.bool_]) -> bytes:
    """A mask in Roaring's portable format: many times as fast as telling it the positions, if they are many.

    The format (github.com/RoaringBitmap/RoaringFormatSpec): a cookie and the number of containers; each one's key and
    cardinality − 1; each one's offset; then the containers, 65,536 bits or, up to 4,096 positions, these as uint16.
    """
    missing = -mask.size % _CONTAINER
    rows = np.concatenate([mask, np.zeros(missing, np.bool_)]).reshape(-1, _CONTAINER)
    sizes = np.count_nonzero(rows, axis=1)
    keys = np.flatnonzero(sizes)
    bits = np.packbits(rows, axis=1, bitorder="little")
    containers = [
        bits[key].tobytes() if sizes[key] > 4096 else np.flatnonzero(rows[key]).astype("<u2").tobytes() for key in keys
    ]
    lengths = np.array([len(container) for container in containers])
    header = np.stack([keys, sizes[keys] - 1], axis=1).astype("<u2")
    offsets = (8 + 8 * keys.size + np.cumsum(lengths) - lengths).astype("<u4")
    start = np.array([_NO_RUNS, keys.size], "<u4")
    return b"".join([start.tobytes(), header.tobytes(), offsets.tobytes(), *containers])


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
