"""A bulk renaming with its names on platforms: held against what is called so there, carried out, told. Audiences are services/renames.py's
of the floor below."""

from collections.abc import Iterable, Sequence

from audiences import jobs
from audiences.models import Renaming, User
from audiences.naming import NamingRefused, Problem
from audiences.services import renames
from audiences.services.renames import TakenBack, Wish
from destinations import remotes, renaming
from destinations.models import TELLS, Mapping


def carry_out(*, actor: User | None, wishes: Sequence[Wish], reason: str = "", at_once: bool = False) -> Renaming:
    """Rename all of these audiences, or none; platforms follow at their next sync, or `at_once` by a job. Raises NamingRefused, each problem
    at an audience's key."""
    planned = {one.key: one for one in renaming.plan([wish.key for wish in wishes])}
    there = [
        Problem(wish.key, planned[wish.key].rename.conflict)
        for wish in wishes
        if wish.key in planned and planned[wish.key].rename.conflict
    ]
    if there:
        raise NamingRefused(*there)
    made = renames.carry_out(actor=actor, wishes=wishes, reason=reason)
    if at_once:
        tell(row["key"] for row in made.names)
    return made


def take_back(*, actor: User | None, renaming_id: int, reason: str = "") -> TakenBack:
    """Give back the names of before, and tell the platforms at once, as they may have been told the others. Raises NamingRefused."""
    taken = renames.take_back(actor=actor, renaming_id=renaming_id, reason=reason)
    tell(taken.renamed)
    return taken


def tell(keys: Iterable[str]) -> int:
    """Have these audiences' platforms told their names soon, without a sync; how many connections are asked for."""
    rows = Mapping.objects.filter(audience__key__in=list(keys), state__in=TELLS, lost="")
    numbers = list(rows.exclude(remote_id="").values_list("pk", flat=True))
    for pk in numbers:
        jobs.ask(remotes.LOOK, pk, queue="sync")
    return len(numbers)
