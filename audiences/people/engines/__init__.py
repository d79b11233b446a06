"""Engines answer leaves (base.py says how). Here is which one this process uses."""

import atexit
import contextlib
import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from audiences.people.engines.duckdb import DuckDB

_lock = threading.Lock()
_current: "dict[int, DuckDB]" = {}  # by process: a fork must not use its parent's threads and files


def current() -> "DuckDB":
    """This process's engine, made on first use as ENGINE_URL says."""
    # Imported here: the lake, which an engine reads, itself needs base.py's words.
    from audiences.people.engines.cache import Cache
    from audiences.people.engines.duckdb import DuckDB

    with _lock:
        if os.getpid() not in _current:
            if settings.ENGINE_URL != "duckdb://":
                raise ImproperlyConfigured(
                    f"ENGINE_URL is {settings.ENGINE_URL}; the only engine there is is duckdb://"
                )
            data = Path(settings.DATA_DIR)
            _forget_spilled(data / "spill")
            _current[os.getpid()] = DuckDB(
                memory=settings.ENGINE_MEMORY,
                threads=settings.ENGINE_THREADS,
                folder=data / "spill" / f"{_mine()}{os.getpid()}",
                cache=Cache(data / "cache"),
            )
        return _current[os.getpid()]


@atexit.register
def close() -> None:
    """Let go of this process's engine; the next use makes a new one."""
    with _lock:
        engine = _current.pop(os.getpid(), None)
    if engine:
        engine.close()


def _mine() -> str:
    """Containers that share the data folder have the same process ids, so a name begins with the machine's."""
    return f"engine-{socket.gethostname()}-"


def _forget_spilled(folder: Path) -> None:
    """Remove what killed processes had spilled, a day later, so that a folder that machines share is no matter."""
    yesterday = time.time() - 86_400
    for left in folder.glob("engine-*"):
        with contextlib.suppress(FileNotFoundError):  # another process was first
            lives = left.name.startswith(_mine()) and Path("/proc", left.name.removeprefix(_mine())).exists()
            if left.stat().st_mtime < yesterday and not lives:
                shutil.rmtree(left)
