"""Settings, Names: the convention, read and edited; every audience's name held against it; one name after the other put right."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from audiences import channels, conformance, naming, queries
from audiences.access import requires
from audiences.models import Audience
from audiences.naming import Convention
from audiences.naming_forms import Draft, NameBuilder
from audiences.services import naming as service
from audiences.views.page import actor, page, paginated, wants_fragment

KINDS = (
    (naming.CHANNEL, "Channel", "the platform; filled by itself for each connection"),
    (naming.CHOICE, "Choice", "one of the values below"),
    (naming.WINDOW, "Window", "how far the rule looks back"),
    (naming.TEXT, "Text", "letters and digits, typed"),
    (naming.VERSION, "Version", "follows the live version by itself"),
)


@require_GET
@requires("naming.view")
def naming_page(request: HttpRequest) -> HttpResponse:
    """How a name is read: its parts, what each may be and means; and how many names follow."""
    row = service.row()
    convention = service.of_row(row)
    context: dict[str, Any] = {"convention": convention, "row": row, "activity": queries.activity("naming", "1")[:10]}
    if convention is not None:
        context |= {"example": example(convention), "lengths": _lengths(convention), "table": conformance.table()}
    else:
        context["starter"] = service.starter()
    return page(request, "naming/convention.html", context)


@require_POST
@requires("naming.edit")
def start(request: HttpRequest) -> HttpResponse:
    """Begin with channel, intent, window, version."""
    try:
        service.adopt_starter(actor=actor(request))
    except service.Changed:
        messages.warning(request, "Somebody has made a convention meanwhile. Nothing was changed.")
    else:
        messages.success(request, "Names have a convention now. Below are those that do not follow it yet.")
        return redirect("audiences:conformance")
    return redirect("audiences:naming")


@require_http_methods(["GET", "POST"])
@requires("naming.edit")
def edit(request: HttpRequest) -> HttpResponse:
    """The convention's editor. Each small step answers with the form as it would be; only "save" keeps anything."""
    row = service.row()
    if request.method == "GET":
        return _editor(request, Draft.of(service.of_row(row) or service.starter(), service.stamp(row)))
    draft = Draft.posted(request.POST)
    deed = request.POST.get("do", "save")
    if draft.do(deed):
        return _editor(request, draft)
    convention = draft.check()
    if deed != "save" or convention is None:
        return _editor(request, draft, status=422 if draft.problems and deed == "save" else 200)
    effect = conformance.effect(convention)
    if effect.stops and draft.agreed != effect.agreed and service.stamp(row) == draft.stamp:
        return _editor(request, draft, confirm=True)
    try:
        service.change(
            actor=actor(request), convention=convention, seen=draft.stamp, reason=request.POST.get("reason", "")[:500]
        )
    except service.Changed as changed:
        draft.stamp = service.stamp(changed.row)
        return _editor(request, draft, theirs=changed.row, status=409)
    except naming.NamingRefused as refused:
        draft.problems = list(refused.problems)
        return _editor(request, draft, status=422)
    messages.success(
        request, "Saved. No name was changed; those that no longer follow are below." if effect.stops else "Saved."
    )
    target = "audiences:conformance" if effect.stops else "audiences:naming"
    if wants_fragment(request):
        response = HttpResponse(status=204)
        response["HX-Redirect"] = reverse(target)
        return response
    return redirect(target)


def _editor(
    request: HttpRequest, draft: Draft, *, theirs: Any = None, confirm: bool = False, status: int = 200
) -> HttpResponse:
    sound = not draft.problems and not naming.faults(draft.convention(), channels.room())
    convention = draft.convention() if sound else None
    effect = conformance.effect(convention) if convention else None
    current = service.current()
    wrong = draft.wrong()
    once = {row.kind for row in draft.tokens} & {naming.CHANNEL, naming.VERSION}
    context = {
        "draft": draft,
        "section": "convention",
        "wrong_separator": wrong.get("separator", ""),
        "refused": status == 422,
        "kinds": KINDS,
        "addable": [kind for kind in KINDS if kind[0] not in once],
        "example": example(convention) if convention else None,
        "effect": effect,
        "changes": naming.differences(current, convention) if convention and current else (),
        "confirm": confirm,
        "first": current is None,
        "theirs": theirs,
        "their_convention": service.of_row(theirs) if theirs else None,
        "full": len(draft.tokens) >= naming.MOST_TOKENS,
    }
    # htmx swaps 422 and 200 in; a conflict is the whole form again, too.
    if status == 409 and wants_fragment(request):
        status = 422
    return page(request, "naming/edit.html", context, fragment="editor", status=status)


@require_GET
@requires("naming.view")
def conformance_page(request: HttpRequest) -> HttpResponse:
    """Every audience's name, held against the convention."""
    only, words = request.GET.get("only", "")[:20], request.GET.get("q", "")[:200]
    table = conformance.table(only=only, words=words)
    context = {
        "convention": service.current(),
        "table": table,
        "rows": paginated(request, table.rows),
        "only": only,
        "q": words,
    }
    return page(request, "naming/conformance.html", context, fragment="results")


@require_http_methods(["GET", "POST"])
@requires("audience.edit")
def rename(request: HttpRequest, key: str) -> HttpResponse:
    """One audience's name, built anew; the platforms' are renamed at their next sync."""
    audience = get_object_or_404(Audience.objects.select_related("live_version"), key=key, archived_at=None)
    convention = service.current()
    builder = NameBuilder.of(audience, request.POST if request.method == "POST" else None)
    reason = request.POST.get("reason", "").strip()[:500]
    status = 200
    if request.method == "POST" and not NameBuilder.build_only(request.POST):
        seen = request.POST.get("seen", audience.name)
        if seen != audience.name:
            builder.add_error(
                None, f"It was renamed meanwhile, to “{audience.name[:200]}”. Look again before you rename it."
            )
        if builder.is_valid() and builder.save(actor=actor(request), audience=audience, reason=reason):
            messages.success(
                request, f"{audience.key} is now called {builder.name[:200]}. Platforms are told at the next sync."
            )
            return redirect("audiences:conformance")
        status = 422
    row = conformance.of(audience, convention, conformance.doubled(conformance.audiences()))
    context = {"audience": audience, "builder": builder, "row": row, "reason": reason, "section": "conformance"}
    return page(request, "naming/rename.html", context, status=status)


@require_GET
@requires("naming.view")
def build_name(request: HttpRequest) -> HttpResponse:
    """The name that a form's fields give at this moment: a part of whatever page has the form."""
    key = request.GET.get("audience", "")[:100]
    audience = Audience.objects.select_related("live_version").filter(key=key).first() if key else None
    builder = NameBuilder.of(audience, request.GET)
    return page(request, "naming/built.html", {"builder": builder}, fragment="built")


def example(convention: Convention) -> tuple[tuple[naming.Part, ...], str]:
    """A name that follows, in parts and whole: the first value of each."""
    tokens = {}
    for token in convention.tokens:
        if token.values:
            tokens[token.name] = token.values[0].value
        elif token.kind == naming.WINDOW:
            tokens[token.name] = "7d"
        elif token.kind == naming.TEXT:
            tokens[token.name] = "spring"
    name = naming.build(convention, tokens, version=1, length=10 * naming.LONGEST)
    return naming.parts(convention, name), name


def _lengths(convention: Convention) -> list[tuple[channels.Channel, str, int]]:
    """Each platform, what it is called in names, and how long a name may be there."""
    return [(c, convention.short(c.kind), service.room(convention, c.kind)) for c in channels.known()]
