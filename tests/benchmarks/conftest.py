"""Prints the table of figures when the benchmarks are done."""

import pytest

from tests.benchmarks import report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if report.lines:
        terminalreporter.write_line("")
        terminalreporter.write_line(f"Measured on {report.machine()}")
        terminalreporter.write_line(report.table())
