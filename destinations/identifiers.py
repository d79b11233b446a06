"""Every platform's recipe from an identifier as we keep it to the text that the platform compares. No calls and no tables here.

A recipe exists twice: `form`, one value in Python, is the reference; `usual` normalises a whole column of values of the usual
form at once and says which they are. `sent` uses the second wherever it may and the first for the rest.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

_HEX64 = re.compile(r"[0-9a-f]{64}")
_GMAIL = ("gmail.com", "googlemail.com")
_BLANKS = "".join(map(chr, (*range(9, 14), *range(28, 33))))  # what str.strip() takes off an ASCII string

# A column's values normalised, and for which of them that is what `form` makes. Null stays null.
Usual = Callable[[pa.Array], tuple[pa.Array, pa.BooleanArray]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Normalise, then hash or not. An empty result means that there is nothing to send."""

    form: Callable[[str], str]
    usual: Usual
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

    def of_all(self, column: pa.ChunkedArray) -> list[str]:
        """`of` for each value of a string column, empty for null."""
        raw = column.cast(pa.string()).combine_chunks()
        values, done = self.usual(raw)
        if self.hashed:
            done = pc.and_(done, pc.less(pc.binary_length(raw), 64))  # longer ones may have come hashed
        values = pc.if_else(pc.fill_null(done, False), values, "")
        if self.hashed:
            digest = hashlib.sha256
            texts = [digest(text).hexdigest() for text in values.cast(pa.binary()).to_pylist()]
            for place in pc.indices_nonzero(pc.equal(values, "")).to_pylist():
                texts[place] = ""
        else:
            texts = values.to_pylist()
        for place in pc.indices_nonzero(pc.invert(done)).to_pylist():
            texts[place] = self.of(raw[place].as_py())
        return texts


# --- One value


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
    if not user or not domain or "@" in domain or len(text.split()) != 1:
        return ""
    if domain in _GMAIL:
        user = user.split("+")[0].replace(".", "")
    return f"{user}@{domain}" if user else ""


# --- A column of values of the usual form


def _usual_trimmed(raw: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    return pc.ascii_trim(raw, characters=_BLANKS), pc.string_is_ascii(raw)


def _usual_lower(raw: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    trimmed, ascii_only = _usual_trimmed(raw)
    return pc.ascii_lower(trimmed), ascii_only


def _usual_as_it_is(raw: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    trimmed, ascii_only = _usual_trimmed(raw)
    return raw, pc.and_(ascii_only, pc.not_equal(trimmed, ""))


def _usual_digits(raw: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    digits = pc.ascii_ltrim(raw, characters="+0")
    return digits, pc.ascii_is_decimal(digits)


def _usual_plus_digits(raw: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    digits, decimal = _usual_digits(raw)
    return pc.binary_join_element_wise("+", digits, ""), decimal


def _usual_letters(raw: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    lower, _ = _usual_lower(raw)
    return lower, pc.ascii_is_alpha(lower)


def _usual_zip(raw: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    lower, _ = _usual_lower(raw)
    return lower, pc.and_(pc.ascii_is_alnum(lower), pc.not_equal(pc.binary_length(lower), 9))


def _usual_country(raw: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    lower, alphabetic = _usual_letters(raw)
    return lower, pc.and_(alphabetic, pc.equal(pc.binary_length(lower), 2))


def _usual_region(raw: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    lower, two_letters = _usual_country(raw)
    return pc.ascii_upper(lower), two_letters


def _usual_google_email(raw: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    """Addresses that are not at Gmail."""
    lower, _ = _usual_lower(raw)
    checks = [
        pc.ascii_is_printable(lower),
        pc.equal(pc.count_substring(lower, "@"), 1),
        *(
            pc.invert(check)
            for check in (
                pc.match_substring(lower, " "),
                pc.starts_with(lower, "@"),
                pc.ends_with(lower, "@"),
                *(pc.ends_with(lower, f"@{domain}") for domain in _GMAIL),
            )
        ),
    ]
    done = checks[0]
    for check in checks[1:]:
        done = pc.and_(done, check)
    return lower, done


_EMAIL = Recipe(_lower, _usual_lower)
_NAME = Recipe(_lower, _usual_lower)
_LETTERS = Recipe(_letters, _usual_letters)
_OWN_ID = Recipe(_as_it_is, _usual_as_it_is, hashed=False)
_AD_ID = Recipe(_lower, _usual_lower, hashed=False)
_PLAIN = Recipe(_trimmed, _usual_trimmed, hashed=False)
_PLAIN_REGION = Recipe(_region, _usual_region, hashed=False)

META: Mapping[str, Recipe] = {
    "email": _EMAIL,
    "phone": Recipe(_digits, _usual_digits),
    "external_id": _OWN_ID,
    "mobile_ad_id": _AD_ID,
    "first_name": _LETTERS,
    "last_name": _LETTERS,
    "zip": Recipe(_meta_zip, _usual_zip),
    "country": Recipe(_country, _usual_country),
}
GOOGLE: Mapping[str, Recipe] = {
    "email": Recipe(_google_email, _usual_google_email),
    "phone": Recipe(_plus_digits, _usual_plus_digits),
    "external_id": _OWN_ID,
    "mobile_ad_id": _AD_ID,
    "first_name": _NAME,
    "last_name": _NAME,
    "zip": _PLAIN,
    "country": _PLAIN_REGION,
}
# For receivers who have no recipe of their own: the plainest form, hashed or readable.
HASHED: Mapping[str, Recipe] = {
    "email": _EMAIL,
    "phone": Recipe(_plus_digits, _usual_plus_digits),
    "external_id": _OWN_ID,
    "mobile_ad_id": _AD_ID,
    "first_name": _NAME,
    "last_name": _NAME,
    "zip": Recipe(_lower, _usual_lower),
    "country": Recipe(_country, _usual_country),
}
READABLE: Mapping[str, Recipe] = {
    "email": Recipe(_lower, _usual_lower, hashed=False),
    "phone": Recipe(_plus_digits, _usual_plus_digits, hashed=False),
    "external_id": _OWN_ID,
    "mobile_ad_id": _AD_ID,
    "first_name": _PLAIN,
    "last_name": _PLAIN,
    "zip": _PLAIN,
    "country": _PLAIN_REGION,
}


@dataclass(frozen=True, slots=True)
class Sent:
    """People as a platform takes them: `rows` in the order of the kinds asked for, "" where one is missing, and who each is."""

    rows: list[tuple[str, ...]]
    numbers: list[int]  # identity_no of each row
    empty: list[int]  # identity_no of those who have nothing at all to send


def sent(people: pa.Table, kinds: Sequence[str], recipes: Mapping[str, Recipe]) -> Sent:
    """`people` (int64 identity_no and a string column for each of `kinds`) by the recipes, in their order."""
    numbers = people.column("identity_no").to_numpy().tolist()
    columns = [recipes[kind].of_all(people.column(kind)) for kind in kinds]
    rows = list(zip(*columns, strict=True))
    if not all("" in column for column in columns):
        return Sent(rows, numbers, [])  # somebody without anything would be missing in every column
    kept = [(row, number) for row, number in zip(rows, numbers, strict=True) if any(row)]
    empty = [number for row, number in zip(rows, numbers, strict=True) if not any(row)]
    return Sent([row for row, _ in kept], [number for _, number in kept], empty)


def masked(value: str) -> str:
    """Enough of an identifier to see its kind, never enough to know it."""
    if not value:
        return ""
    return f"{value[:6]}…" if _HEX64.fullmatch(value) else f"{value[:1]}…"
