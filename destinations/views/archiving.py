"""The page on which an audience is archived, with what has to be done before."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods

from audiences.access import requires
from audiences.models import Audience
from audiences.services.audiences import AudienceRefused
from audiences.views.page import actor, page
from destinations.services import archiving


@require_http_methods(["GET", "POST"])
@requires("audience.edit")
def archive(request: HttpRequest, key: str) -> HttpResponse:
    audience = get_object_or_404(Audience, key=key)
    reason, errors, status = request.POST.get("reason", "")[:2_000], [], 200
    if request.method == "POST":
        try:
            archiving.archive(actor=actor(request), audience=audience, reason=reason)
        except AudienceRefused as refused:
            errors = [f"{problem.words[:1].upper()}{problem.words[1:]}." for problem in refused.problems]
            status = 422
        else:
            messages.success(request, f"{key} is archived. Its key stays taken, and its history can be read.")
            return redirect("qa:audience", key)
    context = {
        "audience": audience,
        "connected": archiving.connected(audience),
        "linked": audience.excludes.filter(archived_at=None).order_by("key"),
        "reason": reason,
        "errors": errors,
    }
    return page(request, "owners/archive.html", context, status=status)
