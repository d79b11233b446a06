"""Destinations: the accounts that audiences go to, connected, checked, changed."""

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from audiences.access import requires
from audiences.models import Audience
from audiences.queries import activity
from audiences.views.page import actor, page
from destinations import queries
from destinations.connectors import registry
from destinations.connectors.base import Connector
from destinations.forms import DestinationForm, RenameForm
from destinations.models import Destination, Mapping
from destinations.services import Refused
from destinations.services import destinations as service


@require_GET
@requires("destination.view")
def destinations(request: HttpRequest) -> HttpResponse:
    return page(request, "destinations/list.html", {"cards": queries.cards()})


@require_GET
@requires("destination.edit")
def choose(request: HttpRequest) -> HttpResponse:
    """Which platform."""
    labels = dict(Audience.Purpose.choices)
    platforms = [
        (kind, connector.capabilities, [labels[purpose] for purpose in connector.capabilities.purposes])
        for kind, connector in registry.CONNECTORS.items()
    ]
    return page(request, "destinations/choose.html", {"platforms": platforms})


@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
@requires("destination.edit")
def connect(request: HttpRequest, kind: str) -> HttpResponse:
    """A new account: its settings, its secrets, and at once the platform's answer to them."""
    connector = _connector(kind)
    form = DestinationForm(request.POST or None, initial={"name": connector.capabilities.label})
    theirs = connector.config_form(request.POST or None)
    if request.method == "POST" and form.is_valid() & theirs.is_valid():
        config, credentials = _split(connector, theirs)
        try:
            made = service.create(
                actor=actor(request), kind=kind, config=config, credentials=credentials, **form.cleaned_data
            )
        except Refused as refused:
            _show(refused, form, theirs)
        else:
            _check(request, made)
            back = request.GET.get("next", "")
            if back and url_has_allowed_host_and_scheme(back, None):
                return redirect(f"{back}?{urlencode({'destination': made.key})}")
            return redirect("destinations:destination", made.key)
    context = {"form": form, "theirs": theirs, "platform": connector.capabilities, "secrets": connector.secret_fields}
    return page(request, "destinations/connect.html", context, status=422 if form.is_bound else 200)


@require_GET
@requires("destination.view")
def destination(request: HttpRequest, key: str) -> HttpResponse:
    row = get_object_or_404(Destination.objects.select_related("account", "credentials_by"), key=key)
    connections = queries.connections(destination=row, whole=False)
    here = [seen.mapping.audience.key for seen in connections if seen.mapping.state != Mapping.State.RETIRED]
    context = {
        "destination": row,
        "platform": queries.platform_of(row.kind),
        "connections": connections,
        "overlap": urlencode([("a", audience) for audience in here]) if len(here) > 1 else "",
        "activity": activity("destination", key),
    }
    return page(request, "destinations/destination.html", context)


@require_POST
@requires("destination.edit")
def check(request: HttpRequest, key: str) -> HttpResponse:
    _check(request, get_object_or_404(Destination, key=key))
    return redirect("destinations:destination", key)


@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
@requires("destination.edit")
def edit(request: HttpRequest, key: str) -> HttpResponse:
    """Name, address and settings; and, apart from them, new secrets in place of those that are there."""
    row = get_object_or_404(Destination.objects.select_related("credentials_by"), key=key)
    connector = _connector(row.kind)
    part = request.POST.get("part", "") if request.method == "POST" else ""
    settings, secrets = _halves(connector)
    form = RenameForm(
        request.POST if part == "settings" else None, initial={"name": row.name, "base_url": row.base_url}
    )
    theirs = settings(request.POST if part == "settings" else None, initial=row.config)
    secret = secrets(request.POST if part == "secrets" else None)
    changes: dict[str, Any] = {}
    if part == "settings" and form.is_valid() & theirs.is_valid():
        changes = {**form.cleaned_data, "config": _given(theirs)}
    elif part == "secrets" and secret.is_valid():
        changes = {"credentials": _given(secret)}
    if changes:
        try:
            row = service.change(actor=actor(request), destination=row, **changes)
        except Refused as refused:
            _show(refused, form if part == "settings" else secret, theirs if part == "settings" else secret)
        else:
            _check(request, row)
            return redirect("destinations:destination", key)
    context = {"destination": row, "form": form, "theirs": theirs, "secret": secret, "platform": connector.capabilities}
    return page(request, "destinations/edit.html", context, status=422 if part else 200)


def _check(request: HttpRequest, row: Destination) -> None:
    row = service.check(actor=actor(request), destination=row)
    if row.state == Destination.State.CONNECTED:
        messages.success(request, row.state_words)
    else:
        messages.error(request, row.state_words)


def _connector(kind: str) -> type[Connector]:
    connector = registry.CONNECTORS.get(kind)
    if connector is None:
        raise Http404
    return connector


def _halves(connector: type[Connector]) -> tuple[type[forms.Form], type[forms.Form]]:
    """The connector's form without its secrets, and its secrets alone. What they must be together the service checks."""
    fields = connector.config_form.base_fields
    secret = {name: field for name, field in fields.items() if name in connector.secret_fields}
    open_ = {name: field for name, field in fields.items() if name not in connector.secret_fields}
    return type("Settings", (forms.Form,), open_), type("Secrets", (forms.Form,), secret)


def _split(connector: type[Connector], form: forms.Form) -> tuple[dict[str, Any], dict[str, str]]:
    given = _given(form)
    secret = {name: str(value) for name, value in given.items() if name in connector.secret_fields}
    return {name: value for name, value in given.items() if name not in secret}, secret


def _given(form: forms.Form) -> dict[str, Any]:
    return {name: value for name, value in form.cleaned_data.items() if value not in (None, "")}


def _show(refused: Refused, *places: forms.Form) -> None:
    """Each problem at its field, in the first form that has it; else above the first form."""
    for problem in refused.problems:
        name = problem.path.rpartition(".")[2]
        form = next((form for form in places if name in form.fields), None)
        words = problem.words[:1].upper() + problem.words[1:]
        (form or places[0]).add_error(name if form else None, words)
