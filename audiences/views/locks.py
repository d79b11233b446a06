"""The test lock of an audience: in test until a day, made longer, ended, or broken by an admin with a reason."""

from datetime import datetime, time, timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from audiences import queries
from audiences.access import requires
from audiences.audience_forms import BreakLockForm, TestLockForm
from audiences.models import Audience, SegmentVersion, TestLock, Workspace
from audiences.services import locks
from audiences.services.audiences import AudienceRefused
from audiences.views.page import actor, page, zone_of

LOCK_VERBS = ("audience.test_locked", "audience.test_moved", "audience.test_ended", "audience.test_broken")


@require_GET
@requires("audience.view")
def test_lock(request: HttpRequest, key: str) -> HttpResponse:
    return _page(request, _audience(key))


@require_POST
@requires("audience.lock")
def set_lock(request: HttpRequest, key: str) -> HttpResponse:
    """In test until the end of a day, as the day ends where the reader is."""
    audience, form = _audience(key), TestLockForm(request.POST)
    if form.is_valid():
        day = form.cleaned_data["until"]
        zone = zone_of(request.user, Workspace.objects.first())
        try:
            until = datetime.combine(day + timedelta(days=1), time(), tzinfo=zone)
            locks.set_lock(actor=actor(request), audience=audience, until=until, note=form.cleaned_data["note"])
        except AudienceRefused as refused:
            _beside(form, refused)
        except OverflowError:  # the last day that a calendar has
            form.add_error("until", "It must be at most 180 days from now.")
        else:
            messages.success(
                request, f"In test to the end of {day.day} {day:%B %Y}. Until then its rule does not change."
            )
            return redirect("audiences:test-lock", key)
    return _page(request, audience, form=form, status=422)


@require_POST
@requires("audience.lock")
def end_lock(request: HttpRequest, key: str) -> HttpResponse:
    try:
        locks.end_lock(actor=actor(request), audience=_audience(key))
    except AudienceRefused as refused:
        messages.error(request, f"Not ended: {refused}.")
    else:
        messages.success(request, "The test is over. What waited for it is published now.")
    return redirect("audiences:test-lock", key)


@require_POST
@requires("audience.break_lock")
def break_lock(request: HttpRequest, key: str) -> HttpResponse:
    audience, form = _audience(key), BreakLockForm(request.POST)
    if form.is_valid():
        try:
            locks.break_lock(actor=actor(request), audience=audience, reason=form.cleaned_data["reason"])
        except AudienceRefused as refused:
            messages.error(request, f"Not broken: {refused}.")
        else:
            messages.success(
                request, "The lock is broken. Your reason is shown with the audience while its test would have lasted."
            )
        return redirect("audiences:test-lock", key)
    return _page(request, audience, breaking=form, status=422)


def _page(request: HttpRequest, audience: Audience, *, status: int = 200, **forms: Any) -> HttpResponse:
    lock = locks.current(audience)
    zone = zone_of(request.user, Workspace.objects.first())
    today = timezone.now().astimezone(zone).date()
    initial = {"note": lock.note, "until": _last_day(lock, zone)} if lock else {"until": today + timedelta(days=14)}
    form = forms.get("form") or TestLockForm(initial=initial)
    form.fields["until"].widget.attrs |= {
        "min": today.isoformat(),
        "max": (today + locks.LONGEST - timedelta(days=1)).isoformat(),
    }
    waiting = SegmentVersion.objects.filter(audience=audience, publish_at__isnull=False).select_related("published_by")
    context = {
        "audience": audience,
        "lock": lock,
        "broken": None if lock else locks.last_broken(audience),
        "form": form,
        "breaking": forms.get("breaking") or BreakLockForm(),
        "waiting": waiting,
        "may_end": bool(lock and locks.may_end(actor(request), lock)),
        "zone": zone.key.replace("_", " "),
        "activity": [
            entry for entry in queries.activity("audience", audience.key, limit=200) if entry.verb in LOCK_VERBS
        ],
    }
    return page(request, "versions/test.html", context, status=status)


def _last_day(lock: TestLock, zone: Any) -> Any:
    return (lock.until.astimezone(zone) - timedelta(microseconds=1)).date()


def _beside(form: TestLockForm, refused: AudienceRefused) -> None:
    for problem in refused.problems:
        field = problem.path if problem.path in form.fields else None
        words = (
            problem.words
            if field is None
            else f"It {problem.words}"
            if problem.words.startswith("must")
            else problem.words
        )
        form.add_error(field, f"{words}.")


def _audience(key: str) -> Audience:
    return get_object_or_404(Audience, key=key)
