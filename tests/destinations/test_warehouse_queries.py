"""The queries of docs/warehouse.md, as they stand there, on a year of made-up people: the answers of plain Python, from files and from PostgreSQL."""

import math
import os
import random
import re
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import fmean, variance

import duckdb
import psycopg
import pyarrow as pa
import pytest
from django.core.management import call_command
from pyroaring import BitMap

from audiences import bitmaps, clock
from audiences.models import Audience, Counter, Identity, Membership, Profile, Refresh, SegmentVersion
from audiences.people import lake
from audiences.services import refreshes
from destinations import eligibility
from destinations.eligibility import Step
from destinations.models import Account, Destination, Mapping
from destinations.record import shape
from destinations.services import warehouse
from tests.destinations import warehouse_scene

pytestmark = pytest.mark.django_db(transaction=True)

DOC = (Path(__file__).parents[2] / "docs" / "warehouse.md").read_text()
QUERIES = dict(re.findall(r"```sql\n-- (\w+)\n(.*?);\n```", DOC, re.DOTALL))
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, PEOPLE = 240, 500


class Shop:
    """Days in and out, purchases and arms of made-up people, as plain Python; and the same in the database."""

    def __init__(self):
        dice = random.Random(5)
        self.counts = [FIRST + timedelta(days=day) for day in range(DAYS)]
        self.known = self.counts[-1]
        self.inside = defaultdict(set)  # day → people
        self.purchases = []  # (person, moment, value)
        self.arm = {n: "holdout" if n % 4 == 0 else "treated" for n in range(1, PEOPLE + 1)}
        for person in range(1, PEOPLE + 1):
            day = dice.choice((0, 0, *range(1, DAYS - 1))) if person % 9 else 120  # the rule changes on day 120
            for _ in range(dice.randint(1, 3)):
                stay = int(dice.expovariate(1 / 25)) + 1
                for inside in range(day, min(day + stay, DAYS)):
                    self.inside[inside].add(person)
                day += stay + int(dice.expovariate(1 / 30)) + 1
                if day >= DAYS:
                    break
            for _ in range(int(dice.expovariate(1 / (2.5 if self.arm[person] == "treated" else 1.2)))):
                moment = FIRST + timedelta(seconds=dice.randint(0, (DAYS - 1) * 86_400))
                self.purchases.append((person, moment, Decimal(dice.randint(100, 20_000)) / 100))
        self.fill(dice)

    def version_of(self, day):
        return 2 if day >= 120 else 1

    def stretches(self):
        """person → [(day entered, day left or None)]"""
        found = defaultdict(list)
        for day in range(DAYS):
            for person in self.inside[day] - self.inside[day - 1] if day else self.inside[0]:
                found[person].append([day, None])
            for person in (self.inside[day - 1] - self.inside[day]) if day else ():
                found[person][-1][1] = day
        return found

    def entered(self):
        """person → (moment, moment left or None) of the first stretch, of those whose moment of entering is known."""
        first = {person: own[0] for person, own in self.stretches().items()}
        known = {person: stay for person, stay in first.items() if stay[0] not in (0, 120)}
        return {
            person: (self.counts[day], None if left is None else self.counts[left])
            for person, (day, left) in known.items()
        }

    def assigned(self):
        """person → (arm, moment): syncs run from day 30 on, with everybody who is in."""
        found = {}
        for day in range(30, DAYS, 10):
            for person in self.inside[day]:
                found.setdefault(person, (self.arm[person], self.counts[day]))
        return found

    def bought(self, person, begins, ends):
        return [value for who, moment, value in self.purchases if who == person and begins <= moment < ends]

    def fill(self, dice):
        for n in range(1, PEOPLE + 1):
            Profile.objects.create(profile_no=n, bucket_key=f"c{n}", created_us=0, identity_no=n)
            Identity.objects.create(identity_no=n, profile_no=n, external_id=f"c{n}")
        Counter.objects.update_or_create(name="profile_no", defaults={"value": PEOPLE})
        audience = Audience.objects.create(key="meta_retarget_cart_24h", name="m", purpose="retargeting")
        versions = {
            number: SegmentVersion.objects.create(
                audience=audience, number=number, state="published", segment="{}", sha256="", sentence=""
            )
            for number in (1, 2)
        }
        account = Account.objects.create(key="meta:act_1")
        destination = Destination.objects.create(key="meta_main", name="Meta", kind="meta", account=account)
        mapping = Mapping.objects.create(pk=1, audience=audience, destination=destination, first_live_at=FIRST)
        previous = None
        for day, moment in enumerate(self.counts):
            members = BitMap(self.inside[day])
            row = Refresh(
                audience=audience,
                version=versions[self.version_of(day)],
                cause="schedule",
                as_of_us=clock.to_us(moment),
            )
            refreshes.fill(row, members, previous, keyframe=day % 32 == 0)
            row.save()
            if day >= 30 and day % 10 == 0:
                out = BitMap(n for n in members if self.arm[n] == "holdout")
                eligibility.keep(mapping, row.pk, [Step(eligibility.HOLDOUT, out, len(members) - len(out))])
            previous = members
        Membership.objects.create(audience=audience, refresh=row, members=bitmaps.pack(members), count=len(members))
        kinds = [("purchase", person, moment, f'{{"value":{value}}}') for person, moment, value in self.purchases]
        kinds += [("view", person, moment, "{}") for person, moment, _ in self.purchases]
        rows = [
            {"event_key": f"{n:032x}", "profile_no": person, "name": name, "time_us": clock.to_us(moment), "received_us": clock.to_us(moment),
             "source": "import", "hot_mark": None, "properties": properties}
            for n, (name, person, moment, properties) in enumerate(kinds)
        ]  # fmt: skip
        dice.shuffle(rows)
        staged = lake.stage_events(pa.Table.from_pylist(rows, schema=lake.EVENTS), origin="import")
        with lake.publishing(staged):
            lake.publish(staged)


def by_ltv(shop):
    """month → (people, buyers, spent on average within 30 days, within 90)"""
    cohorts = defaultdict(list)
    for person, (moment, _) in shop.entered().items():
        if moment <= shop.known - timedelta(days=90):
            within = [sum(shop.bought(person, moment, moment + timedelta(days=days))) for days in (30, 90)]
            buyer = bool(shop.bought(person, moment, moment + timedelta(days=90)))
            cohorts[moment.replace(day=1, hour=0, minute=0, second=0, tzinfo=None)].append((buyer, *within))
    return [
        (month, len(own), sum(b for b, _, _ in own), *(round(float(sum(person[at] for person in own)) / len(own), 2) for at in (1, 2)))
        for month, own in sorted(cohorts.items())
    ]  # fmt: skip


def by_retention(shop):
    rows = []
    for period in range(1, 7):
        watched = []
        for person, (moment, _) in shop.entered().items():
            begins, ends = moment + timedelta(days=30 * (period - 1)), moment + timedelta(days=30 * period)
            if ends <= shop.known:
                watched.append(bool(shop.bought(person, begins, ends)))
        if watched:
            rows.append((period, len(watched), sum(watched), round(100 * sum(watched) / len(watched), 1)))
    return rows


def by_stay(shop):
    rows = []
    for week in range(1, 13):
        watched = [
            left is None or left >= moment + timedelta(weeks=week)
            for moment, left in shop.entered().values()
            if moment + timedelta(weeks=week) <= shop.known
        ]
        rows.append((week, len(watched), round(100 * sum(watched) / len(watched), 1)))
    return rows


def by_incrementality(shop):
    arms = defaultdict(list)
    for person, (arm, moment) in shop.assigned().items():
        if moment <= shop.known - timedelta(days=30):
            values = shop.bought(person, moment, moment + timedelta(days=30))
            arms[arm].append((bool(values), float(sum(values))))
    t, h = arms["treated"], arms["holdout"]
    rates = [fmean(bought for bought, _ in arm) for arm in (t, h)]
    spent = [[value for _, value in arm] for arm in (t, h)]
    lift, more = rates[0] - rates[1], fmean(spent[0]) - fmean(spent[1])
    error = math.sqrt(sum(rate * (1 - rate) / len(arm) for rate, arm in zip(rates, (t, h), strict=True)))
    spent_error = math.sqrt(sum(variance(values) / len(values) for values in spent))
    z = 1.959964
    return [
        (
            len(t),
            len(h),
            *rates,
            lift,
            lift - z * error,
            lift + z * error,
            lift * len(t),
            more,
            more - z * spent_error,
            more + z * spent_error,
        )
    ]


PLAIN = {"ltv": by_ltv, "retention": by_retention, "stay": by_stay, "incrementality": by_incrementality}


@pytest.fixture
def shop(settings, tmp_path):
    settings.LAKE_URL = str(tmp_path / "lake")
    return Shop()


def agree(shop, ask):
    """The documented text of each query gives what plain Python gives."""
    assert QUERIES.keys() == PLAIN.keys()
    for name, plain in PLAIN.items():
        found, expected = ask(QUERIES[name]), plain(shop)
        assert len(found) == len(expected) and len(expected) > 0, name
        for row, wanted in zip(found, expected, strict=True):
            for value, wish in zip(row, wanted, strict=True):
                if isinstance(wish, datetime):
                    assert value == wish, name
                else:  # percent and money are rounded by halves in one and by evens in the other
                    assert float(value) == pytest.approx(
                        float(wish), abs=0.11 if name in ("retention", "stay") else 0.011
                    ), (name, row, wanted)
    low, high = by_incrementality(shop)[0][5:7]
    assert 0 < low < high  # the made-up campaign works, and it shows


def test_the_documented_queries_are_right_on_the_exported_files(shop, tmp_path):
    call_command("export_record", "--to-folder", str(tmp_path / "record"))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA rollcall")
        for table in shape.TABLES:
            properties = "REPLACE (CAST(properties AS JSON) AS properties)" if table is shape.EVENTS else ""
            connection.execute(
                f"CREATE VIEW rollcall.{table.name} AS SELECT * {properties} FROM '{tmp_path}/record/{table.name}.parquet'"
            )
        agree(shop, lambda query: connection.execute(query).fetchall())


if os.environ.get("DATABASE_URL"):

    def test_the_documented_queries_are_right_on_postgresql(shop):
        with warehouse_scene.customer() as customer:
            warehouse_scene.named(customer)
            warehouse.load_here()
            with psycopg.connect(customer.owner) as connection:
                connection.execute("SET timezone = 'Asia/Tokyo'")  # whatever the session's is
                agree(shop, lambda query: connection.execute(query).fetchall())
