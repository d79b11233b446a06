"""The sandbox itself: what it holds survives a kill, it is fast enough not to be what is measured, and its pages show no one."""

import hashlib
import re
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pyarrow as pa
import pytest
from facebook_business.adobjects.customaudience import CustomAudience
from facebook_business.api import FacebookAdsApi
from facebook_business.session import FacebookSession

from destinations import identifiers, secrets
from destinations.connectors import registry
from destinations.connectors.base import Push, Retryable
from destinations.sandbox import control, google, meta, store
from destinations.sandbox.control import Sandbox
from destinations.sandbox.store import MATCHABLE_PERCENT, is_matchable


def opened(sandbox: Sandbox, number: str, seconds: float = 20.0):
    """The Meta connector of an account of the sandbox."""
    destination = SimpleNamespace(
        pk=1,
        kind="meta",
        base_url=sandbox.base_url,
        config={"ad_account_id": number},
        credentials=secrets.seal({"access_token": "a token"}, "1"),
    )
    return registry.open(destination, seconds=seconds)


def people(start: int, count: int) -> pa.Table:
    numbers = range(start, start + count)
    return pa.table(
        {
            "identity_no": pa.array(numbers, pa.int64()),
            "email": [f"person.{n}@example.com" for n in numbers],
            "phone": [f"+49151{n:08d}" for n in numbers],
        }
    )


def add(remote_id: str, table: pa.Table, operation: int = 1) -> Push:
    return Push("add", remote_id, operation, table, ("email", "phone"))


def hashes(table: pa.Table) -> set[tuple[str, str]]:
    return {(kind, value) for kind in ("email", "phone") for value in identifiers.META[kind].of_all(table.column(kind))}


@pytest.fixture
def process(tmp_path: Path) -> Iterator[control.Process]:
    """A sandbox of one's own to kill, not started yet."""
    own = control.Process(tmp_path)
    yield own
    own.kill()


def test_what_was_answered_survives_kill_9(process):
    sandbox = process.start()
    with opened(sandbox, "1") as connector:
        remote_id = connector.create("kept", "")
        answered = []
        for number in range(6):
            connector.push(add(remote_id, people(number * 500, 500), number))
            answered.append(people(number * 500, 500))
            if number == 3:
                process.kill()
                with pytest.raises(Retryable):
                    connector.push(add(remote_id, people(90_000, 10), 99))
                sandbox = process.start()
    assert sandbox.identifiers("meta", remote_id) == hashes(pa.concat_tables(answered))


def test_a_kill_in_the_middle_of_a_call_leaves_all_of_it_or_none(process):
    sandbox = process.start()
    with opened(sandbox, "1") as connector:
        remote_id = connector.create("torn", "")
    table = people(0, 10_000)
    for attempt in range(6):
        killer = threading.Timer(0.03 + attempt * 0.03, process.kill)
        killer.start()
        try:
            with opened(sandbox, "1") as connector:
                connector.push(add(remote_id, table, attempt))
        except Exception as error:
            assert type(error).__name__ in ("OutcomeUnknown", "Retryable")
        killer.join()
        sandbox = process.start()
        assert sandbox.identifiers("meta", remote_id) in (set(), hashes(table))


def test_a_late_call_is_applied_after_a_restart_too(process):
    sandbox = process.start()
    with opened(sandbox, "1") as connector:
        remote_id = connector.create("late", "")
        sandbox.dial("late", op="add", seconds=2)
        with pytest.raises(Exception, match="dropped"):
            connector.push(add(remote_id, people(0, 5)))
    process.kill()
    sandbox = process.start()
    ends = time.monotonic() + 15
    while not sandbox.identifiers("meta", remote_id) and time.monotonic() < ends:
        time.sleep(0.1)
    assert sandbox.identifiers("meta", remote_id) == hashes(people(0, 5))


def test_a_known_share_of_people_is_matchable_and_always_the_same():
    values = [hashlib.sha256(f"person.{n}@example.com".encode()).digest() for n in range(20_000)]
    share = statistics.mean(map(is_matchable, values))
    assert abs(100 * share - MATCHABLE_PERCENT) < 1.5
    assert [is_matchable(value) for value in values] == [is_matchable(value) for value in values]


def test_sizes_told_are_bounds_of_the_matched(sandbox, account_number):
    with opened(sandbox, account_number) as connector:
        remote_id = connector.create("bounds", "")
        assert connector.describe(remote_id).matched_words == "Meta does not say"
        connector.push(add(remote_id, people(0, 3000)))
        described = connector.describe(remote_id)
    matched = sandbox.audience("meta", remote_id)["matched"]
    assert described.matched_low <= matched <= described.matched_high
    assert matched == sum(
        is_matchable(bytes.fromhex(identifiers.META["email"].of(e))) for e in people(0, 3000)["email"].to_pylist()
    )


@pytest.mark.parametrize("matched", [0, 99, 100, 101, 999, 1234, 99_999, 1_234_567])
def test_bounds_hold_the_number(matched):
    low, high = meta.bounds(matched)
    assert (low, high) == (-1, -1) if matched < 100 else low <= matched <= high


@pytest.mark.parametrize(
    ("matched", "named"),
    [(0, "LESS_THAN_20"), (199, "LESS_THAN_20"), (200, "20_TO_30"), (309, "20_TO_30"), (310, "31_TO_40"), (620, "61_TO_70"), (910, "91_TO_100"), (1000, "91_TO_100")],
)  # fmt: skip
def test_match_rates_fall_into_googles_ranges(matched, named):
    assert google.match_rate_range(matched, 1000) == f"MATCH_RATE_RANGE_{named}"


def test_the_official_meta_sdk_works_against_it_unchanged(sandbox, account_number, monkeypatch):
    """The SDK sends forms, and its removals in the query string; the same people end up in the same set as ours."""
    monkeypatch.setattr(FacebookSession, "GRAPH", sandbox.base_url)
    FacebookAdsApi.init(access_token="a token", api_version="v26.0")
    with opened(sandbox, account_number) as connector:
        ours, theirs = connector.create("ours", ""), connector.create("theirs", "")
        connector.push(add(ours, people(0, 20)))
    rows = [
        list(row) for row in zip(*(people(0, 20).column(kind).to_pylist() for kind in ("email", "phone")), strict=True)
    ]
    audience = CustomAudience(theirs)
    answer = audience.add_users(["EMAIL", "PHONE"], rows, is_raw=True).json()
    assert answer["num_received"] == 20 and answer["num_invalid_entries"] == 0
    assert sandbox.identifiers("meta", theirs) == sandbox.identifiers("meta", ours) == hashes(people(0, 20))
    audience.remove_users(["EMAIL", "PHONE"], rows[:5], is_raw=True)
    assert sandbox.identifiers("meta", theirs) == hashes(people(5, 15))
    assert audience.api_get(fields=["name"])["name"] == "theirs"


def test_nobody_reads_members_through_the_platforms_own_api(sandbox, account_number):
    with opened(sandbox, account_number) as connector:
        remote_id = connector.create("closed", "")
        connector.push(add(remote_id, people(0, 5)))
    for path in (f"/v26.0/{remote_id}/users", f"/v26.0/{remote_id}/members"):
        answer = httpx.get(sandbox.base_url + path, headers={"Authorization": "Bearer a token"})
        assert answer.status_code >= 400 and not any(value in answer.text for _, value in hashes(people(0, 5)))


def test_invalid_entries_are_counted_and_left_out(sandbox, account_number):
    with opened(sandbox, account_number) as connector:
        remote_id = connector.create("invalid", "")
    good = identifiers.META["email"].of("mary@example.com")
    body = {"payload": {"schema": ["EMAIL"], "is_raw": True, "data": [[good], ["mary@example.com"], ["ABC"]]}}
    answer = httpx.post(
        f"{sandbox.base_url}/v26.0/{remote_id}/users", json=body, headers={"Authorization": "Bearer a token"}
    ).json()
    assert answer["num_received"] == 3 and answer["num_invalid_entries"] == 2
    assert sandbox.identifiers("meta", remote_id) == {("email", good)}


def test_the_call_log_holds_nobody(sandbox, account_number):
    with opened(sandbox, account_number) as connector:
        remote_id = connector.create("logged", "")
        connector.push(add(remote_id, people(0, 5)))
    calls = sandbox.calls("meta", account_number)
    assert [(call["op"], call["rows"], call["status"]) for call in calls] == [("create", 0, 200), ("add", 5, 200)]
    for _, value in hashes(people(0, 5)):
        assert value not in repr(calls)


def test_what_people_do_at_the_platform_can_be_done(sandbox, account_number):
    with opened(sandbox, account_number) as connector:
        remote_id = connector.create("by hand", "")
        connector.push(add(remote_id, people(0, 100)))
        assert sandbox.forget("meta", remote_id, 50) == 50
        assert sandbox.audience("meta", remote_id)["people"] == 50
        sandbox.put("meta", remote_id, [{"email": "ab" * 32}])
        assert ("email", "ab" * 32) in sandbox.identifiers("meta", remote_id)
        assert len(sandbox.members("meta", remote_id)) == 51


def test_a_strict_account_takes_only_its_own_tokens(sandbox, account_number):
    sandbox.account("meta", account_number, name="Strict", currency="SEK", strict=True)
    with opened(sandbox, account_number) as connector, pytest.raises(Exception, match="Reconnect"):
        connector.check()
    sandbox.token("meta", "a token", account=account_number, expires_at=4_000_000_000)
    try:
        with opened(sandbox, account_number) as connector:
            assert (
                connector.check()
                == f"Connected to Strict (act_{account_number}, SEK); may edit audiences; token ends 2 October 2096."
            )
        sandbox.token("meta", "a token", account=account_number, state="revoked")
        with opened(sandbox, account_number) as connector, pytest.raises(Exception, match="Reconnect"):
            connector.check()
    finally:
        sandbox.token("meta", "a token")


def test_its_pages_show_accounts_and_shortened_members_without_inline_style_or_script(sandbox, account_number):
    sandbox.account("meta", account_number, name="<b>Acme & Sons</b>", currency="EUR")
    with opened(sandbox, account_number) as connector:
        remote_id = connector.create("<script>alert(1)</script>", "")
        connector.push(add(remote_id, people(0, 30)))
    pages = ["/", f"/accounts/meta/{account_number}/", f"/accounts/meta/{account_number}/{remote_id}/"]
    whole = {value for _, value in hashes(people(0, 30))}
    for page in pages:
        answer = httpx.get(sandbox.base_url + page)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert not re.search(r"<script|style=|<style|onclick|<b>Acme", answer.text)
        assert not any(value in answer.text for value in whole)
    assert "Acme &amp; Sons" in httpx.get(sandbox.base_url + pages[0]).text
    last = httpx.get(sandbox.base_url + pages[2]).text
    assert any(f"<code>{value[:8]}…</code>" in last for value in whole)
    assert httpx.get(f"{sandbox.base_url}/accounts/meta/no-such/").status_code == 404
    style = httpx.get(f"{sandbox.base_url}/_sandbox/style.css")
    assert style.status_code == 200 and style.headers["Content-Type"].startswith("text/css")


def test_two_calls_at_once_are_both_kept(sandbox, account_number):
    with opened(sandbox, account_number) as connector:
        remote_id = connector.create("busy", "")

    def send(number: int) -> None:
        with opened(sandbox, account_number) as mine:
            for step in range(3):
                mine.push(add(remote_id, people(number * 10_000 + step * 200, 200), number * 10 + step))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = pa.concat_tables([people(number * 10_000, 600) for number in range(6)])
    assert sandbox.identifiers("meta", remote_id) == hashes(expected)


def test_its_modules_know_nothing_of_rollcalls_tables():
    for path in Path(store.__file__).parent.glob("*.py"):
        imported = re.findall(r"^(?:from|import) ([\w.]+)", path.read_text(), re.MULTILINE)
        ours = {
            name for name in imported if name.split(".")[0] in ("audiences", "destinations", "qa", "config", "django")
        }
        assert ours <= {name for name in ours if name.startswith("destinations.sandbox")} | {"django.template"}, (
            path.name
        )
