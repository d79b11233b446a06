"""Curves as strings: what is usual, the band within which nobody is alerted, and dots where somebody was."""

from datetime import date, timedelta
from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from audiences import charts

TODAY = date(2026, 11, 24)


def days(*counts: int | None) -> list[charts.Point]:
    return [(TODAY - timedelta(days=len(counts) - 1 - index), count) for index, count in enumerate(counts)]


def test_the_usual_is_not_known_before_three_days_are():
    found = charts.limits([100, 100, None, 100, 100], 0.25)
    assert found[:4] == [None] * 4
    assert found[4] == (75, 125)


def test_a_day_that_is_off_is_no_part_of_the_usual():
    assert charts.limits([1000] * 7 + [400] * 20, 0.25)[-1] == (750, 1250)


def test_of_few_people_every_day_is_part_of_it():
    assert charts.limits([20] * 7 + [2] * 20, 0.25, least=100)[-1] == (1.5, 2.5)


def test_the_usual_begins_anew_where_somebody_took_the_new_size_for_it():
    found = charts.limits([1000] * 7 + [400] * 10, 0.25, start=9)
    assert found[8] == (750, 1250)
    assert found[9:12] == [None] * 3
    assert found[-1] == (300, 500)


@given(st.lists(st.integers(0, 10**9) | st.none(), max_size=60), st.floats(0.05, 5))
def test_with_nothing_ever_off_it_is_the_median_of_the_last_seven(counts, share):
    found = charts.limits(counts, share, least=float("inf"))
    for index, pair in enumerate(found):
        held = [count for count in counts[:index] if count is not None][-7:]
        if len(held) < 3:
            assert pair is None
        else:
            usual = median(held)
            assert pair == (max(0.0, usual * (1 - share)), usual * (1 + share))


def test_a_sparkline_holds_its_curve_and_its_band_in_its_box():
    counts = [1000, 1010, 990, 1000, 1005, 400]
    spark = charts.sparkline(counts, charts.limits(counts, 0.25))
    assert spark.band.endswith("Z")
    heights = [float(point.split()[1]) for point in spark.line.lstrip("M").split("L")]
    assert 0 <= min(heights) <= max(heights) <= spark.height
    assert spark.words.endswith("an alert below 750 or above 1,250")
    assert charts.sparkline(counts).band == ""


def test_an_alert_is_a_dot_on_the_curve_or_at_its_foot_where_nothing_was_counted():
    alerts = [charts.Alert(TODAY, "Dropped", True), charts.Alert(TODAY - timedelta(days=1), "Failed", False)]
    old = charts.Alert(TODAY - timedelta(days=300), "Long ago", True)
    chart = charts.size_chart(days(100, 100, None, 60), alerts=[*alerts, old])
    assert chart is not None
    assert [(dot.words, dot.bad) for dot in chart.dots] == [("Dropped", True), ("Failed", False)]
    assert (chart.dots[0].x, chart.dots[0].y) == chart.last
    assert chart.dots[1].y == chart.bottom
    assert chart.words.endswith("last 60; 2 alerts")
