"""Fills an installation with people and a counted audience for the record's benchmark. Run as a program: PEOPLE COUNTS; DATA_DIR says where."""

import sys

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from pyroaring import BitMap  # noqa: E402

from audiences import clock  # noqa: E402
from audiences.models import Audience, Counter, Identity, LakeFile, Membership, Profile, Refresh, SegmentVersion  # noqa: E402
from audiences.services import refreshes  # noqa: E402


def fill(people: int, counts: int) -> None:
    """`people` members with an external id each, of whom one in a hundred changes at every count."""
    call_command("migrate", verbosity=0)
    moment = connection.ops.adapt_datetimefield_value(clock.from_us(clock.now_us()))
    with transaction.atomic():
        for start in range(1, people + 1, 50_000):
            numbers = range(start, min(start + 50_000, people + 1))
            Profile.objects.bulk_create(
                (Profile(profile_no=n, bucket_key=f"customer-{n:08}", created_us=0, identity_no=n) for n in numbers),
                batch_size=1_000,
            )
            Identity.objects.bulk_create(
                (
                    Identity(identity_no=n, profile_no=n, external_id=f"customer-{n:08}", created_at=moment)
                    for n in numbers
                ),
                batch_size=1_000,
            )
    audience = Audience.objects.create(key="large", name="large", purpose="retargeting")
    version = SegmentVersion.objects.create(
        audience=audience, number=1, state="published", segment="{}", sha256="", sentence=""
    )
    everybody, members, previous = BitMap(range(1, people + 1)), BitMap(), None
    first = clock.now_us() - counts * clock.DAY
    for day in range(counts):
        away = BitMap(range(1 + day, people + 1, 100))
        members = everybody - away
        row = Refresh(audience=audience, version=version, cause="schedule", as_of_us=first + day * clock.DAY)
        refreshes.fill(row, members, previous, keyframe=day % 32 == 0)
        row.save()
        previous = members
    Membership.objects.create(audience=audience, refresh=row, members=row.keyframe or b"", count=len(members))
    Counter.objects.update_or_create(name="profile_no", defaults={"value": people})
    assert not LakeFile.objects.exists()


if __name__ == "__main__":
    fill(int(sys.argv[1]), int(sys.argv[2]))
