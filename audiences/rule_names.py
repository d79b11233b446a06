"""What a rule says of the name of its audience: the parts that follow from it, and those that contradict it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from audiences import naming
from audiences.naming import CHOICE, WINDOW, Convention, Problem, Token
from audiences.segments.gist import Gist, normal


@dataclass(frozen=True, slots=True)
class Followed:
    """A part that another rule contradicts: its token, the value now and the one that follows. "": it stays, because no allowed value says
    what the rule says, or because what an audience is for is no one's to change but a person's."""

    token: str
    before: str
    after: str
    rule: str  # what the rule says, in words


def told(convention: Convention, gist: Gist) -> dict[str, str]:
    """Token → value, for each part that the rule can tell: the first window, and every choice that has a word for what people did."""
    found = {}
    for token in _telling(convention):
        words = gist.windows if token.kind == WINDOW else _chosen(token, gist)
        word = next((word for word in words if _takes(convention, token, word)), "")
        if word:
            found[token.name] = word
    return found


def against(convention: Convention, tokens: Mapping[str, str], gist: Gist) -> list[Problem]:
    """The parts that contradict the rule, each with what the rule says instead."""
    says, found = told(convention, gist), []
    for token in _telling(convention):
        value = str(tokens.get(token.name, "") or "")
        if value and _is_wrong(token, value, gist):
            found.append(Problem(token.name, f"{_rule(token, says, gist)}, and the name says {value}."))
    return found


def agreed(convention: Convention, tokens: Mapping[str, str], gist: Gist, kept: Mapping[str, object]) -> dict[str, str]:
    """These values, with what contradicts the rule put right where it can tell, and what is missing filled; `kept` stay as they are."""
    says = told(convention, gist)
    wrong = {problem.path for problem in against(convention, tokens, gist)} - set(kept)
    filled = {name: value for name, value in says.items() if not tokens.get(name) and _needed(convention, name)}
    return {**tokens, **filled, **{name: says[name] for name in wrong if name in says}}


def following(
    convention: Convention, tokens: Mapping[str, str], before: Gist, after: Gist, kept: Mapping[str, object]
) -> list[Followed]:
    """What a change of the rule does to a name that said what the rule said. A window follows; what people did is only said to be wrong by
    now. What contradicted the rule before, and `kept`, stay."""
    stays = {problem.path for problem in against(convention, tokens, before)} | set(kept)
    says = told(convention, after)
    return [
        Followed(
            token.name,
            str(tokens[token.name]),
            says.get(token.name, "") if token.kind == WINDOW else "",
            _rule(token, says, after),
        )
        for token in _telling(convention)
        if token.name not in stays and tokens.get(token.name) and _is_wrong(token, str(tokens[token.name]), after)
    ]


def _telling(convention: Convention) -> list[Token]:
    windows = [token for token in convention.tokens if token.kind == WINDOW]
    return [*windows[:1], *(token for token in convention.tokens if token.kind == CHOICE)]


def _chosen(token: Token, gist: Gist) -> tuple[str, ...]:
    """The token's own values, in the order in which the rule's words would have them."""
    by_word = {normal(value.value): value.value for value in token.values}
    return tuple(by_word[word] for word in gist.words if word in by_word)


def _is_wrong(token: Token, value: str, gist: Gist) -> bool:
    return gist.window_is_wrong(value) if token.kind == WINDOW else gist.word_is_wrong(value)


def _takes(convention: Convention, token: Token, word: str) -> bool:
    return convention.separator not in word and token.takes(word)


def _needed(convention: Convention, name: str) -> bool:
    return any(token.name == name and not token.optional for token in convention.tokens)


def _rule(token: Token, says: Mapping[str, str], gist: Gist) -> str:
    """What the rule says, in words."""
    if token.kind != WINDOW:
        return f"The rule is about {says.get(token.name) or gist.words[0]}"
    window = says.get(token.name) or gist.windows[0]
    return f"The rule looks at {naming.window_words(window).removeprefix('at ')} ({window})"
