"""What an audience must pass before it is done, and a workspace before it is set up; each item read from the data."""

from dataclasses import dataclass

from django.urls import reverse

from audiences.models import Audience
from qa import pairs


@dataclass(frozen=True, slots=True)
class Item:
    """`done` None: the data cannot tell, and `words` say why. `url` is where it is put right; empty where nothing is to be done."""

    key: str
    label: str
    done: bool | None
    words: str
    url: str


def of(audience: Audience) -> tuple[Item, ...]:
    """The brief's eight. A fixed number of queries."""
    linked = pairs.partners([audience.pk]).get(audience.pk, [])
    return (
        Item(
            "suppression",
            "Suppression",
            bool(linked),
            ", ".join(other.key for other in linked) or "None is linked",
            reverse("qa:setup", args=[audience.key]),
        ),
    )


def workspace_steps() -> tuple[Item, ...]:
    return ()
