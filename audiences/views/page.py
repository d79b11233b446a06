"""The one way in which views answer with HTML: the whole page, or the part of it that htmx asked for, in the reader's time zone."""

import json
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.cache import patch_vary_headers

from audiences import queries
from audiences.models import User, Workspace

THEMES = ("light", "dark")
STOP_POLLING = 286  # htmx stops asking when it gets this


def page(
    request: HttpRequest,
    template: str,
    context: dict[str, Any] | None = None,
    *,
    fragment: str = "",
    status: int = 200,
) -> HttpResponse:
    """`template` whole; or only its partial `fragment`, with any messages beside it, when htmx asked for a part of a page."""
    workspace = Workspace.objects.first()
    partial = bool(fragment and wants_fragment(request))
    values = {"workspace": workspace, "theme": theme_of(request), **(context or {})}
    if settings.DEMO and not partial and request.user.is_authenticated:
        values.setdefault("work", queries.working())  # the sample shop is filled while one looks around
    with timezone.override(zone_of(request.user, workspace)):
        response = render(request, f"{template}#{fragment}" if partial else template, values, status=status)
        if partial and messages.get_messages(request):
            response.write(render_to_string("components.html#toasts", {"beside": True}, request))
    patch_vary_headers(response, ["HX-Request", "Cookie"])
    response["Cache-Control"] = (
        "no-store, private"  # pages hold people's data, and a browser's cache outlives a sign-out
    )
    return response


def undoable(request: HttpRequest, words: str, url: str, label: str = "Undo", **fields: str) -> None:
    """A message with a button that takes back what it tells of: a POST to `url` with these hidden fields."""
    messages.success(request, words, extra_tags=json.dumps({"url": url, "label": label, "fields": fields}))


def actor(request: HttpRequest) -> User:
    """Who acts, for the services. Only behind @requires, which lets nobody else in."""
    assert isinstance(request.user, User)
    return request.user


def wants_fragment(request: HttpRequest) -> bool:
    """Whether htmx asked for a part. A boosted link or a step back in history wants the whole page."""
    htmx: Any = getattr(request, "htmx", None)
    return bool(htmx) and not htmx.boosted and not htmx.history_restore_request


def zone_of(user: Any, workspace: Workspace | None) -> ZoneInfo:
    name = getattr(user, "timezone", "") or (workspace.timezone if workspace else "") or "UTC"
    return ZoneInfo(name)


def theme_of(request: HttpRequest) -> str:
    """`light` or `dark` as chosen; empty: as the system has it."""
    chosen = request.COOKIES.get("theme", "")
    return chosen if chosen in THEMES else ""


def paginated(request: HttpRequest, rows: Any, size: int = 50) -> Page:
    """The page that the address asks for; a number that does not exist gives the nearest that does."""
    return Paginator(rows, size).get_page(request.GET.get("page"))
