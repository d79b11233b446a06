"""Typed columns mean what segments/values.py means, whatever the JSON."""

import json
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiences.models import AttributeName, LakeColumn, PropertyName
from audiences.people import lake
from audiences.people.lake import columns
from audiences.people.lake.staging import workbench
from audiences.segments import values

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-1000, 1000, places=2).map(float),
    st.text(max_size=12),
    st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{1,9})?", fullmatch=True),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
NAMES = ["price", "Price", "a/b~c", "it's", "ключ", "0", ""]


def typed(documents: list[str], names: list[str]) -> pa.Table:
    """What the columns of these names hold for each JSON object."""
    wanted = {name: f"p{number}" for number, name in enumerate(names)}
    with workbench() as connection:
        connection.register("documents", pa.table({"properties": documents}))
        return pa.concat_tables(columns.typed(connection, "SELECT * FROM documents", "properties", wanted))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), JSON), min_size=1, max_size=30))
def test_columns_hold_the_text_and_the_number_that_rules_compare(objects):
    table = typed([json.dumps(found) for found in objects], NAMES)
    for number, name in enumerate(NAMES):
        assert table[f"p{number}"].to_pylist() == [values.text_of(found.get(name)) for found in objects]
        assert table[f"p{number}_num"].to_pylist() == [values.number_of(found.get(name)) for found in objects]


@pytest.mark.parametrize(
    ("written", "text", "number"),
    [
        ("1.0", "1", "1"),
        ("1e3", "1000", "1000"),
        ("-0.0", "-0", "0"),
        ("19.90", "19.9", "19.9"),
        ('"019.90"', "019.90", "19.9"),
        ('"00042"', "00042", "42"),
        ("0.0000005", "5e-7", None),
        ('"0.0000005"', "0.0000005", "0.000001"),
        ('"-0.0000005"', "-0.0000005", "-0.000001"),
        ('"999999999999999999.9999994"', "999999999999999999.9999994", "999999999999999999.999999"),
        ('"999999999999999999.9999995"', "999999999999999999.9999995", "1000000000000000000"),
        ("1000000000000000000", "1000000000000000000", None),
        ("123456789012345678901234567890", "123456789012345678901234567890", None),
        ('"12\\n"', "12\n", None),
        ('"١٢"', "١٢", None),
        ("null", None, None),
        ("true", "true", None),
        ('"\\u0000x"', "\x00x", None),
        ('[1, {"a": "é"}]', '[1,{"a":"é"}]', None),
    ],
)
def test_a_value_at_the_edge_keeps_its_text_and_finds_its_number(written, text, number):
    table = typed([f'{{"x": {written}}}'], ["x"])
    assert table["p0"].to_pylist() == [text]
    assert table["p0_num"].to_pylist() == [number and Decimal(number)]


@pytest.mark.django_db
def test_the_first_names_seen_get_columns_and_names_that_rules_use_get_them_too():
    for number in range(columns.MOST_UNASKED + 5):
        for name in ("purchase", "view"):
            PropertyName.objects.create(
                event=name, name=f"n{number:02}", type="text", first_seen_us=number, last_seen_us=number
            )
    AttributeName.objects.create(name="country", type="text", first_seen_us=1, last_seen_us=1)
    columns.choose_columns()
    columns.choose_columns()
    assert list(columns.property_columns()) == [f"n{number:02}" for number in range(columns.MOST_UNASKED)]
    assert list(columns.attribute_columns()) == ["country"]
    lake.want_columns(["n44", "n01"], ["age"])
    lake.want_columns(["n44"], ["age"])
    assert "n44" in columns.property_columns()
    assert list(columns.attribute_columns()) == ["country", "age"]
    assert LakeColumn.objects.count() == columns.MOST_UNASKED + 3
