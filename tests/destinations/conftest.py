"""A sandbox process that the tests of this floor share; each test takes an account of its own in it."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from destinations.sandbox import control

_numbers = itertools.count(1000)


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control.Sandbox]:
    """The control client of a running sandbox; its `base_url` is what destinations point at."""
    folder: Path = tmp_path_factory.mktemp("sandbox")
    with control.started(folder) as running:
        yield running


@pytest.fixture
def account_number(sandbox: control.Sandbox) -> str:
    """An account number that no other test uses."""
    return str(next(_numbers))


# Its subject is a PostgreSQL, which the embedded suite does without: there it is no test, rather than one that is skipped.
collect_ignore = [] if os.environ.get("DATABASE_URL") else ["test_warehouse.py"]
