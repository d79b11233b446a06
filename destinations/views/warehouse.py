"""Settings: the customer's warehouse, where it is, how it stands, loading it and stopping."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from audiences import jobs
from audiences.access import requires
from audiences.models import Job
from audiences.queries import activity
from audiences.views.page import STOP_POLLING, actor, page, wants_fragment
from destinations.connectors.base import ConnectorError
from destinations.record import shape
from destinations.record.forms import WarehouseForm
from destinations.services import Refused
from destinations.services import warehouse as service


@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
@requires("warehouse.edit")
def warehouse_page(request: HttpRequest) -> HttpResponse:
    """How it stands, and the form that names it."""
    row = service.get()
    form = WarehouseForm(
        request.POST or None,
        initial={"schema": row.schema, "cadence_seconds": row.cadence_seconds, "with_events": row.with_events},
    )
    if request.method == "POST" and form.is_valid():
        try:
            service.save(actor=actor(request), **form.cleaned_data)
        except Refused as refused:
            for problem in refused.problems:
                words = problem.words[:1].upper() + problem.words[1:] + "."
                form.add_error(problem.path if problem.path in form.fields else None, words)
        else:
            _check(request)
            return redirect("destinations:warehouse")
    job = Job.objects.filter(task=service.TASK, key=service.KEY).first()
    due = job is not None and row.running and job.due_at is not None and job.due_at <= timezone.now()
    loading = due or (job is not None and job.lease_until is not None)
    context = {
        "warehouse": row,
        "form": form,
        "job": job,
        "loading": loading,
        "rows": [(table.name, row.rows[table.name]) for table in shape.TABLES if table.name in row.rows],
        "activity": activity("warehouse", service.KEY),
    }
    polled = wants_fragment(request) and not loading
    status = STOP_POLLING if polled else 422 if form.is_bound else 200
    return page(request, "settings/warehouse.html", context, fragment="state", status=status)


@require_POST
@requires("warehouse.edit")
def check(request: HttpRequest) -> HttpResponse:
    if service.get().credentials:
        _check(request)
    return redirect("destinations:warehouse")


@require_POST
@requires("warehouse.edit")
def start(request: HttpRequest) -> HttpResponse:
    try:
        service.start(actor=actor(request))
    except Refused as refused:
        messages.error(request, str(refused))
    else:
        messages.success(request, "It is loaded now, and by its cadence from now on.")
    return redirect("destinations:warehouse")


@require_POST
@requires("warehouse.edit")
def stop(request: HttpRequest) -> HttpResponse:
    service.stop(actor=actor(request))
    messages.success(request, "No more loads. What is there stays, people who are erased from now on too.")
    return redirect("destinations:warehouse")


@require_POST
@requires("warehouse.edit")
def empty(request: HttpRequest) -> HttpResponse:
    """Stop, and remove our tables there."""
    try:
        dropped = service.empty(actor=actor(request)) if service.get().credentials else 0
    except ConnectorError as error:
        messages.error(request, str(error))
    except jobs.Busy:
        messages.error(request, "A load is under way. It is the last one; empty it when it has ended.")
    else:
        messages.success(
            request, f"{dropped} tables are gone there." if dropped else "There was nothing of ours there."
        )
    return redirect("destinations:warehouse")


def _check(request: HttpRequest) -> None:
    row = service.check(actor=actor(request))
    if row.state == row.State.CONNECTED:
        messages.success(request, row.state_words)
    else:
        messages.error(request, row.state_words)
