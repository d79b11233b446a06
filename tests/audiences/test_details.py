"""Details of an audience: what it is called and for, how often it is counted, who follows it; and the end of it."""

from urllib.parse import quote

import pytest

from audiences.models import Audience, AuditEntry
from audiences.services import audiences, naming
from audiences.services.audiences import AudienceRefused
from destinations.models import Mapping
from destinations.services import archiving
from tests import filled
from tests.filled import as_

pytestmark = pytest.mark.django_db


@pytest.fixture
def world():
    return filled.fill()


def text(response):
    return response.content.decode()


def given(client, key, **changed):
    """The form as the page shows it, with some of it changed."""
    shown = client.get(f"/audiences/{key}/details/").context
    values = {name: shown["form"][name].value() or "" for name in shown["form"].fields}
    values |= {f"name-{name}": shown["builder"][name].value() or "" for name in shown["builder"].fields}
    return {**values, **changed}


def test_details_are_changed_with_before_after_and_reason_on_record(world):
    client, key = as_(world, "marketer"), world.draft.key

    answer = client.post(
        f"/audiences/{key}/details/",
        given(
            client,
            key,
            description="For <b>analysts</b>",
            purpose="lookalike",
            cadence_seconds="3600",
            reason="new use",
        ),
    )

    assert answer.status_code == 302
    row = Audience.objects.get(key=key)
    assert (row.description, row.purpose, row.cadence_seconds) == ("For <b>analysts</b>", "lookalike", 3600)
    entry = AuditEntry.objects.filter(verb="audience.changed", object_key=key).latest("pk")
    assert entry.before == {"description": "", "purpose": "analytics", "cadence_seconds": 900}
    assert entry.reason == "new use"


def test_a_free_name_needs_a_reason_where_there_is_a_convention(world):
    naming.NamingConvention.objects.all().delete()
    naming.adopt_starter(actor=None)
    client, key = as_(world, "marketer"), world.draft.key
    before = Audience.objects.get(key=key)

    refused = client.post(
        f"/audiences/{key}/details/", given(client, key, **{"name-own_name": "Mine alone", "description": "x"})
    )

    assert refused.status_code == 422
    assert "Say why it departs from the convention" in text(refused)
    row = Audience.objects.get(key=key)
    assert (row.name, row.description) == (before.name, before.description)  # all of it or nothing
    why = {"name-own_name": "Mine alone", "name-name_reason": "a one-off"}
    assert client.post(f"/audiences/{key}/details/", given(client, key, **why)).status_code == 302
    assert Audience.objects.get(key=key).name == "Mine alone"


def test_a_page_that_is_older_than_the_details_overwrites_nothing(world):
    client, key = as_(world, "marketer"), world.draft.key
    stale = given(client, key, description="mine")
    audiences.change(actor=None, audience=world.draft, description="theirs")

    answer = client.post(f"/audiences/{key}/details/", stale)

    assert answer.status_code == 409
    assert "Somebody else has changed this audience" in text(answer)
    assert "mine" in text(answer)  # what was typed is not lost
    assert Audience.objects.get(key=key).description == "theirs"


@pytest.mark.parametrize(
    "wrong",
    [
        {"purpose": "spam"},
        {"cadence_seconds": "1"},
        {"cadence_seconds": "x"},
        {"description": "x" * 10_001},
        {"description": "a\0b"},
    ],
)
def test_what_cannot_be_is_refused_beside_its_field(world, wrong):
    client, key = as_(world, "marketer"), world.draft.key

    answer = client.post(f"/audiences/{key}/details/", given(client, key, **wrong))

    assert answer.status_code == 422
    assert 'class="errors"' in text(answer)


def test_a_suppression_audience_that_others_need_stays_one(world):
    client, key = as_(world, "marketer"), world.buyers.key

    answer = client.post(f"/audiences/{key}/details/", given(client, key, purpose="retargeting"))

    assert answer.status_code == 422
    assert f"is the suppression audience of {world.cart.key}" in text(answer)


def test_following_is_taken_back_by_the_toast(world):
    client, key = as_(world, "buyer"), world.draft.key
    world.draft.followers.clear()

    page = text(client.post(f"/audiences/{key}/follow/", {"follows": "1"}, follow=True))
    assert world.draft.followers.get() == world.users["buyer"]
    assert f'<form class="undo" method="post" action="/audiences/{key}/follow/">' in page

    client.post(f"/audiences/{key}/follow/", {"follows": ""})
    assert not world.draft.followers.exists()


def test_an_audience_is_archived_only_once_its_connections_are_retired_and_nobody_excludes_by_it(world):
    client = as_(world, "marketer")

    page = text(client.get(f"/audiences/{world.cart.key}/archive/"))
    assert "Retire its connections first" in page
    assert "Meta EU" in page
    refused = client.post(f"/audiences/{world.cart.key}/archive/", {"reason": "over"})
    assert refused.status_code == 422
    assert "Still connected to Meta EU: retire those connections first." in text(refused)
    assert "Others exclude by it" in text(client.get(f"/audiences/{world.buyers.key}/archive/"))

    Mapping.objects.filter(audience=world.cart).update(state="retired")
    no_reason = client.post(f"/audiences/{world.cart.key}/archive/", {"reason": "  "})
    assert no_reason.status_code == 422
    assert "Say why, for whoever asks later." in text(no_reason)
    assert client.post(f"/audiences/{world.cart.key}/archive/", {"reason": "over"}).status_code == 302
    assert Audience.objects.get(key=world.cart.key).archived_at is not None
    assert client.get(f"/audiences/{world.cart.key}/details/").status_code == 200


def test_a_long_list_of_connections_is_cut_in_the_words(world):
    for number in range(4):
        target = world.destination
        target.pk, target.key, target.name = None, f"more_{number}", f"More {number}"
        target.save()
        Mapping.objects.create(audience=world.cart, destination=target, identifiers=["email"])

    with pytest.raises(AudienceRefused, match="More 0, More 1 and 2 more: retire"):
        archiving.archive(actor=None, audience=world.cart, reason="over")


@pytest.mark.parametrize("page", ["details", "archive", "owners", "versions", "test", "sign-offs"])
def test_an_audience_that_is_not_there_is_not_found(world, page):
    assert as_(world, "admin").get(f"/audiences/no_such/{page}/").status_code == 404
    assert as_(world, "admin").get(f"/audiences/{quote('<img>')}/{page}/").status_code == 404
