"""No log line holds a person's data, not even the traceback of a bug; and each says which request, job and sync it belongs to."""

import json
import logging
import sys

import pytest
from django.conf import settings
from django.db import IntegrityError, OperationalError
from structlog.contextvars import bound_contextvars

from audiences import jobs
from audiences.models import Job
from config.logs import Discreet, FormOnly, formatter, words_of
from destinations.connectors.base import Retryable

MARY = "mary@example.com"


def line(name, message, *args, level=logging.ERROR, json=False, exc_info=None, **extra):
    """As the handler writes it."""
    record = logging.LogRecord(name, level, __file__, 1, message, args, exc_info)
    vars(record).update(extra)
    for log in (settings.LOGGING["loggers"].get(name, {}), settings.LOGGING["handlers"]["console"]):
        for filter_ in log.get("filters", ()):
            {"discreet": Discreet, "form only": FormOnly}[filter_]().filter(record)
    return formatter(json).format(record)


@pytest.mark.parametrize("json", [False, True])
def test_a_traceback_shows_neither_local_variables_nor_the_words_of_an_exception(json):
    try:
        address = MARY
        try:
            raise ValueError(f"no such person: {address}")
        except ValueError as error:
            raise IntegrityError(f"Key (email)=({address}) already exists") from error
    except IntegrityError:
        said = line("audiences", "a bug", json=json, exc_info=sys.exc_info())
    assert "mary" not in said
    for part in ("ValueError", "IntegrityError", "The above was the direct cause of", "test_logs.py"):
        assert part in said


def test_what_a_platform_or_a_database_that_is_away_says_is_kept():
    assert words_of(Retryable("meta answers no more")).endswith("Retryable: meta answers no more")
    assert words_of(OperationalError("connection refused\nby the server")).endswith("connection refused")
    assert words_of(FileNotFoundError(2, "No such file or directory", MARY)) == (
        "FileNotFoundError: No such file or directory"
    )
    assert words_of(KeyError(MARY)) == "KeyError"


def test_an_exception_that_a_message_is_made_of_says_no_more_than_it_may():
    assert "mary" not in line("django.db.backends.base", "Error calling %s", ValueError(MARY))
    assert "mary" not in line("gunicorn.error", ValueError(MARY))


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("Error handling request %s %s", ("PUT", f"/api/v1/customers/{MARY}")),
        (f"Invalid request from ip=10.0.0.1: Invalid HTTP request line: '{MARY}'", ()),
        ("Task %(name)s[%(id)s] %(description)s: %(exc)s", ({"name": "t", "id": 1, "description": "", "exc": MARY},)),
    ],
)
def test_of_a_librarys_messages_the_form_is_kept_and_what_was_filled_in_is_not(message, args):
    said = line("celery.app.trace", message, *args)
    assert "mary" not in said
    assert message.split("%")[0].split("=")[0].strip().split(" from")[0] in said


def test_a_line_carries_what_our_own_code_adds_and_nothing_that_libraries_do():
    assert json.loads(line("audiences.jobs", "job done", json=True, ms=12))["ms"] == 12
    assert "data" not in json.loads(line("celery.worker", "received", json=True, data={"args": MARY}))


def test_a_line_names_the_request_the_job_and_the_sync_it_belongs_to():
    with bound_contextvars(request_id="r-1", job=7, run=3):
        said = json.loads(line("destinations.calls", "x", json=True))
    assert (said["request_id"], said["job"], said["run"], said["logger"]) == ("r-1", 7, 3, "destinations.calls")


@pytest.mark.django_db
def test_what_a_job_logs_names_the_job(caplog):
    handler = logging.StreamHandler()
    said = []
    handler.emit = lambda record: said.append(json.loads(formatter(json=True).format(record)))
    log = logging.getLogger("tests.named")
    log.addHandler(handler)
    try:

        @jobs.job("tests.named")
        def named(claim):
            log.warning("at it")

        jobs.ask("tests.named", "x")
        jobs.run_due_here()
    finally:
        log.removeHandler(handler)
    assert [(one["task"], one["job"]) for one in said] == [("tests.named", Job.objects.get(task="tests.named").pk)]
