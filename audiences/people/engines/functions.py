"""What DuckDB is taught so that rules' SQL means what segments/values.py says: text_at, number_of and moment_of.

The ordinary forms are said in SQL; whatever SQL would say differently goes through values.py itself, value by value.
"""

import json

import duckdb
from duckdb.func import FunctionNullHandling

from audiences.segments import values

# Printed by DuckDB exactly as text_of does. A float has its shortest digits in both; -0 and exponents are odd.
_SAME = r"true|false|0|-?[1-9][0-9]*|-?[0-9]+\.[0-9]*[1-9]"
_WHOLE_FLOAT = r"[0-9]+\.0|-[1-9][0-9]*\.0"
# Moments that a cast reads as time_of does: no offset but Z, which it would overlook; at most six digits of a second.
_PLAIN_MOMENT = r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}([T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?Z?)?"

_MACROS = rf"""
CREATE MACRO text_of_printed(printed) AS
    CASE WHEN printed IS NULL OR printed = 'null' THEN NULL
         WHEN starts_with(printed, '"') THEN json_extract_string(printed, '$')
         WHEN regexp_full_match(printed, '{_SAME}') THEN printed
         WHEN regexp_full_match(printed, '{_WHOLE_FLOAT}') THEN left(printed, length(printed) - 2)
         ELSE odd_text(printed) END;
CREATE MACRO text_at(document, pointer) AS text_of_printed(CAST(json_extract(document, pointer) AS VARCHAR));
CREATE MACRO number_of(text) AS
    CASE WHEN regexp_full_match(text, '-?[0-9]{{1,18}}(\.[0-9]+)?') THEN CAST(text AS DECIMAL(38, 6)) END;
CREATE MACRO moment_of(text) AS
    CASE WHEN length(text) = 10 AND text >= '1000' AND CAST(TRY_CAST(text AS DATE) AS VARCHAR) = text -- six times as fast
              THEN epoch_us(CAST(TRY_CAST(text AS DATE) AS TIMESTAMP))
         WHEN regexp_full_match(text, '{_PLAIN_MOMENT}') THEN epoch_us(TRY_CAST(text AS TIMESTAMP))
         WHEN regexp_full_match(text, '[0-9]{{1,11}}') THEN CAST(text AS BIGINT) * 1000000
         WHEN regexp_full_match(text, '[1-9][0-9]{{11,13}}') THEN CAST(text AS BIGINT) * 1000
         WHEN regexp_full_match(text, '-?[0-9].*') THEN odd_moment(text) END;
"""


def teach(connection: duckdb.DuckDBPyConnection) -> None:
    """Define the functions for this connection's database and all its cursors."""
    special = FunctionNullHandling.SPECIAL  # by default a function may not return NULL
    connection.create_function("odd_text", _odd_text, ["VARCHAR"], "VARCHAR", null_handling=special)
    connection.create_function("odd_moment", _odd_moment, ["VARCHAR"], "BIGINT", null_handling=special)
    connection.execute(_MACROS)


def _odd_text(printed: str) -> str | None:
    return values.text_of(json.loads(printed))


def _odd_moment(text: str) -> int | None:
    return values.time_of(text)
