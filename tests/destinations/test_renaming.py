"""Many audiences renamed in one act: what the dry run says, what stands in the way, what platforms are told, and the way back."""

import json
from dataclasses import replace
from html import unescape
from io import StringIO

import pytest
from django.core.cache import cache
from django.core.management import CommandError, call_command

from audiences import jobs
from audiences.models import Audience, AuditEntry, Renaming
from audiences.naming import NamingRefused
from audiences.services import naming as service
from audiences.services.renames import Wish
from destinations import renaming
from destinations.models import Mapping
from destinations.services import renames
from tests import filled
from tests.audiences.people_in import identify, track
from tests.destinations import scene
from tests.filled import as_

pytestmark = pytest.mark.django_db(transaction=True)
AT = "/settings/naming/rename/"


@pytest.fixture
def world(db) -> filled.Filled:
    """Nobody follows: `meta_cart_24h` and `meta_buyers_7d` could, `not_yet` has neither rule nor parts."""
    cache.clear()
    return filled.fill()


def text(response) -> str:
    return unescape(response.content.decode()).replace("<wbr>", "")


def names() -> dict[str, str]:
    return dict(Audience.objects.values_list("key", "name"))


def by_key() -> dict[str, renaming.Planned]:
    return {one.key: one for one in renaming.plan()}


def pick(*keys: str) -> list[str]:
    found = by_key()
    return [json.dumps([key, found[key].rename.before, found[key].rename.after]) for key in keys]


def command(*args: str) -> str:
    out = StringIO()
    call_command("rename", *args, stdout=out)
    return out.getvalue()


# --- The plan.


def test_the_plan_says_what_each_would_be_called_why_and_what_follows(world):
    found = by_key()
    cart = found["meta_cart_24h"]
    assert (cart.rename.before, cart.rename.after, cart.ready) == ("meta_cart_24h", "meta_cart_24h_v1", True)
    assert cart.rename.why == ("It has 3 parts, and a name has 4: channel, intent, window, version.",)
    [follow] = cart.follows
    assert (follow.before, follow.after, follow.words) == (
        "meta_cart_24h",
        "meta_cart_24h_v1",
        "renamed at the next sync",
    )
    buyers = found["meta_buyers_7d"]
    assert buyers.rename.after == "meta_purchasers_7d_v1", "what its key does not say, its rule does"
    assert "Choose the intent" in found["not_yet"].rename.conflict
    assert not found["not_yet"].ready
    assert AuditEntry.objects.filter(verb="audience.renamed").count() == 0


def test_what_stands_in_the_way_is_said(world):
    Audience.objects.filter(key="not_yet").update(name="meta_cart_24h_v1")
    Audience.objects.filter(key="meta_buyers_7d").update(name="meta_purchasers_7d_v1")
    found = by_key()
    assert set(found) == {"meta_cart_24h"}
    assert "not_yet would have the name “meta_cart_24h_v1” too" in found["meta_cart_24h"].rename.conflict
    Audience.objects.filter(key="not_yet").update(name="meta_purchasers_7d_v1")
    stuck = by_key()
    assert stuck["not_yet"].rename.conflict == "Another audience has this name, and its rule and parts make no other."
    assert stuck["meta_cart_24h"].ready


def test_a_name_that_is_too_long_somewhere_is_said(world):
    service.change(actor=None, convention=replace(service.current(), lengths={"openlist": 20}))
    found = by_key()
    assert found["meta_cart_24h"].ready
    assert "has 25 characters on OpenList (sandbox); 20 fit" in found["meta_buyers_7d"].rename.conflict


def test_a_name_that_another_audience_has_on_the_platform_is_said(world):
    Mapping.objects.create(
        audience=world.buyers,
        destination=world.destination,
        state="live",
        remote_id="9",
        remote_name="meta_cart_24h_v1",
    )
    Audience.objects.filter(key="meta_buyers_7d").update(name="meta_purchasers_7d_v1")
    conflict = by_key()["meta_cart_24h"].rename.conflict
    assert conflict == "Meta EU has another audience of ours called “meta_cart_24h_v1” already."
    with pytest.raises(NamingRefused, match="another audience of ours"):
        renames.carry_out(actor=None, wishes=[Wish("meta_cart_24h", "meta_cart_24h", "meta_cart_24h_v1")])


def test_exceptions_are_left_alone_and_connections_say_why_they_keep_a_name(world):
    service.name_freely(actor=None, audience=world.buyers, name="Buyers", name_reason="the agency's")
    assert "meta_buyers_7d" not in by_key()
    for fields, words in (
        ({"adopted": True}, "adopted, keeps its name"),
        ({"adopted": False, "own_name": "Mine", "remote_name": "Mine"}, "has a name of its own there"),
        ({"own_name": "", "remote_name": "x", "state": "frozen"}, "renamed when it sends again"),
        ({"lost": "gone", "state": "live"}, "deleted there"),
        ({"lost": "", "remote_id": ""}, "made so at the first sync"),
    ):
        Mapping.objects.update(**fields)
        assert [follow.words for follow in by_key()["meta_cart_24h"].follows] == [words]


def test_the_plan_asks_the_same_number_of_questions_however_many_there_are(world, django_assert_num_queries):
    for number in range(30):
        made = Audience.objects.create(key=f"more_{number}", name=f"more {number}", purpose="analytics")
        Mapping.objects.create(audience=made, destination=world.destination, state="live")
    with django_assert_num_queries(4):
        assert len(renaming.plan()) == 33


# --- One act, and back.


def wishes(*keys: str) -> list[Wish]:
    found = by_key()
    return [Wish(key, found[key].rename.before, found[key].rename.after) for key in keys]


def test_an_act_renames_all_of_them_each_with_its_line_and_is_taken_back(world):
    marketer = world.users["marketer"]
    act = renames.carry_out(actor=marketer, wishes=wishes("meta_cart_24h", "meta_buyers_7d"), reason="tidy up")
    assert names() == {
        "meta_cart_24h": "meta_cart_24h_v1",
        "meta_buyers_7d": "meta_purchasers_7d_v1",
        "not_yet": "not_yet",
    }
    assert Audience.objects.get(key="meta_buyers_7d").name_tokens["intent"] == "purchasers"
    lines = AuditEntry.objects.filter(verb="audience.renamed").order_by("object_key")
    assert [(line.object_key, line.actor_label, line.reason) for line in lines] == [
        ("meta_buyers_7d", "marketer@example.com", "tidy up"),
        ("meta_cart_24h", "marketer@example.com", "tidy up"),
    ]
    taken = renames.take_back(actor=marketer, renaming_id=act.pk)
    assert (sorted(taken.renamed), taken.left) == (["meta_buyers_7d", "meta_cart_24h"], {})
    assert names()["meta_cart_24h"] == "meta_cart_24h"
    assert Audience.objects.get(key="meta_buyers_7d").name_tokens == {}
    with pytest.raises(NamingRefused, match="taken back already"):
        renames.take_back(actor=marketer, renaming_id=act.pk)


def test_whoever_was_renamed_since_or_whose_name_is_taken_keeps_theirs(world):
    act = renames.carry_out(actor=None, wishes=wishes("meta_cart_24h", "meta_buyers_7d"))
    service.name_freely(actor=None, audience=world.cart, name="Carts", name_reason="since")
    Audience.objects.filter(key="not_yet").update(name="meta_buyers_7d")
    taken = renames.take_back(actor=None, renaming_id=act.pk)
    assert taken.renamed == ()
    assert taken.left == {
        "meta_cart_24h": "It was renamed since, to “Carts”.",
        "meta_buyers_7d": "“meta_buyers_7d” is the name of not_yet too.",
    }


def test_what_has_changed_since_it_was_seen_renames_nobody(world):
    seen = wishes("meta_cart_24h", "meta_buyers_7d")
    service.name_freely(actor=None, audience=world.cart, name="Carts", name_reason="meanwhile")
    with pytest.raises(NamingRefused, match="It was renamed meanwhile, to “Carts”") as refused:
        renames.carry_out(actor=None, wishes=seen)
    assert [problem.path for problem in refused.value.problems] == ["meta_cart_24h"]
    assert names()["meta_buyers_7d"] == "meta_buyers_7d"
    assert not Renaming.objects.exists()
    made_up = Wish("not_yet", "not_yet", "meta_vip_365d_v1")
    with pytest.raises(NamingRefused, match="Choose the intent"):
        renames.carry_out(actor=None, wishes=[made_up])


def test_two_that_swap_names_do_so_in_one_act(world):
    tokens = {"channel": "meta", "intent": "cart", "window": "24h"}
    Audience.objects.filter(key="meta_cart_24h").update(name="meta_purchasers_7d_v1", name_tokens=tokens)
    tokens = {"channel": "meta", "intent": "purchasers", "window": "7d"}
    Audience.objects.filter(key="meta_buyers_7d").update(name="meta_cart_24h_v1", name_tokens=tokens)
    with pytest.raises(NamingRefused, match="would have the name"):  # one alone is in the other's way
        renames.carry_out(actor=None, wishes=wishes("meta_cart_24h"))
    renames.carry_out(actor=None, wishes=wishes("meta_cart_24h", "meta_buyers_7d"))
    assert names()["meta_cart_24h"] == "meta_cart_24h_v1"
    assert names()["meta_buyers_7d"] == "meta_purchasers_7d_v1"


@pytest.mark.parametrize("at_once", [True, False])
def test_platforms_follow_at_once_by_a_job_or_at_the_next_sync_and_go_back_too(sandbox, account_number, at_once):
    scene.workspace()
    service.adopt_starter(actor=None)
    identify("anna", email="anna@example.com")
    track("anna", "add_to_cart")
    track("zoe", "purchase")
    made = scene.audience("meta_cart_24h", filled.CART)
    live = scene.live(sandbox, account_number, made)
    live.sync()
    live.mapping.refresh_from_db()

    def there() -> str:
        return sandbox.audience("meta", live.mapping.remote_id)["name"]

    assert there() == "meta_cart_24h"
    syncs = len(live.calls("add"))
    act = renames.carry_out(actor=None, wishes=wishes("meta_cart_24h"), at_once=at_once)
    jobs.run_due_here(["sync"], rounds=1)
    if not at_once:
        live.sync()
    assert there() == "meta_cart_24h_v1"
    assert len(live.calls("add")) == syncs
    renames.take_back(actor=None, renaming_id=act.pk)
    jobs.run_due_here(["sync"], rounds=1)
    assert there() == "meta_cart_24h"


def test_a_name_that_is_still_taken_there_waits_and_stops_no_sync(sandbox, account_number):
    """Two lists of a platform that allows a name once swap theirs: the one that comes first is refused, and comes again."""
    scene.workspace()
    track("zoe", "purchase")
    identify("anna", email="anna@example.com", **{"in": "yes"})
    one = scene.live(sandbox, account_number, scene.audience("one", scene.NO_PURCHASE), kind="google")
    two = scene.live(sandbox, account_number, scene.audience("two", scene.NO_PURCHASE), kind="google")
    one.sync(), two.sync()
    Audience.objects.filter(key="one").update(name="x")
    Audience.objects.filter(key="two").update(name="one")
    Audience.objects.filter(key="one").update(name="two")
    assert one.sync().state == "done"
    one.mapping.refresh_from_db()
    assert (one.mapping.remote_name, one.mapping.blocked_reason) == ("one", "")
    Audience.objects.filter(key="two").update(name="three")
    assert two.sync().state == "done"
    assert one.sync().state == "done"
    assert sandbox.audience("google", one.mapping.remote_id)["name"] == "two"


# --- The page.


def test_the_page_is_the_dry_run_and_the_button_renames_what_is_ticked(world):
    client = as_(world, "marketer")
    page = text(client.get(AT))
    assert "2 audiences would be called otherwise, 1 cannot be as it stands" in page
    assert "meta_purchasers_7d_v1" in page
    assert "renamed at the next sync" in page
    assert "Choose the intent" in page
    assert names()["meta_cart_24h"] == "meta_cart_24h"
    response = client.post(AT, {"pick": pick("meta_cart_24h"), "reason": "tidy up"}, follow=True)
    assert "1 audience renamed. Platforms are told at their next sync." in text(response)
    assert names() == {"meta_cart_24h": "meta_cart_24h_v1", "meta_buyers_7d": "meta_buyers_7d", "not_yet": "not_yet"}
    assert "“tidy up”" in text(response)
    act = Renaming.objects.get()
    response = client.post(f"{AT}{act.pk}/undo/", follow=True)
    assert "1 audience renamed back." in text(response)
    assert names()["meta_cart_24h"] == "meta_cart_24h"
    assert "has been taken back already" in text(client.post(f"{AT}{act.pk}/undo/", follow=True))


def test_the_page_of_some_shows_these_and_no_others(world):
    response = as_(world, "marketer").get(AT, {"a": ["meta_cart_24h", "<script>"]})
    assert "<script>" not in response.content.decode()
    page = text(response)
    assert "meta_purchasers_7d_v1" not in page
    assert "Only <code>meta_cart_24h</code>" in page


def test_what_somebody_else_did_meanwhile_is_said_and_ticks_stay(world):
    client = as_(world, "marketer")
    both = pick("meta_cart_24h", "meta_buyers_7d")
    service.name_freely(actor=None, audience=world.cart, name="Carts", name_reason="meanwhile")
    response = client.post(AT, {"pick": both, "reason": "because"})
    assert response.status_code == 409
    assert "meta_cart_24h: It was renamed meanwhile, to “Carts”." in text(response)
    assert 'value="because"' in text(response)
    assert names()["meta_buyers_7d"] == "meta_buyers_7d"


def test_hostile_picks_and_other_roles_get_an_answer(world):
    client = as_(world, "admin")
    for bad in (
        "",
        "x",
        "[]",
        "{}",
        "5",
        '["a", "b"]',
        "[1, 2, 3]",
        '["no", "such", "<script>alert(1)</script>"]',
        "[" * 5_000,
    ):
        response = client.post(AT, {"pick": bad})
        assert response.status_code in (409, 422), bad
        assert "<script>alert" not in response.content.decode()
    assert client.post(AT).status_code == 422
    assert client.post(f"{AT}99/undo/").status_code == 404
    for role in ("buyer", "operator"):
        assert as_(world, role).get(AT).status_code == 403
        assert as_(world, role).post(AT, {"pick": pick("meta_cart_24h")}).status_code == 403
    assert names()["meta_cart_24h"] == "meta_cart_24h"


# --- The command.


def test_the_command_says_what_would_be_and_writes_nothing(world):
    with pytest.raises(CommandError, match="Cannot be renamed as they stand: not_yet") as error:
        command("--json")
    assert error.value.returncode == 3
    out = command("meta_cart_24h", "--json")
    told = json.loads(out)
    assert (told["applied"], told["act"]) == (False, None)
    assert told["renames"] == [
        {
            "audience": "meta_cart_24h",
            "before": "meta_cart_24h",
            "after": "meta_cart_24h_v1",
            "why": ["It has 3 parts, and a name has 4: channel, intent, window, version."],
            "conflict": None,
            "platforms": [
                {
                    "destination": "meta_main",
                    "before": "meta_cart_24h",
                    "after": "meta_cart_24h_v1",
                    "words": "renamed at the next sync",
                }
            ],
        }
    ]
    assert "1 would be renamed. Nothing was written; --apply does it." in command("meta_cart_24h")
    assert names()["meta_cart_24h"] == "meta_cart_24h"
    assert not Renaming.objects.exists()


def test_the_command_renames_what_can_be_and_takes_it_back(world):
    out = command("meta_cart_24h", "meta_buyers_7d", "--apply", "--reason", "tidy up")
    act = Renaming.objects.get()
    assert f"2 renamed. `manage.py rename --undo {act.pk}` takes it back." in out
    assert names()["meta_buyers_7d"] == "meta_purchasers_7d_v1"
    assert AuditEntry.objects.filter(verb="audience.renamed", reason="tidy up", actor_label="system").count() == 2
    assert command("meta_cart_24h", "--apply").strip() == "Every name follows the convention."
    assert "2 renamed back." in command("--undo", str(act.pk))
    assert names()["meta_buyers_7d"] == "meta_buyers_7d"
    with pytest.raises(CommandError, match="taken back already"):
        command("--undo", str(act.pk))
    with pytest.raises(CommandError, match="There is no audience nobody"):
        command("nobody")
    with pytest.raises(CommandError, match="not_yet") as error:
        command("--apply")
    assert error.value.returncode == 3
    assert names()["meta_cart_24h"] == "meta_cart_24h_v1", "what can be is renamed all the same"


def test_without_a_convention_there_is_nothing_to_rename_by(world):
    service.NamingConvention.objects.all().delete()
    assert "there is no naming convention yet" in text(as_(world, "marketer").get(AT))
    with pytest.raises(CommandError, match="every name is free"):
        command()
