"""A shop's people and events as lake files for benchmarks: seven months, deterministic, generated once by DuckDB and kept.

They lie in $ROLLCALL_BENCH_DIR (default: rollcall-bench in the system's folder for temporary files), about 1 GB for a million people.
"""

import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from audiences.clock import to_us
from audiences.models import Counter, LakeFile

MONTHS = ((2025, 12), (2026, 1), (2026, 2), (2026, 3), (2026, 4), (2026, 5), (2026, 6))
AS_OF = to_us(datetime(2026, 7, 1, tzinfo=UTC))
EVENT_COLUMNS = {"category": "p1", "value": "p2"}
ATTRIBUTE_COLUMNS = {"country": "a1", "plan": "a2", "age": "a3", "ltv": "a4", "signup": "a5"}
_EDITION = "1"  # of this recipe

_EVENTS = """
CREATE OR REPLACE TEMP TABLE month AS
WITH drawn AS (
    SELECT n, hash(n) AS who, hash(n + 1000000007) AS what, hash(n * 31 + 7) AS moment, hash(n * 17 + 3) AS with_what
    FROM range($first, $first + $rows) AS numbers(n))
SELECT md5(CAST(n AS VARCHAR)) AS event_key,
       CAST(1 + floor(pow((who % 1000000) / 1e6, 1.5) * $people) AS UINTEGER) AS profile_no,
       CASE WHEN what % 100 < 40 THEN 'page_view' WHEN what % 100 < 62 THEN 'product_view' WHEN what % 100 < 74 THEN 'add_to_cart'
            WHEN what % 100 < 81 THEN 'purchase' WHEN what % 100 < 91 THEN 'email_open' WHEN what % 100 < 96 THEN 'app_open'
            WHEN what % 100 < 98 THEN 'search' WHEN what % 100 < 99 THEN 'review' ELSE 'refund' END AS name,
       $start + CAST(moment % ($end - $start) AS BIGINT) AS time_us,
       ['shoes', 'shirts', 'hats', 'bags', 'toys', 'books', 'garden', 'music'][1 + CAST(with_what % 8 AS INT)] AS category,
       CAST(CAST((with_what // 8) % 50000 AS DECIMAL(18, 2)) / 100 AS DECIMAL(18, 2)) AS value
FROM drawn"""

_EVENT_FILE = """
COPY (SELECT event_key, profile_no, name, time_us, time_us + 1000000 AS received_us, 'import' AS source,
             CAST(NULL AS BIGINT) AS hot_mark, CAST(to_json({{category: category, value: value}}) AS VARCHAR) AS properties,
             category AS p1, CAST(NULL AS DECIMAL(38, 6)) AS p1_num,
             CAST(CAST(value AS DOUBLE) AS VARCHAR) AS p2, CAST(value AS DECIMAL(38, 6)) AS p2_num
      FROM month ORDER BY name, time_us)
TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 65536)"""

_ROLLUP_FILE = """
COPY (SELECT profile_no, min(time_us) AS first_us, max(time_us) AS last_us, count(*) AS events FROM month GROUP BY ALL ORDER BY ALL)
TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 65536)"""

_PROFILE_FILE = """
COPY (WITH drawn AS (SELECT n + 1 AS n, hash(n) AS one, hash(n * 7 + 1) AS two FROM range($people) AS numbers(n)),
      made AS (SELECT n, (1700000000 + CAST(one % 80000000 AS BIGINT)) * 1000000 AS created_us,
                  ['DE', 'FR', 'GB', 'US', 'ES', 'IT', 'NL', 'SE', 'PL', 'AT'][1 + CAST(one % 10 AS INT)] AS country,
                  ['free', 'basic', 'pro', 'team'][1 + CAST(two % 4 AS INT)] AS plan,
                  CAST(18 + (two // 4) % 60 AS INT) AS age, CAST((one // 10) % 10000 AS INT) AS ltv FROM drawn)
      SELECT CAST(n AS UINTEGER) AS profile_no, md5('p' || n) AS bucket_key, created_us, TRUE AS live,
             CAST(to_json({{country: country, plan: plan, age: age, ltv: ltv, signup: strftime(make_timestamp(created_us), '%Y-%m-%d')}}) AS VARCHAR)
                 AS attributes,
             country AS a1, CAST(NULL AS DECIMAL(38, 6)) AS a1_num, plan AS a2, CAST(NULL AS DECIMAL(38, 6)) AS a2_num,
             CAST(age AS VARCHAR) AS a3, CAST(age AS DECIMAL(38, 6)) AS a3_num,
             CAST(ltv AS VARCHAR) AS a4, CAST(ltv AS DECIMAL(38, 6)) AS a4_num,
             strftime(make_timestamp(created_us), '%Y-%m-%d') AS a5, CAST(NULL AS DECIMAL(38, 6)) AS a5_num
      FROM made ORDER BY n)
TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 65536)"""


@dataclass(frozen=True, slots=True)
class Shop:
    """The files of so many people and events; `root` is what LAKE_URL must be."""

    root: Path
    people: int
    events: int

    @property
    def event_files(self) -> list[str]:
        return [str(self.root / f"events-{year}-{month:02}.parquet") for year, month in MONTHS]

    @property
    def profile_file(self) -> str:
        return str(self.root / "profiles.parquet")


def shop(people: int, events: int) -> Shop:
    """The files, generated if they are not there yet: a minute for a million people and twenty million events."""
    base = Path(os.environ.get("ROLLCALL_BENCH_DIR") or Path(tempfile.gettempdir()) / "rollcall-bench")
    made = Shop(base / f"shop-{_EDITION}-{people}-{events}", people, events)
    if not (made.root / "done").exists():
        made.root.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(
            config={"memory_limit": "3GB", "threads": 2, "temp_directory": str(base / "spill")}
        ) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for number, (year, month) in enumerate(MONTHS):
                _generate_month(connection, made, number, year, month)
            connection.execute(_PROFILE_FILE.format(path=made.profile_file), {"people": people})
        (made.root / "done").touch()
    return made


def _generate_month(connection: duckdb.DuckDBPyConnection, made: Shop, number: int, year: int, month: int) -> None:
    rows = made.events // len(MONTHS)
    start = to_us(datetime(year, month, 1, tzinfo=UTC))
    end = to_us(datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC))
    values = {"first": number * rows, "rows": rows, "people": made.people, "start": start, "end": end}
    connection.execute(_EVENTS, values)
    connection.execute(_EVENT_FILE.format(path=made.event_files[number]))
    connection.execute(_ROLLUP_FILE.format(path=made.event_files[number].replace("events-", "rollup-")))


def enter(made: Shop) -> None:
    """Tell this database's manifest of the files; LAKE_URL must be the shop's root."""
    with duckdb.connect() as connection:
        for path in made.event_files:
            earliest, latest, rows = connection.execute(
                "SELECT min(time_us), max(time_us), count(*) FROM read_parquet(?)", [path]
            ).fetchall()[0]
            name = Path(path).name
            LakeFile.objects.create(
                kind=LakeFile.Kind.EVENTS,
                path=name,
                rollup_path=name.replace("events-", "rollup-"),
                month=name[7:14],
                min_time_us=earliest,
                max_time_us=latest,
                rows=rows,
                bytes=Path(path).stat().st_size,
                columns=EVENT_COLUMNS,
                origin="import",
                added_manifest=1,
            )
    LakeFile.objects.create(
        kind=LakeFile.Kind.PROFILES,
        path="profiles.parquet",
        rows=made.people,
        bytes=Path(made.profile_file).stat().st_size,
        columns=ATTRIBUTE_COLUMNS,
        origin="projection",
        added_manifest=1,
    )
    Counter.objects.update_or_create(name="manifest", defaults={"value": 1})
