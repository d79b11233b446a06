"""The rule builder: a draft edited in a form that works without scripts. Every press of a button and every change saves it."""

import json
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods
from django_htmx.http import HttpResponseClientRedirect, reswap, retarget, trigger_client_event

from audiences import editing
from audiences.access import requires
from audiences.models import Audience
from audiences.segments import grammar, outline, recipes
from audiences.segments.outline import Item
from audiences.segments.outline_edits import DEEDS, MOVE
from audiences.segments.outline_items import ROOT
from audiences.services import drafts
from audiences.services.audiences import AudienceRefused
from audiences.services.drafts import Conflict, Draft
from audiences.views.page import actor, page, undoable, wants_fragment
from audiences.vocabulary import rule

TEMPLATE, CONFLICT = "editor/editor.html", "editor/conflict.html"


@require_http_methods(["GET", "HEAD", "POST"])
@requires("audience.edit")
def editor(request: HttpRequest, key: str) -> HttpResponse:
    """The draft, or what is live where there is none; posted, it is saved first and then answers what was pressed (`do`)."""
    audience = get_object_or_404(Audience.objects.select_related("live_version"), key=key)
    if audience.archived_at:
        messages.error(request, f"{audience.key} is archived, so its rule does not change any more.")
        return redirect("audiences:versions", key)
    if request.method != "POST":
        return _shown(request, audience, drafts.current(audience), focus=request.GET.get("focus", "")[:200])
    deed, _, place = request.POST.get("do", "").partition(":")
    elsewhere = f"{ROOT}.kind" not in request.POST  # pressed on another page, about the draft as it was shown there
    if elsewhere:
        now = drafts.current(audience)
        if (now.number, now.revision) != (_whole(request, "number"), _whole(request, "revision")):
            messages.warning(request, "The draft has been changed since that page was loaded, so nothing is done.")
            return redirect(request.path)
        edited = now.outline
    else:
        try:
            edited = outline.of_post(request.POST)
        except ValueError as error:
            messages.error(request, f"Not done: {error}. What was saved before stands here.")
            return _shown(request, audience, drafts.current(audience), status=422)
    try:
        draft, focus = _done(request, audience, edited, deed, place)
    except Conflict as conflict:
        return _conflict(request, audience, edited, conflict.now)
    except (AudienceRefused, ValueError) as refused:
        if deed != "paste":
            messages.error(request, f"Not done: {refused}.")
        now = drafts.current(audience)
        return _shown(
            request,
            audience,
            Draft(now.version, edited, now.can_undo, now.can_redo),
            status=422,
            json_error=f"{refused}." if deed == "paste" else "",
        )
    if deed in ("save", "review"):
        shown = editing.of(audience, draft.outline)
        if shown.wrong or (deed == "review" and shown.problems):
            return _shown(request, audience, draft, focus=shown.problems[0].path, status=422)
        if deed == "review":
            return _go(request, reverse("qa:review", args=[key]) if draft.version else "")
    if deed == "template":
        return _go(request, f"{reverse('qa:templates', args=[key])}?{urlencode({'recipe': place[:50]})}")
    if wants_fragment(request):
        answer = _shown(request, audience, draft, focus=focus)
        return trigger_client_event(answer, "rule-changed")
    if deed == "save":
        messages.success(request, "The draft is saved.")
    elif elsewhere and deed == "fix":
        stands = {"number": str(draft.number), "revision": str(draft.revision)}
        if draft.outline == edited:
            messages.info(request, "There is nothing left to be put right there.")
        else:
            undoable(request, "The rule is put right in the draft.", request.path, do="undo", **stands)
    return redirect(f"{request.path}?{urlencode({'focus': focus})}#{focus}" if focus else request.path)


def _done(request: HttpRequest, audience: Audience, edited: Item, deed: str, place: str) -> tuple[Draft, str]:
    """The draft after what was pressed, and where the focus goes. What the form says is saved first, so that undoing finds it."""
    stands = {"number": _whole(request, "number"), "revision": _whole(request, "revision")}
    who, focus = actor(request), ""
    if deed in ("undo", "redo"):
        kept = drafts.save(actor=who, audience=audience, edited=edited, **stands)
        do = drafts.undo if deed == "undo" else drafts.redo
        return do(actor=who, audience=audience, number=kept.number, revision=kept.revision), ""
    if deed in DEEDS or deed == MOVE:
        edited, focus = outline.edited(edited, deed, place)
    elif deed == "live" and audience.live_version is not None:
        edited = outline.of_tree(rule(audience.live_version.segment))
    elif deed == "fix":
        edited = editing.fixed(audience, edited, place)
    elif deed == "paste":
        edited = outline.of_tree(grammar.loads(request.POST.get("json", "")))
    return drafts.save(actor=who, audience=audience, edited=edited, **stands), focus


def _shown(
    request: HttpRequest, audience: Audience, draft: Draft, *, focus: str = "", status: int = 200, json_error: str = ""
) -> HttpResponse:
    shown = editing.of(audience, draft.outline)
    text = json.dumps(grammar.to_json(shown.tree), ensure_ascii=False, indent=2) if shown.tree is not None else ""
    context = {
        "audience": audience,
        "draft": draft,
        "saved": draft.saved,
        "editing": shown,
        "root": shown.root,
        "recipes": recipes.for_purpose(audience.purpose),
        "json": request.POST.get("json", "") if json_error else text,
        "json_error": json_error,
        "focus": editing.focus_of(draft.outline, focus) if focus else "",
        "changed": shown.tree is None
        or audience.live_version is None
        or grammar.sha256(shown.tree) != audience.live_version.sha256,
    }
    return page(request, TEMPLATE, context, fragment="inside", status=status)


def _conflict(request: HttpRequest, audience: Audience, mine: Item, now: Draft) -> HttpResponse:
    """Both, with what each says; what was typed is in the page, and either may be chosen."""
    context: dict[str, Any] = {
        "audience": audience,
        "now": now,
        "saved": now.saved,
        "mine": editing.of(audience, mine),
        "theirs": editing.of(audience, now.outline),
        "form": outline.form_of(mine),
    }
    if not wants_fragment(request):
        return page(request, CONFLICT, context, status=409)
    return reswap(retarget(page(request, CONFLICT, context, fragment="both"), "#editing"), "innerHTML")


def _go(request: HttpRequest, url: str) -> HttpResponse:
    url = url or request.path
    return HttpResponseClientRedirect(url) if wants_fragment(request) else redirect(url)


def _whole(request: HttpRequest, name: str) -> int:
    given = request.POST.get(name, "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 10 else 0
