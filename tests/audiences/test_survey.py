"""What fields offer: names and usual values with how often, when last and with which share of the people, as the survey counted them."""

import json

import pytest
from django.test import Client

from audiences import clock, jobs, suggestions
from audiences.models import AttributeName, EventName, Job, PropertyName, Survey
from audiences.people import survey
from audiences.segments import grammar, outline
from audiences.suggestions import Name
from tests import filled
from tests.audiences.people_in import identify, track, until_counted
from tests.audiences.test_editor import address

pytestmark = pytest.mark.django_db(transaction=True)
LONG_AGO = clock.now_us() - 3 * clock.DAY


@pytest.fixture
def shop(db):
    """Twenty people: all have a plan and a phone, twelve bought, ten of them shoes."""
    for number in range(20):
        identify(f"p{number}", plan="pro" if number < 15 else "free", phone="+491701234567", vip=True)
    for number in range(12):
        track(f"p{number}", "buy", LONG_AGO, kind="shoes" if number < 10 else "hats", note=f"p{number}@shop.example")
    track("p0", "buy", LONG_AGO, kind="shoes", note="all@shop.example")
    until_counted()


def offered(rule):
    return suggestions.of(outline.of_tree(grammar.parse(rule)))


def test_a_name_is_not_counted_before_the_first_survey_rather_than_nobodys(shop):
    found = offered({"event": "buy", "where": [{"property": "kind", "op": "is", "value": "x"}], "within": "7d"})
    (buy,) = found.lists["events"]
    assert (buy.name, buy.amount, buy.share) == ("buy", None, None) and buy.seen_us
    assert found.values == {}


def test_names_come_with_how_often_how_recent_and_the_share_of_people(shop):
    survey.take()
    found = offered({"event": "buy", "where": [{"property": "kind", "op": "is", "value": "x"}], "within": "7d"})
    (buy,) = found.lists["events"]
    assert buy == Name("buy", 13, "times", 12 / 20, LONG_AGO // clock.SECOND * clock.SECOND)  # not when it came in
    kinds = {one.name: one for one in found.lists[found.properties["buy"]]}
    assert (kinds["kind"].amount, kinds["kind"].unit, kinds["kind"].share) == (13, "in 7 days", 12 / 20)
    assert found.lists[found.values["buy", "kind"]] == [Name("shoes", 10, "people in 7 days", 0.5)]
    plan = {one.name: one for one in found.lists["attributes"]}["plan"]
    assert (plan.amount, plan.unit, plan.share) == (20, "people", 1.0)


def test_values_are_offered_for_attributes_too_and_never_what_says_who_somebody_is(shop):
    survey.take()
    rule = {"any": [{"attribute": name, "op": "is", "value": "x"} for name in ("plan", "phone", "vip")]}
    found = offered(rule)
    assert found.lists[found.values["", "plan"]] == [Name("pro", 15, "people", 0.75)]  # five people are too few
    assert found.lists[found.values["", "vip"]] == [Name("true", 20, "people", 1.0)]
    assert ("", "phone") not in found.values
    for row in (*PropertyName.objects.all(), *AttributeName.objects.all()):
        assert "@" not in json.dumps(row.usual) and "1234567" not in json.dumps(row.usual)


def test_what_came_in_after_the_survey_is_seen_when_it_came(shop):
    survey.take()
    EventName.objects.update(last_seen_us=Survey.objects.get().as_of_us + 5)
    (buy,) = offered({"event": "buy"}).lists["events"]
    assert buy.seen_us == Survey.objects.get().as_of_us + 5


def test_a_name_of_which_nothing_is_left_is_known_to_be_of_nobody(shop):
    EventName.objects.create(name="gone", first_seen_us=1, last_seen_us=1)
    survey.take()
    gone = next(one for one in offered({"event": "buy"}).lists["events"] if one.name == "gone")
    assert (gone.amount, gone.share) == (0, 0.0)


def test_a_field_says_a_name_as_it_has_to_be_typed(shop):
    for number in range(10):
        track(f"p{number}", '"odd"', LONG_AGO, **{'"q"': " two  "})
    until_counted()
    survey.take()
    found = offered({"event": '"odd"', "where": [{"property": '"q"', "op": "in", "value": ["x"]}], "within": "9d"})
    assert r'"\"odd\""' in {one.name for one in found.lists["events"]}
    (quoted,) = found.lists[found.properties['"odd"']]
    assert quoted.name == '"\\"q\\""'
    assert [one.name for one in found.lists[found.values['"odd"', '"q"']]] == ['" two  "']


def test_it_takes_the_same_queries_for_many_names(shop, django_assert_num_queries):
    survey.take()
    for count in (1, 30):
        rule = {"any": [{"event": f"e{n}", "where": [{"property": "x", "op": "exists"}]} for n in range(count)]}
        rule["any"] += [{"attribute": f"a{n}", "op": "exists"} for n in range(count)]
        made = outline.of_tree(grammar.parse(rule))
        with django_assert_num_queries(7):
            suggestions.of(made)


def test_the_worker_surveys_by_itself_and_after_an_import(db):
    survey.keep_going()
    assert Job.objects.get(task=survey.TASK).every_seconds == 900
    Job.objects.update(due_at=None)
    survey.ask()
    jobs.run_due_here(["compute"])
    assert Survey.objects.get().people == 0


def test_the_page_says_all_of_it_and_that_something_is_not_counted(db):
    world = filled.fill()
    client = Client()
    client.force_login(world.users["marketer"])
    survey.take()
    page = client.get(address(world.cart)).content.decode()
    events = page.split('<datalist id="events">')[1].split("</datalist>")[0]
    assert '<option value="add_to_cart">' in events and "of people · seen" in events
    EventName.objects.update(times=None, people=None)
    page = client.get(address(world.cart)).content.decode()
    events = page.split('<datalist id="events">')[1].split("</datalist>")[0]
    assert "Not counted yet · seen" in events and "0 times" not in events
