"""Versions of an audience's rule: the list, two of them side by side, publishing, throwing a draft away, going back."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from audiences import findings, owners, replacements, versions, vocabulary
from audiences.access import requires
from audiences.models import Audience, SegmentVersion
from audiences.segments.lint import Finding
from audiences.services import locks, measurements
from audiences.services import versions as service
from audiences.services.audiences import AudienceRefused
from audiences.views.page import actor, page, undoable

REASON_LENGTH = 2_000


@require_GET
@requires("audience.view")
def versions_page(request: HttpRequest, key: str) -> HttpResponse:
    audience = _audience(key)
    context = {
        "audience": audience,
        "rows": versions.rows(audience),
        "missing": owners.missing(audience),
        **_test(audience),
    }
    return page(request, "versions/list.html", context)


@require_GET
@requires("audience.view")
def version(request: HttpRequest, key: str, number: int) -> HttpResponse:
    """One version beside what was live before it, or beside the one that `against` names."""
    audience = _audience(key)
    if moved := replacements.moved_to(audience, number):
        return redirect("audiences:version", moved, number)
    return _version(request, audience, number)


@require_POST
@requires("audience.publish")
def publish(request: HttpRequest, key: str, number: int) -> HttpResponse:
    """Make a draft live, now or, with `when=free`, at the end of the test."""
    audience, found = _audience(key), _found(key, number)
    reason = request.POST.get("reason", "")[:REASON_LENGTH]
    if found.state == SegmentVersion.State.PUBLISHED:
        messages.info(request, f"v{number} is live already.")  # the button was pressed twice
        return redirect("audiences:version", key, number)
    if request.POST.get("sha256") != found.sha256:
        return _refused(
            request, audience, number, "The draft has been changed since you opened this page. Look again.", 409
        )
    before = audience.live_version
    do = service.publish_when_free if request.POST.get("when") == "free" else service.publish
    try:
        found = do(actor=actor(request), version=found, reason=reason, impact=measurements.deciding(found))
    except AudienceRefused as refused:
        return _refused(request, audience, number, refused)
    return told(request, audience, found, before)


@require_POST
@requires("audience.publish")
def stop_waiting(request: HttpRequest, key: str, number: int) -> HttpResponse:
    service.stop_waiting(actor=actor(request), version=_found(key, number))
    messages.success(request, f"v{number} is a draft again. It is not published by itself.")
    return redirect("audiences:version", key, number)


@require_POST
@requires("audience.edit")
def discard(request: HttpRequest, key: str, number: int) -> HttpResponse:
    found = SegmentVersion.objects.select_related("audience").filter(audience=_audience(key), number=number).first()
    if found is not None:  # else the button was pressed twice
        try:
            service.discard(actor=actor(request), version=found)
        except AudienceRefused as refused:
            messages.error(request, f"Not thrown away: {refused}.")
            return redirect("audiences:version", key, number)
        messages.success(request, f"The draft v{number} is thrown away.")
    return redirect("audiences:versions", key)


@require_POST
@requires("audience.publish")
def roll_back(request: HttpRequest, key: str, number: int) -> HttpResponse:
    """Publish a copy of this version as a new one."""
    audience, found = _audience(key), _found(key, number)
    before, seen = audience.live_version, request.POST.get("seen", "")
    try:
        made = service.go_back(
            actor=actor(request),
            version=found,
            reason=request.POST.get("reason", "")[:REASON_LENGTH],
            seen=int(seen) if seen.isdecimal() and len(seen) < 10 else None,
            when_free=request.POST.get("when") == "free",
        )
    except AudienceRefused as refused:
        status = 409 if any(problem.path == "seen" for problem in refused.problems) else 422
        return _refused(request, audience, number, refused, status)
    return told(request, audience, made, before, copy_of=number)


def _version(request: HttpRequest, audience: Audience, number: int, *, status: int = 200, **more: Any) -> HttpResponse:
    against = request.GET.get("against", "")
    if against and not (against.isdecimal() and len(against) < 10):
        raise Http404
    compared = versions.compare(audience, number, int(against) if against else None)
    if compared is None:
        raise Http404
    context = {
        "audience": audience,
        "findings": _findings(audience, compared.version),
        "compared": compared,
        "version": compared.version,
        "others": [row.version for row in versions.rows(audience) if row.version.number != number],
        "missing": owners.missing(audience),
        "reason": request.POST.get("reason", ""),
        **_test(audience),
        **more,
    }
    return page(request, "versions/version.html", context, status=status)


def _findings(audience: Audience, version: SegmentVersion) -> tuple[Finding, ...]:
    """What is doubtful about a rule that may still be changed before it is live."""
    return findings.of(audience, vocabulary.rule(version.segment)) if version.state in service.OPEN else ()


def _refused(
    request: HttpRequest, audience: Audience, number: int, why: AudienceRefused | str, status: int = 422
) -> HttpResponse:
    """The page again, with what was typed and why it was not done."""
    if isinstance(why, str):
        return _version(request, audience, number, status=status, errors=[why])
    by_path: dict[str, list[str]] = {}
    for problem in why.problems:
        named = problem.path in ("reason", "owners", "test", "seen", "")
        by_path.setdefault(problem.path if named else "rule", []).append(problem.words if named else str(problem))
    errors = [_sentence(words) for path in ("", "seen", "rule", "test") for words in by_path.get(path, ())]
    beside = [_sentence(words) for words in by_path.get("reason", ())]
    return _version(request, audience, number, status=status, errors=errors, reason_errors=beside)


def told(
    request: HttpRequest,
    audience: Audience,
    made: SegmentVersion,
    before: SegmentVersion | None,
    *,
    copy_of: int | None = None,
) -> HttpResponse:
    """What happened; and the way back, which is another new version."""
    what = f", a copy of v{copy_of}," if copy_of else ""
    if made.state == SegmentVersion.State.IN_REVIEW and made.publish_at is None:
        messages.warning(
            request, f"v{made.number}{what} is not live: a second person looks at it first. It is in review."
        )
        return redirect(f"{reverse('qa:review', args=[audience.key])}?version={made.number}")
    if made.publish_at is not None:
        messages.success(request, f"v{made.number}{what} is published when the test ends.")
    elif before is None:
        messages.success(request, f"v{made.number} is live and is being counted, with the 90 days before today.")
    else:
        undoable(
            request,
            f"v{made.number}{what} is live and is being counted.",
            reverse("audiences:roll-back", args=[audience.key, before.number]),
            label=f"Roll back to v{before.number}",
            seen=str(made.number),
            reason=f"Undone: v{made.number} was published by mistake",
        )
    return redirect("audiences:version", audience.key, made.number)


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _test(audience: Audience) -> dict[str, Any]:
    lock = locks.current(audience)
    return {"lock": lock, "broken": None if lock else locks.last_broken(audience)}


def _audience(key: str) -> Audience:
    named = ("live_version", *(role.field for role in owners.ROLES))
    return get_object_or_404(Audience.objects.select_related(*named), key=key)


def _found(key: str, number: int) -> SegmentVersion:
    return get_object_or_404(SegmentVersion.objects.select_related("audience"), audience__key=key, number=number)
