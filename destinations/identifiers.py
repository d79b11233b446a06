"""Every platform's recipe from an identifier as we keep it to the text that the platform compares. No calls and no tables here.

A recipe exists twice: `form`, one value in Python, is the reference; `sql` is the same for plain ASCII text, in bulk.
`hashed` uses the second wherever it may and the first for the rest, so both ways give the same text.
"""

import hashlib
import re
import threading
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

_HEX64 = re.compile(r"[0-9a-f]{64}")
_GMAIL = ("gmail.com", "googlemail.com")

# What str.strip() takes off an ASCII string, as SQL text and as a RE2 class.
_BLANKS = "(" + "||".join(f"chr({code})" for code in (*range(9, 14), *range(28, 33))) + ")"
_BLANK_CLASS = r"\x09-\x0d\x1c-\x20"
_TRIMMED = f"trim({{x}}, {_BLANKS})"
_LOWER = f"lower({_TRIMMED})"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Normalise, then hash or not. `sql` is an expression of `{x}`; an empty result means that there is nothing to send."""

    form: Callable[[str], str]
    sql: str
    hashed: bool = True

    def normal(self, raw: str) -> str:
        """The text that is hashed; a value that came hashed passes through in lower case."""
        if self.hashed:
            given = raw.strip().lower()
            if _HEX64.fullmatch(given):
                return given
        return self.form(raw)

    def of(self, raw: str) -> str:
        """What is sent for `raw`; empty where nothing is."""
        normal = self.normal(raw)
        if not self.hashed or not normal or _HEX64.fullmatch(normal):
            return normal
        return hashlib.sha256(normal.encode("utf-8", "surrogatepass")).hexdigest()


def _as_it_is(raw: str) -> str:
    return raw if raw.strip() else ""


def _lower(raw: str) -> str:
    return raw.strip().lower()


def _trimmed(raw: str) -> str:
    return raw.strip()


def _digits(raw: str) -> str:
    """A phone number's digits without leading zeros: no country code begins with one."""
    return re.sub(r"[^0-9]", "", raw).lstrip("0")


def _plus_digits(raw: str) -> str:
    digits = _digits(raw)
    return f"+{digits}" if digits else ""


def _letters(raw: str) -> str:
    """Lower-case letters of any script, without punctuation, spaces or digits."""
    kept = "".join(sign for sign in raw.lower() if unicodedata.category(sign)[0] in "LM")
    return unicodedata.normalize("NFC", kept)


def _meta_zip(raw: str) -> str:
    joined = "".join(raw.lower().replace("-", "").split())
    return joined[:5] if re.fullmatch(r"[0-9]{9}", joined) else joined  # nine digits: a US ZIP+4


def _country(raw: str) -> str:
    code = raw.strip().lower()
    return code if re.fullmatch(r"[a-z]{2}", code) else ""


def _region(raw: str) -> str:
    return _country(raw).upper()


def _google_email(raw: str) -> str:
    """Google's own utility: dots and +tags mean nothing at Gmail, and what is no address is not sent."""
    text = raw.strip().lower()
    user, _, domain = text.partition("@")
    if not user or not domain or "@" in domain or any(sign.isspace() for sign in text):
        return ""
    if domain in _GMAIL:
        user = user.split("+")[0].replace(".", "")
    return f"{user}@{domain}" if user else ""


_DIGITS_SQL = "ltrim(regexp_replace({x}, '[^0-9]', '', 'g'), '0')"
_COUNTRY_SQL = f"CASE WHEN regexp_full_match({_LOWER}, '[a-z]{{{{2}}}}') THEN {_LOWER} ELSE '' END"
_JOINED_SQL = f"regexp_replace(lower({{x}}), '[-{_BLANK_CLASS}]', '', 'g')"
_GMAIL_USER_SQL = f"replace(split_part(split_part({_LOWER}, '@', 1), '+', 1), '.', '')"
_GOOGLE_EMAIL_SQL = (
    f"CASE WHEN NOT regexp_full_match({_LOWER}, '[^@{_BLANK_CLASS}]+@[^@{_BLANK_CLASS}]+') THEN ''"
    f" WHEN NOT ends_with({_LOWER}, 'mail.com') OR split_part({_LOWER}, '@', 2) NOT IN {_GMAIL} THEN {_LOWER}"
    f" WHEN {_GMAIL_USER_SQL} = '' THEN ''"
    f" ELSE {_GMAIL_USER_SQL} || '@' || split_part({_LOWER}, '@', 2) END"
)

_EMAIL = Recipe(_lower, _LOWER)
_PHONE_PLUS = Recipe(_plus_digits, f"CASE WHEN {_DIGITS_SQL} = '' THEN '' ELSE '+' || {_DIGITS_SQL} END")
_OWN_ID = Recipe(_as_it_is, f"CASE WHEN {_TRIMMED} = '' THEN '' ELSE {{x}} END", hashed=False)
_AD_ID = Recipe(_lower, _LOWER, hashed=False)
_NAME = Recipe(_lower, _LOWER)

META: Mapping[str, Recipe] = {
    "email": _EMAIL,
    "phone": Recipe(_digits, _DIGITS_SQL),
    "external_id": _OWN_ID,
    "mobile_ad_id": _AD_ID,
    "first_name": Recipe(_letters, "regexp_replace(lower({x}), '[^a-z]', '', 'g')"),
    "last_name": Recipe(_letters, "regexp_replace(lower({x}), '[^a-z]', '', 'g')"),
    "zip": Recipe(
        _meta_zip,
        f"CASE WHEN regexp_full_match({_JOINED_SQL}, '[0-9]{{{{9}}}}') THEN left({_JOINED_SQL}, 5) ELSE {_JOINED_SQL} END",
    ),
    "country": Recipe(_country, _COUNTRY_SQL),
}
GOOGLE: Mapping[str, Recipe] = {
    "email": Recipe(_google_email, _GOOGLE_EMAIL_SQL),
    "phone": _PHONE_PLUS,
    "external_id": _OWN_ID,
    "mobile_ad_id": _AD_ID,
    "first_name": _NAME,
    "last_name": _NAME,
    "zip": Recipe(_trimmed, _TRIMMED, hashed=False),
    "country": Recipe(_region, f"upper({_COUNTRY_SQL})", hashed=False),
}
# For receivers who have no recipe of their own: the plainest form, hashed or readable.
HASHED: Mapping[str, Recipe] = {
    "email": _EMAIL,
    "phone": _PHONE_PLUS,
    "external_id": _OWN_ID,
    "mobile_ad_id": _AD_ID,
    "first_name": _NAME,
    "last_name": _NAME,
    "zip": Recipe(_lower, _LOWER),
    "country": Recipe(_country, _COUNTRY_SQL),
}
READABLE: Mapping[str, Recipe] = {
    "email": Recipe(_lower, _LOWER, hashed=False),
    "phone": Recipe(_plus_digits, _PHONE_PLUS.sql, hashed=False),
    "external_id": _OWN_ID,
    "mobile_ad_id": _AD_ID,
    "first_name": Recipe(_trimmed, _TRIMMED, hashed=False),
    "last_name": Recipe(_trimmed, _TRIMMED, hashed=False),
    "zip": Recipe(_trimmed, _TRIMMED, hashed=False),
    "country": Recipe(_region, f"upper({_COUNTRY_SQL})", hashed=False),
}

_local = threading.local()


def hashed(people: pa.Table, recipes: Mapping[str, Recipe]) -> pa.Table:
    """`people` (int64 identity_no and string columns) with each column of `recipes` as it is sent, null where nothing is.

    Rows keep their order. Columns without a recipe, identity_no apart, are left out.
    """
    normal = ", ".join(f'"{name}", {_normal_sql(name, recipe)} AS "{name}_n"' for name, recipe in recipes.items())
    sent = ", ".join(f'{_sent_sql(name, recipe)} AS "{name}"' for name, recipe in recipes.items())
    connection = _connection()
    connection.register("people", people)
    try:
        # Names are the recipes' keys, never a person's text.
        answer = connection.sql(
            f"SELECT identity_no, {sent} FROM (SELECT identity_no, {normal} FROM people)"  # noqa: S608
        ).to_arrow_table()
    finally:
        connection.unregister("people")
    for name, recipe in recipes.items():
        answer = _correct_beyond_ascii(answer, people.column(name), name, recipe)
    return answer


def _normal_sql(name: str, recipe: Recipe) -> str:
    normal = recipe.sql.format(x=f'"{name}"')
    if not recipe.hashed:
        return normal
    given = _LOWER.format(x=f'"{name}"')
    return f"CASE WHEN length(\"{name}\") >= 64 AND regexp_full_match({given}, '{_HEX64.pattern}') THEN {given} ELSE {normal} END"


def _sent_sql(name: str, recipe: Recipe) -> str:
    normal = f'"{name}_n"'
    if not recipe.hashed:
        return f"nullif({normal}, '')"
    is_hash = f"length({normal}) = 64 AND regexp_full_match({normal}, '{_HEX64.pattern}')"
    return f"CASE WHEN {normal} = '' THEN NULL WHEN {is_hash} THEN {normal} ELSE sha256({normal}) END"


def _correct_beyond_ascii(answer: pa.Table, raw: pa.ChunkedArray, name: str, recipe: Recipe) -> pa.Table:
    """Replace what SQL made of values beyond ASCII, whose lower case and blanks it knows otherwise, by the reference's."""
    beyond = pc.fill_null(pc.invert(pc.string_is_ascii(raw)), False)
    if not pc.any(beyond).as_py():
        return answer
    right = pa.array([recipe.of(value) or None for value in raw.filter(beyond).to_pylist()], pa.string())
    column = answer.column(name).cast(pa.string()).combine_chunks()
    fixed = pc.replace_with_mask(column, beyond.combine_chunks(), right)
    return answer.set_column(answer.column_names.index(name), name, fixed)


def _connection() -> duckdb.DuckDBPyConnection:
    if not hasattr(_local, "connection"):
        _local.connection = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "256MB"})
    connection: duckdb.DuckDBPyConnection = _local.connection
    return connection


def rows(sent: pa.Table, kinds: Sequence[str]) -> tuple[list[tuple[str, ...]], list[int]]:
    """A `hashed` table as one tuple a person in the order of `kinds`, "" where one is missing; and who had nothing at all."""
    every = list(zip(*(pc.fill_null(sent.column(kind), "").to_pylist() for kind in kinds), strict=True))
    kept = [row for row in every if any(row)]
    if len(kept) == len(every):
        return every, []
    numbers = sent.column("identity_no").to_pylist()
    return kept, [number for number, row in zip(numbers, every, strict=True) if not any(row)]


def masked(value: str) -> str:
    """Enough of an identifier to see its kind, never enough to know it."""
    if not value:
        return ""
    return f"{value[:6]}…" if _HEX64.fullmatch(value) else f"{value[:1]}…"
