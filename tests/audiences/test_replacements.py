"""A version published beside: the audience that is made of it, what stays as it was, the names and numbers of both, the date and its undoing."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from audiences import naming as grammar
from audiences import replacements
from audiences.models import Audience, AuditEntry, Replacement, Review, SegmentVersion, User
from audiences.services import audiences, drafts, gate, locks, naming, refreshes, reviews, versions
from audiences.services import replacements as service
from audiences.services.audiences import AudienceRefused
from tests.filled import Filled
from tests.qa import carts as shop
from tests.qa.carts import CARTS, FEWER, SAME, draft, live

pytestmark = pytest.mark.django_db(transaction=True)  # a count takes in what is committed


@pytest.fixture
def world() -> Filled:
    return shop.world()


@pytest.fixture
def carts(world: Filled) -> Audience:
    made = shop.carts(world)
    made.excluded_by.add(world.buyers)
    made.followers.add(world.users["buyer"])
    return made


def soon(days: float = 14) -> Any:
    return timezone.now() + timedelta(days=days)


def beside(
    audience: Audience, author: User, segment: dict[str, Any] = SAME, *, days: float = 14, **more: Any
) -> SegmentVersion:
    version = draft(audience, segment, author)
    return service.publish(actor=author, version=version, reason="An hour more", retires_at=soon(days), **more)


def again(audience: Audience) -> Audience:
    return Audience.objects.select_related("live_version").get(pk=audience.pk)


def refused(words: str) -> Any:
    return pytest.raises(AudienceRefused, match=words)


def test_it_becomes_the_first_version_of_an_audience_of_its_own_and_the_old_one_stays_as_it_was(
    world: Filled, carts: Audience
) -> None:
    marketer = world.users["marketer"]
    audiences.change(actor=marketer, audience=carts, description="Cart, no purchase", cadence_seconds=600)
    before = again(carts)
    made = beside(carts, marketer)
    new = Audience.objects.get(key="carts_v2")
    assert (made.state, made.number, made.audience, made.reason) == ("published", 2, new, "An hour more")
    assert new.live_version == made and new.refresh_due_at is not None and new.backfill_until_us is not None
    for field in ("purpose", "description", "cadence_seconds", *audiences.OWNERS):
        assert getattr(new, field) == getattr(before, field), field
    assert list(new.excluded_by.all()) == [world.buyers] and list(new.followers.all()) == [world.users["buyer"]]
    after = again(carts)
    for field in ("name", "live_version_id", "archived_at", "refresh_due_at", "cadence_seconds"):
        assert getattr(after, field) == getattr(before, field), field
    assert not carts.versions.exclude(state="published").exists(), "the draft went with it"
    row = Replacement.objects.get()
    assert (row.old, row.new, row.made_by) == (carts, new, marketer)
    assert replacements.standing(carts).by == row and replacements.standing(new).of == row
    entry = AuditEntry.objects.get(verb="audience.published_beside")
    assert (entry.object_key, entry.after["audience"], entry.reason) == ("carts", "carts_v2", "An hour more")
    done = refreshes.refresh([new], cause="publish")
    assert done["carts_v2"].count == 10


def test_their_versions_go_on_counting_together(world: Filled, carts: Audience) -> None:
    marketer = world.users["marketer"]
    made = beside(carts, marketer)
    assert draft(carts, FEWER, marketer).number == 3
    assert draft(made.audience, FEWER, marketer).number == 4
    carts.versions.get(number=3).delete()
    edited = drafts.current(carts).outline
    drafts.save(actor=marketer, audience=carts, edited={**edited, "within": "9h"}, number=0, revision=0)
    assert carts.versions.get(state="draft").number == 5
    assert replacements.moved_to(carts, 2) == "carts_v2" and replacements.moved_to(carts, 1) == ""


def test_one_that_replaced_another_is_replaced_under_the_first_ones_key(world: Filled, carts: Audience) -> None:
    marketer = world.users["marketer"]
    second = beside(carts, marketer).audience
    third = beside(second, marketer, CARTS | {"within": "26h"}).audience
    assert (third.key, third.name) == ("carts_v3", "carts_v3")
    assert [row.old.key for row in replacements.all_of(second)] == ["carts_v2", "carts"]


def test_a_key_that_is_taken_is_numbered_on_and_a_long_one_cut(world: Filled, carts: Audience) -> None:
    marketer = world.users["marketer"]
    audiences.create(actor=None, key="carts_v2", purpose="analytics")
    assert beside(carts, marketer).audience.key == "carts_v2_2"
    long = Audience.objects.create(key="k" * 100, name="Long", purpose="analytics")
    assert replacements.successor(long, SegmentVersion(audience=long, number=12)).key == "k" * 96 + "_v12"


def test_by_the_convention_its_name_says_the_other_version_and_goes_on_following(
    world: Filled, carts: Audience
) -> None:
    marketer = world.users["marketer"]
    tokens = {"channel": "meta", "intent": "cart", "window": "24h"}
    carts = naming.rename_by_convention(actor=None, audience=carts, tokens=tokens)
    assert carts.name == "meta_cart_24h_v1"
    new = beside(carts, marketer).audience
    assert (new.key, new.name, new.name_reason) == ("carts_v2", "meta_cart_24h_v2", "")
    versions.publish(actor=marketer, version=draft(new, CARTS, marketer), reason="Back", override="for the test")
    versions.publish(
        actor=marketer, version=draft(carts, CARTS | {"within": "23h"}, marketer), reason="x", override="y"
    )
    assert (again(new).name, again(carts).name) == ("meta_cart_24h_v3", "meta_cart_24h_v4")


def test_where_the_convention_has_no_part_for_the_version_it_has_a_name_of_its_own_with_a_reason(
    world: Filled, carts: Audience
) -> None:
    Audience.objects.filter(pk=world.cart.pk).update(name="another")
    starter = naming.starter()
    without = grammar.Convention(starter.separator, tuple(t for t in starter.tokens if t.kind != grammar.VERSION))
    naming.change(actor=None, convention=without)
    tokens = {"channel": "meta", "intent": "cart", "window": "24h"}
    carts = naming.rename_by_convention(actor=None, audience=carts, tokens=tokens)
    new = beside(carts, world.users["marketer"]).audience
    assert (new.name, new.name_reason) == (
        "meta_cart_24h v2",
        "Published beside carts: the convention gives both the same name",
    )


def test_a_name_of_its_own_and_no_convention_at_all(world: Filled, carts: Audience) -> None:
    named = naming.name_freely(actor=None, audience=carts, name="Carts of spring", name_reason="The agency's")
    version = draft(named, SAME, world.users["marketer"])
    planned = replacements.successor(named, version)
    assert (planned.name, planned.name_reason) == ("Carts of spring v2", "The agency's")
    audiences.create(actor=None, key="other", name="Carts of spring v2", purpose="analytics")
    assert replacements.successor(named, version).name == "Carts of spring v2 (2)"


def test_a_large_change_waits_for_a_second_person_and_is_published_beside_when_it_is_approved(
    world: Filled, carts: Audience
) -> None:
    marketer, admin = world.users["marketer"], world.users["admin"]
    left = beside(carts, marketer, FEWER, days=3)
    assert (left.state, left.audience) == ("in_review", carts) and left.retires_old_at is not None
    assert not Replacement.objects.exists() and not Audience.objects.filter(key="carts_v2").exists()
    impact = gate.look(left)
    assert impact is not None
    made = reviews.approve(
        actor=admin, version=left, typed="carts", words="Both then", impact=impact, saw=impact.figures
    )
    assert (made.state, made.audience.key, made.published_by) == ("published", "carts_v2", admin)
    row = Replacement.objects.get()
    assert row.retires_at == left.retires_old_at and row.made_by == admin
    assert Review.objects.get(state="approved").version == made, "its approval goes with it"
    now = live(carts)
    assert now is not None and now.number == 1


def test_what_was_approved_one_way_is_not_published_the_other(world: Filled, carts: Audience) -> None:
    marketer = world.users["marketer"]
    left = beside(carts, marketer, FEWER)
    first = Review.objects.get()
    other = versions.publish(actor=marketer, version=left, reason="In its place after all")
    assert other.state == "in_review" and other.retires_old_at is None
    first.refresh_from_db()
    assert first.state == "withdrawn" and Review.objects.filter(state="open").count() == 1
    locks.set_lock(actor=marketer, audience=carts, until=soon(2), note="")
    impact = gate.look(other)
    assert impact is not None
    admin = world.users["admin"]
    waits = reviews.approve(actor=admin, version=other, typed="carts", words="", impact=impact, saw=impact.figures)
    assert waits.publish_at is not None, "approved in its place, it waits for the test"
    again_beside = service.publish(actor=marketer, version=waits, reason="Now beside", retires_at=soon())
    assert again_beside.state == "in_review" and not Replacement.objects.exists()


def test_a_date_that_has_passed_before_it_is_approved_is_refused_with_nothing_changed(
    world: Filled, carts: Audience
) -> None:
    left = beside(carts, world.users["marketer"], FEWER)
    SegmentVersion.objects.filter(pk=left.pk).update(retires_old_at=soon(-1))
    impact = gate.look(left)
    assert impact is not None
    with refused("must be in the future"):
        reviews.approve(
            actor=world.users["admin"], version=left, typed="carts", words="", impact=impact, saw=impact.figures
        )
    assert left.reviews.get().state == "open" and not Replacement.objects.exists()
    back = reviews.send_back(actor=world.users["admin"], version=left, words="Choose another date")
    assert back.state == "draft" and back.retires_old_at is None


def test_a_suppression_audience_always_needs_a_second_person_and_both_are_left_out_meanwhile(
    world: Filled, carts: Audience
) -> None:
    marketer = world.users["marketer"]
    longer = {"event": "purchase", "count": {"at_least": 1}, "within": "8d"}
    assert beside(world.buyers, marketer, longer).state == "in_review"
    version = world.buyers.versions.get(state="in_review")
    impact = gate.look(version)
    assert impact is not None
    made = reviews.approve(
        actor=world.users["admin"],
        version=version,
        typed=world.buyers.name,
        words="",
        impact=impact,
        saw=impact.figures,
    )
    for linked in (carts, world.cart):
        assert {row.key for row in linked.excluded_by.all()} == {world.buyers.key, made.audience.key}


def test_a_test_is_not_disturbed_by_what_is_published_beside_it(world: Filled, carts: Audience) -> None:
    locks.set_lock(actor=world.users["buyer"], audience=carts, until=soon(5), note="Creative")
    made = beside(carts, world.users["marketer"])
    assert made.state == "published" and locks.current(carts) is not None


def test_what_is_refused_leaves_everything_as_it_was(world: Filled, carts: Audience) -> None:
    marketer = world.users["marketer"]
    never = draft(world.draft, CARTS, marketer)
    with refused("no version of"):
        service.publish(actor=marketer, version=never, reason="x", retires_at=soon())
    with refused("must be in the future"):
        beside(carts, marketer, days=-0.1)
    with refused("within 365 days"):
        beside(carts, marketer, days=366)
    with refused("say why"):
        service.publish(actor=marketer, version=carts.versions.get(state="draft"), reason=" ", retires_at=soon())
    with refused("owner"):
        Audience.objects.filter(pk=carts.pk).update(sync_owner=None)
        beside(carts, marketer)
    Audience.objects.filter(pk=carts.pk).update(sync_owner=marketer, archived_at=timezone.now())
    with refused("is archived"):
        service.publish(actor=marketer, version=carts.versions.get(state="draft"), reason="x", retires_at=soon())
    assert not Replacement.objects.exists() and not Audience.objects.filter(key__startswith="carts_").exists()


def test_two_cannot_take_its_place_at_once(world: Filled, carts: Audience) -> None:
    marketer = world.users["marketer"]
    beside(carts, marketer)
    with refused("carts_v2"):
        beside(carts, marketer, CARTS | {"within": "26h"})
    service.keep(actor=marketer, replacement=Replacement.objects.get(), reason="Both sell")
    assert beside(carts, marketer, CARTS | {"within": "26h"}).audience.key == "carts_v3"


def test_the_date_is_moved_and_the_old_one_kept_after_all_and_let_go_again(world: Filled, carts: Audience) -> None:
    marketer = world.users["marketer"]
    beside(carts, marketer)
    row, moment = Replacement.objects.get(), soon(30)
    Replacement.objects.update(hindered=["x"], hindered_since=timezone.now())
    assert service.move(actor=marketer, replacement=row, retires_at=moment).retires_at == moment
    row.refresh_from_db()
    assert (row.hindered, row.hindered_since) == ([], None), "what was in the way then is looked at anew"
    with refused("say why"):
        service.keep(actor=marketer, replacement=row, reason="")
    service.keep(actor=marketer, replacement=row, reason="The spring ads run on it")
    assert replacements.standing(carts).by is None and replacements.leaving([carts.pk]) == {}
    service.move(actor=marketer, replacement=row, retires_at=moment)
    assert replacements.leaving([carts.pk])[carts.pk].retires_at == moment
    verbs = AuditEntry.objects.filter(object_key="carts").order_by("pk").values_list("verb", flat=True)
    assert list(verbs)[-3:] == ["audience.end_moved", "audience.kept", "audience.end_moved"]


def test_once_it_has_begun_to_retire_nothing_is_moved(world: Filled, carts: Audience) -> None:
    beside(carts, world.users["marketer"])
    Replacement.objects.update(begun_at=timezone.now())
    row = Replacement.objects.get()
    with refused("begun to retire"):
        service.move(actor=None, replacement=row, retires_at=soon(3))
    with refused("begun to retire"):
        service.keep(actor=None, replacement=row, reason="Too late")


def test_asked_twice_it_is_published_once(world: Filled, carts: Audience) -> None:
    marketer = world.users["marketer"]
    made = beside(carts, marketer)
    stale = SegmentVersion.objects.get(pk=made.pk)
    stale.audience = carts
    with refused("published, not a draft"):
        service.publish(actor=marketer, version=stale, reason="again", retires_at=soon())
    assert Replacement.objects.count() == 1
