"""What every connector of the registry keeps, over real sockets against a running sandbox. One suite; a new kind is a row of KINDS."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from destinations import identifiers, secrets
from destinations.connectors import registry
from destinations.connectors.base import (
    Connector,
    ConnectorError,
    Misconfigured,
    OutcomeUnknown,
    Push,
    Rejected,
    Retryable,
)
from destinations.identifiers import Recipe
from destinations.sandbox import control
from destinations.sandbox.control import Sandbox

SECONDS = 3.0


@dataclass(frozen=True)
class Kind:
    """How the suite meets one kind of connector."""

    kinds: tuple[str, ...]
    recipes: dict[str, Recipe]
    config: Callable[[Sandbox, str], dict[str, Any]]
    credentials: Callable[[str], dict[str, str]] = lambda account: {"access_token": f"token of {account}"}
    account: Callable[[str], str] = lambda number: number
    base_url: bool = True
    dials: dict[str, type[ConnectorError] | None] = field(default_factory=dict)  # what differs from DIALS


KINDS = {
    "meta": Kind(
        ("email", "phone", "external_id"),
        dict(identifiers.META),
        lambda sandbox, number: {"ad_account_id": f"act_{number}"},
    ),
    "google": Kind(("email", "phone"), dict(identifiers.GOOGLE), lambda sandbox, number: {"account_id": number}),
    "openlist": Kind(("external_id", "email"), dict(identifiers.HASHED), lambda sandbox, number: {"account": number}),
    "webhook": Kind(
        ("external_id", "email", "phone"),
        dict(identifiers.HASHED),
        lambda sandbox, number: {"url": f"{sandbox.base_url}/webhooks/{number}"},
        lambda account: {"secret": control.webhook_secret(account)},
        base_url=False,
    ),
}


# A webhook's audience ids are ours, and it takes a call or does not.
WITH_LISTS = pytest.mark.parametrize("kind", sorted(set(KINDS) - {"webhook"}), indirect=True)


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def account(account_number: str) -> str:
    return account_number


@pytest.fixture
def connector(kind: str, sandbox: Sandbox, account: str) -> Iterator[Connector]:
    how = KINDS[kind]
    destination = SimpleNamespace(
        pk=7,
        kind=kind,
        base_url=sandbox.base_url if how.base_url else "",
        config=how.config(sandbox, account),
        credentials=secrets.seal(how.credentials(account), "7"),
    )
    with registry.open(destination, seconds=SECONDS) as opened:
        yield opened


@pytest.fixture
def held(kind: str, sandbox: Sandbox) -> Callable[[str], set[tuple[str, str]]]:
    """What the platform itself says is in an audience."""
    return lambda remote_id: sandbox.identifiers(kind, remote_id)


def people(start: int, count: int) -> pa.Table:
    """Made-up people in every column that an identity has; some lack an e-mail, some a phone."""
    numbers = range(start, start + count)
    return pa.table(
        {
            "identity_no": pa.array(numbers, pa.int64()),
            "external_id": [f"customer-{n:05d}" for n in numbers],
            "email": [None if n % 7 == 3 else f"Person.{n}@Example.com" for n in numbers],
            "phone": [None if n % 5 == 4 and n % 7 != 3 else f"+49151{n:07d}" for n in numbers],
        }
    )


def sent(kind: str, table: pa.Table) -> set[tuple[str, str]]:
    """The identifiers that the platform should hold of these people, by the one-at-a-time recipes."""
    how = KINDS[kind]
    return {
        (name, text)
        for name in how.kinds
        for raw in table.column(name).to_pylist()
        if raw is not None and (text := how.recipes[name].of(raw))
    }


def push(kind: str, verb: str, remote_id: str, table: pa.Table, operation: int = 1) -> Push:
    return Push(verb, remote_id, operation, table, KINDS[kind].kinds)


def settled(connector: Connector, receipt: Any) -> Any:
    """The receipt, once it is not pending any more."""
    ends = time.monotonic() + 15
    while receipt.pending:
        assert time.monotonic() < ends, "the receipt stays pending"
        time.sleep(0.1)
        receipt = connector.poll(receipt.request_id)
    return receipt


def test_what_is_pushed_is_what_the_platform_holds(kind, connector, held):
    remote_id = connector.create("meta_cart_24h", "people with a cart")
    first, second = people(0, 200), people(200, 100)
    for number, table in enumerate((first, second)):
        receipt = settled(connector, connector.push(push(kind, "add", remote_id, table, number)))
        assert receipt.accepted and not receipt.rejected and not receipt.rejected_unnamed
        assert receipt.received == table.num_rows
    assert held(remote_id) == sent(kind, first) | sent(kind, second)
    leaving = first.slice(0, 50)
    receipt = settled(connector, connector.push(push(kind, "remove", remote_id, leaving, 9)))
    assert receipt.accepted and receipt.received == 50
    assert held(remote_id) == sent(kind, first.slice(50)) | sent(kind, second)


def test_pushing_every_batch_twice_leaves_the_platform_as_once(kind, connector, held):
    remote_id = connector.create("twice", "")
    calls = [("add", people(0, 60)), ("add", people(60, 40)), ("remove", people(30, 50)), ("add", people(70, 5))]
    for number, (verb, table) in enumerate(calls):
        for _ in range(2):
            connector.push(push(kind, verb, remote_id, table, number))
    assert held(remote_id) == sent(kind, people(0, 30)) | sent(kind, people(80, 20)) | sent(kind, people(70, 5))


def test_the_same_people_are_hashed_as_the_official_recipes_say_wherever_they_are_sent(kind, connector, held):
    """Spaces, capitals and punctuation in what is stored never show in what is sent."""
    remote_id = connector.create("spelling", "")
    tidy = pa.table(
        {"identity_no": [1], "external_id": ["00042"], "email": ["mary@example.com"], "phone": ["+15559876543"]}
    )
    untidy = pa.table(
        {"identity_no": [1], "external_id": ["00042"], "email": [" Mary@Example.COM "], "phone": ["+1 (555) 987-6543"]}
    )
    connector.push(push(kind, "add", remote_id, untidy))
    assert held(remote_id) == sent(kind, tidy)
    connector.push(push(kind, "remove", remote_id, tidy, 2))
    assert held(remote_id) == set()


def test_a_renamed_audience_keeps_its_id_and_its_people(kind, connector, held, sandbox):
    remote_id = connector.create("before", "")
    connector.push(push(kind, "add", remote_id, people(0, 10)))
    connector.rename(remote_id, "afterwards v2")
    assert sandbox.audience(kind, remote_id)["name"] == "afterwards v2"
    described = connector.describe(remote_id)
    assert described.remote_id == remote_id and described.name in ("afterwards v2", "")
    assert held(remote_id) == sent(kind, people(0, 10))


def test_somebody_without_any_identifier_is_named_and_nobody_else_is_touched(kind, connector, held):
    remote_id = connector.create("gaps", "")
    table = pa.concat_tables(
        [
            people(1, 3),
            pa.table(
                {
                    "identity_no": [99],
                    "external_id": pa.array([" "]),
                    "email": pa.array([None], pa.string()),
                    "phone": ["(-)"],
                }
            ),
        ]
    )
    receipt = connector.push(push(kind, "add", remote_id, table))
    assert set(receipt.rejected) == {99} and receipt.received == 3
    assert held(remote_id) == sent(kind, people(1, 3))


def test_a_call_with_nobody_to_send_is_not_made(kind, connector, sandbox, account):
    remote_id = connector.create("nobody", "")
    before = len(sandbox.calls(kind, account))
    table = pa.table({"identity_no": [5], "external_id": [""], "email": [" "], "phone": [""]})
    receipt = connector.push(push(kind, "add", remote_id, table))
    assert set(receipt.rejected) == {5} and not receipt.pending
    assert len(sandbox.calls(kind, account)) == before


def test_check_says_what_the_credentials_open(kind, connector, sandbox, account):
    words = connector.check()
    if kind != "webhook":
        assert words.startswith("Connected to ")
    if kind in ("meta", "openlist"):
        assert sandbox.account(kind, account, name="Acme EU", currency="EUR")
        assert "Acme EU" in connector.check() and "EUR" in connector.check()


def test_the_masked_payload_shows_no_identifier(kind, connector):
    table = people(100, 8)
    shown = connector.masked_payload(push(kind, "add", connector.create("masked", ""), table))
    for name, text in sent(kind, table):
        assert text not in shown, name
    for raw in table.column("email").to_pylist():
        assert raw is None or raw not in shown
    assert "5 more" in shown


def test_what_may_be_read_is_who_is_in_it(kind, connector):
    if not connector.capabilities.can_read_members:
        with pytest.raises(NotImplementedError):
            connector.read_members("1")
        return
    remote_id = connector.create("readable", "")
    connector.push(push(kind, "add", remote_id, people(0, 120)))
    assert sorted(connector.read_members(remote_id)) == sorted(people(0, 120).column("external_id").to_pylist())


def test_an_audience_that_is_gone_is_known_to_be_gone(kind, connector, sandbox):
    remote_id = connector.create("doomed", "")
    if kind == "webhook":
        sandbox.dial("refuse", platform=kind, audience=remote_id, op="add", why="gone")
    else:
        sandbox.delete_audience(kind, remote_id)
        with pytest.raises(Misconfigured) as told:
            connector.describe(remote_id)
        assert told.value.code == "audience_gone"
    with pytest.raises(Misconfigured) as told:
        connector.push(push(kind, "add", remote_id, people(0, 3)))
    assert told.value.code == "audience_gone"


@WITH_LISTS
def test_a_remote_id_that_is_none_never_reaches_the_platform(kind, connector, sandbox, account):
    def heard() -> int:
        return len([call for call in sandbox.calls(kind) if call["account"] in ("", account)])

    before = heard()
    for wrong in ("../act_1/customaudiences", "1?fields=name", "", "1/users", "a b"):
        with pytest.raises(Misconfigured):
            connector.describe(wrong)
        with pytest.raises(Misconfigured):
            connector.push(push(kind, "add", wrong, people(0, 3)))
    assert heard() == before


# --- Faults: what each dial of the sandbox must be taken for.

NOT_APPLIED, MAYBE, A_PERSON_ACTS, REFUSED = Retryable, OutcomeUnknown, Misconfigured, Rejected
DIALS: dict[str, tuple[dict[str, Any], type[ConnectorError]]] = {
    "throttled, seconds": ({"action": "throttle", "retry_after": "seconds", "seconds": 7}, NOT_APPLIED),
    "throttled, date": ({"action": "throttle", "retry_after": "date", "seconds": 7}, NOT_APPLIED),
    "throttled, absent": ({"action": "throttle", "retry_after": "absent"}, NOT_APPLIED),
    "throttled, absurd": ({"action": "throttle", "retry_after": "absurd"}, NOT_APPLIED),
    "failed 500": ({"action": "error", "status": 500}, MAYBE),
    "failed 504": ({"action": "error", "status": 504}, MAYBE),
    "hung": ({"action": "hang", "seconds": SECONDS + 1}, MAYBE),
    "dropped after applying": ({"action": "drop"}, MAYBE),
    "applied late": ({"action": "late", "seconds": 0.5}, MAYBE),
    "permission": ({"action": "refuse", "why": "permission"}, A_PERSON_ACTS),
    "token expired": ({"action": "refuse", "why": "expired"}, A_PERSON_ACTS),
    "token revoked": ({"action": "refuse", "why": "revoked"}, A_PERSON_ACTS),
}
PAUSES = {"seconds": (6.0, 7.0), "date": (5.0, 7.0), "absurd": (3600.0, 3600.0)}


@pytest.mark.parametrize("dial", sorted(DIALS))
def test_each_fault_gets_its_verdict(kind, connector, sandbox, dial):
    asked, verdict = DIALS[dial]
    remote_id = connector.create("faulty", "")
    sandbox.dial(platform=kind, audience=remote_id, op="add", **asked)
    with pytest.raises(ConnectorError) as told:
        connector.push(push(kind, "add", remote_id, people(0, 5)))
    assert type(told.value) is verdict, told.value
    if dial.startswith("token"):
        assert told.value.code == "reconnect"
    if dial.startswith("throttled"):
        assert told.value.throttled
        if (way := asked["retry_after"]) in PAUSES:
            low, high = PAUSES[way]
            assert low <= told.value.after <= high
        else:
            assert told.value.after is None
    for number, text in sent(kind, people(0, 5)):
        assert text not in str(told.value), number
    assert connector.push(push(kind, "add", remote_id, people(0, 5), 2)).accepted, "the fault has passed"


@pytest.mark.parametrize("dial", ["failed 500", "permission", "throttled, absent"])
def test_what_was_refused_was_not_applied(kind, connector, sandbox, held, dial):
    remote_id = connector.create("refused", "")
    sandbox.dial(platform=kind, audience=remote_id, op="add", **DIALS[dial][0])
    with pytest.raises(ConnectorError):
        connector.push(push(kind, "add", remote_id, people(0, 5)))
    assert held(remote_id) == set()


def test_a_dropped_call_was_applied_and_a_late_one_will_be(kind, connector, sandbox, held):
    remote_id = connector.create("dropped", "")
    sandbox.dial("drop", platform=kind, audience=remote_id, op="add")
    with pytest.raises(OutcomeUnknown):
        connector.push(push(kind, "add", remote_id, people(0, 5)))
    assert held(remote_id) == sent(kind, people(0, 5))
    sandbox.dial("late", platform=kind, audience=remote_id, op="remove", seconds=0.5)
    with pytest.raises(OutcomeUnknown):
        connector.push(push(kind, "remove", remote_id, people(0, 5), 2))
    assert held(remote_id) == sent(kind, people(0, 5))
    ends = time.monotonic() + 10
    while held(remote_id) and time.monotonic() < ends:
        time.sleep(0.05)
    assert held(remote_id) == set()


def test_a_success_that_cannot_be_read_is_no_success(kind, connector, sandbox):
    remote_id = connector.create("garbled", "")
    sandbox.dial("garbled", platform=kind, audience=remote_id, op="add")
    table = push(kind, "add", remote_id, people(0, 5))
    if kind == "webhook":  # its answer's body means nothing: 2xx is the whole of it
        assert connector.push(table).accepted
        return
    with pytest.raises(OutcomeUnknown) as told:
        connector.push(table)
    assert told.value.http_status == 200


def test_a_poisonous_row_refuses_the_whole_call_and_only_with_it(kind, connector, sandbox, held):
    remote_id = connector.create("poison", "")
    name = KINDS[kind].kinds[0]
    poison = KINDS[kind].recipes[name].of(people(4, 1).column(name)[0].as_py())
    sandbox.dial("poison", platform=kind, audience=remote_id, op="add", times=None, values=[poison])
    with pytest.raises(Rejected) as told:
        connector.push(push(kind, "add", remote_id, people(0, 8)))
    assert told.value.whole and held(remote_id) == set()
    assert connector.push(push(kind, "add", remote_id, people(0, 4), 2)).accepted
    assert connector.push(push(kind, "add", remote_id, people(5, 3), 3)).accepted
    assert held(remote_id) == sent(kind, people(0, 4)) | sent(kind, people(5, 3))


@WITH_LISTS
def test_rows_refused_inside_a_success_are_counted_and_named_where_the_platform_names_them(
    kind, connector, sandbox, held
):
    remote_id = connector.create("partly", "")
    sandbox.dial("partial", platform=kind, audience=remote_id, op="add", rows=[1, 4])
    receipt = settled(connector, connector.push(push(kind, "add", remote_id, people(0, 6))))
    assert receipt.accepted
    if kind == "openlist":
        assert set(receipt.rejected) == {1, 4} and receipt.rejected_unnamed == 0
    else:
        assert not receipt.rejected and receipt.rejected_unnamed == 2
    taken = pa.concat_tables([people(0, 1), people(2, 2), people(5, 1)])
    assert held(remote_id) == sent(kind, taken)


@WITH_LISTS
def test_a_removal_from_a_small_audience_may_be_refused_and_is_then_not_done(kind, connector, sandbox, held):
    remote_id = connector.create("small", "")
    connector.push(push(kind, "add", remote_id, people(0, 20)))
    sandbox.dial("small_removals", platform=kind, audience=remote_id, times=None, below=15)
    assert connector.push(push(kind, "remove", remote_id, people(0, 3), 2)).accepted
    with pytest.raises(ConnectorError) as told:
        connector.push(push(kind, "remove", remote_id, people(3, 10), 3))
    assert type(told.value) in (Retryable, Rejected)
    assert held(remote_id) == sent(kind, people(3, 17))


def test_a_rate_budget_holds_until_its_time_has_passed(kind, connector, sandbox, account):
    remote_id = connector.create("budget", "")
    sandbox.dial("budget", platform=kind, account=account, op="add", times=None, calls=3, seconds=1.5)
    verdicts = []
    for number in range(5):
        try:
            connector.push(push(kind, "add", remote_id, people(0, 2), number))
            verdicts.append("yes")
        except Retryable as error:
            assert error.throttled
            verdicts.append("slow down")
    assert verdicts.count("yes") in (2, 3) and verdicts[-1] == "slow down"
    time.sleep(1.6)
    assert connector.push(push(kind, "add", remote_id, people(0, 2), 9)).accepted


def test_wrong_credentials_are_a_persons_to_put_right(kind, sandbox, account):
    how = KINDS[kind]
    wrong = {"secret": control.webhook_secret("another")} if kind == "webhook" else {"access_token": "an expired one"}
    destination = SimpleNamespace(
        pk=7,
        kind=kind,
        base_url=sandbox.base_url if how.base_url else "",
        config=how.config(sandbox, account),
        credentials=secrets.seal(wrong, "7"),
    )
    with registry.open(destination, seconds=SECONDS) as opened, pytest.raises(Misconfigured) as told:
        opened.check()
    assert told.value.code == "reconnect"


def test_a_platform_that_is_not_there_was_certainly_not_told(kind, account, sandbox):
    how = KINDS[kind]
    nowhere = control.Sandbox("http://127.0.0.1:9")
    destination = SimpleNamespace(
        pk=7,
        kind=kind,
        base_url=nowhere.base_url if how.base_url else "",
        config=how.config(nowhere, account),
        credentials=secrets.seal(how.credentials(account), "7"),
    )
    with registry.open(destination, seconds=SECONDS) as opened, pytest.raises(Retryable) as told:
        opened.push(push(kind, "add", "1", people(0, 3)))
    assert not told.value.throttled


def test_the_form_names_its_secrets_and_takes_the_example_as_it_is(kind):
    connector = registry.named(kind)
    fields = connector.config_form().fields
    assert set(connector.secret_fields) <= set(fields)
    for secret in connector.secret_fields:
        assert fields[secret].widget.render_value is False, f"{secret} must never be shown again"
    how = KINDS[kind]
    config = how.config(control.Sandbox("https://crm.example"), "1234567890")
    form = connector.config_form({**config, **how.credentials("1")})
    assert form.is_valid(), form.errors
    assert connector.account_key(form.cleaned_data) == connector.account_key(config)


def test_every_kind_of_the_registry_is_held_to_this_suite():
    assert set(KINDS) == set(registry.CONNECTORS)
    for kind, connector in registry.CONNECTORS.items():
        assert connector.kind == kind


def test_what_is_said_of_an_audience_is_kept_there_and_may_be_said_anew(kind, connector, sandbox):
    room = connector.capabilities.description_length
    remote_id = connector.create("described", "People who did “this”.")
    assert sandbox.audience(kind, remote_id)["description"] == "People who did “this”."
    longest = "ü" * room
    connector.describe_as(remote_id, longest)
    assert sandbox.audience(kind, remote_id)["description"] == longest
    said = connector.describe(remote_id)
    assert said.description in (longest, None)
    connector.rename(remote_id, "renamed")
    assert sandbox.audience(kind, remote_id)["description"] == longest
    assert sandbox.audience(kind, remote_id)["name"] == "renamed"
