"""What the pages about people read: one person masked or whole, and for each audience whether they are in, by which rules."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiences import bitmaps, masking, vocabulary
from audiences.models import Audience, Identity, Membership, Profile, ProfileKey
from audiences.people.biography import Biography
from audiences.segments import explain, grammar, judge
from audiences.segments.tree import All, Node, Not
from audiences.segments.tree import Any as AnyOf
from audiences.segments.values import text_of

# Identity's fields in the order in which pages show them, and their masks.
IDENTIFIERS: dict[str, tuple[str, Callable[[str], str]]] = {
    "external_id": ("Customer id", str),
    "email": ("E-mail", masking.email),
    "phone": ("Phone", masking.phone),
    "mobile_ad_id": ("Mobile advertising id", masking.word),
    "first_name": ("First name", masking.word),
    "last_name": ("Last name", masking.word),
    "country": ("Country", str),
    "zip": ("Postcode", masking.word),
}


NOT = "Not this"


@dataclass(frozen=True, slots=True)
class Fact:
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule or group in words, whether it holds, what it is made of, and its path in the tree (the root's is empty)."""

    words: str
    holds: bool
    children: tuple["Rule", ...] = ()
    path: str = ""

    def flat(self) -> Iterator["Rule"]:
        """It and everything in it, groups before their parts."""
        yield self
        for child in self.children:
            yield from child.flat()


@dataclass(frozen=True, slots=True)
class Standing:
    """One audience and one person. `counted` is what the last count said (None: never counted), `now` what the rule says this moment."""

    audience: Audience
    counted: bool | None
    now: bool | None
    rule: Rule | None
    problem: str = ""

    @property
    def decisive(self) -> tuple[Rule, ...]:
        """The smallest rules that decide: of a person who is in, those that hold; of one who is out, those that keep them out."""
        return decisive(self.rule) if self.rule else ()


def title(profile: Profile, keys: Sequence[ProfileKey]) -> str:
    """How a person is called on a page without naming them."""
    if profile.kind == Profile.Kind.ANONYMOUS:
        return f"Anonymous visitor {profile.profile_no}"
    known = next((key.value for key in keys if key.kind == "id"), "")
    return f"Person {known}" if known else f"Person no. {profile.profile_no}"


def masked_title(profile: Profile, keys: Sequence[ProfileKey]) -> str:
    """The same without the whole of an id, for pages that list people."""
    known = next((key.value for key in keys if key.kind == "id"), "")
    return f"Person {masking.identifier(known)}" if known else title(profile, keys)


def titles(numbers: Iterable[int]) -> dict[int, str]:
    """How pages that list people call each of these, masked; who does not exist is left out. Two queries."""
    profiles = Profile.objects.in_bulk(list(numbers))
    keys: dict[int, list[ProfileKey]] = {}
    for key in ProfileKey.objects.filter(profile_no__in=profiles, kind=ProfileKey.Kind.ID).order_by("value"):
        keys.setdefault(key.profile_no, []).append(key)
    return {number: masked_title(profile, keys.get(number, ())) for number, profile in profiles.items()}


def identifiers(identity: Identity | None, *, whole: bool) -> list[Fact]:
    if identity is None:
        return []
    return [
        Fact(label, getattr(identity, field) if whole else mask(getattr(identity, field)))
        for field, (label, mask) in IDENTIFIERS.items()
        if getattr(identity, field)
    ]


def attributes(values: Mapping[str, Any], *, whole: bool) -> list[Fact]:
    """By name; long ones cut at 200 characters."""
    facts = []
    for name in sorted(values, key=str.casefold):
        text = _text(values[name]) if whole else masking.value(name, _text(values[name]))
        facts.append(Fact(name, text if len(text) <= 200 else f"{text[:200]}…"))
    return facts


def standings(life: Biography, keys: Sequence[str] | None = None) -> list[Standing]:
    """Every audience that is counted (or those named): those the person is in first."""
    audiences = Audience.objects.filter(archived_at=None, live_version__isnull=False).select_related("live_version")
    if keys is not None:
        audiences = audiences.filter(key__in=keys)
    rules = vocabulary.live_rules()
    members = {
        row.audience_id: life.profile.profile_no in bitmaps.unpack(row.members)
        for row in Membership.objects.filter(audience__in=audiences).only("audience_id", "members")
    }
    found = [_standing(audience, rules, members.get(audience.pk), life) for audience in audiences]
    return sorted(found, key=lambda standing: (not standing.now, standing.audience.key))


def _standing(audience: Audience, rules: Mapping[str, Node], counted: bool | None, life: Biography) -> Standing:
    if life.profile.state != Profile.State.LIVE or life.profile.kind != Profile.Kind.PERSON:
        return Standing(
            audience, counted, False, None, "Only people who are known by an id, e-mail or phone are in audiences."
        )
    tree = rules.get(audience.key)
    if tree is None:
        return Standing(audience, counted, None, None, "The rule cannot be read.")
    try:
        resolved = grammar.resolve(tree, rules)
    except grammar.Refused as refused:
        return Standing(audience, counted, None, None, str(refused))
    verdicts = judge.verdicts(resolved, life.person, life.as_of_us)
    rule = rule_of(resolved, verdicts)
    return Standing(audience, counted, rule.holds, rule)


def rule_of(tree: Node, verdicts: Mapping[str, bool]) -> Rule:
    """A resolved tree in words, with what judge.verdicts said of each part."""
    return _rule(tree, "", verdicts)


def decisive(rule: Rule) -> tuple[Rule, ...]:
    """The smallest rules that decide what the whole one says."""
    return tuple(_decisive(rule))


def _rule(node: Node, path: str, verdicts: Mapping[str, bool]) -> Rule:
    dot = "." if path else ""
    match node:
        case All(items) | AnyOf(items):
            word = "all" if isinstance(node, All) else "any"
            children = tuple(_rule(item, f"{path}{dot}{word}[{index}]", verdicts) for index, item in enumerate(items))
            return Rule("All of these" if word == "all" else "At least one of these", verdicts[path], children, path)
        case Not(item):
            return Rule(NOT, verdicts[path], (_rule(item, f"{path}{dot}not", verdicts),), path)
        case _:
            return Rule(in_words(node), verdicts[path], path=path)


def _decisive(rule: Rule) -> list[Rule]:
    """Down into groups, along the children that agree with their group; below a “not” the whole of it decides."""
    if rule.words == NOT:
        return [Rule(f"not ({rule.children[0].words})", rule.holds, path=rule.path)]
    if not rule.children:
        return [rule]
    return [found for child in rule.children if child.holds == rule.holds for found in _decisive(child)]


def in_words(leaf: Node) -> str:
    """The sentence of a rule without its subject: “Did “purchase” at least twice, ever”."""
    words = explain.sentence(leaf).removeprefix("People ").rstrip(".")
    if words.startswith("who "):
        words = words.removeprefix("who ")
        return words[:1].upper() + words[1:]
    return words.removeprefix("whose ")  # it begins with an attribute's name, which is not ours to capitalise


def _text(value: Any) -> str:
    text = text_of(value)
    return "" if text is None else text
