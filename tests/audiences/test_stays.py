"""Everybody's stretches of membership are one person's (history.py), told for all at once, from the start or from a count on."""

from collections import defaultdict

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase
from pyroaring import BitMap

from audiences import clock, history, stays
from audiences.models import Alias, Profile, Refresh
from audiences.people import called
from tests.audiences.test_history import an_audience, counted, version

PEOPLE = st.sets(st.integers(1, 20), max_size=8)


def table(*args, **options):
    return pa.concat_tables([stays.STAYS.empty_table(), *stays.read(*args, **options)]).to_pylist()


def by_person(rows):
    found = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["entered_us"]):
        found[row.pop("profile_no")].append(
            history.Stay(
                row["entered_us"], row["entered_version"], row["since_before"], row["entered_by_new_version"],
                row["backfilled"], row["left_us"], row["left_version"], bool(row["left_by_new_version"]),
            )
        )  # fmt: skip
    return found


class Everybody(TestCase):
    @settings(max_examples=60, deadline=None)
    @given(
        days=st.lists(PEOPLE, min_size=1, max_size=9),
        keyframes=st.sets(st.integers(0, 8)),
        second_version_on=st.integers(0, 9),
        merged=st.dictionaries(st.integers(1, 20), st.integers(1, 20), max_size=4),
    )
    def test_each_has_the_stretches_that_history_tells_of_one(self, days, keyframes, second_version_on, merged):
        merged = {old: new for old, new in merged.items() if new not in merged and old != new}
        audience = an_audience()
        version(audience, 2)
        for at, members in enumerate(days):
            counted(audience, at * clock.DAY, members, number=1 + (at >= second_version_on), keyframe=at in keyframes,
                    cause="backfill" if at == 0 else "schedule")  # fmt: skip
        for old, new in merged.items():
            Profile.objects.create(profile_no=old, bucket_key="k", state="merged", created_us=0)
            Alias.objects.create(old_no=old, survivor_no=new)

        found = by_person(table(audience.pk, called.merged_people()))

        for person in set(range(1, 21)) - set(merged):
            assert found.get(person, []) == history.stays(audience, person), person
        assert not set(found) & set(merged)

    @settings(max_examples=60, deadline=None)
    @given(
        days=st.lists(PEOPLE, min_size=2, max_size=9),
        keyframes=st.sets(st.integers(0, 8)),
        cut=st.integers(0, 7),
        some=st.sets(st.integers(1, 20), min_size=1, max_size=6),
    )
    def test_what_is_known_and_what_came_after_make_the_whole(self, days, keyframes, cut, some):
        cut = min(cut, len(days) - 2)
        audience = an_audience()
        rows = [counted(audience, at * clock.DAY, members, keyframe=at in keyframes) for at, members in enumerate(days)]
        position = stays.Position(rows[cut].as_of_us, rows[cut].pk)

        known = {(row["profile_no"], row["entered_us"]): row for row in table(audience.pk, {}, upto=position)}
        for row in table(audience.pk, {}, after=position):
            if row["entered_us"] is None:  # the end of a stretch that is known
                (open_,) = (k for k, v in known.items() if k[0] == row["profile_no"] and v["left_us"] is None)
                known[open_] |= {name: value for name, value in row.items() if name.startswith("left")}
            else:
                assert (row["profile_no"], row["entered_us"]) not in known
                known[row["profile_no"], row["entered_us"]] = row

        whole = {(row["profile_no"], row["entered_us"]): row for row in table(audience.pk, {})}
        assert known == whole
        few = table(audience.pk, {}, only=BitMap(some))
        assert {(r["profile_no"], r["entered_us"]): r for r in few} == {k: v for k, v in whole.items() if k[0] in some}


@pytest.mark.django_db
def test_a_past_that_was_computed_later_is_recognised_and_a_count_after_the_end_is_left_out():
    audience = an_audience()
    for day in (10, 11, 12):
        counted(audience, day * clock.DAY, {1, day})
    seen = stays.Progress()
    rows = table(audience.pk, {}, until_us=12 * clock.DAY, progress=seen)

    assert {row["profile_no"]: row["left_us"] for row in rows} == {1: None, 10: 11 * clock.DAY, 11: None}
    assert seen.counts == stays.counts_up_to(audience.pk, seen.last) == 2
    counted(audience, 3 * clock.DAY, {1}, cause="backfill", keyframe=True)
    assert stays.counts_up_to(audience.pk, seen.last) == 3
    assert stays.position_of(audience.pk) == stays.Position(
        12 * clock.DAY, Refresh.objects.order_by("as_of_us").last().pk
    )


@pytest.mark.django_db
def test_nobody_is_called_who_was_removed_or_never_had_an_id_and_merged_numbers_lead_to_the_survivor():
    import numpy as np

    from tests.audiences.people_in import identify, merge, number

    identify("ann", email="ann@example.com")
    identify("bob")
    identify("zoe")
    numbers = {id: number(id) for id in ("ann", "bob", "zoe")}
    merge("ann", "bob")
    Profile.objects.filter(pk=numbers["zoe"]).update(state="erased")

    names = called.everybody()

    asked = np.array([numbers["ann"], numbers["bob"], numbers["zoe"], 4_000_000], np.uint32)
    assert names.of(asked).to_pylist() == ["ann", "ann", None, None]
    assert names.survivors(asked).tolist() == [numbers["ann"], numbers["ann"], 0, 0]
    assert (len(names), names.named(BitMap(asked))) == (1, 2)
    assert called.merged_people() == {numbers["bob"]: numbers["ann"]}
