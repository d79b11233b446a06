"""Consent in the settings: what holds for whoever has said nothing, and which attributes say something."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods, require_POST

from audiences import consent_sources
from audiences.access import requires
from audiences.forms import ConsentAttributeForm, ConsentForm
from audiences.services import workspace
from audiences.views.page import STOP_POLLING, actor, page, wants_fragment


@require_http_methods(["GET", "POST"])
@requires("settings.edit")
def consent(request: HttpRequest) -> HttpResponse:
    row = workspace.current()
    form = (
        ConsentForm(request.POST) if request.method == "POST" else ConsentForm.of(row.consent_policy if row else None)
    )
    if request.method == "POST" and form.is_valid():
        workspace.change(actor=actor(request), consent_policy=form.policy())
        messages.success(
            request, "Saved. It holds from the next sync on: people it takes out are removed from the platforms."
        )
        return redirect("audiences:consent")
    return _page(request, form, ConsentAttributeForm(), 422 if form.is_bound else 200)


@require_POST
@requires("settings.edit")
def attributes(request: HttpRequest) -> HttpResponse:
    """Have an attribute read as consent, in another way than before perhaps, or read no more."""
    row = workspace.current()
    rules: list[dict[str, Any]] = list(row.consent_attributes) if row else []
    form = ConsentAttributeForm(request.POST)
    gone = request.POST.get("remove", "")
    if gone:
        kept = [rule for rule in rules if rule["attribute"] != gone]
    elif form.is_valid():
        rule = form.rule()
        kept = [other for other in rules if other["attribute"] != rule["attribute"].strip()] + [rule]
    else:
        return _page(request, ConsentForm.of(row.consent_policy if row else None), form, 422)
    try:
        workspace.change(actor=actor(request), consent_attributes=kept)
    except workspace.SettingRefused as refused:
        form.add_error(None, f"{str(refused)[:1].upper()}{str(refused)[1:]}.")
        return _page(request, ConsentForm.of(row.consent_policy if row else None), form, 422)
    messages.success(request, "Saved. Everybody's attributes are read anew now.")
    return redirect("audiences:consent")


def _page(request: HttpRequest, form: ConsentForm, attribute: ConsentAttributeForm, status: int) -> HttpResponse:
    found = consent_sources.found()
    context = {"policy_form": form, "attribute_form": attribute, "sources": found, "policy": found.policy}
    polled = wants_fragment(request)
    return page(
        request,
        "settings/consent.html",
        context,
        fragment="reading",
        status=STOP_POLLING if polled and not found.reading else status,
    )
