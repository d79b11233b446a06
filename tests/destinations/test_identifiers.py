"""Each platform's recipe: against its published vectors, against its official package where that is right, and against itself."""

import hashlib

import pyarrow as pa
import pytest
from facebook_business.adobjects.customaudience import CustomAudience
from google.ads.datamanager_util import Formatter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from destinations import identifiers
from destinations.identifiers import GOOGLE, HASHED, META, READABLE, Recipe

PLATFORMS = {"meta": META, "google": GOOGLE, "hashed": HASHED, "readable": READABLE}
RECIPES = [(platform, kind) for platform, recipes in PLATFORMS.items() for kind in recipes]
HASH_OF_NOTHING = hashlib.sha256(b"").hexdigest()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# Texts like those that people type, and texts like those that nobody should.
_pieces = st.sampled_from(
    ["Mary", "José", "İvan", "ΑΣ", "ß", "O'Brien", "@", "gmail.com", "GoogleMail.com", "Example.COM", "+", ".", "-", " ", "\t",
     "\x0b", "\x1c", "\u00a0", "\u2003", "\u0301", "00", "49", "(0)", "+1 (555) 987-6543", "٣", "12345-6789", "SW1A 1AA", "DE", "usa",
     "\x00", "🜚", "a" * 63, "F" * 64, "0" * 64]
)  # fmt: skip
_texts = st.one_of(
    st.lists(_pieces, max_size=5).map("".join),
    st.text(max_size=30),
    st.text(st.characters(max_codepoint=127), max_size=30),
    st.text("0123456789abcdefABCDEF", min_size=60, max_size=66),
)


@pytest.mark.parametrize(("platform", "kind"), RECIPES)
@settings(max_examples=40, deadline=None)
@given(raw=_texts)
def test_fault_47_normalising_twice_is_normalising_once(platform, kind, raw):
    recipe = PLATFORMS[platform][kind]
    assert recipe.normal(recipe.normal(raw)) == recipe.normal(raw)


@pytest.mark.parametrize("platform", PLATFORMS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_bulk_way_is_the_one_by_one_way(platform, data):
    recipes = PLATFORMS[platform]
    size = data.draw(st.integers(0, 12))
    columns = {
        kind: data.draw(st.lists(st.none() | _texts, min_size=size, max_size=size), label=kind) for kind in recipes
    }
    table = pa.table(
        {"identity_no": pa.array(range(size), pa.int64())} | {k: pa.array(v, pa.string()) for k, v in columns.items()}
    )
    expected = {
        kind: ["" if raw is None else recipe.of(raw) for raw in columns[kind]] for kind, recipe in recipes.items()
    }
    for kind, recipe in recipes.items():
        assert recipe.of_all(table.column(kind)) == expected[kind], kind
    rows = list(zip(*expected.values(), strict=True))
    sent = identifiers.sent(table, tuple(recipes), recipes)
    assert sent.rows == [row for row in rows if any(row)]
    assert sent.numbers == [number for number, row in enumerate(rows) if any(row)]
    assert sent.empty == [number for number, row in enumerate(rows) if not any(row)]


@pytest.mark.parametrize(("platform", "kind"), RECIPES)
@settings(max_examples=40, deadline=None)
@given(raw=_texts)
def test_nothing_is_never_hashed(platform, kind, raw):
    assert PLATFORMS[platform][kind].of(raw) != HASH_OF_NOTHING or raw.strip().lower() == HASH_OF_NOTHING


@pytest.mark.parametrize(("platform", "kind"), RECIPES)
@pytest.mark.parametrize("raw", ["", " ", "\t\n", "\u00a0"])
def test_what_is_empty_after_normalising_is_dropped(platform, kind, raw):
    assert PLATFORMS[platform][kind].of(raw) == ""


@pytest.mark.parametrize(("platform", "kind"), [(p, k) for p, k in RECIPES if PLATFORMS[p][k].hashed])
def test_what_came_hashed_passes_through_in_lower_case(platform, kind):
    digest = sha256("mary@example.com")
    assert PLATFORMS[platform][kind].of(f" {digest.upper()} ") == digest


@pytest.mark.parametrize(
    ("recipe", "raw", "normal"),
    [
        (META["email"], " Mary@Example.COM ", "mary@example.com"),
        (META["email"], "ma.ry+promo@gmail.com", "ma.ry+promo@gmail.com"),
        (META["phone"], "+1 (555) 987-6543", "15559876543"),
        (META["phone"], "0044 20 7946 0000", "442079460000"),
        (META["phone"], "call me", ""),
        (META["first_name"], " Mary-Ann ", "maryann"),
        (META["first_name"], "José", "josé"),
        (META["last_name"], "O'Brien", "obrien"),
        (META["last_name"], "Иван", "иван"),
        (META["zip"], "12345-6789", "12345"),
        (META["zip"], "SW1A 1AA", "sw1a1aa"),
        (META["zip"], "00-950", "00950"),
        (META["country"], "US", "us"),
        (META["country"], "United States", ""),
        (META["mobile_ad_id"], "AEBE52E7-03EE-455A-B3C4-E57283966239", "aebe52e7-03ee-455a-b3c4-e57283966239"),
        (META["external_id"], "00042", "00042"),
        (GOOGLE["email"], "ma.ry+promo@gmail.com", "mary@gmail.com"),
        (GOOGLE["email"], "Ma.ry+x@GoogleMail.com", "mary@googlemail.com"),
        (GOOGLE["email"], "ma.ry+promo@example.com", "ma.ry+promo@example.com"),
        (GOOGLE["email"], "ma ry@example.com", ""),
        (GOOGLE["email"], "...+x@gmail.com", ""),
        (GOOGLE["email"], "mary.example.com", ""),
        (GOOGLE["phone"], "+1 (555) 987-6543", "+15559876543"),
        (GOOGLE["phone"], "0044 20 7946 0000", "+442079460000"),
        (GOOGLE["first_name"], " José ", "josé"),
        (GOOGLE["country"], "de", "DE"),
        (GOOGLE["zip"], " 10115 ", "10115"),
        (READABLE["phone"], "+49 151 1", "+491511"),
    ],
)
def test_the_table_of_recipes(recipe: Recipe, raw, normal):
    assert recipe.normal(raw) == normal
    assert recipe.of(raw) == (sha256(normal) if recipe.hashed and normal else normal)


def test_fault_47_the_vectors_on_metas_own_page():
    assert META["email"].of("mary@example.com").startswith("f1904cf1")
    assert META["phone"].of("+1 (555) 987-6543").startswith("1ef97083")


def test_the_same_person_has_another_hash_at_another_platform():
    raw = "ma.ry+promo@gmail.com"
    assert META["email"].of(raw) != GOOGLE["email"].of(raw)
    assert META["phone"].of("+15559876543") != GOOGLE["phone"].of("+15559876543")


# --- The official packages, where they are right …

_ascii_names = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ '-", min_size=1, max_size=20)
_emails = st.from_regex(
    r"[A-Za-z0-9_+][A-Za-z0-9_+.]{0,11}[A-Za-z0-9]@[A-Za-z0-9-]{1,10}[A-Za-z0-9]\.[A-Za-z]{2,4}", fullmatch=True
)
_phones = st.from_regex(r"\+[1-9][0-9 ()\-]{6,14}[0-9]", fullmatch=True)


def sdk(schema: list[str], row: list[str]) -> list[str]:
    """One row as Meta's official SDK sends it."""
    payload = CustomAudience.format_params(schema, [row], is_raw=True)["payload"]
    return payload["data"][0]


@given(email=_emails.map(lambda e: f" {e} "), phone=_phones, first=_ascii_names, last=_ascii_names, zip=st.from_regex(r"[0-9]{5}", fullmatch=True), country=st.sampled_from(["US", "de", "Fr"]), own=st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True))  # fmt: skip
def test_metas_official_sdk_sends_the_same_hashes(email, phone, first, last, zip, country, own):
    given_row = {
        "email": email, "phone": phone, "first_name": first, "last_name": last, "zip": zip, "country": country, "external_id": own
    }  # fmt: skip
    ours = [META[kind].of(raw) for kind, raw in given_row.items()]
    theirs = sdk(["EMAIL", "PHONE", "FN", "LN", "ZIP", "COUNTRY", "EXTERN_ID"], list(given_row.values()))
    assert ours == ["" if text == HASH_OF_NOTHING else text for text in theirs]


@given(email=_emails)
def test_metas_official_sdk_agrees_on_a_list_of_emails_alone(email):
    payload = CustomAudience.format_params(CustomAudience.Schema.email_hash, [email])["payload"]
    assert payload["data"] == [META["email"].of(email)]


@given(raw=_emails | st.lists(_pieces, max_size=4).map("".join))
@example("ma.ry+promo@gmail.com")
@example("a@b@c")
@example("+x@gmail.com")
def test_googles_official_utility_makes_the_same_email(raw):
    try:
        theirs = Formatter().format_email_address(raw)
    except ValueError:
        theirs = ""
    if identifiers._HEX64.fullmatch(raw.strip().lower()):
        return  # a hash is no address; ours lets it pass
    assert GOOGLE["email"].normal(raw) == theirs


@given(phone=_phones, name=_ascii_names.filter(str.strip), zip=st.from_regex(r"[0-9A-Z]{3,6}", fullmatch=True))
def test_googles_official_utility_makes_the_same_phone_name_and_place(phone, name, zip):
    official = Formatter()
    assert GOOGLE["phone"].normal(phone) == official.format_phone_number(phone)
    assert GOOGLE["first_name"].normal(name) == official.format_given_name(name)
    assert GOOGLE["last_name"].normal(name) == official.format_family_name(name)
    assert GOOGLE["zip"].normal(zip) == official.format_postal_code(zip)
    assert GOOGLE["country"].normal("de") == official.format_region_code("de")
    digest = official.hex_encode(official.hash_string(official.format_phone_number(phone)))
    assert GOOGLE["phone"].of(phone) == digest


# --- … and where they are wrong, by name.


def test_metas_sdk_keeps_leading_zeros_of_a_phone_and_we_strip_them():
    assert sdk(["PHONE"], ["0044 20 7946 0000"]) == [sha256("00442079460000")]
    assert META["phone"].of("0044 20 7946 0000") == sha256("442079460000")


def test_metas_sdk_does_not_normalise_a_list_of_phones_alone_and_we_do():
    payload = CustomAudience.format_params(CustomAudience.Schema.phone_hash, ["+1 (555) 987-6543"])["payload"]
    assert payload["data"] == [sha256("+1 (555) 987-6543")] != [META["phone"].of("+1 (555) 987-6543")]


def test_metas_sdk_drops_letters_beyond_a_to_z_and_we_keep_them():
    assert sdk(["FN"], ["José"]) == [sha256("jos")]
    assert META["first_name"].of("José") == sha256("josé")
    assert sdk(["LN"], ["Иван"]) == [HASH_OF_NOTHING]
    assert META["last_name"].of("Иван") == sha256("иван")


def test_metas_sdk_hashes_mobile_ids_and_nothing_and_we_do_neither():
    assert sdk(["MADID"], ["AB-12"]) == [sha256("ab-12")]
    assert META["mobile_ad_id"].of("AB-12") == "ab-12"
    assert sdk(["PHONE"], ["none"]) == [HASH_OF_NOTHING]
    assert META["phone"].of("none") == ""


def test_metas_sdk_cuts_a_countrys_name_to_two_letters_and_we_send_codes_only():
    assert sdk(["COUNTRY"], ["United States"]) == [sha256("un")]
    assert META["country"].of("United States") == ""


def test_metas_sdk_keeps_the_space_in_a_zip_and_takes_dots_off_an_email_and_we_do_not():
    assert sdk(["ZIP"], ["SW1A 1AA"]) == [sha256("sw1a 1aa")]
    assert META["zip"].of("SW1A 1AA") == sha256("sw1a1aa")
    assert sdk(["EMAIL"], [".mary@example.com."]) == [sha256("mary@example.com")]
    assert META["email"].of(".mary@example.com.") == sha256(".mary@example.com.")


def test_googles_utility_keeps_leading_zeros_of_a_phone_and_we_strip_them():
    assert Formatter().format_phone_number("0044 20 7946 0000") == "+00442079460000"
    assert GOOGLE["phone"].normal("0044 20 7946 0000") == "+442079460000"


def test_googles_utility_takes_other_scripts_digits_for_digits_and_we_do_not():
    assert Formatter().format_phone_number("+٣٣") == "+٣٣"
    assert GOOGLE["phone"].normal("+٣٣") == ""


def test_the_order_of_rows_and_who_has_nothing():
    table = pa.table({"identity_no": [7, 3, 5], "email": ["b@x.de", " ", "a@x.de"], "phone": [None, "-", "+49 1"]})
    sent = identifiers.sent(table, ("email", "phone"), META)
    assert sent.rows == [(sha256("b@x.de"), ""), (sha256("a@x.de"), sha256("491"))]
    assert sent.numbers == [7, 5] and sent.empty == [3]


@pytest.mark.parametrize(("value", "shown"), [("", ""), ("00042", "0…"), (sha256("x"), f"{sha256('x')[:6]}…")])
def test_a_masked_identifier_shows_its_kind_and_no_more(value, shown):
    assert identifiers.masked(value) == shown
