"""An audience's record: choose a period and what, wait for the file, download it. It is made by a job."""

from django.contrib import messages
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from audiences.access import requires
from audiences.models import Audience, Workspace
from audiences.queries import activity
from audiences.views.page import STOP_POLLING, actor, page, wants_fragment, zone_of
from destinations.models import RecordExport
from destinations.record.forms import ExportForm
from destinations.services import Refused
from destinations.services import record as service

_UNDER_WAY = (RecordExport.State.WAITING, RecordExport.State.MAKING)


@require_GET
@requires("record.export")
def record_page(request: HttpRequest, key: str) -> HttpResponse:
    return _page(request, get_object_or_404(Audience, key=key))


@require_POST
@requires("record.export")
def ask(request: HttpRequest, key: str) -> HttpResponse:
    audience, form = get_object_or_404(Audience, key=key), ExportForm(request.POST)
    if form.is_valid():
        start_us, end_us = form.period(zone_of(request.user, Workspace.objects.first()))
        chosen = {name: form.cleaned_data[name] for name in ("tables", "file_format")}
        try:
            service.ask(actor=actor(request), audience=audience, start_us=start_us, end_us=end_us, **chosen)
        except Refused as refused:
            for problem in refused.problems:
                words = problem.words[:1].upper() + problem.words[1:] + "."
                form.add_error(problem.path if problem.path in form.fields else None, words)
        else:
            messages.success(request, "The file is being made. It is here when it is ready.")
            return redirect("destinations:record", key)
    return _page(request, audience, form, status=422)


@require_POST
@requires("record.export")
def download(request: HttpRequest, key: str, pk: int) -> HttpResponseBase:
    """The file, streamed. It names people, so it is by permission and on record."""
    export = get_object_or_404(RecordExport.objects.select_related("audience"), pk=pk, audience__key=key)
    try:
        path = service.download(actor=actor(request), export=export)
    except Refused as refused:
        messages.error(request, str(refused))
        return redirect("destinations:record", key)
    response = FileResponse(path.open("rb"), as_attachment=True, filename=f"record-{key}-{export.pk}.zip")
    response["Cache-Control"] = "no-store, private"
    return response


@require_POST
@requires("record.export")
def discard(request: HttpRequest, key: str, pk: int) -> HttpResponse:
    export = get_object_or_404(RecordExport.objects.select_related("audience"), pk=pk, audience__key=key)
    service.discard(actor=actor(request), export=export)
    messages.success(request, "The file is gone.")
    return redirect("destinations:record", key)


def _page(request: HttpRequest, audience: Audience, form: ExportForm | None = None, status: int = 200) -> HttpResponse:
    exports = RecordExport.objects.filter(audience=audience).select_related("requested_by").order_by("-pk")[:20]
    busy = any(export.state in _UNDER_WAY for export in exports)
    context = {
        "audience": audience,
        "exports": exports,
        "busy": busy,
        "form": form or ExportForm.blank(timezone.localdate(timezone=zone_of(request.user, Workspace.objects.first()))),
        "activity": [line for line in activity("audience", audience.key, limit=60) if line.verb.startswith("record.")][
            :10
        ],
        "kept_days": service.KEPT.days,
    }
    polled = wants_fragment(request) and not busy
    return page(request, "record/record.html", context, fragment="exports", status=STOP_POLLING if polled else status)
