"""Settings, Names, bulk rename: the page is the dry run, and only its button renames what is ticked; an act can be taken back."""

from typing import Any

import orjson
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from audiences.access import requires
from audiences.models import Renaming
from audiences.naming import NamingRefused
from audiences.services import naming
from audiences.services.renames import MOST, Wish
from audiences.views.page import actor, page, undoable
from destinations import renaming
from destinations.services import renames

ACTS = 5  # that the page shows
LONGEST_KEYS = 200  # that an address may name


@require_http_methods(["GET", "POST"])
@requires("audience.edit")
def rename_names(request: HttpRequest) -> HttpResponse:
    """Everybody whose name would change, or (`a`, keys) these; posted, what is ticked is renamed in one act."""
    if request.method == "GET":
        return _page(request, request.GET.getlist("a")[:LONGEST_KEYS])
    wishes = [wish for text in request.POST.getlist("pick")[:MOST] if (wish := _wish(text)) is not None]
    if not wishes:
        return _page(request, status=422, errors=["Nothing is ticked, so nothing was renamed."], ticked=set())
    at_once = "at_once" in request.POST
    reason = request.POST.get("reason", "").replace("\0", "").strip()[:500]
    try:
        made = renames.carry_out(actor=actor(request), wishes=wishes, reason=reason, at_once=at_once)
    except NamingRefused as refused:
        errors = [f"{problem.path}: {problem.words}" if problem.path else problem.words for problem in refused.problems]
        ticked = {wish.key for wish in wishes}
        return _page(request, status=409, errors=errors[:10], ticked=ticked, reason=reason, at_once=at_once)
    count = len(made.names)
    when = "Platforms are told in a moment" if at_once else "Platforms are told at their next sync"
    words = f"{count} audience{'' if count == 1 else 's'} renamed. {when}."
    undoable(request, words, reverse("destinations:undo-rename", args=[made.pk]), "Rename back")
    return redirect("destinations:rename-names")


@require_POST
@requires("audience.edit")
def undo_rename(request: HttpRequest, pk: int) -> HttpResponse:
    """Give the names of before back."""
    get_object_or_404(Renaming, pk=pk)
    try:
        taken = renames.take_back(actor=actor(request), renaming_id=pk)
    except NamingRefused as refused:
        messages.error(request, str(refused))
        return redirect("destinations:rename-names")
    count = len(taken.renamed)
    messages.success(request, f"{count} audience{'' if count == 1 else 's'} renamed back.")
    for key, why in list(taken.left.items())[:10]:
        messages.warning(request, f"{key} keeps its name. {why}")
    return redirect("destinations:rename-names")


def _page(request: HttpRequest, keys: list[str] | None = None, *, status: int = 200, **more: Any) -> HttpResponse:
    planned = renaming.plan(keys or ())
    ready = [one for one in planned if one.ready]
    ticked = more.pop("ticked", {one.key for one in ready})
    context = {
        "convention": naming.current(),
        "rows": [(one, _text(one), one.key in ticked) for one in ready],
        "stuck": [one for one in planned if not one.ready],
        "chosen": keys or [],
        "most": MOST,
        "acts": list(Renaming.objects.select_related("actor", "undone_by").order_by("-pk")[:ACTS]),
        **more,
    }
    return page(request, "naming/bulk.html", context, status=status)


def _text(one: renaming.Planned) -> str:
    """What a ticked box says: this audience, called so, is to be called so."""
    return orjson.dumps([one.key, one.rename.before, one.rename.after]).decode()


def _wish(text: str) -> Wish | None:
    try:
        key, before, after = orjson.loads(text)
    except (orjson.JSONDecodeError, ValueError, TypeError):
        return None
    if not all(isinstance(part, str) for part in (key, before, after)):
        return None
    return Wish(key, before, after)
