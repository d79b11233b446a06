"""Where the lake's files lie and how one comes into being whole or not at all. No tables here, and no Parquet.

Everything else in the lake names a file by its path relative to the root (LAKE_URL, a folder that all processes share).
"""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from audiences import faults

_UNFINISHED = ".part"


def root() -> Path:
    """The lake's folder; it may not exist yet."""
    return Path(settings.LAKE_URL)


def absolute(path: str) -> Path:
    """Where the file of this relative path can be read on this machine."""
    return root() / path


def fresh_path(kind: str, part: str = "") -> str:
    """A relative path that no file has had: `events/2026-04/<id>.parquet`."""
    return "/".join(filter(None, (kind, part, f"{uuid.uuid4().hex}.parquet")))


@contextlib.contextmanager
def writing(path: str) -> Iterator[Path]:
    """Give a scratch path to write to; at the end the file stands at `path`, on the disk, or nothing does."""
    final = absolute(path)
    made = [folder for folder in (final.parent, *final.parent.parents) if not folder.exists()]
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = final.with_name(final.name + _UNFINISHED)
    try:
        yield scratch
        faults.point("file.written")
        _sync(scratch)
        faults.point("file.synced")
        scratch.rename(final)
        faults.point("file.renamed")
        for folder in (final.parent, *(folder.parent for folder in made)):
            _sync(folder)
        faults.point("file.kept")
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def remove(path: str) -> None:
    """Unlink the file if it is there."""
    absolute(path).unlink(missing_ok=True)


def older_than(seconds: float) -> Iterator[str]:
    """Relative paths of all files last written more than so many seconds ago, unfinished ones included."""
    base, limit = root(), time.time() - seconds
    for folder, _, names in os.walk(base):
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):  # renamed or swept since it was listed
                if path.stat().st_mtime < limit:
                    yield path.relative_to(base).as_posix()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
