"""What the rule builder shows: the outline with its problems at their fields, and what its fields may say, from what the store has seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audiences import findings, suggestions
from audiences.models import Audience
from audiences.segments import explain, outline
from audiences.segments.lint import Finding
from audiences.segments.outline import Item
from audiences.segments.outline_edits import MAX_DEPTH
from audiences.segments.outline_items import GROUPS, ROOT, Problem, is_group, meant
from audiences.segments.tree import Node
from audiences.services import versions
from audiences.suggestions import Name, Offered

FIRST = {
    "event": "event",
    "attribute": "name",
    "known_for": "span",
    "audience": "key",
    "list": "key",
    "customerio": "number",
    "bucket": "salt",
}


@dataclass(frozen=True, slots=True)
class Place:
    """An item, step or condition as it is shown: `fields` as typed, `problems` by field; `lists` say which names its fields offer."""

    path: str
    fields: Item
    problems: Mapping[str, Problem]
    lists: Mapping[str, str]
    findings: tuple[Finding, ...] = ()
    level: int = 0
    index: int = 0
    of: int = 1
    word: str = ""  # between it and the one before
    items: tuple["Place", ...] = ()
    steps: tuple["Place", ...] = ()
    where: tuple["Place", ...] = ()

    @property
    def kind(self) -> str:
        return str(self.fields.get("kind", ""))

    @property
    def group(self) -> bool:
        return self.kind in GROUPS

    @property
    def excluded(self) -> bool:
        return self.fields.get("nots", 0) % 2 == 1

    @property
    def may_nest(self) -> bool:
        return self.level < MAX_DEPTH - 1

    @property
    def troubles(self) -> list[Problem]:
        """Its own, those of its steps and conditions among them; not those of what is in a group."""
        return [
            problem for path, problem in self.problems.items() if path == self.path or path.startswith(f"{self.path}.")
        ]


@dataclass(frozen=True, slots=True)
class Editing:
    """An outline to be shown, its tree if it is whole."""

    outline: Item
    tree: Node | None
    problems: tuple[Problem, ...]
    root: Place
    names: Mapping[str, Sequence[Name]]

    @property
    def sentence(self) -> str:
        return explain.sentence(self.tree) if self.tree is not None else ""

    @property
    def wrong(self) -> bool:
        """Whether something is wrong, rather than not yet there."""
        return any(not problem.missing for problem in self.problems)


def of(audience: Audience, edited: Item) -> Editing:
    """The outline with everything that is missing, wrong or unknown here."""
    tree, problems = outline.tree_of(edited)
    if tree is not None:
        problems = tuple(
            Problem(outline.field_of(edited, found.path), f"{found.words[:1].upper()}{found.words[1:]}.")
            for found in versions.problems_of(audience, tree)
        )
    by_field: dict[str, Problem] = {}
    for problem in problems:
        by_field.setdefault(problem.path, problem)
    offered = suggestions.of(edited)
    doubts: dict[str, list[Finding]] = {}
    for doubt in findings.of(audience, tree) if tree is not None and not problems else ():
        doubts.setdefault(outline.place_of(edited, doubt.path) if doubt.path else ROOT, []).append(doubt)
    root = _Shown(_by_item(by_field), doubts, offered).place(edited, ROOT)
    return Editing(edited, tree, problems, root, offered.lists)


def fixed(audience: Audience, edited: Item, which: str) -> Item:
    """Without the finding `code:path`; as it is, where there is no such finding any more or it has no fix."""
    tree, _ = outline.tree_of(edited)
    found = findings.of(audience, tree) if tree is not None else ()
    fix = next((doubt.fix for doubt in found if f"{doubt.code}:{doubt.path}" == which), None)
    return outline.of_tree(fix) if fix is not None else edited


def focus_of(edited: Item, place: str) -> str:
    """The field that the focus goes to when it is to be at a place."""
    if "." in place:
        head, _, last = place.rpartition(".")
        return (
            f"{place}.event"
            if last.startswith("step")
            else f"{place}.name"
            if last.startswith("where")
            else place
            if head
            else ""
        )
    item = dict(outline.walk(edited)).get(place)
    if item is None:
        return ""
    return f"{place}.{FIRST.get(item['kind'], 'kind')}"


def _by_item(problems: Mapping[str, Problem]) -> dict[str, dict[str, Problem]]:
    made: dict[str, dict[str, Problem]] = {}
    for path, problem in problems.items():
        made.setdefault(path.split(".")[0], {})[path] = problem
    return made


@dataclass(frozen=True, slots=True)
class _Shown:
    """What stands beside items: problems and findings by item, and what fields offer."""

    problems: Mapping[str, Mapping[str, Problem]]
    findings: Mapping[str, list[Finding]]
    offered: Offered

    def place(self, item: Item, path: str, level: int = 0, index: int = 0, of: int = 1, word: str = "") -> Place:
        own, doubts = self.problems.get(path, {}), tuple(self.findings.get(path, ()))
        if is_group(item):
            joined = "and" if item["kind"] == "all" else "or"
            inner = tuple(
                self.place(one, f"{path}-{at}", level + 1, at, len(item["items"]), joined if at else "")
                for at, one in enumerate(item["items"])
            )
            return Place(path, item, own, {}, doubts, level, index, of, word, items=inner)
        steps = tuple(
            Place(
                at := f"{path}.step{n}",
                step,
                own,
                self.offered.of(step),
                index=n,
                of=len(item["steps"]),
                where=self.where(at, step, own),
            )
            for n, step in enumerate(item.get("steps", ()))
        )
        where = self.where(path, item, own)
        return Place(path, item, own, self.offered.of(item), doubts, level, index, of, word, steps=steps, where=where)

    def where(self, path: str, holder: Item, own: Mapping[str, Problem]) -> tuple[Place, ...]:
        found, event = holder.get("where", ()), meant(holder.get("event", "")) or "*"
        return tuple(
            Place(f"{path}.where{n}", one, own, self.offered.of(one, event), index=n, of=len(found))
            for n, one in enumerate(found)
        )
