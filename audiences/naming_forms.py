"""The two forms of names: building one from drop-downs, and the convention itself. What holds for commands too is services/naming.py's."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django import forms
from django.http import QueryDict

from audiences import channels, naming, rule_names
from audiences.models import Audience, User
from audiences.naming import Convention, NamingRefused, Problem, Token, Value
from audiences.segments.gist import Gist
from audiences.services import naming as service

REASON = "Say why it departs from the convention, for whoever asks later."


@dataclass(frozen=True, slots=True)
class OnPlatform:
    label: str
    name: str
    length: int
    room: int

    @property
    def fits(self) -> bool:
        return self.length <= self.room


@dataclass(frozen=True, slots=True)
class Built:
    """`name` is empty while parts are missing; `draft` then shows what there is, with … in the gaps."""

    name: str
    draft: str
    problems: tuple[str, ...]
    against: tuple[str, ...]  # what contradicts the rule, and has no reason yet
    departs: bool  # whether anything does, with a reason or without
    platforms: tuple[OnPlatform, ...]


class NameBuilder(forms.Form):
    """A name from drop-downs, never typed; or one of its own, with a reason. Where there is no convention, a free name.

    `NameBuilder.of(…)` makes one; after `is_valid()`, `name`, `tokens` and `key` are there and `save` names an audience. The page includes
    naming/builder.html#fields and answers the submit button "build" by showing the form again, unsaved: `build_only(request.POST)`.
    """

    own_name = forms.CharField(label="A name of its own", required=False, max_length=naming.LONGEST)
    name_reason = forms.CharField(label="Why it departs from the convention", required=False, max_length=500)
    rule_reason = forms.CharField(label="Why it says another than the rule", required=False, max_length=500)

    def __init__(
        self,
        data: Any = None,
        *,
        convention: Convention | None,
        audience: Audience | None = None,
        tokens: Mapping[str, str] | None = None,
        about: Gist | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, prefix="name", **kwargs)
        self.convention, self.audience, self.about = convention, audience, about
        says = rule_names.told(convention, about) if convention and about else {}
        self.version = service.number_of(audience) if audience else service.FIRST
        self.name = ""
        self.tokens: dict[str, str] = {}
        values = dict(tokens or {})
        for token in convention.tokens if convention else ():
            if token.kind != naming.VERSION:
                field = self.fields[token.name] = _field(token, values.get(token.name, ""))
                now = values.get(token.name, "")
                # A value that is allowed no more is not chosen: a browser would send nothing for it.
                gone = isinstance(field, forms.ChoiceField) and not field.valid_value(now)
                self.initial[token.name] = "" if gone else now
                if token.name in says:
                    field.help_text = f"The rule says {says[token.name]}."
        excepted = audience is not None and (bool(audience.name_reason) or convention is None)
        self.initial["own_name"] = audience.name if audience and excepted else ""
        self.initial["name_reason"] = audience.name_reason if audience else ""
        said = audience.name_overrides.values() if audience else ()
        self.initial["rule_reason"] = next((one.get("reason", "") for one in said), "")

    @classmethod
    def of(
        cls,
        audience: Audience | None = None,
        data: Any = None,
        *,
        channel: str = "",
        tokens: Mapping[str, str] | None = None,
        about: Gist | None = None,
    ) -> "NameBuilder":
        """For an audience, or a new one. `channel`: the kind of platform that is chosen already; `tokens`: what else is known; `about`: what
        the rule says, where it is not the audience's own."""
        convention = service.current()
        known: dict[str, str] = {}
        if convention is not None and audience is not None:
            about = about or service.gist_of(audience)
            known = service.tokens_of(convention, audience)
            if not known:
                guessed = naming.guess(convention, audience.name, audience.key)
                known = {**guessed, **(rule_names.told(convention, about) if about else {})}
        token = convention.of_kind(naming.CHANNEL) if convention else None
        if token and channel:
            known.setdefault(token.name, channel)
        return cls(data, convention=convention, audience=audience, tokens={**known, **(tokens or {})}, about=about)

    @staticmethod
    def build_only(data: Mapping[str, Any]) -> bool:
        """Whether only the built name was asked for, by the button that works without scripts."""
        return "build" in data

    def token_fields(self) -> list[tuple[Token, forms.BoundField | None]]:
        """Each token with its field; the version has none."""
        tokens = self.convention.tokens if self.convention else ()
        return [(token, self[token.name] if token.name in self.fields else None) for token in tokens]

    def chosen(self) -> dict[str, str]:
        """Token → what stands in its field now, right or wrong."""
        fields = [(token.name, bound) for token, bound in self.token_fields() if bound is not None]
        return {name: str(bound.value() or "").strip()[:100] for name, bound in fields}

    @property
    def built(self) -> Built:
        """What the fields give at this moment."""
        assert self.convention is not None
        tokens = self.chosen()
        platforms = tuple(
            OnPlatform(label, name, len(name), room)
            for _, label, name, room in service.on_platforms(self.convention, tokens, self.version)
        )
        try:
            name, problems = service.built(self.convention, tokens, self.version), tuple[str, ...]()
        except NamingRefused as refused:
            name, problems = "", tuple(p.words for p in refused.problems if p.path == "" or tokens.get(p.path))
        draft = self.convention.separator.join(self._word(token, tokens) for token in self.convention.tokens)
        against, open_ = self._against(tokens)
        words = tuple(f"{problem.words}" for problem in open_)
        return Built(name, draft, problems, words, bool(against), platforms)

    def _against(self, tokens: Mapping[str, str]) -> tuple[list[Problem], list[Problem]]:
        """What contradicts the rule; and of that, what nobody has said why before."""
        if self.convention is None or self.about is None:
            return [], []
        found = rule_names.against(self.convention, tokens, self.about)
        before = self.audience
        return found, [p for p in found if before is None or not service.overridden(before, p.path, tokens)]

    @property
    def departures(self) -> dict[str, str]:
        """Token → why, of what contradicts the rule."""
        why = self.cleaned_data.get("rule_reason", "").strip()
        return {problem.path: why for problem in self._against(self.tokens)[0]} if why else {}

    def _word(self, token: Token, tokens: Mapping[str, str]) -> str:
        if token.kind == naming.VERSION:
            return f"v{self.version}"
        word = tokens.get(token.name, "")
        return self.convention.short(word) if self.convention and token.kind == naming.CHANNEL else word or "…"

    @property
    def departs(self) -> bool:
        """Whether the part for a name of its own stands open."""
        return bool(self["own_name"].value() or self["own_name"].errors or self["name_reason"].errors)

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        own, reason = values.get("own_name", ""), values.get("name_reason", "")
        if self.errors:
            return values
        if self.convention is None or own:
            if not own:
                self.add_error("own_name", "Give it a name.")
            elif self.convention is not None and not reason:
                self.add_error("name_reason", REASON)
            self.name = own
            return values
        self.tokens = self.chosen()
        for problem in () if values.get("rule_reason") else self._against(self.tokens)[1]:
            self.add_error("rule_reason", f"{problem.words} Choose what the rule says, or say why it differs.")
        try:
            self.name = service.built(self.convention, self.tokens, self.version)
            service.free(self.audience, self.name)
            service.fits_everywhere(self.convention, self.tokens, self.version)
        except NamingRefused as refused:
            self.blame(refused)
        return values

    def blame(self, refused: NamingRefused) -> None:
        """Put each problem at its field."""
        for problem in refused.problems:
            at = {"name": "own_name"}.get(problem.path, problem.path)
            self.add_error(at if at in self.fields else None, problem.words)

    @property
    def key(self) -> str:
        """A key for a new audience: the built name without its version."""
        if self.convention is None or self.cleaned_data.get("own_name"):
            return ""
        words = [self._word(t, self.tokens) for t in self.convention.tokens if t.kind != naming.VERSION]
        return self.convention.separator.join(word for word in words if word != "…")

    def save(self, *, actor: User | None, audience: Audience, reason: str = "") -> bool:
        """Name the audience so. False, with the problems at their fields, where that cannot be."""
        own = self.cleaned_data.get("own_name", "")
        try:
            if own or self.convention is None:
                why = self.cleaned_data.get("name_reason", "")
                service.name_freely(actor=actor, audience=audience, name=own, name_reason=why, reason=reason)
            else:
                service.rename_by_convention(
                    actor=actor, audience=audience, tokens=self.tokens, reason=reason, departs=self.departures
                )
        except NamingRefused as refused:
            self.blame(refused)
            return False
        return True


def _field(token: Token, now: str) -> forms.Field:
    label = token.name.replace("_", " ").capitalize()
    if token.kind == naming.TEXT:
        return forms.CharField(label=label, required=False, max_length=40, help_text="Letters and digits.")
    if token.kind == naming.CHANNEL:
        offered = [(value.platform or value.value, _means(value)) for value in token.values]
    elif token.values:
        offered = [(value.value, _means(value)) for value in token.values]
    else:
        common = dict.fromkeys([*naming.COMMON_WINDOWS, *([now] if token.takes(now) else [])])
        offered = [(window, f"{window} · {naming.window_words(window)}") for window in common]
    first = "None" if token.optional else f"Choose the {token.name}"
    return forms.ChoiceField(
        label=label,
        required=False,
        choices=[("", first), *offered],
        error_messages={"invalid_choice": f"That is not one of the values of “{token.name}” any more. Choose another."},
    )


def _means(value: Value) -> str:
    return f"{value.value} · {value.means}" if value.means else value.value


# --- The convention.


@dataclass(slots=True)
class TokenRow:
    """A token as it stands in the form: `index` names its fields."""

    index: int
    name: str
    kind: str
    optional: bool
    values: list[Value] = field(default_factory=list)
    focus: str = ""  # the field that the next page should begin with

    @property
    def path(self) -> str:
        return f"tokens.{self.index}"


@dataclass(slots=True)
class Draft:
    """A convention while it is edited. Everything in it may be wrong; `problems` says what, by place."""

    separator: str = "_"
    tokens: list[TokenRow] = field(default_factory=list)
    lengths: dict[str, str] = field(default_factory=dict)
    stamp: str = ""
    agreed: str = ""
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of(cls, convention: Convention | None, stamp: str) -> "Draft":
        if convention is None:
            return cls(stamp=stamp)
        rows = [
            TokenRow(number, token.name, token.kind, token.optional, list(token.values))
            for number, token in enumerate(convention.tokens)
        ]
        return cls(convention.separator, rows, {k: str(v) for k, v in convention.lengths.items()}, stamp)

    @classmethod
    def posted(cls, data: QueryDict) -> "Draft":
        """What was sent, as far as it can be understood."""
        draft = cls(
            data.get("separator", "")[:10], stamp=data.get("stamp", "")[:60], agreed=data.get("agreed", "")[:1000]
        )
        for number in range(naming.MOST_TOKENS + 1):
            at = f"t{number}"
            if f"{at}-name" not in data:
                break
            row = TokenRow(
                number,
                data.get(f"{at}-name", "").strip()[:60],
                data.get(f"{at}-kind", "")[:20],
                f"{at}-optional" in data,
            )
            for position in range(naming.MOST_VALUES + 1):
                if f"{at}-v{position}" not in data:
                    break
                value = data.get(f"{at}-v{position}", "").strip()[:60]
                means = data.get(f"{at}-m{position}", "").strip()[:300]
                platform = data.get(f"{at}-p{position}", "")[:30]
                if value or means or platform:
                    row.values.append(Value(value, means, platform))
            if row.kind == naming.CHANNEL:
                row.values = list(naming.channel_values([v for v in row.values if v.platform], channels.values()))
            else:
                row.values = [replace(value, platform="") for value in row.values]
            draft.tokens.append(row)
        for channel in channels.known():
            length = data.get(f"l-{channel.kind}", "").strip()[:10]
            if length:
                draft.lengths[channel.kind] = length
        return draft

    def do(self, deed: str) -> bool:
        """One of the editor's small steps: `add:choice`, `up:2`, `down:2`, `remove:2`, `value:2`, `drop:2:0`. Whether it was one."""
        name, _, rest = deed.partition(":")
        first, _, second = rest.partition(":")
        at = int(first) if first.isascii() and first.isdigit() and len(first) < 4 else -1
        if name == "add" and first in naming.KINDS:
            if len(self.tokens) < naming.MOST_TOKENS:
                self.tokens.append(self._new(first))
        elif not 0 <= at < len(self.tokens):
            return False
        elif name == "up" and at:
            self.tokens[at - 1 : at + 1] = [self.tokens[at], self.tokens[at - 1]]
            self.tokens[at - 1].focus = "up" if at > 1 else "down"
        elif name == "down" and at + 1 < len(self.tokens):
            self.tokens[at : at + 2] = [self.tokens[at + 1], self.tokens[at]]
            self.tokens[at + 1].focus = "down" if at + 2 < len(self.tokens) else "up"
        elif name == "remove":
            del self.tokens[at]
            if self.tokens:
                self.tokens[max(at - 1, 0)].focus = "name"
        elif name == "value":
            self.tokens[at].values.append(Value(""))
            self.tokens[at].focus = f"v{len(self.tokens[at].values) - 1}"
        elif name == "drop" and second.isdigit() and len(second) < 4 and int(second) < len(self.tokens[at].values):
            del self.tokens[at].values[int(second)]
            self.tokens[at].focus = f"v{max(int(second) - 1, 0)}" if self.tokens[at].values else "add"
        elif name not in ("up", "down"):
            return False
        for number, row in enumerate(self.tokens):
            row.index = number
        return True

    def _new(self, kind: str) -> TokenRow:
        taken = {row.name for row in self.tokens}
        name = {naming.CHOICE: "intent", naming.TEXT: "note"}.get(kind, kind)
        name = next(n for n in (name, *(f"{name}{i}" for i in range(2, 20))) if n not in taken)
        values = list(channels.values()) if kind == naming.CHANNEL else []
        if kind == naming.WINDOW:
            values = [Value(window, naming.window_words(window)) for window in naming.COMMON_WINDOWS]
        return TokenRow(
            len(self.tokens), name, kind, False, values or ([Value("")] if kind == naming.CHOICE else []), "name"
        )

    def convention(self) -> Convention:
        """As it would be kept: without empty rows. Check it before anything is built by it."""
        tokens = tuple(
            Token(
                row.name,
                row.kind,
                tuple(value for value in row.values if value.value or value.platform)
                if row.kind not in (naming.TEXT, naming.VERSION)
                else (),
                row.optional,
            )
            for row in self.tokens
        )
        lengths = {
            kind: int(text) if text.isascii() and text.isdigit() else text for kind, text in self.lengths.items()
        }
        return Convention(self.separator, tokens, lengths)  # type: ignore[arg-type]  # a text is refused by faults()

    def check(self) -> Convention | None:
        """The convention if it is sound; None, with `problems` filled, if not."""
        for row in self.tokens:
            row.values = [value for value in row.values if value.value or value.means or value.platform]
        convention = self.convention()
        self.problems = naming.faults(convention, channels.room())
        for row in self.tokens:
            lost = [n for n, value in enumerate(row.values) if value.means and not value.value]
            self.problems += [Problem(f"{row.path}.values.{n}", "has a meaning and no value") for n in lost]
        return None if self.problems else convention

    def wrong(self) -> dict[str, str]:
        """Place → words."""
        found: dict[str, str] = {}
        for problem in self.problems:
            found[problem.path] = f"{found[problem.path]} {problem.words}" if problem.path in found else problem.words
        return found

    def told(self) -> list[str]:
        """What is wrong, each with its place in words."""
        labels = {channel.kind: channel.label for channel in channels.known()}
        found = []
        for problem in self.problems:
            first, _, rest = problem.path.partition(".")
            number = rest.partition(".")[0]
            place = {"separator": "Between the parts", "lengths": f"Longest on {labels.get(rest, rest)}"}.get(first, "")
            if first == "tokens" and number:
                place = self.tokens[int(number)].name or f"part {int(number) + 1}"
            found.append(f"{place}: {problem.words}" if place else problem.words)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """The tokens for the template, each field with what is wrong with it."""
        wrong = self.wrong()
        first = next((problem.path for problem in self.problems), "")
        labels = {channel.kind: channel.label for channel in channels.known()}
        return [
            {
                "token": row,
                "at": f"t{row.index}",
                "takes_values": row.kind in (naming.CHOICE, naming.WINDOW),
                "errors": {
                    part: wrong.get(f"{row.path}.{part}", "") for part in ("name", "kind", "optional", "values")
                },
                "values": [
                    {
                        "value": value,
                        "platform": labels.get(value.platform, value.platform),
                        "error": wrong.get(f"{row.path}.values.{number}", ""),
                        "focus": row.focus == f"v{number}",
                        "first_wrong": first == f"{row.path}.values.{number}",
                    }
                    for number, value in enumerate(row.values)
                ],
            }
            for row in self.tokens
        ]

    def lengths_shown(self) -> list[dict[str, Any]]:
        """Each platform with the limit that was entered, its own, and what is wrong."""
        wrong, own = self.wrong(), channels.room()
        return [
            {
                "channel": channel,
                "text": self.lengths.get(channel.kind, ""),
                "own": own[channel.kind],
                "error": wrong.get(f"lengths.{channel.kind}", ""),
            }
            for channel in channels.known()
        ]
