"""What the pages of a set-up share: the choice of purpose and place, the offer of a pair, the way back to what comes first."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from audiences import vocabulary
from audiences.models import Audience
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
