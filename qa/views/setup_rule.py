"""Step 3 of a set-up: a rule by a recipe, built or pasted, seen in words and counted before it is published; and the pair beside it."""

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect

from audiences import findings, vocabulary
from audiences.access import may, who_may
from audiences.models import Audience
from audiences.naming_forms import NameBuilder
from audiences.queries import rule_as_json
from audiences.segments import grammar, recipes
from audiences.segments.lint import Finding
from audiences.segments.tree import Node
from audiences.services import drafts
from audiences.services.audiences import AudienceRefused
from audiences.views.page import actor
from qa import drafting, pairs, setup, setup_forms
from qa.setup import Standing
from qa.views.setup_parts import Result, first, name_by_rule, pair_offer, renamed_by


def segment(request: HttpRequest, standing: Standing) -> Result:
    if standing.platform is None:
        return first(request, standing, "destination", "Choose what it is for and where it goes first.")
    names = vocabulary.known()
    events, properties = names.events, names.properties
    offered = recipes.for_purpose(standing.setup.purpose)
    asked = request.POST.get("recipe") or request.GET.get("recipe", "")
    if not asked:
        asked = setup_forms.JSON if standing.tree is not None else offered[0].key if offered else setup_forms.BUILD
    recipe = recipes.RECIPES.get(asked)
    posted: QueryDict | None = request.POST if request.method == "POST" else None
    rule: setup_forms.RecipeForm | setup_forms.TextForm | None
    if asked == setup_forms.BUILD:
        rule = None
    elif recipe is not None:
        rule = setup_forms.RecipeForm(posted, recipe=recipe, events=events, properties=properties)
    else:
        rule = setup_forms.TextForm(
            posted, initial={"rule": rule_as_json(standing.audience) if standing.audience else ""}
        )
    act = request.POST.get("act", "")
    counting = act == "count" or "HX-Request" in request.headers
    onwards = act == "build" or act.startswith("fix:")
    audience = standing.audience
    draft = _draft(rule, recipe, audience)
    doubts = _findings(standing, draft)
    fix = next((one.fix for one in doubts if act == f"fix:{one.code}:{one.path}"), None)
    name, builder, said, renamed = None, None, "", False
    if audience is None:
        suggested = _suggested(standing, recipe, rule)
        if fix is not None and posted is not None:
            posted = renamed_by(posted, fix)
        builder, said, renamed = name_by_rule(
            None, posted, fix or draft.tree, channel=standing.kind, suggested=suggested, counting=counting
        )
        initial = {"key": "" if builder else suggested, **_typed(posted)}
        name = setup_forms.NameForm(None if counting else posted, initial=initial, named=builder is not None)
    building = posted is not None and NameBuilder.build_only(posted)
    publishing = posted is not None and not counting and not building
    if onwards and not counting:
        _needs(request, "audience.edit")
        if (rule is None or (rule.is_valid() and draft.tree is not None)) and _named(name, builder):
            done = _build(request, standing, draft, fix, name, builder)
            if done is not None:
                return done
    elif publishing:
        _needs(request, "audience.publish")
        if rule is not None and rule.is_valid() and draft.sound and _named(name, builder):
            done = _publish(request, standing, draft, name, builder)
            if done is not None:
                return done
    found = None
    if draft.sound and draft.tree is not None and (counting or publishing):
        found = drafting.count(draft.tree, audience, standing.platform, standing.identifiers)
    return {
        "recipes": offered,
        "recipe": recipe,
        "way": asked if rule is None or recipe is None else recipe.key,
        "rule": rule,
        "name": name,
        "builder": builder,
        "window_said": said,
        "renamed": renamed,
        "changing": audience is None or bool(request.GET.get("recipe")) or posted is not None,
        "draft": draft,
        "found": found,
        "findings": doubts,
        "seen": audience.live_version.number if audience and audience.live_version else 0,
        "pair": pair_offer(standing),
        "under_way": drafts.current(audience) if audience and not audience.live_version else None,
        "no_people": not events,
        "fragment": "preview" if counting else "",
        "status": 422 if publishing else 200,
    }


def _findings(standing: Standing, draft: drafting.Draft) -> tuple[Finding, ...]:
    """What is doubtful about it, but for what keeps it from being counted and is said already."""
    if not draft.sound or draft.tree is None:
        return ()
    return findings.of(standing.audience or Audience(purpose=standing.setup.purpose), draft.tree)


def _named(name: setup_forms.NameForm | None, builder: NameBuilder | None) -> bool:
    """Whether a new audience's name will do; without a key of its own it takes its name's, where that is free."""
    if name is None:
        return True
    sound = name.is_valid()
    if builder is None:
        return sound
    if builder.is_valid() and sound and not name.cleaned_data["key"]:
        name.cleaned_data["key"] = pairs.free(builder.key) if builder.key else ""
        if not name.cleaned_data["key"]:
            name.add_error("key", "A name of its own needs a key.")
    return name.is_valid() and builder.is_valid()


def _typed(posted: Any) -> dict[str, str]:
    """What was typed beside the rule stays while it is counted."""
    fields = ("key", "description")
    return {field: posted[field][:500] for field in fields if posted and posted.get(field)}


def _draft(
    rule: setup_forms.RecipeForm | setup_forms.TextForm | None, recipe: recipes.Recipe | None, audience: Audience | None
) -> drafting.Draft:
    """The rule as it stands in the form; of an untouched one, as it would be."""
    if rule is None or (rule.is_bound and not rule.is_valid()):
        return drafting.Draft(None)
    if isinstance(rule, setup_forms.TextForm) or recipe is None:
        text = rule.cleaned_data["rule"] if rule.is_bound else str(rule["rule"].initial or "")
        return drafting.by_text(text, audience) if text.strip() else drafting.Draft(None)
    values = rule.values()
    return drafting.by_recipe(recipe, *values, audience) if values else drafting.Draft(None)


def _needs(request: HttpRequest, what: str) -> None:
    if not may(request.user, what):
        raise PermissionDenied(f"This needs the role {who_may(what)}.")


def _build(
    request: HttpRequest,
    standing: Standing,
    draft: drafting.Draft,
    fix: Node | None,
    name: setup_forms.NameForm | None,
    builder: NameBuilder | None,
) -> HttpResponse | None:
    """On to the rule builder, with the rule as it stands in the form as the draft, or put right where that was pressed."""
    try:
        audience = drafting.begin(
            actor=actor(request),
            audience=standing.audience,
            steps=[tree for tree in (draft.tree, fix) if tree is not None],
            purpose=standing.setup.purpose,
            name=builder.name if builder else "",
            **(name.cleaned_data if name else {"key": ""}),
        )
    except AudienceRefused as refused:
        _say(request, refused, name, "Not kept")
        return None
    if builder is not None and not builder.save(actor=actor(request), audience=audience):
        messages.warning(request, "Its name was not kept: " + " ".join(map(str, builder.non_field_errors())))
    setup.take_rule(actor=actor(request), setup=standing.setup, audience=audience)
    if fix is not None:
        messages.success(request, "The rule is put right in the draft. Undo takes it back.")
    return redirect("audiences:edit", audience.key)


def _say(request: HttpRequest, refused: AudienceRefused, name: setup_forms.NameForm | None, what: str) -> None:
    """Each problem at its field, or as a message."""
    for problem in refused.problems:
        if name is not None and problem.path in name.fields:
            name.add_error(problem.path, problem.words)
        else:
            messages.error(request, f"{what}: {problem}.")


def _publish(
    request: HttpRequest,
    standing: Standing,
    draft: drafting.Draft,
    name: setup_forms.NameForm | None,
    builder: NameBuilder | None,
) -> HttpResponse | None:
    assert draft.tree is not None
    values = name.cleaned_data if name else {"key": ""}
    seen = request.POST.get("seen", "0")
    try:
        audience = drafting.publish(
            actor=actor(request),
            audience=standing.audience,
            tree=draft.tree,
            purpose=standing.setup.purpose,
            seen=int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 10 else 0,
            reason=request.POST.get("reason", "").replace("\0", "")[:500],
            name=builder.name if builder else "",
            **values,
        )
    except AudienceRefused as refused:
        _say(request, refused, name, "Not published")
        return None
    if builder is not None and not builder.save(actor=actor(request), audience=audience):
        messages.warning(request, "Its name was not kept: " + " ".join(map(str, builder.non_field_errors())))
    setup.take_rule(actor=actor(request), setup=standing.setup, audience=audience)
    if audience.live_version is None or audience.live_version.sha256 != grammar.sha256(draft.tree):
        messages.warning(request, f"The new rule of {audience.key} is in review: a second person looks at it first.")
        return redirect("qa:review", audience.key)
    messages.success(request, f"{audience.key} is published, and it is being counted.")
    if audience.purpose == Audience.Purpose.RETARGETING and not audience.excluded_by.exists():
        return redirect("qa:setup-step", standing.setup.pk, "segment")  # where the pair is offered
    return redirect("qa:setup-step", standing.setup.pk, "connect")


def _window(number: int, *, in_hours: bool) -> str:
    """24h, 3d: whole days are days, but for the one that everybody calls 24 hours."""
    if in_hours and (number <= 24 or number % 24):
        return f"{number}h"
    return f"{number // 24 if in_hours else number}d"


def _suggested(standing: Standing, recipe: recipes.Recipe | None, rule: forms.Form | None) -> str:
    """A key that nobody has: channel, job, intent, window."""
    window = ""
    if recipe is not None and rule is not None:
        window_of = next((number for number in recipe.numbers if number.name in ("hours", "days", "to")), None)
        if window_of is not None:
            given = str(rule["n_" + window_of.name].value())
            sound = given.isascii() and given.isdigit() and len(given) < 6
            window = _window(int(given) if sound else window_of.usual, in_hours=window_of.name == "hours")
    job = {"retargeting": "retarget", "suppression": "suppress"}.get(standing.setup.purpose, standing.setup.purpose)
    words = [standing.kind, job, recipe.intent if recipe else "", window]
    return pairs.free("_".join(word for word in words if word))
