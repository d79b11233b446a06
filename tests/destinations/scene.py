"""A workspace with people, an audience and its connection to a sandbox account, for tests of what the platform ends up holding."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from audiences import clock
from audiences.models import Audience, Identity, ProfileKey, User, Workspace
from audiences.people import payloads, profiles
from audiences.services import audiences, versions
from destinations.models import Destination, Ledger, Mapping, Operation, Run
from destinations.sandbox import control
from destinations.sandbox.control import Sandbox
from destinations.services import destinations, mappings, runs

IN = {"attribute": "in", "op": "is", "value": "yes"}
NO_PURCHASE = {"all": [IN, {"event": "purchase", "count": {"exactly": 0}}]}


@dataclass
class Scene:
    """One live connection. `sync()` runs it to its end; `held()` is the platform's own member set."""

    sandbox: Sandbox
    mapping: Mapping
    account: str

    def sync(self, **options: Any) -> Run:
        self.mapping.refresh_from_db()
        run = runs.request(actor=None, mapping=self.mapping, start=False)
        return runs.run_to_end(run, **options)

    def held(self) -> set[tuple[str, str]]:
        self.mapping.refresh_from_db()
        return self.sandbox.identifiers(self.mapping.destination.kind, self.mapping.remote_id)

    def emails(self) -> set[str]:
        return {value for kind, value in self.held() if kind == "email"}

    def calls(self, op: str | None = None) -> list[dict[str, Any]]:
        made = self.sandbox.calls(self.mapping.destination.kind, self.account)
        return [call for call in made if op is None or call["op"] == op]

    def ledger(self) -> Ledger:
        return Ledger.objects.get(mapping=self.mapping)

    def operations(self) -> list[Operation]:
        return list(Operation.objects.filter(mapping=self.mapping).order_by("pk"))


def workspace(**policy: str) -> User:
    Workspace.objects.update_or_create(
        pk=1,
        defaults={"name": "Test", "consent_policy": {"default": policy.get("default", "opt_out"), "by_country": {}}},
    )
    return User.objects.get_or_create(email="operator@example.com", defaults={"role": "operator"})[0]


def audience(key: str, segment: dict[str, Any], purpose: str = "retargeting") -> Audience:
    made = Audience.objects.filter(key=key).first() or audiences.create(actor=None, key=key, purpose=purpose)
    draft = versions.save_draft(actor=None, audience=made, segment=segment)
    versions.publish(actor=None, version=draft, reason="for the test", override="for the test")
    return Audience.objects.get(key=key)


def destination(sandbox: Sandbox, account: str, kind: str = "meta") -> Destination:
    config = {
        "meta": {"ad_account_id": account},
        "google": {"account_id": account},
        "openlist": {"account": account},
        "webhook": {"url": f"{sandbox.base_url}/webhooks/{account}"},
    }[kind]
    webhook = kind == "webhook"
    return destinations.create(
        actor=None,
        key=f"{kind}_{account}",
        kind=kind,
        base_url="" if webhook else sandbox.base_url,
        config=config,
        credentials={"secret": control.webhook_secret(account)} if webhook else {"access_token": "token-for-tests"},
    )


def live(
    sandbox: Sandbox,
    account: str,
    made: Audience,
    identifiers: Iterable[str] = ("email",),
    kind: str = "meta",
    **fields: Any,
) -> Scene:
    known = Destination.objects.filter(key=f"{kind}_{account}").first()
    target = known or destination(sandbox, account, kind)
    mapping = mappings.create(actor=None, audience=made, destination=target, identifiers=list(identifiers), **fields)
    mapping = allowed(mapping)
    return Scene(sandbox, mappings.go_live(actor=None, mapping=mapping), account)


def allowed(mapping: Mapping) -> Mapping:
    """With an exception on record: what these tests are about needs no suppression audience beside it."""
    return mappings.override(actor=None, mapping=mapping, by="operator@example.com", reason="for the test")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def hashes(*ids: str) -> set[str]:
    """The hashed e-mails of the people `ids`, whose e-mail is `<id>@example.com`."""
    return {sha(f"{id}@example.com") for id in ids}


def identity_of(id: str) -> int:
    profile = ProfileKey.objects.get(kind="id", value=id).profile_no
    return Identity.objects.get(profile_no=profile, replaced_at__isnull=True).identity_no


def imported(*ids: str, **attributes: Any) -> None:
    """People as a file brings them: two of them may have the same e-mail. Left out, it is `<id>@example.com`."""
    rows = []
    for id in ids:
        given = {"email": f"{id}@example.com", "in": "yes", **attributes}
        rows.append(payloads.profile_row("id", id, given, default_region="US", at_us=clock.now_us()))
    for start in range(0, len(rows), 5_000):
        with transaction.atomic():
            profiles.upsert(rows[start : start + 5_000], source="import")
