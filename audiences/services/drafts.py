"""Drafts as they are edited: every change is kept as a step that can be undone, and who edits an older draft is told so, nothing lost.

Every function takes the acting user first, by keyword. A draft has a `revision`, raised by every save, undo and redo.
"""

from dataclasses import dataclass

from django.db import transaction
from django.db.models import F, Max

from audiences import replacements, vocabulary
from audiences.models import Audience, DraftStep, SegmentVersion, User
from audiences.segments import explain, grammar, outline
from audiences.segments.outline import Item
from audiences.segments.tree import KnownFor, Node, Not
from audiences.services import trail
from audiences.services.audiences import AudienceRefused, held, not_archived
from audiences.vocabulary import Problem

MAX_STEPS = 50
MAX_TEXT = 2_000_000
NOBODY = Not(KnownFor(60_000_000))  # stands for a first rule for as long as it says nothing
UNFINISHED = "A rule that is not finished yet."


class Conflict(Exception):
    """Somebody has saved the draft since the reader read it, or published or discarded it; `now` is how it stands."""

    def __init__(self, now: "Draft") -> None:
        super().__init__("the draft has been changed meanwhile")
        self.now = now


@dataclass(frozen=True, slots=True)
class Draft:
    """What is edited. `version` None: there is no draft yet; the outline is the live rule's, or an empty one."""

    version: SegmentVersion | None
    outline: Item
    can_undo: bool = False
    can_redo: bool = False

    @property
    def number(self) -> int:
        return self.version.number if self.version else 0

    @property
    def revision(self) -> int:
        return self.version.revision if self.version else 0

    @property
    def saved(self) -> DraftStep | None:
        return (
            self.version.steps.filter(number=self.version.step).select_related("author").first()
            if self.version
            else None
        )


def current(audience: Audience) -> Draft:
    """The draft as it stands. Four queries."""
    version = _draft_of(audience)
    if version is None:
        live = audience.live_version
        return Draft(None, outline.of_tree(vocabulary.rule(live.segment)) if live else outline.empty())
    ends = version.steps.aggregate(last=Max("number"))
    return Draft(
        version,
        _outline(version),
        can_undo=version.steps.filter(number__lt=version.step).exists(),
        can_redo=(ends["last"] or 0) > version.step,
    )


def save(*, actor: User, audience: Audience, edited: Item, number: int, revision: int) -> Draft:
    """Keep the outline as a further step of the draft with this number (0: there was none) and revision.

    Raises Conflict where it is not that any more, unless it says the same; AudienceRefused for an archived audience and a rule too large."""
    if len(str(edited)) > MAX_TEXT:
        raise AudienceRefused(Problem("", "the rule is too long to be kept"))
    if words := outline.too_large(edited):
        raise AudienceRefused(Problem("", words))
    with transaction.atomic():
        audience = held(audience)
        not_archived(audience)
        now = current(audience)
        if now.outline == edited:
            return now
        if (now.number, now.revision) != (number, revision):
            raise Conflict(now)
        version = now.version or _begin(actor, audience, now.outline)
        _keep_what_stands(actor, version, now.outline)
        version.steps.filter(number__gt=version.step).delete()
        version.step += 1
        version.steps.create(number=version.step, outline=edited, author=actor)
        version.steps.filter(number__lte=version.step - MAX_STEPS).delete()
        _say(version, edited, actor)
    return current(audience)


def undo(*, actor: User, audience: Audience, number: int, revision: int) -> Draft:
    """The step before. Raises Conflict as `save` does."""
    return _step(actor, audience, number, revision, -1)


def redo(*, actor: User, audience: Audience, number: int, revision: int) -> Draft:
    """The step that was undone. Raises Conflict as `save` does."""
    return _step(actor, audience, number, revision, 1)


def _step(actor: User, audience: Audience, number: int, revision: int, by: int) -> Draft:
    with transaction.atomic():
        audience = held(audience)
        not_archived(audience)
        now = current(audience)
        if (now.number, now.revision) != (number, revision):
            raise Conflict(now)
        version = now.version
        step = version.steps.filter(number=version.step + by).first() if version else None
        if version is None or step is None:
            return now
        version.step = step.number
        _say(version, step.outline, actor)
    return current(audience)


def _draft_of(audience: Audience) -> SegmentVersion | None:
    return audience.versions.filter(state=SegmentVersion.State.DRAFT).order_by("-number").first()


def _outline(version: SegmentVersion) -> Item:
    """As it was typed, where it was last written by the editor; else as the rule says."""
    if version.outline is not None:
        return dict(version.outline)
    tree = vocabulary.rule(version.segment)
    step = version.steps.filter(number=version.step).first()
    typed = outline.tree_of(step.outline)[0] if step else None
    return step.outline if step and typed == tree else outline.of_tree(tree)


def _begin(actor: User, audience: Audience, before: Item) -> SegmentVersion:
    version = SegmentVersion(audience=audience, number=replacements.next_number(audience), author=actor)
    _fill(version, outline.tree_of(before)[0] or NOBODY)
    version.save()
    trail.record(actor, "audience.drafted", "audience", audience.key, after={"version": version.number})
    return version


def _keep_what_stands(actor: User, version: SegmentVersion, stands: Item) -> None:
    """The first step is what was there before; so is what came by another way than the editor."""
    step = version.steps.filter(number=version.step).first()
    if step is None or step.outline != stands:
        version.steps.filter(number__gt=version.step).delete()
        version.step += 1
        version.steps.create(number=version.step, outline=stands, author=version.author)


def _say(version: SegmentVersion, edited: Item, actor: User) -> None:
    tree, _ = outline.tree_of(edited)
    version.outline = None if tree is not None else edited
    if tree is not None:
        _fill(version, tree)
    elif vocabulary.rule(version.segment) == NOBODY:
        version.sentence = UNFINISHED
    if version.author_id != actor.pk:
        version.author = actor
        trail.record(actor, "audience.drafted", "audience", version.audience.key, after={"version": version.number})
    version.revision = F("revision") + 1
    version.save()


def _fill(version: SegmentVersion, tree: Node) -> None:
    version.segment, version.sha256 = grammar.canonical(tree), grammar.sha256(tree)
    version.sentence = explain.sentence(tree)
