"""Which process holds a lease, so that one that is known to be dead need not be waited for."""

import os
import socket
from pathlib import Path


def me() -> str:
    """This process, by a name that no other process of this machine and container has had."""
    return _process(os.getpid())


def is_dead(holder: str) -> bool:
    """Whether this machine can tell that the holder has ended. Of other machines' processes it can not."""
    parts = holder.split(":")
    if len(parts) != 4 or parts[:2] != me().split(":")[:2]:
        return False
    return _process(int(parts[2])) != holder


def _process(pid: int) -> str:
    """ "" where there is no such process. Where the system does not say when it started, fewer parts: never taken for dead."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        space = Path("/proc/self/ns/pid").stat().st_ino
    except FileNotFoundError:
        return "" if Path("/proc/self").exists() else f"{socket.gethostname()}:{pid}"
    return f"{socket.gethostname()}:{space}:{pid}:{started}"
