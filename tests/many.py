"""Many rows at once, for what must stay quick and ask a fixed number of questions: audiences with all that lists show beside them."""

import random
from datetime import timedelta
from typing import Any

from django.utils import timezone
from pyroaring import BitMap

from audiences import bitmaps, clock
from audiences.models import Audience, AuditEntry, Membership, PrivacyRequest, Refresh, SegmentVersion, User
from audiences.segments import explain, grammar
from destinations.models import Account, Destination, Ledger, Mapping, PrivacyReceipt, Run
from qa.models import Baseline, Incident, Mail, SetUp

RULE: dict[str, Any] = {
    "all": [
        {"event": "add_to_cart", "count": {"at_least": 1}, "within": "7d"},
        {"event": "purchase", "count": {"exactly": 0}, "within": "7d"},
    ]
}
PURPOSES = ("retargeting", "retargeting", "retargeting", "suppression", "lookalike", "analytics")


def audiences(number: int, owner: User, *, people: int = 2_000, every_incident: int = 1) -> list[Audience]:
    """So many, each with a live version, a count, ninety days, a connection with a run; every `every_incident`-th with an alert and its mail.
    Whatever lists read is written as rows, in bulk."""
    dice, now = random.Random(number), timezone.now()
    tree = grammar.parse(RULE)
    accounts = [Account(key=f"meta:many_{n}") for n in range(5)]
    Account.objects.bulk_create(accounts)
    targets = Destination.objects.bulk_create(
        Destination(key=f"many_{n}", name=f"Account {n}", kind="meta", config={"ad_account_id": f"act_{n}"},
                    account=account, state="connected", state_words="Connected.", checked_at=now)
        for n, account in enumerate(accounts)
    )  # fmt: skip
    made = Audience.objects.bulk_create(
        Audience(key=f"many_cart_{n:03d}", name=f"many_cart_{n:03d}_v1", purpose=PURPOSES[n % 6], definition_owner=owner,
                 sync_owner=owner, alert_owner=owner, description="Put something in the cart and has not bought.")
        for n in range(number)
    )  # fmt: skip
    versions = SegmentVersion.objects.bulk_create(
        SegmentVersion(audience=one, number=1, state="published", segment=grammar.canonical(tree), sha256=grammar.sha256(tree),
                       sentence=explain.sentence(tree), reason="First version", author=owner, published_by=owner, published_at=now)
        for one in made
    )  # fmt: skip
    refreshes = Refresh.objects.bulk_create(
        Refresh(audience=one, version=version, state="done", cause="schedule", as_of_us=clock.to_us(now), count=people,
                entered_count=10, left_count=5, started_at=now, finished_at=now)
        for one, version in zip(made, versions, strict=True)
    )  # fmt: skip
    for one, version in zip(made, versions, strict=True):
        one.live_version, one.refresh_due_at = version, now + timedelta(hours=1)
    Audience.objects.bulk_update(made, ["live_version", "refresh_due_at"])
    days = [(now.date() - timedelta(days=back)).isoformat() for back in range(89, -1, -1)]
    Membership.objects.bulk_create(
        Membership(audience=one, refresh=refresh, members=bitmaps.pack(BitMap(dice.sample(range(50_000), people))), count=people,
                   daily=[[day, people + dice.randrange(-50, 50)] for day in days])
        for one, refresh in zip(made, refreshes, strict=True)
    )  # fmt: skip
    mappings = Mapping.objects.bulk_create(
        Mapping(audience=one, destination=targets[n % 5], identifiers=["email"], state="live", remote_id=f"23{n}",
                remote_name=one.name, matched_low=people // 2, matched_high=people, matched_at=now, first_live_at=now)
        for n, one in enumerate(made)
    )  # fmt: skip
    Ledger.objects.bulk_create(
        Ledger(mapping=mapping, refresh=refresh, wanted_count=people, present_count=people, ever_sent_count=people)
        for mapping, refresh in zip(mappings, refreshes, strict=True)
    )
    Baseline.objects.bulk_create(Baseline(mapping=mapping, size=people, frozen_at=now) for mapping in mappings)
    Run.objects.bulk_create(
        Run(mapping=mapping, refresh=refresh, state="done", trigger="schedule", planned_adds=10, planned_removes=5, unchanged=people,
            added=10, removed=5, batches_planned=1, batches_done=1, started_at=now, finished_at=now)
        for mapping, refresh in zip(mappings, refreshes, strict=True)
    )  # fmt: skip
    incidents = Incident.objects.bulk_create(
        Incident(kind="size", subject=f"audience:{one.pk}", audience=one, severity="critical", owner=owner, since=now,
                 sentence="Dropped 41% against its usual 3.4k.", facts={"Now": people, "Usual": 3400})
        for one in made[::every_incident]
    )  # fmt: skip
    Mail.objects.bulk_create(
        Mail(dedupe_key=f"many:{incident.pk}", incident=incident, to=owner.email, subject="Dropped", text="Dropped.", html="<p>Dropped.</p>",
             message_id=f"<{incident.pk}@many>", state="sent", sent_at=now)
        for incident in incidents
    )  # fmt: skip
    asked = PrivacyRequest.objects.bulk_create(
        PrivacyRequest(kind="erasure", source="page", state="removing", requested_by=owner, asked_at=now,
                       due_at=now + timedelta(days=30), removal=f"many {n}",
                       people=[n], identities=[n])
        for n in range(number)
    )  # fmt: skip
    PrivacyReceipt.objects.bulk_create(
        PrivacyReceipt(
            request=request, mapping=mapping, destination="Account", platform="meta", audience="many", left_at=now
        )
        for request, mapping in zip(asked, mappings, strict=True)
    )
    SetUp.objects.bulk_create(SetUp(audience=one, started_by=owner) for one in made[::every_incident])
    AuditEntry.objects.bulk_create(
        AuditEntry(actor=owner, actor_label=owner.email, verb=verb, object_type="audience", object_key=one.key, after={"version": 1})
        for one in made
        for verb in ("audience.created", "audience.drafted", "audience.published")
    )  # fmt: skip
    owner.follows.set(made)
    suppressions = [one for one in made if one.purpose == "suppression"]
    for one in made:
        if one.purpose == "retargeting" and suppressions:
            one.excluded_by.set(suppressions[:1])
    return made
