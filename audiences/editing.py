"""What the rule builder shows: the outline with its problems at their fields, and what its fields may say, from what the store has seen."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from audiences import findings, vocabulary
from audiences.models import AttributeName, Audience, EventName, PersonList, PropertyName
from audiences.segments import explain, outline, recipes
from audiences.segments.lint import Finding
from audiences.segments.outline import Item
from audiences.segments.outline_edits import MAX_DEPTH
from audiences.segments.outline_items import GROUPS, ROOT, Problem, is_group
from audiences.segments.recipes import Recipe
from audiences.segments.tree import Node
from audiences.services import versions

OFFERED = 500  # names of a kind
FIRST = {
    "event": "event",
    "attribute": "name",
    "known_for": "span",
    "audience": "key",
    "list": "key",
    "customerio": "number",
    "bucket": "salt",
}
LIST_OF = {"event": "events", "name": "attributes"}


@dataclass(frozen=True, slots=True)
class Name:
    """A name that a field offers: when it was last seen, and how often in the last seven days. None: not known, or of no such kind."""

    name: str
    seen_us: int | None = None
    recent: int | None = None


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
    names: Mapping[str, list[Name]] = field(default_factory=dict)

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
    events = _events(edited)
    doubts: dict[str, list[Finding]] = {}
    for doubt in findings.of(audience, tree) if tree is not None and not problems else ():
        doubts.setdefault(outline.place_of(edited, doubt.path) if doubt.path else ROOT, []).append(doubt)
    shown = _Shown(_by_item(by_field), doubts, {event: f"properties-{n}" for n, event in enumerate(events)})
    root = shown.place(edited, ROOT)
    return Editing(edited, tree, problems, root, _names(events))


def offered(audience: Audience) -> tuple[Recipe, ...]:
    """The recipes to start from."""
    return recipes.for_purpose(audience.purpose)


def by_recipe(key: str) -> Item | None:
    """A recipe's rule with its usual numbers and this workspace's names. None: there is no such recipe. Raises ValueError in words."""
    recipe = recipes.RECIPES.get(key)
    if recipe is None:
        return None
    known = vocabulary.known()
    return outline.of_tree(versions.parse(recipe.rule({}, recipes.guess(recipe, known.events, known.properties))))


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
    """What stands beside items: problems and findings by item, and the lists of properties by event."""

    problems: Mapping[str, Mapping[str, Problem]]
    findings: Mapping[str, list[Finding]]
    properties: Mapping[str, str]

    def place(self, item: Item, path: str, level: int = 0, index: int = 0, of: int = 1, word: str = "") -> Place:
        own, doubts = self.problems.get(path, {}), tuple(self.findings.get(path, ()))
        if is_group(item):
            joined = "and" if item["kind"] == "all" else "or"
            inner = tuple(
                self.place(one, f"{path}-{at}", level + 1, at, len(item["items"]), joined if at else "")
                for at, one in enumerate(item["items"])
            )
            return Place(path, item, own, {}, doubts, level, index, of, word, items=inner)
        event = item.get("event", "")
        kind = "segments" if item["kind"] == "customerio" else f"{item['kind']}s"
        lists = {**LIST_OF, "property": self.properties.get(event, ""), "key": kind, "number": kind}
        steps = tuple(
            Place(
                at := f"{path}.step{n}",
                step,
                own,
                LIST_OF,
                index=n,
                of=len(item["steps"]),
                where=self.where(at, step, own),
            )
            for n, step in enumerate(item.get("steps", ()))
        )
        where = self.where(path, item, own)
        return Place(path, item, own, lists, doubts, level, index, of, word, steps=steps, where=where)

    def where(self, path: str, holder: Item, own: Mapping[str, Problem]) -> tuple[Place, ...]:
        found, known = holder.get("where", ()), self.properties.get(holder.get("event", ""), "")
        return tuple(
            Place(f"{path}.where{n}", one, own, {"name": known}, index=n, of=len(found)) for n, one in enumerate(found)
        )


def _events(edited: Item) -> list[str]:
    """Those that are named, each once."""
    named: dict[str, None] = {}
    for _, item in outline.walk(edited):
        for holder in (item, *item.get("steps", ())):
            if holder.get("event"):
                named[holder["event"]] = None
    return list(named)


def _names(events: list[str]) -> dict[str, list[Name]]:
    """What fields offer, by the id of the list; what was seen last comes first. Eight queries."""
    seen = ("name", "last_seen_us")
    lately = findings.known().events
    audiences = Audience.objects.filter(archived_at=None, live_version__isnull=False).order_by("key")
    lists = list(PersonList.objects.order_by("key").values_list("key", "customerio_segment")[:OFFERED])
    made = {
        "events": [
            Name(name, last, lately[name].recent if name in lately else None)
            for name, last in EventName.objects.order_by("-last_seen_us").values_list(*seen)[:OFFERED]
        ],
        "attributes": [
            Name(*row) for row in AttributeName.objects.order_by("-last_seen_us").values_list(*seen)[:OFFERED]
        ],
        "audiences": [Name(key) for key in audiences.values_list("key", flat=True)[:OFFERED]],
        "lists": [Name(key) for key, _ in lists],
        "segments": [Name(str(number)) for _, number in lists if number is not None],
    }
    of_event: dict[str, list[Name]] = {}
    if events:
        rows = PropertyName.objects.filter(event__in=events[:OFFERED]).order_by("-last_seen_us")
        for event, name, last in rows.values_list("event", *seen)[: 10 * OFFERED]:
            of_event.setdefault(event, []).append(Name(name, last))
    return made | {f"properties-{n}": of_event.get(event, []) for n, event in enumerate(events)}
