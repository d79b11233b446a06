"""Owners: who must be named before anybody publishes, who is mailed, what is mine, and what is handed over by somebody who goes."""

import pytest

from audiences import owners
from audiences.models import Audience, AuditEntry, User
from audiences.services import audiences, users, versions
from audiences.services.audiences import AudienceRefused
from tests import filled
from tests.audiences.people_in import identify, track
from tests.filled import as_

pytestmark = pytest.mark.django_db
GERMAN = {"attribute": "country", "op": "is", "value": "DE"}


@pytest.fixture
def people():
    identify("anna", country="DE")
    track("anna", "add_to_cart")
    track("anna", "purchase", value=10)
    return filled.users()


@pytest.fixture
def cart(people):
    return filled.audience("cart", filled.CART, people["marketer"])


def text(response):
    return response.content.decode()


def named(audience):
    audience = Audience.objects.get(pk=audience.pk)
    return tuple(str(held.user) if held.user else None for held in owners.holdings(audience))


def set_owners(audience, **who):
    return audiences.set_owners(
        actor=None, audience=audience, **{role.field: who.get(role.field) for role in owners.ROLES}
    )


def fields(audience, **who):
    audience.refresh_from_db()
    given = {role.field: getattr(audience, f"{role.field}_id") or "" for role in owners.ROLES}
    seen = "-".join(str(value or 0) for value in given.values())
    return {**given, "seen": seen, **{field: user.pk if user else "" for field, user in who.items()}}


@pytest.mark.parametrize("missing", ["definition_owner", "sync_owner", "alert_owner"])
def test_a_person_publishes_only_what_has_owners_and_a_command_may_without(cart, people, missing):
    audiences.change(actor=None, audience=cart, **{missing: None})
    made = versions.save_draft(actor=None, audience=cart, segment=GERMAN)

    with pytest.raises(AudienceRefused, match="owners: name an owner for"):
        versions.publish(actor=people["marketer"], version=made, reason="now")
    page = text(as_(people, "marketer").get("/audiences/cart/versions/2/"))
    assert "Name owners first" in page
    assert 'href="/audiences/cart/owners/?for=2"' in page

    assert versions.publish(actor=None, version=made, reason="from a file").state == "published"


def test_an_owner_who_is_gone_is_none(cart, people):
    User.objects.filter(pk=people["marketer"].pk).update(is_active=False)
    made = versions.save_draft(actor=None, audience=cart, segment=GERMAN)

    with pytest.raises(AudienceRefused, match="name an owner for definition, match rate and alerts first"):
        versions.publish(actor=people["admin"], version=made, reason="now")
    page = text(as_(people, "buyer").get("/audiences/cart/owners/"))
    assert page.count("No longer here") == 3
    assert "Nobody is mailed" in page


def test_who_is_mailed(cart, people):
    admin, marketer, operator, buyer = (people[role] for role in ("admin", "marketer", "operator", "buyer"))
    every = {"definition_owner": marketer, "sync_owner": operator, "alert_owner": buyer, "backup_owner": admin}

    def mailed(**who):
        return owners.alerted(set_owners(cart, **who))

    assert mailed(**every) == buyer
    assert mailed(**{**every, "alert_owner": None}) == operator
    assert mailed(definition_owner=marketer, backup_owner=admin) == marketer
    assert mailed(backup_owner=admin) == admin
    assert mailed() is None
    User.objects.filter(pk__in=[buyer.pk, operator.pk, marketer.pk]).update(is_active=False)
    Audience.objects.filter(pk=cart.pk).update(**every)
    assert owners.alerted(Audience.objects.get(pk=cart.pk)) == admin


def test_mine_is_what_i_own_in_any_role_or_follow_and_comes_once(cart, people):
    others = filled.audience("others", filled.BUYERS, people["admin"])
    buyer = people["buyer"]
    assert list(Audience.objects.filter(owners.mine(buyer))) == []

    audiences.follow(actor=buyer, audience=others, following=True)
    audiences.change(actor=None, audience=cart, backup_owner=buyer, alert_owner=buyer)
    for user in (people["operator"], people["marketer"]):
        audiences.follow(actor=user, audience=cart, following=True)

    assert list(Audience.objects.filter(owners.mine(buyer)).order_by("key")) == [cart, others]


def test_nobody_who_is_gone_is_named_anew_and_who_was_named_may_stay(cart, people):
    User.objects.filter(pk=people["marketer"].pk).update(is_active=False)
    gone = User.objects.get(pk=people["marketer"].pk)
    set_owners(cart, definition_owner=gone, sync_owner=people["operator"], alert_owner=people["operator"])

    with pytest.raises(AudienceRefused, match="alert_owner: Marketer can no longer sign in"):
        set_owners(cart, definition_owner=gone, sync_owner=people["operator"], alert_owner=gone)
    assert named(cart) == ("Marketer", "Operator", "Operator", None)


def test_owners_are_named_on_the_page_and_the_way_leads_back_to_the_version(cart, people):
    client = as_(people, "marketer")
    given = fields(cart, sync_owner=people["operator"], backup_owner=people["admin"])

    answer = client.post("/audiences/cart/owners/set/", {**given, "reason": "team change", "for": "1"})

    assert answer["Location"] == "/audiences/cart/versions/1/"
    assert named(cart) == ("Marketer", "Operator", "Marketer", "Admin")
    entry = AuditEntry.objects.filter(verb="audience.changed").latest("pk")
    assert (entry.before, entry.reason) == ({"sync_owner": "marketer@example.com", "backup_owner": None}, "team change")
    assert "Match rate: marketer@example.com → operator@example.com" in text(client.get("/audiences/cart/owners/"))


def test_a_page_that_is_older_than_the_owners_overwrites_nobody(cart, people):
    stale = fields(cart, alert_owner=people["admin"])
    audiences.change(actor=None, audience=cart, sync_owner=people["operator"])

    answer = as_(people, "marketer").post("/audiences/cart/owners/set/", stale)

    assert answer.status_code == 409
    assert "Somebody else has named owners" in text(answer)
    assert named(cart) == ("Marketer", "Operator", "Marketer", None)


@pytest.mark.parametrize("forged", ["999999", "x", "-1", "1 OR 1=1"])
def test_a_forged_user_is_refused_beside_the_field(cart, people, forged):
    answer = as_(people, "marketer").post("/audiences/cart/owners/set/", {**fields(cart), "alert_owner": forged})

    assert answer.status_code == 422
    assert named(cart) == ("Marketer", "Marketer", "Marketer", None)


def test_buyers_and_operators_read_owners_and_cannot_name_them(cart, people):
    for role in ("buyer", "operator"):
        assert "may name owners" in text(as_(people, role).get("/audiences/cart/owners/"))
        assert as_(people, role).post("/audiences/cart/owners/set/", fields(cart)).status_code == 403


# ---- handing over ----


def test_who_owns_something_is_not_let_go_before_the_list_was_seen(cart, people):
    leaver = people["marketer"]

    answer = as_(people, "admin").post(f"/settings/users/{leaver.pk}/", {"deed": "deactivate"})

    assert answer["Location"] == f"/settings/users/{leaver.pk}/hand-over/"
    page = text(as_(people, "admin").get(answer["Location"]))
    assert "holds 3 roles" in page
    assert User.objects.get(pk=leaver.pk).is_active


def test_one_person_for_all_or_one_for_each_then_they_are_let_go(cart, people):
    other = filled.audience("other", filled.BUYERS, people["marketer"], "suppression")
    leaver, admin, operator = people["marketer"], people["admin"], people["operator"]
    address = f"/settings/users/{leaver.pk}/hand-over/"

    answer = as_(people, "admin").post(
        address, {"deed": "hand_over", "everything": admin.pk, f"row-{cart.pk}-sync_owner": operator.pk, "reason": ""}
    )

    assert answer.status_code == 302
    assert named(cart) == ("Admin", "Operator", "Admin", None)
    assert named(other) == ("Admin", "Admin", "Admin", None)
    assert not User.objects.get(pk=leaver.pk).is_active
    reasons = AuditEntry.objects.filter(verb="audience.changed").values_list("reason", flat=True)
    assert list(reasons) == ["Handed over by marketer@example.com"] * 2
    assert "owns nothing" in text(as_(people, "admin").get(address))


def test_what_nobody_takes_is_said_and_nothing_is_changed(cart, people):
    leaver, operator = people["marketer"], people["operator"]
    address = f"/settings/users/{leaver.pk}/hand-over/"

    answer = as_(people, "admin").post(address, {"deed": "hand_over", f"row-{cart.pk}-sync_owner": operator.pk})

    assert answer.status_code == 422
    assert "Nobody takes 2 of these" in text(answer)
    assert named(cart) == ("Marketer", "Marketer", "Marketer", None)
    assert User.objects.get(pk=leaver.pk).is_active


def test_who_goes_without_handing_over_shows_as_trouble(cart, people):
    leaver = people["marketer"]
    as_(people, "admin").post(f"/settings/users/{leaver.pk}/hand-over/", {"deed": "leave"})

    assert not User.objects.get(pk=leaver.pk).is_active
    assert "Still owner in 3 places" in text(as_(people, "admin").get("/settings/users/"))
    assert "Marketer (marketer), no longer here" in text(as_(people, "admin").get("/audiences/cart/owners/"))


def test_the_last_admin_stays_and_keeps_what_they_own(people):
    mine = filled.audience("mine", filled.CART, people["admin"])

    answer = as_(people, "admin").post(
        f"/settings/users/{people['admin'].pk}/hand-over/", {"deed": "hand_over", "everything": people["buyer"].pk}
    )

    assert answer.status_code == 422
    assert "This is the only admin who can sign in" in text(answer)
    assert named(mine) == ("Admin", "Admin", "Admin", None)


def test_a_role_that_changed_hands_meanwhile_stays_where_it_is(cart, people):
    places = {(cart.pk, role.field): people["admin"] for role in owners.ROLES}
    audiences.change(actor=None, audience=cart, sync_owner=people["operator"])

    audiences.hand_over(actor=None, leaving=people["marketer"], successors=places)

    assert named(cart) == ("Admin", "Operator", "Admin", None)


def test_only_admins_hand_over(cart, people):
    for role in ("marketer", "buyer", "operator"):
        assert as_(people, role).get(f"/settings/users/{people['marketer'].pk}/hand-over/").status_code == 403
    assert as_(people, "admin").get("/settings/users/999999/hand-over/").status_code == 404


def test_who_owns_nothing_is_let_go_at_once(people):
    as_(people, "admin").post(f"/settings/users/{people['buyer'].pk}/", {"deed": "deactivate"})

    assert not User.objects.get(pk=people["buyer"].pk).is_active
    users.reactivate(actor=None, user=people["buyer"])
