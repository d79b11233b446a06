"""Which audiences would be called otherwise by the convention, and what stands in the way. Reads only; services/renames.py renames.

What becomes of their names on platforms is destinations/renaming.py's.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from audiences import conformance
from audiences.models import Audience
from audiences.naming import NamingRefused
from audiences.services import naming as service

MANY_NAMES = "Another audience has this name, and its rule and parts make no other."


@dataclass(frozen=True, slots=True)
class Rename:
    """`after` is empty where the convention cannot build a name; `conflict` says why it cannot be renamed so, empty: it can."""

    audience: Audience
    after: str
    tokens: dict[str, str] = field(default_factory=dict)
    why: tuple[str, ...] = ()
    conflict: str = ""

    @property
    def before(self) -> str:
        return self.audience.name


def plan(keys: Collection[str] = ()) -> list[Rename]:
    """Of these audiences, or of all, those whose name does not follow; what can be renamed first. A fixed number of queries."""
    convention = service.current()
    if convention is None:
        return []
    everybody = conformance.audiences()
    twins = conformance.doubled(everybody)
    rows = [conformance.of(audience, convention, twins) for audience in everybody]
    found = [_of(row) for row in rows if row.to_fix and (not keys or row.audience.key in keys)]
    wishes = {rename.audience.pk: rename.after for rename in found if rename.after and not rename.conflict}
    # What everybody would be called if all of it were done: two with one name are in each other's way.
    after = Counter(wishes.get(audience.pk, audience.name) for audience in everybody)
    holders: dict[str, list[str]] = {}
    for audience in everybody:
        holders.setdefault(wishes.get(audience.pk, audience.name), []).append(audience.key)
    checked = [_alone(rename, after, holders) for rename in found]
    return sorted(checked, key=lambda rename: bool(rename.conflict))


def _of(row: conformance.Row) -> Rename:
    audience, convention, tokens = row.audience, row.convention, row.proposed
    assert convention is not None
    chosen, number = service.plain(convention, tokens), service.number_of(audience)
    try:
        name = service.built(convention, chosen, number)
    except NamingRefused as refused:
        return Rename(audience, "", chosen, row.why, _words(refused))
    if name == audience.name:
        return Rename(audience, "", chosen, row.why, MANY_NAMES if row.state == conformance.TWIN else " ".join(row.why))
    try:
        service.fits_everywhere(convention, chosen, number)
    except NamingRefused as refused:
        return Rename(audience, name, chosen, row.why, _words(refused))
    if left := service.contradictions(convention, audience, chosen):
        words = f"{left[0]} No allowed value says what the rule says: choose one, or say why it differs."
        return Rename(audience, name, chosen, row.why, words)
    return Rename(audience, name, chosen, row.why)


def _words(refused: NamingRefused) -> str:
    return " ".join(problem.words for problem in refused.problems)


def _alone(rename: Rename, after: Counter[str], holders: dict[str, list[str]]) -> Rename:
    if rename.conflict or after[rename.after] < 2:
        return rename
    others = [key for key in holders[rename.after] if key != rename.audience.key]
    words = f"{', '.join(others[:3])} would have the name “{rename.after}” too: choose other parts for one of them."
    return Rename(rename.audience, rename.after, rename.tokens, rename.why, words)
