"""The fields of the rule builder: named by their place, labelled for those who do not see them, with what is wrong said beside them."""

import html

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from audiences.editing import Place
from audiences.segments.outline_forms import OPS
from audiences.segments.outline_items import Problem

register = template.Library()

KINDS = {
    "event": "did an event", "attribute": "have an attribute", "measure": "have a total or average", "moment": "did an event first or last",
    "sequence": "did events in order", "known_for": "have been known", "audience": "are in an audience", "list": "are on a list",
    "customerio": "are in a Customer.io segment", "bucket": "fall in a random split",
}  # fmt: skip
OP_WORDS = {
    "is": "is", "is_not": "is not", "in": "is one of", "not_in": "is none of", "contains": "contains", "starts_with": "starts with",
    "ends_with": "ends with", "gt": "is above", "gte": "is at least", "lt": "is below", "lte": "is at most", "between": "is between",
    "before": "is before", "after": "is after", "within_last": "was in the last", "not_within_last": "was not in the last",
    "within_next": "is in the next", "exists": "is known", "missing": "is missing",
}  # fmt: skip
UNITS = {"d": "days", "h": "hours", "m": "minutes", "w": "weeks"}
WORDS: dict[str, dict[str, str]] = {
    "kind": KINDS,
    "times": {"at_least": "at least", "at_most": "at most", "exactly": "exactly", "between": "between", "zero": "not at all"},
    "window": {"last": "in the last", "range": "from … until", "ever": "at any time"},
    "measure": {"sum": "the total of", "avg": "the average of", "min": "the smallest", "max": "the largest"},
    "which": {"last": "last", "first": "first"},
    "complete": {"yes": "and finished it", "no": "and did not do the last step in time"},
    "unit": UNITS, "last_unit": UNITS, "known_unit": UNITS,
    "group": {"all": "all", "any": "any"},
}  # fmt: skip
LABELS = {
    "kind": "People who", "times": "How often", "n": "Times", "n2": "And at most", "window": "When", "last": "How long", "last_unit": "Unit of time",
    "unit": "Unit of time", "known_unit": "Unit of time", "span": "How long", "from": "From, UTC", "to": "Until just before, UTC", "known": "Known for at least",
    "event": "Event", "name": "Name", "op": "Comparison", "value": "Value", "value2": "And", "values": "Values, one a line", "measure": "What is measured",
    "property": "Property", "which": "First or last", "complete": "Finished or not", "key": "Key", "number": "Number of the segment", "salt": "Name of the split",
    "low": "From percent", "high": "Below percent", "nots": "Include or leave out",
}  # fmt: skip
_COMBOBOX = mark_safe(' role="combobox" aria-autocomplete="list" aria-expanded="false" aria-controls="offers"')
NARROW = ("n", "n2", "last", "span", "known", "low", "high", "number")


@register.simple_tag(takes_context=True)
def choose(context: template.Context, at: Place, name: str) -> SafeString:
    """A choice among what the field may say."""
    given = str(at.fields[name])
    if name == "op":
        known = OPS.get(at.kind, OPS["attribute"])
        words = {op: OP_WORDS[op] for op in known}
    else:
        words = WORDS["group" if at.group and name == "kind" else name]
    return _select(context, at, name, given, words)


@register.simple_tag(takes_context=True)
def turned(context: template.Context, at: Place) -> SafeString:
    """Whether it is about those who match or those who do not."""
    nots = int(at.fields["nots"])
    words = {"0": "who", "1": "except who"}
    if nots > 1:
        words[str(nots)] = f"except who, {nots} times over"
    return _select(context, at, "nots", str(nots), words)


@register.simple_tag(takes_context=True)
def typed(context: template.Context, at: Place, name: str, hint: str = "") -> SafeString:
    """A field for text."""
    field, problem = f"{at.path}.{name}", at.problems.get(f"{at.path}.{name}")
    value, offered = str(at.fields[name]), at.lists.get(name, "")
    about = _about(context, field, problem)
    if name == "values":
        rows = min(8, max(2, value.count("\n") + 1))
        return format_html('<textarea class="of-{}" id="{}" name="{}" rows="{}" aria-label="{}"{}{}>\n{}</textarea>', name, field, field, rows, LABELS[name], format_html(' data-list="{}"{}', offered, _COMBOBOX) if offered else "", about, value)  # fmt: skip
    return format_html(
        '<input class="of-{}" type="text" id="{}" name="{}" value="{}" aria-label="{}" placeholder="{}" autocomplete="off" spellcheck="false"{}{}{}>',
        name, field, field, value, LABELS[name], hint,
        mark_safe(' inputmode="decimal"' if name in NARROW else ""),  # noqa: S308 - ours
        format_html(' list="{}"{}', offered, _COMBOBOX) if offered else "",
        about,
    )  # fmt: skip


def _select(context: template.Context, at: Place, name: str, given: str, words: dict[str, str]) -> SafeString:
    field = f"{at.path}.{name}"
    options = "".join(
        f'<option value="{value}"{" selected" if value == given else ""}>{html.escape(word)}</option>'
        for value, word in words.items()
    )
    problem = at.problems.get(field)
    about = _about(context, field, problem)
    return format_html('<select class="of-{}" id="{}" name="{}" aria-label="{}"{}>{}</select>', name, field, field, LABELS[name], about, mark_safe(options))  # noqa: S308 - escaped above  # fmt: skip


def _about(context: template.Context, field: str, problem: Problem | None) -> SafeString:
    parts = [format_html(' aria-describedby="{}.problem"', field)] if problem is not None else []
    if problem is not None and not problem.missing:
        parts.append(mark_safe(' aria-invalid="true"'))
    if context.get("focus") == field:
        parts.append(mark_safe(" autofocus"))
    return mark_safe("".join(parts))  # noqa: S308 - escaped above
