"""Settings: the workspace, who signs in, and the keys that programs use. Consent is consent.py's."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_POST

from audiences import owners, queries
from audiences.access import requires
from audiences.forms import ApiKeyForm, InviteForm, SettingsForm
from audiences.models import ApiKey, User
from audiences.services import api_keys, users, workspace
from audiences.views.page import actor, page


@require_http_methods(["GET", "POST"])
@requires("settings.edit")
def workspace_page(request: HttpRequest) -> HttpResponse:
    row = workspace.current()
    initial = {field: getattr(row, field) for field in SettingsForm.base_fields} if row else {}
    form = SettingsForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            workspace.change(actor=actor(request), **form.cleaned_data)
        except workspace.SettingRefused as refused:
            form.add_error(refused.field if refused.field in form.fields else None, str(refused))
        else:
            messages.success(request, "Saved.")
            return redirect("audiences:settings")
    context = {"form": form, "activity": queries.activity("workspace", "1")}
    return page(request, "settings/workspace.html", context, status=_status(form))


@require_http_methods(["GET", "POST"])
@requires("settings.edit")
def users_page(request: HttpRequest) -> HttpResponse:
    form = InviteForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            invitation = users.invite(actor=actor(request), **form.cleaned_data)
        except users.UserRefused as refused:
            form.add_error("email", str(refused))
        else:
            return _with_link(request, invitation.user, invitation.link)
    return page(request, "settings/users.html", _users(form), status=_status(form))


@require_POST
@requires("settings.edit")
def user(request: HttpRequest, pk: int) -> HttpResponse:
    """Change a role, let somebody go or back in, or make a new link for their password."""
    found = get_object_or_404(User, pk=pk)
    deed = request.POST.get("deed", "")
    try:
        if deed == "role":
            users.change_role(actor=actor(request), user=found, role=request.POST.get("role", ""))
            messages.success(request, f"{found} has a new role.")
        elif deed == "deactivate":
            if found.is_active and owners.held_by(found):
                return redirect("audiences:hand-over", pk)  # it asks who takes over
            users.deactivate(actor=actor(request), user=found)
            messages.success(request, f"{found} can no longer sign in.")
        elif deed == "reactivate":
            users.reactivate(actor=actor(request), user=found)
            messages.success(request, f"{found} can sign in again.")
        elif deed == "link":
            return _with_link(request, found, users.set_password_link(found))
        else:
            messages.error(request, "Nothing was changed.")
    except users.UserRefused as refused:
        messages.error(request, str(refused))
    return redirect("audiences:users")


@require_http_methods(["GET", "POST"])
@requires("settings.edit")
def keys(request: HttpRequest) -> HttpResponse:
    """The secret of a new key is on the page that answers its making, and nowhere ever again."""
    form = ApiKeyForm(request.POST or None)
    made: Any = None
    if request.method == "POST" and form.is_valid():
        made = api_keys.create(form.cleaned_data["name"], actor=actor(request))
        form = ApiKeyForm()
    context = {
        "form": form,
        "made": made,
        "keys": ApiKey.objects.select_related("created_by").order_by("revoked_at", "-pk"),
        "address": request.build_absolute_uri("/"),
    }
    return page(request, "settings/keys.html", context, status=_status(form))


@require_POST
@requires("settings.edit")
def revoke_key(request: HttpRequest, pk: int) -> HttpResponse:
    key = get_object_or_404(ApiKey, pk=pk)
    api_keys.revoke(key, actor=actor(request))
    messages.success(request, f"“{key.name}” is revoked. Calls with it are refused from now on.")
    return redirect("audiences:keys")


def _with_link(request: HttpRequest, invited: User, link: str) -> HttpResponse:
    return page(request, "settings/users.html", {**_users(InviteForm()), "invited": invited, "link": link})


def _users(form: InviteForm) -> dict[str, Any]:
    """Everybody, with how many roles each holds; and what was done about users last."""
    return {
        "form": form,
        "everybody": User.objects.order_by("-is_active", "email"),
        "holds": owners.held_by_all(),
        "activity": queries.activity("user"),
    }


def _status(form: Any) -> int:
    return 422 if form.is_bound and form.errors else 200
