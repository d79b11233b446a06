"""From rules to statements: what to ask an engine so that leaves can be answered. Single conditions are terms.py's; running them is an engine's.

Two shapes. *Rows*: the occurrences that matter with a 0/1 column for each test, from which an engine counts (one statement an
event, whatever the number of leaves). *Aggregates*: SUM, MIN, MAX … GROUP BY profile HAVING, where arithmetic must be exact.
Spans are half-open, (after, until], in µs: every window of the grammar is one of these.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from audiences.segments.terms import Bound, Values, call, compared, decimal, every, flag, known, one_of, test
from audiences.segments.tree import Attribute, Between, Condition, KnownFor, Measured, Moment, Step, Window, Within

EVER_US = -(2**62)
"""Before every event."""
NEVER_US = 2**62
"""After every event."""

BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class Span:
    """after < time ≤ until."""

    after: int
    until: int

    def __or__(self, other: "Span") -> "Span":
        return Span(min(self.after, other.after), max(self.until, other.until))


def span(window: Window, as_of_us: int) -> Span:
    """The occurrences that a window lets count at this moment."""
    match window:
        case Within(duration):
            return Span(as_of_us - duration, as_of_us)
        case Between(start, end):
            return Span(start - 1, min(end - 1, as_of_us))
        case None:
            return Span(EVER_US, as_of_us)


def around(spans: Iterable[Span]) -> Span:
    """The least span that holds them all."""
    first, *rest = spans
    for one in rest:
        first |= one
    return first


@dataclass(frozen=True, slots=True)
class Source:
    """A relation of events or profiles: what stands after FROM, its typed columns by name, conditions on all that is read from it.

    Its events lie in earliest ≤ time ≤ latest; a span that misses them need not read it.
    """

    relation: exp.Expr
    columns: Mapping[str, str] = field(default_factory=dict)
    only: tuple[exp.Expr, ...] = ()
    earliest: int = EVER_US
    latest: int = NEVER_US

    def meets(self, wanted: Span) -> bool:
        """Whether some of its events may lie in the span."""
        return self.earliest <= wanted.until and self.latest > wanted.after and wanted.after < wanted.until


@dataclass(frozen=True, slots=True)
class Rollup:
    """The activity roll-ups (profile_no, first_us, last_us, events) of some files, and the source with the events themselves."""

    relation: exp.Expr
    source: Source


@dataclass(frozen=True, slots=True)
class Activity:
    """Events of any name in a span: how many (`exact`), or only whether there is one."""

    span: Span
    exact: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with `$name` placeholders, and their values."""

    sql: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes statements. `merged` is the relation of merges (old_no, survivor_no), if there are any; `dialect` is sqlglot's."""

    merged: exp.Expr | None = None
    dialect: str = "duckdb"

    def occurrences(
        self,
        event: str,
        tests: Sequence[tuple[Condition, ...]],
        wanted: Span,
        sources: Sequence[Source],
        as_of_us: int,
        *,
        timed: bool = True,
        measured: Sequence[str] = (),
    ) -> Statement:
        """profile_no, time_us (if `timed`), w0, w1, …: which tests an occurrence passes, and d0, d1, …: the numbers `measured`.

        Occurrences that pass no test are left out. A test of no condition gets no column: every occurrence passes it.
        """
        bound, values = Bound(), Values()
        passed = [every(test(one, values, as_of_us, bound) for one in where) for where in tests]
        flags = [flag(condition, f"w{at}") for at, condition in enumerate(passed) if tests[at]]
        numbers = [exp.alias_(values.number(name), f"d{at}") for at, name in enumerate(measured)]
        select = _select("profile_no", *(["time_us"] if timed else []), *flags, *numbers)
        select = select.from_(self._events([event], (), values, wanted, sources, bound), copy=False)
        if all(tests):
            select = select.where(exp.or_(*passed, copy=False), copy=False)
        return self._statement(select, bound)

    def measures(
        self, event: str, leaves: Sequence[Measured | Moment], sources: Sequence[Source], as_of_us: int
    ) -> Statement:
        """profile_no and l0, l1, …: which leaves hold for the profile. Those for whom none holds are left out."""
        bound, values = Bound(), Values()
        wanted = around(span(leaf.window, as_of_us) for leaf in leaves)
        holds = [known(_measured(leaf, wanted, values, as_of_us, bound)) for leaf in leaves]
        select = _select("profile_no", *(flag(condition, f"l{at}") for at, condition in enumerate(holds)))
        select = select.from_(self._events([event], (), values, wanted, sources, bound), copy=False)
        grouped = select.group_by(exp.column("profile_no"), copy=False)
        return self._statement(grouped.having(exp.or_(*holds, copy=False), copy=False), bound)

    def steps(
        self, steps: Sequence[Step], wanted: Span, candidates: exp.Expr, sources: Sequence[Source], as_of_us: int
    ) -> Statement:
        """profile_no, time_us and s0, s1, …: which steps an occurrence can be, for the profiles in the relation `candidates`."""
        bound, values = Bound(), Values()
        taken = [
            every(
                [exp.column("name").eq(bound(step.event)), *(test(one, values, as_of_us, bound) for one in step.where)]
            )
            for step in steps
        ]
        select = _select("profile_no", "time_us", *(flag(condition, f"s{at}") for at, condition in enumerate(taken)))
        events = self._events([step.event for step in steps], ("name",), values, wanted, sources, bound)
        chosen = exp.column("profile_no").isin(query=_select("profile_no").from_(candidates))
        return self._statement(
            select.from_(events, copy=False).where(chosen, exp.or_(*taken, copy=False), copy=False), bound
        )

    def activity(
        self, counted: Sequence[Activity], rollups: Sequence[Rollup], sources: Sequence[Source]
    ) -> Statement | None:
        """profile_no and c0, c1, …: the events of any name in each span; a profile's rows add up. None: there can be none.

        A roll-up answers for the spans that hold all its events and, where only asked whether there is one, for those
        that cut them at one end. For the rest its events are read.
        """
        bound = Bound()
        parts: list[exp.Select] = []
        for rollup in rollups:
            answers = [_rolled_up(one, rollup.source, bound) for one in counted]
            if any(answer is not None and not answer.is_number for answer in answers):
                parts.append(_counts(rollup.relation, [answer or exp.Literal.number(0) for answer in answers], ()))
            raw = [one for one, answer in zip(counted, answers, strict=True) if answer is None]
            if raw:
                parts.append(_raw(rollup.source, counted, raw, bound))
        for source in sources:
            raw = [one for one in counted if source.meets(one.span)]
            if raw:
                parts.append(_raw(source, counted, raw, bound))
        if not parts:
            return None
        columns = [f"c{at}" for at in range(len(counted))]
        select = _select("profile_no", *columns).from_(self._merge(parts, columns), copy=False)
        return self._statement(select, bound)

    def profiles(self, leaves: Sequence[Attribute | KnownFor], source: Source, as_of_us: int) -> Statement:
        """profile_no and l0, l1, …: which leaves hold; of KnownFor only the half that created_us tells. Without them, those for whom none holds."""
        bound, values = Bound(), Values()
        holds = [
            test(leaf.condition, values, as_of_us, bound)
            if isinstance(leaf, Attribute)
            else exp.column("created_us") <= bound(as_of_us - leaf.duration)
            for leaf in leaves
        ]
        plain = ["profile_no", "created_us"] if any(isinstance(leaf, KnownFor) for leaf in leaves) else ["profile_no"]
        rows = values.select(_from(source.relation, *plain), source.columns, "attributes", bound)
        select = _select("profile_no", *(flag(condition, f"l{at}") for at, condition in enumerate(holds)))
        select = select.from_(rows.subquery("profiles", copy=False), copy=False)
        return self._statement(select.where(exp.or_(*holds, copy=False), copy=False), bound)

    def live(self, source: Source) -> Statement:
        """profile_no of the live, identified profiles."""
        return self._statement(_from(source.relation, "profile_no").where(exp.column("live")), Bound())

    def buckets(self, salt: str, source: Source) -> Statement:
        """profile_no and bucket, 0…9,999."""
        bound = Bound()
        digest = call("sha256", call("concat", bound(f"{salt}:"), exp.column("bucket_key")))
        head = call("concat", exp.Literal.string("0x"), call("left", digest, exp.Literal.number(16)))
        number = exp.Mod(this=exp.cast(head, "UBIGINT", dialect="duckdb"), expression=exp.Literal.number(BUCKETS))
        bucket = exp.cast(exp.paren(number), "USMALLINT", dialect="duckdb")
        return self._statement(_from(source.relation, "profile_no", exp.alias_(bucket, "bucket")), bound)

    def history(
        self,
        wanted: exp.Expr,
        events: Sequence[str] | None,
        until: int,
        sources: Sequence[Source],
        *,
        columns: Sequence[str] = (),
        properties: Sequence[str] = (),
        newest: int | None = None,
    ) -> Statement:
        """profile_no, time_us, name, `columns` and t0, t1, …, the texts of `properties`: events (all, or of these names) of certain profiles.

        The profiles are those in the relation `wanted`, by the numbers that events have. `newest`: only so many, the newest first.
        """
        bound, values = Bound(), Values()
        texts = [values.text(name) for name in properties]
        mine = exp.column("profile_no").isin(query=_from(wanted, "profile_no"))
        rows = self._events(events, ("name", *columns), values, Span(EVER_US, until), sources, bound, also=(mine,))
        select = _select("profile_no", "time_us", "name", *columns, *texts).from_(rows, copy=False)
        if newest is not None:
            select = select.order_by("time_us DESC", "event_key", dialect=self.dialect).limit(newest)
        return self._statement(select, bound)

    def _events(
        self,
        names: Sequence[str] | None,
        columns: Sequence[str],
        values: Values,
        wanted: Span,
        sources: Sequence[Source],
        bound: Bound,
        also: Sequence[exp.Expr] = (),
    ) -> exp.Expr:
        """The events of these names in a span as one relation: profile_no (merged), time_us, `columns` and the values."""
        parts = []
        for source in sources:
            named = [one_of(exp.column("name"), list(dict.fromkeys(names)), bound)] if names is not None else []
            select = _from(source.relation, "profile_no", "time_us", *columns)
            shared = [one.copy() for one in (*source.only, *also)]
            select = select.where(*shared, *named, *_inside(wanted, source, bound), copy=False)
            parts.append(values.select(select, source.columns, "properties", bound))
        return self._merge(parts, ["time_us", *columns, *values.columns()])

    def _merge(self, parts: Sequence[exp.Select], columns: Sequence[str]) -> exp.Expr:
        """The parts as one relation, profiles that were merged away replaced by their survivors."""
        together: exp.Query = exp.union(*parts, distinct=False, copy=False) if len(parts) > 1 else parts[0]
        if self.merged is None:
            return together.subquery("events", copy=False)
        survivor = exp.func("COALESCE", exp.column("survivor_no", "merged"), exp.column("profile_no", "events"))
        select = _select(exp.alias_(survivor, "profile_no"), *(exp.column(name, "events") for name in columns))
        same = exp.column("old_no", "merged").eq(exp.column("profile_no", "events"))
        merged = exp.alias_(self.merged.copy(), "merged", table=True)
        select = select.from_(together.subquery("events", copy=False), copy=False)
        return select.join(merged, on=same, join_type="left", copy=False).subquery("events", copy=False)

    def _statement(self, select: exp.Select, bound: Bound) -> Statement:
        return Statement(select.sql(self.dialect, copy=False), bound.values)


def _select(*columns: str | exp.Expr) -> exp.Select:
    """SELECT of these; names are taken as they are, which is quicker than having them parsed."""
    wanted = [exp.column(one) if isinstance(one, str) else one for one in columns]
    return exp.Select().select(*wanted, copy=False)


def _from(relation: exp.Expr, *columns: str | exp.Expr) -> exp.Select:
    """SELECT of these from a relation that others read too."""
    return _select(*columns).from_(relation.copy(), copy=False)


def _inside(wanted: Span, source: Source, bound: Bound) -> list[exp.Expr]:
    """The conditions by which a source's events lie in a span; none where all of them do."""
    time = exp.column("time_us")
    conditions: list[exp.Expr] = []
    if source.earliest <= wanted.after:
        conditions.append(time > bound(wanted.after))
    if source.latest > wanted.until:
        conditions.append(time.copy() <= bound(wanted.until))
    return conditions


def _measured(leaf: Measured | Moment, wanted: Span, values: Values, as_of_us: int, bound: Bound) -> exp.Expr:
    """A comparison of an aggregate, which is NULL (and so false) where no occurrence has the value."""
    own = span(leaf.window, as_of_us)
    counts = [test(one, values, as_of_us, bound) for one in leaf.where]
    counts += _inside(own, Source(exp.Null(), earliest=wanted.after + 1, latest=wanted.until), bound)
    if isinstance(leaf, Moment):
        moment = _over(exp.Min if leaf.which == "first" else exp.Max, exp.column("time_us"), counts)
        return _is_when(moment, leaf.op, leaf.values, as_of_us, bound)
    number = values.number(leaf.property)
    right = [decimal(value, bound) for value in leaf.values]
    if leaf.measure == "avg":  # the other side is multiplied, so that nothing is rounded
        times = _over(exp.Count, number, counts)
        right = [exp.Mul(this=one, expression=times.copy()) for one in right]
    function = {"sum": exp.Sum, "avg": exp.Sum, "min": exp.Min, "max": exp.Max}[leaf.measure]
    return compared(_over(function, number, counts), leaf.op, right)


def _over(function: type[exp.AggFunc], value: exp.Expr, conditions: Sequence[exp.Expr]) -> exp.Expr:
    """The aggregate of a value over the rows that meet the conditions."""
    aggregate = function(this=value.copy())
    if not conditions:
        return aggregate
    return exp.Filter(this=aggregate, expression=exp.Where(this=exp.and_(*conditions)))


def _is_when(moment: exp.Expr, op: str, given: tuple[int, ...], as_of_us: int, bound: Bound) -> exp.Expr:
    match op:
        case "before":
            return exp.LT(this=moment, expression=bound(given[0]))
        case "after":
            return exp.GT(this=moment, expression=bound(given[0]))
        case "between":
            return exp.and_(
                exp.GTE(this=moment, expression=bound(given[0])),
                exp.LT(this=moment.copy(), expression=bound(given[1])),
            )
    inside = exp.and_(
        exp.GT(this=moment, expression=bound(as_of_us - given[0])),
        exp.LTE(this=moment.copy(), expression=bound(as_of_us)),
    )
    if op == "within_last":
        return inside
    assert op == "not_within_last", op
    return exp.not_(inside)


def _rolled_up(one: Activity, source: Source, bound: Bound) -> exp.Expr | None:
    """What a row of a roll-up adds to this count: a number, or a condition for 0 or 1. None: only the events can tell."""
    if not source.meets(one.span):
        return exp.Literal.number(0)
    after_all = source.latest <= one.span.until
    before_all = source.earliest > one.span.after
    if before_all and after_all:
        return exp.column("events") if one.exact else exp.true()
    if not one.exact and after_all:
        return exp.column("last_us") > bound(one.span.after)
    if not one.exact and before_all:
        return exp.column("first_us") <= bound(one.span.until)
    return None


def _raw(source: Source, counted: Sequence[Activity], wanted: Sequence[Activity], bound: Bound) -> exp.Select:
    """The events of a source that lie in the wanted spans, each adding 1 to those it lies in."""
    conditions = [every(_inside(one.span, source, bound)) if one in wanted else exp.false() for one in counted]
    return _counts(source.relation, conditions, source.only)


def _counts(relation: exp.Expr, adds: Sequence[exp.Expr], only: Sequence[exp.Expr]) -> exp.Select:
    """profile_no and c0, c1, …; rows that add to nothing are left out where that is cheap to say."""
    columns = [exp.alias_(exp.cast(add, "UINTEGER", dialect="duckdb"), f"c{at}") for at, add in enumerate(adds)]
    select = _from(relation, "profile_no", *columns).where(*(one.copy() for one in only), copy=False)
    conditions = [add for add in adds if not isinstance(add, exp.Literal) and add != exp.false()]
    if all(isinstance(add, exp.Predicate | exp.And) for add in conditions):
        select = select.where(exp.or_(*conditions), copy=False)
    return select
