"""Spot checks of an audience: the list with its history, one as it is drawn, a note on a person, the name under it."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from audiences.access import requires
from audiences.models import Audience
from audiences.views.page import STOP_POLLING, actor, page, wants_fragment
from destinations.services import Refused
from qa import forms, spot_check, spot_check_page
from qa.models import SpotCheck, SpotCheckPerson


@require_GET
@requires("spot_check.view")
def spot_checks(request: HttpRequest, key: str) -> HttpResponse:
    audience = _audience(key)
    chosen = request.GET.get("connection", "")
    return _list(request, audience, forms.DrawForm(audience, initial={"connection": chosen} if chosen else {}))


@require_POST
@requires("spot_check.run")
def draw(request: HttpRequest, key: str) -> HttpResponse:
    audience = _audience(key)
    form = forms.DrawForm(audience, request.POST)
    if not form.is_valid():
        return _list(request, audience, form, status=422)
    connection, size = form.cleaned_data["connection"], form.cleaned_data["size"]
    try:
        check = spot_check.start(actor=actor(request), audience=audience, connection=connection, size=size)
    except Refused as refused:
        for problem in refused.problems:
            form.add_error(problem.path if problem.path in form.fields else None, problem.words)
        return _list(request, audience, form, status=422)
    return redirect("qa:spot-check", key, check.pk)


@require_GET
@requires("spot_check.view")
def spot_check_(request: HttpRequest, key: str, pk: int) -> HttpResponse:
    check = _check(key, pk)
    drawing = check.state == SpotCheck.State.DRAWING
    stop = wants_fragment(request) and not drawing
    return _one(request, check, status=STOP_POLLING if stop else 200)


@require_POST
@requires("spot_check.run")
def note(request: HttpRequest, key: str, pk: int, person: int) -> HttpResponse:
    check = _check(key, pk)
    row = get_object_or_404(SpotCheckPerson, pk=person, check_of=check)
    form = forms.NoteForm(request.POST)
    if not form.is_valid():
        return _one(request, check, note_form=form, noted=row.pk, status=422)
    try:
        spot_check.note(
            actor=actor(request), check=check, person=row, found=form.found(), words=form.cleaned_data["note"]
        )
    except Refused as refused:
        messages.warning(request, str(refused))
    else:
        messages.success(request, "Noted.")
    return redirect(f"{reverse('qa:spot-check', args=[key, pk])}#person-{row.pk}")


@require_POST
@requires("spot_check.run")
def sign(request: HttpRequest, key: str, pk: int) -> HttpResponse:
    check = _check(key, pk)
    form = forms.SignForm(request.POST)
    if form.is_valid():
        try:
            signed = spot_check.sign(actor=actor(request), check=check, words=form.cleaned_data["note"])
        except Refused as refused:
            if refused.problems[0].path != "note":
                messages.warning(request, str(refused))
                return redirect("qa:spot-check", key, pk)
            form.add_error("note", str(refused.problems[0].words))
        else:
            messages.success(
                request, f"Signed off: {spot_check.signature(signed)}. It stays on v{check.version.number}."
            )
            return redirect("qa:spot-check", key, pk)
    return _one(request, check, sign_form=form, status=422)


def _list(request: HttpRequest, audience: Audience, form: forms.DrawForm, status: int = 200) -> HttpResponse:
    context = {
        "audience": audience,
        "version": spot_check.version_of(audience),
        "standing": spot_check.standing(audience),
        "checks": spot_check_page.checks(audience),
        "form": form,
    }
    return page(request, "spot_check/list.html", context, status=status)


def _one(
    request: HttpRequest,
    check: SpotCheck,
    *,
    sign_form: forms.SignForm | None = None,
    note_form: forms.NoteForm | None = None,
    noted: int | None = None,
    status: int = 200,
) -> HttpResponse:
    now = spot_check.version_of(check.audience)
    portrait = spot_check_page.of(check)
    sign_form = sign_form or forms.SignForm()
    sign_form.fields["note"].required = not portrait.agreement.enough
    context = {
        "check": check,
        "audience": check.audience,
        "version_now": now,
        "outdated": now is not None and now.pk != check.version_id,
        "portrait": portrait,
        "sign_form": sign_form,
        "note_form": note_form,
        "noted": noted,
    }
    return page(request, "spot_check/check.html", context, fragment="live", status=status)


def _audience(key: str) -> Audience:
    return get_object_or_404(Audience.objects.select_related("live_version"), key=key)


def _check(key: str, pk: int) -> SpotCheck:
    rows = SpotCheck.objects.select_related(
        "audience__live_version", "version", "mapping__destination", "asked_by", "signed_by"
    )
    return get_object_or_404(rows, pk=pk, audience__key=key)
