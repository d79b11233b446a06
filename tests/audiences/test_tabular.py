"""Files are read row by row whatever they hold, and what is no row says where and why."""

import gzip
import tracemalloc
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiences.people import tabular
from audiences.people.tabular import BadLine, Row, Unreadable


def read(path):
    with tabular.reading(path) as table:
        return table.columns, list(table.rows)


@pytest.fixture
def file(tmp_path):
    def write(content: bytes):
        path = tmp_path / "file"
        path.write_bytes(content)
        return path

    return write


def test_a_plain_file_is_read_with_its_line_numbers(file):
    assert read(file(b"id,n\n00042,1\n7,\n")) == (["id", "n"], [Row(2, ["00042", "1"]), Row(3, ["7", ""])])


def test_a_byte_order_mark_is_no_part_of_the_first_name(file):
    assert read(file(b"\xef\xbb\xbfid\n1\n"))[0] == ["id"]


def test_a_compressed_file_is_told_by_its_content(file):
    assert read(file(gzip.compress(b"id\n1\n")))[1] == [Row(2, ["1"])]


def test_fields_may_hold_line_breaks_and_quotes(file):
    _, rows = read(file(b'id,note\n1,"two\nlines, ""quoted"""\n2,x\n'))
    assert rows == [Row(2, ["1", 'two\nlines, "quoted"']), Row(4, ["2", "x"])]


def test_bad_lines_are_set_aside_and_the_rest_goes_on(file):
    _, rows = read(file(b"id,n\n1,2\n\xff,3\n4\n5,6,7\na\x00b,1\n8,9\n"))
    assert [(type(row), row.line) for row in rows] == [
        (Row, 2),
        (BadLine, 3),
        (BadLine, 4),
        (BadLine, 5),
        (BadLine, 6),
        (Row, 7),
    ]
    assert rows[1].reason == "not UTF-8 at byte 1"
    assert rows[2].reason == "1 fields where the header has 2"
    assert rows[4].reason == "has a NUL byte"
    assert "\x00" not in rows[4].raw


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "The file is empty"),
        (b"\n\n", "no CSV header"),
        (b"a,a\n1,2\n", "Two columns are called “a”"),
        (b"a,,b\n", "Column 2 has no name"),
        (b",".join(b"c%d" % n for n in range(10_000)) + b"\n", "10,000 columns"),
        (b"\xff\xfe\n1\n", "not UTF-8"),
        (b"PAR1 but not really", "cannot be read as it"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(file, content, words):
    with pytest.raises(Unreadable, match=words):
        read(file(content))


def test_compressed_data_that_break_off_say_where(file):
    whole = gzip.compress(b"id\n" + b"".join(b"%d\n" % n for n in range(50_000)))
    with pytest.raises(Unreadable, match="break off after line"):
        read(file(whole[: len(whole) // 2]))


def test_what_a_stray_quote_swallows_is_kept(file):
    swallowed = b'2,"oops\n' + b"3,fine\n" * 200_000
    _, rows = read(file(b"id,n\n1,x\n" + swallowed))
    assert rows[0] == Row(2, ["1", "x"])
    assert isinstance(rows[1], BadLine)
    assert rows[1].line == 3
    assert rows[1].raw.startswith('2,"oops\n3,fine')
    # Nothing is lost: every line is in the raw text or was read as a row.
    kept = sum(row.raw.count("fine") if isinstance(row, BadLine) else 1 for row in rows[1:])
    assert kept == 200_000


def test_a_line_without_an_end_does_not_fill_the_memory(file):
    bomb = file(gzip.compress(b"id\n" + b"x" * 200_000_000 + b"\n1\n"))
    tracemalloc.start()
    _, rows = read(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [type(row) for row in rows] == [BadLine, Row]
    assert peak < 30_000_000


def test_parquet_values_come_as_json_can_hold_them(tmp_path):
    path = tmp_path / "people.parquet"
    table = pa.table(
        {
            "id": ["a", None],
            "at": [datetime(2026, 1, 1, tzinfo=UTC), None],
            "n": [1, 2],
            "x": [float("nan"), 1.5],
            "raw": [b"\xff", b"y"],
        }
    )
    pq.write_table(table, path)
    _, rows = read(path)
    assert rows == [Row(2, ["a", "2026-01-01T00:00:00+00:00", 1, None, "\\xff"]), Row(3, [None, None, 2, 1.5, "y"])]


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(b"id,n\n" + content)
    try:
        _, rows = read(path)
    except Unreadable:
        return
    lines = [row.line for row in rows]
    assert lines == sorted(lines)
    assert all(len(row.values) == 2 for row in rows if isinstance(row, Row))
