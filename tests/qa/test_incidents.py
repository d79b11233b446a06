"""An incident opens once, gets worse once, is over once; each change of state is one mail; and what people may do about it."""

import json
import threading
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connections, transaction
from django.test import Client
from django.utils import timezone

from audiences.models import AuditEntry, User, Workspace
from destinations.models import Mapping, Run
from qa import alerts, incidents, outbox, watch
from qa.checks import facts
from qa.checks.registry import KINDS
from qa.models import Incident, Limits, Mail
from tests import filled
from tests.qa import moving

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def people():
    return filled.users()


@pytest.fixture
def cart(people):
    return moving.audience(people["marketer"])


@pytest.fixture
def dropped(cart) -> Incident:
    moving.count(cart, 400)
    moving.looks()
    return moving.the("size")


def client(people, role: str = "marketer") -> Client:
    made = Client()
    made.force_login(people[role])
    return made


# ---- Edges


def test_a_state_that_stays_is_one_incident_and_one_mail(cart):
    moving.count(cart, 400)
    assert moving.looks(5) == (1, 0)
    moving.count(cart, 390)
    assert moving.looks(3) == (0, 0)
    assert moving.subjects() == ["CRITICAL | cart | size −60%"]
    mail = Mail.objects.get()
    assert mail.to == "marketer@example.com"
    assert mail.incident == moving.the("size")


def test_it_is_over_after_two_clean_counts_and_says_so_in_the_same_thread(cart, dropped):
    moving.count(cart, 990)
    assert moving.looks(4) == (0, 0)  # however often one looks, it is one count
    moving.count(cart, 1_000)
    assert moving.looks(2) == (0, 1)
    dropped.refresh_from_db()
    assert dropped.recovered_words == "The size is usual again."
    first, last = Mail.objects.order_by("pk")
    assert last.subject == "OK | cart | the size is usual again"
    assert last.references == first.message_id
    assert last.message_id != first.message_id


def test_what_flaps_is_one_incident(cart, dropped):
    for people in (1_000, 400, 1_000, 420, 990, 390):
        moving.count(cart, people)
        moving.looks(2)
    assert Incident.objects.count() == 1
    assert len(moving.subjects()) == 1


def test_it_may_go_wrong_again_later(cart, dropped):
    for people in (1_000, 1_000, 400):
        moving.count(cart, people)
        moving.looks()
    assert Incident.objects.filter(kind="size").count() == 2
    assert [subject.split(" | ")[0] for subject in moving.subjects()] == ["CRITICAL", "OK", "CRITICAL"]


def test_a_warning_that_becomes_a_problem_is_told_once_more(cart):
    moving.count(cart, 1_400)
    moving.looks()
    incident = moving.the("size")
    alerts.acknowledge(actor=cart.alert_owner, incident=incident)
    moving.count(cart, 9_000)
    moving.looks(3)
    assert moving.subjects() == ["WARNING | cart | size +40%", "CRITICAL | cart | size +800%"]
    incident.refresh_from_db()
    assert incident.severity == "critical"
    assert incident.acknowledged_by is None


def test_what_nobody_watches_any_more_is_closed_and_not_called_right(cart, dropped):
    cart.archived_at = timezone.now()
    cart.save()
    assert moving.looks() == (0, 1)
    assert moving.subjects()[-1] == "CLOSED | cart | not watched any more"


def test_what_cannot_be_told_leaves_it_as_it_is(cart, dropped):
    Limits.objects.create(audience=cart, usual_from=timezone.now())
    assert moving.looks(3) == (0, 0)
    assert Incident.objects.filter(recovered_at=None).count() == 1


def test_a_failed_sync_is_over_after_two_that_succeeded():
    world = filled.fill()
    Mapping.objects.create(audience=world.buyers, destination=world.destination, identifiers=["email"], state="live")

    def ran(state: str) -> None:
        Run.objects.create(mapping=world.mapping, state=state, trigger="schedule", finished_at=timezone.now())
        watch.look()

    ran("failed")
    ran("done")
    assert Incident.objects.filter(kind="run", recovered_at=None).count() == 1
    ran("done")
    assert Incident.objects.get(kind="run").recovered_at is not None


def test_after_a_standstill_what_is_late_has_time_to_be_caught_up_with(cart):
    cart.cadence_seconds = 900
    cart.save()
    moving.count(cart, 1_000, at=timezone.now() - 2 * HOUR)
    assert moving.looks(patient=False) == (0, 0)
    assert moving.looks(patient=True) == (1, 0)
    assert moving.looks(patient=False) == (0, 0)  # another worker starts: it does not take it for over


def test_two_who_see_it_at_once_make_one(cart):
    """The second has loaded its facts before the first opened it."""
    moving.count(cart, 400)
    loaded = facts.load()
    (reading,) = [one for one in KINDS["size"].look(loaded) if one.finding]
    assert reading.finding is not None
    assert alerts.open_("size", reading, reading.finding) is not None
    assert alerts.open_("size", reading, reading.finding) is None
    assert Mail.objects.count() == 1
    incident = moving.the("size")
    assert alerts.end(incident, "Over.") is True
    assert alerts.end(incident, "Over.") is False
    assert Mail.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_watchers_that_run_at_the_same_time_make_one_incident_and_one_mail():
    people = filled.users()
    for n in range(4):
        moving.count(moving.audience(people["marketer"], f"cart_{n}"), 400)
    start, errors = threading.Barrier(4), []

    def look() -> None:
        try:
            start.wait(10)
            watch.look()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert Incident.objects.filter(kind="size").count() == 4
    assert Mail.objects.filter(incident__isnull=False).count() == 4


def test_mail_and_incident_are_one_transaction(cart, monkeypatch):
    """Killed between them, there is neither, and the next look makes both."""
    moving.count(cart, 400)

    def killed(*args, **kwargs):
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "post", killed)
        with pytest.raises(RuntimeError):
            watch.look()
    assert Incident.objects.count() == 0
    assert moving.looks() == (1, 0)
    assert Mail.objects.count() == 1


# ---- Who hears of it


def test_without_an_owner_an_admin_hears_of_it(cart, people):
    User.objects.filter(pk=people["marketer"].pk).update(is_active=False)
    moving.count(cart, 400)
    moving.looks()
    assert Mail.objects.get().to == "admin@example.com"


def test_where_nobody_could_get_it_it_is_mailed_as_soon_as_somebody_can(cart, people):
    User.objects.update(is_active=False)
    moving.count(cart, 400)
    moving.looks(2)
    assert Incident.objects.count() == 1
    assert Mail.objects.count() == 0
    User.objects.filter(pk=people["operator"].pk).update(is_active=True, role="admin")
    moving.looks(2)
    assert Mail.objects.get().to == "operator@example.com"


def test_an_account_is_its_connectors_else_of_who_answers_for_most_of_what_goes_there():
    world = filled.fill()
    assert alerts.owner_of(None, world.destination) == world.users["marketer"]
    world.destination.credentials_by = world.users["operator"]
    assert alerts.owner_of(None, world.destination) == world.users["operator"]


# ---- What people do


def test_acknowledging_is_on_record_and_can_be_undone(people, dropped):
    web = client(people, "buyer")
    page = web.post(f"/alerts/{dropped.pk}/acknowledge/", follow=True).content.decode()
    assert "You are on it" in page
    assert "Buyer is on it" in page
    dropped.refresh_from_db()
    assert dropped.acknowledged_by == people["buyer"]
    web.post(f"/alerts/{dropped.pk}/acknowledge/", {"back": "1"})
    dropped.refresh_from_db()
    assert dropped.acknowledged_by is None
    verbs = list(AuditEntry.objects.filter(verb__startswith="alert.").order_by("pk").values_list("verb", "actor_label"))
    assert verbs == [("alert.acknowledged", "buyer@example.com"), ("alert.unacknowledged", "buyer@example.com")]


def test_a_mails_link_opens_a_page_and_only_its_button_acts(people, dropped):
    page = client(people).get(f"/alerts/{dropped.pk}/")
    assert page.status_code == 200
    dropped.refresh_from_db()
    assert dropped.acknowledged_by is None
    assert dropped.snoozed_until is None
    assert client(people).get(f"/alerts/{dropped.pk}/acknowledge/").status_code == 405
    assert client(people).get(f"/alerts/{dropped.pk}/snooze/").status_code == 405


def test_snoozed_it_waits_and_then_tells_once_more(people, dropped):
    client(people).post(f"/alerts/{dropped.pk}/snooze/", {"wait": "1d"})
    dropped.refresh_from_db()
    assert timedelta(hours=23) < dropped.snoozed_until - timezone.now() < timedelta(hours=25)
    moving.looks(2)
    assert len(moving.subjects()) == 1
    Incident.objects.update(snoozed_until=timezone.now() - timedelta(seconds=1))
    moving.looks(3)
    assert len(moving.subjects()) == 2
    assert "Still so: you let it wait until now" in Mail.objects.last().text


def test_a_moment_to_wait_until_is_read_in_the_readers_zone(people, dropped):
    Workspace.objects.update(timezone="Asia/Tokyo")
    tomorrow = (timezone.now() + timedelta(days=2)).date()
    client(people).post(f"/alerts/{dropped.pk}/snooze/", {"until": f"{tomorrow}T09:30"})
    dropped.refresh_from_db()
    assert f"{dropped.snoozed_until:%Y-%m-%d %H:%M}" == f"{tomorrow} 00:30"


@pytest.mark.parametrize("until", ["", "soon", "2020-01-01T10:00", "9999-12-31T23:59", "0001-01-01T00:00"])
def test_a_moment_that_makes_no_sense_is_refused_beside_its_field(people, dropped, until):
    answer = client(people).post(f"/alerts/{dropped.pk}/snooze/", {"until": until})
    assert answer.status_code == 422
    dropped.refresh_from_db()
    assert dropped.snoozed_until is None


def test_the_change_may_be_taken_as_usual(people, cart, dropped):
    web = client(people)
    assert web.post(f"/alerts/{dropped.pk}/usual/", {"reason": " "}).status_code == 422
    web.post(f"/alerts/{dropped.pk}/usual/", {"reason": "The new rule is narrower"})
    dropped.refresh_from_db()
    assert dropped.recovered_at is not None
    assert moving.subjects()[-1].startswith("OK | cart")
    moving.count(cart, 410)
    assert moving.looks(3) == (0, 0)
    entry = AuditEntry.objects.get(verb="alert.taken_as_usual")
    assert (entry.object_key, entry.reason) == ("cart", "The new rule is narrower")


def test_a_limit_is_previewed_and_kept_and_undone(people, cart, dropped):
    web = client(people)
    moving.count(cart, 400, daily=moving.days(*[1_000] * 8, 650, 1_000, 1_000, 600, 1_000))
    assert "At 30% it would have fired 3 times" in web.get(f"/alerts/{dropped.pk}/?share=30").content.decode()
    assert "At 50% it would have fired once" in web.get(f"/alerts/{dropped.pk}/?share=50").content.decode()
    part = web.get(f"/alerts/{dropped.pk}/?share=39", headers={"HX-Request": "true", "HX-Target": "limit-preview"})
    assert part.content.decode().strip().startswith("<p")
    assert not Limits.objects.exists()
    page = web.post(f"/alerts/{dropped.pk}/limit/", {"share": "70"}, follow=True).content.decode()
    assert "begin at 70% now" in page
    assert Limits.objects.get().size_share == 0.7
    web.post(f"/alerts/{dropped.pk}/limit/", {"reset": "1"})
    assert Limits.objects.get().size_share is None


@pytest.mark.parametrize("share", ["", "0", "4", "501", "-30", "abc", "30.5", "1e9"])
def test_a_limit_that_makes_no_sense_is_refused(people, dropped, share):
    assert client(people).post(f"/alerts/{dropped.pk}/limit/", {"share": share}).status_code == 422
    assert not Limits.objects.filter(size_share__isnull=False).exists()


@pytest.mark.parametrize("share", ["", "x", "-1", "99999999999", "²"])
def test_any_share_in_the_address_shows_a_page(people, dropped, share):
    assert client(people).get(f"/alerts/{dropped.pk}/", {"share": share}).status_code == 200


def test_muted_it_shows_and_is_mailed_when_the_mute_ends(people, cart):
    until = timezone.now() + timedelta(days=3)
    alerts.mute(actor=people["marketer"], audience=cart, until=until, reason="The sale moves every number")
    moving.count(cart, 400)
    assert moving.looks(3) == (1, 0)
    assert Mail.objects.count() == 0
    assert "muted" in client(people).get(f"/alerts/{moving.the('size').pk}/").content.decode()
    Limits.objects.update(muted_until=timezone.now() - timedelta(seconds=1))
    moving.looks(2)
    assert moving.subjects() == ["CRITICAL | cart | size −60%"]


def test_over_before_the_mute_ends_it_was_never_mailed(people, cart):
    alerts.mute(actor=people["marketer"], audience=cart, until=timezone.now() + HOUR, reason="Sale")
    for number in (400, 1_000, 1_000):
        moving.count(cart, number)
        moving.looks()
    assert moving.the("size").recovered_at is not None
    assert Mail.objects.count() == 0


def test_what_breaks_a_promise_to_people_cannot_be_muted():
    world = filled.fill()
    alerts.mute(actor=world.users["admin"], audience=world.cart, until=timezone.now() + HOUR, reason="Sale")
    moving.looks()
    assert Mail.objects.filter(incident__kind="suppression").count() == 1


@pytest.mark.parametrize(
    ("until", "reason"),
    [
        ("", "Sale"),
        ("2020-01-01", "Sale"),
        ("9999-12-31", "Sale"),
        ("in_two_days", ""),
        ("in_two_days", "x" * 301),
        ("in_a_year", "Sale"),
    ],
)
def test_a_mute_needs_an_end_and_a_reason(people, dropped, until, reason):
    days = {"in_two_days": 2, "in_a_year": 365}.get(until)
    until = (timezone.now() + timedelta(days=days)).date().isoformat() if days else until
    answer = client(people).post(f"/alerts/{dropped.pk}/mute/", {"until": until, "reason": reason})
    assert answer.status_code == 422
    assert not Limits.objects.filter(muted_until__isnull=False).exists()


def test_the_buyer_may_take_it_up_and_not_change_its_limits(people, dropped):
    web = client(people, "buyer")
    assert web.post(f"/alerts/{dropped.pk}/limit/", {"share": "50"}).status_code == 403
    assert web.post(f"/alerts/{dropped.pk}/mute/", {}).status_code == 403
    assert web.post(f"/alerts/{dropped.pk}/usual/", {"reason": "x"}).status_code == 403
    page = web.get(f"/alerts/{dropped.pk}/").content.decode()
    assert 'aria-disabled="true"' in page
    assert "admin, marketer or operator" in page or "admin or marketer or operator" in page


def test_what_is_over_cannot_be_taken_up_or_let_wait(people, dropped):
    alerts.end(dropped, "Over.")
    web = client(people)
    for what, values in (("acknowledge", {}), ("snooze", {"wait": "1h"}), ("usual", {"reason": "x"})):
        answer = web.post(f"/alerts/{dropped.pk}/{what}/", values, follow=True)
        assert answer.status_code == 200
        assert "It is over already." in answer.content.decode()
    dropped.refresh_from_db()
    assert dropped.acknowledged_by is None


# ---- Lists and the command


def test_the_list_has_what_is_open_first_and_filters_by_its_address(people, cart, dropped):
    other = moving.audience(people["operator"], "browse")
    moving.count(other, 300)
    moving.looks()
    alerts.end(dropped, "Over.")
    web = client(people)
    page = web.get("/alerts/").content.decode()
    assert page.index(">browse<") < page.index(">cart<")
    assert "One thing is wrong now." in page
    assert ">cart<" not in web.get("/alerts/?state=open").content.decode()
    past = web.get("/alerts/?state=past").content.decode()
    assert ">cart<" in past
    assert ">browse<" not in past
    assert ">browse<" not in web.get(f"/alerts/?owner={people['marketer'].pk}").content.decode()
    assert "No alert is under this filter" in web.get("/alerts/?kind=token").content.decode()
    assert ">browse<" not in web.get("/alerts/?audience=cart").content.decode()


@pytest.mark.parametrize(
    "asked",
    ["state=nonsense", "kind=%00", "owner=abc", "owner=99999999999999999999", "audience=%3Cimg%20onerror%3E", "page=x"],
)
def test_an_address_that_makes_no_sense_shows_a_list(people, dropped, asked):
    assert client(people).get(f"/alerts/?{asked}").status_code == 200


def test_the_rail_says_how_many_are_open(people, dropped):
    assert client(people).get("/alerts/count/").content.decode().startswith("1<span")
    alerts.end(dropped, "Over.")
    assert client(people).get("/alerts/count/").content == b""


def test_the_doors_of_this_part_answer_in_one_question_each(people, cart, dropped, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert incidents.open_for()[cart.pk] == [dropped]
    with django_assert_num_queries(1):
        assert incidents.open_for([cart.pk + 1]) == {}
    with django_assert_num_queries(1):
        assert incidents.recent(5) == [dropped]
    with django_assert_num_queries(1):
        assert incidents.for_audience(cart, 5)[0].owner == people["marketer"]
    with django_assert_num_queries(1):
        assert incidents.open_count() == 1


def test_the_command_lists_open_ones_for_people_and_for_machines(dropped):
    out = StringIO()
    call_command("incidents", "--json", stdout=out)
    (one,) = json.loads(out.getvalue())
    assert (one["kind"], one["severity"], one["audience"], one["owner"]) == (
        "size",
        "critical",
        "cart",
        "marketer@example.com",
    )
    assert one["recovered_at"] is None
    out = StringIO()
    call_command("incidents", stdout=out)
    assert "Dropped 60%" in out.getvalue()
    alerts.end(dropped, "Over.")
    out = StringIO()
    call_command("incidents", "--json", stdout=out)
    assert json.loads(out.getvalue()) == []
    out = StringIO()
    call_command("incidents", "--json", "--all", stdout=out)
    assert len(json.loads(out.getvalue())) == 1


def test_the_database_itself_keeps_an_open_incident_once(dropped):
    again = {
        "kind": "size",
        "subject": dropped.subject,
        "severity": "critical",
        "sentence": "x",
        "since": timezone.now(),
    }
    with pytest.raises(IntegrityError), transaction.atomic():
        Incident.objects.create(**again)
    Incident.objects.update(recovered_at=timezone.now())
    assert Incident.objects.create(**again).pk
