"""One table of who may see and do what (permissions.txt beside this), held against every address × every role and strangers, by real requests.

A new address without a row fails. To write the table anew: PERMISSIONS=write pytest tests/qa/test_permissions.py; then read the difference.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.apps import apps
from django.core.cache import cache
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from audiences import access, models
from audiences.models import ApiKey, User
from audiences.people import imports as files
from destinations.models import Hold, PrivacyReceipt, RecordExport
from qa import setup
from qa.models import Baseline, Incident, Mail, SetUp, SpotCheck, SpotCheckPerson
from tests import filled

pytestmark = pytest.mark.django_db

TABLE = Path(__file__).parent / "permissions.txt"
ROLES = ("admin", "marketer", "buyer", "operator")

# What has no permission, and why.
OPEN = {
    "audiences:sign-in": "the door itself",
    "audiences:enter": "the demo's door; 404 anywhere else (tests/audiences/test_pages.py)",
    "audiences:sign-out": "whoever is in may go",
    "audiences:setup": "the first page of an empty installation; later it leads to the door",
    "audiences:set-password": "opened by the secret in a link that was mailed",
    "audiences:theme": "light or dark, in this browser alone, on the door too",
    "qa:live": "asked by what watches the process; it tells nothing and asks nothing of the database",
    "qa:ready": "asked by what sends requests here or elsewhere; it names parts of the installation and whether they answer",
    "qa:beat": "asked by what watches the workers; it names the queues and how old their canaries are",
    "qa:metrics": "for machines with a token, or on this one (tests/qa/test_metrics.py)",
}
# Not known any more is nothing wrong there: they say so, and what to do.
GONE = {"audiences:columns", "audiences:discard", "qa:engineer", "qa:discard-setup"}
# Held by tests of their own: machines sign in to it with a key, not with a session (tests/audiences/test_track.py).
TRACK = "api/"
# What a reader may leave behind: a hold on the files it reads from, which ends by itself.
TRACES = {"audiences.pin", "sessions.session"}


@dataclass(frozen=True)
class Address:
    name: str
    route: str
    permission: str


@dataclass
class World:
    of: filled.Filled
    ids: dict[str, Callable[[], Any]]

    def url(self, address: Address, forged: bool = False) -> str:
        """The address with what is really there in its places, or with what is not."""

        def fill(match: re.Match[str]) -> str:
            kind, name = match.groups()
            if forged:
                return "999999" if kind == "int" else "no-such"
            value = self.ids.get(f"{address.name}:{name}") or self.ids.get(f"{address.route.split('/')[0]}:{name}")
            value = value or self.ids.get(name)
            assert value, f"{address.name} has <{kind}:{name}>: say in test_permissions.py what to put there"
            return str(value())

        return "/" + re.sub(r"<(\w+):(\w+)>", fill, address.route)


def addresses() -> list[Address]:
    """Every address of the three floors."""

    def walk(resolver: URLResolver, space: str, before: str) -> Iterator[Address]:
        for one in resolver.url_patterns:
            if isinstance(one, URLResolver):
                yield from walk(one, f"{one.namespace}:" if one.namespace else space, before + str(one.pattern))
                continue
            assert isinstance(one, URLPattern)
            route = before + str(one.pattern)
            if not route.startswith(TRACK):
                assert one.name, f"{route} has no name"
                yield Address(space + one.name, route, getattr(one.callback, "permission", ""))

    return list(walk(get_resolver(), "", ""))


@pytest.fixture
def world() -> World:
    cache.clear()
    of = filled.fill()
    now = timezone.now()
    version = of.cart.live_version
    assert version is not None
    hold = Hold.objects.create(
        mapping=of.mapping, direction="adds", rule="person", reason="x", lift_roles=["admin", "operator"]
    )
    key = ApiKey.objects.create(name="a key", site_id="s", secret_sha256="0" * 64)
    check = SpotCheck.objects.create(audience=of.cart, version=version, mapping=of.mapping, state="ready", drawn_at=now)
    drawn = SpotCheckPerson.objects.create(
        check_of=check, profile_no=of.person, group="inside", counted=True, judged=True
    )
    incident = Incident.objects.filter(recovered_at=None).first() or Incident.objects.create(
        kind="size", subject=f"audience:{of.buyers.pk}", audience=of.buyers, severity="critical", sentence="Dropped.", since=now
    )  # fmt: skip
    mail = Mail.objects.filter(incident=incident).first() or Mail.objects.create(
        dedupe_key="k", incident=incident, to="marketer@example.com", subject="s", text="t", html="<p>t</p>", message_id="<1@x>"
    )  # fmt: skip
    if not models.TestLock.objects.filter(audience=of.cart, broken_at=None, until__gt=now).exists():
        models.TestLock.objects.create(audience=of.cart, until=now + timedelta(days=3), set_by=of.users["buyer"])
    baseline, _ = Baseline.objects.get_or_create(mapping=of.mapping, defaults={"size": 2, "frozen_at": now})
    begun = SetUp.objects.create(purpose="retargeting", destination=of.destination, started_by=of.users["marketer"], answers={"identifiers": ["email"]})  # fmt: skip
    act = models.Renaming.objects.create(names=[])
    record = RecordExport.objects.create(
        audience=of.cart, tables=["audiences"], file_format="csv", start_us=0, end_us=1
    )
    request = models.PrivacyRequest.objects.create(
        kind="suppression", source="page", state="removing", asked_at=now, due_at=now, removal="r", identities=[999_999]
    )  # fmt: skip
    receipt = PrivacyReceipt.objects.create(
        request=request, mapping=of.mapping, destination="Meta EU", platform="meta", audience=of.cart.key, left_at=now
    )  # fmt: skip
    token = "a" * 32
    (files.uploads() / token).write_text("id,mail\n1,ann@shop.example\n")
    ids: dict[str, Callable[[], Any]] = {
        "key": lambda: of.cart.key,
        "a": lambda: of.cart.key,
        "b": lambda: of.buyers.key,
        "number": lambda: 1,
        "privacy:pk": lambda: request.pk,
        "receipt": lambda: receipt.pk,
        "profile_no": lambda: of.person,
        "person": lambda: drawn.pk,
        "kind": lambda: "meta",
        "name": lambda: "pause",
        "token": lambda: token,
        "destinations:key": lambda: of.destination.key,
        "connections:pk": lambda: of.mapping.pk,
        "runs:pk": lambda: of.run.pk,
        "people:pk": lambda: 1,  # the demo's alone: 404 elsewhere
        "setup-steps:pk": lambda: begun.pk,
        "qa:setup-step:name": lambda: "segment",
        "qa:engineer:token": lambda: setup.link_for(begun),
        "baselines:pk": lambda: baseline.pk,
        "holds:pk": lambda: hold.pk,
        "destinations:undo-rename:pk": lambda: act.pk,
        "imports:pk": lambda: of.import_file.pk,
        "alerts:pk": lambda: incident.pk,
        "mail:pk": lambda: mail.pk,
        "audiences:pk": lambda: check.pk,
        "audiences:user:pk": lambda: of.users["buyer"].pk,
        "audiences:hand-over:pk": lambda: of.users["buyer"].pk,
        "audiences:revoke-key:pk": lambda: key.pk,
        "destinations:download-record:pk": lambda: record.pk,
        "destinations:discard-record:pk": lambda: record.pk,
    }
    return World(of, ids)


def sign_in(world: World, role: str) -> Client:
    client = Client()
    client.force_login(world.of.users[role])
    return client


def ask(client: Client, method: str, url: str) -> int:
    """The status. What a POST does is taken back: each is asked of the same world."""
    if method == "GET":
        return client.get(url).status_code
    with transaction.atomic():
        status = client.post(url).status_code
        transaction.set_rollback(True)
    return status


def answers(world: World, address: Address, method: str) -> str:
    """The initials of the roles that get anything but a refusal; a dash where the address does not take this method."""
    letters = ""
    for role in ROLES:
        status = ask(sign_in(world, role), method, world.url(address))
        assert status < 500, (address.name, method, role, status)
        if status == 405:
            return "-"
        if status != 403:
            assert status in (200, 201, 204, 286, 302, 400, 404, 409, 410, 422), (address.name, method, role, status)
            letters += role[0].upper()
    return letters or "nobody"


def test_the_table_says_what_every_address_answers_to_every_role(world):
    lines = [
        "# address: permission that the view carries; who sees it (GET), who may act on it (POST): Admin Marketer Buyer Operator"
    ]
    for address in sorted(addresses(), key=lambda one: one.name):
        if address.name in OPEN:
            continue
        assert address.permission, (
            f"{address.name} carries no permission: decorate it with @requires, or say why not in OPEN"
        )
        see, do = (answers(world, address, method) for method in ("GET", "POST"))
        assert {see, do} != {"-"}, address.name
        carries = "".join(role[0].upper() for role in ROLES if role in access.PERMISSIONS[address.permission])
        for found in (see, do):
            assert found == "-" or set(found) <= set(carries), (address.name, found)
        assert see in ("-", carries), address.name
        lines.append(f"{address.name:32} {address.permission:18} {see:5} {do:5} /{address.route}".rstrip())
    found = "\n".join(lines) + "\n"
    if os.environ.get("PERMISSIONS") == "write":
        TABLE.write_text(found)
    assert found.splitlines() == TABLE.read_text().splitlines()


def test_what_has_no_permission_is_declared_and_is_there():
    without = {address.name for address in addresses() if not address.permission}
    assert without == set(OPEN)


def test_every_permission_is_known_and_admin_has_each():
    for address in addresses():
        assert not address.permission or access.ADMIN in access.PERMISSIONS[address.permission], address
    assert all(roles <= set(User.Role.values) for roles in access.PERMISSIONS.values())


def test_a_stranger_is_sent_to_the_door_and_from_within_a_fragment_the_whole_page_is(world):
    for address in addresses():
        if address.name in OPEN:
            continue
        url = world.url(address)
        for method in ("get", "post"):
            response = getattr(Client(), method)(url)
            if response.status_code == 405:
                continue
            assert response.status_code == 302, (address.name, method)
            assert urlsplit(response["Location"]).path == "/sign-in/", (address.name, method)
            back = url if method == "get" else "/"
            assert parse_qs(urlsplit(response["Location"]).query) == {"next": [back]}, (address.name, method)
            asked = getattr(Client(), method)(
                url, headers={"HX-Request": "true", "HX-Current-URL": "http://testserver/runs/"}
            )
            assert asked.status_code == 204, (address.name, method)
            assert asked["HX-Redirect"] == "/sign-in/?next=%2Fruns%2F", (address.name, method)


def test_looking_changes_nothing(world):
    client = sign_in(world, "admin")
    for address in addresses():
        if address.name in OPEN:
            continue
        before = state()
        if client.get(world.url(address)).status_code != 405:
            assert state() == before, address.name


def test_every_post_wants_its_token(world):
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.of.users["admin"])
    for address in addresses():
        if address.name != "qa:live":
            response = client.post(world.url(address))
            assert response.status_code in (403, 405), address.name


def test_a_forged_id_is_not_found(world):
    client = sign_in(world, "admin")
    for address in addresses():
        if "<" not in address.route or address.name in OPEN:
            continue
        url = world.url(address, forged=True)
        status = client.get(url).status_code
        status = ask(client, "POST", url) if status == 405 else status
        assert status in ((302, 404, 410) if address.name in GONE else (404,)), (address.name, url, status)


def state() -> dict[str, str]:
    """A digest of every table."""
    found = {}
    for model in apps.get_models():
        if not model.__module__.startswith("tests.") and model._meta.label_lower not in TRACES:
            rows = sorted(map(repr, model._default_manager.values_list()))
            found[model._meta.label_lower] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    return found
