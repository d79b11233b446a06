"""The geometry of small charts, from numbers to the strings that an SVG element takes. Templates draw; nothing here writes HTML.

A count of None is a day on which nothing is known: the line breaks there, it never falls to zero.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil, floor, log10

Point = tuple[date, int | None]
Limits = tuple[float, float]
USUAL_DAYS, USUAL_FEWEST = 7, 3  # the usual is the median of so many days that are known, where there are so many


@dataclass(frozen=True, slots=True)
class Spark:
    """A line of at most `width` × `height`; empty strings where fewer than two days are known. `band`: within it nobody is alerted."""

    width: int
    height: int
    line: str
    area: str
    band: str
    last_x: float
    last_y: float
    words: str  # for those who hear it


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A labelled moment, such as a version's publishing."""

    x: float
    label: str
    words: str
    label_x: float
    label_y: float
    label_width: float


@dataclass(frozen=True, slots=True)
class Alert:
    """A day on which something was wrong: a dot on the curve, at the foot of the plot where the day has no count."""

    day: date
    words: str
    bad: bool


@dataclass(frozen=True, slots=True)
class Dot:
    x: float
    y: float
    words: str
    bad: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """The column of one day: what the pointer meets, and what it is told."""

    x: float
    left: float
    width: float
    y: float
    words: str


@dataclass(frozen=True, slots=True)
class SizeChart:
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    lines: tuple[str, ...]
    areas: tuple[str, ...]
    bands: tuple[str, ...]
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    dots: tuple[Dot, ...]
    hits: tuple[Hit, ...]
    last: tuple[float, float] | None
    words: str

    @property
    def plot_height(self) -> float:
        return self.bottom - self.top


def limits(counts: Sequence[int | None], share: float, *, least: float = 0, start: int = 0) -> list[Limits | None]:
    """For each day what its count may be before somebody is alerted: this share below and above the usual, which is the median of the
    days before. A day that is off is no part of the usual, where that is at least `least`; from `start` on, an index, it begins anew."""
    found: list[Limits | None] = []
    usable: list[int] = []
    for index, count in enumerate(counts):
        if index == start:
            usable.clear()
        held = usable[-USUAL_DAYS:]
        usual = _middle(held) if len(held) >= USUAL_FEWEST else None
        found.append(None if usual is None else (max(0.0, usual * (1 - share)), usual * (1 + share)))
        if count is not None and (not usual or usual < least or abs(count - usual) < share * usual):
            usable.append(count)
    return found


def _middle(counts: list[int]) -> float:
    """Their median; statistics.median does the same and takes three times as long."""
    ordered, half = sorted(counts), len(counts) // 2
    return ordered[half] if len(counts) % 2 else (ordered[half - 1] + ordered[half]) / 2


def sparkline(
    counts: Sequence[int | None], band: Sequence[Limits | None] = (), *, width: int = 96, height: int = 24
) -> Spark:
    """The counts in order, one a day, and the `band` that they may move in. A curve that nearly leaves its band nearly leaves its box."""
    known = [(index, count) for index, count in enumerate(counts) if count is not None]
    if len(known) < 2:
        return Spark(width, height, "", "", "", 0, 0, "No curve yet")
    low, high = min(count for _, count in known), max(count for _, count in known)
    held = [pair for pair in band if pair is not None]
    floor_, ceiling = min([low, *(pair[0] for pair in held)]), max([high, *(pair[1] for pair in held)])
    margin = 2.5
    step = (width - 2 * margin) / (len(counts) - 1)
    # A curve that barely moves should look flat: a tenth of its height is the least span.
    span = max(ceiling - floor_, high / 10, 1)
    middle = (ceiling + floor_) / 2

    def at(index: int, count: float) -> tuple[float, float]:
        return margin + index * step, height / 2 - (count - middle) / span * (height - 2 * margin)

    points = [at(index, count) for index, count in known]
    line = _path(points)
    area = "" if held else f"{line}L{points[-1][0]:.1f} {height}L{points[0][0]:.1f} {height}Z"
    words = f"From {known[0][1]:,} to {known[-1][1]:,} in {len(counts)} days; least {low:,}, greatest {high:,}"
    if held and band[-1] is not None:
        words += f"; an alert below {band[-1][0]:,.0f} or above {band[-1][1]:,.0f}"
    return Spark(width, height, line, area, "".join(_bands(band, at)), *_rounded(points[-1]), words)


def size_chart(
    days: Sequence[Point],
    marks: Sequence[tuple[date, str, str]] = (),
    alerts: Sequence[Alert] = (),
    band: Sequence[Limits | None] = (),
    *,
    width: int = 960,
    height: int = 260,
) -> SizeChart | None:
    """The size of an audience by day, with marks (day, label, words) as vertical lines, alerts as dots and the band between the limits of
    alerts; None where no count is known.

    `days` are in order, without gaps. The value axis starts at zero unless the curve keeps far from it.
    """
    known = [count for _, count in days if count is not None]
    if not known:
        return None
    first, last = days[0][0], days[-1][0]
    length = max((last - first).days, 1)
    ticks = _nice_ticks(min(known), max(known))
    bottom_value, top_value = ticks[0], ticks[-1]
    left = 12 + 6.5 * max(len(short(tick)) for tick in ticks)
    right, top, bottom = width - 12.0, 30.0, height - 24.0

    def x_of(day: date) -> float:
        return left + (day - first).days / length * (right - left)

    def y_of(count: float) -> float:
        return bottom - (count - bottom_value) / (top_value - bottom_value) * (bottom - top)

    def within(index: int, count: float) -> tuple[float, float]:
        return x_of(days[index][0]), min(max(y_of(count), top), bottom)

    stretches: list[list[tuple[float, float]]] = [[]]
    for day, count in days:
        if count is None:
            stretches.append([])
        else:
            stretches[-1].append((x_of(day), y_of(count)))
    stretches = [stretch for stretch in stretches if stretch]
    column = (right - left) / length
    hits = tuple(
        Hit(
            round(x_of(day), 1),
            round(x_of(day) - column / 2, 1),
            round(column, 1),
            round(y_of(count), 1),
            f"{day:%a} {day.day} {day:%b %Y}: {count:,}",
        )
        for day, count in days
        if count is not None
    )
    end = stretches[-1][-1] if stretches else None
    by_day = dict(days)
    dots = tuple(
        Dot(round(x_of(alert.day), 1), round(bottom if count is None else y_of(count), 1), alert.words, alert.bad)
        for alert in alerts
        if first <= alert.day <= last
        for count in [by_day.get(alert.day)]
    )
    told = f"; {len(dots)} alert{'' if len(dots) == 1 else 's'}" if dots else ""
    return SizeChart(
        width,
        height,
        round(left, 1),
        right,
        top,
        bottom,
        tuple(_path(stretch) for stretch in stretches),
        ()
        if any(band)  # one tint says enough
        else tuple(
            f"{_path(s)}L{s[-1][0]:.1f} {bottom:.1f}L{s[0][0]:.1f} {bottom:.1f}Z" for s in stretches if len(s) > 1
        ),
        _bands(band, within),
        tuple(Tick(round(y_of(tick), 1), short(tick)) for tick in ticks),
        tuple(Tick(round(x_of(day), 1), f"{day.day} {day:%b}") for day in _days_to_name(first, last, width)),
        _place(marks, first, last, x_of, right),
        dots,
        hits,
        _rounded(end) if end else None,
        f"Size from {days[0][0]:%d %b %Y} to {last:%d %b %Y}: least {min(known):,}, greatest {max(known):,}, last {known[-1]:,}{told}",
    )


def short(number: float) -> str:
    """A number as lists show it: 48.2k, 1.3M; whole below 10,000."""
    size = abs(number)
    if size < 10_000:
        return f"{number:,.0f}"
    unit, divisor = ("k", 1e3) if size < 999_500 else ("M", 1e6) if size < 999_500_000 else ("B", 1e9)
    scaled = number / divisor
    return f"{scaled:.0f}{unit}" if abs(scaled) >= 100 or scaled == int(scaled) else f"{scaled:.1f}{unit}"


def every_day(known: Sequence[tuple[date, int]], until: date, *, days: int) -> list[Point]:
    """The last `days` days up to `until`, None on those without a count. Days before the first count are left out."""
    counts = dict(known)
    start = until - timedelta(days=days - 1)
    if counts:
        start = max(start, min(counts))
    return [(day, counts.get(day)) for day in (start + timedelta(days=n) for n in range((until - start).days + 1))]


def _bands(band: Sequence[Limits | None], at: Callable[[int, float], tuple[float, float]]) -> tuple[str, ...]:
    """A closed path for each stretch of days that have limits: along the upper ones, back along the lower ones."""
    found: list[str] = []
    stretch: list[tuple[int, Limits]] = []
    for index, pair in [*enumerate(band), (len(band), None)]:
        if pair is not None:
            stretch.append((index, pair))
        elif len(stretch) > 1:
            upper = [at(day, high) for day, (_, high) in stretch]
            lower = [at(day, low) for day, (low, _) in reversed(stretch)]
            found.append(f"{_path([*upper, *lower])}Z")
        if pair is None:
            stretch = []
    return tuple(found)


def _path(points: Sequence[tuple[float, float]]) -> str:
    if len(points) == 1:  # a lone day is a dot: a line of no length with round ends
        return f"M{points[0][0]:.1f} {points[0][1]:.1f}h0.01"
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _rounded(point: tuple[float, float]) -> tuple[float, float]:
    return round(point[0], 1), round(point[1], 1)


def _nice_ticks(low: int, high: int) -> list[float]:
    """Three to six round values that hold the curve between them."""
    if low > high * 0.6 and high - low < high * 0.3 and low > 20:
        middle, reach = (low + high) / 2, max((high - low) / 2, high * 0.1)
        low_end, high_end = middle - reach * 1.2, middle + reach * 1.2
    else:
        low_end, high_end = 0.0, max(high * 1.05, 4.0)
    raw = (high_end - low_end) / 4
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    step = max(step if step != 2.5 * power or power >= 10 else 5 * power, 1.0)
    start, stop = floor(low_end / step), ceil(high_end / step)
    return [max(0.0, index * step) for index in range(start, stop + 1) if index >= 0]


def _days_to_name(first: date, last: date, width: int) -> list[date]:
    length = (last - first).days
    most = 7 if width > 600 else 4
    step = next((days for days in (1, 2, 7, 14, 28, 56) if length / days <= most), 91)
    return [last - timedelta(days=back) for back in range(0, length + 1, step)][::-1]


def _place(
    marks: Sequence[tuple[date, str, str]], first: date, last: date, x_of: Callable[[date], float], right: float
) -> tuple[Mark, ...]:
    """Labels above the plot, pushed left at its right edge; of labels that would touch, the earlier moves left."""
    placed: list[Mark] = []
    edge = right + 10
    for day, label, words in sorted(marks, key=lambda mark: mark[0], reverse=True):
        if not first <= day <= last:
            continue
        x = x_of(day)
        wide = 14 + 6.5 * len(label)
        label_x = min(x - wide / 2, edge - wide)
        if label_x < 0:
            label_x = 0
        placed.append(Mark(round(x, 1), label, words, round(label_x, 1), 4, round(wide, 1)))
        edge = min(edge, label_x - 3)
    return tuple(reversed(placed))
