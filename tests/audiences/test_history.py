"""Who was in when, replayed from keyframes and changes, against sets."""

import pytest
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase
from pyroaring import BitMap

from audiences import clock, history
from audiences.history import Point, Stay
from audiences.models import Alias, Audience, Refresh, SegmentVersion
from audiences.services import refreshes


def an_audience(key="a"):
    audience = Audience.objects.create(key=key, name=key, purpose="retargeting")
    version(audience, 1)
    return audience


def version(audience, number, **fields):
    return SegmentVersion.objects.create(
        audience=audience,
        number=number,
        state="published",
        segment="{}",
        sha256="",
        sentence="",
        reason=f"v{number}",
        **fields,
    )


def counted(audience, at_us, members, *, number=1, cause="schedule", keyframe=False):
    """What a count writes, by the same function."""
    last = history.refresh_at(audience, at_us)
    row = Refresh(audience=audience, version=audience.versions.get(number=number), cause=cause, as_of_us=at_us)
    refreshes.fill(row, BitMap(members), history.members_at(last) if last else None, keyframe=keyframe)
    row.save()
    return row


class Replay(TestCase):
    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.sets(st.integers(0, 40), max_size=12), min_size=1, max_size=12), st.sets(st.integers(0, 11)))
    def test_every_past_count_replays_to_its_members_wherever_keyframes_lie(self, days, keyframes):
        audience = an_audience()
        rows = [counted(audience, at * clock.DAY, members, keyframe=at in keyframes) for at, members in enumerate(days)]

        for row, members in zip(rows, days, strict=True):
            assert set(history.members_at(Refresh.objects.get(pk=row.pk))) == members
        for person in range(41):
            stays = history.stays(audience, person)
            inside = [at for at, members in enumerate(days) if person in members]
            replayed = [
                at
                for at in range(len(days))
                if any(
                    s.entered_us <= at * clock.DAY and (s.left_us is None or at * clock.DAY < s.left_us) for s in stays
                )
            ]
            assert replayed == inside


@pytest.mark.django_db
def test_a_stay_says_under_which_version_they_came_and_went():
    audience = an_audience()
    version(audience, 2)
    counted(audience, 0, {7})
    counted(audience, 10, {7, 8})
    counted(audience, 20, {8}, number=2)
    counted(audience, 30, {7}, number=2)

    assert history.stays(audience, 7) == [
        Stay(0, 1, since_before=True, entered_by_new_version=False, entered_backfilled=False,
             left_us=20, left_version=2, left_by_new_version=True),
        Stay(30, 2, since_before=False, entered_by_new_version=False, entered_backfilled=False),
    ]  # fmt: skip
    assert history.stays(audience, 8)[0].entered_us == 10
    assert history.stays(audience, 9) == []


@pytest.mark.django_db
def test_past_days_computed_later_come_first_in_the_story():
    audience = an_audience()
    counted(audience, 100 * clock.DAY, {7})
    counted(audience, 98 * clock.DAY, {7}, cause="backfill")
    counted(audience, 99 * clock.DAY, {7}, cause="backfill")

    assert history.stays(audience, 7) == [
        Stay(98 * clock.DAY, 1, since_before=True, entered_by_new_version=False, entered_backfilled=True)
    ]


@pytest.mark.django_db
def test_a_merged_person_has_the_stays_of_both_numbers():
    audience = an_audience()
    counted(audience, 0, {2})
    counted(audience, 10, set())
    counted(audience, 20, {1})
    Alias.objects.create(old_no=2, survivor_no=1)

    assert [(stay.entered_us, stay.left_us) for stay in history.stays(audience, 1)] == [(0, 10), (20, None)]


@pytest.mark.django_db
def test_a_failed_count_is_no_part_of_the_story():
    audience = an_audience()
    counted(audience, 0, {1})
    Refresh.objects.create(
        audience=audience, version=audience.versions.get(), cause="schedule", as_of_us=5, state="failed"
    )
    last = counted(audience, 10, {1, 2})

    assert set(history.members_at(last)) == {1, 2}
    assert len(history.stays(audience, 1)) == 1
    assert history.refresh_at(audience, 7).as_of_us == 0
    assert history.refresh_at(audience, -1) is None


@pytest.mark.django_db
def test_the_curve_has_the_last_count_of_each_day_and_the_versions():
    audience = an_audience()
    now = clock.now_us()
    today = now // clock.DAY * clock.DAY
    counted(audience, today - 200 * clock.DAY, {1})
    counted(audience, today - 2 * clock.DAY, {1, 2}, cause="backfill")
    counted(audience, today - clock.DAY, {1})
    counted(audience, today - clock.DAY + clock.HOUR, {1, 2, 3})
    version(audience, 2, published_at=timezone.now())

    curve = history.curve(audience, 90, now_us=now)

    assert curve.points == (Point(today - 2 * clock.DAY, 2, True), Point(today - clock.DAY + clock.HOUR, 3, False))
    assert [(mark.version, mark.reason) for mark in curve.marks] == [(2, "v2")]
