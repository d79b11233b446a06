"""Each list asks the database the same number of questions at thirty rows as at three."""

import pytest
from django.core.cache import cache
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from audiences.models import User
from tests import filled, many

pytestmark = pytest.mark.django_db

# Everything that lists rows of a kind that a workspace has many of.
LISTS = (
    "/",
    "/search/?find=cart",
    "/audiences/",
    "/audiences/?q=cart",
    "/alerts/",
    "/mail/",
    "/privacy/",
    "/runs/",
    "/destinations/",
    "/destinations/many_0/",
    "/activity/",
    "/setup-steps/",
    "/settings/naming/conformance/",
    "/settings/naming/platforms/",
    "/settings/naming/rename/",
    "/overlap/",
    "/settings/users/",
    "/settings/jobs/",
)
FRAGMENTS: tuple[str, ...] = ("/panels/names/",)


def questions(client: Client, address: str) -> tuple[int, int]:
    """The status, and how many."""
    cache.clear()
    client.get(address)  # what a process asks once and keeps is not the page's
    with CaptureQueriesContext(connection) as captured:
        response = client.get(address)
    return response.status_code, len(captured)


def asked(number: int) -> dict[str, tuple[int, int]]:
    filled.users()
    admin = User.objects.get(role="admin")
    made = many.audiences(number, admin)
    client = Client(raise_request_exception=False)
    client.force_login(admin)
    panel = "?" + "&".join(f"a={one.pk}" for one in made)
    found = {address: questions(client, address) for address in LISTS}
    return found | {address: questions(client, address + panel) for address in FRAGMENTS}


@pytest.fixture(scope="module")
def counts(django_db_setup, django_db_blocker):
    found = {}
    for number in (3, 30):
        with django_db_blocker.unblock(), transaction.atomic():
            found[number] = asked(number)
            transaction.set_rollback(True)
    return found


@pytest.mark.parametrize("address", [*LISTS, *FRAGMENTS])
def test_a_list_of_thirty_asks_as_much_as_a_list_of_three(counts, address):
    assert counts[3][address] == counts[30][address]
    status, number = counts[30][address]
    assert status == 200
    assert number <= 30
