"""Names by convention: built, read back, refused with words; the convention itself; audiences named by it, and the pages."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audiences import naming
from audiences.naming import CHANNEL, CHOICE, WINDOW, Convention, Token, Value

CHANNELS = (Value("meta", "Meta", "meta"), Value("google", "Google Ads", "google"))
PLAIN = naming.starter(CHANNELS)
CART = {"channel": "meta", "intent": "cart", "window": "24h"}


# --- Laws.

_words = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,6}[A-Za-z0-9])?", fullmatch=True)
_windows = st.from_regex(r"[1-9][0-9]{0,3}[mhd]|ever", fullmatch=True)


@st.composite
def conventions(draw):
    separator = draw(st.text("._+~|:-", min_size=1, max_size=3))
    tokens = []
    kinds = draw(st.lists(st.sampled_from(naming.KINDS), min_size=1, max_size=6))
    for number, kind in enumerate(kinds):
        values = ()
        if kind in (CHOICE, CHANNEL):
            values = draw(st.lists(_words, min_size=1, max_size=4, unique=True))
        elif kind == WINDOW and draw(st.booleans()):
            values = draw(st.lists(_windows, min_size=1, max_size=3, unique=True))
        if kind == CHANNEL:
            made = tuple(Value(value, platform=f"platform{n}") for n, value in enumerate(values))
        else:
            made = tuple(Value(value) for value in values)
        tokens.append(Token(f"t{number}", kind, made, draw(st.booleans())))
    return Convention(separator, tuple(tokens))


@st.composite
def named(draw):
    convention = draw(conventions())
    assume(not naming.faults(convention))
    tokens = {}
    for token in convention.tokens:
        if token.optional and draw(st.booleans()):
            continue
        if token.kind == CHANNEL:
            tokens[token.name] = draw(st.sampled_from([value.platform for value in token.values]))
        elif token.values:
            tokens[token.name] = draw(st.sampled_from([value.value for value in token.values]))
        else:
            tokens[token.name] = draw(st.from_regex(naming.FORMS[token.kind], fullmatch=True))
    assume(tokens)
    return convention, tokens


@settings(max_examples=300, deadline=None)
@given(named())
def test_what_was_built_reads_back_as_it_was(made):
    convention, tokens = made
    name = naming.build(convention, tokens, length=1_000)
    assert naming.parse(convention, name) == tokens
    assert "".join(part.text for part in naming.parts(convention, name)) == "".join(
        convention.short(value) if convention.tokens[int(token[1:])].kind == CHANNEL else value
        for token, value in tokens.items()
    )
    assert naming.problems(convention, name, tokens, length=1_000) == []


@settings(max_examples=300, deadline=None)
@given(conventions(), st.text("abc._-v1d", max_size=30))
def test_a_name_is_read_or_refused_in_words_and_never_both(convention, name):
    assume(not naming.faults(convention))
    read = naming.parse(convention, name)
    assert (read is None) == bool(naming.problems(convention, name))
    if read:
        assert naming.build(convention, read, length=1_000) == name


@settings(max_examples=200, deadline=None)
@given(conventions())
def test_a_convention_survives_being_kept(convention):
    assert naming.from_json(naming.to_json(convention)) == convention


# --- Building.


def test_a_name_is_made_of_its_parts():
    assert naming.build(PLAIN, CART, version=1) == "meta_cart_24h_v1"
    assert naming.build(PLAIN, CART, channel="google", version=2) == "google_cart_24h_v2"
    assert PLAIN.pattern == "{channel}_{intent}_{window}_v{version}"
