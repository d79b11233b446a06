"""Home: what needs the reader now, what ran lately, and in the demo what to try first."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from audiences.access import may, requires
from audiences.views.page import actor, page, undoable
from qa import agenda, checklist
from qa.sample import tour


@require_GET
@requires("audience.view")
def home(request: HttpRequest) -> HttpResponse:
    """Where everybody begins."""
    user = actor(request)
    touring = settings.DEMO and not request.COOKIES.get(tour.COOKIE)
    steps = checklist.workspace_steps() if may(user, "setup.edit") else ()
    context = {
        "agenda": agenda.of(user),
        "steps": [step for step in steps if not step.done],
        "steps_all": len(steps),
        "tour": tour.steps(user) if touring else None,
    }
    return page(request, "home/home.html", context)


@require_POST
@requires("audience.view")
def hide_tour(request: HttpRequest) -> HttpResponse:
    """Put the first minute's card away in this browser, or bring it back."""
    response = redirect("qa:home")
    if request.POST.get("back"):
        response.delete_cookie(tour.COOKIE, samesite="Lax")
    else:
        undoable(request, "The card is put away.", reverse("qa:hide-tour"), back="1")
        response.set_cookie(
            tour.COOKIE,
            "seen",
            max_age=90 * 86400,
            samesite="Lax",
            httponly=True,
            secure=settings.SESSION_COOKIE_SECURE,
        )
    return response
