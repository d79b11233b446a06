"""A rule under way in a set-up, by a recipe or as JSON: its sentence, what is wrong with it and where, and whom it would find now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db import transaction

from audiences import clock, vocabulary
from audiences.models import Audience, User
from audiences.people import engines
from audiences.people.engines.base import UnreadableLake
from audiences.segments import exits, explain, grammar, outline
from audiences.segments.recipes import Recipe
from audiences.segments.tree import Node
from audiences.services import audiences, drafts, gate, refreshes, versions
from audiences.services.audiences import AudienceRefused
from audiences.vocabulary import Problem
from destinations import identities
from destinations.connectors.base import Capabilities


@dataclass(frozen=True, slots=True)
class Draft:
    """`tree` None: it could not be read. With problems it cannot be published."""

    tree: Node | None
    problems: tuple[Problem, ...] = ()

    @property
    def sentence(self) -> str:
        return explain.sentence(self.tree) if self.tree is not None else ""

    @property
    def sound(self) -> bool:
        return self.tree is not None and not self.problems

    @property
    def entering(self) -> tuple[exits.Way, ...]:
        return exits.entering(self.tree) if self.tree is not None else ()

    @property
    def leaving(self) -> tuple[exits.Way, ...]:
        return exits.leaving(self.tree) if self.tree is not None else ()


@dataclass(frozen=True, slots=True)
class Reach:
    """How many of the people found have an identifier."""

    words: str
    people: int
    share: float | None


@dataclass(frozen=True, slots=True)
class Found:
    """Whom a rule finds at a moment, of how many people there are. `trouble`: why it could not be counted."""

    people: int | None
    of: int
    as_of_us: int
    reach: tuple[Reach, ...] = ()
    trouble: str = ""

    @property
    def share(self) -> float | None:
        return self.people / self.of if self.people is not None and self.of else None


def by_recipe(recipe: Recipe, numbers: Mapping[str, int], names: Mapping[str, str], audience: Audience | None) -> Draft:
    """Its rule, checked. Words of a number out of its limits are a problem at no place in the rule."""
    try:
        tree = grammar.parse(recipe.rule(numbers, names))
    except grammar.Refused as refused:
        return Draft(None, (Problem(refused.path, refused.words),))
    except ValueError as error:
        return Draft(None, (Problem("", str(error)),))
    return _checked(tree, audience)


def by_text(text: str, audience: Audience | None) -> Draft:
    """A rule as JSON text, checked; each problem with its place."""
    try:
        tree = grammar.loads(text)
    except grammar.Refused as refused:
        return Draft(None, (Problem(refused.path, refused.words),))
    return _checked(tree, audience)


def count(
    tree: Node, audience: Audience | None, platform: Capabilities | None, identifiers: Sequence[str] = ()
) -> Found:
    """Whom it finds now, and who of them has these identifiers: exact, nothing is kept. The rule is sound."""
    resolved = vocabulary.resolved(tree, audience.key if audience else "")
    with refreshes.pinned(clock.now_us()) as pin:
        try:
            found = refreshes.members_of(resolved, pin)
            of = len(engines.current().universe(pin))
        except UnreadableLake:
            return Found(None, 0, pin.as_of_us, trouble="Files of the event history could not be read. Count again.")
    reach: tuple[Reach, ...] = ()
    if platform is not None:
        known = identities.coverage(found)
        reach = tuple(
            Reach(words.split(" (")[0], known[kind], known[kind] / len(found) if found else None)
            for kind, words in platform.identifiers.items()
            if kind in identifiers
        )
    return Found(len(found), of, pin.as_of_us, reach)


def publish(
    *,
    actor: User,
    audience: Audience | None,
    tree: Node,
    key: str,
    purpose: str,
    name: str = "",
    description: str = "",
    seen: int = 0,
    reason: str = "",
) -> Audience:
    """The audience (made where there is none yet) with this rule live. `seen` is the number of the live version that the actor had before
    them. Whoever makes it owns it until step 7 says otherwise. A change that needs a second person is left in review, and what was live
    stays. Raises AudienceRefused and changes nothing."""
    impact = gate.look_at(audience, tree) if audience else None  # counted before anything is held
    with transaction.atomic():
        if audience is None:
            audience = _made(actor, key=key, purpose=purpose, name=name, description=description)
        live = audience.live_version
        if live and live.sha256 == grammar.sha256(tree):
            return audience  # published already, by the first of two clicks
        if (live.number if live else 0) != seen:
            words = f"somebody has published version {live.number if live else 0} meanwhile; look at it before yours replaces it"
            raise AudienceRefused(Problem("", words))
        draft = versions.save_draft(actor=actor, audience=audience, segment=tree)
        versions.publish(actor=actor, version=draft, reason=reason or "First version, from the set-up", impact=impact)
    return Audience.objects.select_related("live_version").get(pk=audience.pk)


def begin(
    *,
    actor: User,
    audience: Audience | None,
    steps: Sequence[Node],
    key: str,
    purpose: str,
    name: str = "",
    description: str = "",
) -> Audience:
    """The audience (made where there is none yet) with a draft that has become what the last of these says, each a step that can be undone.
    Whoever makes it owns it until step 7 says otherwise. Raises AudienceRefused and changes nothing."""
    with transaction.atomic():
        if audience is None:
            audience = _made(actor, key=key, purpose=purpose, name=name, description=description)
        for tree in steps:
            now = drafts.current(audience)
            drafts.save(
                actor=actor, audience=audience, edited=outline.of_tree(tree), number=now.number, revision=now.revision
            )
    return audience


def _made(actor: User, *, key: str, purpose: str, name: str, description: str) -> Audience:
    """Whoever makes it answers for it, until somebody says otherwise."""
    return audiences.create(
        actor=actor,
        key=key,
        purpose=purpose,
        name=name,
        description=description,
        definition_owner=actor,
        sync_owner=actor,
        alert_owner=actor,
    )


def _checked(tree: Node, audience: Audience | None) -> Draft:
    problems = versions.problems_of(audience or Audience(key=""), tree)
    return Draft(tree, tuple(sorted(problems, key=lambda problem: problem.path)))
