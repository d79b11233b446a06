"""What an audience is called and for, and how often it is counted; and following it."""

from hashlib import sha256
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_POST

from audiences.access import requires
from audiences.audience_forms import DetailsForm
from audiences.models import Audience
from audiences.naming_forms import NameBuilder
from audiences.services import audiences
from audiences.views.page import actor, page, undoable, wants_fragment


class _NotNamed(Exception):
    """The builder says why, beside its fields; nothing else is kept either."""


@require_http_methods(["GET", "POST"])
@requires("audience.edit")
def details(request: HttpRequest, key: str) -> HttpResponse:
    """The name, as the convention builds it or for a reason another; the rest in plain fields."""
    audience = get_object_or_404(Audience.objects.select_related("live_version"), key=key)
    if request.method == "GET":
        return _details(request, audience, _form(audience), NameBuilder.of(audience))
    form, builder = _form(audience, request.POST), NameBuilder.of(audience, request.POST)
    if NameBuilder.build_only(request.POST):
        return _details(request, audience, form, builder)
    named = builder.has_changed() and audience.archived_at is None
    if not form.is_valid() or (named and not builder.is_valid()):
        return _details(request, audience, form, builder, status=422)
    if form.cleaned_data["seen"] != _seen(audience):
        form.add_error(
            None,
            "Somebody else has changed this audience since you opened this page. Open it again to see how it is now.",
        )
        return _details(request, audience, form, builder, status=409)
    values = {name: form.cleaned_data[name] for name in ("description", "purpose", "cadence_seconds")}
    reason = form.cleaned_data["reason"]
    try:
        with transaction.atomic():
            audiences.change(actor=actor(request), audience=audience, reason=reason, **values)
            if named and not builder.save(actor=actor(request), audience=audience, reason=reason):
                raise _NotNamed
    except audiences.AudienceRefused as refused:
        for problem in refused.problems:
            form.add_error(problem.path if problem.path in form.fields else None, f"It {problem.words}.")
        return _details(request, audience, form, builder, status=422)
    except _NotNamed:
        return _details(request, audience, form, builder, status=422)
    messages.success(request, "Saved. Platforms hear of a new name at the next sync." if named else "Saved.")
    return redirect("audiences:details", key)


def _form(audience: Audience, data: Any = None) -> DetailsForm:
    initial = {name: getattr(audience, name) for name in ("description", "purpose", "cadence_seconds")}
    return DetailsForm(data, initial={**initial, "seen": _seen(audience)}, cadence=audience.cadence_seconds)


def _seen(audience: Audience) -> str:
    """What somebody saw when they opened the page."""
    shown = repr(
        (audience.name, audience.name_reason, audience.description, audience.purpose, audience.cadence_seconds)
    )
    return sha256(shown.encode()).hexdigest()[:16]


def _details(
    request: HttpRequest, audience: Audience, form: DetailsForm, builder: NameBuilder, *, status: int = 200
) -> HttpResponse:
    context = {
        "audience": audience,
        "form": form,
        "builder": builder,
        "excludes": audience.excludes.filter(archived_at=None).order_by("key"),
    }
    return page(request, "owners/details.html", context, status=status)


@require_POST
@requires("audience.follow")
def follow(request: HttpRequest, key: str) -> HttpResponse:
    """Follow it, or (`follows` empty) no longer; back to where the button was."""
    audience, follows = get_object_or_404(Audience, key=key), bool(request.POST.get("follows"))
    audiences.follow(actor=actor(request), audience=audience, following=follows)
    if wants_fragment(request):
        return page(request, "audiences/parts.html", {"audience": audience, "followed": follows}, fragment="follow")
    words = (
        f"You follow {audience.name}: your home page shows what happens to it."
        if follows
        else f"You follow {audience.name} no more."
    )
    undoable(
        request,
        words,
        reverse("audiences:follow", args=[key]),
        follows="" if follows else "1",
        next=request.POST.get("next", ""),
    )
    back = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(back, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    return redirect(back) if safe else redirect("qa:audience", audience.key)
