"""A change before it goes live: what it says, whom it moves, what it disturbs, in which way it is published, and a second person's word on it."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from audiences import impact, jobs, owners, replacements, versions
from audiences.access import may, requires
from audiences.models import Audience, Review, SegmentVersion, Workspace
from audiences.services import gate, locks, measurements, naming, reviews
from audiences.services import replacements as replacing
from audiences.services import versions as publishing
from audiences.services.audiences import AudienceRefused
from audiences.views.page import actor, page, undoable, zone_of
from audiences.views.versions import told
from destinations.services.replacements import TASK as REPLACE
from qa import impact as reach
from qa.views.replacements import day_begins

State = SegmentVersion.State
LENGTH = 2_000
CHANGED = "The draft has been changed since you opened this page. Look again."
STALE = ("seen", "moved")


@require_GET
@requires("audience.view")
def review(request: HttpRequest, key: str) -> HttpResponse:
    """The open version of this audience, or the one that `version` names."""
    audience, asked = _audience(key), request.GET.get("version", "")
    if _is_number(asked) and (moved := replacements.moved_to(audience, int(asked))):
        return redirect(f"{reverse('qa:review', args=[moved])}?version={asked}")
    return _page(request, audience)


@require_POST
@requires("audience.publish")
def publish(request: HttpRequest, key: str) -> HttpResponse:
    """Have it go live in its place (at the end of the test that goes on, if there is one), or beside what is live."""
    audience, found = _posted(request, key)
    if found.state == State.PUBLISHED:
        messages.info(request, f"v{found.number} is live already.")  # the button was pressed twice
        return redirect("audiences:version", found.audience.key, found.number)
    if request.POST.get("sha256") != found.sha256:
        return _refused(request, audience, CHANGED, 409)
    before, reason, seen = audience.live_version, _text(request, "reason"), measurements.deciding(found)
    try:
        way = _way(request)
        if way is not None:
            made = replacing.publish(actor=actor(request), version=found, reason=reason, retires_at=way, impact=seen)
        else:
            made = publishing.publish_when_free(actor=actor(request), version=found, reason=reason, impact=seen)
    except AudienceRefused as refused:
        return _refused(request, audience, refused)
    if way is not None and made.state == State.PUBLISHED:
        return _published_beside(request, made, audience)
    return told(request, audience, made, before)


@require_POST
@requires("audience.edit")
def ask(request: HttpRequest, key: str) -> HttpResponse:
    audience, found = _posted(request, key)
    if request.POST.get("sha256") != found.sha256:
        return _refused(request, audience, CHANGED, 409)
    seen = measurements.deciding(found)
    try:
        reviews.ask(
            actor=actor(request),
            version=found,
            reason=_text(request, "reason"),
            impact=seen,
            retires_old_at=_way(request),
        )
    except AudienceRefused as refused:
        return _refused(request, audience, refused)
    messages.success(request, f"v{found.number} is in review. Whoever may approve it sees it on their home page.")
    return _back(audience, found)


@require_POST
@requires("audience.publish")
def approve(request: HttpRequest, key: str) -> HttpResponse:
    """Approve what was seen, and have it go live."""
    audience, found = _posted(request, key)
    if found.state == State.PUBLISHED:
        messages.info(request, f"v{found.number} is live already.")  # the button was pressed twice
        return redirect("qa:review", key)
    known, saw = impact.unseal(request.POST.get("saw", ""), found)
    if not known:
        return _refused(request, audience, "It has been changed since you opened this page. Look again.", 409)
    before, alone = audience.live_version, found.author_id == actor(request).pk
    seen = measurements.deciding(found)
    try:
        made = reviews.approve(
            actor=actor(request),
            version=found,
            typed=request.POST.get("typed", "")[:300],
            words=_text(request, "words"),
            impact=seen,
            saw=saw,
            retires_old_at=_way(request),
        )
    except AudienceRefused as refused:
        return _refused(request, audience, refused)
    how = "self-approved" if alone else "approved"
    if made.state == State.PUBLISHED and made.audience_id != audience.pk:
        return _published_beside(request, made, audience, how=f"{how} and ")
    if made.publish_at is not None:
        messages.success(request, f"v{made.number} is {how}. It goes live when the test ends.")
    elif made.state != State.PUBLISHED:
        messages.warning(request, "People have moved meanwhile: it is in review again, with the figures of now.")
    elif before is None:
        messages.success(request, f"v{made.number} is {how} and live. It is being counted.")
    else:
        words = f"v{made.number} is {how} and live. For ten minutes it can be taken back."
        undoable(request, words, reverse("qa:undo-review", args=[key]), seen=str(made.number))
    return redirect("qa:review", key)


@require_POST
@requires("audience.publish")
def send_back(request: HttpRequest, key: str) -> HttpResponse:
    audience, found = _posted(request, key)
    try:
        reviews.send_back(actor=actor(request), version=found, words=_text(request, "words"))
    except AudienceRefused as refused:
        return _refused(request, audience, refused, field="back")
    messages.success(request, f"v{found.number} is sent back. It is a draft again, with your words on it.")
    return _back(audience, found)


@require_POST
@requires("audience.edit")
def withdraw(request: HttpRequest, key: str) -> HttpResponse:
    audience, found = _posted(request, key)
    try:
        reviews.withdraw(actor=actor(request), version=found)
    except AudienceRefused as refused:
        messages.info(request, f"Nothing was withdrawn: {refused}.")
    else:
        messages.success(request, f"v{found.number} is a draft again. Nobody is asked.")
    return _back(audience, found)


@require_POST
@requires("audience.publish")
def undo(request: HttpRequest, key: str) -> HttpResponse:
    """Within ten minutes: what was live before, again."""
    audience = _audience(key)
    seen = request.POST.get("seen", "")
    number = int(seen) if _is_number(seen) else 0
    try:
        made = reviews.take_back(actor=actor(request), audience=audience, seen=number)
    except AudienceRefused as refused:
        messages.error(request, f"Not taken back: {refused}.")
    else:
        messages.success(request, f"Taken back: v{made.number} says what was live before. It is being counted.")
    return redirect("qa:review", key)


def _page(request: HttpRequest, audience: Audience, *, status: int = 200, **more: Any) -> HttpResponse:
    version = _shown(request, audience)
    context: dict[str, Any] = {
        "audience": audience,
        "version": version,
        "undo": _undo(audience),
        "standing": replacements.standing(audience),
        "past": Review.objects.filter(version__audience=audience)
        .exclude(state=Review.State.OPEN)
        .select_related("version", "asked_by", "decided_by")
        .order_by("-decided_at")[:8],
        "limit": gate.limit_percent(),
        **more,
    }
    if version is not None:
        context |= _of_version(request, audience, version)
    return page(request, "review/review.html", context, fragment="decision", status=status)


def _of_version(request: HttpRequest, audience: Audience, version: SegmentVersion) -> dict[str, Any]:
    user = actor(request)
    looked = measurements.look(version)
    measured = looked.impact
    why = "" if looked.counting else gate.why(audience, measured.figures if measured else None)
    asked = version.reviews.filter(state=Review.State.OPEN).select_related("asked_by").first()
    compared = versions.compare(audience, version.number)
    assert compared is not None
    others = list(gate.approvers(version.author_id))
    context: dict[str, Any] = {
        "compared": compared,
        "against": compared.against,
        "impact": measured,
        "trouble": looked.trouble,
        "counting": looked.counting,
        "why": why,
        "asked": asked,
        "reach": reach.of(audience),
        "named": naming.name_after(audience, version),
        "missing": owners.missing(audience),
        "lock": locks.current(audience),
        "broken": None,
        "approvers": others,
        "may_decide": may(user, "audience.publish") and reviews.may_approve(user, version),
        "alone": reviews.alone(user, version),
        "mine": version.author_id == user.pk,
        "needs": bool(why or asked),
        "saw": impact.seal(
            version.sha256,
            audience.live_version_id,
            measured.figures if measured else None,
            version.retires_old_at if asked else None,
        ),
        "then": gate.seen(asked) if asked else None,
    }
    if audience.live_version is not None and version.publish_at is None:
        context |= _ways(request, audience, version)
    if measured is not None:
        context["overlaps"] = impact.overlaps(audience, measured)
        if may(user, "person.view"):
            context["entering"] = impact.some_of(measured.entering)
            context["leaving"] = impact.some_of(measured.leaving)
    return context


def _ways(request: HttpRequest, audience: Audience, version: SegmentVersion) -> dict[str, Any]:
    """In which ways it can be published, what each means, and which is chosen."""
    today = timezone.now().astimezone(_zone(request)).date()
    return {
        "planned": replacements.successor(audience, version),
        "beside": request.POST.get("how") == "beside",
        "retires_on": request.POST.get("retires_on", "")[:30] or (today + replacements.USUAL).isoformat(),
        "earliest": (today + timedelta(days=1)).isoformat(),
        "latest": (today + replacing.LONGEST).isoformat(),
    }


def _way(request: HttpRequest) -> datetime | None:
    """When the old one is to retire, where it is to be published beside: the beginning of that day, where the reader is. None: in its place.
    Raises AudienceRefused."""
    if request.POST.get("how") != "beside":
        return None
    return day_begins(request.POST.get("retires_on", ""), _zone(request))


def _published_beside(request: HttpRequest, made: SegmentVersion, old: Audience, how: str = "") -> HttpResponse:
    """Its connections are copied by a job, which is asked to hurry."""
    jobs.ask(REPLACE, "", queue="sync")
    words = f"v{made.number} is {how}live as {made.audience.key}, beside {old.key}, and is being counted."
    messages.success(request, words)
    return redirect("qa:replacement", made.audience.key)


def _zone(request: HttpRequest) -> ZoneInfo:
    return zone_of(request.user, Workspace.objects.first())


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _shown(request: HttpRequest, audience: Audience) -> SegmentVersion | None:
    """The version that was asked for, while it is open; else the one in review, else the draft."""
    if audience.archived_at is not None:
        return None
    rows = audience.versions.filter(state__in=(State.DRAFT, State.IN_REVIEW)).select_related("author", "published_by")
    asked = request.POST.get("version") or request.GET.get("version", "")
    if asked:
        if not _is_number(asked):
            raise Http404
        found = rows.filter(number=int(asked)).first()
        number = int(asked)
        if found is not None or audience.versions.filter(number=number).exists():
            return found
        if replacements.moved_to(audience, number):
            return None
        raise Http404
    return max(rows, key=lambda row: (row.state == State.IN_REVIEW, row.number)) if rows else None


def _undo(audience: Audience) -> dict[str, Any] | None:
    """What went live a moment ago, how it was approved, and until when it can be taken back."""
    live = audience.live_version
    before = reviews.undoable(audience)
    if live is None or before is None or live.published_at is None or audience.archived_at is not None:
        return None
    review = live.reviews.filter(state=Review.State.APPROVED).select_related("decided_by").first()
    return {"live": live, "before": before, "until": live.published_at + gate.UNDO, "review": review}


def _refused(
    request: HttpRequest, audience: Audience, why: AudienceRefused | str, status: int = 422, *, field: str = ""
) -> HttpResponse:
    """The page again, with what was typed and why it was not done."""
    typed = {name: request.POST.get(name, "")[:LENGTH] for name in ("reason", "typed", "words")}
    if field:
        typed = {field: typed["words"]}
    if isinstance(why, str):
        return _page(request, audience, status=status, errors=[why], **typed)
    beside: dict[str, list[str]] = {}
    errors = []
    for problem in why.problems:
        name = "words" if problem.path == "reason" and not request.POST.get("reason") else problem.path
        if name in ("typed", "words", "retires_at") and not field:
            beside.setdefault(f"{name}_errors", []).append(_sentence(problem.words))
        elif problem.path == "reason":
            beside.setdefault(f"{field or 'reason'}_errors", []).append(_sentence(problem.words))
        else:
            named = problem.path in ("owners", "test", "seen", "moved", "")
            errors.append(_sentence(problem.words if named else str(problem)))
    if any(problem.path in STALE for problem in why.problems):
        status = 409
    return _page(request, audience, status=status, errors=errors, **typed, **beside)


def _posted(request: HttpRequest, key: str) -> tuple[Audience, SegmentVersion]:
    number = request.POST.get("version", "")
    if not _is_number(number):
        raise Http404
    audience = _audience(key)
    here = audience.versions.select_related("audience").filter(number=int(number)).first()
    if here is None and (moved := replacements.moved_to(audience, int(number))):  # the button was pressed twice
        return audience, SegmentVersion.objects.select_related("audience").get(audience__key=moved, number=int(number))
    if here is None:
        raise Http404
    return audience, here


def _audience(key: str) -> Audience:
    named = ("live_version", *(role.field for role in owners.ROLES))
    return get_object_or_404(Audience.objects.select_related(*named), key=key)


def _back(audience: Audience, version: SegmentVersion) -> HttpResponse:
    return redirect(f"{reverse('qa:review', args=[audience.key])}?version={version.number}")


def _text(request: HttpRequest, name: str) -> str:
    return request.POST.get(name, "")[:LENGTH]


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
