"""Mail: what was sent to whom and what waits, one mail as its reader sees it, a test alert; and what was spent, for a baseline."""

from csp.decorators import csp
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.http import require_GET, require_POST

from audiences.access import requires
from audiences.views.page import actor, page, paginated
from qa import alert_forms, alerts, baseline, outbox
from qa.models import Baseline, Mail

STATES = (("", "All"), ("waiting", "Waiting"), ("sent", "Sent"), ("folded", "In a digest"), ("failed", "Given up"))
# A mail styles itself, as mail must, and may load nothing and run nothing.
OWN_POLICY = {
    "default-src": ["'none'"],
    "style-src": ["'unsafe-inline'"],
    "base-uri": ["'self'"],
    "form-action": ["'none'"],
    "frame-ancestors": ["'self'"],
    "sandbox": ["allow-popups", "allow-popups-to-escape-sandbox"],
}


@require_GET
@requires("mail.view")
def list_(request: HttpRequest) -> HttpResponse:
    state = request.GET.get("state", "")
    state = state if state in Mail.State.values else ""
    rows = Mail.objects.select_related("incident", "digest").defer("text", "html", "digest__text", "digest__html")
    rows = rows.filter(state=state) if state else rows
    context = {
        "rows": paginated(request, rows.order_by("-created_at", "-pk"), 30),
        "state": state,
        "states": STATES,
        "waiting": Mail.objects.filter(state=Mail.State.WAITING, attempts__gt=0).order_by("-attempts").first(),
        "failed": Mail.objects.filter(state=Mail.State.FAILED).exists(),
        **_where(),
    }
    return page(request, "mail/list.html", context, fragment="results")


@require_GET
@requires("mail.view")
def mail(request: HttpRequest, pk: int) -> HttpResponse:
    row = _mail(pk)
    context = {
        "mail": row,
        "sender": settings.DEFAULT_FROM_EMAIL,
        "folded": row.folded.defer("text", "html").order_by("pk"),
        "thread": Mail.objects.filter(incident=row.incident_id).exclude(pk=pk).defer("text", "html").order_by("pk")
        if row.incident_id
        else [],
        "file": outbox.file_name(outbox.message(row)) if outbox.to_files() else "",
        **_where(),
    }
    return page(request, "mail/mail.html", context)


@require_GET
@requires("mail.view")
@xframe_options_sameorigin
@csp(OWN_POLICY)  # type: ignore[arg-type] # its stub knows of no view with a number
def rendered(request: HttpRequest, pk: int) -> HttpResponse:
    """Its HTML alone, for the frame that shows it."""
    response = HttpResponse(_mail(pk).html)
    response["Cache-Control"] = "no-store, private"
    return response


@require_POST
@requires("mail.test")
def again(request: HttpRequest, pk: int) -> HttpResponse:
    """Try one that waits, or was given up, now."""
    row = _mail(pk)
    if row.state in (Mail.State.WAITING, Mail.State.FAILED):
        outbox.try_again(row)
        messages.success(request, "It is tried again now.")
    else:
        messages.info(request, "It has gone out already.")
    return redirect("qa:mail", pk)


@require_POST
@requires("mail.test")
def test_alert(request: HttpRequest) -> HttpResponse:
    """Send the reader a mail as alerts come."""
    row = alerts.send_test(actor=actor(request))
    where = "It is a file of the outbox" if outbox.to_files() else f"It is on its way to {row.to}"
    messages.success(request, f"{where}: this is how it looks.")
    return redirect("qa:mail", row.pk)


@require_POST
@requires("audience.edit")
def spend(request: HttpRequest, pk: int) -> HttpResponse:
    """What was spent in a week when a connection went live."""
    row = get_object_or_404(Baseline.objects.select_related("mapping__audience"), pk=pk)
    form = alert_forms.SpendForm(request.POST)
    if form.is_valid():
        try:
            baseline.enter_spend(actor=actor(request), baseline=row, amount=form.cleaned_data["amount"])
        except baseline.BaselineRefused as refused:
            messages.info(request, str(refused))
        else:
            messages.success(request, "The baseline says now what was spent in a week.")
    else:
        messages.error(
            request, f"Not kept: {' '.join(str(words) for errors in form.errors.values() for words in errors)}"
        )
    return redirect(f"{reverse('qa:audience', args=[row.mapping.audience.key])}#baseline")


def _where() -> dict[str, object]:
    return {"to_files": outbox.to_files(), "folder": "outbox" if outbox.to_files() else ""}


def _mail(pk: int) -> Mail:
    return get_object_or_404(Mail.objects.select_related("incident__audience", "digest"), pk=pk)
