"""The one search box: its live answers, and the same as a page."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from audiences.access import may, requires
from audiences.views.page import actor, page
from qa import lookup


@sensitive_post_parameters("find")
@require_http_methods(["GET", "POST"])
@requires("audience.view")
def search(request: HttpRequest) -> HttpResponse:
    """Posted, so that no person's e-mail gets into an address; a link may bring `?find=` with words that name nobody."""
    user, posted = actor(request), request.method == "POST"
    words = (request.POST if posted else request.GET).get("find", "").replace("\0", "")[:200].strip()
    groups = lookup.find(words, user, people=posted)
    context = {
        "words": words,
        "groups": groups,
        "personal": lookup.personal(words),
        "may_people": may(user, "person.view"),
        "live": bool(request.htmx),  # type: ignore[attr-defined]
    }
    return page(request, "search/search.html", context, fragment="found")
