"""What a JSON value means in comparisons."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiences.segments.values import FIRST_US, LAST_US, millionths, moment_of, number_of, plain, text_of, time_of

NEW_YEAR_2024 = 1_704_067_200_000_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("", ""),
        ("00042", "00042"),
        (" x ", " x "),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-7, "-7"),
        (2**70, "1180591620717411303424"),
        (10.0, "10"),
        (1.50, "1.5"),
        (1e16, "10000000000000000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e21"),
        (1.5e21, "1.5e21"),
        (0.00001, "0.00001"),
        (1e-7, "1e-7"),
        (-0.0, "-0"),
        (float("nan"), None),
        (float("inf"), None),
        (float("-inf"), None),
        (Decimal("500.00"), "500"),
        (Decimal("1E+3"), "1000"),
        (Decimal("NaN"), None),
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'),
        ([], "[]"),
    ],
)
def test_every_json_value_has_one_text_form(value, text):
    assert text_of(value) == text


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("00042", "42"),
        ("12.50", "12.5"),
        (12.5, "12.5"),
        (-3, "-3"),
        ("-0", "0"),
        ("0.0000005", "0.000001"),
        ("-0.0000005", "-0.000001"),
        ("0.00000049999", "0"),
        ("999999999999999999.9999994", "999999999999999999.999999"),
        ("999999999999999999", "999999999999999999"),
    ],
)
def test_a_number_is_plain_digits_rounded_half_away_from_zero_to_six_places(value, number):
    assert number_of(value) == Decimal(number)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "x",
        "1e3",
        1e21,
        1e-7,
        "1,000",
        "1000000000000000000",
        "+1",
        "1.",
        ".5",
        " 1",
        "1\n",
        "٣",
        True,
        [1],
        {},
    ],
)
def test_what_is_not_plain_digits_is_no_number(value):
    assert number_of(value) is None


@pytest.mark.parametrize(
    ("value", "us"),
    [
        ("2024-01-01", NEW_YEAR_2024),
        ("2024-01-01T00:00", NEW_YEAR_2024),
        ("2024-01-01 00:00:00", NEW_YEAR_2024),
        ("2024-01-01T00:00:00Z", NEW_YEAR_2024),
        ("2024-01-01T01:00:00+01:00", NEW_YEAR_2024),
        ("2024-01-01T05:30:00+0530", NEW_YEAR_2024),
        ("2023-12-31 21:00:00-03", NEW_YEAR_2024),
        ("2024-01-01T00:00:00.5", NEW_YEAR_2024 + 500_000),
        ("2024-01-01T00:00:00.123456789Z", NEW_YEAR_2024 + 123_456),
        (1704067200, NEW_YEAR_2024),
        ("1704067200", NEW_YEAR_2024),
        (1704067200.25, NEW_YEAR_2024 + 250_000),
        (1704067200000, NEW_YEAR_2024),
        ("99999999999", 99_999_999_999_000_000),
        (100_000_000_000, 100_000_000_000_000),
        (0, 0),
        (-1, -1_000_000),
        (-1.0000001, -1_000_000),
    ],
)
def test_a_moment_is_an_iso_date_or_unix_seconds_or_milliseconds(value, us):
    assert time_of(value) == us


@pytest.mark.parametrize(
    "value",
    [
        None, "", True, "yesterday", "2024-02-30", "2024-1-1", "2024-01-01T24:00", "2024-01-01T00:00:60", "2024-01-01T10Z",
        "2024-01-01t00:00z", "2024-01-01T00:00:00+15:00", "0999-01-01", "0000-01-01", " 2024-01-01", "2024-01-01\n", "٢٠٢٤-01-01",
        10**18 - 1, -(10**12), "9999-12-31T23:59:59-14:00", "1e9", [1704067200],
    ],
)  # fmt: skip
def test_what_names_no_moment_is_none(value):
    assert time_of(value) is None


def test_a_date_in_a_rule_is_iso_alone():
    assert moment_of("2024-01-01") == NEW_YEAR_2024
    assert moment_of("1704067200") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_any_json_value_is_read_without_an_error(value):
    text = text_of(value)
    number, us = number_of(value), time_of(value)
    assert text is None or isinstance(text, str)
    assert number == number_of(text) and us == time_of(text)
    assert us is None or FIRST_US <= us <= LAST_US


@given(st.decimals(min_value=-(10**18) + 1, max_value=10**18 - 1, places=6))
def test_a_decimal_survives_its_plain_text_and_its_millionths(number):
    assert number_of(plain(number)) == number
    assert Decimal(millionths(number)).scaleb(-6) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_float_is_a_json_number_of_the_same_value(value):
    assert json.loads(text_of(value), parse_int=float) == value
