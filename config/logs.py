"""How log lines look and what they may say: structlog's console for people, JSON where LOG_JSON is set; never a person's data.

An exception's own words may hold data (a database names the row that it refused), so of all but the harmless ones only kind and place
are logged. What a line carries beside its message (`extra`) is taken from our own code alone.
"""

import logging
import re
import sys
import traceback
from typing import Any

import structlog
from structlog.typing import EventDict

OURS = ("audiences", "destinations", "qa", "config")
_PLACEHOLDER = re.compile(r"%(\(\w+\))?[-+ #0]*\d*(\.\d+)?[a-zA-Z]")
_own_extras = structlog.stdlib.ExtraAdder()


def words_of(error: BaseException) -> str:
    """What may be said of an exception: its kind, and its words where no data of people can be among them."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, OSError):  # its file name is left out: an upload may be named after somebody
        return f"{name}: {error.strerror}" if error.strerror else name
    harmless = kind.__name__ in ("OperationalError", "InterfaceError") or kind.__module__.startswith(
        ("kombu.", "redis.")
    )
    if kind.__module__.split(".")[0] in OURS or harmless:
        return f"{name}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")
    state = getattr(error.__cause__, "sqlstate", None) or getattr(error, "sqlstate", None)
    return f"{name} ({state})" if state else name


def trace_of(error: BaseException) -> str:
    """A traceback without local variables and without words that might be data, causes first."""
    lines: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    chain: list[tuple[BaseException, str]] = []
    joint = ""
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        chain.append((current, joint))
        if current.__cause__ is not None:
            current, joint = current.__cause__, "The above was the direct cause of:"
        else:
            current = None if current.__suppress_context__ else current.__context__
            joint = "While that was handled, another came:"
    for one, said in reversed(chain):
        lines.append("Traceback (most recent call last):")
        lines += (line.rstrip("\n") for line in traceback.format_list(traceback.extract_tb(one.__traceback__)))
        lines.append(words_of(one))
        if said:
            lines.append(said)
    return "\n".join(lines)


def _exception(_: Any, __: str, event: EventDict) -> EventDict:
    """In the place of structlog's own, which prints the words."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else None
    if error is not None:
        event["exception"] = trace_of(error)
    return event


def _extras(logger: Any, method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord | None = event.get("_record")
    if record is not None and record.name.split(".")[0] in OURS:
        return dict(_own_extras(logger, method, event))
    return event


class Discreet(logging.Filter):
    """On the handler: exceptions among a message's arguments say no more than they may."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.msg, BaseException):
            record.msg, record.args = words_of(record.msg), ()
        elif isinstance(record.args, tuple):
            record.args = tuple(words_of(arg) if isinstance(arg, BaseException) else arg for arg in record.args)
        return True


class FormOnly(logging.Filter):
    """On loggers of libraries that write addresses, bodies or others' words into their messages: what was filled in is left out."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        if record.args:
            message = _PLACEHOLDER.sub("…", message)
        elif record.levelno >= logging.WARNING:
            message = message.partition(":")[0].partition("'")[0]
        record.msg, record.args = message, ()
        return True


_shared: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        *_shared,
        _exception,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)


def formatter(json: bool = False) -> logging.Formatter:
    """The formatter that settings.LOGGING asks for."""
    last: Any = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=False)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared, _extras, _exception],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
    )
