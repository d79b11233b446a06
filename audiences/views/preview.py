"""The live preview of a rule under way: a panel beside the editor, and a page of its own that needs no scripts.

Looking at the page counts nothing and changes nothing; counting is a POST. A question that a newer one has overtaken gets no answer (204).
"""

import logging
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_http_methods

from audiences import preview, vocabulary
from audiences.access import may, requires
from audiences.models import Audience, SegmentVersion
from audiences.people.engines.base import Stopped, UnreadableLake
from audiences.segments import evaluate, explain, grammar, outline, outline_items
from audiences.segments.tree import Node
from audiences.services import previews, versions
from audiences.services.previews import Last, Question
from audiences.views.page import actor, page
from audiences.vocabulary import Problem

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """The rule that is asked about, and what speaks against counting it. `tree` None: it is not finished, or there is none.

    `unfinished`: what is missing or wrong in the fields, each said once.
    """

    tree: Node | None
    problems: tuple[Problem, ...] = ()
    unfinished: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        return explain.sentence(self.tree) if self.tree is not None else ""


@require_http_methods(["GET", "POST"])
@requires("audience.edit")
def preview_page(request: HttpRequest, key: str) -> HttpResponse:
    """GET: the page, from where it is counted. POST: the rule in the editor's form counted, or what was asked last (`asked` is its number),
    or what is stored. With `recount` on the data as it is now; with `look`, to see whether it has been counted in the background."""
    audience = get_object_or_404(Audience.objects.select_related("live_version"), key=key)
    if request.method == "GET":
        return _panel(request, audience, _stored(audience))
    last = previews.last(actor=actor(request), audience=audience) if "asked" in request.POST else None
    if last is not None and request.POST["asked"] != str(last.asked):
        last = None  # something else has been asked since, perhaps from another window
    look = request.POST.get("look")
    if look and last is not None:
        return _looked(request, audience, last)
    if look == "by-itself":
        return HttpResponse(status=204)
    if f"{outline_items.ROOT}.kind" in request.POST:
        try:
            asked = _edited(audience, outline.of_post(request.POST))
        except ValueError as error:
            asked = Asked(None, unfinished=(f"{str(error)[:1].upper()}{str(error)[1:]}.",))
    else:
        asked = _checked(audience, vocabulary.rule(last.segment)) if last is not None else _stored(audience)
    if asked.tree is None or asked.problems:
        return _panel(request, audience, asked, done=True)
    recount = "recount" in request.POST
    question = previews.ask(actor=actor(request), audience=audience, tree=asked.tree, recount=recount)
    return _answered(request, audience, asked, question)


def _looked(request: HttpRequest, audience: Audience, last: Last) -> HttpResponse:
    """Whether what was asked last is counted by now."""
    asked = _checked(audience, vocabulary.rule(last.segment))
    if last.question is None or last.trouble:
        return _panel(request, audience, asked, number=last.asked, trouble=last.trouble or preview.LET_GO)
    if last.in_background:
        return _panel(request, audience, asked, number=last.asked, late=True)
    return _answered(request, audience, asked, last.question)


def _answered(request: HttpRequest, audience: Audience, asked: Asked, question: Question) -> HttpResponse:
    assert asked.tree is not None
    shown: dict[str, Any] = {"number": question.asked}
    try:
        shown["answer"] = preview.answer(question, audience, asked.tree, people=may(request.user, "person.view"))
    except Stopped as stopped:
        if str(stopped) == previews.NEWER:
            return HttpResponse(status=204)
        previews.hand_over(question)
        shown["late"] = True
    except (UnreadableLake, grammar.Refused, evaluate.Unanswerable) as error:
        shown["trouble"] = preview.words_of(error)
    except Exception:
        log.exception("a preview broke off", extra={"audience": audience.key})
        shown["trouble"] = preview.BROKEN_OFF
    return _panel(request, audience, asked, **shown)


def _stored(audience: Audience) -> Asked:
    """The draft as it stands in the editor; where there is none, the live version."""
    draft = audience.versions.filter(state__in=versions.OPEN).order_by("-number").first()
    version: SegmentVersion | None = draft or audience.live_version
    if version is None:
        return Asked(None)
    if version.outline is not None:
        return _edited(audience, version.outline)
    return _checked(audience, vocabulary.rule(version.segment))


def _edited(audience: Audience, edited: outline.Item) -> Asked:
    tree, problems = outline.tree_of(edited)
    if tree is None:
        return Asked(None, unfinished=tuple(dict.fromkeys(problem.words for problem in problems)))
    return _checked(audience, tree)


def _checked(audience: Audience, tree: Node) -> Asked:
    return Asked(tree, versions.problems_of(audience, tree))


def _panel(request: HttpRequest, audience: Audience, asked: Asked, **shown: Any) -> HttpResponse:
    context = {"audience": audience, "asked": asked, **shown}
    return page(request, "editor/preview.html", context, fragment="panel")
