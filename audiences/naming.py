"""Names by convention: of which parts a name is made, built and read back. Pure; the workspace's own convention is services/naming.py's.

A part's value holds no separator and begins and ends with a letter or digit, so a name falls apart in one way only; and a convention
in which two optional parts could be mistaken for each other is refused. Hence parse(build(x)) == x.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

CHANNEL, CHOICE, WINDOW, TEXT, VERSION = KINDS = ("channel", "choice", "window", "text", "version")
LONGEST = 200  # characters that an audience's name may have here, whatever a platform allows
SHORTEST = 20  # a limit below this leaves no room for a name
MOST_TOKENS, MOST_VALUES, MOST_IN_ALL = 12, 100, 300
RESERVED = ("own_name", "name_reason", "rule_reason")  # fields of the form that builds a name
COMMON_WINDOWS = ("1h", "24h", "3d", "7d", "14d", "30d", "60d", "90d", "180d", "365d", "ever")
SEPARATOR = re.compile(r"[._+~|:-]{1,3}")
NAME = re.compile(r"[a-z][a-z0-9_]{0,29}")
VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,38}[A-Za-z0-9])?")
FORMS = {
    WINDOW: re.compile(r"[1-9][0-9]{0,3}[mhd]|ever"),
    TEXT: re.compile(r"[A-Za-z0-9]{1,40}"),
    VERSION: re.compile(r"v[1-9][0-9]{0,5}"),
}
FROM_TO = re.compile(r"([1-9][0-9]{0,3})-([1-9][0-9]{0,3})[mhd]")  # a window that ends before now
UNITS = {"m": "minute", "h": "hour", "d": "day"}


@dataclass(frozen=True, slots=True)
class Problem:
    """`path` is the place in the convention: `separator`, `tokens.1.values.0`, `lengths.meta`; or the token of a name."""

    path: str
    words: str

    def __str__(self) -> str:
        return self.words


class NamingRefused(Exception):
    """Each problem has its place and words."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Value:
    """One allowed value and what it means. Of a channel: `platform` is the kind of connector that it stands for."""

    value: str
    means: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """One part. A choice takes its `values`; a window takes them where there are any, else any time such as 24h or 30d."""

    name: str
    kind: str
    values: tuple[Value, ...] = ()
    optional: bool = False

    def takes(self, word: str) -> bool:
        if self.values or self.kind in (CHOICE, CHANNEL):
            return any(value.value == word for value in self.values)
        return is_window(word) if self.kind == WINDOW else bool(FORMS[self.kind].fullmatch(word))

    def means(self, word: str) -> str:
        """What this word says at this place, in words; empty where nobody has said."""
        said = next((value.means for value in self.values if value.value == word), "")
        if said or not self.takes(word):
            return said
        if self.kind == WINDOW:
            return window_words(word)
        return f"version {word[1:]} of the rule" if self.kind == VERSION else ""

    @property
    def allowed(self) -> str:
        """What may stand here, in words."""
        if self.values or self.kind in (CHOICE, CHANNEL):
            return _some([value.value for value in self.values]) or "nothing yet"
        return {
            WINDOW: "a time such as 24h, 4-24h or 365d, or ever",
            TEXT: "letters and digits, 40 at most",
            VERSION: "v and the number of the live version",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Convention:
    """`lengths`: kind of platform → most characters of a name there, where it is less than the platform's own."""

    separator: str
    tokens: tuple[Token, ...]
    lengths: Mapping[str, int] = field(default_factory=dict)

    def of_kind(self, kind: str) -> Token | None:
        return next((token for token in self.tokens if token.kind == kind), None)

    @property
    def pattern(self) -> str:
        """`{channel}_{intent}_{window}_v{version}`; what is optional stands in brackets."""
        parts = [f"{'v' if token.kind == VERSION else ''}{{{token.name}}}" for token in self.tokens]
        return self.separator.join(
            f"[{part}]" if token.optional else part for token, part in zip(self.tokens, parts, strict=True)
        )

    def short(self, channel: str) -> str:
        """What a platform is called in names; a short name is given back as it is."""
        token = self.of_kind(CHANNEL)
        values = token.values if token else ()
        return next((value.value for value in values if value.platform == channel), channel)

    def platform(self, short: str) -> str:
        """The kind of platform that is called so in names."""
        token = self.of_kind(CHANNEL)
        values = token.values if token else ()
        return next((value.platform or value.value for value in values if value.value == short), short)


@dataclass(frozen=True, slots=True)
class Part:
    """A word of a name, the token whose place it has, and what it means."""

    text: str
    token: str
    means: str


def starter(channels: Sequence[Value]) -> Convention:
    """The convention that a new workspace may begin with: channel, intent, window, version."""
    intents = (
        ("cart", "Put something in the cart and did not buy"),
        ("checkout", "Began a checkout and did not buy"),
        ("browse", "Looked at products, no cart"),
        ("search", "Searched in the shop"),
        ("repeat", "Bought twice or more"),
        ("winback", "Bought once, not for a long time"),
        ("vip", "The best customers"),
        ("purchasers", "Bought: kept out of ads"),
        ("seed", "Seed for lookalikes"),
    )
    windows = tuple(Value(window, window_words(window)) for window in COMMON_WINDOWS)
    return Convention(
        "_",
        (
            Token("channel", CHANNEL, tuple(channels)),
            Token("intent", CHOICE, tuple(Value(*intent) for intent in intents)),
            Token("window", WINDOW, windows),
            Token("version", VERSION),
        ),
    )


def is_window(word: str) -> bool:
    """24h, ever, or 4-24h, which begins nearer than it ends."""
    both = FROM_TO.fullmatch(word)
    return int(both[1]) < int(both[2]) if both else bool(FORMS[WINDOW].fullmatch(word))


def window_words(window: str) -> str:
    """24h → the last 24 hours; 4-24h → 4 to 24 hours ago."""
    if window == "ever":
        return "at any time"
    number, unit = window[:-1], UNITS[window[-1]]
    if "-" in number:
        return f"{number.replace('-', ' to ')} {unit}s ago"
    return f"the last {unit}" if number == "1" else f"the last {number} {unit}s"


# --- Building.


def build(
    convention: Convention,
    tokens: Mapping[str, str],
    *,
    channel: str = "",
    version: int | None = None,
    length: int | None = None,
) -> str:
    """The name that these values give. `channel`, a kind of platform, takes the place of the one among `tokens`; `version` is a number.

    Never cut: raises NamingRefused with every value that is missing or not allowed, and where the name is longer than `length`.
    """
    wrong, words = [], []
    for token in convention.tokens:
        word = _word(convention, token, tokens, channel, version)
        if word and convention.separator in word:
            wrong.append(Problem(token.name, f"“{word[:60]}” holds the separator “{convention.separator}”."))
        elif word and token.takes(word):
            words.append(word)
        elif word or not token.optional:
            wrong.append(Problem(token.name, _refusal(token, word)))
    if wrong:
        raise NamingRefused(*wrong)
    name = convention.separator.join(words)
    if not name:
        raise NamingRefused(Problem("", "Nothing of it is chosen."))
    if too_long := length_problem(name, length if length is not None else LONGEST):
        raise NamingRefused(Problem("", too_long))
    return name


def length_problem(name: str, length: int, where: str = "") -> str:
    """Empty, or that it is too long and by how much."""
    if len(name) <= length:
        return ""
    return f"“{name[:80]}” has {len(name)} characters{f' on {where}' if where else ''}; {length} fit. Choose shorter parts."


def _word(convention: Convention, token: Token, tokens: Mapping[str, str], channel: str, version: int | None) -> str:
    if token.kind == CHANNEL:
        return convention.short(channel or str(tokens.get(token.name, "")))
    if token.kind == VERSION:
        return f"v{version}" if version is not None else str(tokens.get(token.name, ""))
    return str(tokens.get(token.name, ""))


def _refusal(token: Token, word: str) -> str:
    if not word:
        return f"Choose the {token.name}: {token.allowed}."
    if token.values or token.kind in (CHOICE, CHANNEL):
        known = [value.value for value in token.values]
        near = difflib.get_close_matches(word, known, 1, 0.75)
        meant = f" Did you mean “{near[0]}”?" if near else ""
        return f"“{word[:60]}” is not one of the {_plural(token.name)}: {_some(known) or 'there are none yet'}.{meant}"
    return f"“{word[:60]}” is no {token.name}: that is {token.allowed}."


# --- Reading.


def parse(convention: Convention, name: str) -> dict[str, str] | None:
    """Token → value, with a channel as its kind of platform and a version as `v2`; None where the name does not follow."""
    words = name.split(convention.separator)
    found = next(_readings(convention.tokens, words, strict=True), None)
    if found is None:
        return None
    return {
        token.name: convention.platform(word) if token.kind == CHANNEL else word
        for token, word in found
        if word is not None
    }


def parts(convention: Convention, name: str) -> tuple[Part, ...]:
    """The name word by word, for whoever wants to know what it says. Empty where it does not follow the convention."""
    found = next(_readings(convention.tokens, name.split(convention.separator), strict=True), [])
    return tuple(Part(word, token.name, token.means(word)) for token, word in found if word is not None)


def problems(
    convention: Convention,
    name: str,
    tokens: Mapping[str, str] | None = None,
    *,
    version: int | None = None,
    length: int | None = None,
) -> list[str]:
    """Why this name does not follow, in words; empty: it does. With `version`, the version in it must be that one; with `tokens`, its
    values must be these."""
    read = parse(convention, name)
    if read is None:
        return _why(convention, name)
    return contradictions(convention, name, read, tokens, version=version, length=length)


def contradictions(
    convention: Convention,
    name: str,
    read: Mapping[str, str],
    tokens: Mapping[str, str] | None = None,
    *,
    version: int | None = None,
    length: int | None = None,
) -> list[str]:
    """What else is wrong with a name that `parse` could read: another version, other values than were chosen, too long."""
    found = []
    said = convention.of_kind(VERSION)
    if said and version is not None and read.get(said.name, f"v{version}") != f"v{version}":
        found.append(f"It says {read[said.name]}, and v{version} is live.")
    for token in convention.tokens:
        wanted = str((tokens or {}).get(token.name, ""))
        wanted = convention.platform(wanted) if token.kind == CHANNEL else wanted
        if tokens and token.kind != VERSION and wanted != read.get(token.name, ""):
            found.append(
                f"Its {token.name} is {wanted or 'left out'}, and the name says {read.get(token.name) or 'none'}."
            )
    if too_long := length_problem(name, length if length is not None else LONGEST):
        found.append(too_long)
    return found


def _readings(
    tokens: Sequence[Token], words: Sequence[str], *, strict: bool
) -> Iterator[list[tuple[Token, str | None]]]:
    """Each way in which the words fill the tokens; where not strict, whether or not they fit."""
    if not tokens:
        if not words:
            yield []
        return
    first, rest = tokens[0], tokens[1:]
    if words and (not strict or first.takes(words[0])):
        for found in _readings(rest, words[1:], strict=strict):
            yield [(first, words[0]), *found]
    if first.optional:
        for found in _readings(rest, words, strict=strict):
            yield [(first, None), *found]


def _why(convention: Convention, name: str) -> list[str]:
    words = name.split(convention.separator)
    least = sum(not token.optional for token in convention.tokens)
    most = len(convention.tokens)
    if not least <= len(words) <= most:
        need = f"{least}" if least == most else f"{least} to {most}"
        named = ", ".join(token.name + (" (optional)" if token.optional else "") for token in convention.tokens)
        return [f"It has {len(words)} part{'' if len(words) == 1 else 's'}, and a name has {need}: {named}."]
    readings = list(_readings(convention.tokens, words, strict=False))
    wrong = [
        [(token, word) for token, word in reading if word is not None and not token.takes(word)] for reading in readings
    ]
    return [_refusal(token, word) for token, word in min(wrong, key=len)]


def guess(convention: Convention, *texts: str, channel: str = "") -> dict[str, str]:
    """The values that these texts (a key, a name) seem to mean: exact words first, then such as are nearly one. What is not found is left out."""
    words = [word for text in texts for word in re.split(r"[^A-Za-z0-9]+", text) if word]
    found: dict[str, str] = {}
    for token in convention.tokens:
        if token.kind in (VERSION, TEXT):
            continue
        word = next((word for word in words if token.takes(word)), "")
        if not word and token.values:
            known = [value.value for value in token.values]
            near = (difflib.get_close_matches(word.lower(), known, 1, 0.8) for word in words)
            word = next((close[0] for close in near if close), "")
        if token.kind == CHANNEL:
            word = convention.platform(word) or channel
        if word:
            found[token.name] = word
    return found


# --- The convention itself.


def from_json(data: Mapping[str, Any], channels: Sequence[Value] = ()) -> Convention:
    """As it is kept or stands in a file: {"separator", "tokens": [{"name", "kind", "values": [{"value", "means"}], "optional"}], "lengths"}.

    `channels` are the platforms there are: those that the convention does not rename are called as they are. Unchecked: see `faults`.
    """
    tokens = []
    for row in data.get("tokens") or ():
        kind = str(row.get("kind") or row.get("name") or "")
        values = tuple(
            Value(str(one.get("value", "")), str(one.get("means", "")), str(one.get("platform", "")))
            for one in row.get("values") or ()
        )
        if kind == CHANNEL:
            values = channel_values(values, channels)
        tokens.append(Token(str(row.get("name", "")), kind, values, bool(row.get("optional"))))
    return Convention(str(data.get("separator", "_")), tuple(tokens), dict(data.get("lengths") or {}))


def channel_values(said: Sequence[Value], known: Sequence[Value]) -> tuple[Value, ...]:
    """Every platform, with the short name that the convention gives it."""
    by_platform = {value.platform or value.value: value for value in said}
    platforms = {value.platform or value.value: value for value in known}
    filled = []
    for platform, value in platforms.items():
        given = by_platform.pop(platform, None)
        filled.append(replace(value, value=given.value, means=given.means or value.means) if given else value)
    return (*filled, *(replace(value, platform=value.platform or value.value) for value in by_platform.values()))


def to_json(convention: Convention) -> dict[str, Any]:
    """What `from_json` reads."""
    return {
        "separator": convention.separator,
        "tokens": [
            _said(
                name=token.name,
                kind=token.kind,
                optional=token.optional,
                values=[_said(value=value.value, means=value.means, platform=value.platform) for value in token.values],
            )
            for token in convention.tokens
        ],
        "lengths": dict(convention.lengths),
    }


def _said(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def faults(convention: Convention, room: Mapping[str, int] | None = None) -> list[Problem]:
    """All that is wrong with a convention, each at its place. `room`: kind of platform → its own limit."""
    found: list[Problem] = []
    separator = convention.separator
    if not SEPARATOR.fullmatch(separator):
        found.append(Problem("separator", "must be 1 to 3 of the signs _ - . + ~ | :"))
    if not convention.tokens:
        found.append(Problem("tokens", "A name needs at least one part."))
    if len(convention.tokens) > MOST_TOKENS:
        found.append(Problem("tokens", f"There may be at most {MOST_TOKENS} parts."))
    if sum(len(token.values) for token in convention.tokens) > MOST_IN_ALL:
        found.append(Problem("tokens", f"There may be at most {MOST_IN_ALL} allowed values in all."))
    names: set[str] = set()
    kinds: set[str] = set()
    for number, token in enumerate(convention.tokens):
        path = f"tokens.{number}"
        if not NAME.fullmatch(token.name):
            found.append(Problem(f"{path}.name", "must be small letters, digits and _, beginning with a letter"))
        elif token.name in RESERVED:
            found.append(Problem(f"{path}.name", f"“{token.name}” is taken by Rollcall itself. Choose another."))
        elif token.name in names:
            found.append(Problem(f"{path}.name", f"There is another part called “{token.name}”."))
        names.add(token.name)
        if token.kind not in KINDS:
            found.append(Problem(f"{path}.kind", f"must be one of {', '.join(KINDS)}"))
            continue
        if token.kind in (CHANNEL, VERSION) and token.kind in kinds:
            found.append(Problem(f"{path}.kind", f"A name has one {token.kind} only."))
        kinds.add(token.kind)
        found += _value_faults(token, path, separator)
    if convention.tokens and all(token.optional for token in convention.tokens):
        found.append(Problem("tokens.0.optional", "At least one part must always be there."))
    for platform, length in convention.lengths.items():
        own = (room or {}).get(platform, LONGEST)
        if not isinstance(length, int) or isinstance(length, bool) or not SHORTEST <= length <= own:
            found.append(Problem(f"lengths.{platform}", f"must be a whole number from {SHORTEST} to {own}"))
    if not found and (pair := ambiguous(convention)):
        first, second = pair
        number = convention.tokens.index(second)
        found.append(
            Problem(
                f"tokens.{number}.optional",
                f"“{first.name}” and “{second.name}” could be mistaken for each other where one is left out."
                " Make them required, or let them take different values.",
            )
        )
    return found


def _value_faults(token: Token, path: str, separator: str) -> Iterator[Problem]:
    if token.kind == CHOICE and not token.values:
        yield Problem(f"{path}.values", "needs at least one allowed value")
    if token.kind in (TEXT, VERSION) and token.values:
        yield Problem(f"{path}.values", f"A {token.kind} takes no list of values.")
        return
    if len(token.values) > MOST_VALUES:
        yield Problem(f"{path}.values", f"may have at most {MOST_VALUES} values")
    seen: set[str] = set()
    for number, value in enumerate(token.values):
        where = f"{path}.values.{number}"
        if separator and separator in value.value:
            yield Problem(
                where, f"“{value.value[:40]}” holds the separator “{separator}”: names could not be read back."
            )
        elif not VALUE.fullmatch(value.value):
            yield Problem(where, "must be 1 to 40 letters, digits or . - + _, with a letter or digit at both ends")
        elif token.kind == WINDOW and not is_window(value.value):
            yield Problem(
                where, f"“{value.value[:40]}” is no window: that is a time such as 24h, 4-24h or 365d, or ever."
            )
        elif value.value in seen:
            yield Problem(where, f"“{value.value}” stands here twice.")
        elif token.kind == CHANNEL and any(
            other.platform == value.value and other.platform != value.platform for other in token.values
        ):
            yield Problem(where, f"“{value.value}” is another platform.")
        if len(value.means) > 200:
            yield Problem(where, "What it means must have at most 200 characters.")
        seen.add(value.value)


def ambiguous(convention: Convention) -> tuple[Token, Token] | None:
    """Two tokens that one word could fill, in names that could be read in two ways. None: every name reads in one way only.

    Two readings are walked side by side, word by word: (i, j) is how far each has come among the tokens.
    """
    tokens = convention.tokens
    end = len(tokens)

    def steps(at: int) -> Iterator[int]:
        for index in range(at, end):
            yield index
            if not tokens[index].optional:
                return

    def over(at: int) -> bool:
        return all(token.optional for token in tokens[at:])

    seen: set[tuple[int, int, bool]] = {(0, 0, False)}
    waiting: list[tuple[int, int, tuple[Token, Token] | None]] = [(0, 0, None)]
    while waiting:
        left, right, parted = waiting.pop()
        if parted and over(left) and over(right):
            return parted
        for one in steps(left):
            for other in steps(right):
                differs = parted or ((tokens[min(one, other)], tokens[max(one, other)]) if one != other else None)
                state = (one + 1, other + 1, differs is not None)
                if state not in seen and _share(tokens[one], tokens[other]):
                    seen.add(state)
                    waiting.append((one + 1, other + 1, differs))
    return None


def _share(one: Token, other: Token) -> bool:
    """Whether some word fits both."""
    for first, second in ((one, other), (other, one)):
        if first.values or first.kind in (CHOICE, CHANNEL):
            return any(second.takes(value.value) for value in first.values)
    return one.kind == other.kind or TEXT in (one.kind, other.kind)


def differences(before: Convention | None, after: Convention) -> list[str]:
    """What a change of the convention changes, in words."""
    if before is None:
        return [f"The first convention: {after.pattern}"]
    found = []
    if before.pattern != after.pattern:
        found.append(f"{before.pattern} becomes {after.pattern}")
    old = {token.name: token for token in before.tokens}
    for token in after.tokens:
        was = old.get(token.name)
        if was is None:
            continue
        if was.kind != token.kind:
            found.append(f"{token.name}: a {was.kind} becomes a {token.kind}")
        had, has = {v.value: v for v in was.values}, {v.value: v for v in token.values}
        if added := [value for value in has if value not in had]:
            found.append(f"{token.name}: {_some(added)} added")
        if removed := [value for value in had if value not in has]:
            found.append(f"{token.name}: {_some(removed)} removed")
        if said := [value for value in has if value in had and has[value].means != had[value].means]:
            found.append(f"{token.name}: the meaning of {_some(said)} changed")
        if [v for v in had if v in has] != [v for v in has if v in had]:
            found.append(f"{token.name}: values in another order")
    for platform in sorted({*before.lengths, *after.lengths}):
        was_long, is_long = before.lengths.get(platform), after.lengths.get(platform)
        if was_long != is_long:
            found.append(
                f"longest name on {platform}: {was_long or 'its own limit'} becomes {is_long or 'its own limit'}"
            )
    return found


def _some(values: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(values[:most])
    return f"{shown} and {len(values) - most} more" if len(values) > most else shown


def _plural(word: str) -> str:
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "ch", "sh")) else f"{word}s"
