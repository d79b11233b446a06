"""Sets from masks, whatever their size and density."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from audiences import bitmaps


@pytest.mark.parametrize("size", [0, 1, 100, 65_535, 65_536, 65_537, 300_000])
@pytest.mark.parametrize("share", [0, 0.001, 0.05, 0.0625, 0.07, 0.5, 0.99, 1])
def test_a_mask_becomes_the_set_of_its_positions(size, share):
    mask = np.random.default_rng(size).random(size) < share
    made = bitmaps.from_mask(mask)
    assert made == BitMap(np.flatnonzero(mask))
    assert len(made) == np.count_nonzero(mask)
    assert bitmaps.unpack(bitmaps.pack(made)) == made


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 4_095, 4_096, 4_097, 65_536]))))
def test_containers_of_every_kind_stand_side_by_side(blocks):
    mask = np.zeros(4 * 65_536, np.bool_)
    for block, size in blocks:
        mask[block * 65_536 : block * 65_536 + size] = True
    assert bitmaps.from_mask(mask) == BitMap(np.flatnonzero(mask))
    changed = bitmaps.from_mask(mask)
    changed.add(7)
    changed -= BitMap(range(65_536))
    assert changed == BitMap(np.flatnonzero(mask)) - BitMap(range(65_536))
