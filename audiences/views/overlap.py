"""Overlap: every pair of audiences on one page, each pair on its own, and people who are in several retargeting audiences."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from audiences import clock, exclusions, overlap, spreadsheets
from audiences.access import requires
from audiences.forms import ExclusionForm
from audiences.models import Audience, User
from audiences.services import exclusions as service
from audiences.services import locks
from audiences.services.audiences import AudienceRefused
from audiences.views.page import STOP_POLLING, actor, page, undoable, wants_fragment

SHOWN = 100  # audiences in the table; a file holds all
LISTED = 60  # pairs in the list beneath it
TABS = ("pairs", "combinations", "waste")
ASKED = 200  # keys that an address may name


@dataclass(frozen=True, slots=True)
class Preset:
    value: str
    label: str
    count: int


@dataclass(frozen=True)
class Selection:
    """What an address asks for. `keys` have been counted, at most SHOWN of `total`, the largest; `uncounted` have not."""

    every: list[overlap.Choice]
    chosen: frozenset[str]  # named one by one; empty: a preset
    only: str
    keys: list[str]
    total: int
    uncounted: list[str]
    unknown: list[str]

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """Key → what the audience is called."""
        return {choice.key: choice.name for choice in self.every}

    @property
    def query(self) -> str:
        """The same selection as an address has it."""
        if self.chosen:
            return urlencode([("a", key) for key in sorted(self.chosen)])
        return urlencode({"only": self.only}) if self.only else ""


@require_GET
@requires("audience.view")
def pairs(request: HttpRequest) -> HttpResponse:
    """The heat map; with `tab=waste` who is in several retargeting audiences; with `tab=combinations` who is in exactly which."""
    tab = request.GET.get("tab", "")
    tab = tab if tab in TABS else "pairs"
    wasteful = tab == "waste"
    found = _selection(request, wasteful=wasteful)
    order = request.GET.get("sort", "")
    context: dict[str, Any] = {
        "selection": found,
        "presets": _presets(found.every, _user(request), wasteful=wasteful),
        "groups": _groups(found.every, wasteful=wasteful),
        "order": order if order in overlap.ORDERS else overlap.ORDERS[0],
        "orders": [("overlap", "Most overlap"), ("size", "Size"), ("name", "Name")],
        "tab": tab,
        "shown": SHOWN,
    }
    if wasteful:
        context["waste"] = overlap.waste(found.keys) if len(found.keys) > 1 else None
    if tab == "combinations":
        context["combined"] = overlap.combinations(found.keys) if len(found.keys) > 1 else None
        context["most"] = overlap.COMBINED
    elif len(found.keys) > 1:
        matrix = overlap.matrix(found.keys).arranged(context["order"])
        listed = matrix.pairs()
        context |= {
            "matrix": matrix,
            "rows": list(zip(range(len(matrix.keys)), matrix.keys, matrix.as_of_us, strict=True)),
            "oldest": min(matrix.as_of_us),
            "newest": max(matrix.as_of_us),
            "pairs": sorted(listed, key=lambda pair: -pair.both)[:25] if wasteful else listed[:LISTED],
            "sharing": len(listed),
            "possible": len(matrix.keys) * (len(matrix.keys) - 1) // 2,
        }
    return page(request, f"overlap/{tab}.html", context)


@require_GET
@requires("audience.view")
def export(request: HttpRequest) -> HttpResponseBase:
    """Every pair of what is chosen, as CSV; nobody's data is in it."""
    found = _selection(request, most=None)
    matrix = overlap.matrix(found.keys).arranged("name")
    response = StreamingHttpResponse(_csv(matrix), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="overlap-{timezone.now():%Y-%m-%d}.csv"'
    response["Cache-Control"] = "no-store, private"
    return response


@require_GET
@requires("audience.view")
def pair(request: HttpRequest, a: str, b: str) -> HttpResponse:
    return _pair(request, a, b)


@require_POST
@requires("audience.publish")
def exclude(request: HttpRequest, a: str, b: str) -> HttpResponse:
    """Leave b's people out of a."""
    audience, other = _two(a, b)
    form = ExclusionForm(request.POST, auto_id=f"{a}-%s")
    if not form.is_valid():
        return _pair(request, a, b, form=form)
    try:
        done = service.exclude(
            actor=actor(request),
            audience=audience,
            other=other,
            seen=form.cleaned_data["seen"],
            reason=form.cleaned_data["reason"],
            when_free=request.POST.get("when") == "free",
        )
    except AudienceRefused as refused:
        for problem in refused.problems:
            form.add_error("reason" if problem.path == "reason" else None, _sentence(problem.words))
        return _pair(request, a, b, form=form)
    if done.again:
        messages.info(request, f"{a} excludes {b} already; nothing was changed.")
    elif done.waits and done.version is not None:
        messages.success(request, f"v{done.version.number} of {a} leaves out {b}. It is published when the test ends.")
    elif done.in_review and done.version is not None:
        words = f"v{done.version.number} of {a} leaves out {b}, and moves so many people that a second person looks at it first. It is in review."
        messages.warning(request, words)
        return redirect("qa:review", a)
    elif done.version is None:
        undoable(request, f"Linked: {a} sends nobody who is in {b}.", _undo(a, b), seen="0")
    else:
        words = f"v{done.version.number} of {a} leaves out {b}. It is being counted."
        undoable(request, words, _undo(a, b), seen=str(done.version.number))
    return redirect("audiences:overlap-cell", a, b)


@require_POST
@requires("audience.publish")
def take_back(request: HttpRequest, a: str, b: str) -> HttpResponse:
    """As it was before b's people were left out of a."""
    audience, other = _two(a, b)
    seen = request.POST.get("seen", "")
    number = int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 10 else 0
    try:
        done = service.take_back(
            actor=actor(request), audience=audience, other=other, seen=number, reason=f"Undone: {b} is in it again"
        )
    except AudienceRefused as refused:
        messages.error(request, f"Not undone: {refused}.")
    else:
        if done.again:
            messages.info(request, f"{a} does not exclude {b}; nothing was changed.")
        elif done.in_review and done.version is not None:
            words = f"v{done.version.number} of {a} lets {b} in again, and moves so many people that a second person looks at it first. It is in review."
            messages.warning(request, words)
            return redirect("qa:review", a)
        elif done.version is None:
            messages.success(request, f"Unlinked: people in {b} may be sent by {a} again.")
        else:
            messages.success(
                request, f"Undone: v{done.version.number} of {a} is as it was before. It is being counted."
            )
    return redirect("audiences:overlap-cell", a, b)


def _pair(request: HttpRequest, a: str, b: str, *, form: ExclusionForm | None = None) -> HttpResponse:
    found = exclusions.pair(a, b)
    if found is None:
        raise Http404
    held = locks.locked_among([side.audience.pk for side in found.sides])
    forms = []
    for offer in found.offers:
        of_it = form if form is not None and offer.audience.key == a else None
        lock = None if offer.link else held.get(offer.audience.pk)
        forms.append((offer, of_it or ExclusionForm.of(offer.audience, offer.other), lock))
    context: dict[str, Any] = {
        "pair": found,
        "offers": forms,
        "show_offers": form is not None or not found.counting,
        "beside": request.headers.get("HX-Target") == "pair",
    }
    if form is not None:
        return page(request, "overlap/pair.html", context, status=422)
    context["polled"] = polled = wants_fragment(request) and request.headers.get("HX-Target") == "pair-live"
    status = STOP_POLLING if polled and not found.counting else 200
    response = page(request, "overlap/pair.html", context, fragment="live" if polled else "", status=status)
    response["HX-Push-Url"] = "false"  # beside the table it opens over the table's own address
    return response


def _selection(request: HttpRequest, *, wasteful: bool = False, most: int | None = SHOWN) -> Selection:
    """`wasteful`: only retargeting audiences, for nobody is bid for twice by the others."""
    every = overlap.choices()
    by_key = {choice.key: choice for choice in every}
    named = list(dict.fromkeys(key[:100].replace("\0", "") for key in request.GET.getlist("a")[:ASKED] if key))
    only = request.GET.get("only", "")
    if named:
        only, asked = "", [by_key[key] for key in named if key in by_key]
    else:
        known = {"mine", *Audience.Purpose.values}
        only = only if only in known else ""
        asked = overlap.of(every, only, _user(request))
    if wasteful:
        asked = overlap.of(asked, Audience.Purpose.RETARGETING)
    counted = sorted((choice for choice in asked if choice.count is not None), key=lambda one: -(one.count or 0))
    return Selection(
        every=every,
        chosen=frozenset(key for key in named if key in by_key),
        only=only,
        keys=[choice.key for choice in counted[:most]],
        total=len(counted),
        uncounted=[choice.key for choice in asked if choice.count is None],
        unknown=[key for key in named if key not in by_key],
    )


def _presets(every: list[overlap.Choice], user: User | None, *, wasteful: bool) -> list[Preset]:
    named = [("", "All"), *Audience.Purpose.choices, ("mine", "Mine")]
    if wasteful:
        every = overlap.of(every, Audience.Purpose.RETARGETING)
        named = [("", "All retargeting"), ("mine", "Mine")]
    found = [Preset(value, label, len(overlap.of(every, value, user))) for value, label in named]
    return [preset for preset in found if preset.count or not preset.value]


def _groups(every: list[overlap.Choice], *, wasteful: bool) -> list[tuple[str, list[overlap.Choice]]]:
    """By purpose, for the list to choose from."""
    groups = [(label, overlap.of(every, value)) for value, label in Audience.Purpose.choices]
    return [group for group in groups if group[1]][: 1 if wasteful else None]


def _csv(matrix: overlap.Matrix) -> Iterator[str]:
    head = [
        "audience",
        "other",
        "people_in_both",
        "size",
        "size_of_other",
        "share",
        "share_of_other",
        "counted",
        "other_counted",
    ]
    moments = [clock.from_us(at).isoformat(timespec="seconds") for at in matrix.as_of_us]
    size = range(len(matrix.keys))
    return spreadsheets.lines(
        head,
        (
            (
                matrix.keys[row], matrix.keys[column], matrix.counts[row][column],
                matrix.counts[row][row], matrix.counts[column][column],
                _rounded(matrix.share(row, column)), _rounded(matrix.share(column, row)),
                moments[row], moments[column],
            )
            for row in size
            for column in size[row + 1 :]
        ),
    )  # fmt: skip


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)


def _two(a: str, b: str) -> tuple[Audience, Audience]:
    if a == b:
        raise Http404
    return get_object_or_404(Audience, key=a), get_object_or_404(Audience, key=b)


def _undo(a: str, b: str) -> str:
    return reverse("audiences:take-back-exclusion", args=[a, b])


def _user(request: HttpRequest) -> User | None:
    return request.user if isinstance(request.user, User) else None


def _sentence(words: str) -> str:
    words = words[:1].upper() + words[1:]
    return words if words.endswith((".", "!", "?")) else f"{words}."
