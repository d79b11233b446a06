"""The cells of the overlap table. They are written here and not by a template because there may be ten thousand of them."""

from collections.abc import Sequence

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from audiences import charts
from audiences.overlap import Matrix
from audiences.templatetags.rollcall import percent

register = template.Library()

STEPS = (0.05, 0.2, 0.4, 0.7)  # shares at which a cell becomes one step darker


@register.simple_tag
def heat_row(found: Matrix, row: int) -> SafeString:
    """One row: the share of its audience that is in each other, with the number; on the diagonal its size."""
    return mark_safe("".join(_cells(found, row)))  # noqa: S308 - keys are escaped, the rest are numbers


def _cells(found: Matrix, row: int) -> Sequence[str]:
    key, size = found.keys[row], found.counts[row][row]
    base = reverse("audiences:overlap-cell", args=[key, "-"]).removesuffix("-/")
    cells = []
    for column, count in enumerate(found.counts[row]):
        if column == row:
            cells.append(f'<td class="self">{charts.short(size)}</td>')
        elif not count:
            cells.append(f'<td class="h0"><a href="{base}{found.keys[column]}/">–<i>none</i></a></td>')
        else:
            share = percent(count / size).replace("<", "&lt;").replace(">", "&gt;")
            cells.append(
                f'<td class="h{level(count / size)}"><a href="{base}{found.keys[column]}/">{share}'
                f"<i>{charts.short(count)}</i></a></td>"
            )
    return cells


def level(share: float) -> int:
    """1…5: how dark a share is."""
    return 1 + sum(share >= step for step in STEPS)


@register.simple_tag
def heat_legend() -> SafeString:
    words = ("under 5%", "5–20%", "20–40%", "40–70%", "70% or more")
    keys = (format_html('<span class="key h{}">{}</span>', number, text) for number, text in enumerate(words, 1))
    return mark_safe("".join(keys))  # noqa: S308 - each is escaped
