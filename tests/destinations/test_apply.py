"""The file that makes a workspace: what it changes, what it refuses and where, and that writing it and applying it changes nothing."""

import io
import json
from datetime import timedelta

import pytest
import yaml
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from audiences import clock
from audiences.models import (
    Audience,
    AuditEntry,
    NamingConvention,
    PersonList,
    SegmentVersion,
    User,
    Workspace,
    frozen,
)
from audiences.services import audiences, locks, replacements, versions
from destinations import blueprint, secrets
from destinations.blueprint import advice
from destinations.blueprint.notation import load_json, load_yaml
from destinations.blueprint.planning import Planner
from destinations.models import Destination, Mapping, Run
from tests.audiences.people_in import identify, track

pytestmark = pytest.mark.django_db
TOKEN = "EAAB-very-secret-token"
FILE = """
settings:
  currency: USD
  consent_policy: {default: opt_out, by_country: {DE: opt_in}}
lists:
  - key: vip
    name: Our best
    customerio_segment: 12
audiences:
  - key: on_top                      # refers to one that stands below
    purpose: retargeting
    segment: {all: [{audience: cart_24h}, {not: {list: vip}}]}
    suppressed_by: [bought_14d]
  - key: cart_24h
    name: Left a cart
    purpose: retargeting
    description: People who put something aside
    owners: {definition: marketer@example.com, sync_health: operator@example.com}
    cadence: 5m
    segment: {"all": [{"event": "add_to_cart", "count": {"at_least": 1}, "within": "24h"}, {"event": "purchase", "count": {"exactly": 0}, "within": "3d"}]}
  - key: bought_14d
    purpose: suppression
    owner: marketer@example.com
    segment: {event: purchase, count: {at_least: 1}, within: 14d}
destinations:
  - key: meta_main
    kind: meta
    base_url: http://127.0.0.1:9009
    config: {ad_account_id: "act_1"}
    credentials: {access_token: {env: META_TOKEN}}
mappings:
  - audience: on_top
    destination: meta_main
    identifiers: [email, phone, external_id]
    state: live
    override: {by: operator@example.com, reason: "the first campaign"}
  - audience: bought_14d
    destination: meta_main
    identifiers: [email]
    cadence: 1h
    removal_limit_percent: 100
"""


@pytest.fixture(autouse=True)
def shop(monkeypatch):
    monkeypatch.setenv("META_TOKEN", TOKEN)
    identify("anna", country="DE")
    track("anna", "add_to_cart")
    track("anna", "purchase", category="shoes", value=5)


@pytest.fixture
def apply(tmp_path, capsys):
    def run(text=FILE, *options, name="shop.yaml"):
        path = tmp_path / name
        path.write_text(text)
        call_command("apply", str(path), *options)
        return capsys.readouterr()

    return run


def refused(text, name="shop.yaml", environment=None):
    data = load_json(text) if name.endswith(".json") else load_yaml(text)
    with pytest.raises(blueprint.BlueprintRefused) as error:
        blueprint.plan(blueprint.parse(data), name, environment)
    return [str(problem) for problem in error.value.problems]


def actions(printed):
    return [[*line.split(" ", 2)[:2], line.split(" ", 2)[2]] for line in printed.out.splitlines() if line[0] in "+~="]


NAMED = """
naming:
  separator: _
  tokens:
    - {name: channel}
    - {name: intent, values: {cart: a cart}}
    - {name: window}
    - {name: version}
audiences:
  - key: cart_24h
    tokens: {channel: meta, intent: cart, window: 24h}
    purpose: analytics
    owner: marketer@example.com
    segment: {event: add_to_cart, count: {at_least: 1}, within: 24h}
"""


def elsewhere():
    """Nothing of it is here any more."""
    with frozen.set_aside():
        for model in (Mapping, Destination, SegmentVersion, Audience, PersonList, User, Workspace, AuditEntry):
            if model is SegmentVersion:
                Audience.objects.update(live_version=None)
            model.objects.all().delete()
    NamingConvention.objects.all().delete()


def test_one_file_makes_everything_in_whatever_order_it_stands(apply):
    apply()

    assert Workspace.objects.get().consent_policy == {"default": "opt_out", "by_country": {"DE": "opt_in"}}
    cart, on_top = Audience.objects.get(key="cart_24h"), Audience.objects.get(key="on_top")
    assert (cart.name, cart.cadence_seconds, cart.live_version.reason) == ("Left a cart", 300, "applied from shop.yaml")
    assert (cart.definition_owner.email, cart.sync_owner.email) == ("marketer@example.com", "operator@example.com")
    assert (on_top.name, on_top.live_version.number) == ("on_top", 1)
    assert [row.key for row in on_top.excluded_by.all()] == ["bought_14d"]
    live = Mapping.objects.get(audience=on_top)
    assert (live.state, live.identifiers) == ("live", ["email", "phone", "external_id"])
    assert live.override == {"by": "operator@example.com", "reason": "the first campaign", "until": None}
    rehearsal = Mapping.objects.get(audience__key="bought_14d")
    assert (rehearsal.state, rehearsal.cadence_seconds, rehearsal.removal_limit_percent) == ("rehearsal", 3600, 100)
    destination = Destination.objects.get()
    assert secrets.unseal(destination.credentials, str(destination.pk)) == {"access_token": TOKEN}
    marketer, operator = User.objects.get(email="marketer@example.com"), User.objects.get(email="operator@example.com")
    assert (marketer.role, operator.role) == ("marketer", "operator")
    assert not marketer.has_usable_password()


def test_applying_it_again_changes_nothing_and_says_so(apply):
    first = apply()
    assert {action for action, *_ in actions(first)} == {"+"}
    before = (AuditEntry.objects.count(), SegmentVersion.objects.count())

    second = apply()

    assert {action for action, *_ in actions(second)} == {"="}
    assert second.out.endswith("0 to create, 0 to change, 8 unchanged.\n")
    assert (AuditEntry.objects.count(), SegmentVersion.objects.count()) == before


def test_a_dry_run_prints_the_plan_and_writes_nothing(apply):
    printed = apply(FILE, "--dry-run")

    assert "+ audience cart_24h\n    name: Left a cart\n" in printed.out
    assert printed.out.endswith("A dry run: nothing was changed.\n")
    for model in (Workspace, User, Audience, PersonList, Destination, Mapping):
        assert not model.objects.exists()


def test_a_change_is_shown_with_before_and_after_and_publishes_a_version(apply):
    apply()

    printed = apply(
        FILE.replace('"within": "3d"', '"within": "7d"')
        .replace("cadence: 5m", "cadence: 10m")
        .replace("opt_out", "opt_in")
    )

    assert "~ audience cart_24h\n    cadence_seconds: 300 → 600\n    rule: v1: " in printed.out
    assert "~ setting workspace\n    consent_policy: opt_out, DE opt_in → opt_in, DE opt_in\n" in printed.out
    changed = next(line for line in printed.out.splitlines() if line.startswith("    rule: v1: "))
    assert "3 days" in changed.split(" → ")[0]
    assert "7 days" in changed.split(" → ")[1]
    versions = SegmentVersion.objects.filter(audience__key="cart_24h").order_by("number")
    assert [(row.number, row.state) for row in versions] == [(1, "retired"), (2, "published")]


def test_what_the_file_leaves_out_stays_as_it_is(apply):
    apply()
    mapping = Mapping.objects.get(audience__key="on_top")

    printed = apply("audiences: [{key: cart_24h}]\nmappings: [{audience: on_top, destination: meta_main}]")

    assert {action for action, *_ in actions(printed)} == {"="}
    mapping.refresh_from_db()
    assert mapping.state == "live"
    assert Audience.objects.get(key="cart_24h").name == "Left a cart"


def test_an_empty_workspace_assumes_opt_out_and_says_so(apply):
    printed = apply("lists: [{key: vip}]")

    assert "Opt-out is assumed" in printed.err
    assert Workspace.objects.get().consent_policy == {"default": "opt_out", "by_country": {}}
    assert "Opt-out" not in apply("lists: [{key: vip}]").err


def test_writing_it_and_applying_it_changes_nothing_even_without_the_secrets(apply, monkeypatch, capsys):
    apply()
    call_command("export")
    exported = capsys.readouterr().out
    monkeypatch.delenv("META_TOKEN")

    printed = apply(exported)

    assert {action for action, *_ in actions(printed)} == {"="}
    assert TOKEN not in exported
    assert "{env: META_MAIN_ACCESS_TOKEN}" in exported or "env: META_MAIN_ACCESS_TOKEN" in exported


def test_an_exported_file_makes_the_same_workspace_elsewhere(apply, monkeypatch, capsys):
    apply()
    call_command("export")
    exported = capsys.readouterr().out
    elsewhere()
    monkeypatch.setenv("META_MAIN_ACCESS_TOKEN", TOKEN)

    apply(exported)
    call_command("export")

    assert capsys.readouterr().out == exported


def test_an_audience_that_was_published_beside_another_keeps_its_name_there(apply, monkeypatch, capsys):
    apply(NAMED)
    old = Audience.objects.get(key="cart_24h")
    segment = {"event": "add_to_cart", "count": {"at_least": 2}, "within": "24h"}
    version = versions.save_draft(actor=None, audience=old, segment=segment)
    retires_at = timezone.now() + timedelta(days=9)
    replacements.publish(actor=None, version=version, reason="Twice", retires_at=retires_at, override="for the test")
    call_command("export")
    exported = capsys.readouterr().out
    assert "first_version: 2" in exported
    assert {action for action, *_ in actions(apply(exported))} == {"="}
    elsewhere()

    apply(exported)
    call_command("export")

    assert capsys.readouterr().out == exported
    names = Audience.objects.order_by("key").values_list("key", "name", "live_version__number")
    assert list(names) == [("cart_24h", "meta_cart_24h_v1", 1), ("cart_24h_v2", "meta_cart_24h_v2", 2)]


@pytest.mark.parametrize("wrong", ["0", "two", "true", "1.5", "999999999"])
def test_a_first_version_is_a_small_number(wrong):
    said = f"audiences: [{{key: cart, purpose: analytics, first_version: {wrong}}}]"
    assert refused(said) == ["audiences[0].first_version: must be a whole number from 1 to 99999"]


def test_exporting_one_audience_brings_what_it_needs_and_no_more(apply, capsys):
    apply()
    call_command("export", "on_top")
    data = yaml.safe_load(capsys.readouterr().out)

    assert [row["key"] for row in data["audiences"]] == ["bought_14d", "cart_24h", "on_top"]
    assert [row["key"] for row in data["lists"]] == ["vip"]
    assert "settings" not in data
    call_command("export", "cart_24h")
    assert set(yaml.safe_load(capsys.readouterr().out)) == {"audiences"}
    with pytest.raises(CommandError, match="There is no audience nobody"):
        call_command("export", "nobody")


def test_the_secret_is_nowhere_in_what_is_printed_or_on_record(apply, monkeypatch):
    printed = [apply(), apply(FILE, "--json")]
    monkeypatch.setenv("META_TOKEN", "EAAC-another-secret")
    changed = apply()

    assert "~ destination meta_main\n    credentials.access_token: set → replaced\n" in changed.out
    everything = "".join(one.out + one.err for one in [*printed, changed])
    everything += json.dumps([[row.before, row.after, row.reason] for row in AuditEntry.objects.all()])
    assert TOKEN not in everything
    assert "EAAC-another-secret" not in everything


def test_the_plan_for_machines_has_the_same_changes(apply):
    data = json.loads(apply(FILE, "--json").out)

    assert data["applied"] is True
    assert {(row["action"], row["kind"], row["key"]) for row in data["changes"]} >= {
        ("create", "user", "marketer@example.com"),
        ("create", "list", "vip"),
        ("create", "audience", "on_top"),
        ("create", "mapping", "on_top → meta_main"),
    }


def test_json_is_read_as_well(apply):
    apply(json.dumps(load_yaml(FILE)), name="shop.json")

    assert {action for action, *_ in actions(apply())} == {"="}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("audiences: [{key: a, purpose: retargeting, segmnt: {}}]", "audiences[0].segmnt: is not known here"),
        ("audiences: [{key: a}]", "audiences[0].purpose: is missing; one of retargeting"),
        ("audiences: [{key: a, purpose: spam}]", "audiences[0].purpose: must be one of"),
        ("audiences: [{key: 'a b', purpose: analytics}]", "audiences[0].key: must be 1 to 100"),
        (
            "audiences: [{key: a, purpose: analytics, cadence: soon}]",
            "audiences[0].cadence: must be a time such as 15m",
        ),
        ("audiences: [{key: a, purpose: analytics, cadence: 5s}]", "audiences[0].cadence: must be from one minute"),
        (
            "audiences: [{key: a, purpose: analytics, owner: nobody}]",
            "audiences[0].owners.definition: must be an e-mail",
        ),
        ("audiences: [{key: a, purpose: analytics}, {key: a}]", "audiences[1]: a stands at audiences[0] already"),
        (
            "audiences: [{key: a, purpose: analytics}, {key: b, purpose: analytics, segment: {all: [{list: x}, {event: purchase, count: {at_lest: 1}}]}}]",
            "audiences[1].segment.all[1].count.at_lest: ",
        ),
        (
            "audiences: [{key: a, purpose: analytics, segment: {event: purchas, count: {at_least: 1}}}]",
            'audiences[0].segment.event: no event "purchas" is known; nearest: "purchase"',
        ),
        (
            "audiences: [{key: a, purpose: analytics, segment: {not: {audience: b}}}, {key: b, purpose: analytics, segment: {audience: a}}]",
            "audiences[0].segment.not: audiences refer to each other in a circle",
        ),
        (
            "audiences: [{key: a, purpose: analytics, excluded_by: [b]}]",
            'audiences[0].excluded_by[0]: there is no audience "b"',
        ),
        (
            "audiences: [{key: a, purpose: analytics, excluded_by: [b]}, {key: b, purpose: analytics}]",
            'audiences[0].excluded_by[0]: "b" is not a suppression audience',
        ),
        ("settings: {currency: EURO}", "settings.currency: must be three letters"),
        ("settings: {colour: blue}", "settings.colour: is not known here"),
        ("lists: {key: a}", "lists: must be a list"),
        ("destinations: [{key: d}]", "destinations[0].kind: is missing; one of meta"),
        ("destinations: [{key: d, kind: fax}]", "destinations[0]"),
        (
            "destinations: [{key: d, kind: meta, config: {ad_account_id: act_1}, credentials: {access_token: abc}}]",
            "destinations[0].credentials.access_token: must be {env: NAME}: secrets do not stand in the file",
        ),
        (
            "destinations: [{key: d, kind: meta, config: {ad_account_id: act_1}, credentials: {access_token: {env: NOT_SET}}}]",
            "destinations[0].credentials.access_token.env: the environment variable NOT_SET is not set",
        ),
        (
            "destinations: [{key: d, kind: meta, config: {ad_account_id: x}, credentials: {access_token: {env: META_TOKEN}}}]",
            "destinations[0].config.ad_account_id: An ad account is a number",
        ),
        (
            "destinations: [{key: d, kind: meta, base_url: 'file:///etc', config: {ad_account_id: act_1}}]",
            "destinations[0].base_url: must begin with https:// or http://",
        ),
        ("mappings: [{audience: a, destination: d}]", 'mappings[0].destination: there is no destination "d"'),
        ("pages: []", "pages: is not known here; there are settings, naming, lists"),
        ("- just a list", "must be fields with values"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, says):
    assert any(problem.startswith(says) for problem in refused(text)), refused(text)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("state: gone", "mappings[0].state: must be one of rehearsal"),
        ("state: frozen", "mappings[0].until: must be when the freeze ends"),
        ("identifiers: [e-mail]", "mappings[0].identifiers: "),
        ("trial_percent: 0", "mappings[0].trial_percent: must be a whole number from 1 to 100"),
        ("override: {by: operator@example.com}", "mappings[0].override.reason: is missing"),
        ("add_only: true", "mappings[0].add_only: needs the remote_id"),
    ],
)
def test_what_is_wrong_with_a_connection_is_said_with_its_place(line, says):
    connection = {"audience": "on_top", "destination": "meta_main", "identifiers": ["email"], **load_yaml(line)}
    data = load_yaml(FILE)
    data["mappings"] = [connection]
    problems = refused(json.dumps(data), "shop.json")

    assert any(problem.startswith(says) for problem in problems), problems


def test_everything_wrong_is_named_in_one_run_and_nothing_is_written(apply):
    broken = FILE.replace(
        "event: purchase, count: {at_least: 1}, within: 14d", "event: purchases, count: {at_least: 1}"
    )
    with pytest.raises(CommandError) as error:
        apply(broken.replace("[email]", "[fax]").replace("currency: USD", "currency: DOLLARS"))

    lines = str(error.value).splitlines()
    assert lines[0].endswith("was not applied, nothing was changed:")
    assert len(lines) == 4
    for model in (Workspace, User, Audience, PersonList, Destination, Mapping):
        assert not model.objects.exists()


def test_an_archived_key_does_not_come_back(apply):
    apply("audiences: [{key: a, purpose: analytics}]")
    Audience.objects.update(archived_at="2026-01-01T00:00:00Z")

    assert refused("audiences: [{key: a, purpose: analytics}]") == [
        'audiences[0].key: "a" is an archived audience; keys are never reused'
    ]


def test_a_live_connection_does_not_go_back_to_rehearsal_but_is_paused_and_goes_on(apply):
    apply()
    assert refused(FILE.replace("state: live", "state: rehearsal"))[0].startswith(
        "mappings[0].state: a connection that has begun"
    )

    paused = apply(FILE.replace("state: live", "state: paused"))
    assert "    state: live → paused\n" in paused.out
    assert Mapping.objects.get(audience__key="on_top").state == "paused"
    apply()
    assert Mapping.objects.get(audience__key="on_top").state == "live"


def test_a_new_connection_may_begin_frozen_and_passes_no_state_in_which_it_sends(apply):
    text = FILE.replace("state: live", "state: frozen\n    until: 2099-01-01\n    reason: test in progress")
    apply(text)

    mapping = Mapping.objects.get(audience__key="on_top")
    assert (mapping.state, mapping.state_reason, mapping.state_until.year) == ("frozen", "test in progress", 2099)
    assert {action for action, *_ in actions(apply(text))} == {"="}


def test_an_audience_may_stop_being_a_suppression_audience_when_its_links_go_in_the_same_file(apply):
    apply()
    assert refused(FILE.replace("purpose: suppression", "purpose: retargeting"))[0].startswith(
        "audiences[0].excluded_by[0]: "
    )

    apply(
        FILE.replace("purpose: suppression", "purpose: retargeting").replace(
            "    suppressed_by: [bought_14d]\n", "    excluded_by: []\n"
        )
    )

    assert Audience.objects.get(key="bought_14d").purpose == "retargeting"


def test_an_audience_that_others_exclude_by_keeps_its_purpose(apply):
    apply()

    assert refused("audiences: [{key: bought_14d, purpose: retargeting}]") == [
        'audiences[0].purpose: must stay suppression: "on_top" is excluded by it'
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("audiences: []\naudiences: []", 'line 2: the key "audiences" stands twice'),
        ("a: &x 1\nb: *x", "line 2: aliases (*name) are not read"),
        ("a: !!python/object/apply:os.system [id]", "line 1: the tag python/object/apply:os.system is not read here"),
        ("a: [1", "not YAML at line 1"),
        ("[" * 5_000, "is nested too deep"),
        ("a: " + "9" * 5_000, "line 1: a number with too many digits"),
        ("a: b\x00c", "not YAML"),
        ("? [a]\n: 1", "line 1: a key must be a text"),
        ("a: 1\n---\na: 2", "not YAML at line 2"),
    ],
)
def test_a_hostile_file_is_refused_in_words(text, says):
    with pytest.raises(blueprint.BlueprintRefused) as error:
        load_yaml(text)

    assert str(error.value).startswith(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"lists": [{"key": "a", "key": "b"}]}', 'the key "key" stands twice'),
        ("{", "not JSON at line 1"),
        ('{"a": NaN}', "NaN is not a number"),
        ("[" * 100_000, "is nested too deep"),
        ('{"a": ' + "9" * 5_000 + "}", "holds a number with too many digits"),
    ],
)
def test_a_hostile_json_file_is_refused_in_words(text, says):
    with pytest.raises(blueprint.BlueprintRefused) as error:
        load_json(text)

    assert str(error.value).startswith(says)


def test_a_file_that_is_missing_too_long_or_no_text_is_refused_in_one_line(tmp_path):
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("apply", str(tmp_path / "nowhere.yaml"))
    (tmp_path / "latin.yaml").write_bytes("name: für".encode("latin-1"))
    with pytest.raises(CommandError, match="not UTF-8 at byte 7"):
        call_command("apply", str(tmp_path / "latin.yaml"))


def test_yaml_is_read_as_people_mean_it():
    assert load_yaml("countries: [NO, DE]\nid: 00042\nday: 1998-07-01\nprice: 0.1\nyes: no") == {
        "countries": ["NO", "DE"],
        "id": "00042",
        "day": "1998-07-01",
        "price": __import__("decimal").Decimal("0.1"),
        "yes": "no",
    }


def test_texts_that_look_like_something_else_survive_writing_and_reading(apply):
    odd = [
        "no",
        "00042",
        "1e3",
        "1.5",
        "true",
        "null",
        "~",
        "1998-07-01",
        "a: b",
        "#x",
        "12",
        "0x1F",
        "",
        " ",
        "ü",
        "*x",
        "line\nline",
    ]
    segment = {"attribute": "country", "op": "in", "value": odd}
    apply(
        json.dumps({"audiences": [{"key": "odd", "purpose": "analytics", "name": "no", "segment": segment}]}),
        name="odd.json",
    )
    out = io.StringIO()
    call_command("export", stdout=out)

    row = load_yaml(out.getvalue())["audiences"][0]
    assert sorted(row["segment"]["value"]) == sorted(odd)
    assert row["name"] == "no"
    assert {action for action, *_ in actions(apply(out.getvalue()))} == {"="}


OWNED = """
audiences:
  - key: cart
    purpose: retargeting
    owners: {definition: marketer@example.com, sync_health: operator@example.com, backup: admin@example.com}
    segment: {event: add_to_cart, count: {at_least: 1}, within: 24h}
  - key: buyers
    purpose: suppression
    owner: marketer@example.com
    segment: {event: purchase, count: {at_least: 1}, within: 14d}
  - key: nobodys
    purpose: retargeting
    segment: {event: add_to_cart, count: {at_least: 2}, within: 24h}
"""


def owners_of(key):
    row = Audience.objects.get(key=key)
    named = (row.definition_owner, row.sync_owner, row.alert_owner, row.backup_owner)
    return tuple(user.email.partition("@")[0] if user else None for user in named)


def test_four_owners_are_named_and_who_is_not_named_is_said(apply):
    printed = apply(OWNED)

    assert owners_of("cart") == ("marketer", "operator", "operator", "admin")
    assert owners_of("buyers") == ("marketer", "marketer", "marketer", None)
    assert owners_of("nobodys") == (None, None, None, None)
    words = 'Nobody is named for definition, match rate, alerts of "nobodys": a person could not publish it.'
    assert words in printed.err
    assert '"cart"' not in printed.err


def test_owners_are_exported_as_they_would_be_applied_and_who_was_chosen_for_alerts_stays(apply, capsys):
    apply(OWNED)
    call_command("export", "cart")
    exported = capsys.readouterr().out

    for role in ("definition: marketer", "sync_health: operator", "alerts: operator", "backup: admin"):
        assert f"{role}@example.com" in exported
    cart = Audience.objects.get(key="cart")
    audiences.change(actor=None, audience=cart, alert_owner=User.objects.get(email="admin@example.com"))
    assert "0 to change" in apply(OWNED).out
    assert owners_of("cart") == ("marketer", "operator", "admin", "admin")
    assert apply(exported).out.count("alert_owner: admin@example.com → operator@example.com") == 1


def test_a_rule_of_an_audience_in_test_is_left_in_review_and_the_command_says_so(apply):
    apply(OWNED)
    cart = Audience.objects.get(key="cart")
    locks.set_lock(actor=None, audience=cart, until=timezone.now() + timedelta(days=3), note="two ad sets")
    changed = OWNED.replace("within: 24h}\n  - key: buyers", "within: 3d}\n  - key: buyers")

    for _ in range(2):  # applied again, it is the same version that waits
        with pytest.raises(CommandError, match=r"cart stays as it was\. It is in test until") as stopped:
            apply(changed)
        assert stopped.value.returncode == 3

    assert [(row.number, row.state) for row in cart.versions.order_by("number")] == [(1, "published"), (2, "in_review")]


def test_a_change_that_needs_a_second_person_is_left_in_review_and_the_command_says_so(apply):
    apply()
    changed = FILE.replace("within: 14d", "within: 7d")

    for _ in range(2):  # applied again, it is the same version that waits
        with pytest.raises(
            CommandError, match=r"bought_14d stays as it was\. v2 is left in review: .*/review/"
        ) as stopped:
            apply(changed)
        assert stopped.value.returncode == 3
    states = SegmentVersion.objects.filter(audience__key="bought_14d").order_by("number")
    assert [(row.number, row.state) for row in states] == [(1, "published"), (2, "in_review")]

    said = "    removal_limit_percent: 100\n    override: {by: operator@example.com, reason: agreed by phone%s}\n"
    spent = changed.replace("    removal_limit_percent: 100\n", said % ", until: 2020-01-01")
    with pytest.raises(CommandError, match="left in review"):
        apply(spent)
    apply(changed.replace("    removal_limit_percent: 100\n", said % ""))
    assert [(row.number, row.state) for row in states.all()] == [(1, "retired"), (2, "published")]
    assert AuditEntry.objects.get(verb="audience.review_skipped").reason == "agreed by phone (operator@example.com)"


def test_the_share_from_which_on_a_second_person_is_asked_may_stand_in_the_file(apply):
    apply("settings: {review_above_percent: 35}")
    assert Workspace.objects.get().review_above_percent == 35
    with pytest.raises(CommandError, match="review_above_percent: must be a whole number from 0 to 1000"):
        apply("settings: {review_above_percent: lots}")


DOUBTFUL = """
audiences:
  - key: no_way_out
    purpose: retargeting
    segment: {event: add_to_cart, within: 7d}
  - key: hasty
    purpose: analytics
    cadence: 1d
    segment: {all: [{event: purchase, within: 2h}, {event: purchase, within: 2h}]}
  - key: newcomers
    purpose: analytics
    segment: {event: purchase, count: {exactly: 0}, within: 60d}
  - key: sound
    purpose: retargeting
    segment: {all: [{event: add_to_cart, within: 24h}, {event: purchase, count: {exactly: 0}, within: 3d}]}
"""


def findings(printed):
    return [(one["audience"], one["code"], one["path"]) for one in json.loads(printed.out)["findings"]]


def test_what_is_doubtful_about_rules_is_printed_and_stops_nothing(apply):
    expected = [
        ("no_way_out", "no-exit", ""),
        ("hasty", "redundant", "all[1]"),
        ("hasty", "window-narrower-than-cadence", "all[0]"),
        ("hasty", "window-narrower-than-cadence", "all[1]"),
        ("newcomers", "did-not-without-known-for", ""),
    ]
    dry = apply(DOUBTFUL, "--dry-run", "--json")
    assert findings(dry) == expected
    assert all(one["why"].endswith(".") and len(one) == 4 for one in json.loads(dry.out)["findings"])
    words = apply(DOUBTFUL, "--dry-run").out
    assert "! no_way_out (no-exit): Whoever buys stays in" in words
    assert "! hasty at all[1] (redundant): Another rule beside it" in words
    assert findings(apply(DOUBTFUL, "--json")) == expected
    assert Audience.objects.get(key="no_way_out").live_version.number == 1


def test_findings_go_by_what_the_file_makes_of_links_and_connections(apply):
    apply()
    linked = "audiences: [{key: on_top, segment: {event: add_to_cart, within: 7d}}]"
    assert findings(apply(linked, "--dry-run", "--json")) == []  # bought_14d takes out whoever buys
    unlinked = "audiences: [{key: on_top, segment: {event: add_to_cart, within: 7d}, suppressed_by: []}]"
    assert findings(apply(unlinked, "--dry-run", "--json")) == [("on_top", "no-exit", "")]
    short = "audiences: [{key: bought_14d, segment: {event: purchase, within: 90m}}]"
    assert findings(apply(short, "--dry-run", "--json")) == []
    slow = f"{short}\nmappings: [{{audience: bought_14d, destination: meta_main, cadence: 3h}}]"
    assert findings(apply(slow, "--dry-run", "--json")) == [("bought_14d", "window-narrower-than-cadence", "")]


def test_a_window_shorter_than_sending_has_lately_taken_is_found(apply):
    apply()
    short = "audiences: [{key: on_top, segment: {all: [{event: add_to_cart, within: 1h}, {not: {list: vip}}]}}]"
    now = timezone.now()
    mapping = Mapping.objects.get(audience__key="on_top")
    rehearsed = Run.objects.create(mapping=mapping, state="done", trigger="schedule", rehearsal=True, finished_at=now)
    approved = Run.objects.create(mapping=mapping, state="done", trigger="schedule", approved_at=now, finished_at=now)
    Run.objects.filter(pk__in=[rehearsed.pk, approved.pk]).update(created_at=now - timedelta(hours=9))
    assert findings(apply(short, "--dry-run", "--json")) == []
    for hours in (2, 4):
        run = Run.objects.create(mapping=mapping, state="done", trigger="schedule", finished_at=now)
        Run.objects.filter(pk=run.pk).update(created_at=now - timedelta(hours=hours))
    printed = apply(short, "--dry-run", "--json")
    assert findings(printed) == [("on_top", "window-narrower-than-cadence", "all[0]")]
    assert "only after about 3 hours" in json.loads(printed.out)["findings"][0]["why"]


def test_events_that_never_came_stopped_or_come_from_some_platforms_only_are_found(apply):
    now = clock.now_us()
    track("anna", "stopped", now - 8 * clock.DAY)
    for number in range(12):
        track(f"p{number}", "viewed", platform=("ios", "web")[number % 2])
        if number % 2:
            track(f"p{number}", "checkout", platform="web")
    rule = "{{key: {0}, purpose: analytics, segment: {{event: {0}, within: 7d}}}}"
    file = "audiences: [" + ", ".join(rule.format(event) for event in ("viewed", "stopped", "checkout")) + "]"
    assert findings(apply(file, "--dry-run", "--json")) == [
        ("stopped", "unseen-event", ""),
        ("checkout", "brittle-event", ""),
    ]


def test_a_file_that_is_refused_says_what_is_doubtful_besides(apply, capsys):
    file = "audiences: [{key: a, purpose: analytics, segment: {all: [{event: purchas, within: 1d}]}}]"
    with pytest.raises(CommandError, match="was not applied"):
        apply(file, "--dry-run", "--json")
    said = json.loads(capsys.readouterr().out)
    assert (said["applied"], [problem["path"] for problem in said["problems"]]) == (
        False,
        ["audiences[0].segment.all[0].event"],
    )
    assert [(one["code"], one["path"]) for one in said["findings"]] == [("unknown-event", "all[0]")]


def test_what_is_doubtful_costs_the_same_few_queries_whatever_the_file(apply):
    apply()

    def planned(many):
        rules = [f"{{key: a{n}, purpose: analytics, segment: {{event: purchase}}}}" for n in range(many)]
        parsed = blueprint.parse(load_yaml(f"audiences: [{', '.join(rules)}]"))
        planner = Planner(parsed, "", {})
        with CaptureQueriesContext(connection) as asked:
            assert len(advice.of(planner)) == many
        return len(asked)

    advice.of(Planner(blueprint.parse(load_yaml(FILE)), "", {}))
    assert planned(2) == planned(20) < 10
