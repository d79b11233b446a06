"""What is doubtful about a rule: found where it stands, said why, put right by one change; and nothing is said of a sound one."""

import html
import json
import time
from collections import Counter

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from audiences import clock, findings
from audiences.clock import DAY, HOUR, MINUTE
from audiences.people import engines
from audiences.people.engines.base import UnreadableLake
from audiences.segments import grammar, lint, logic, recipes
from audiences.segments.judge import judge
from audiences.segments.lint import Facts, Seen
from audiences.segments.tree import Node, Not
from audiences.services import versions
from tests import filled
from tests.audiences import strategies
from tests.audiences.people_in import track

PLATFORMS = {"ios": 40, "android": 30, "web": 50}
SHOP = {
    name: Seen(900, PLATFORMS, {True: 80, False: 40})
    for name in ("add_to_cart", "purchase", "product_viewed", "email_opened", "searched")
}
RETARGETING = Facts("retargeting", 15 * MINUTE, 5 * MINUTE, events=SHOP)
ANYTHING = Facts("analytics", events=SHOP)
CART = {"event": "add_to_cart", "within": "24h"}
NOT_BOUGHT = {"event": "purchase", "count": {"exactly": 0}, "within": "3d"}


def tree(rule) -> Node:
    return grammar.loads(json.dumps(rule))


def codes(rule, facts=ANYTHING) -> list[tuple[str, str]]:
    return [(finding.code, finding.path) for finding in lint.findings(tree(rule), facts)]


def fixed(rule, code, facts=ANYTHING) -> Node:
    [finding] = [finding for finding in lint.findings(tree(rule), facts) if finding.code == code]
    assert finding.fix is not None
    assert code not in [after.code for after in lint.findings(finding.fix, facts)]
    return finding.fix


@pytest.mark.parametrize(
    ("recipe", "purpose"), [(recipe, purpose) for recipe in recipes.RECIPES.values() for purpose in recipe.purposes]
)
def test_of_a_recipes_rule_there_is_nothing_to_say_for_what_it_is_for(recipe, purpose):
    names = {"purchase": "purchase", "cart": "add_to_cart", "view": "product_viewed", "amount": "value"}
    for turned in ("low", "usual", "high"):
        numbers = {number.name: getattr(number, turned) for number in recipe.numbers}
        if recipe.key == "replenish":
            numbers["from"] = min(numbers["from"], numbers["to"] - 1)
        if recipe.key == "win_back":
            numbers["times"] = min(numbers["times"], 5)
        facts = Facts(purpose, 15 * MINUTE, 5 * MINUTE, events=SHOP)
        assert lint.findings(tree(recipe.rule(numbers, names)), facts) == ()


def test_a_retargeting_audience_must_be_left_by_buying():
    assert codes(CART, RETARGETING) == [("no-exit", "")]
    quiet = {"event": "purchase", "count": {"exactly": 0}, "within": "14d"}
    assert fixed(CART, "no-exit", RETARGETING) == tree({"all": [CART, quiet]})
    assert codes({"all": [CART, NOT_BOUGHT]}, RETARGETING) == []
    assert codes({"all": [CART, {"not": {"event": "purchase", "within": "3d"}}]}, RETARGETING) == []
    either = {"any": [{"all": [CART, NOT_BOUGHT]}, {"all": [{"event": "searched", "within": "7d"}, NOT_BOUGHT]}]}
    assert codes(either, RETARGETING) == []
    assert codes({"any": [{"all": [CART, NOT_BOUGHT]}, {"event": "searched", "within": "7d"}]}, RETARGETING) == [
        ("no-exit", "")
    ]
    assert codes(CART, Facts("suppression", events=SHOP)) == []
    assert codes(CART, Facts("retargeting", suppressed=True, events=SHOP)) == []


def test_who_is_there_because_they_bought_must_leave_some_other_way():
    assert codes({"event": "purchase", "within": "30d"}, RETARGETING) == []
    assert codes({"event": "purchase", "count": {"at_least": 3}}, RETARGETING) == [
        ("no-exit", ""),
        ("no-time-window", ""),
    ]


def test_the_rule_of_an_audience_that_is_referred_to_is_looked_at_too():
    rules = {"bought": tree({"event": "purchase", "within": "14d"})}
    facts = Facts("retargeting", events=SHOP, rules=rules)
    assert codes({"all": [CART, {"not": {"audience": "bought"}}]}, facts) == []
    assert codes({"all": [CART, {"audience": "bought"}]}, Facts("retargeting", events=SHOP)) == []  # cannot be told


def test_an_event_at_any_time_needs_a_limit_beside_it():
    ever = {"event": "searched"}
    assert codes(ever) == [("no-time-window", "")]
    assert fixed(ever, "no-time-window") == tree({"event": "searched", "within": "30d"})
    assert codes({"any": [CART, ever]}) == [("no-time-window", "any[1]")]
    assert codes({"all": [CART, ever]}) == []
    assert codes({"event": "purchase", "sum": "value", "op": "gte", "value": 5}) == [("no-time-window", "")]
    steps = {"sequence": [{"event": "searched"}, {"event": "purchase", "within": "1d"}]}
    assert codes(steps) == [("no-time-window", "")]
    assert codes({"not": ever}) == [("did-not-without-known-for", "")]
    assert codes({"attribute": "country", "op": "is", "value": "DE"}) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (CART, {"not": CART}),
        ({"event": "searched", "count": {"at_least": 3}, "within": "7d"}, {"event": "searched", "count": {"at_most": 2}, "within": "30d"}),
        ({"event": "purchase", "count": {"exactly": 0}, "within": "7d"}, {"event": "purchase", "sum": "value", "op": "gt", "value": 1, "within": "3d"}),
        ({"attribute": "plan", "op": "is", "value": "pro"}, {"attribute": "plan", "op": "is", "value": "free"}),
        ({"attribute": "plan", "op": "is", "value": "pro"}, {"attribute": "plan", "op": "not_in", "value": ["pro", "free"]}),
        ({"attribute": "plan", "op": "missing"}, {"attribute": "plan", "op": "contains", "value": "p"}),
        ({"attribute": "age", "op": "lt", "value": 18}, {"attribute": "age", "op": "between", "value": [18, 30]}),
        ({"attribute": "age", "op": "gt", "value": 3}, {"attribute": "age", "op": "is", "value": "3"}),
        ({"attribute": "born", "op": "before", "value": "2000-01-01"}, {"attribute": "born", "op": "after", "value": "2000-01-01"}),
        ({"event": "searched", "last": "occurrence", "op": "within_last", "value": "3d"}, {"event": "searched", "last": "occurrence", "op": "not_within_last", "value": "3d"}),
        ({"bucket": {"salt": "s", "from": 0, "to": 50}}, {"bucket": {"salt": "s", "from": 50, "to": 100}}),
        (NOT_BOUGHT, {"sequence": [{"event": "searched", "within": "1d"}, {"event": "purchase"}, {"event": "purchase", "within": "1h"}]}),
    ],
)  # fmt: skip
def test_rules_that_nobody_can_meet_together_contradict_each_other(one, other):
    assert ("contradiction", "all[1]") in codes({"all": [one, other]})
    assert ("contradiction", "all[1].all[1]") in codes({"all": [other, {"all": [CART, one]}]})
    assert "contradiction" not in dict(codes({"any": [one, other]}))


def test_conditions_of_one_event_contradict_each_other_too():
    where = [
        {"property": "category", "op": "is", "value": "shoes"},
        {"property": "category", "op": "is", "value": "bags"},
    ]
    assert codes({**CART, "where": where}) == [("contradiction", "")]
    steps = {"sequence": [{"event": "searched", "within": "7d"}, {"event": "purchase", "where": where}]}
    assert codes({"any": [CART, steps]}) == [("contradiction", "any[1].sequence[1]")]
    assert codes({**CART, "where": [where[0], {"property": "value", "op": "gt", "value": 5}]}) == []


def test_a_rule_that_follows_from_another_is_redundant_and_can_be_taken_out():
    wider = {"event": "add_to_cart", "within": "7d"}
    assert codes({"all": [wider, CART]}) == [("redundant", "all[0]")]
    assert fixed({"all": [wider, CART]}, "redundant") == tree(CART)
    assert codes({"any": [wider, CART]}) == [("redundant", "any[1]")]
    assert fixed({"any": [wider, CART]}, "redundant") == tree(wider)
    assert codes({"all": [CART, {"event": "searched", "within": "7d"}, CART]}) == [("redundant", "all[2]")]
    of_shoes = {**CART, "where": [{"property": "category", "op": "is", "value": "shoes"}]}
    assert codes({"all": [of_shoes, CART]}) == [("redundant", "all[1]")]
    assert codes({"all": [CART, {"any": [CART, wider]}]}) == [("redundant", "all[1].any[0]")]
    paid = {"event": "purchase", "sum": "value", "op": "gte", "value": 100, "within": "7d"}
    assert codes({"all": [{"event": "purchase", "within": "30d"}, paid]}) == [("redundant", "all[0]")]
    assert codes({"all": [CART, {"all": [CART]}]}) == [("redundant", "all[1].all[0]")]


def test_a_window_must_be_longer_than_the_time_until_anybody_hears_of_it():
    slow = Facts("analytics", cadence=6 * HOUR, latency=HOUR, events=SHOP)
    assert codes({"event": "searched", "within": "3h"}, slow) == [("window-narrower-than-cadence", "")]
    searched = {"event": "searched", "within": "3h"}
    assert fixed(searched, "window-narrower-than-cadence", slow) == tree({**searched, "within": "6h"})
    assert codes({"event": "searched", "within": "6h"}, slow) == []
    late = Facts("analytics", cadence=HOUR, latency=int(6.5 * HOUR), events=SHOP)
    [finding] = lint.findings(tree({"event": "searched", "within": "3h"}), late)
    assert "with the platforms only after about 6.5 hours" in finding.why
    moment = {"event": "searched", "last": "occurrence", "op": "within_last", "value": "30m"}
    assert fixed(moment, "window-narrower-than-cadence", slow) == tree({**moment, "value": "6h"})
    steps = {"sequence": [{"event": "searched", "within": "1h"}, {"event": "purchase", "within": "10m"}]}
    wider = {"sequence": [{"event": "searched", "within": "6h"}, {"event": "purchase", "within": "10m"}]}
    assert fixed(steps, "window-narrower-than-cadence", slow) == tree(wider)
    assert codes({"event": "searched", "within": "1m"}) == []  # the pace is not known


def test_did_not_finds_newcomers_unless_their_age_or_a_deed_is_asked_for():
    quiet = {"event": "purchase", "count": {"exactly": 0}, "within": "60d"}
    assert codes(quiet) == [("did-not-without-known-for", "")]
    assert fixed(quiet, "did-not-without-known-for") == tree({**quiet, "known_for": "60d"})
    country = {"attribute": "country", "op": "is", "value": "DE"}
    assert codes({"all": [country, quiet]}) == [("did-not-without-known-for", "all[1]")]
    assert codes({"all": [country, {"not": {"event": "purchase"}}]}) == [("did-not-without-known-for", "all[1]")]
    never = {"event": "purchase", "count": {"exactly": 0}}
    assert fixed({"all": [country, {"not": {"event": "purchase"}}]}, "did-not-without-known-for") == tree(
        {"all": [country, {**never, "known_for": "30d"}]}
    )
    assert codes({"all": [country, {**quiet, "known_for": "60d"}]}) == []
    assert codes({"all": [CART, {"any": [quiet, country]}]}) == []
    assert codes({"any": [CART, quiet]}) == [("did-not-without-known-for", "any[1]")]


def test_events_that_never_came_or_have_stopped_coming_are_told():
    assert codes({"event": "serched", "within": "7d"}) == [("unknown-event", "")]
    assert fixed({"event": "serched", "within": "7d"}, "unknown-event") == tree({"event": "searched", "within": "7d"})
    [finding] = lint.findings(tree({"event": "zzz", "within": "7d"}), ANYTHING)
    assert finding.fix is None
    steps = {"sequence": [{"event": "searched", "within": "7d"}, {"event": "Purchase"}]}
    assert codes(steps) == [("unknown-event", "sequence[1]")]
    assert fixed(steps, "unknown-event") == tree({"sequence": [steps["sequence"][0], {"event": "purchase"}]})
    stopped = Facts(events={"searched": Seen(0), "unread": Seen()})
    assert codes({"event": "searched", "within": "7d"}, stopped) == [("unseen-event", "")]
    assert codes({"event": "unread", "within": "7d"}, stopped) == []
    assert codes({"event": "*", "within": "7d"}) == []


def test_an_event_that_does_not_come_from_everybody_is_brittle():
    gap = Seen(50, {"android": 20, "web": 30}, {True: 30, False: 20})
    facts = Facts(
        events={**SHOP, "checkout": gap, "signed": Seen(30, PLATFORMS, {True: 30}), "few": Seen(2, {"web": 2})}
    )
    [finding] = lint.findings(tree({"event": "checkout", "within": "7d"}), facts)
    assert (finding.code, finding.path) == ("brittle-event", "")
    assert "came from nobody on ios, where 33% of the people are" in finding.why
    [finding] = lint.findings(tree({"event": "signed", "within": "7d"}), facts)
    assert "only from people who are logged in" in finding.why
    assert codes({"event": "few", "within": "7d"}, facts) == []  # two people may well be on the same platform
    web = [{"property": "platform", "op": "is", "value": "web"}]
    assert codes({"event": "checkout", "within": "7d", "where": web}, facts) == []
    till = Facts(events={**SHOP, "till": Seen(50, {"till": 50})})
    assert codes({"event": "till", "within": "7d"}, till) == []  # a system of its own


def test_a_sum_over_several_currencies_asks_for_one():
    facts = Facts(events={"purchase": Seen(50, currencies={"EUR": 30, "USD": 40})})
    spent = {"event": "purchase", "sum": "value", "op": "gte", "value": 100, "within": "30d"}
    assert codes(spent, facts) == [("mixed-currencies", "")]
    dollars = {**spent, "where": [{"property": "currency", "op": "is", "value": "USD"}]}
    assert fixed(spent, "mixed-currencies", facts) == tree(dollars)
    assert codes(spent, Facts(events={"purchase": Seen(50, currencies={"EUR": 30})})) == []


FACTS = st.builds(
    Facts,
    purpose=st.sampled_from(("retargeting", "suppression")),
    cadence=st.sampled_from((0, HOUR, 2 * DAY, 2_000 * DAY)),
    latency=st.sampled_from((0, 90 * MINUTE)),
    events=st.just(
        {
            "viewed": Seen(0),
            "bought": Seen(90, {"web": 90}, {True: 90}, {"EUR": 1, "USD": 1}),
            "purchase": Seen(90, PLATFORMS, {False: 90}),
        }
    ),
)


@given(strategies.trees(), FACTS)
@settings(max_examples=300)
def test_a_fix_is_a_rule_without_its_finding(rule, facts):
    def told(tree: Node) -> Counter:
        return Counter(f.code for f in lint.findings(tree, facts))

    found = lint.findings(rule, facts)
    assert len({(finding.code, finding.path) for finding in found}) == len(found)
    for finding in found:
        assert finding.why.endswith((".", "?"))
        if finding.fix is not None:
            assert grammar.parse(grammar.to_json(finding.fix)) == finding.fix
            assert finding.fix != rule
            after = lint.findings(finding.fix, facts)
            if finding.code != "redundant":  # what is left may be said twice as well
                assert finding not in after
            assert told(finding.fix)[finding.code] <= told(rule)[finding.code]


def rules():
    return strategies.leaves() | strategies.leaves().map(Not) | strategies.trees(max_leaves=3)


@given(rules(), rules(), strategies.people())
@settings(max_examples=800)
def test_what_is_told_of_two_rules_holds_for_everybody(one, other, people):
    implied, apart = logic.implies(one, other), logic.excludes(one, other)
    if not implied and not apart:
        return
    for person in people:
        here, there = (judge(rule, person, strategies.AS_OF) for rule in (one, other))
        assert not (implied and here and not there)
        assert not (apart and here and there)


@pytest.mark.django_db
def test_a_draft_says_on_its_page_what_is_doubtful_and_what_is_live_does_not():
    people = filled.users()
    for person in ("anna", "ben"):
        track(person, "add_to_cart")
        track(person, "purchase")
    audience = filled.audience("cart", CART, people["marketer"])
    versions.save_draft(actor=people["marketer"], audience=audience, segment={"all": [CART, {**CART, "within": "10m"}]})
    client = Client()
    client.force_login(people["buyer"])
    page = html.unescape(client.get("/audiences/cart/versions/2/").content.decode())
    assert "<strong>No way out</strong>" in page
    assert "<strong>Said twice</strong> <code>all[0]</code>" in page
    assert "It looks at 10 minutes, but the audience is counted and sent every 15 minutes" in page
    assert "Worth a look" not in client.get("/audiences/cart/versions/1/").content.decode()


@pytest.mark.django_db
def test_what_an_audience_is_held_against_is_loaded_by_the_same_few_queries():
    track("anna", "add_to_cart")
    audience = filled.audience("cart", CART, filled.users()["marketer"])
    large = tree({"any": [{**CART, "within": f"{hours}h"} for hours in range(1, 40)]})
    findings.of(audience, large)  # what is there is looked at once
    with CaptureQueriesContext(connection) as few:
        findings.of(audience, tree(CART))
    with CaptureQueriesContext(connection) as many:
        assert len(findings.of(audience, large)) == 39
    assert len(few) == len(many) < 10


@pytest.mark.django_db
def test_where_the_history_cannot_be_read_nothing_is_said_of_what_came_in(monkeypatch):
    track("anna", "add_to_cart", clock.now_us() - 9 * DAY)
    track("anna", "purchase")
    audience = filled.audience("cart", {"all": [CART, NOT_BOUGHT]}, filled.users()["marketer"])
    rule = tree({"all": [CART, NOT_BOUGHT]})
    assert [finding.code for finding in findings.of(audience, rule)] == ["unseen-event"]

    def unreadable(pin):
        raise UnreadableLake("gone")

    monkeypatch.setattr(engines.current(), "lately", unreadable)
    assert findings.of(audience, rule) == ()


def test_the_largest_rule_is_looked_at_in_no_time():
    rule = {"all": [{"event": "add_to_cart", "count": {"at_least": n + 1}, "within": f"{n + 1}d"} for n in range(400)]}
    began = time.monotonic()
    lint.findings(tree(rule), RETARGETING)
    assert time.monotonic() - began < 10
