"""Alerts: the list, one of them with all that is known, and what people do about it. A GET changes nothing: a mail's link only opens a page."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from audiences import charts, owners, queries
from audiences.access import may, requires
from audiences.models import Audience, Workspace
from audiences.views.page import actor, page, paginated, undoable, wants_fragment, zone_of
from qa import alert_forms, alerts, incidents, limits, outbox
from qa.alerts import AlertRefused
from qa.checks.registry import KINDS
from qa.models import Incident, Limits, Mail

AROUND = 30  # days of the chart on both sides
STATES = (("open", "Open"), ("waiting", "Taken up or waiting"), ("past", "Over"), ("", "All"))


@dataclass(frozen=True, slots=True)
class Line:
    """An incident in the list."""

    incident: Incident
    name: str
    place: str
    label: str
    word: str  # of health
    mail: Mail | None


@require_GET
@requires("alert.view")
def list_(request: HttpRequest) -> HttpResponse:
    wish, now = _wish(request), timezone.now()
    rows = paginated(request, incidents.found(wish, now), 30)
    mailed = incidents.mails(list(rows.object_list))
    numbers = incidents.counts(now)
    context = {
        "wish": wish,
        "rows": rows,
        "lines": [_line(row, mailed) for row in rows],
        "counts": numbers,
        "states": [(value, label, numbers.get(value)) for value, label in STATES],
        "kinds": incidents.kinds(),
        "owners": incidents.who(),
        "now": now,
        "to_files": outbox.to_files(),
    }
    return page(request, "alerts/list.html", context, fragment="results")


@require_GET
@requires("alert.view")
def count(request: HttpRequest) -> HttpResponse:
    """For the rail: how many are open; nothing where none is."""
    number = incidents.open_count()
    words = f'{number}<span class="visually-hidden"> open</span>' if number else ""
    response = HttpResponse(words)
    response["Cache-Control"] = "no-store, private"
    return response


@require_GET
@requires("alert.view")
def alert(request: HttpRequest, pk: int) -> HttpResponse:
    return _page(request, _incident(pk))


@require_POST
@requires("alert.act")
def acknowledge(request: HttpRequest, pk: int) -> HttpResponse:
    """ "I am on it", or back."""
    incident, back = _incident(pk), bool(request.POST.get("back"))
    try:
        (alerts.unacknowledge if back else alerts.acknowledge)(actor=actor(request), incident=incident)
    except AlertRefused as refused:
        messages.info(request, str(refused))
    else:
        here = reverse("qa:acknowledge-alert", args=[pk])
        if back:
            messages.success(request, "Nobody is on it any more.")
        else:
            undoable(request, "You are on it. Others see your name beside it.", here, back="1")
    return redirect("qa:alert", pk)


@require_POST
@requires("alert.act")
def snooze(request: HttpRequest, pk: int) -> HttpResponse:
    incident, zone = _incident(pk), zone_of(request.user, Workspace.objects.first())
    here = reverse("qa:snooze-alert", args=[pk])
    if request.POST.get("back"):
        try:
            alerts.snooze(actor=actor(request), incident=incident, until=None)
        except AlertRefused as refused:
            messages.info(request, str(refused))
        else:
            messages.success(request, "It does not wait any more.")
        return redirect("qa:alert", pk)
    with timezone.override(zone):
        form = alert_forms.SnoozeForm(request.POST)
        valid = form.is_valid()
    if valid:
        try:
            until = form.moment()
            alerts.snooze(actor=actor(request), incident=incident, until=until)
        except AlertRefused as refused:
            if incident.recovered_at is not None:
                messages.info(request, str(refused))
                return redirect("qa:alert", pk)
            form.add_error("until", str(refused))
        else:
            local = until.astimezone(zone)
            words = f"It waits until {local:%a} {local.day} {local:%b, %H:%M}. If it is still so then, there is one more mail."
            undoable(request, words, here, back="1")
            return redirect("qa:alert", pk)
    return _page(request, incident, snoozing=form, status=422)


@require_POST
@requires("alert.limit")
def usual(request: HttpRequest, pk: int) -> HttpResponse:
    """The change is meant."""
    incident, form = _incident(pk), alert_forms.UsualForm(request.POST)
    if form.is_valid():
        try:
            alerts.take_as_usual(actor=actor(request), incident=incident, reason=form.cleaned_data["reason"])
        except AlertRefused as refused:
            messages.info(request, str(refused))
        else:
            messages.success(request, "The alert is over. From here on the new size is what is usual.")
        return redirect("qa:alert", pk)
    return _page(request, incident, usual_form=form, status=422)


@require_POST
@requires("alert.limit")
def limit(request: HttpRequest, pk: int) -> HttpResponse:
    """How far the number that the alert is about may move."""
    incident = _incident(pk)
    audience, field = _limited(incident)
    if audience is None or not field:
        raise Http404
    here = reverse("qa:alert-limit", args=[pk])
    before = getattr(Limits.objects.filter(audience=audience).first(), field, None)
    undo = {"share": str(round(before * 100))} if before is not None else {"reset": "1"}
    if request.POST.get("reset"):
        alerts.set_limit(actor=actor(request), audience=audience, field=field, share=None)
        undoable(request, "The usual limit holds again.", here, **undo)
        return redirect("qa:alert", pk)
    form = alert_forms.LimitForm(request.POST)
    if form.is_valid():
        share = form.cleaned_data["share"] / 100
        try:
            alerts.set_limit(actor=actor(request), audience=audience, field=field, share=share)
        except AlertRefused as refused:
            form.add_error("share", str(refused))
        else:
            undoable(request, f"Alerts of {audience.key} begin at {share:.0%} now.", here, **undo)
            return redirect("qa:alert", pk)
    return _page(request, incident, limit_form=form, status=422)


@require_POST
@requires("alert.limit")
def mute(request: HttpRequest, pk: int) -> HttpResponse:
    incident, zone = _incident(pk), zone_of(request.user, Workspace.objects.first())
    audience = _audience(incident)
    if audience is None:
        raise Http404
    here = reverse("qa:mute-alert", args=[pk])
    if request.POST.get("back"):
        alerts.mute(actor=actor(request), audience=audience, until=None, reason="")
        messages.success(request, f"Alerts of {audience.key} are mailed again.")
        return redirect("qa:alert", pk)
    form = alert_forms.MuteForm(request.POST)
    if form.is_valid():
        try:
            alerts.mute(
                actor=actor(request), audience=audience, until=form.end(zone), reason=form.cleaned_data["reason"]
            )
        except AlertRefused as refused:
            form.add_error("until", str(refused))
        except OverflowError:
            form.add_error("until", f"The end must be within the next {alerts.LONGEST_MUTE.days} days.")
        else:
            day = form.cleaned_data["until"]
            undoable(
                request,
                f"No mail about {audience.key} to the end of {day.day} {day:%B}. What happens still shows here.",
                here,
                back="1",
            )
            return redirect("qa:alert", pk)
    return _page(request, incident, mute_form=form, status=422)


def _page(request: HttpRequest, incident: Incident, *, status: int = 200, **forms: Any) -> HttpResponse:
    now, audience = timezone.now(), _audience(incident)
    allowed = limits.of(audience) if audience else limits.Allowed()
    kind = KINDS.get(incident.kind)
    _, field = _limited(incident)
    row = queries.row(audience.key) if audience else None
    preview = _preview(request, row, field, allowed)
    zone = zone_of(request.user, Workspace.objects.first())
    today = now.astimezone(zone).date()
    mute_form = forms.get("mute_form") or alert_forms.MuteForm(initial={"until": today + timedelta(days=7)})
    mute_form.fields["until"].widget.attrs |= {
        "min": today.isoformat(),
        "max": (today + alerts.LONGEST_MUTE - timedelta(days=1)).isoformat(),
    }
    context = {
        "incident": incident,
        "line": _line(incident, {}),
        "audience": audience,
        "kind": kind,
        "open": incident.recovered_at is None,
        "snoozed": incident.snoozed_until is not None and incident.snoozed_until > now,
        "facts": _facts(incident, row),
        "mails": Mail.objects.filter(incident=incident).select_related("digest").defer("text", "html").order_by("pk"),
        "deeds": _deeds(incident),
        "role": _role(incident, audience),
        "allowed": allowed,
        "muted": allowed.muted(now),
        "mutable": bool(kind and kind.mutable and audience),
        "limit_field": field,
        "limit_now": round((allowed.size_share if field == "size_share" else allowed.adds_share) * 100),
        "limit_own": bool(
            audience and field and Limits.objects.filter(audience=audience, **{f"{field}__isnull": False}).exists()
        ),
        "limit_form": forms.get("limit_form")
        or alert_forms.LimitForm(
            initial={
                "share": preview.share
                if preview
                else round((allowed.size_share if field == "size_share" else allowed.adds_share) * 100)
            }
        ),
        "preview": preview,
        "snooze_form": forms.get("snoozing") or alert_forms.SnoozeForm(),
        "usual_form": forms.get("usual_form") or alert_forms.UsualForm(),
        "mute_form": mute_form,
        "zone": zone.key.replace("_", " "),
        "others": [one for one in incidents.for_audience(audience, 6) if one.pk != incident.pk][:5] if audience else [],
        "may_limit": may(request.user, "alert.limit"),
        **_charts(incident, row, allowed, now),
    }
    fragment = "preview" if wants_fragment(request) and request.headers.get("HX-Target") == "limit-preview" else ""
    return page(request, "alerts/alert.html", context, fragment=fragment, status=status)


def _facts(incident: Incident, row: queries.Row | None) -> list[tuple[str, str]]:
    """As the mail had them; what was "now" then stands beside what is now."""
    found: list[tuple[str, str]] = []
    for key, value in incident.facts.items():
        if key == "Now" and incident.kind == "size" and row is not None and row.size is not None:
            found += [("When noticed", str(value)), ("At this moment", f"{row.size:,} people")]
        else:
            found.append((key, str(value)))
    return found


@dataclass(frozen=True, slots=True)
class Preview:
    """How often a limit would have had something to say in the last days."""

    share: int
    times: int
    days: int
    people_known: bool


def _preview(request: HttpRequest, row: queries.Row | None, field: str, allowed: limits.Allowed) -> Preview | None:
    """Of the limit that the address asks for, else of the one that holds."""
    if row is None or field != "size_share":
        return None
    asked = request.GET.get("share", "")
    share = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 5 else round(allowed.size_share * 100)
    share = min(max(share, round(limits.LEAST * 100)), round(limits.MOST * 100))
    days = [(day, number) for day, number in row.days if number is not None]
    return Preview(share, len(limits.firings(days, share / 100)), len(days), len(days) > charts.USUAL_FEWEST)


def _charts(incident: Incident, row: queries.Row | None, allowed: limits.Allowed, now: datetime) -> dict[str, Any]:
    """The size around it, with a dot on the day it began."""
    if row is None or not row.days:
        return {"chart": None}
    begun, over = incident.since.date(), (incident.recovered_at or now).date()
    days = row.days
    band = charts.limits([number for _, number in days], allowed.size_share)
    pairs = [
        (point, pair)
        for point, pair in zip(days, band, strict=True)
        if begun - timedelta(days=AROUND) <= point[0] <= over + timedelta(days=AROUND)
    ]
    if len(pairs) < 2:
        return {"chart": None}
    shown, held = [point for point, _ in pairs], [pair for _, pair in pairs]
    bad = incident.severity == Incident.Severity.CRITICAL
    dot = [charts.Alert(_nearest(begun, shown), incident.sentence, bad)]
    marks = [
        (
            timezone.localtime(version.published_at).date(),
            f"v{version.number}",
            f"Version {version.number} published: {version.reason}",
        )
        for version in queries.published(row.audience)
        if version.published_at
    ]
    drawn = {
        name: charts.size_chart(shown, marks, dot, held, width=width, height=height)
        for name, width, height in (("chart", 720, 240), ("narrow_chart", 400, 220))
    }
    return {**drawn, "days": [point for point in reversed(shown) if point[1] is not None]}


def _nearest(day: date, shown: Any) -> date:
    return min(max(day, shown[0][0]), shown[-1][0])


@dataclass(frozen=True, slots=True)
class Deed:
    """Where to put it right."""

    label: str
    url: str


def _deeds(incident: Incident) -> list[Deed]:
    audience, mapping = _audience(incident), incident.mapping
    found: list[Deed] = []
    run = str(incident.facts.get("Run", ""))
    if run.isdigit() and incident.kind in ("run", "approval"):
        found.append(Deed("Open the run", reverse("destinations:run", args=[int(run)])))
    if incident.kind == "suppression" and audience is not None:
        found.append(Deed("Make the suppression pair", reverse("qa:pair", args=[audience.key])))
    if mapping is not None:
        found.append(Deed("Open the connection", reverse("destinations:connection", args=[mapping.pk])))
    if incident.destination is not None:
        found.append(Deed("Open the destination", reverse("destinations:destination", args=[incident.destination.key])))
    if incident.kind == "size" and audience is not None:
        found.append(Deed("Compare versions", reverse("audiences:versions", args=[audience.key])))
    if audience is not None:
        found.append(Deed("Open audience", reverse("qa:audience", args=[audience.key])))
    return found


def _role(incident: Incident, audience: Audience | None) -> str:
    """Why its owner is the one: the role, in words."""
    if audience is None or incident.owner is None:
        return ""
    for role in ("alert_owner", "sync_owner", "definition_owner", "backup_owner"):
        if getattr(audience, f"{role}_id") == incident.owner_id:
            return next(one.label for one in owners.ROLES if one.field == role)
    return ""


def _line(row: Incident, mailed: dict[int, Mail]) -> Line:
    word = "Healthy" if row.recovered_at else row.get_severity_display()
    return Line(row, incidents.name(row), incidents.place(row), incidents.label(row.kind), word, mailed.get(row.pk))


def _wish(request: HttpRequest) -> incidents.Wish:
    def said(name: str) -> str:
        return request.GET.get(name, "").replace("\0", "")[:100].strip()

    state = said("state")
    return incidents.Wish(state if state in incidents.STATES else "", said("kind"), said("owner"), said("audience"))


def _incident(pk: int) -> Incident:
    roles = ("definition_owner", "sync_owner", "alert_owner", "backup_owner")
    rows = Incident.objects.select_related(
        "owner", "acknowledged_by", "snoozed_by", "destination", "mapping__destination",
        *(f"audience__{role}" for role in roles), *(f"mapping__audience__{role}" for role in roles),
    ).defer("destination__credentials", "mapping__destination__credentials")  # fmt: skip
    return get_object_or_404(rows, pk=pk)


def _audience(incident: Incident) -> Audience | None:
    return incident.audience or (incident.mapping.audience if incident.mapping else None)


def _limited(incident: Incident) -> tuple[Audience | None, str]:
    kind = KINDS.get(incident.kind)
    return _audience(incident), kind.limit if kind else ""
