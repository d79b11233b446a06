"""The installation's own settings: the first set-up, and every later change. Who signs in is services/users.py's."""

from typing import Any
from zoneinfo import ZoneInfo

import phonenumbers
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from audiences import jobs
from audiences.models import User, Workspace
from audiences.people import consents
from audiences.people.normalise import PURPOSES
from audiences.services import trail, users

FIELDS = (
    "name",
    "timezone",
    "currency",
    "default_region",
    "consent_policy",
    "consent_attributes",
    "review_above_percent",
)
CONSENT_ATTRIBUTES_AT_MOST = 20
ANSWERS = ("opt_in", "opt_out")


class SettingRefused(ValueError):
    """`field` is the setting, the words say what it must be."""

    def __init__(self, field: str, words: str) -> None:
        super().__init__(words)
        self.field = field


def current() -> Workspace | None:
    """The settings; None until the first set-up has been answered."""
    return Workspace.objects.filter(pk=1).first()


def needs_set_up() -> bool:
    """Whether the first page must ask for the first admin: nobody can sign in who may change settings."""
    admins = User.objects.filter(role=User.Role.ADMIN, is_active=True)
    return not any(admin.has_usable_password() for admin in admins)


def set_up(
    *,
    email: str,
    password: str,
    name: str = "Rollcall",
    user_name: str = "",
    timezone: str = "UTC",
    currency: str = "EUR",
    default_region: str = "US",
    consent_policy: Any = None,
) -> User:
    """The first set-up: the workspace and its first admin, whose password is theirs. Raises SettingRefused (field `email` or
    `password` too) and, where it has been done before, SettingRefused on `email`. A policy of None means: not answered, nothing is sent."""
    values = check(
        name=name, timezone=timezone, currency=currency, default_region=default_region, consent_policy=consent_policy
    )
    address = email.strip().lower()
    if not users.is_address(address):
        raise SettingRefused("email", "Not an e-mail address")
    try:
        validate_password(password, User(email=address, name=user_name))
    except ValidationError as error:
        raise SettingRefused("password", " ".join(error.messages)) from None
    with transaction.atomic():
        # The row is the lock: of two set-ups at the same moment, the second waits here and then finds an admin.
        Workspace.objects.get_or_create(pk=1, defaults=values)
        workspace = Workspace.objects.select_for_update().get(pk=1)
        if not needs_set_up():
            raise SettingRefused("email", "The set-up has been done already: sign in")
        _apply(None, workspace, values, reason="first set-up")
        user, _ = User.objects.get_or_create(email=address, defaults={"role": User.Role.ADMIN})
        user.role, user.is_active = User.Role.ADMIN, True
        user.name = user_name.strip()[:100] or user.name
        user.set_password(password)
        user.save()
        trail.record(user, "workspace.set_up", "workspace", "1", after=values)
    return user


def change(*, actor: User | None, reason: str = "", **settings: Any) -> Workspace:
    """Change the settings named (see FIELDS); the others stay. Raises SettingRefused and writes nothing if any is refused."""
    values = check(**settings)
    with transaction.atomic():
        Workspace.objects.get_or_create(pk=1, defaults={"name": "Rollcall"})
        workspace = Workspace.objects.select_for_update().get(pk=1)
        _apply(actor, workspace, values, reason)
    return workspace


def check(**settings: Any) -> dict[str, Any]:
    """The settings in the form in which they are kept. Raises SettingRefused."""
    unknown = sorted(set(settings) - set(FIELDS))
    if unknown:
        raise SettingRefused(unknown[0], f"not a setting; there are {', '.join(FIELDS)}")
    return {name: _CHECKS[name](value) for name, value in settings.items()}


def _apply(actor: User | None, workspace: Workspace, values: dict[str, Any], reason: str) -> None:
    before = {name: getattr(workspace, name) for name in values}
    changed = [name for name, value in values.items() if before[name] != value]
    if not changed:
        return
    for name in changed:
        setattr(workspace, name, values[name])
    workspace.save(update_fields=changed)
    trail.record(
        actor,
        "workspace.changed",
        "workspace",
        "1",
        before={name: before[name] for name in changed},
        after={name: values[name] for name in changed},
        reason=reason,
    )
    if "consent_attributes" in changed:
        jobs.ask(consents.TASK, "")


def _name(value: Any) -> str:
    text = str(value).strip() if isinstance(value, str) else ""
    if not 1 <= len(text) <= 100:
        raise SettingRefused("name", "must have 1 to 100 characters")
    return text


def _timezone(value: Any) -> str:
    try:
        return ZoneInfo(value).key
    except (ValueError, TypeError, OSError, LookupError):
        raise SettingRefused("timezone", "must be a name such as Europe/Berlin") from None


def _currency(value: Any) -> str:
    text = value.strip().upper() if isinstance(value, str) else ""
    if len(text) != 3 or not (text.isascii() and text.isalpha()):
        raise SettingRefused("currency", "must be three letters, such as EUR")
    return text


def _region(value: Any) -> str:
    text = value.strip().upper() if isinstance(value, str) else ""
    if text not in phonenumbers.SUPPORTED_REGIONS:
        raise SettingRefused("default_region", "must be the two letters of a country, such as DE")
    return text


def _consent(value: Any) -> dict[str, Any] | None:
    """opt_in | opt_out | {"default": …, "by_country": {"DE": …}} | None."""
    if value is None:
        return None
    if isinstance(value, str):
        value = {"default": value}
    words = 'must be opt_in, opt_out or {"default": "opt_out", "by_country": {"DE": "opt_in"}}'
    if not isinstance(value, dict) or set(value) - {"default", "by_country"} or value.get("default") not in ANSWERS:
        raise SettingRefused("consent_policy", words)
    countries = value.get("by_country") or {}
    if not isinstance(countries, dict) or any(answer not in ANSWERS for answer in countries.values()):
        raise SettingRefused("consent_policy", words)
    for country in countries:
        if country not in phonenumbers.SUPPORTED_REGIONS:
            raise SettingRefused("consent_policy", f"{country!r} is not the two letters of a country")
    return {"default": value["default"], "by_country": dict(sorted(countries.items()))}


def _consent_attributes(value: Any) -> list[dict[str, Any]]:
    """[{"attribute": "ads_ok", "purposes": ["ad_user_data"], "yes": ["opted_in"], "no": ["opted_out"]}, …], sorted by attribute."""
    words = 'must be a list such as [{"attribute": "ads_ok", "purposes": ["ad_user_data"], "yes": [], "no": []}]'
    if not isinstance(value, list) or len(value) > CONSENT_ATTRIBUTES_AT_MOST:
        raise SettingRefused("consent_attributes", words)
    rules: dict[str, dict[str, Any]] = {}
    for one in value:
        if not isinstance(one, dict) or set(one) - {"attribute", "purposes", "yes", "no"}:
            raise SettingRefused("consent_attributes", words)
        name, purposes = one.get("attribute"), one.get("purposes")
        if not isinstance(name, str) or not name.strip() or len(name.strip().encode()) > 150 or "\0" in name:
            raise SettingRefused("consent_attributes", "an attribute needs a name of at most 150 bytes")
        name = name.strip()
        if name == "consent" or name.removeprefix("consent_") in PURPOSES:
            raise SettingRefused("consent_attributes", f"{name} is read as consent anyway")
        if name in rules:
            raise SettingRefused("consent_attributes", f"{name} is named twice")
        if not isinstance(purposes, list) or not purposes or any(purpose not in PURPOSES for purpose in purposes):
            raise SettingRefused("consent_attributes", f"{name} must say one or more of {', '.join(PURPOSES)}")
        yes, no = (_words(one.get(side) or [], name) for side in ("yes", "no"))
        if both := sorted(set(yes) & set(no)):
            raise SettingRefused("consent_attributes", f"{name}: “{both[0]}” cannot mean both yes and no")
        chosen = [purpose for purpose in PURPOSES if purpose in purposes]
        rules[name] = {"attribute": name, "purposes": chosen, "yes": yes, "no": no}
    return [rules[name] for name in sorted(rules)]


def _words(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or any(not isinstance(word, str) for word in value):
        raise SettingRefused("consent_attributes", f"{name}: the words must be a list of texts")
    return sorted({word.strip().lower()[:100] for word in value if word.strip()})


def _percent(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1000:
        raise SettingRefused("review_above_percent", "must be a whole number from 0 to 1000")
    return value


_CHECKS = {
    "name": _name,
    "timezone": _timezone,
    "currency": _currency,
    "default_region": _region,
    "consent_policy": _consent,
    "consent_attributes": _consent_attributes,
    "review_above_percent": _percent,
}
