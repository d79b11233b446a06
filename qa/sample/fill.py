"""Fills an installation with the sample shop, step by step through the same doors that a team uses. A killed filling goes on where it stopped."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from io import StringIO
from pathlib import Path

import pyarrow.parquet as pq
from django.conf import settings
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from audiences import jobs
from audiences.clock import DAY, HOUR, MINUTE, from_us, now_us, to_us
from audiences.models import (
    Audience,
    AuditEntry,
    ImportFile,
    Job,
    Membership,
    Refresh,
    SegmentVersion,
    User,
    Workspace,
    frozen,
)
from audiences.people import imports
from audiences.segments import grammar
from audiences.services import refreshes, versions, workspace
from destinations.models import ENDED, Destination, Mapping, Run
from destinations.sandbox.control import Sandbox
from destinations.services import destinations, mappings, runs
from qa import limits
from qa.sample import alarms, shop, team

TASK, KEY = "qa.fill_demo", "demo"
PASSWORD = "rollcall-sample"  # noqa: S105 (the sample's own, printed on every start)
USERS = (
    ("admin@example.com", "Ada Admin", User.Role.ADMIN),
    ("marketer@example.com", "Milo Marketer", User.Role.MARKETER),
    ("buyer@example.com", "Bea Buyer", User.Role.BUYER),
    ("operator@example.com", "Otto Operator", User.Role.OPERATOR),
)
VIP, STALE, FAILING, REHEARSED = (
    "meta_vip_spend_365d",
    "meta_search_intent_30d",
    "google_outlet",
    "google_retarget_shoes_30d",
)
TOKENS = {
    "SAMPLE_META_TOKEN": ("meta", "act_1", "sample-meta-token"),
    "SAMPLE_GOOGLE_TOKEN": ("google", "1234567890", "sample-google-token"),
    "SAMPLE_OUTLET_TOKEN": ("google", "9876543210", "sample-outlet-token"),
    "SAMPLE_OPENLIST_TOKEN": ("openlist", "analysts", "sample-openlist-token"),
}
ACCOUNTS = {
    "act_1": ("Acme EU", "EUR"),
    "1234567890": ("Acme EU", "EUR"),
    "9876543210": ("Acme Outlet", "EUR"),
    "analysts": ("Acme analysts", "EUR"),
}
CUT = 0.41  # how much smaller the VIP audience's second version makes it

Progress = Callable[[str, float], None]


def prepare() -> None:
    """What must be there before the first page opens: the workspace and four people who can sign in."""
    if Workspace.objects.exists():
        return
    email, name, _ = USERS[0]
    policy = {"default": "opt_out", "by_country": {}}
    workspace.set_up(
        name="Acme Shop",
        timezone="UTC",
        currency="EUR",
        default_region="DE",
        consent_policy=policy,
        email=email,
        password=PASSWORD,
        user_name=name,
    )
    # The first minute's exclusion moves most of an audience, and is to be seen at once.
    workspace.change(actor=None, review_above_percent=80)
    for email, name, role in USERS[1:]:
        User.objects.create_user(email, PASSWORD, name=name, role=role)


def is_filled() -> bool:
    """Whether a filling has come to its end."""
    job = Job.objects.filter(task=TASK, key=KEY).first()
    return job is not None and job.finished_at is not None and job.due_at is None and not job.error


@jobs.job(TASK, queue="intake")
def fill_job(claim: jobs.Claim) -> None:
    """A worker's way to fill."""

    def progress(words: str, share: float) -> None:
        claim.renew()
        claim.progress(every=0, step=words, percent=round(share * 100))

    fill(progress)


def fill(progress: Progress) -> None:
    """Everything, in order; each step finds what an earlier attempt has done."""
    steps: tuple[tuple[str, float, Callable[[Progress], None]], ...] = (
        ("Making up people and what they did", 0.00, _make_files),
        ("Taking people in", 0.05, _people),
        ("Taking events in", 0.15, _events),
        ("Publishing audiences, connecting accounts", 0.45, _apply),
        ("Counting the past 90 days", 0.55, _past),
        ("Telling the platforms", 0.75, _syncs),
        ("Making the usual troubles", 0.90, _troubles),
        ("Letting the team do its week", 0.94, _team),
    )
    for words, share, step in steps:
        progress(words, share)
        step(progress)
    progress("Done", 1.0)


def _folder() -> Path:
    folder = Path(settings.DATA_DIR) / "sample"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _make_files(_: Progress) -> None:
    people, events = _folder() / "people.parquet", _folder() / "events.parquet"
    if events.exists():
        return
    made = shop.make(now_us() // HOUR * HOUR)
    for table, path in ((made.profiles, people), (made.events, events)):
        scratch = path.with_suffix(".part")
        pq.write_table(table, scratch)
        scratch.rename(path)


def _people(progress: Progress) -> None:
    _import(_folder() / "people.parquet", "profiles", {"id": "customer_id"}, progress, 0.05, 0.15)


def _events(progress: Progress) -> None:
    mapping = {"profile": "customer_id", "time": "time", "name": "event"}
    _import(_folder() / "events.parquet", "events", mapping, progress, 0.15, 0.45)


def _import(path: Path, kind: str, mapping: dict[str, str], progress: Progress, start: float, end: float) -> None:
    if ImportFile.objects.filter(kind=kind, name=path.name, state=ImportFile.State.DONE).exists():
        return
    row = imports.start(path, kind, mapping, in_background=False)
    words = "Taking people in" if kind == "profiles" else "Taking events in"

    def show(now: ImportFile) -> None:
        progress(words, start + (end - start) * min(now.bytes_read / max(now.bytes_total, 1), 1))

    row = imports.run_here(row, show)
    if row.state != ImportFile.State.DONE:
        raise RuntimeError(f"import of {kind} ended as {row.state}")


def _apply(_: Progress) -> None:
    if SegmentVersion.objects.filter(audience__key=VIP, number=2).exists():
        return  # an attempt before came further: the file would put the first rule back
    sandbox = _sandbox()
    for platform, account, token in TOKENS.values():
        name, currency = ACCOUNTS[account]
        sandbox.account(platform, account, name=name, currency=currency)
        sandbox.token(platform, token, account=account)
    text = (Path(__file__).parent / "shop.yaml").read_text().replace("{sandbox}", sandbox.base_url)
    text = text.replace("{in_a_month}", (timezone.now() + timedelta(days=30)).date().isoformat())
    path = _folder() / "shop.yaml"
    path.write_text(text)
    with _environment({name: token for name, (_, _, token) in TOKENS.items()}):
        call_command("apply", str(path), stdout=StringIO())
    for destination in Destination.objects.all():
        destinations.check(actor=None, destination=destination)
    _as_if_long_ago()


def _as_if_long_ago() -> None:
    """The shop has kept these audiences for half a year: what was made a moment ago says so."""
    then = timezone.now() - timedelta(days=180)
    new = timezone.now() - timedelta(days=1)
    with frozen.set_aside():
        Audience.objects.filter(created_at__gt=new).update(created_at=then)
        SegmentVersion.objects.filter(created_at__gt=new, number=1).update(created_at=then, published_at=then)
        AuditEntry.objects.filter(at__gt=new).update(at=then)


def _past(progress: Progress) -> None:
    """Ninety days for each audience; for the two with a story, the story."""
    jobs.run_now("audiences.refresh_due", "all")
    jobs.run_now("audiences.backfill", "all", wait=timedelta(minutes=10))
    progress("Counting the past 90 days", 0.70)
    _stale(Audience.objects.get(key=STALE))
    _cut(Audience.objects.select_related("live_version").get(key=VIP))


def _stale(audience: Audience) -> None:
    """Nobody has counted it for three days."""
    told = Refresh.objects.filter(audience=audience, started_at__lt=timezone.now() - timedelta(hours=12))
    if not told.exclude(cause=Refresh.Cause.BACKFILL).exists():
        _end_the_past(audience, days_ago=3)
        _count(audience, now_us() - 3 * DAY)
        Audience.objects.filter(pk=audience.pk).update(refresh_due_at=None)


def _end_the_past(audience: Audience, *, days_ago: int) -> None:
    """Forget what was counted, and let the past end some days ago, so that the days since can be told otherwise."""
    Membership.objects.filter(audience=audience).delete()
    Refresh.objects.filter(audience=audience).delete()
    Audience.objects.filter(pk=audience.pk).update(refresh_due_at=None, backfill_until_us=now_us() - days_ago * DAY)
    jobs.run_now("audiences.backfill", "all", wait=timedelta(minutes=10))


def _cut(vip: Audience) -> None:
    """Two days ago the rule's second version took out two fifths of the people."""
    assert vip.live_version is not None
    if vip.live_version.number == 1:
        then = now_us() - 2 * DAY
        _end_the_past(vip, days_ago=2)
        _count(vip, then)
        _publish_cut(vip, then)
    published = SegmentVersion.objects.get(audience=vip, number=2).published_at
    assert published is not None
    for hours in (1, 23, 46):
        as_of_us = to_us(published) + hours * HOUR
        if not Refresh.objects.filter(audience=vip, as_of_us=as_of_us).exists():
            _count(vip, as_of_us)


def _publish_cut(vip: Audience, then: int) -> None:
    marketer, at = User.objects.get(email="marketer@example.com"), from_us(then + HOUR)
    draft = versions.save_draft(actor=marketer, audience=vip, segment=_cut_rule(vip, then))
    with transaction.atomic():
        version = versions.publish(
            actor=marketer, version=draft, reason="Only the very best customers should see the spring preview"
        )
        Audience.objects.filter(pk=vip.pk).update(refresh_due_at=None)  # the days since are counted here, one by one
        with frozen.set_aside():
            SegmentVersion.objects.filter(pk=version.pk).update(published_at=at, created_at=at)
            lines = AuditEntry.objects.filter(object_type="audience", object_key=VIP, at__gt=at)
            lines.filter(verb__in=("audience.drafted", "audience.published", "audience.renamed")).update(at=at)


def _count(audience: Audience, as_of_us: int) -> None:
    """A count as it would have been then."""
    done = refreshes.refresh([audience], cause=Refresh.Cause.SCHEDULE, as_of_us=as_of_us)[audience.key]
    Refresh.objects.filter(pk=done.pk).update(started_at=from_us(as_of_us), finished_at=from_us(as_of_us + MINUTE))


def _cut_rule(vip: Audience, then: int) -> dict[str, object]:
    """The spending limit, in whole euros, that comes closest to the cut that the story tells."""
    rule = {"event": "purchase", "sum": "value", "op": "gte", "within": "365d"}
    before = _usual(vip, then)
    low, high = 100, 2_000
    while low < high:  # the higher the limit, the fewer reach it
        middle = (low + high) // 2
        if _reach({**rule, "value": middle}, then) > before * (1 - CUT):
            low = middle + 1
        else:
            high = middle
    wanted = before * (1 - CUT)
    return min(({**rule, "value": value} for value in (low - 1, low)), key=lambda cut: abs(_reach(cut, then) - wanted))


def _usual(vip: Audience, then: int) -> float:
    """What an alert measures against."""
    row = Membership.objects.get(audience=vip)
    days = [(date.fromisoformat(day), count) for day, count in row.daily]
    return limits.usual(days, before=from_us(then).date()) or row.count


def _reach(rule: dict[str, object], as_of_us: int) -> int:
    with refreshes.pinned(as_of_us) as pin:
        return len(refreshes.members_of(grammar.parse(rule), pin))


def _syncs(progress: Progress) -> None:
    """Every live connection, suppression first."""
    live = Mapping.objects.filter(state=Mapping.State.LIVE).select_related("audience", "destination")
    vip = Mapping.objects.select_related("audience", "destination").get(audience__key=VIP)
    if vip.state == Mapping.State.REHEARSAL:
        mappings.go_live(actor=User.objects.get(email="operator@example.com"), mapping=vip)
    rows = sorted(live, key=lambda row: (row.audience.purpose != Audience.Purpose.SUPPRESSION, row.pk))
    for done, mapping in enumerate(rows):
        progress("Telling the platforms", 0.75 + 0.17 * done / len(rows))
        if not Run.objects.filter(mapping=mapping, state__in=ENDED).exists():
            _sync(mapping)


def _sync(mapping: Mapping) -> None:
    """To its end: here, or by the worker that is at it, never by both."""
    jobs.run_now(mappings.TASK, mapping.pk, queue="sync")
    for run in Run.objects.filter(mapping=mapping).exclude(state__in=ENDED):
        runs.run_to_end(run)


def _troubles(_: Progress) -> None:
    """One account's token has been revoked since."""
    failing = Mapping.objects.select_related("audience", "destination").get(destination__key=FAILING)
    if not Run.objects.filter(mapping=failing, state=Run.State.FAILED).exists():
        platform, account, token = TOKENS["SAMPLE_OUTLET_TOKEN"]
        _sandbox().token(platform, token, account=account, state="revoked")
        mappings.resync(
            actor=User.objects.get(email="operator@example.com"),
            mapping=failing,
            reason="Google shows fewer people than we sent",
        )
        _sync(failing)


def _team(_: Progress) -> None:
    alarms.look(VIP, STALE)
    team.follow()
    team.test()
    team.ask_for_review()
    team.check()
    team.begin_one()
    team.rehearse(REHEARSED)
    team.say_what_is_spent()


def _sandbox() -> Sandbox:
    """The sandbox of this installation, once it answers."""
    sandbox = Sandbox(f"http://127.0.0.1:{settings.SANDBOX_PORT}")
    deadline = time.monotonic() + 30
    while not sandbox.is_up():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the sandbox does not answer on port {settings.SANDBOX_PORT}")
        time.sleep(0.1)
    return sandbox


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
