"""People who sign in: invited, given a role, let go. What a role may do is access.py's; signing in itself is views/session.py's.

Every function takes the acting user first (None: the system, or a command), by keyword, and leaves a line in the audit trail.
"""

from dataclasses import dataclass, field

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core import signing
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.utils import timezone

from audiences.models import User
from audiences.services import trail

LINK_LASTS = 7 * 24 * 3600  # seconds
_SALT = "rollcall.set-password"


class UserRefused(Exception):
    """The request cannot be carried out; the words say why and what to do."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """Whoever opens `link` within a week sets the password of `user`. It works once."""

    user: User
    link: str = field(repr=False)


def invite(*, actor: User | None, email: str, role: str, name: str = "") -> Invitation:
    """A new user without a usable password. Raises UserRefused for a bad address, an unknown role or someone who is here already."""
    address = email.strip().lower()
    if not is_address(address):
        raise UserRefused("This is not an e-mail address.")
    _known_role(role)
    try:
        with transaction.atomic():
            user = User.objects.create_user(
                address, None, role=role, name=name.strip()[:100], invited_at=timezone.now()
            )
            trail.record(actor, "user.invited", "user", address, after={"role": role})
    except IntegrityError:
        raise UserRefused("There is a user with this e-mail address already.") from None
    return Invitation(user, set_password_link(user))


def find_or_invite(*, actor: User | None, email: str, role: str) -> tuple[User, bool]:
    """The user with this address, invited if there is none; whether it was."""
    user = User.objects.filter(email=email.strip().lower()).first()
    if user:
        return user, False
    return invite(actor=actor, email=email, role=role).user, True


def set_password_link(user: User) -> str:
    """A link that lets its holder set the password of `user`, once. Also for someone who has forgotten theirs."""
    token = signing.dumps({"user": user.pk, "state": _state(user)}, salt=_SALT)
    return f"{settings.PUBLIC_URL}/set-password/{token}/"


def user_of_token(token: str) -> User | None:
    """Whose password the token may set; None if it is forged, older than a week, or used."""
    try:
        content = signing.loads(token, salt=_SALT, max_age=LINK_LASTS)
    except signing.BadSignature:
        return None
    user = User.objects.filter(pk=content["user"], is_active=True).first()
    return user if user and content["state"] == _state(user) else None


def set_password(*, token: str, password: str) -> User:
    """What the link is for. Raises UserRefused if it does not hold any more, and ValidationError for a weak password."""
    user = user_of_token(token)
    if user is None:
        raise UserRefused("This link has been used or is more than a week old. Ask an admin for a new one.")
    validate_password(password, user)
    with transaction.atomic():
        user.set_password(password)
        user.save(update_fields=["password"])
        trail.record(user, "user.password_set", "user", user.email)
    return user


def change_role(*, actor: User | None, user: User, role: str) -> User:
    """Raises UserRefused where no admin would be left."""
    _known_role(role)
    with transaction.atomic():
        user = _locked(user)
        if user.role == role:
            return user
        if role != User.Role.ADMIN:
            _keep_an_admin(user)
        before, user.role = user.role, role
        user.save(update_fields=["role"])
        trail.record(actor, "user.role_changed", "user", user.email, before={"role": before}, after={"role": role})
    return user


def describe(*, actor: User | None, user: User, name: str, timezone: str, single_keys: bool) -> User:
    """What somebody is called, their time zone (empty: the workspace's), and whether single keys do things."""
    values = {"name": name.strip()[:100], "timezone": timezone, "single_keys": single_keys}
    with transaction.atomic():
        user = _locked(user)
        before = {field: getattr(user, field) for field, value in values.items() if getattr(user, field) != value}
        if before:
            for field in before:
                setattr(user, field, values[field])
            user.save(update_fields=list(before))
            after = {field: values[field] for field in before}
            trail.record(actor, "user.changed", "user", user.email, before=before, after=after)
    return user


def deactivate(*, actor: User | None, user: User, reason: str = "") -> User:
    """They cannot sign in any more; what they did stays on record. Raises UserRefused where no admin would be left."""
    with transaction.atomic():
        user = _locked(user)
        if not user.is_active:
            return user
        _keep_an_admin(user)
        user.is_active = False
        user.save(update_fields=["is_active"])
        trail.record(actor, "user.deactivated", "user", user.email, reason=reason)
    return user


def reactivate(*, actor: User | None, user: User) -> User:
    """They may sign in again, with the role they had."""
    with transaction.atomic():
        user = _locked(user)
        if not user.is_active:
            user.is_active = True
            user.save(update_fields=["is_active"])
            trail.record(actor, "user.reactivated", "user", user.email)
    return user


def is_address(text: str) -> bool:
    """Whether it could be somebody's e-mail address."""
    try:
        validate_email(text)
    except ValidationError:
        return False
    return True


def _locked(user: User) -> User:
    return User.objects.select_for_update().get(pk=user.pk)


def _known_role(role: str) -> None:
    if role not in User.Role.values:
        raise UserRefused(f"The role must be one of {', '.join(User.Role.values)}.")


def _keep_an_admin(user: User) -> None:
    """Lock every admin row first, so that two admins cannot remove each other at the same moment."""
    admins = User.objects.select_for_update().filter(role=User.Role.ADMIN, is_active=True).order_by("pk")
    able = [admin.pk for admin in admins if admin.has_usable_password()]
    if able == [user.pk]:
        raise UserRefused("This is the only admin who can sign in. Make someone else an admin first.")


def _state(user: User) -> str:
    """Changes as soon as a password is set, so that a link works once."""
    return signing.Signer(salt=_SALT).signature(user.password)[:16]
