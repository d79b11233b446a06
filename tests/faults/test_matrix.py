"""The matrix itself: every one of its fifty rows has a test with its number, and docs/operations.md says where and in which mode."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = range(1, 51)


def held_by_tests():
    """The numbers in names and ids of tests: `fault_07`."""
    sources = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return {int(number) for source in sources for number in re.findall(r"fault_(\d\d)(?=[_\-\"])", source)}


def said_by_operations():
    """The numbers in the first cells of the table of faults: `1–3, 7, 8`."""
    text = (ROOT / "docs" / "operations.md").read_text()
    table = text[text.index("| row | fault |") :]
    said = set()
    for line in table.splitlines()[2:]:
        if not line.startswith("|"):
            break
        for part in line.split("|")[1].split(","):
            first, _, last = part.strip().partition("–")
            said.update(range(int(first), int(last or first) + 1))
    return said


def test_every_row_of_the_fault_matrix_has_a_test_that_carries_its_number():
    assert set(ROWS) - held_by_tests() == set()


def test_operations_says_of_every_row_where_it_is_held():
    assert said_by_operations() == set(ROWS)
