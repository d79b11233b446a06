"""No log line holds a person's data, not even the traceback of a bug."""

import logging
import sys

import pytest

from config.logs import formatter


@pytest.mark.parametrize("json", [False, True])
def test_a_traceback_shows_no_local_variables(json):
    try:
        address = "mary@example.com"
        assert address
        raise ValueError("broke off")
    except ValueError:
        record = logging.LogRecord("audiences", logging.ERROR, __file__, 1, "a bug", None, sys.exc_info())
    line = formatter(json).format(record)
    assert "ValueError" in line
    assert "mary" not in line
