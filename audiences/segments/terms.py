"""Values and conditions as SQL expressions: the twin of values.py and judge.py in the words of an engine. Whole statements are leaves.py's.

A rule's names and values never become part of the text: they are bound, and columns come from the files' own list.
An engine that runs these expressions provides three functions that mean what values.py says:
`text_at(json, pointer)`, `number_of(text)` as DECIMAL(38, 6), and `moment_of(text)` in µs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from sqlglot import exp

from audiences.segments.tree import Condition, Scalar

_DECIMAL = exp.DataType.build("DECIMAL(38, 6)")


@dataclass(slots=True)
class Bound:
    """The values of one statement's placeholders. Asking for an equal value again gives the same placeholder."""

    values: dict[str, object] = field(default_factory=dict)
    _names: dict[tuple[type, object], str] = field(default_factory=dict)

    def __call__(self, value: object) -> exp.Placeholder:
        key = (type(value), tuple(value) if isinstance(value, list) else value)
        if key not in self._names:
            self._names[key] = f"v{len(self._names)}"
            self.values[self._names[key]] = value
        return exp.Placeholder(this=self._names[key])


@dataclass(slots=True)
class Values:
    """The values that a statement compares: each name gets columns `t0` (text), `n0` (number), `m0` (moment in µs) where asked for."""

    places: dict[str, int] = field(default_factory=dict)
    forms: dict[str, tuple[str, str]] = field(default_factory=dict)

    def text(self, name: str) -> exp.Column:
        return self._column("t", name)

    def number(self, name: str) -> exp.Column:
        return self._column("n", name)

    def moment(self, name: str) -> exp.Column:
        return self._column("m", name)

    def columns(self) -> list[str]:
        """The columns asked for."""
        return list(self.forms)

    def select(self, rows: exp.Select, columns: Mapping[str, str], json: str, bound: Bound) -> exp.Select:
        """A SELECT over a source, with the columns asked for added: from typed columns, else made from the JSON."""
        texts: dict[str, exp.Expr] = {}  # those that others are made of, by the column that keeps them
        read: list[exp.Expr] = []
        made: list[exp.Expr] = []
        for column, (form, name) in self.forms.items():
            typed, text = columns.get(name), f"x{self.places[name]}"
            if typed and form in "tn":
                read.append(exp.alias_(exp.column(typed if form == "t" else f"{typed}_num"), column))
                made.append(exp.column(column))
            else:
                texts[text] = exp.column(typed) if typed else call("text_at", exp.column(json), bound(pointer(name)))
                made.append(exp.alias_(_FORMS[form](exp.column(text)), column))
        if not texts:
            return rows.select(*read, copy=False)
        inner = rows.select(*read, *(exp.alias_(text, column) for column, text in texts.items()))
        kept = [exp.column(name) for name in rows.named_selects]
        return exp.Select().select(*kept, *made, copy=False).from_(inner.subquery("made", copy=False), copy=False)

    def _column(self, form: str, name: str) -> exp.Column:
        column = f"{form}{self.places.setdefault(name, len(self.places))}"
        self.forms[column] = (form, name)
        return exp.column(column)


def test(condition: Condition, values: Values, as_of_us: int, bound: Bound) -> exp.Expr:
    """Whether a value passes: true or false, never NULL. The ops is_not, not_in, not_within_last and missing are exact complements."""
    name, op, given = condition.name, condition.op, condition.values
    match op:
        case "missing":
            return exp.Is(this=values.text(name), expression=exp.Null())
        case "exists":
            return exp.Not(this=exp.Is(this=values.text(name), expression=exp.Null()))
        case "is_not" | "not_in" | "not_within_last":
            return exp.Not(
                this=known(
                    _positive(name, op.removeprefix("not_").removesuffix("_not"), given, values, as_of_us, bound)
                )
            )
    return known(_positive(name, op, given, values, as_of_us, bound))


def _positive(name: str, op: str, given: tuple[Scalar, ...], values: Values, as_of_us: int, bound: Bound) -> exp.Expr:
    match op:
        case "is":
            return values.text(name).eq(bound(given[0]))
        case "in":
            return one_of(values.text(name), given, bound)
        case "contains" | "starts_with" | "ends_with":
            return exp.Anonymous(this=op, expressions=[values.text(name), bound(given[0])])
        case "gt" | "gte" | "lt" | "lte" | "between":
            return compared(values.number(name), op, [decimal(value, bound) for value in given])
        case "before" | "after":
            moment = values.moment(name)
            return moment < bound(given[0]) if op == "before" else moment > bound(given[0])
        case "within_last":
            moment = values.moment(name)
            return exp.and_(moment > bound(as_of_us - _whole(given[0])), moment <= bound(as_of_us))
        case "within_next":
            moment = values.moment(name)
            return exp.and_(moment > bound(as_of_us), moment <= bound(as_of_us + _whole(given[0])))
    raise ValueError(f"no such op: {op}")


def compared(left: exp.Expr, op: str, right: list[exp.Expr]) -> exp.Expr:
    """A comparison of numbers; between includes both ends."""
    match op:
        case "is":
            return exp.EQ(this=left, expression=right[0])
        case "is_not":
            return exp.NEQ(this=left, expression=right[0])
        case "gt":
            return exp.GT(this=left, expression=right[0])
        case "gte":
            return exp.GTE(this=left, expression=right[0])
        case "lt":
            return exp.LT(this=left, expression=right[0])
        case "lte":
            return exp.LTE(this=left, expression=right[0])
        case "between":
            return exp.and_(exp.GTE(this=left, expression=right[0]), exp.LTE(this=left.copy(), expression=right[1]))
    raise ValueError(f"no such op: {op}")


def one_of(left: exp.Expr, given: Sequence[object], bound: Bound) -> exp.Expr:
    """Whether it equals one of the values."""
    return left.eq(bound(given[0])) if len(given) == 1 else left.isin(*(bound(value) for value in given))


def decimal(value: object, bound: Bound) -> exp.Expr:
    """A number of a rule, with 6 places like those of the data. It is bound as text, which no driver rounds."""
    assert isinstance(value, Decimal | int)
    return exp.cast(bound(format(Decimal(value), "f")), _DECIMAL)


def known(condition: exp.Expr) -> exp.Expr:
    """NULL is false: a missing value passes nothing."""
    return exp.func("COALESCE", condition, exp.false(), copy=False)


def every(conditions: Iterable[exp.Expr]) -> exp.Expr:
    """All of them; true where there is none."""
    wanted = list(conditions)
    return exp.and_(*wanted, copy=False) if wanted else exp.true()


def flag(condition: exp.Expr, name: str) -> exp.Expr:
    """A condition as a column of 0 and 1, a byte each, which Arrow hands over without a copy."""
    return exp.alias_(exp.cast(condition, exp.DataType.build("UTINYINT", dialect="duckdb")), name)


def pointer(name: str) -> str:
    """The JSON pointer to a top-level key, whatever is in its name."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def call(name: str, *arguments: exp.Expr) -> exp.Expr:
    """A function by its name, exactly; sqlglot would otherwise translate some into its own idea of them."""
    return exp.Anonymous(this=name, expressions=[argument.copy() for argument in arguments])


_FORMS: dict[str, Callable[[exp.Expr], exp.Expr]] = {
    "t": lambda text: text,
    "n": lambda text: call("number_of", text),
    "m": lambda text: call("moment_of", text),
}


def _whole(value: Scalar) -> int:
    assert isinstance(value, int)
    return value
