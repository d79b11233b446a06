"""One audience: what it means, how large it is, how it came to be so; and the buttons that act on it."""

from datetime import timedelta

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from audiences import queries
from audiences.access import requires
from audiences.models import Audience
from audiences.services import audiences
from audiences.views.page import actor, page


@require_GET
@requires("audience.view")
def audience(request: HttpRequest, key: str) -> HttpResponse:
    row = queries.row(key)
    if row is None:
        raise Http404
    counts, published = queries.counts(row.audience), queries.published(row.audience)
    context = {
        "row": row,
        "audience": row.audience,
        "rule": queries.rule_as_json(row.audience),
        "chart": queries.size_chart(row.days, published),
        "narrow_chart": queries.size_chart(row.days, published, narrow=True),
        "days": [(day, count) for day, count in reversed(row.days) if count is not None],
        "counts": counts,
        "running": bool(counts and counts[0].state == counts[0].State.RUNNING),
        "moved": queries.moved_since(row.audience, timezone.now() - timedelta(days=1)),
        "versions": queries.versions(row.audience),
        "suppressions": row.audience.excluded_by.order_by("key"),
        "excludes": row.audience.excludes.order_by("key"),
        "activity": queries.activity("audience", key),
    }
    return page(request, "audiences/audience.html", context, fragment=_part(request))


@require_POST
@requires("audience.refresh")
def count(request: HttpRequest, key: str) -> HttpResponse:
    """Have it counted now."""
    found = Audience.objects.filter(key=key).first()
    if found is None:
        raise Http404
    try:
        audiences.ask_refresh(actor=actor(request), audience=found)
    except audiences.AudienceRefused as refused:
        messages.error(request, f"Not counted: {refused}.")
    else:
        messages.success(request, "It is being counted. This page shows the new number when it is there.")
    return redirect("qa:audience", key)


def _part(request: HttpRequest) -> str:
    """Which part htmx asks for: the numbers while a count runs."""
    return "numbers" if request.headers.get("HX-Target") == "numbers" else ""
