"""Who may do what: one table of permissions by role, and the decorator that views use."""

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse

from audiences.models import User

ADMIN, MARKETER, BUYER, OPERATOR = User.Role.ADMIN, User.Role.MARKETER, User.Role.BUYER, User.Role.OPERATOR
EVERYONE = frozenset(User.Role.values)

PERMISSIONS: dict[str, frozenset[str]] = {
    "account.edit": EVERYONE,
    "feed.view": EVERYONE,
    "feed.edit": frozenset({ADMIN, OPERATOR}),
    "audience.view": EVERYONE,
    "audience.edit": frozenset({ADMIN, MARKETER}),
    "audience.publish": frozenset({ADMIN, MARKETER}),
    "audience.follow": EVERYONE,
    "audience.lock": frozenset({ADMIN, MARKETER, BUYER}),
    "audience.break_lock": frozenset({ADMIN}),
    "audience.refresh": frozenset({ADMIN, MARKETER, OPERATOR}),
    "person.view": frozenset({ADMIN, MARKETER, OPERATOR}),
    "person.reveal": frozenset({ADMIN}),
    "import.view": frozenset({ADMIN, MARKETER, OPERATOR}),
    "import.run": frozenset({ADMIN, OPERATOR}),
    "privacy.view": frozenset({ADMIN, OPERATOR}),
    "privacy.decide": frozenset({ADMIN}),
    "refused.export": frozenset({ADMIN}),
    "destination.view": EVERYONE,
    "destination.edit": frozenset({ADMIN, OPERATOR}),
    "mapping.edit": frozenset({ADMIN, OPERATOR}),
    "run.view": EVERYONE,
    "run.start": frozenset({ADMIN, MARKETER, OPERATOR}),
    "run.approve": frozenset({ADMIN, OPERATOR}),
    "record.export": frozenset({ADMIN, MARKETER}),
    "warehouse.edit": frozenset({ADMIN, OPERATOR}),
    "hold.lift": frozenset({ADMIN, OPERATOR}),
    "setup.edit": frozenset({ADMIN, MARKETER, OPERATOR}),
    "spot_check.view": frozenset({ADMIN, MARKETER, OPERATOR}),
    "spot_check.run": frozenset({ADMIN, MARKETER, OPERATOR}),
    "alert.view": EVERYONE,
    "alert.act": EVERYONE,
    "alert.limit": frozenset({ADMIN, MARKETER, OPERATOR}),
    "mail.view": EVERYONE,
    "mail.test": EVERYONE,
    "naming.view": EVERYONE,
    "naming.edit": frozenset({ADMIN, MARKETER}),
    "trail.view": frozenset({ADMIN, MARKETER, OPERATOR}),
    "sample.act": frozenset({ADMIN, MARKETER, OPERATOR}),
    "settings.view": frozenset({ADMIN}),
    "settings.edit": frozenset({ADMIN}),
}


def may(user: Any, permission: str) -> bool:
    """Whether this user may. An unknown permission is a bug and raises KeyError."""
    roles = PERMISSIONS[permission]
    return bool(getattr(user, "is_authenticated", False) and user.is_active and user.role in roles)


def who_may(permission: str) -> str:
    """The roles that may, in words: "admin or operator"."""
    labels = [role.label.lower() for role in User.Role if role.value in PERMISSIONS[permission]]
    return " or ".join(labels)


def requires(permission: str) -> Callable[[Callable[..., HttpResponseBase]], Callable[..., HttpResponseBase]]:
    """Sign in first; without the permission the answer is 403. The view carries it, so that a test can list every URL's."""

    def decorate(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                door = reverse("audiences:sign-in")  # on an empty installation it leads on to the first set-up
                if getattr(request, "htmx", False):
                    response = HttpResponse(status=204)  # a redirect would put the sign-in page into the fragment
                    back = request.htmx.current_url_abs_path or "/"  # type: ignore[attr-defined]
                    response["HX-Redirect"] = f"{door}?{urlencode({'next': back})}"
                    return response
                back = request.get_full_path() if request.method == "GET" else "/"
                return redirect_to_login(back, login_url=door)
            if not may(request.user, permission):
                raise PermissionDenied(f"This needs the role {who_may(permission)}.")
            return view(request, *args, **kwargs)

        guarded.permission = permission  # type: ignore[attr-defined]
        return guarded

    return decorate
