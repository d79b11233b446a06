"""Templates beside the rule builder: pick one, turn its numbers, see whom it finds; its name and its suppression pair come with it."""

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from audiences import findings, vocabulary
from audiences.access import requires
from audiences.models import Audience
from audiences.naming_forms import NameBuilder
from audiences.segments import recipes
from audiences.segments.recipes import Recipe
from audiences.services import drafts
from audiences.services.audiences import AudienceRefused
from audiences.services.drafts import Conflict, Draft
from audiences.views.page import actor, page, undoable
from destinations.services import Refused
from qa import drafting, pairs, setup, templating
from qa.setup_forms import PairingForm, RecipeForm
from qa.templating import Pairing
from qa.views.setup_parts import name_by_rule

TEMPLATE = "setup/templates.html"
FOUND = "found"


@dataclass(slots=True)
class Shown:
    """What stands in the page's form. `builder` None: its name stays; `pairing` None: no pair is offered."""

    recipe: Recipe
    rule: RecipeForm
    draft: drafting.Draft
    builder: NameBuilder | None
    said: str
    renamed: bool
    pairing: PairingForm | None
    alike: list[pairs.Alike]
    event: str


@require_http_methods(["GET", "POST"])
@requires("audience.edit")
def templates(request: HttpRequest, key: str) -> HttpResponse:
    """POST with `act`: `count` shows whom it finds, `take` puts it into the draft and goes on in the rule builder."""
    audience = get_object_or_404(Audience.objects.select_related("live_version"), key=key)
    if audience.archived_at:
        messages.error(request, f"{audience.key} is archived, so its rule does not change any more.")
        return redirect("audiences:versions", key)
    posted = request.POST if request.method == "POST" else None
    counting = request.POST.get("act") == "count"
    shown = _shown(request, audience, counting=counting)
    now = drafts.current(audience)
    taking = posted is not None and not counting and not NameBuilder.build_only(posted)
    if taking and _valid(shown):
        try:
            return _take(request, audience, shown)
        except Conflict as conflict:
            now = conflict.now
            words = "Somebody has changed the draft since you opened this page, so nothing is done. Use the template again to put it in place of theirs; Undo gives theirs back."
            messages.warning(request, words)
        except (AudienceRefused, Refused) as refused:
            messages.error(request, f"Nothing is done: {refused}.")
    return _page(request, audience, shown, now, counting=counting, status=422 if taking else 200)


def _shown(request: HttpRequest, audience: Audience, *, counting: bool) -> Shown:
    posted = request.POST if request.method == "POST" else None
    offered = recipes.for_purpose(audience.purpose)
    asked = request.POST.get("recipe") or request.GET.get("recipe", "")
    recipe = next((one for one in offered if one.key == asked), offered[0])
    known = vocabulary.known()
    rule = RecipeForm(posted, recipe=recipe, events=known.events, properties=known.properties)
    values = rule.values()
    draft = drafting.by_recipe(recipe, *values, audience) if values else drafting.Draft(None)
    builder, said, renamed = None, "", False
    under_way = setup.open_for(audience)
    place = under_way.destination if under_way else None
    if audience.live_version is None:  # a live one is called otherwise when the new version goes live, and not before
        kind = audience.mappings.values_list("destination__kind", flat=True).first() or (place.kind if place else "")
        builder, said, renamed = name_by_rule(
            audience, posted, draft.tree, channel=kind, suggested=recipe.intent, counting=counting
        )
    event = (values[1].get("purchase", "") if values else "") or pairs.purchase(known.events)
    pairing, alike = None, []
    if audience.purpose == Audience.Purpose.RETARGETING and not pairs.partners([audience.pk]):
        to = place.pk if place else None
        alike = pairs.alike(audience, days=pairs.USUAL, event=event, place=to)[:3] if event else []
        chosen = {name: posted[name] for name in ("pair", "days") if name in posted} if posted else {}
        pairing = PairingForm(
            posted if not counting else None, event=event, alike=alike, initial=chosen if counting else None
        )
    return Shown(recipe, rule, draft, builder, said, renamed, pairing, alike, event)


def _valid(shown: Shown) -> bool:
    forms = [form for form in (shown.rule, shown.builder, shown.pairing) if form is not None]
    return all(form.is_valid() for form in forms) and shown.draft.tree is not None


def _take(request: HttpRequest, audience: Audience, shown: Shown) -> HttpResponse:
    """Raises Conflict, AudienceRefused, Refused."""
    assert shown.draft.tree is not None
    taken = templating.take(
        actor=actor(request),
        audience=audience,
        tree=shown.draft.tree,
        number=_whole(request, "number"),
        revision=_whole(request, "revision"),
        name=shown.builder,
        pairing=_pairing(shown),
    )
    words = f"“{shown.recipe.name}” is in the draft."
    if taken.pair is not None:
        words += f" {taken.pair.key} is linked: whoever is in it is not sent."
    at = reverse("audiences:edit", args=[audience.key])
    if taken.changed:
        stands = {"number": str(taken.draft.number), "revision": str(taken.draft.revision)}
        undoable(request, words, at, "Undo the rule", do="undo", **stands)
    else:
        messages.success(request, words)
    return redirect(at)


def _pairing(shown: Shown) -> Pairing | None:
    if shown.pairing is None:
        return None
    chosen, days = shown.pairing.cleaned_data["pair"], shown.pairing.cleaned_data["days"] or pairs.USUAL
    there = next((one.audience for one in shown.alike if f"link:{one.audience.key}" == chosen), None)
    return Pairing(shown.event, days, there) if there or chosen == "make" else None


def _page(
    request: HttpRequest, audience: Audience, shown: Shown, now: Draft, *, counting: bool, status: int
) -> HttpResponse:
    draft, found = shown.draft, None
    if request.method == "POST" and draft.sound and draft.tree is not None:
        found = drafting.count(draft.tree, audience, None)
    context: dict[str, Any] = {
        "audience": audience,
        "now": now,
        "recipes": recipes.for_purpose(audience.purpose),
        "recipe": shown.recipe,
        "rule": shown.rule,
        "draft": draft,
        "found": found,
        "findings": findings.of(audience, draft.tree) if draft.sound and draft.tree is not None else (),
        "builder": shown.builder,
        "window_said": shown.said,
        "renamed": shown.renamed,
        "pairing": shown.pairing,
        "alike": shown.alike,
        "event": shown.event,
        "key": pairs.key_of(audience, pairs.USUAL, shown.event) if shown.event else "",
        "linked": pairs.partners([audience.pk]).get(audience.pk, []),
    }
    return page(request, TEMPLATE, context, fragment=FOUND if counting else "", status=status)


def _whole(request: HttpRequest, name: str) -> int:
    given = request.POST.get(name, "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 10 else 0
