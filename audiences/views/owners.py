"""Who owns an audience; and what somebody hands over before they go."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from audiences import activity, owners, queries
from audiences.access import may, requires
from audiences.audience_forms import HandOverForm, OwnersForm, seen
from audiences.models import Audience, User
from audiences.services import audiences, users
from audiences.services.audiences import AudienceRefused
from audiences.views.page import actor, page


@require_GET
@requires("audience.view")
def owners_page(request: HttpRequest, key: str) -> HttpResponse:
    return _owners(request, _audience(key))


@require_POST
@requires("audience.edit")
def set_owners(request: HttpRequest, key: str) -> HttpResponse:
    audience, user = _audience(key), actor(request)
    form = OwnersForm(request.POST, audience=audience, user=user)
    if not form.is_valid():
        return _owners(request, audience, form, status=422)
    if form.cleaned_data["seen"] != seen(audience):
        form.add_error(None, "Somebody else has named owners since you opened this page. This is how it is now.")
        return _owners(request, audience, OwnersForm(audience=audience, user=user), status=409, theirs=form)
    chosen = {role.field: form.cleaned_data[role.field] for role in owners.ROLES}
    try:
        audiences.set_owners(actor=user, audience=audience, reason=form.cleaned_data["reason"], **chosen)
    except AudienceRefused as refused:
        for problem in refused.problems:
            form.add_error(problem.path if problem.path in form.fields else None, f"{problem.words}.")
        return _owners(request, audience, form, status=422)
    messages.success(request, "Owners are named.")
    number = request.POST.get("for", "")
    if number.isdecimal() and len(number) < 10:
        return redirect("audiences:version", key, int(number))
    return redirect("audiences:owners", key)


@require_http_methods(["GET", "POST"])
@requires("settings.edit")
def hand_over(request: HttpRequest, pk: int) -> HttpResponse:
    """Every audience and role that somebody holds; who takes over; and then they are let go."""
    leaving = get_object_or_404(User, pk=pk)
    holdings = owners.held_by(leaving)
    form = HandOverForm(request.POST or None, leaving=leaving, holdings=holdings)
    context: dict[str, Any] = {"leaving": leaving, "holdings": holdings, "form": form}
    if request.method == "GET" or not form.is_valid():
        return page(request, "owners/hand_over.html", context, status=200 if request.method == "GET" else 422)
    chosen, deed = form.successors(), request.POST.get("deed", "")
    left = len(holdings) - len(chosen)
    if deed == "hand_over" and left:
        form.add_error("everything", f"Nobody takes {left} of these: choose for each, or one person for all.")
        return page(request, "owners/hand_over.html", context, status=422)
    try:
        audiences.hand_over(
            actor=actor(request),
            leaving=leaving,
            successors={} if deed == "leave" else chosen,
            reason=form.cleaned_data["reason"],
            deactivate=leaving.is_active and deed != "only",
        )
    except users.UserRefused as refused:
        form.add_error(None, str(refused))
        return page(request, "owners/hand_over.html", context, status=422)
    gone = f" {leaving} can no longer sign in." if leaving.is_active and deed != "only" else ""
    if deed == "leave":
        messages.warning(request, f"{leaving} can no longer sign in, and is still named on {len(holdings)} of these.")
    else:
        messages.success(
            request, f"{len(chosen)} handed over.{gone}" if chosen else f"Nothing was to be handed over.{gone}"
        )
    return redirect("audiences:users")


def _owners(
    request: HttpRequest, audience: Audience, form: OwnersForm | None = None, *, status: int = 200, **more: Any
) -> HttpResponse:
    user = actor(request)
    if form is None and may(user, "audience.edit"):
        form = OwnersForm(audience=audience, user=user)
    number = request.GET.get("for") or request.POST.get("for") or ""
    context = {
        "audience": audience,
        "holdings": owners.holdings(audience),
        "alerted": owners.alerted(audience),
        "form": form,
        "for": number if number.isdecimal() and len(number) < 10 else "",
        "past": _owners_so_far(audience),
        **more,
    }
    return page(request, "owners/owners.html", context, status=status)


def _owners_so_far(audience: Audience) -> list[activity.Line]:
    """The lines of the trail that name other owners, with nothing but those."""
    labels = {role.field: role.label for role in owners.ROLES}
    found = []
    for entry in queries.activity("audience", audience.key, limit=200):
        if entry.verb == "audience.changed" and isinstance(entry.after, dict) and labels.keys() & entry.after.keys():
            before = {label: (entry.before or {}).get(field) for field, label in labels.items() if field in entry.after}
            after = {label: entry.after[field] for field, label in labels.items() if field in entry.after}
            changes = tuple(activity.Changed(label, before[label], after[label]) for label in after)
            found.append(activity.Line(entry, "", "", changes))
    return found


def _audience(key: str) -> Audience:
    return get_object_or_404(Audience.objects.select_related(*(role.field for role in owners.ROLES)), key=key)
