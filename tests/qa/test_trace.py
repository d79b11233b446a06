"""One person and one audience, said by `manage.py trace` and by the people pages: in or out, why, since when, told what."""

import json
import logging
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from audiences.models import Consent
from tests import filled
from tests.audiences.people_in import identify, number, track
from tests.destinations import scene

pytestmark = pytest.mark.django_db(transaction=True)
RULE = {"all": [scene.IN, {"event": "purchase", "count": {"exactly": 0}}]}


@pytest.fixture
def cart(sandbox, account_number):
    people = filled.users()
    for id in ("ann", "bob", "cleo"):
        identify(id, email=f"{id}@shop.example", phone="+4915112345678", **{"in": "yes"})
    track("bob", "purchase")
    live = scene.live(sandbox, account_number, scene.audience("cart", RULE, purpose="suppression"))
    live.sync()
    return live, people


def said(*words):
    out = StringIO()
    call_command("trace", *words, stdout=out)
    return out.getvalue()


def data(*words):
    return json.loads(said(*words, "--json"))


def test_somebody_inside_with_the_call_that_put_them_there(cart):
    live, _ = cart
    found = data("cart", "ann")

    assert (found["audience"], found["version"], found["person"], found["profile_no"]) == (
        "cart",
        1,
        "ann",
        number("ann"),
    )
    assert (found["in"]["count"], found["in"]["now"]) == (True, True)
    assert [(rule["path"], rule["holds"]) for rule in found["rules"]] == [
        ("", True),
        ("all[0]", True),
        ("all[1]", True),
    ]
    assert found["since"]["version"] == 1 and found["left"] is None
    [there] = found["connections"]
    assert (there["destination"], there["state"], there["told"], there["wanted"], there["step"]) == (
        live.mapping.destination.key, "live", "present", True, None,
    )  # fmt: skip
    last = there["last_operation"]
    assert (last["kind"], last["state"], last["request_id"]) == ("add", "settled", live.operations()[0].request_id)
    assert last["accepted_at"]


def test_somebody_outside_with_the_rule_that_keeps_them_there(cart):
    found = data("cart", "bob")
    assert (found["in"]["count"], found["in"]["now"], found["decided_by"]) == (False, False, ["all[1]"])
    assert (found["since"], found["left"]) == (None, None)
    [there] = found["connections"]
    assert (there["told"], there["ever_sent"], there["last_operation"]) == ("absent", False, None)


def test_somebody_who_left_since(cart):
    live, _ = cart
    track("ann", "purchase")
    live.sync()

    found = data("cart", "ann")

    assert found["since"] is None and found["left"]["version"] == 1
    [there] = found["connections"]
    assert (there["told"], there["ever_sent"], there["last_operation"]["kind"]) == ("absent", True, "remove")
    assert there["words"] == "Taken out, and received."


def test_the_step_that_kept_them_back(cart):
    live, _ = cart
    Consent.objects.create(profile_no=number("ann"), purpose="ad_user_data", granted=False, at_us=1, source="test")
    live.sync()
    [there] = data("cart", "ann")["connections"]
    assert (there["step"], there["wanted"]) == ("consent", False)
    assert there["step_words"].startswith("Without consent.")


def test_what_happened_after_the_count_is_judged_now(cart):
    track("ann", "purchase")
    found = data("cart", "ann")
    assert (found["in"]["count"], found["in"]["now"]) == (True, False)


def test_in_words_for_people(cart):
    text = said("cart", "ann")
    assert text.startswith("In cart (v1), judged this moment.\n")
    assert "  ✓ All of these" in text and "    ✓ Never did “purchase”" in text
    assert "Added, and received." in text and "request " in text


@pytest.mark.parametrize("name", ["ann@shop.example", " ANN@Shop.example "])
def test_an_email_finds_them_and_only_what_was_typed_is_said(cart, name, caplog):
    caplog.set_level(logging.DEBUG)
    found = data("cart", name)
    assert found["profile_no"] == number("ann")
    del found["person"]
    assert "shop.example" not in json.dumps(found).lower()
    assert "15112345678" not in json.dumps(found)
    assert "shop.example" not in caplog.text.lower()


def test_failures_are_one_clear_line_without_what_was_typed(cart):
    with pytest.raises(CommandError, match=r"^There is no audience nothing\.$"):
        call_command("trace", "nothing", "ann")
    with pytest.raises(CommandError) as failure:
        call_command("trace", "cart", "zoe@shop.example")
    assert str(failure.value) == "Nobody answers to this id, e-mail or phone. It must be whole."


# --- On the people pages


def test_the_person_page_says_it_in_words(client, cart):
    live, people = cart
    client.force_login(people["marketer"])
    whole = client.get(reverse("qa:person-platforms", args=[number("ann")])).content.decode()
    part = client.get(
        reverse("qa:person-platforms", args=[number("ann")]), headers={"HX-Request": "true"}
    ).content.decode()
    for text in (whole, part):
        assert "Added, and received." in text
        assert "Told to add them" in text and live.operations()[0].request_id in text
    assert "<html" in whole and "<html" not in part
    person = client.get(reverse("audiences:person", args=[number("ann")])).content.decode()
    assert reverse("qa:person-platforms", args=[number("ann")]) in person
    nobody = client.get(reverse("qa:person-platforms", args=[number("bob")])).content.decode()
    assert "No platform has been told anything" in nobody


def test_the_page_of_one_audience_shows_that_alone_with_the_step(client, cart):
    live, people = cart
    Consent.objects.create(profile_no=number("ann"), purpose="ad_user_data", granted=False, at_us=1, source="test")
    live.sync()
    client.force_login(people["operator"])
    address = reverse("qa:person-platforms", args=[number("ann")])
    assert "Kept back: without consent." in client.get(f"{address}?audience=cart").content.decode()
    assert client.get(f"{address}?audience=nothing").status_code == 404
    assert client.get(f"{address}?audience=%00").status_code == 200
    assert client.get(reverse("qa:person-platforms", args=[10**9])).status_code == 404


def test_entering_under_a_version_is_said_with_its_day(client, cart):
    live, people = cart
    identify("dora", email="dora@shop.example", **{"in": "yes"})
    live.sync()
    client.force_login(people["marketer"])
    text = client.get(reverse("qa:person-platforms", args=[number("dora")])).content.decode()
    assert "under v1" in text and "Entered" in text
    assert f"{timezone.now():%Y}" in said("cart", "dora")
    assert "Entered " in said("cart", "dora")


def test_a_buyer_sees_none_of_it(client, cart):
    _, people = cart
    client.force_login(people["buyer"])
    assert client.get(reverse("qa:person-platforms", args=[number("ann")])).status_code == 403
