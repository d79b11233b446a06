"""The cells of the overlap table, and the boxes to choose by. They are written here and not by a template because there may be ten thousand."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from django import template
from django.urls import reverse
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from audiences import charts, clock
from audiences.overlap import Choice, Matrix
from audiences.templatetags.rollcall import percent, relative

register = template.Library()

STEPS = (0.05, 0.2, 0.4, 0.7)  # shares at which a cell becomes one step darker


@register.simple_tag
def heat_row(found: Matrix, row: int) -> SafeString:
    """One row: the share of its audience that is in each other, with the number; on the diagonal its size."""
    return mark_safe("".join(_cells(found, row)))  # noqa: S308 - keys are escaped, the rest are numbers


def _cells(found: Matrix, row: int) -> Sequence[str]:
    key, size = found.keys[row], found.counts[row][row]
    base = f"{_place()}{key}/"
    cells = []
    for column, count in enumerate(found.counts[row]):
        if column == row:
            cells.append(f'<td class="self">{_short(size)}</td>')
        elif not count:
            cells.append(f'<td class="h0"><a href="{base}{found.keys[column]}/">0</a></td>')
        else:
            share = count / size
            words = _percent(round(share, 4) or share) if share < 0.999 else _percent(share)
            cells.append(
                f'<td class="h{level(share)}"><a href="{base}{found.keys[column]}/">{words}<i>{_short(count)}</i></a></td>'
            )
    return cells


@register.filter
def age(as_of_us: int) -> str:
    """How long ago, without the exact time: a hundred rows say it, and the head of the page has it whole."""
    return relative(clock.from_us(as_of_us))


@functools.cache
def _place() -> str:
    return reverse("audiences:overlap-cell", args=["a", "b"]).removesuffix("a/b/")


# Of ten thousand cells most show what another shows too.
_short = functools.lru_cache(maxsize=20_000)(charts.short)


@functools.lru_cache(maxsize=20_000)
def _percent(share: float) -> str:
    return str(escape(percent(share)))


def level(share: float) -> int:
    """1…5: how dark a share is."""
    return 1 + sum(share >= step for step in STEPS)


@register.simple_tag
def choice_chips(choices: Iterable[Choice], chosen: frozenset[str]) -> SafeString:
    """Boxes to tick, one an audience."""
    chips = (
        f'<label class="chip"><input type="checkbox" name="a" value="{key}"{" checked" if choice.key in chosen else ""}>'
        f'<span class="mono">{escape(choice.name)}</span></label>'
        for choice in choices
        for key in [escape(choice.key)]
    )
    return mark_safe("".join(chips))  # noqa: S308 - keys and names are escaped


@register.filter
def called(key: str, selection: Any) -> str:
    """An audience's name, by its key."""
    return selection.names.get(key, key)


@register.simple_tag
def heat_legend() -> SafeString:
    words = ("under 5%", "5–20%", "20–40%", "40–70%", "70% or more")
    keys = (format_html('<span class="key h{}">{}</span>', number, text) for number, text in enumerate(words, 1))
    return mark_safe("".join(keys))  # noqa: S308 - each is escaped
