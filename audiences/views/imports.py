"""Files in: upload, say which column is what, watch it being read, see what was refused and why."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from audiences import queries, spreadsheets
from audiences.access import may, requires
from audiences.forms import ColumnsForm, UploadForm
from audiences.models import ImportFile, RefusedRow
from audiences.people import backlog
from audiences.people import imports as files
from audiences.services import trail
from audiences.views.page import STOP_POLLING, actor, page, paginated, wants_fragment

ENDED = (ImportFile.State.DONE, ImportFile.State.CANCELLED, ImportFile.State.FAILED)


@require_GET
@requires("import.view")
def imports(request: HttpRequest) -> HttpResponse:
    waiting = backlog.look()
    rows = paginated(request, ImportFile.objects.select_related("created_by").order_by("-pk"), 25)
    context = {
        "rows": rows,
        "refused_calls": RefusedRow.objects.filter(import_file=None).count(),
        "busy": any(row.state not in ENDED for row in rows),
        "backlog": waiting,
        "late": waiting.late(timezone.now()),
    }
    return page(request, "imports/list.html", context, fragment="results")


@require_http_methods(["GET", "POST"])
@requires("import.run")
def upload(request: HttpRequest) -> HttpResponse:
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        sent = form.cleaned_data["file"]
        suffix = "".join(
            Path(sent.name.lower()).suffixes[-2:]
            if sent.name.lower().endswith(".gz")
            else [Path(sent.name.lower()).suffix]
        )
        token = secrets.token_hex(8)
        path = files.uploads() / f"{token}{suffix}"
        with path.open("wb") as kept:
            for chunk in sent.chunks():
                kept.write(chunk)
        try:
            files.inspect(path, 1)
        except files.ImportRefused as refused:
            path.unlink()
            form.add_error("file", str(refused))
        else:
            waiting = request.session.get("uploads", {})
            waiting[token] = {"file": path.name, "kind": form.cleaned_data["kind"], "name": Path(sent.name).name[:255]}
            request.session["uploads"] = waiting
            return redirect("audiences:columns", token)
    return page(request, "imports/upload.html", {"form": form}, status=422 if request.method == "POST" else 200)


@require_http_methods(["GET", "POST"])
@requires("import.run")
def columns(request: HttpRequest, token: str) -> HttpResponse:
    """Between upload and reading: which column is what."""
    waiting = request.session.get("uploads", {}).get(token)
    path = files.uploads() / waiting["file"] if waiting else None
    if waiting is None or path is None or not path.exists():
        messages.error(request, "This upload is no longer here. Choose the file again.")
        return redirect("audiences:upload")
    seen = files.inspect(path)
    form = ColumnsForm(request.POST or None, kind=waiting["kind"], columns=seen.names)
    if request.method == "POST" and form.is_valid():
        try:
            started = files.start(
                path,
                waiting["kind"],
                form.mapping(),
                event_name=form.cleaned_data.get("event_name", ""),
                name=waiting["name"],
                actor=actor(request),
            )
        except files.ImportRefused as refused:
            form.add_error(None, str(refused))
        else:
            if started.state == ImportFile.State.DONE:
                path.unlink(missing_ok=True)
                messages.warning(request, "This very file was taken in before. Nothing was counted twice.")
            _forget(request, token)
            return redirect("audiences:import", started.pk)
    samples = [
        (name, [row[index] for row in seen.sample[:3] if index < len(row)]) for index, name in enumerate(seen.names)
    ]
    context = {"form": form, "waiting": waiting, "samples": samples[:200], "columns": len(seen.names), "token": token}
    return page(request, "imports/columns.html", context, status=422 if form.is_bound else 200)


@require_POST
@requires("import.run")
def discard(request: HttpRequest, token: str) -> HttpResponse:
    """An uploaded file that shall not be read after all."""
    waiting = request.session.get("uploads", {}).get(token)
    if waiting:
        (files.uploads() / waiting["file"]).unlink(missing_ok=True)
        _forget(request, token)
    return redirect("audiences:imports")


@require_GET
@requires("import.view")
def import_file(request: HttpRequest, pk: int) -> HttpResponse:
    row = get_object_or_404(ImportFile.objects.select_related("created_by"), pk=pk)
    ended = row.state in ENDED
    context = {
        "row": row,
        "ended": ended,
        "share": None if not row.bytes_total else min(100, 100 * row.bytes_read // row.bytes_total),
        "reasons": queries.refused_by_reason(row),
        "mapping": (row.mapping or {}).get("columns", {}),
        "event_name": (row.mapping or {}).get("event_name", ""),
    }
    polled = wants_fragment(request)
    return page(
        request, "imports/import.html", context, fragment="live", status=STOP_POLLING if polled and ended else 200
    )


@require_POST
@requires("import.run")
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    row = get_object_or_404(ImportFile, pk=pk)
    if row.state in ENDED:
        messages.warning(request, "It had ended already.")
    else:
        files.cancel(row, actor=actor(request))
        messages.success(request, "It stops at its next checkpoint. The rows taken in so far stay.")
    return redirect("audiences:import", pk)


@require_GET
@requires("import.view")
def refused(request: HttpRequest) -> HttpResponse:
    """Refused rows, of one import or of the Track API, masked."""
    number = request.GET.get("import", "")
    chosen = _import(number)
    rows = RefusedRow.objects.select_related("import_file").order_by("-pk")
    rows = rows.filter(import_file=chosen) if chosen else rows.filter(import_file=None) if number == "api" else rows
    context = {
        "rows": paginated(request, rows),
        "chosen": chosen,
        "number": number if chosen or number == "api" else "",
        "may_export": may(request.user, "refused.export"),
    }
    return page(request, "imports/refused.html", context)


@require_POST
@requires("refused.export")
def export_refused(request: HttpRequest) -> HttpResponseBase:
    """Refused rows whole, as CSV. It holds personal data, so it is by permission and on record."""
    number = request.POST.get("import", "")
    chosen = _import(number)
    rows = RefusedRow.objects.select_related("import_file").order_by("pk")
    rows = rows.filter(import_file=chosen) if chosen else rows.filter(import_file=None) if number == "api" else rows
    trail.record(actor(request), "refused.exported", "import", number or "all", after={"rows": rows.count()})
    response = StreamingHttpResponse(_csv(rows), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="refused-{number if chosen else "rows"}.csv"'
    response["Cache-Control"] = "no-store, private"
    return response


def _csv(rows: Any) -> Iterator[str]:
    cells = (
        (row.source, row.import_file.name if row.import_file else "", row.line or "", row.field, row.reason, row.raw)
        for row in rows.iterator(chunk_size=2000)
    )
    return spreadsheets.lines(["source", "file", "line", "field", "reason", "row"], cells)


def _import(number: str) -> ImportFile | None:
    if not number.isascii() or not number.isdigit():
        return None
    found = ImportFile.objects.filter(pk=int(number[:18])).first()
    if found is None:
        raise Http404
    return found


def _forget(request: HttpRequest, token: str) -> None:
    waiting = request.session.get("uploads", {})
    waiting.pop(token, None)
    request.session["uploads"] = waiting
