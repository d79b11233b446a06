"""The one search box: what words lead to, for whom; and that a person's address never gets into one of ours."""

import re

import pytest
from django.core.cache import cache

from tests import filled
from tests.audiences.people_in import number
from tests.filled import as_

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> filled.Filled:
    cache.clear()
    return filled.fill()


def links(response) -> list[str]:
    """What the answers lead to, in order."""
    assert response.status_code == 200
    return re.findall(r'class="found-item" href="([^"]+)"', response.content.decode())


def test_words_lead_to_audiences_destinations_and_connections_the_likeliest_first(world):
    client = as_(world, "buyer")
    found = links(client.get("/search/?find=meta cart"))
    assert found[0] == "/audiences/meta_cart_24h/"
    assert f"/connections/{world.mapping.pk}/" in found
    assert links(client.get("/search/?find=meta eu"))[:2] == [
        "/destinations/meta_main/",
        f"/connections/{world.mapping.pk}/",
    ]
    assert "/audiences/meta_buyers_7d/" in links(client.get("/search/?find=suppression"))
    assert "/audiences/meta_cart_24h/" in links(client.get("/search/?find=add_to_cart"))


def test_a_run_is_found_by_its_number(world):
    client = as_(world, "buyer")
    for words in (str(world.run.pk), f"run {world.run.pk}", f"%23{world.run.pk}"):
        assert f"/runs/{world.run.pk}/" in links(client.get(f"/search/?find={words}")), words


def test_a_person_is_found_by_the_whole_of_what_was_posted_and_shown_masked(world):
    client = as_(world, "marketer")
    for words in ("ann@shop.example", " Ann@Shop.example ", "ann", "+49 151 12345678"):
        response = client.post("/search/", {"find": words})
        assert links(response)[0] == f"/people/{number('ann')}/", words
        answers = response.content.decode().split('<div class="card found-page">')[1]
        assert "ann@shop.example" not in answers
        assert "12345678" not in answers
    assert f"/people/{number('ann')}/" not in links(client.post("/search/", {"find": "ann@shop"}))


def test_nobody_is_looked_for_by_what_stands_in_an_address(world):
    client = as_(world, "marketer")
    for words in ("ann@shop.example", "ann"):
        assert f"/people/{number('ann')}/" not in links(client.get("/search/", {"find": words}))
    assert 'method="post" action="/search/"' in client.get("/").content.decode()


def test_a_buyer_finds_no_person_and_no_page_that_is_not_theirs(world):
    client = as_(world, "buyer")
    response = client.post("/search/", {"find": "ann@shop.example"})
    assert links(response) == []
    assert "People are not shown to your role" in response.content.decode()
    everything = links(client.get("/search/"))
    assert "/people/" not in everything
    assert "/settings/" not in everything
    assert "/imports/" not in everything
    assert "/settings/" in links(as_(world, "admin").get("/search/"))


@pytest.mark.parametrize("role", ["admin", "marketer", "buyer", "operator"])
def test_every_page_and_action_it_offers_is_open_to_whom_it_is_offered(world, role):
    client = as_(world, role)
    for address in links(client.get("/search/")):
        assert client.get(address).status_code == 200, address


def test_htmx_gets_the_answers_alone_as_choices(world):
    response = as_(world, "buyer").post("/search/", {"find": "cart"}, headers={"HX-Request": "true"})
    body = response.content.decode()
    assert "<html" not in body
    assert 'role="option"' in body
    assert 'aria-selected="false"' in body


@pytest.mark.parametrize(
    "words", ["<img src=x onerror=alert(1)>", "' OR 1=1 --", "%", "\u202eabc", "\0", "x" * 10_000, "🧥 " * 100, "((((", "run 99999999999999999999"]
)  # fmt: skip
def test_hostile_words_find_nothing_and_break_nothing(world, words):
    client = as_(world, "admin")
    for response in (client.post("/search/", {"find": words}), client.get("/search/", {"find": words})):
        assert response.status_code == 200
        assert "<img src=x" not in response.content.decode()
