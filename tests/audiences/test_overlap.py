"""Every pair of audiences, counted: against sets, for any sizes."""

import json

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from audiences import bitmaps, overlap
from audiences.models import Audience, Membership, Refresh, SegmentVersion

sparse = st.sets(st.integers(0, 300_000), max_size=200)
middling = st.builds(
    lambda start, step: set(range(start, 200_000, step)), st.integers(0, 100_000), st.integers(17, 450)
)
dense = st.builds(lambda start, step: set(range(start, 200_000, step)), st.integers(0, 100_000), st.integers(1, 15))
sets = st.lists(sparse | middling | dense, max_size=6)


@settings(deadline=None)
@given(sets)
def test_every_pair_holds_the_size_of_its_intersection(people):
    counts = overlap.pairs([BitMap(members) for members in people])

    assert counts == tuple(tuple(len(left & right) for right in people) for left in people)


def test_a_share_is_of_the_row_and_unknown_for_nobody():
    found = overlap.Matrix(
        ("big", "small", "none"), (0, 0, 0), overlap.pairs([BitMap(range(100)), BitMap(range(90, 110)), BitMap()])
    )

    assert found.share(0, 1) == 0.1
    assert found.share(1, 0) == 0.5
    assert found.share(2, 0) is None


def _counted(key: str, members: BitMap) -> Audience:
    audience = Audience.objects.create(key=key, name=key, purpose="retargeting")
    version = SegmentVersion.objects.create(
        audience=audience, number=1, state="published", segment="{}", sha256=key, sentence=""
    )
    counting = Refresh.objects.create(
        audience=audience,
        version=version,
        state="done",
        cause="manual",
        as_of_us=1_700_000_000_000_000,
        count=len(members),
    )
    Membership.objects.create(audience=audience, refresh=counting, members=bitmaps.pack(members), count=len(members))
    return audience


@pytest.mark.django_db
def test_the_command_prints_every_pair_for_machines(capsys):
    _counted("cart", BitMap(range(60)))
    _counted("buyers", BitMap(range(50, 100)))
    _counted("nobody", BitMap())

    call_command("overlap", "--json")
    printed = json.loads(capsys.readouterr().out)

    assert [row["key"] for row in printed["audiences"]] == ["buyers", "cart", "nobody"]
    assert printed["audiences"][0] == {"key": "buyers", "count": 50, "as_of": "2023-11-14T22:13:20Z"}
    assert printed["pairs"][0] == {"a": "buyers", "b": "cart", "count": 10, "share_of_a": 0.2, "share_of_b": 10 / 60}
    assert printed["pairs"][1]["share_of_b"] is None
    assert len(printed["pairs"]) == 3


@pytest.mark.django_db
def test_the_command_says_in_words_who_shares_whom(capsys):
    _counted("cart", BitMap(range(60)))
    _counted("buyers", BitMap(range(50, 100)))

    call_command("overlap", "cart", "buyers")

    assert capsys.readouterr().out == "cart and buyers: 10 people, 16.7% of cart, 20.0% of buyers\n"


@pytest.mark.django_db
def test_an_archived_audience_is_left_out_and_an_uncounted_one_is_an_error():
    _counted("cart", BitMap(range(60)))
    archived = _counted("old", BitMap(range(60)))
    Audience.objects.filter(pk=archived.pk).update(archived_at="2026-01-01T00:00:00Z")
    Audience.objects.create(key="new", name="new", purpose="retargeting")

    assert overlap.matrix().keys == ("cart",)
    with pytest.raises(CommandError, match="Not counted yet, or no such audience: new"):
        call_command("overlap", "cart", "new")
    with pytest.raises(CommandError, match="There is no audience cartt"):
        call_command("overlap", "cartt")
