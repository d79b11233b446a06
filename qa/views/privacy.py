"""Privacy requests: the list, a new one, a file of them, one with its receipts, giving up on a platform, lifting a suppression.

An identifier is posted and shown masked; what confirms a request posts it again. It is in no address and kept in no session.
"""

import secrets
from pathlib import Path

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods

from audiences import clock, spreadsheets
from audiences.access import requires
from audiences.models import PrivacyRequest
from audiences.people import imports as files
from audiences.people import intake, privacy_lists
from audiences.people import privacy as asking
from audiences.views.page import STOP_POLLING, actor, page, paginated, wants_fragment
from destinations.models import PrivacyReceipt
from destinations.services import Refused, erasures
from qa import privacy_page
from qa.privacy_forms import ListForm, ReasonForm, RequestForm

Kind, Source = PrivacyRequest.Kind, PrivacyRequest.Source


@require_GET
@requires("privacy.view")
def requests(request: HttpRequest) -> HttpResponse:
    """Overdue ones first; state and kind are in the address."""
    state, kind = request.GET.get("state", ""), request.GET.get("kind", "")
    state = state if state in dict(privacy_page.FILTERS) else ""
    kind = kind if kind in Kind.values else ""
    rows = paginated(request, privacy_page.requests(state=state, kind=kind))
    context = {
        "rows": rows,
        "lines": privacy_page.lines(rows),
        "filters": privacy_page.FILTERS,
        "counts": privacy_page.counts(),
        "state": state,
        "kind": kind,
        "kinds": Kind.choices,
    }
    return page(request, "privacy/list.html", context, fragment="results")


@sensitive_post_parameters("identifier")
@require_http_methods(["GET", "POST"])
@requires("privacy.decide")
def new(request: HttpRequest) -> HttpResponse:
    """First whom it is about, masked; then, when that is confirmed, the request."""
    number = _number(request)
    form = RequestForm(request.POST or None, by_number=number is not None)
    if request.method != "POST" or not form.is_valid():
        people = privacy_page.people([number]) if number is not None else ()
        context = {"form": form, "people": people, "number": number}
        return page(request, "privacy/new.html", context, status=422 if form.is_bound else 200)
    values = form.cleaned_data
    kind = values["kind"]
    if number is not None:
        found = privacy_page.Match(privacy_page.people([number]), (), ())
    else:
        found = privacy_page.match(values["identifier"], intake.default_region(), kind)
        if not found.keys:
            form.add_error("identifier", "Neither an id, nor an e-mail address, nor a phone number.")
            return page(request, "privacy/new.html", {"form": form, "number": None}, status=422)
    seen = ",".join(str(person.profile.pk) for person in found.people)
    confirmed = "sure" in request.POST and request.POST.get("seen") == seen
    if "confirm" not in request.POST or not confirmed:
        context = {"form": form, "found": found, "seen": seen, "number": number, "kind": Kind(kind)}
        context["unsure"] = "confirm" in request.POST
        return page(request, "privacy/confirm.html", context, status=422 if "confirm" in request.POST else 200)
    try:
        taken = intake.in_transaction(
            lambda: asking.ask(
                found.keys,
                kind=kind,
                source=Source.PAGE,
                at_us=clock.now_us(),
                people=[person.profile.pk for person in found.people],
                actor=actor(request),
                asked_at=form.asked_at(),
                reference=values["reference"],
            )
        )
    except asking.NotAsked as refused:
        form.add_error(None, f"{str(refused)[:1].upper()}{str(refused)[1:]}.")
        return page(request, "privacy/new.html", {"form": form, "number": number}, status=422)
    if taken.request is None:
        messages.warning(request, "There was nothing to do.")
        return redirect("qa:privacy")
    if taken.made:
        messages.success(request, "Taken in. The platforms are told now; this page shows how far it is.")
    else:
        messages.warning(request, "There is this request about them already.")
    return redirect("qa:privacy-request", taken.request.pk)


@require_http_methods(["GET", "POST"])
@requires("privacy.decide")
def from_list(request: HttpRequest) -> HttpResponse:
    """A file of identifiers, each row a request. The file is gone when it has been read."""
    form = ListForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        sent = form.cleaned_data["file"]
        suffix = ".csv.gz" if sent.name.lower().endswith(".gz") else ".csv"
        path = files.uploads() / f"{secrets.token_hex(8)}{suffix}"
        with path.open("wb") as kept:
            for chunk in sent.chunks():
                kept.write(chunk)
        try:
            started = privacy_lists.start(
                path,
                actor=actor(request),
                kind=form.cleaned_data["kind"],
                source=Source.LIST,
                name=Path(sent.name).name[:255],
                reference=form.cleaned_data["reference"],
                asked_at=form.asked_at().isoformat(),
            )
        except files.ImportRefused as refused:
            path.unlink(missing_ok=True)
            form.add_error("file", str(refused))
        else:
            return redirect("audiences:import", started.pk)
    return page(request, "privacy/from_list.html", {"form": form}, status=422 if form.is_bound else 200)


@require_GET
@requires("privacy.view")
def request_page(request: HttpRequest, pk: int) -> HttpResponse:
    row = _request(pk)
    polled = wants_fragment(request)
    context = {"row": row, "shown": privacy_page.shown(row)}
    status = STOP_POLLING if polled and not row.is_open else 200
    return page(request, "privacy/request.html", context, fragment="live", status=status)


@require_GET
@requires("privacy.view")
def receipts_csv(request: HttpRequest, pk: int) -> HttpResponseBase:
    """The receipts for whoever has to show them; nobody is named in it."""
    lines = spreadsheets.lines(privacy_page.HEAD, privacy_page.as_table(_request(pk)))
    response = StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="privacy-request-{pk}.csv"'
    response["Cache-Control"] = "no-store, private"
    return response


@require_http_methods(["GET", "POST"])
@requires("privacy.decide")
def give_up(request: HttpRequest, pk: int, receipt: int) -> HttpResponse:
    """This platform cannot be told: on record, with a name and a reason."""
    row = get_object_or_404(PrivacyReceipt.objects.select_related("request"), pk=receipt, request=pk)
    if row.state in erasures.SETTLED:
        messages.warning(request, "It is settled already.")
        return redirect("qa:privacy-request", pk)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            erasures.give_up(actor=actor(request), receipt=row, reason=form.cleaned_data["reason"])
        except Refused as refused:
            form.add_error("reason", refused.problems[0].words)
        else:
            messages.success(request, f"Given up on {row.destination}, on record.")
            return redirect("qa:privacy-request", pk)
    return page(request, "privacy/give_up.html", {"form": form, "receipt": row}, status=422 if form.is_bound else 200)


@require_http_methods(["GET", "POST"])
@requires("privacy.decide")
def lift(request: HttpRequest, pk: int) -> HttpResponse:
    """A suppression ends: the identifiers may come in again, as somebody new."""
    row = _request(pk)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            intake.in_transaction(lambda: asking.lift(row, actor=actor(request), reason=form.cleaned_data["reason"]))
        except asking.NotAsked as refused:
            form.add_error(None, str(refused))
        else:
            messages.success(request, "Lifted. They may come in again, as somebody new.")
            return redirect("qa:privacy-request", pk)
    if row.kind != Kind.SUPPRESSION or row.state == PrivacyRequest.State.LIFTED:
        raise Http404
    return page(request, "privacy/lift.html", {"form": form, "row": row}, status=422 if form.is_bound else 200)


def _request(pk: int) -> PrivacyRequest:
    return get_object_or_404(PrivacyRequest.objects.select_related("requested_by", "import_file", "lifted_by"), pk=pk)


def _number(request: HttpRequest) -> int | None:
    """The person whose page it was begun on. Raises Http404."""
    text = request.POST.get("person", "") or request.GET.get("person", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or not privacy_page.is_live(int(text[:12])):
        raise Http404
    return int(text[:12])
