"""A template taken for an audience: its rule into the draft, its name by the convention, its suppression pair; all of it or nothing."""

from dataclasses import dataclass

from django.db import transaction

from audiences.models import Audience, User
from audiences.naming_forms import NameBuilder
from audiences.segments import outline
from audiences.segments.tree import Node
from audiences.services import drafts
from audiences.services.audiences import AudienceRefused
from audiences.services.drafts import Draft
from audiences.vocabulary import Problem
from qa import pairs


@dataclass(frozen=True, slots=True)
class Pairing:
    """The suppression audience to be linked: one that is there, or a new one of whoever did `event` in the last `days`."""

    event: str
    days: int
    there: Audience | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """The draft as it stands then; `changed`: it said something else before. `pair`: what was linked."""

    draft: Draft
    changed: bool
    pair: Audience | None


def take(
    *,
    actor: User,
    audience: Audience,
    tree: Node,
    number: int,
    revision: int,
    name: NameBuilder | None = None,
    pairing: Pairing | None = None,
) -> Taken:
    """A step of the draft that can be undone; `number` and `revision` are the draft's as the actor saw it. `name`: a valid one to be called.
    Raises drafts.Conflict, AudienceRefused and NamingRefused's words as AudienceRefused, and changes nothing."""
    with transaction.atomic():
        before = drafts.current(audience)
        made = outline.of_tree(tree)
        draft = drafts.save(actor=actor, audience=audience, edited=made, number=number, revision=revision)
        if name is not None and not name.save(actor=actor, audience=audience):
            words = [str(error) for errors in name.errors.values() for error in errors]
            raise AudienceRefused(Problem("name", " ".join(words) or "the name is not free"))
        pair = pairing.there if pairing else None
        if pairing and pair:
            pairs.link(actor=actor, audience=audience, suppression=pair)
        elif pairing:
            pair = pairs.make(actor=actor, audience=audience, days=pairing.days, event=pairing.event)
    return Taken(draft, before.outline != made, pair)
