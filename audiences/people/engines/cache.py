"""Leaves' answers kept for later: in this process, and as files that all processes of this installation share.

An answer's key says all that it depends on, so nothing is ever invalidated; what has not been used for longest goes first.
A file is whole or it is overlooked. Losing the folder loses only time.
"""

import contextlib
import hashlib
import logging
import os
import threading
import uuid
from collections import OrderedDict
from pathlib import Path

from pyroaring import BitMap

from audiences import bitmaps

logger = logging.getLogger(__name__)

MEMORY_BYTES = 64_000_000
FOLDER_BYTES = 512_000_000
_SWEEP_EVERY = 200  # files written between two looks at the folder's size
_SUM = 32


class Cache:
    """Sets of people by key (bytes). Safe to share by threads."""

    def __init__(self, folder: Path, *, memory_bytes: int = MEMORY_BYTES, folder_bytes: int = FOLDER_BYTES) -> None:
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._folder_bytes = folder_bytes
        self._lock = threading.Lock()
        self._near: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0
        self._written = 0

    def get(self, key: bytes) -> BitMap | None:
        """The set, the caller's own, or None."""
        with self._lock:
            data = self._near.get(key)
            if data is not None:
                self._near.move_to_end(key)
        if data is None:
            data = self._read(key)
            if data is None:
                return None
            self._keep(key, data)
        return bitmaps.unpack(data)

    def put(self, key: bytes, members: BitMap) -> None:
        """Keep the set here and for other processes."""
        data = bitmaps.pack(members)
        self._keep(key, data)
        self._write(key, data)

    def _keep(self, key: bytes, data: bytes) -> None:
        with self._lock:
            self._size += len(data) - len(self._near.pop(key, b""))
            self._near[key] = data
            while self._size > self._memory_bytes:
                _, dropped = self._near.popitem(last=False)
                self._size -= len(dropped)

    def _path(self, key: bytes) -> Path:
        return self._folder / hashlib.sha256(key).hexdigest()

    def _read(self, key: bytes) -> bytes | None:
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        data = content[_SUM:]
        if hashlib.sha256(data).digest() != content[:_SUM]:
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(FileNotFoundError):  # swept since
            os.utime(path)
        return data

    def _write(self, key: bytes, data: bytes) -> None:
        path = self._path(key)
        scratch = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(hashlib.sha256(data).digest() + data)
            scratch.replace(path)
        except OSError as error:  # a full disk must not undo a count that is already made
            logger.warning("an answer could not be kept for later: %s", error)
            with contextlib.suppress(OSError):
                scratch.unlink()
            return
        with self._lock:
            self._written += 1
            due = self._written % _SWEEP_EVERY == 0
        if due:
            self.sweep()

    def sweep(self) -> None:
        """Unlink the files unused for longest until the rest fits."""
        found = []
        for path in self._folder.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # another process sweeps too
                state = path.stat()
                found.append((state.st_mtime_ns, state.st_size, path))
        size = sum(one for _, one, _ in found)
        for _, one, path in sorted(found):
            if size <= self._folder_bytes:
                break
            path.unlink(missing_ok=True)
            size -= one
