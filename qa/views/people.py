"""What the platforms were told of one person: a page of its own, and a part of the people pages, which lie a floor below."""

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from audiences import standings
from audiences.access import requires
from audiences.models import Audience
from audiences.people import biography
from audiences.views.page import page
from qa import tracing


@require_GET
@requires("person.view")
def platforms(request: HttpRequest, profile_no: int) -> HttpResponse:
    """Every audience and connection that has to do with them; with `?audience=KEY` that one alone."""
    life = biography.of(profile_no)
    if life is None:
        raise Http404
    key = request.GET.get("audience", "")[:100].replace("\0", "")
    if key:
        audience = Audience.objects.filter(key=key).select_related("live_version").first()
        one = tracing.of(life, audience) if audience else None
        if one is None:
            raise Http404
        found = [one]
    else:
        found = tracing.everywhere(life)
    context = {
        "profile_no": profile_no,
        "title": standings.title(life.profile, life.keys),
        "found": found,
        "key": key,
        "demo": settings.DEMO,
    }
    return page(request, "people/platforms.html", context, fragment="panel")
