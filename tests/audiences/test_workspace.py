"""The first set-up, settings, and the people who sign in."""

import pytest
from django.core import signing
from django.core.exceptions import ValidationError

from audiences.models import AuditEntry, User, Workspace
from audiences.services import users, workspace

pytestmark = pytest.mark.django_db
GOOD = {"email": " First@Example.com ", "password": "a-long-enough-word"}


@pytest.fixture
def admin():
    return workspace.set_up(**GOOD)


def token(link):
    return link.rstrip("/").rsplit("/", 1)[1]


def test_the_first_set_up_makes_the_workspace_and_an_admin_who_can_sign_in():
    assert workspace.needs_set_up()

    admin = workspace.set_up(
        **GOOD, timezone="Europe/Berlin", currency="eur", default_region="de", consent_policy="opt_in"
    )

    assert (admin.email, admin.role) == ("first@example.com", "admin")
    assert admin.check_password("a-long-enough-word")
    row = workspace.current()
    assert (row.timezone, row.currency, row.default_region) == ("Europe/Berlin", "EUR", "DE")
    assert row.consent_policy == {"default": "opt_in", "by_country": {}}
    assert not workspace.needs_set_up()


def test_a_second_set_up_is_refused_and_changes_nothing(admin):
    with pytest.raises(workspace.SettingRefused, match="done already"):
        workspace.set_up(email="thief@example.com", password="another-long-word", name="Theirs")

    assert User.objects.count() == 1
    assert workspace.current().name == "Rollcall"


def test_without_an_answer_there_is_no_consent_policy(admin):
    assert workspace.current().consent_policy is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timezone", "Mars/Base"),
        ("timezone", "../../etc/passwd"),
        ("timezone", None),
        ("currency", "EURO"),
        ("currency", "€€€"),
        ("default_region", "XX"),
        ("name", " "),
        ("name", "x" * 1_000_000),
        ("consent_policy", "maybe"),
        ("consent_policy", {"default": "opt_in", "by_country": {"de": "opt_in"}}),
        ("consent_policy", {"default": "opt_in", "by_country": {"DE": "perhaps"}}),
        ("consent_policy", {"by_country": {}}),
        ("colour", "blue"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(admin, field, value):
    with pytest.raises(workspace.SettingRefused) as refused:
        workspace.change(actor=admin, **{field: value, **({"currency": "USD"} if field != "currency" else {})})

    assert refused.value.field == field
    assert workspace.current().currency == "EUR"


def test_a_weak_password_is_refused_and_no_workspace_is_left_behind():
    with pytest.raises(workspace.SettingRefused) as refused:
        workspace.set_up(email="first@example.com", password="password")

    assert refused.value.field == "password"
    assert not Workspace.objects.exists()


def test_changing_a_setting_is_on_record_with_before_and_after(admin):
    workspace.change(
        actor=admin, reason="new market", consent_policy={"default": "opt_out", "by_country": {"DE": "opt_in"}}
    )
    workspace.change(actor=admin, currency="EUR")

    entry = AuditEntry.objects.get(verb="workspace.changed", actor=admin)
    assert entry.before == {"consent_policy": None}
    assert entry.after == {"consent_policy": {"default": "opt_out", "by_country": {"DE": "opt_in"}}}
    assert entry.reason == "new market"


def test_an_invited_user_has_no_password_until_the_link_is_used_once(admin):
    invitation = users.invite(actor=admin, email="Ben@Example.com", role="marketer", name="Ben")
    assert not invitation.user.has_usable_password()
    assert invitation.link not in repr(invitation)
    assert users.user_of_token(token(invitation.link)) == invitation.user

    users.set_password(token=token(invitation.link), password="a-word-of-my-own")

    assert User.objects.get(email="ben@example.com").check_password("a-word-of-my-own")
    assert users.user_of_token(token(invitation.link)) is None
    with pytest.raises(users.UserRefused, match="has been used"):
        users.set_password(token=token(invitation.link), password="another-one-of-mine")


def test_a_forged_an_old_and_a_deactivated_users_link_open_nothing(admin, monkeypatch):
    invitation = users.invite(actor=admin, email="ben@example.com", role="buyer")

    assert users.user_of_token(token(invitation.link)[:-1] + "_") is None
    assert users.user_of_token(signing.dumps({"user": admin.pk, "state": ""}, salt="another")) is None
    with monkeypatch.context() as later:
        later.setattr(users, "LINK_LASTS", -1)
        assert users.user_of_token(token(invitation.link)) is None
    users.deactivate(actor=admin, user=invitation.user)
    assert users.user_of_token(token(invitation.link)) is None


def test_a_weak_password_leaves_the_link_good(admin):
    invitation = users.invite(actor=admin, email="ben@example.com", role="buyer")

    with pytest.raises(ValidationError):
        users.set_password(token=token(invitation.link), password="short")

    assert users.user_of_token(token(invitation.link)) == invitation.user


def test_nobody_is_invited_twice_and_only_in_a_known_role(admin):
    users.invite(actor=admin, email="ben@example.com", role="buyer")

    with pytest.raises(users.UserRefused, match="already"):
        users.invite(actor=admin, email="BEN@example.com", role="buyer")
    with pytest.raises(users.UserRefused, match="role must be one of"):
        users.invite(actor=admin, email="eve@example.com", role="root")
    with pytest.raises(users.UserRefused, match="not an e-mail"):
        users.invite(actor=admin, email="eve", role="buyer")


def test_the_last_admin_who_can_sign_in_stays_one(admin):
    users.invite(actor=admin, email="other@example.com", role="admin")  # has no password yet

    with pytest.raises(users.UserRefused, match="only admin"):
        users.change_role(actor=admin, user=admin, role="buyer")
    with pytest.raises(users.UserRefused, match="only admin"):
        users.deactivate(actor=admin, user=admin)

    other = User.objects.get(email="other@example.com")
    users.set_password(token=token(users.set_password_link(other)), password="a-word-of-my-own")
    users.change_role(actor=other, user=admin, role="buyer")
    assert User.objects.get(pk=admin.pk).role == "buyer"


def test_every_change_to_a_user_is_on_record(admin):
    ben = users.invite(actor=admin, email="ben@example.com", role="buyer").user
    users.change_role(actor=admin, user=ben, role="marketer")
    users.deactivate(actor=admin, user=ben, reason="left")
    users.reactivate(actor=admin, user=ben)

    trail = AuditEntry.objects.filter(object_key="ben@example.com").order_by("id")
    assert list(trail.values_list("verb", flat=True)) == [
        "user.invited",
        "user.role_changed",
        "user.deactivated",
        "user.reactivated",
    ]
    assert {entry.actor_label for entry in trail} == {"first@example.com"}
