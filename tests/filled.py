"""A small workspace for tests of pages: one user of each role, people with events, audiences in every state, a connection with a run."""

import functools
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.hashers import make_password
from django.test import Client
from django.utils import timezone
from pyroaring import BitMap

from audiences import bitmaps
from audiences.models import (
    Audience,
    Identity,
    ImportFile,
    PersonList,
    PrivacyRequest,
    Refresh,
    RefusedRow,
    Replacement,
    User,
    Workspace,
)
from audiences.services import audiences, naming, refreshes, versions
from destinations.models import Account as PlatformAccount
from destinations.models import Destination, Eligibility, Ledger, Mapping, Operation, PrivacyReceipt, Rejection, Run
from qa.models import Incident, Mail, SetUp, SpotCheck, SpotCheckPerson
from qa.setup import STEPS, link_for
from tests.audiences.people_in import identify, number, track

PASSWORD = "a-long-password-1"
CART: dict[str, Any] = {
    "all": [
        {"event": "add_to_cart", "count": {"at_least": 1}, "within": "24h"},
        {"event": "purchase", "count": {"exactly": 0}, "within": "3d"},
    ]
}
BUYERS: dict[str, Any] = {"event": "purchase", "count": {"at_least": 1}, "within": "7d"}


@dataclass
class Filled:
    users: dict[str, User]
    cart: Audience
    buyers: Audience
    draft: Audience
    destination: Destination
    mapping: Mapping
    run: Run
    import_file: ImportFile

    @property
    def person(self) -> int:
        return number("ann")


def users() -> dict[str, User]:
    """One of each role, all with the same password, in a workspace that is set up."""
    Workspace.objects.update_or_create(
        pk=1,
        defaults={
            "name": "Harbour Goods",
            "timezone": "Europe/Berlin",
            "consent_policy": {"default": "opt_out", "by_country": {}},
            "review_above_percent": 100,  # of two people, one is half: only what is about reviews asks for less
        },
    )
    return {
        role: User.objects.create(email=f"{role}@example.com", password=_hashed(), role=role, name=role.title())
        for role in User.Role.values
    }


@functools.cache
def _hashed() -> str:
    """Hashing takes its time by design; once is enough for all tests."""
    return make_password(PASSWORD)


def audience(key: str, segment: dict[str, Any] | None, owner: User, purpose: str = "retargeting") -> Audience:
    made = audiences.create(
        actor=owner, key=key, purpose=purpose, definition_owner=owner, sync_owner=owner, alert_owner=owner
    )
    if segment is not None:
        draft = versions.save_draft(actor=owner, audience=made, segment=segment)
        versions.publish(actor=owner, version=draft, reason="First version")
    return Audience.objects.get(pk=made.pk)


def as_(people: "Filled | dict[str, User]", role: str) -> Client:
    """A browser without scripts, signed in."""
    client = Client()
    client.force_login((people.users if isinstance(people, Filled) else people)[role])
    return client


def fill() -> Filled:
    """People are taken in and audiences counted by the real doors; what a platform has said is written as rows."""
    people = users()
    owner = people["marketer"]
    identify("ann", email="ann@shop.example", phone="+4915112345678", first_name="Ann", country="DE", tier="gold")
    identify("bob", email="bob@shop.example", country="FR")
    track("ann", "add_to_cart", product="Oilskin jacket")
    track("bob", "add_to_cart", product="Sea boots")
    track("bob", "purchase", value=120)
    cart, buyers = audience("meta_cart_24h", CART, owner), audience("meta_buyers_7d", BUYERS, owner, "suppression")
    draft = audience("not_yet", None, owner, "analytics")
    cart.excluded_by.add(buyers)
    naming.adopt_starter(actor=owner)
    refreshes.refresh([cart, buyers], cause=Refresh.Cause.MANUAL)
    PersonList.objects.create(key="staff", name="Staff", members=bitmaps.pack(BitMap([number("ann")])), count=1)
    account = PlatformAccount.objects.create(key="meta:act_1")
    target = Destination.objects.create(
        key="meta_main",
        name="Meta EU",
        kind="meta",
        config={"ad_account_id": "act_1"},
        account=account,
        state="connected",
        state_words="Connected to Harbour Goods EU (act_1, EUR); may edit audiences.",
        checked_at=timezone.now(),
    )
    mapping = Mapping.objects.create(
        audience=cart, destination=target, identifiers=["email"], state="live", remote_id="2385", remote_name=cart.key
    )
    done = Refresh.objects.filter(audience=cart, state="done").latest("pk")
    identity = Identity.objects.get(profile_no=number("ann"))
    sent = bitmaps.pack(BitMap([identity.identity_no]))
    Ledger.objects.create(
        mapping=mapping, refresh=done, base=sent, present=sent, ever_sent=sent,
        wanted_count=1, present_count=1, ever_sent_count=1,
    )  # fmt: skip
    for position, (step, out) in enumerate((("removed", 0), ("consent", 0), ("excluded", 0), ("unreachable", 0))):
        Eligibility.objects.create(
            mapping=mapping, refresh=done, position=position, step=step, out_count=out, remaining=1
        )
    now = timezone.now()
    run = Run.objects.create(
        mapping=mapping,
        refresh=done,
        state="partial",
        trigger="schedule",
        planned_adds=2,
        planned_removes=0,
        unchanged=0,
        added=1,
        rejected=1,
        batches_planned=1,
        batches_done=1,
        started_at=now - timedelta(minutes=2),
        finished_at=now - timedelta(minutes=1),
    )
    operation = Operation.objects.create(
        mapping=mapping,
        run=run,
        lane="bulk",
        kind="add",
        cause="diff",
        fence=1,
        remote_id="2385",
        identities=sent,
        count=2,
        accepted=1,
        rejected=1,
        state="settled",
        request_id="AbCdEf",
        http_status=200,
        prepared_at=now,
        sent_at=now,
        open=False,
    )
    Rejection.objects.create(
        mapping=mapping,
        identity_no=999_999,
        kind="add",
        code="2650",
        reason="The platform could not read the phone number",
        operation=operation,
    )
    _spot_check(cart, mapping)
    file = ImportFile.objects.create(
        kind="profiles",
        name="customers.csv",
        path="/nowhere/customers.csv",
        state="done",
        rows_read=3,
        rows_accepted=2,
        rows_refused=1,
        bytes_total=90,
        bytes_read=90,
        mapping={"columns": {"id": "customer_id"}, "event_name": ""},
        finished_at=now,
    )
    RefusedRow.objects.create(
        source="import", import_file=file, line=3, field="email", reason="is not an e-mail address",
        raw='["7", "secret-person@@shop.example"]',
    )  # fmt: skip
    return Filled(people, cart, buyers, draft, target, mapping, run, file)


def _spot_check(audience: Audience, mapping: Mapping) -> SpotCheck:
    """One that waits for a signature, with somebody in order and somebody who is not."""
    assert audience.live_version is not None
    now = timezone.now()
    check = SpotCheck.objects.create(
        audience=audience, version=audience.live_version, mapping=mapping, state="ready", size=10, as_of_us=0,
        means="Meta lets nobody read members. The strongest evidence is its receipt.", drawn_at=now,
    )  # fmt: skip
    rules = [{"path": "", "words": "All of these", "holds": True, "group": True, "decides": False}]
    rules += [{"path": "all[0]", "words": "Did “add_to_cart”", "holds": True, "group": False, "decides": True}]
    receipt = {"wanted": True, "reason": "", "kind": "add", "state": "settled", "at": now.isoformat(), "request": "AbC"}
    for id, group, judged in (("ann", "inside", True), ("bob", "outside", True)):
        SpotCheckPerson.objects.create(
            check_of=check, profile_no=number(id), group=group, counted=group == "inside", judged=judged, rules=rules,
            told="present" if group == "inside" else "absent", receipt=receipt if group == "inside" else {},
        )  # fmt: skip
    return check


def running(mapping: Mapping) -> Run:
    """A run in the middle of sending."""
    return Run.objects.create(
        mapping=mapping,
        state="sending",
        trigger="person",
        planned_adds=48_210,
        planned_removes=10,
        unchanged=5,
        added=18_400,
        batches_planned=92,
        batches_done=36,
        started_at=timezone.now() - timedelta(seconds=80),
    )


def addresses(world: Filled) -> dict[str, tuple[str, ...]]:
    """Every page that answers to GET, with the roles that may see it."""
    everybody = ("admin", "marketer", "buyer", "operator")
    staff = ("admin", "marketer", "operator")
    makers, admin = ("admin", "operator"), ("admin",)
    cart, pk = world.cart.key, world.mapping.pk
    set_up, _ = SetUp.objects.get_or_create(
        audience=world.cart,
        destination=world.destination,
        mapping=world.mapping,
        purpose="retargeting",
        started_by=world.users["marketer"],
    )
    dropped, _ = Incident.objects.get_or_create(
        kind="size",
        subject=f"audience:{world.buyers.pk}",
        audience=world.buyers,
        defaults={
            "severity": "critical",
            "sentence": "Dropped 41% since Mon 23 Nov 09:00: 1,180 people, where 2,000 is usual.",
            "remedy": "Go back to the version before, or mend what feeds the rule.",
            "facts": {"Now": "1,180 people", "Usual": "2,000 people"},
            "since": timezone.now() - timedelta(hours=3),
            "owner": world.users["marketer"],
        },
    )
    told, _ = Mail.objects.get_or_create(
        dedupe_key=f"filled:{dropped.pk}",
        defaults={
            "incident": dropped,
            "to": "marketer@example.com",
            "subject": "CRITICAL | meta_buyers_7d | size −41%",
            "text": "Dropped 41%.",
            "html": "<p>Dropped 41%.</p>",
            "message_id": "<filled@rollcall.invalid>",
            "state": "sent",
            "sent_at": timezone.now(),
        },
    )
    if not world.buyers.versions.exclude(state="published").exists():
        longer = versions.save_draft(
            actor=world.users["marketer"], audience=world.buyers, segment={**BUYERS, "within": "9d"}
        )
        versions.publish(actor=world.users["marketer"], version=longer, reason="Parcels take nine days")
    if not world.cart.replacements.exists():
        beside = audience("meta_cart_24h_v2", CART, world.users["marketer"])
        Replacement.objects.create(
            old=world.cart,
            new=beside,
            retires_at=timezone.now() + timedelta(days=14),
            made_by=world.users["marketer"],
            connected_at=timezone.now(),
        )
    request, _ = PrivacyRequest.objects.get_or_create(
        removal="filled",
        defaults={
            "kind": "suppression", "source": "page", "state": "done", "asked_at": timezone.now(), "due_at": timezone.now(),
            "untouched": ["Meta EU"], "confirmed_at": timezone.now(), "done_at": timezone.now(), "people": [999_999],
        },
    )  # fmt: skip
    frozen, _ = PrivacyRequest.objects.get_or_create(
        removal="filled too",
        defaults={
            "kind": "erasure", "source": "api", "state": "removing", "asked_at": timezone.now(),
            "due_at": timezone.now() - timedelta(days=1), "people": [999_998], "identities": [999_998],
        },
    )  # fmt: skip
    receipt, _ = PrivacyReceipt.objects.get_or_create(
        request=frozen, mapping=world.mapping,
        defaults={
            "destination": "Meta EU", "platform": "meta", "audience": cart, "left_at": timezone.now(),
            "waits": "The connection is frozen: nothing is sent, not even removals.",
        },
    )  # fmt: skip
    return {
        "/": everybody,
        "/alerts/": everybody,
        "/alerts/?state=past": everybody,
        f"/alerts/{dropped.pk}/": everybody,
        "/mail/": everybody,
        f"/mail/{told.pk}/": everybody,
        "/setup-steps/": staff,
        "/audiences/new/": staff,
        f"/audiences/{cart}/setup/": everybody,
        f"/audiences/{cart}/pair/": ("admin", "marketer"),
        **{f"/setup-steps/{set_up.pk}/{step}/": staff for step in STEPS},
        f"/setup-steps/{set_up.pk}/segment/?recipe=cart": staff,
        f"/setup-steps/{set_up.pk}/connect/?link=1": staff,
        f"/setup-steps/connect/{link_for(set_up)}/": makers,
        f"/connections/{pk}/do/exception/": makers,
        "/search/": everybody,
        "/search/?find=cart": everybody,
        "/search/?find=nothing-like-it": everybody,
        "/audiences/": everybody,
        "/audiences/?q=nothing-like-it": everybody,
        "/audiences/?only=archived": everybody,
        "/audiences/?only=retargeting&destination=meta_main": everybody,
        f"/audiences/{cart}/": everybody,
        f"/audiences/{world.draft.key}/": everybody,
        f"/audiences/{cart}/edit/": ("admin", "marketer"),
        f"/audiences/{world.draft.key}/edit/": ("admin", "marketer"),
        f"/audiences/{cart}/versions/": everybody,
        f"/audiences/{cart}/versions/1/": everybody,
        f"/audiences/{world.draft.key}/versions/": everybody,
        f"/audiences/{world.buyers.key}/review/": everybody,
        f"/audiences/{cart}/review/": everybody,
        f"/audiences/{cart}/replacement/": everybody,
        f"/audiences/{world.draft.key}/replacement/": everybody,
        f"/audiences/{world.draft.key}/review/": everybody,
        f"/audiences/{cart}/templates/": ("admin", "marketer"),
        f"/audiences/{world.draft.key}/templates/?recipe=vip": ("admin", "marketer"),
        f"/setup-steps/{set_up.pk}/segment/?recipe=build": staff,
        f"/audiences/{cart}/preview/": ("admin", "marketer"),
        f"/audiences/{world.draft.key}/preview/": ("admin", "marketer"),
        f"/audiences/{cart}/owners/": everybody,
        f"/audiences/{cart}/test/": everybody,
        f"/audiences/{cart}/details/": ("admin", "marketer"),
        f"/audiences/{cart}/archive/": ("admin", "marketer"),
        f"/audiences/{cart}/sign-offs/": staff,
        "/activity/": staff,
        "/activity/?q=cart&type=audience": staff,
        "/activity/?q=nothing-like-it": staff,
        f"/settings/users/{world.users['marketer'].pk}/hand-over/": admin,
        f"/audiences/{cart}/connections/": everybody,
        f"/audiences/{cart}/qa/": staff,
        f"/audiences/{cart}/qa/{world.cart.spot_checks.get().pk}/": staff,
        "/people/": staff,
        f"/people/{world.person}/": staff,
        f"/people/{world.person}/platforms/": staff,
        f"/people/{world.person}/audiences/{cart}/": staff,
        "/imports/": staff,
        "/imports/new/": makers,
        f"/imports/{world.import_file.pk}/": staff,
        "/imports/refused/": staff,
        "/destinations/": everybody,
        "/destinations/new/": makers,
        "/destinations/new/meta/": makers,
        "/destinations/new/google/": makers,
        "/destinations/meta_main/": everybody,
        "/destinations/meta_main/edit/": makers,
        f"/connections/new/?audience={world.buyers.key}&destination=meta_main": makers,
        f"/connections/{pk}/": everybody,
        f"/connections/{pk}/edit/": makers,
        f"/connections/{pk}/do/pause/": makers,
        f"/connections/{pk}/do/freeze/": makers,
        f"/connections/{pk}/do/retire/": makers,
        f"/connections/{pk}/rehearsal/": everybody,
        "/overlap/": everybody,
        "/overlap/?tab=waste": everybody,
        "/overlap/?tab=combinations": everybody,
        "/overlap/?a=not_yet": everybody,
        f"/overlap/{cart}/{world.buyers.key}/": everybody,
        f"/overlap/{cart}/{world.draft.key}/": everybody,
        "/privacy/": makers,
        "/privacy/?state=overdue": makers,
        "/privacy/?state=lifted": makers,
        "/privacy/new/": admin,
        f"/privacy/new/?person={world.person}": admin,
        "/privacy/list/": admin,
        f"/privacy/{request.pk}/": makers,
        f"/privacy/{frozen.pk}/": makers,
        f"/privacy/{request.pk}/lift/": admin,
        f"/privacy/{frozen.pk}/receipts/{receipt.pk}/give-up/": admin,
        "/runs/": everybody,
        "/runs/?state=trouble": everybody,
        f"/runs/{world.run.pk}/": everybody,
        "/settings/": admin,
        "/settings/consent/": admin,
        "/settings/users/": admin,
        "/settings/keys/": admin,
        "/settings/warehouse/": makers,
        f"/audiences/{cart}/record/": ("admin", "marketer"),
        "/settings/jobs/": admin,
        "/settings/naming/": everybody,
        "/settings/naming/edit/": ("admin", "marketer"),
        "/settings/naming/conformance/": everybody,
        "/settings/naming/conformance/?only=fix": everybody,
        f"/settings/naming/conformance/{cart}/": ("admin", "marketer"),
        "/settings/naming/platforms/": everybody,
        "/settings/naming/rename/": ("admin", "marketer"),
        "/account/": everybody,
    }
