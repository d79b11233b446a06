"""What rush.py has done inside its installation: a million people on record, the shop's files, live connections; and what was said urgently."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
from django.db import transaction

from audiences import clock
from audiences.bitmaps import unpack
from audiences.models import (
    AttributeName,
    Audience,
    Counter,
    Event,
    EventName,
    Identity,
    LakeFile,
    Profile,
    ProfileKey,
    PropertyName,
)
from audiences.people import bulk
from audiences.people.lake import files
from destinations.models import Destination, Mapping, Operation
from destinations.sandbox.control import Sandbox
from destinations.services import mappings
from tests.audiences.people_in import track
from tests.benchmarks import shop
from tests.benchmarks.rush import BOUGHT, BUYERS, EVERYBODY
from tests.destinations import scene

ACCOUNTS = 4  # the first has `everybody`, `buyers_to_be` and `bought_30d`; the others are shared by the rest
AT_ONCE = 10_000
NOT_LATELY: dict[str, Any] = {"event": "purchase", "count": {"exactly": 0}, "within": "30d"}


def fill(lake: str, people: int, sandbox_url: str, platform: str, mentioning: int) -> dict[str, Any]:
    """Returns the connections by audience, and the ids of whoever is in `buyers_to_be`."""
    made = shop.Shop(root=Path(lake), people=people, events=0)
    shop.enter(made)
    _people(made)
    seen = {"first_seen_us": clock.now_us() - clock.DAY, "last_seen_us": clock.now_us()}
    for name in shop.ATTRIBUTE_COLUMNS:
        AttributeName.objects.get_or_create(name=name, defaults={"type": "text", **seen})
    for name in ("page_view", "product_view", "add_to_cart", "purchase", "email_open", "app_open", "search", "review", "refund"):  # fmt: skip
        EventName.objects.get_or_create(name=name, defaults=seen)
        for one in shop.EVENT_COLUMNS:
            PropertyName.objects.get_or_create(event=name, name=one, defaults={"type": "text", **seen})
    scene.workspace()
    track("c1", "purchase")
    sandbox = Sandbox(sandbox_url, seconds=600)
    bought = scene.audience(BOUGHT, {"event": "purchase", "count": {"at_least": 1}, "within": "30d"}, "suppression")
    scenes = {BOUGHT: scene.live(sandbox, "9000", bought, ("email", "external_id"), platform)}
    for at, (key, rule) in enumerate(_rules(mentioning)):
        audience = scene.audience(key, rule)
        audience.excluded_by.add(bought)
        if key != EVERYBODY:
            account = "9000" if key == BUYERS else str(9001 + at % (ACCOUNTS - 1))
            scenes[key] = scene.live(sandbox, account, audience, ("email", "external_id"), platform)
    for one in scenes.values():
        run = one.sync()
        assert run.state == "done", run.error
    base = unpack(scenes[BUYERS].ledger().base)
    buyers = Identity.objects.filter(identity_no__in=list(base)[:20_000]).values_list("external_id", flat=True)
    return {
        "mappings": {key: one.mapping.pk for key, one in scenes.items()} | _everybody(platform),
        "buyers": list(buyers),
    }


def _everybody(platform: str) -> dict[str, int]:
    audience = Audience.objects.get(key=EVERYBODY)
    destination = Destination.objects.get(key=f"{platform}_9000")
    made = mappings.create(actor=None, audience=audience, destination=destination, identifiers=["email", "external_id"])
    return {EVERYBODY: scene.allowed(made).pk}


def go_live(key: str) -> int:
    mapping = mappings.go_live(actor=None, mapping=Mapping.objects.get(audience__key=key))
    return int(mapping.pk)


def said() -> list[tuple[int, str, list[float]]]:
    """Every urgent call in its order: the connection, its kind, and for each of its people when their purchase was received."""
    received: dict[int, float] = {}
    for number, at in _purchases():
        received[number] = at
    owner: dict[int, int] = {}
    found = []
    for operation in Operation.objects.filter(lane="urgent", state="settled").order_by("prepared_at", "pk"):
        numbers = list(unpack(operation.identities))
        owner |= dict(Identity.objects.filter(identity_no__in=numbers).values_list("identity_no", "profile_no"))
        found.append((operation.mapping_id, operation.kind, [received[owner[number]] for number in numbers]))
    return found


def _purchases() -> Iterator[tuple[int, float]]:
    """Hot ones and those that were flushed meanwhile."""
    flushed = LakeFile.objects.filter(origin__in=("flush", "compaction"), dead_manifest=None)
    paths = [str(files.absolute(row.path)) for row in flushed]
    if paths:
        with duckdb.connect() as connection:
            sql = "SELECT profile_no, received_us FROM read_parquet(?) WHERE name = 'purchase' AND source = 'track_v1'"
            for number, at in connection.execute(sql, [paths]).fetchall():
                yield number, at / 1e6
    for number, at in Event.objects.filter(name="purchase").values_list("profile_no", "received_us"):
        yield number, at / 1e6


def _rules(mentioning: int) -> list[tuple[str, dict[str, Any]]]:
    """All of them name the event. `mentioning` in all, with the suppression audience."""
    found: list[tuple[str, dict[str, Any]]] = [
        (EVERYBODY, NOT_LATELY),
        (BUYERS, {"all": [NOT_LATELY, {"bucket": {"salt": "buyers", "from": 0, "to": 10}}]}),
    ]
    kinds = ("product_view", "add_to_cart", "page_view", "search", "email_open", "app_open")
    for n in range(mentioning - 3):
        found.append(
            (
                f"mentions_{n:02}",
                {
                    "all": [
                        {"event": "purchase", "count": {"exactly": 0}, "within": f"{31 + n}d"},
                        {"event": kinds[n % len(kinds)], "count": {"at_least": 1 + n % 3}, "within": f"{300 + n}d"},
                        {"bucket": {"salt": f"some {n}", "from": 0, "to": 3}},
                    ]
                },
            )
        )
    return found


def _people(made: shop.Shop) -> None:
    """One profile, identity and key for each person of the shop's projection, with its attributes."""
    now = clock.now_us()
    written = clock.from_us(now).strftime("%Y-%m-%d %H:%M:%S+00:00")
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT profile_no, bucket_key, created_us, attributes FROM read_parquet(?) ORDER BY 1", [made.profile_file]
        )
        while some := rows.fetchmany(AT_ONCE):
            with transaction.atomic():
                bulk.insert(
                    Profile,
                    (
                        "profile_no",
                        "bucket_key",
                        "kind",
                        "state",
                        "created_us",
                        "attributes",
                        "identity_no",
                        "updated_at",
                    ),
                    [(n, key, "person", "live", at, given, n, written) for n, key, at, given in some],
                )
                bulk.insert(ProfileKey, ("kind", "value", "profile_no"), [("id", f"c{n}", n) for n, *_ in some])
                bulk.insert(
                    Identity,
                    ("identity_no", "profile_no", "external_id", "email", "phone", "mobile_ad_id", "first_name", "last_name", "country", "zip", "created_at"),
                    [(n, n, f"c{n}", f"c{n}@shop.example", "", "", "", "", "DE", "", written) for n, *_ in some],
                )  # fmt: skip
    for name in ("profile_no", "identity_no"):
        Counter.objects.update_or_create(name=name, defaults={"value": made.people})
