"""Coming in and going out: sign in, sign out, the first set-up, a new password, one's own account."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, logout, update_session_auth_hash
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from audiences import access
from audiences.forms import AccountForm, NewPasswordForm, SetupForm, SignInForm
from audiences.models import User
from audiences.services import users, workspace
from audiences.views.page import THEMES, page

# The sample users of the demo (manage.py demo) and what each of them is there to see.
SAMPLE_USERS = {
    User.Role.MARKETER: "Writes rules, publishes versions, checks them on real people",
    User.Role.BUYER: "Finds audiences for campaigns and trusts them; sees no personal data",
    User.Role.OPERATOR: "Connects ad accounts, runs syncs, mends what stopped",
    User.Role.ADMIN: "Everything, and who may do what",
}


@sensitive_post_parameters("password")
@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    if workspace.needs_set_up():
        return redirect("audiences:setup")
    wanted = request.POST.get("next") or request.GET.get("next") or "/"
    if request.user.is_authenticated:
        return redirect(_ours(request, wanted))
    form = SignInForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and form.user:
        login(request, form.user)
        return redirect(_ours(request, wanted))
    samples = _sample_users() if settings.DEMO else []
    status = 422 if request.method == "POST" else 200
    return page(request, "session/sign_in.html", {"form": form, "next": wanted, "samples": samples}, status=status)


@require_POST
def enter(request: HttpRequest) -> HttpResponse:
    """The demo's way in: one click as one of its sample users, who are at a domain that nobody owns (RFC 2606)."""
    if not settings.DEMO:
        raise Http404
    chosen = request.POST.get("role", "")
    user = next((sample["user"] for sample in _sample_users() if sample["user"].role == chosen), None)
    if user is None:
        raise Http404
    if request.user.is_authenticated:
        logout(request)
    login(request, user)
    return redirect(_ours(request, request.POST.get("next", "/")))


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("audiences:sign-in")


@sensitive_post_parameters("password", "again")
@require_http_methods(["GET", "POST"])
def setup(request: HttpRequest) -> HttpResponse:
    """The first page of an empty installation. Once there is an admin it leads to the sign-in."""
    if not workspace.needs_set_up():
        return redirect("audiences:sign-in")
    form = SetupForm(request.POST or None, initial=_settings_so_far())
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            user = workspace.set_up(
                email=values["email"],
                password=values["password"],
                user_name=values["user_name"],
                name=values["name"],
                timezone=values["timezone"],
                currency=values["currency"],
                default_region=values["default_region"],
                consent_policy=form.policy(),
            )
        except workspace.SettingRefused as refused:
            form.add_error(refused.field if refused.field in form.fields else None, str(refused))
        else:
            login(request, user)
            messages.success(request, "Rollcall is set up. Next: bring in your people, then connect a destination.")
            return redirect("audiences:imports")
    return page(request, "session/setup.html", {"form": form}, status=422 if form.is_bound else 200)


@sensitive_post_parameters("password", "again")
@require_http_methods(["GET", "POST"])
def set_password(request: HttpRequest, token: str) -> HttpResponse:
    """Where an invitation's link leads."""
    user = users.user_of_token(token)
    if user is None:
        return page(request, "session/link_used.html", status=410)
    form = NewPasswordForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            user = users.set_password(token=token, password=form.cleaned_data["password"])
        except ValidationError as weak:
            form.add_error("password", weak)
        except users.UserRefused:
            return page(request, "session/link_used.html", status=410)
        else:
            login(request, user)
            return redirect("qa:home")
    context = {"form": form, "invited": user}
    return page(request, "session/set_password.html", context, status=422 if form.is_bound else 200)


@require_http_methods(["GET", "POST"])
@access.requires("account.edit")
def account(request: HttpRequest) -> HttpResponse:
    user = request.user
    assert isinstance(user, User)
    initial = {"name": user.name, "timezone": user.timezone, "single_keys": user.single_keys}
    form = AccountForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        users.describe(actor=user, user=user, **form.cleaned_data)
        messages.success(request, "Saved.")
        return redirect("audiences:account")
    context = {"form": form, "password_form": NewPasswordForm()}
    return page(request, "session/account.html", context, status=422 if form.is_bound else 200)


@sensitive_post_parameters("password", "again")
@require_POST
@access.requires("account.edit")
def new_password(request: HttpRequest) -> HttpResponse:
    """For oneself, while signed in."""
    user = request.user
    assert isinstance(user, User)
    form = NewPasswordForm(request.POST)
    if form.is_valid():
        try:
            user = users.set_password(
                token=users.set_password_link(user).rstrip("/").rsplit("/", 1)[1],
                password=form.cleaned_data["password"],
            )
        except ValidationError as weak:
            form.add_error("password", weak)
        else:
            update_session_auth_hash(request, user)
            messages.success(request, "Your password is changed. Other browsers are signed out.")
            return redirect("audiences:account")
    initial = {"name": user.name, "timezone": user.timezone, "single_keys": user.single_keys}
    context = {"form": AccountForm(initial=initial), "password_form": form}
    return page(request, "session/account.html", context, status=422)


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Light, dark, or as the system has it; kept in this browser."""
    response = redirect(_ours(request, request.POST.get("next", "/")))
    chosen = request.POST.get("theme", "")
    if chosen in THEMES:
        response.set_cookie(
            "theme", chosen, max_age=365 * 86400, samesite="Lax", httponly=True, secure=settings.SESSION_COOKIE_SECURE
        )
    else:
        response.delete_cookie("theme", samesite="Lax")
    return response


def _ours(request: HttpRequest, url: str) -> str:
    """The address if it leads to this host, else the first page."""
    safe = url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure())
    return url if safe else "/"


def _sample_users() -> list[dict[str, Any]]:
    found = {
        user.role: user for user in User.objects.filter(is_active=True, email__endswith="@example.com").order_by("-pk")
    }
    return [
        {"user": found[role], "words": words, "label": role.label}
        for role, words in SAMPLE_USERS.items()
        if role in found
    ]


def _settings_so_far() -> dict[str, Any]:
    """What `apply` may have set before anybody signed in."""
    row = workspace.current()
    if row is None:
        return {"timezone": "UTC", "currency": "EUR", "default_region": "US"}
    fields = ("name", "timezone", "currency", "default_region")
    return {field: getattr(row, field) for field in fields} | {"consent": (row.consent_policy or {}).get("default")}
