"""Around the seven steps: the list of those under way, a new one, an audience's launch checklist and suppression pair, and the page that
somebody is sent who only has to connect an account."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from audiences import vocabulary
from audiences.access import requires
from audiences.models import Audience
from audiences.services.audiences import AudienceRefused
from audiences.views.page import actor, page
from destinations import queries
from destinations.connectors import registry
from destinations.forms import DestinationForm
from destinations.models import Destination
from destinations.services import Refused
from destinations.services import destinations as destination_service
from qa import checklist, pairs, setup, setup_forms
from qa.views.setup_parts import place, show


@require_GET
@requires("setup.edit")
def setups(request: HttpRequest) -> HttpResponse:
    """Those under way, each with the step where it goes on."""
    rows = setup.look_at(setup.open_ones())
    return page(request, "setup/list.html", {"rows": rows, "steps": setup.STEPS})


@require_http_methods(["GET", "POST"])
@requires("setup.edit")
def new(request: HttpRequest) -> HttpResponse:
    """Step 1 of one that begins with its answer; looking at the page begins nothing."""
    initial = {"purpose": request.GET.get("purpose", ""), "target": request.GET.get("destination", "")}
    form = setup_forms.PlaceForm(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            begun = setup.begin(
                actor=actor(request),
                purpose=form.cleaned_data["purpose"],
                destination=form.destination,
                kind=form.kind,
            )
        except Refused as refused:
            show(refused, form)
        else:
            return redirect("qa:setup-step", begun.pk, "identity")
    steps = [
        setup.Step(number, key, label, "now" if number == 1 else "todo", "")
        for number, (key, label) in enumerate(setup.STEPS.items(), 1)
    ]
    context = {"steps": steps, "step": "destination", "number": 1, "label": setup.STEPS["destination"]}
    context |= place(form)
    return page(request, "setup/destination.html", context, status=422 if form.is_bound else 200)


@require_POST
@requires("setup.edit")
def discard(request: HttpRequest, pk: int) -> HttpResponse:
    row = setup.find(pk)
    if row is not None and row.finished_at is None:
        setup.discard(actor=actor(request), setup=row)
        messages.success(request, "The set-up is discarded. What it made stays.")
    return redirect("qa:setups")


@require_http_methods(["GET", "POST"])
@requires("audience.view")
def of_audience(request: HttpRequest, key: str) -> HttpResponseBase:
    """An audience's launch checklist, and the way on from it."""
    audience = get_object_or_404(Audience.objects.select_related("live_version"), key=key)
    under_way = setup.open_for(audience)
    if request.method == "POST":
        return _begin(request, key)
    context = {"audience": audience, "checklist": checklist.of(audience), "under_way": under_way}
    return page(request, "setup/checklist.html", context, fragment="panel")


@requires("setup.edit")
def _begin(request: HttpRequest, key: str) -> HttpResponse:
    audience = get_object_or_404(Audience, key=key, archived_at=None)
    row = setup.open_for(audience) or setup.begin(actor=actor(request), audience=audience)
    return redirect("qa:setup-step", row.pk, setup.look(setup.find(row.pk) or row).current)


@require_http_methods(["GET", "POST"])
@requires("audience.edit")
def pair(request: HttpRequest, key: str) -> HttpResponse:
    """The suppression audience that belongs to a retargeting one: one that is there already, or a new one."""
    audience = get_object_or_404(Audience, key=key, archived_at=None)
    back = _back(request, audience)
    if audience.purpose == Audience.Purpose.SUPPRESSION:
        messages.error(request, "It is a suppression audience itself.")
        return redirect("qa:audience", key)
    events = sorted(vocabulary.known().events)
    form = setup_forms.PairForm(
        request.POST if request.method == "POST" else None, events=events, usual=pairs.purchase(events)
    )
    if request.method == "POST":
        try:
            if chosen := request.POST.get("link"):
                other = get_object_or_404(Audience, key=chosen)
                pairs.link(actor=actor(request), audience=audience, suppression=other)
                messages.success(request, f"{other.key} is linked. Whoever is in it is not sent.")
                return back
            if form.is_valid():
                made = pairs.make(actor=actor(request), audience=audience, **form.cleaned_data)
                messages.success(request, f"{made.key} is made and linked. Take it live before the retargeting.")
                return back
        except (AudienceRefused, Refused) as refused:
            form.add_error(None, f"Not done: {refused}.")
    days, event = pairs.USUAL, pairs.purchase(events)
    if form.is_bound and form.is_valid():
        days, event = form.cleaned_data["days"], form.cleaned_data["event"]
    context = {
        "audience": audience,
        "form": form,
        "alike": pairs.alike(audience, days=days, event=event) if event else [],
        "linked": pairs.partners([audience.pk]).get(audience.pk, []),
        "lacking": pairs.lacking(audience),
        "key": pairs.key_of(audience, days, event or "purchase"),
        "set_up": request.GET.get("set_up", ""),
    }
    return page(request, "setup/pair.html", context, status=422 if form.is_bound and form.errors else 200)


def _back(request: HttpRequest, audience: Audience) -> HttpResponse:
    """To the set-up that asked, where one did; else to the audience."""
    asked = request.POST.get("set_up") or request.GET.get("set_up", "")
    row = setup.open_for(audience) if asked else None
    if row is not None:
        return redirect("qa:setup-step", row.pk, setup.look(setup.find(row.pk) or row).current)
    return redirect("qa:audience", audience.key)


@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
@requires("destination.edit")
def engineer(request: HttpRequest, token: str) -> HttpResponse:
    """Connecting an account, for somebody who was sent here and needs to know nothing else of the set-up."""
    row = setup.of_link(token)
    if row is None or row.finished_at is not None:
        return page(request, "setup/link_over.html", {"days": setup.LINK_LASTS.days}, status=410)
    standing = setup.look(row)
    if row.destination is not None:
        return page(
            request, "setup/engineer.html", {"standing": standing, "setup": row, "destination": row.destination}
        )
    connector = registry.CONNECTORS.get(standing.kind)
    if connector is None:
        return page(request, "setup/link_over.html", {"days": setup.LINK_LASTS.days}, status=410)
    form = DestinationForm(
        request.POST if request.method == "POST" else None,
        initial={"name": connector.capabilities.label, "key": f"{standing.kind}_main"},
    )
    theirs = connector.config_form(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid() & theirs.is_valid():
        given = {name: value for name, value in theirs.cleaned_data.items() if value not in (None, "")}
        secret = {name: str(given.pop(name)) for name in connector.secret_fields if name in given}
        try:
            made = destination_service.create(
                actor=actor(request), kind=standing.kind, config=given, credentials=secret, **form.cleaned_data
            )
        except Refused as refused:
            for problem in refused.problems:
                name = problem.path.rpartition(".")[2]
                place = theirs if name in theirs.fields else form
                place.add_error(name if name in place.fields else None, problem.words)
        else:
            made = destination_service.check(actor=actor(request), destination=made)
            setup.connected_for(actor=actor(request), setup=row, destination=made)
            good = made.state == Destination.State.CONNECTED
            (messages.success if good else messages.error)(request, made.state_words)
            return redirect("qa:engineer", token)
    context = {
        "standing": standing,
        "setup": row,
        "platform": queries.platform_of(standing.kind),
        "form": form,
        "theirs": theirs,
    }
    return page(request, "setup/engineer.html", context, status=422 if form.is_bound else 200)
