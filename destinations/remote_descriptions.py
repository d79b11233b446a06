"""What a platform is told of an audience besides its name: our sentence, who owns it, which version is live, where to read on.

Reads what it is given and writes nothing. Nobody's e-mail address goes there, and no person whom a rule names.
"""

import re

from django.conf import settings
from django.urls import reverse

from audiences import vocabulary
from audiences.models import Audience
from audiences.segments.tree import Attribute, Condition, Measured, Moment, Node, Occurred, Sequence, leaves
from audiences.segments.values import text_of
from destinations.connectors import registry
from destinations.models import Mapping

WITHHELD = "Its rule names single people and is not told here."
_PERSONAL = re.compile(
    r"(^|[_\W])(e?_?mail|phone|mobile|(first|last|full|given|family|sur)_?name|street|address|zip|post_?code|birth\w*|ip|idfa|gaid)"
    r"([_\W]|$)|^name$",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"\S@\S|^\+?[\d\s().-]{7,}$")


def of(mapping: Mapping) -> str | None:
    """What should be said of it there; None: nothing is told, because the platform keeps no descriptions or the audience was adopted."""
    connector = registry.CONNECTORS.get(mapping.destination.kind)
    room = connector.capabilities.description_length if connector else 0
    if not room or mapping.adopted:
        return None
    audience = mapping.audience
    live = audience.live_version
    sentence = "" if live is None else WITHHELD if names_people(vocabulary.rule(live.segment)) else live.sentence
    link = f"{settings.PUBLIC_URL.rstrip('/')}{reverse('qa:audience', args=[audience.key])}"
    return compose(sentence, _owner(audience), live.number if live else None, link, room)


def compose(sentence: str, owner: str, version: int | None, link: str, room: int) -> str:
    """`People who …. Owner: Mary Smith. Version 3. https://…`, at most `room` characters.

    What is too long loses the end of the sentence, at a word and with …; where even the rest does not fit, the link goes first.
    """
    tail = [*([f"Owner: {owner}."] if owner else []), *([f"Version {version}."] if version else []), link]
    rest = next(
        (" ".join(tail[:end]) for end in range(len(tail), 0, -1) if len(" ".join(tail[:end])) <= room),
        "",
    )
    text = f"{sentence} {rest}".strip()
    if len(text) <= room:
        return text
    space = room - len(rest) - 2  # for … and the blank after it
    if space < 20:
        return rest
    cut = sentence[:space]
    if sentence[space : space + 1].strip() and " " in cut:
        cut = cut.rpartition(" ")[0]
    return f"{cut.rstrip(' ,.')}… {rest}".strip()


def names_people(tree: Node) -> bool:
    """Whether a test in it compares something that names a person, or with what looks like somebody's address or number."""
    return any(_personal(condition) for _, leaf in leaves(tree) for condition in _conditions(leaf))


def _conditions(leaf: object) -> tuple[Condition, ...]:
    match leaf:
        case Attribute(condition):
            return (condition,)
        case Occurred() | Measured() | Moment():
            return leaf.where
        case Sequence(steps, _):
            return tuple(condition for step in steps for condition in step.where)
    return ()


def _personal(condition: Condition) -> bool:
    texts = [text_of(value) or "" for value in condition.values if isinstance(value, str)]
    return bool(texts) and (bool(_PERSONAL.search(condition.name)) or any(map(_ADDRESS.search, texts)))


def _owner(audience: Audience) -> str:
    """The name of whoever answers for the rule; never an e-mail address, which some write as their name."""
    owner = audience.definition_owner
    name = " ".join(owner.name.split()) if owner else ""
    return "" if "@" in name else name
