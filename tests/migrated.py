"""Databases of their own for tests that drive whole installations: migrated once in a session, copied for each."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

ROOT = Path(__file__).resolve().parents[1]
_FILE = "rollcall.sqlite3"


def fill(folder: Path, database_url: str = "") -> None:
    """What `migrate` makes of nothing, in this data folder or in the empty database that the URL names."""
    if not database_url:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_sqlite() / _FILE, folder / _FILE)
        return
    name = urlsplit(database_url).path.removeprefix("/")
    _run(f'DROP DATABASE "{name}"', f'CREATE DATABASE "{name}" TEMPLATE "{_postgresql()}"')


@functools.cache
def _sqlite() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rollcall-migrated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _migrate(folder, "")
    return folder


@functools.cache
def _postgresql() -> str:
    name = f"rollcall_migrated_{os.getpid()}"
    _run(f'DROP DATABASE IF EXISTS "{name}"', f'CREATE DATABASE "{name}"')
    atexit.register(_run, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    with tempfile.TemporaryDirectory() as folder:
        _migrate(Path(folder), urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl())
    return name


def _run(*statements: str) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def _migrate(folder: Path, database_url: str) -> None:
    environment = {**os.environ, "DATA_DIR": str(folder), "DATABASE_URL": database_url}
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
