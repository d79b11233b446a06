"""Names by convention: built, read back, refused with words; the convention itself; audiences named by it, and the pages."""

from dataclasses import replace
from html import unescape

import pytest
from django.core.cache import cache
from django.test import Client
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audiences import conformance, naming
from audiences.models import Audience, AuditEntry, NamingConvention
from audiences.naming import CHANNEL, CHOICE, TEXT, VERSION, WINDOW, Convention, NamingRefused, Token, Value
from audiences.naming_forms import NameBuilder
from audiences.services import naming as service
from audiences.services import versions
from tests import filled
from tests.filled import as_

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


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=150, deadline=None)
@given(conventions(), st.text("abc._-v1d", max_size=30))
def test_a_name_is_read_or_refused_in_words_and_never_both(convention, name):
    assume(not naming.faults(convention))
    read = naming.parse(convention, name)
    assert (read is None) == bool(naming.problems(convention, name))
    if read:
        assert naming.build(convention, read, length=1_000) == name


@settings(max_examples=100, deadline=None)
@given(conventions())
def test_a_convention_survives_being_kept(convention):
    assert naming.from_json(naming.to_json(convention)) == convention


# --- Building.


def test_a_name_is_made_of_its_parts():
    assert naming.build(PLAIN, CART, version=1) == "meta_cart_24h_v1"
    assert naming.build(PLAIN, CART, channel="google", version=2) == "google_cart_24h_v2"
    assert PLAIN.pattern == "{channel}_{intent}_{window}_v{version}"


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ({**CART, "intent": "carts"}, "“carts” is not one of the intents: cart, checkout, browse"),
        ({**CART, "intent": "carts"}, "Did you mean “cart”?"),
        ({**CART, "intent": ""}, "Choose the intent: cart, checkout"),
        ({**CART, "window": "soon"}, "“soon” is not one of the windows: 1h, 24h"),
        ({**CART, "channel": "myspace"}, "“myspace” is not one of the channels: meta, google"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_those_that_are(tokens, words):
    with pytest.raises(NamingRefused) as refused:
        naming.build(PLAIN, tokens, version=1)
    assert words in str(refused.value)


def test_a_name_that_is_too_long_is_refused_and_never_cut():
    assert naming.build(PLAIN, CART, version=1, length=16) == "meta_cart_24h_v1"
    with pytest.raises(NamingRefused, match="has 17 characters; 16 fit"):
        naming.build(PLAIN, CART, version=10, length=16)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("meta_carts_24h_v1", "“carts” is not one of the intents"),
        ("meta_cart_24h", "It has 3 parts, and a name has 4: channel, intent, window, version."),
        ("meta_cart_24h_1", "“1” is no version: that is v and the number of the live version."),
        ("meta_cart_24h_v01", "“v01” is no version"),
        ("", "It has 1 part"),
        ("<img onerror=alert(1)>_cart_24h_v1", "“<img onerror=alert(1)>” is not one of the channels"),
    ],
)
def test_a_name_that_does_not_follow_says_where(name, words):
    assert words in naming.problems(PLAIN, name)[0]


def test_a_version_that_is_not_the_live_one_is_said():
    assert naming.problems(PLAIN, "meta_cart_24h_v1", version=2) == ["It says v1, and v2 is live."]
    assert naming.problems(PLAIN, "meta_cart_24h_v2", version=2) == []


def test_parts_are_guessed_from_names_that_nearly_follow():
    assert naming.guess(PLAIN, "meta_carts_24h", "whatever") == CART
    assert naming.guess(PLAIN, "Google carts!") == {"channel": "google", "intent": "cart"}


# --- The convention itself.


def faults_of(*tokens: Token, separator: str = "_", **options) -> dict[str, str]:
    return {p.path: p.words for p in naming.faults(Convention(separator, tokens, **options))}


A = Token("a", CHOICE, (Value("x"), Value("y")))


@pytest.mark.parametrize(
    ("tokens", "separator", "path", "words"),
    [
        ((A,), "", "separator", "must be 1 to 3 of the signs"),
        ((A,), "x", "separator", "must be 1 to 3 of the signs"),
        ((A,), " ", "separator", "must be 1 to 3 of the signs"),
        ((), "_", "tokens", "at least one part"),
        ((Token("A b", TEXT),), "_", "tokens.0.name", "small letters"),
        ((Token("own_name", TEXT),), "_", "tokens.0.name", "taken by Rollcall"),
        ((A, A), "_", "tokens.1.name", "another part called “a”"),
        ((Token("a", "colour"),), "_", "tokens.0.kind", "must be one of channel"),
        ((Token("a", VERSION), Token("b", VERSION)), "_", "tokens.1.kind", "one version only"),
        ((Token("a", CHOICE),), "_", "tokens.0.values", "at least one allowed value"),
        ((Token("a", CHOICE, (Value("up_down"),)),), "_", "tokens.0.values.0", "holds the separator"),
        ((Token("a", CHOICE, (Value("x"), Value("x"))),), "_", "tokens.0.values.1", "stands here twice"),
        ((Token("a", CHOICE, (Value("-x"),)),), "_", "tokens.0.values.0", "letter or digit at both ends"),
        ((Token("a", WINDOW, (Value("soon"),)),), "_", "tokens.0.values.0", "is no window"),
        ((Token("a", TEXT, (), True),), "_", "tokens.0.optional", "At least one part must always be there"),
        (
            (Token("a", CHOICE, (Value("x"),), True), Token("b", CHOICE, (Value("x"),), True), Token("c", VERSION)),
            "_",
            "tokens.1.optional",
            "“a” and “b” could be mistaken for each other",
        ),
    ],
)
def test_a_convention_that_would_not_work_is_refused_at_its_place(tokens, separator, path, words):
    assert words in faults_of(*tokens, separator=separator).get(path, "")


def test_two_optional_parts_that_share_no_value_are_told_apart():
    free = Token("b", CHOICE, (Value("z"),), True)
    assert faults_of(Token("a", CHOICE, (Value("x"),), True), free, Token("c", VERSION)) == {}
    # A window and a version never look alike; a text looks like anything.
    assert faults_of(Token("w", WINDOW, (), True), Token("v", VERSION)) == {}
    assert faults_of(Token("t", TEXT, (), True), Token("v", VERSION)) == {}
    assert "tokens.1.optional" in faults_of(Token("t", TEXT, (), True), Token("v", VERSION, (), True), Token("c", TEXT))


def test_a_limit_is_at_most_the_platforms_own():
    assert faults_of(A, lengths={"meta": 500}) == {"lengths.meta": "must be a whole number from 20 to 200"}
    assert faults_of(A, lengths={"meta": "many"}) == {"lengths.meta": "must be a whole number from 20 to 200"}
    assert faults_of(A, lengths={"meta": 60}) == {}


def test_a_platform_may_have_another_name_in_names():
    data = {
        "tokens": [
            {"name": "channel", "values": [{"value": "fb", "platform": "meta"}]},
            {"name": "v", "kind": "version"},
        ]
    }
    convention = naming.from_json(data, CHANNELS)
    assert naming.build(convention, {"channel": "meta"}, version=1) == "fb_v1"
    assert naming.build(convention, {"channel": "fb"}, channel="google", version=1) == "google_v1"
    assert naming.parse(convention, "fb_v1") == {"channel": "meta", "v": "v1"}
    assert naming.parse(convention, "meta_v1") is None


def test_a_change_of_the_convention_is_told_in_words():
    after = naming.from_json(
        {
            "separator": "-",
            "tokens": [
                {"name": "channel", "kind": "channel"},
                {
                    "name": "intent",
                    "kind": "choice",
                    "values": [{"value": "cart", "means": "A cart"}, {"value": "new"}],
                },
            ],
            "lengths": {"meta": 60},
        },
        CHANNELS,
    )
    told = naming.differences(PLAIN, after)
    assert told[0] == "{channel}_{intent}_{window}_v{version} becomes {channel}-{intent}"
    assert "intent: new added" in told
    assert "intent: the meaning of cart changed" in told
    assert "longest name on meta: its own limit becomes 60" in told
    assert naming.differences(after, after) == []


# --- Audiences and the workspace's convention.


@pytest.fixture
def world(db) -> filled.Filled:
    cache.clear()
    return filled.fill()


def named_cart(world, **tokens) -> Audience:
    return service.rename_by_convention(actor=world.users["marketer"], audience=world.cart, tokens={**CART, **tokens})


def test_an_audience_is_named_by_the_convention_and_the_trail_says_so(world):
    audience = named_cart(world)
    assert (audience.name, audience.name_tokens) == ("meta_cart_24h_v1", CART)
    line = AuditEntry.objects.filter(verb="audience.renamed").get()
    assert (line.actor_label, line.before["name"], line.after["name"]) == (
        "marketer@example.com",
        "meta_cart_24h",
        "meta_cart_24h_v1",
    )


def test_publishing_a_version_renames_what_follows_and_leaves_what_has_a_name_of_its_own(world):
    named_cart(world)
    service.name_freely(actor=None, audience=world.buyers, name="Buyers v1", name_reason="the agency's")
    for audience in (world.cart, world.buyers):
        rule = {"event": "purchase", "count": {"at_least": 1}, "within": "9d"}
        draft = versions.save_draft(actor=None, audience=audience, segment=rule)
        versions.publish(actor=None, version=draft, reason="wider", override="for the test")
    assert Audience.objects.get(pk=world.cart.pk).name == "meta_cart_24h_v2"
    assert Audience.objects.get(pk=world.buyers.pk).name == "Buyers v1"
    assert service.name_of(Audience.objects.get(pk=world.cart.pk), 3) == "meta_cart_24h_v3"


def test_two_audiences_do_not_take_one_name(world):
    named_cart(world)
    with pytest.raises(NamingRefused, match="is the name of meta_cart_24h already"):
        service.rename_by_convention(actor=None, audience=world.buyers, tokens=CART)


def test_a_name_must_fit_on_every_platform_when_it_is_saved(world):
    service.change(actor=None, convention=replace(service.current(), lengths={"openlist": 20}))
    named_cart(world)  # openlist_cart_24h_v1 has just 20
    with pytest.raises(
        NamingRefused, match=r"“openlist_checkout_24h_v1” has 24 characters on OpenList \(sandbox\); 20 fit"
    ):
        named_cart(world, intent="checkout")
    assert Audience.objects.get(pk=world.cart.pk).name == "meta_cart_24h_v1"


def test_a_name_of_its_own_needs_a_reason(world):
    with pytest.raises(NamingRefused, match="Say why it departs"):
        service.name_freely(actor=None, audience=world.cart, name="Carts", name_reason=" ")


def test_somebody_elses_convention_is_not_overwritten_unseen(world):
    seen = service.stamp(service.row())
    service.change(actor=None, convention=replace(service.current(), separator="-"))
    with pytest.raises(service.Changed):
        service.change(actor=None, convention=replace(service.current(), separator="."), seen=seen)
    assert service.current().separator == "-"


def test_conformance_says_what_follows_what_does_not_and_why(world):
    named_cart(world)
    service.name_freely(actor=None, audience=world.buyers, name="Buyers", name_reason="the agency's")
    rows = {row.audience.key: row for row in conformance.table().rows}
    assert rows["meta_cart_24h"].state == "ok"
    assert (rows["meta_buyers_7d"].state, rows["meta_buyers_7d"].why) == ("excepted", ("the agency's",))
    assert (rows["not_yet"].state, rows["not_yet"].suggested) == ("broken", "")
    Audience.objects.filter(key="not_yet").update(name="google_carts_7d_v1")
    row = next(row for row in conformance.table(only="fix").rows)
    assert (row.suggested, row.why) == (
        "google_cart_7d_v1",
        ("“carts” is not one of the intents: " + service.current().tokens[1].allowed + ". Did you mean “cart”?",),
    )


def test_two_with_one_name_and_one_that_says_another_version_are_to_fix(world):
    named_cart(world)
    Audience.objects.filter(key="meta_buyers_7d").update(name="meta_cart_24h_v1")
    Audience.objects.filter(key="not_yet").update(name="meta_vip_365d_v7")
    rows = {row.audience.key: row for row in conformance.table().rows}
    assert (rows["meta_cart_24h"].state, rows["meta_buyers_7d"].state) == ("twin", "twin")
    assert (rows["not_yet"].state, rows["not_yet"].suggested) == ("version", "meta_vip_365d_v1")


def test_what_would_stop_following_is_known_before_it_is_saved(world):
    named_cart(world)
    effect = conformance.effect(replace(service.current(), separator="-"))
    assert [(fate.key, fate.name) for fate in effect.stops] == [("meta_cart_24h", "meta_cart_24h_v1")]
    assert service.current().separator == "_"


def test_the_list_of_names_asks_the_same_number_of_questions_however_long_it_is(world, django_assert_num_queries):
    for number in range(30):
        Audience.objects.create(key=f"more_{number}", name=f"more {number}", purpose="analytics")
    with django_assert_num_queries(2):
        assert len(conformance.table().rows) == 33


# --- The pages.


def text(response) -> str:
    return unescape(response.content.decode()).replace("<wbr>", "")  # where a browser may break a name


def form_of(client: Client) -> dict[str, str]:
    """What a browser would send of the editor as it stands."""
    page = client.get("/settings/naming/edit/")
    draft = page.context["draft"]
    return fields_of(draft)


def fields_of(draft) -> dict[str, str]:
    sent = {"separator": draft.separator, "stamp": draft.stamp}
    for row in draft.tokens:
        at = f"t{row.index}"
        sent |= {f"{at}-name": row.name, f"{at}-kind": row.kind}
        if row.optional:
            sent[f"{at}-optional"] = "on"
        for number, value in enumerate(row.values):
            sent |= {f"{at}-v{number}": value.value, f"{at}-m{number}": value.means, f"{at}-p{number}": value.platform}
    return sent | {f"l-{kind}": length for kind, length in draft.lengths.items()}


def test_a_new_workspace_begins_with_one_click(world):
    NamingConvention.objects.all().delete()
    client = as_(world, "marketer")
    assert "Start with channel, intent, window, version" in text(client.get("/settings/naming/"))
    assert "Start with" not in text(as_(world, "buyer").get("/settings/naming/"))
    assert as_(world, "buyer").post("/settings/naming/start/").status_code == 403
    response = client.post("/settings/naming/start/", follow=True)
    assert response.redirect_chain[-1][0] == "/settings/naming/conformance/"
    assert service.current().pattern == "{channel}_{intent}_{window}_v{version}"
    client.post("/settings/naming/start/")  # twice: nothing happens, and it says so
    assert AuditEntry.objects.filter(verb="naming.changed", actor=world.users["marketer"]).count() == 2  # and filled's


def test_small_steps_keep_nothing_and_lose_nothing(world):
    client = as_(world, "admin")
    sent = form_of(client) | {"t1-m0": "My own words", "reason": "because"}
    for deed, names in (
        ("down:0", ["intent", "channel", "window", "version"]),
        ("up:3", ["channel", "intent", "version", "window"]),
        ("remove:2", ["channel", "intent", "version"]),
        ("add:text", ["channel", "intent", "window", "version", "note"]),
        ("up:0", ["channel", "intent", "window", "version"]),
        ("up:99", ["channel", "intent", "window", "version"]),
        ("drop:1:banana", ["channel", "intent", "window", "version"]),
        ("<script>", ["channel", "intent", "window", "version"]),
    ):
        response = client.post("/settings/naming/edit/", sent | {"do": deed})
        assert response.status_code == 200, deed
        draft = response.context["draft"]
        assert [row.name for row in draft.tokens] == names, deed
        assert "My own words" in text(response), deed
    draft = client.post("/settings/naming/edit/", sent | {"do": "value:1"}).context["draft"]
    assert draft.tokens[1].values[-1] == Value("")
    draft = client.post("/settings/naming/edit/", sent | {"do": "drop:1:0"}).context["draft"]
    assert draft.tokens[1].values[0].value == "checkout"
    assert service.current() == service.starter()


def test_saving_says_at_the_field_what_is_wrong(world):
    client = as_(world, "marketer")
    sent = form_of(client) | {"t1-v0": "a_cart", "l-meta": "many", "separator": "_"}
    response = client.post("/settings/naming/edit/", sent | {"do": "save"})
    assert response.status_code == 422
    assert "“a_cart” holds the separator “_”" in text(response)
    assert "must be a whole number from 20 to 200" in text(response)
    assert 'value="a_cart"' in text(response)
    assert service.current() == service.starter()


def test_what_would_stop_following_must_be_seen_before_it_is_saved(world):
    named_cart(world)
    client = as_(world, "marketer")
    sent = form_of(client) | {"separator": "-", "do": "save"}
    response = client.post("/settings/naming/edit/", sent)
    assert "1 name would stop following." in text(response)
    assert service.current().separator == "_"
    response = client.post("/settings/naming/edit/", sent | {"agreed": response.context["effect"].agreed})
    assert response.status_code == 302
    assert service.current().separator == "-"
    assert Audience.objects.get(key="meta_cart_24h").name == "meta_cart_24h_v1"
    line = AuditEntry.objects.filter(verb="naming.changed").latest("pk")
    assert line.reason == "{channel}_{intent}_{window}_v{version} becomes {channel}-{intent}-{window}-v{version}"


def test_two_who_edit_at_once_see_each_other(world):
    client = as_(world, "marketer")
    sent = form_of(client) | {"t1-v0": "basket", "do": "save"}
    service.change(actor=world.users["admin"], convention=replace(service.current(), separator="-"))
    response = client.post("/settings/naming/edit/", sent)
    assert response.status_code == 409
    assert "saved another convention" in text(response)
    assert "{channel}-{intent}-{window}-v{version}" in text(response)  # theirs
    assert 'value="basket"' in text(response)  # mine
    assert service.current().separator == "-"
    again = client.post("/settings/naming/edit/", fields_of(response.context["draft"]) | {"do": "save"})
    assert again.status_code == 302
    assert service.current().tokens[1].values[0].value == "basket"


def test_hostile_forms_get_an_answer(world):
    client = as_(world, "admin")
    hostile = '<img src=x onerror=alert(1)>"' + "x" * 10_000
    sent = form_of(client) | {
        "separator": hostile,
        "t0-name": hostile,
        "t0-kind": hostile,
        "t1-v0": hostile,
        "l-meta": hostile,
    }
    for deed in ("save", "preview", "up:0", "add:" + hostile):
        response = client.post("/settings/naming/edit/", sent | {"do": deed, "stamp": hostile, "agreed": hostile})
        assert response.status_code in (200, 422)
        assert "<img src=x" not in response.content.decode()
    assert client.post("/settings/naming/edit/", {}).status_code == 422
    assert client.get("/settings/naming/conformance/?only=x&q=" + "y" * 5_000 + "&page=-7").status_code == 200
    assert client.get("/settings/naming/platforms/?only=x&audience=y&page=zzz").status_code == 200
    assert client.get("/panels/names/?a=1&a=x&a=99999999999999999999").status_code == 200
    assert client.get("/settings/naming/conformance/no-such-key/").status_code == 404


def test_an_audience_is_renamed_from_the_list(world):
    client = as_(world, "marketer")
    page = text(client.get("/settings/naming/conformance/?only=fix"))
    assert "meta_cart_24h_v1" in page  # suggested from its name
    at = "/settings/naming/conformance/meta_cart_24h/"
    fields = {"name-channel": "meta", "name-intent": "cart", "name-window": "24h", "seen": "meta_cart_24h"}
    built = client.post(at, fields | {"build": "1"})
    assert (built.status_code, world.cart.name) == (200, "meta_cart_24h")
    assert "google_cart_24h_v1" in text(built)  # its name on another platform
    assert client.post(at, fields | {"name-intent": "nonsense"}).status_code == 422
    response = client.post(at, fields | {"reason": "tidy up"})
    assert response.status_code == 302
    assert Audience.objects.get(key="meta_cart_24h").name == "meta_cart_24h_v1"
    assert AuditEntry.objects.filter(verb="audience.renamed").get().reason == "tidy up"
    stale = client.post(at, fields | {"name-intent": "browse"})
    assert stale.status_code == 422
    assert "renamed meanwhile, to “meta_cart_24h_v1”" in text(stale)
    assert as_(world, "buyer").post(at, fields).status_code == 403


def test_a_name_of_its_own_is_given_with_its_reason_on_the_page(world):
    client = as_(world, "marketer")
    at = "/settings/naming/conformance/meta_cart_24h/"
    sent = {"name-own_name": "Carts of the agency", "seen": "meta_cart_24h"}
    refused = client.post(at, sent)
    assert refused.status_code == 422
    assert "Say why it departs" in text(refused)
    assert client.post(at, sent | {"name-name_reason": "the agency's own"}).status_code == 302
    assert "the agency's own" in text(client.get("/settings/naming/conformance/"))
    # Back to the convention: an empty name of its own.
    fields = {"name-channel": "meta", "name-intent": "cart", "name-window": "24h", "name-own_name": ""}
    assert client.post(at, fields).status_code == 302
    assert Audience.objects.get(key="meta_cart_24h").name_reason == ""


def test_a_name_is_built_while_one_chooses(world):
    client = as_(world, "buyer")
    part = client.get(
        "/settings/naming/built/?name-channel=meta&name-intent=cart&name-window=24h", headers={"HX-Request": "true"}
    )
    assert "<html" not in text(part)
    assert "<code>google_cart_24h_v1</code>" in text(part)
    assert "meta_…_24h_v1" in text(client.get("/settings/naming/built/?name-channel=meta&name-window=24h"))
    NamingConvention.objects.all().delete()
    assert client.get("/settings/naming/built/").status_code == 200


def test_names_on_platforms_say_what_differs(world):
    named_cart(world)
    page = text(as_(world, "buyer").get("/settings/naming/platforms/"))
    assert "1 of 1 connections has another name on the platform than here" in page
    assert "Renamed at the next sync" in page
    cells = as_(world, "buyer").get(f"/panels/names/?a={world.cart.pk}", headers={"HX-Request": "true"})
    assert f'id="names-{world.cart.pk}"' in text(cells)
    assert "renamed at the next sync" in text(cells)


def test_a_value_that_is_allowed_no_more_is_not_offered_as_chosen(world):
    audience = named_cart(world)
    rules = service.current()
    intent = replace(rules.tokens[1], values=rules.tokens[1].values[1:])
    service.change(actor=None, convention=replace(rules, tokens=(rules.tokens[0], intent, *rules.tokens[2:])))
    builder = NameBuilder.of(audience)
    assert (builder["intent"].value(), builder["channel"].value()) == ("", "meta")
    untouched = {f"name-{name}": builder[name].value() for name in ("channel", "intent", "window")}
    assert not NameBuilder.of(audience, untouched).has_changed()


def test_a_new_audience_has_its_name_and_key_from_what_is_chosen(world):
    fields = {"name-channel": "google", "name-intent": "vip", "name-window": "365d"}
    builder = NameBuilder.of(None, fields)
    assert builder.is_valid()
    assert (builder.name, builder.key) == ("google_vip_365d_v1", "google_vip_365d")
    assert NameBuilder.of(None, channel="openlist")["channel"].value() == "openlist"
    taken = NameBuilder.of(None, {"name-channel": "meta", "name-intent": "cart", "name-window": "24h"})
    named_cart(world)
    assert not taken.is_valid()
    assert "is the name of meta_cart_24h already" in str(taken.errors)
