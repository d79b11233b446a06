"""Excluding one audience's people from another: a suppression audience is linked, any other is left out by a new version. And taking it back."""

from dataclasses import dataclass

from django.db import transaction

from audiences import exclusions, vocabulary
from audiences.impact import Impact
from audiences.models import Audience, SegmentVersion, User
from audiences.segments import grammar
from audiences.services import audiences, gate, versions
from audiences.services.audiences import AudienceRefused, held
from audiences.vocabulary import Problem


@dataclass(frozen=True, slots=True)
class Done:
    """`version` None: linked or unlinked. `again`: it was so already, and nothing was changed."""

    version: SegmentVersion | None = None
    again: bool = False

    @property
    def waits(self) -> bool:
        """For the end of a test."""
        return self.version is not None and self.version.publish_at is not None

    @property
    def in_review(self) -> bool:
        """For a second person."""
        return self.version is not None and self.version.state == SegmentVersion.State.IN_REVIEW and not self.waits


def exclude(
    *, actor: User | None, audience: Audience, other: Audience, seen: int, reason: str, when_free: bool = False
) -> Done:
    """Leave `other`'s people out of `audience`. `seen`: the number of the version that was looked at. `when_free`: once its test ends.

    Asking twice makes one version. Raises AudienceRefused, with nothing changed: another version went live meanwhile, a draft of it
    is open that this would overwrite, references in a circle, an owner missing, a test going on.
    """
    impact = _impact(audience, other)
    with transaction.atomic():
        row = held(audience)
        if _excluded(row, other):
            return Done(again=True)
        if other.purpose == Audience.Purpose.SUPPRESSION:
            if row.purpose == Audience.Purpose.SUPPRESSION:
                raise AudienceRefused(Problem("", "suppression audiences are sent whole"))
            if other.live_version_id is None:
                raise AudienceRefused(Problem("", f'"{other.key}" has no published rule yet'))
            audiences.link_suppression(actor=actor, audience=row, suppression=other, reason=reason)
            return Done()
        if row.purpose == Audience.Purpose.SUPPRESSION:
            raise AudienceRefused(Problem("", f'"{row.key}" keeps people out of advertising; change its rule instead'))
        live = _unchanged(row, seen)
        tree = exclusions.excluding(vocabulary.rule(live.segment), other.key)
        draft = versions.save_draft(actor=actor, audience=row, segment=grammar.to_json(tree))
        publish = versions.publish_when_free if when_free else versions.publish
        return Done(publish(actor=actor, version=draft, reason=reason, impact=impact))


def take_back(*, actor: User | None, audience: Audience, other: Audience, seen: int, reason: str) -> Done:
    """As it was before: unlinked, or a copy of the version before. Asking twice makes one version. Raises AudienceRefused."""
    with transaction.atomic():
        row = held(audience)
        if not _excluded(row, other):
            return Done(again=True)
        if row.excluded_by.filter(pk=other.pk).exists():
            audiences.unlink_suppression(actor=actor, audience=row, suppression=other, reason=reason)
            return Done()
        live = _unchanged(row, seen)
        version, before = exclusions.introduced(row, other.key)
        if version is None or before is None or version.pk != live.pk:
            raise AudienceRefused(
                Problem("", f"v{live.number} changed more than this; roll back on its page of versions")
            )
    return Done(versions.go_back(actor=actor, version=before, reason=reason, seen=live.number))


def _impact(audience: Audience, other: Audience) -> Impact | None:
    """What leaving them out would do: counted before anything is held. None where no rule would change."""
    live = Audience.objects.select_related("live_version").get(pk=audience.pk).live_version
    if live is None or other.purpose == Audience.Purpose.SUPPRESSION or _excluded(audience, other):
        return None
    return gate.look_at(audience, exclusions.excluding(vocabulary.rule(live.segment), other.key))


def _excluded(audience: Audience, other: Audience) -> bool:
    if audience.excluded_by.filter(pk=other.pk).exists():
        return True
    live = audience.live_version
    return live is not None and exclusions.excludes(vocabulary.rule(live.segment), other.key)


def _unchanged(audience: Audience, seen: int) -> SegmentVersion:
    """The live version, if it is the one that was looked at and nobody's draft would be lost."""
    live = audience.live_version
    if live is None:
        raise AudienceRefused(Problem("", f'"{audience.key}" has no published rule yet'))
    if live.number != seen:
        raise AudienceRefused(Problem("", f"v{live.number} went live meanwhile; look at the numbers again"))
    if (draft := exclusions.open_draft(audience)) is not None:
        raise AudienceRefused(Problem("", exclusions.in_the_way(draft)))
    return live
