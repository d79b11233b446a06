"""What the pages of a set-up share: the choice of purpose and place, the offer of a pair, the way back to what comes first."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect

from audiences import naming, rule_names, vocabulary
from audiences.models import Audience
from audiences.naming_forms import NameBuilder
from audiences.segments import gist
from audiences.segments.tree import Node
from audiences.services import naming as naming_service
from destinations import queries
from destinations.connectors import registry
from destinations.services import Refused
from qa import pairs, setup_forms
from qa.setup import Standing

Result = HttpResponse | dict[str, Any]  # an answer, or what the step's page shows

PURPOSE_WORDS = {
    Audience.Purpose.RETARGETING: "Show ads to people who are not finished: carts, looks, lapsed buyers.",
    Audience.Purpose.SUPPRESSION: "Keep people out of ads: who has just bought must not go on seeing them.",
    Audience.Purpose.LOOKALIKE: "Give the platform good customers, to find more like them.",
    Audience.Purpose.ANALYTICS: "Tell an analytics tool who is in, to read its numbers by audience.",
    Audience.Purpose.WAREHOUSE: "Put who entered and left into tables of your own.",
}


def place(form: setup_forms.PlaceForm) -> dict[str, Any]:
    """What step 1 shows, before and after a set-up has begun."""
    labels = dict(Audience.Purpose.choices)
    takers = {
        purpose: [
            one.capabilities.label for one in registry.CONNECTORS.values() if purpose in one.capabilities.purposes
        ]
        for purpose in labels
    }
    return {
        "form": form,
        "purposes": [
            (value, label, PURPOSE_WORDS[Audience.Purpose(value)], takers[value]) for value, label in labels.items()
        ],
        "chosen_purpose": form["purpose"].value(),
        "chosen_target": form["target"].value(),
        "targets": [
            (card.destination, card.platform, [labels[purpose] for purpose in card.platform.purposes])
            for card in queries.cards()
            if card.platform
        ],
        "platforms": [
            (kind, one.capabilities, [labels[purpose] for purpose in one.capabilities.purposes])
            for kind, one in registry.CONNECTORS.items()
        ],
    }


def pair_offer(standing: Standing) -> dict[str, Any] | None:
    """What is offered beside a published retargeting audience that has no suppression."""
    if not standing.needs_suppression or standing.audience is None:
        return None
    event = pairs.purchase(vocabulary.known().events)
    return {
        "event": event,
        "days": pairs.USUAL,
        "alike": pairs.alike(standing.audience, days=pairs.USUAL, event=event, place=standing.setup.destination_id)
        if event
        else [],
    }


def show(refused: Refused, form: forms.Form) -> None:
    """Each problem at its field."""
    for problem in refused.problems:
        words = problem.words[:1].upper() + problem.words[1:]
        form.add_error(problem.path if problem.path in form.fields else None, words)


def first(request: HttpRequest, standing: Standing, name: str, words: str) -> HttpResponse:
    messages.info(request, words)
    return redirect("qa:setup-step", standing.setup.pk, name)


def name_by_rule(
    audience: Audience | None, posted: Any, tree: Node | None, *, channel: str, suggested: str, counting: bool
) -> tuple[NameBuilder | None, str, bool]:
    """(the name from drop-downs, the window that the rule suggests, whether the name follows it just now): the window in the name goes
    with the number in the rule for as long as nobody has chosen another. Without a convention there is none."""
    convention = naming_service.current()
    if convention is None:
        return None, "", False
    about = gist.of(tree) if tree is not None else None
    told = rule_names.told(convention, about) if about else {}
    tokens = {**naming.guess(convention, suggested, channel=channel), **told}
    window = convention.of_kind(naming.WINDOW)
    said = tokens.get(window.name, "") if window else ""
    if not counting:
        return NameBuilder.of(audience, posted, channel=channel, tokens=tokens, about=about), said, False
    chosen = {token.name: posted.get(f"name-{token.name}", "")[:100] for token in convention.tokens}
    before, renamed = posted.get("window_said"), False
    if window and before is not None and before != said and chosen[window.name] == before:
        chosen[window.name], renamed = said, True
    builder = NameBuilder.of(audience, None, tokens={**tokens, **chosen}, about=about)
    builder.initial.update({name: posted.get(f"name-{name}", "")[:500] for name in naming.RESERVED})
    return builder, said, renamed


def renamed_by(posted: QueryDict, tree: Node) -> QueryDict:
    """The form with a name that says what this rule says, where what was chosen contradicts it and no reason is given."""
    convention = naming_service.current()
    if convention is None or posted.get("name-rule_reason"):
        return posted
    chosen = {token.name: posted.get(f"name-{token.name}", "")[:100] for token in convention.tokens}
    right = rule_names.agreed(convention, chosen, gist.of(tree), {})
    made = posted.copy()
    for token, value in right.items():
        made[f"name-{token}"] = value
    return made
