"""What every test may lean on, and what none may get away with."""

import os
from collections.abc import Iterator

import pytest
from django.db import connection
from django.db.utils import ConnectionHandler
from django.test import TransactionTestCase

from audiences.models import frozen
from audiences.people import engines, imports


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is about one mode is none of the other's suite; the embedded one runs with nothing installed. CI runs both."""
    other = "embedded" if os.environ.get("DATABASE_URL") and os.environ.get("BROKER_URL") else "server"
    left_out = [item for item in items if item.get_closest_marker(other)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI nothing is skipped: a missing browser or service is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("CI") and exitstatus == 0:
        reporter.write_line(f"{len(skipped)} skipped, and CI skips nothing", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# Every test may read through both aliases.
TransactionTestCase.databases = frozenset({"default", "snapshot"})

_empty_every_table = TransactionTestCase._fixture_teardown


def _empty_what_is_frozen_too(self: TransactionTestCase) -> None:
    """Between tests every row is deleted, which SQLite refuses for published versions and the audit trail. PostgreSQL truncates."""
    if connection.vendor != "sqlite":
        return _empty_every_table(self)
    frozen.remove(connection)
    try:
        _empty_every_table(self)
    finally:
        frozen.install(connection)


TransactionTestCase._fixture_teardown = _empty_what_is_frozen_too


@pytest.fixture
def _snapshot_reads_what_the_test_wrote(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, django_db_setup: None
) -> None:
    """In a test that is one transaction, nobody else sees its rows: there `snapshot` is `default`. Others have both, as in life."""
    marker = request.node.get_closest_marker("django_db")
    commits = marker is not None and (marker.kwargs.get("transaction") or marker.args[:1] == (True,))
    if commits or {"transactional_db", "live_server"} & set(request.fixturenames):
        return
    own = ConnectionHandler.__getitem__
    monkeypatch.setattr(
        ConnectionHandler, "__getitem__", lambda self, alias: own(self, "default" if alias == "snapshot" else alias)
    )


@pytest.fixture
def _django_db_helper(_snapshot_reads_what_the_test_wrote: None, _django_db_helper: None) -> None:
    """pytest-django's own, with the aliases settled before it opens them."""


@pytest.fixture(autouse=True)
def _no_uploads_of_other_tests() -> Iterator[None]:
    before = set(imports.uploads().iterdir())
    yield
    for path in set(imports.uploads().iterdir()) - before:
        path.unlink()


@pytest.fixture(autouse=True)
def _an_engine_that_remembers_no_other_test() -> Iterator[None]:
    """An engine keeps hot rows by their ids, and a test that is rolled back gives its ids out again."""
    yield
    engines.close()
