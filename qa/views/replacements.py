"""An audience that another one replaces: both side by side, where each is sent, what keeps the old one from retiring, and the date moved."""

from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from audiences import replacements
from audiences.access import requires
from audiences.models import Audience, Replacement, Workspace
from audiences.services import replacements as service
from audiences.services.audiences import AudienceRefused
from audiences.views.page import actor, page, zone_of
from audiences.vocabulary import Problem
from qa import replacing

LENGTH = 2_000


@require_GET
@requires("audience.view")
def replacement(request: HttpRequest, key: str) -> HttpResponse:
    """By the key of either; of an audience that has replaced one and is being replaced too, what replaces it."""
    return _page(request, _audience(key))


@require_POST
@requires("audience.publish")
def move(request: HttpRequest, key: str) -> HttpResponse:
    """The old one retires on another day."""
    audience, row = _posted(request, key)
    zone = zone_of(request.user, Workspace.objects.first())
    try:
        moment = day_begins(request.POST.get("retires_on", ""), zone)
        moved = service.move(actor=actor(request), replacement=row, retires_at=moment)
    except AudienceRefused as refused:
        return _page(request, audience, status=422, errors=_sentences(refused))
    assert moved.retires_at is not None
    day = moved.retires_at.astimezone(zone)
    messages.success(request, f"{moved.old.key} retires at the beginning of {day.day} {day:%B %Y}.")
    return redirect("qa:replacement", key)


@require_POST
@requires("audience.publish")
def keep(request: HttpRequest, key: str) -> HttpResponse:
    """Both go on."""
    audience, row = _posted(request, key)
    reason = request.POST.get("reason", "")[:LENGTH]
    try:
        kept = service.keep(actor=actor(request), replacement=row, reason=reason)
    except AudienceRefused as refused:
        return _page(request, audience, status=422, errors=_sentences(refused), reason=reason)
    messages.success(request, f"{kept.old.key} is kept: it and {kept.new.key} go on side by side.")
    return redirect("qa:replacement", key)


def day_begins(text: str, zone: ZoneInfo) -> datetime:
    """The beginning of a day as a form's field gives it, 2026-12-08. Raises AudienceRefused."""
    try:
        return datetime.combine(date.fromisoformat(text), time(), tzinfo=zone)
    except (ValueError, OverflowError):
        raise AudienceRefused(Problem("retires_at", "choose the day on which the old one retires")) from None


def _page(request: HttpRequest, audience: Audience, *, status: int = 200, **more: Any) -> HttpResponse:
    rows = replacements.all_of(audience)
    shown = replacing.shown(audience, rows)
    today = timezone.now().astimezone(zone_of(request.user, Workspace.objects.first())).date()
    context = {
        "audience": audience,
        "shown": shown,
        "others": [row for row in rows if shown is None or row.pk != shown.row.pk],
        "earliest": (today + timedelta(days=1)).isoformat(),
        "latest": (today + service.LONGEST).isoformat(),
        "usual": (today + replacements.USUAL).isoformat(),
        "retires_on": request.POST.get("retires_on", "")[:30],
        **more,
    }
    return page(request, "replacements/replacement.html", context, status=status, fragment="connections")


def _posted(request: HttpRequest, key: str) -> tuple[Audience, Replacement]:
    number = request.POST.get("replacement", "")
    audience = _audience(key)
    rows = replacements.all_of(audience)
    pk = int(number) if number.isascii() and number.isdigit() and len(number) < 15 else 0
    return audience, get_object_or_404(
        Replacement.objects.select_related("old", "new"), pk__in={row.pk for row in rows} & {pk}
    )


def _audience(key: str) -> Audience:
    return get_object_or_404(Audience.objects.select_related("live_version"), key=key)


def _sentences(refused: AudienceRefused) -> list[str]:
    return [f"{problem.words[:1].upper()}{problem.words[1:]}." for problem in refused.problems]
