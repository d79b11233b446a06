"""Personal data as pages show it to those who may not see it whole: enough to recognise, too little to use."""

import json
import re
from typing import Any

_EMAIL = re.compile(r"^[^@\s]+@[^@\s]+$")
_PHONE = re.compile(r"^\+?[\d\s().-]{7,}$")
DOTS = "•••"
# Attributes whose values name a person; any value that looks like an e-mail or a phone is masked wherever it stands.
PERSONAL = re.compile(
    r"e.?mail|phone|mobile|msisdn|name|street|address|zip|post.?code|birth|ip$|ip_|idfa|gaid|advertis", re.IGNORECASE
)


def email(text: str) -> str:
    """a•••@g•••.com"""
    local, _, domain = text.partition("@")
    host, dot, ending = domain.rpartition(".")
    return f"{local[:1]}{DOTS}@{(host or ending)[:1]}{DOTS}{dot}{ending if host else ''}"


def phone(text: str) -> str:
    """+49•••42"""
    text = re.sub(r"[\s().-]", "", text)
    return f"{text[:3]}{DOTS}{text[-2:]}"


def word(text: str) -> str:
    """M•••"""
    return f"{text[:1]}{DOTS}" if text else ""


def identifier(text: str) -> str:
    """00•••42: an id that can be told from the others of a short list."""
    return f"{text[:2]}{DOTS}{text[-2:]}" if len(text) > 5 else word(text)


def value(name: str, content: Any) -> str:
    """An attribute's value, masked if its name or its form says that it is personal."""
    text = content if isinstance(content, str) else str(content)
    if _EMAIL.match(text.strip()):
        return email(text.strip())
    if _PHONE.match(text.strip()) and (text.strip().startswith("+") or PERSONAL.search(name)):
        return phone(text.strip())
    return word(text) if PERSONAL.search(name) else text


def raw(text: str, *, cells: int = 12) -> str:
    """A refused row or call, kept as JSON: each value's first letter, so that its shape can be seen."""
    try:
        kept = json.loads(text)
    except ValueError:
        return word(text)
    if isinstance(kept, dict):
        return " · ".join(f"{name} {_cell(content)}" for name, content in list(kept.items())[:cells])
    values = kept if isinstance(kept, list) else [kept]
    return " · ".join(_cell(content) for content in values[:cells])


def _cell(content: Any) -> str:
    return "–" if content in (None, "") else "{•••}" if isinstance(content, dict | list) else word(str(content))
