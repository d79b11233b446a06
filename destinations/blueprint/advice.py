"""What is doubtful about the rules that a file brings: said beside the plan, and stopping nothing. What a finding is, is segments/lint.py's."""

from dataclasses import replace

from audiences import findings
from audiences.findings import USUAL_CADENCE, Pace
from audiences.models import Audience
from audiences.segments import lint
from destinations import models, paces
from destinations.blueprint.notation import Advice
from destinations.blueprint.planning import Planner


def of(planner: Planner) -> tuple[Advice, ...]:
    """As everything will be once the file is applied. The same few queries for any number of rules."""
    rules = {entry.key: entry.segment for entry in planner.file.audiences if entry.segment is not None}
    if not rules:
        return ()
    known = findings.known()
    known = replace(known, rules={**known.rules, **rules})
    cadences, latencies = _paces(planner)
    linked: dict[str, list[str]] = {}
    for key, suppression in Audience.objects.filter(excluded_by__isnull=False).values_list("key", "excluded_by__key"):
        linked.setdefault(key, []).append(suppression)
    said: list[Advice] = []
    for entry in planner.file.audiences:
        if entry.segment is None:
            continue
        row = planner.audience_rows.get(entry.key)
        facts = known.facts(
            entry.purpose or (row.purpose if row else ""),
            cadence_seconds=entry.cadence or (row.cadence_seconds if row else USUAL_CADENCE),
            pace=Pace(max(cadences.get(entry.key, {}).values(), default=0), latencies.get(entry.key, 0)),
            excluded_by=linked.get(entry.key, ()) if entry.excluded_by is None else entry.excluded_by,
        )
        said += [Advice(entry.key, finding) for finding in lint.findings(entry.segment, facts)]
    return tuple(said)


def _paces(planner: Planner) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """(audience → destination → seconds, as the file will have it; audience → µs that sending took lately)."""
    cadences: dict[str, dict[str, int]] = {}
    rows = models.Mapping.objects.exclude(state=models.Mapping.State.RETIRED)
    for key, destination, cadence in rows.values_list("audience__key", "destination__key", "cadence_seconds"):
        cadences.setdefault(key, {})[destination] = cadence
    for entry in planner.file.mappings:
        if entry.cadence is not None:
            cadences.setdefault(entry.audience, {})[entry.destination] = entry.cadence
    ids = {row.pk: key for key, row in planner.audience_rows.items()}
    return cadences, {ids[pk]: took for pk, took in paces.latencies(ids).items()}
