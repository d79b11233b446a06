"""What the Data Manager API's answers mean: verdicts by reason, receipts, match rates. Nothing is called here."""

import re
from collections.abc import Mapping
from typing import Any

import httpx
import orjson

from destinations.connectors import http
from destinations.connectors.base import ConnectorError, Misconfigured, OutcomeUnknown, Rejected, Retryable

_MATCHED_PERCENT = re.compile(r"MATCH_RATE_RANGE_(?:LESS_THAN_(?P<below>\d+)|(?P<low>\d+)_TO_(?P<high>\d+))")
_MEMBER_FIELD = re.compile(r"audience_?members\[(\d+)\]", re.IGNORECASE)
_GONE = {"INVALID_USER_LIST_ID", "NOT_FOUND"}
_TERMS = {"TERMS_AND_CONDITIONS_NOT_SIGNED"}


def matched_range(said: str, records: int) -> tuple[int | None, int | None]:
    """How many of `records` a match-rate range means: shares in [20 %, 31 %) and so on, [91 %, 100 %] the last. None: not said."""
    found = _MATCHED_PERCENT.fullmatch(said)
    if found is None:
        return None, None
    low = int(found["low"] or 0)
    end = int(found["below"]) if found["below"] else int(found["high"]) + 1
    at_least = -(-low * records // 100)
    at_most = records if end > 100 else max(-(-end * records // 100) - 1, at_least)
    return at_least, at_most


def verdict(response: httpx.Response, numbers: list[int], account: str) -> ConnectorError:
    """By status and reason. Google's own words are not passed on: they may repeat what was sent."""
    try:
        answer = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        answer = None
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return http.refusal(response)
    details = [detail for detail in error.get("details") or [] if isinstance(detail, dict)]
    reasons = [str(detail["reason"]) for detail in details if "reason" in detail]
    reason = _name(next(iter(reasons), error.get("status")), str(response.status_code))
    status = response.status_code
    if status == 429:
        return Retryable(
            f"Google asks for fewer calls ({reason}).", after=_retry_delay(details, response), throttled=True
        )
    if status == 401:
        return Misconfigured(f"Google does not accept the credentials ({reason}). Reconnect.", code="reconnect")
    if reason in _GONE:
        return Misconfigured(f"Google knows no such list in {dashed(account)} ({reason}).", code="audience_gone")
    if reason in _TERMS:
        words = f"Google's Customer Match terms are not accepted in {dashed(account)}: an admin accepts them in Audience manager."
        return Misconfigured(words, code="terms")
    if reason == "DISPLAY_NAME_ALREADY_USED":
        return Misconfigured("Google has another list of that name: adopt it by its id, or choose another name.")
    if status == 403:
        return Misconfigured(f"Google does not allow this ({reason}).", code="permission")
    if status == 503:
        return Retryable(f"Google is not available ({reason}).", after=_retry_delay(details, response))
    if status >= 500:
        return OutcomeUnknown(f"Google failed without saying whether it had applied the call ({reason}).")
    return Rejected(f"Google refused the call's content ({reason}).", code=reason, rows=_named_rows(details, numbers))


def _named_rows(details: list[dict[str, Any]], numbers: list[int]) -> dict[int, tuple[str, str]]:
    """The identities at which Google pointed: a single bad member fails the whole call, and applies none of it."""
    rows = {}
    for detail in details:
        for violation in detail.get("fieldViolations") or []:
            found = _MEMBER_FIELD.search(str(violation.get("field", "")))
            if found and int(found[1]) < len(numbers):
                reason = _name(violation.get("reason"), "INVALID")
                rows[numbers[int(found[1])]] = (reason, f"Google found this person's identifiers invalid ({reason}).")
    return rows


def _retry_delay(details: list[dict[str, Any]], response: httpx.Response) -> float | None:
    for detail in details:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay", "")))
        if found:
            return min(float(found[1]), http.LONGEST_PAUSE)
    return http.pause(response)


def error_counts(told: Mapping[str, Any]) -> dict[str, int]:
    """Reason → records, of a receipt."""
    info = told.get("errorInfo")
    counts = info.get("errorCounts") if isinstance(info, dict) else None
    return {
        _name(each.get("reason"), "NOT_SAID"): count(each.get("recordCount")) or 0
        for each in counts or []
        if isinstance(each, dict)
    }


def detail(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """The counts of a receipt, whichever type of data they are of."""
    outer = told.get("audienceMembersIngestionStatus") or told.get("audienceMembersRemovalStatus") or {}
    inner = next((value for value in outer.values() if isinstance(value, dict)), {}) if isinstance(outer, dict) else {}
    return inner


def field_warnings(answer: Mapping[str, Any]) -> tuple[str, ...]:
    warnings = answer.get("fieldWarnings")
    if not isinstance(warnings, list) or not warnings:
        return ()
    reasons = {_name(warning.get("reason"), "NOT_SAID") for warning in warnings if isinstance(warning, dict)}
    return (f"{len(warnings)} warnings of Google's: {', '.join(sorted(reasons))}"[:300],)


def _name(value: object, otherwise: str) -> str:
    """An enum's name. Anything else could repeat what was sent, and is not passed on."""
    return value if isinstance(value, str) and re.fullmatch(r"[A-Z0-9_]{1,80}", value) else otherwise


def count(value: object) -> int | None:
    """A count; Google's JSON writes 64-bit numbers as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None


def dashed(account: str) -> str:
    return f"{account[:3]}-{account[3:6]}-{account[6:]}" if len(account) == 10 else account
