"""What every test may lean on, and what none may get away with."""

import os

import pytest


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI nothing is skipped: a missing browser or service is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("CI") and exitstatus == 0:
        reporter.write_line(f"{len(skipped)} skipped, and CI skips nothing", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
