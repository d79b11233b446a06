"""Mail about changes that need a second person: who gets one, once for each change of state, and what must never be in it."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from audiences import jobs
from audiences.models import Audience, Review, User
from audiences.services import audiences, gate, locks, reviews, versions
from qa import review_mail
from qa.models import Mail
from tests.filled import Filled, as_
from tests.qa import carts as shop
from tests.qa.carts import CARTS, FEWER, change, draft

pytestmark = pytest.mark.django_db(transaction=True)  # a count takes in what is committed


@pytest.fixture
def world() -> Filled:
    return shop.world()


@pytest.fixture
def carts(world: Filled) -> Audience:
    return shop.carts(world)


def mails() -> list[tuple[str, str]]:
    return list(Mail.objects.order_by("pk").values_list("to", "subject"))


def approve(audience: Audience, user: User) -> None:
    version = audience.versions.get(state="in_review")
    impact = gate.look(version)
    saw = impact.figures if impact else None
    reviews.approve(actor=user, version=version, typed=audience.name, words="", impact=impact, saw=saw)


def test_whoever_may_approve_is_mailed_once_when_it_waits_and_the_asker_when_it_is_approved(
    world: Filled, carts: Audience
) -> None:
    left = change(carts, world.users["marketer"])
    assert [review_mail.tell() for _ in range(3)] == [1, 0, 0]
    assert mails() == [("admin@example.com", "REVIEW | carts | v2 waits for approval")]
    versions.publish(actor=world.users["marketer"], version=left, reason="Asked again")
    assert review_mail.tell() == 0
    approve(carts, world.users["admin"])
    assert [review_mail.tell() for _ in range(3)] == [1, 0, 0]
    assert mails()[1:] == [("marketer@example.com", "APPROVED | carts | v2")]
    assert "Admin has approved version 2: it is live." in Mail.objects.latest("pk").text


def test_sent_back_the_asker_hears_of_it_and_asking_anew_is_another_mail(world: Filled, carts: Audience) -> None:
    left = change(carts, world.users["marketer"])
    review_mail.tell()
    reviews.send_back(actor=world.users["admin"], version=left, words="Ann, ann@shop.example, would be lost")
    review_mail.tell()
    left.refresh_from_db()
    versions.publish(actor=world.users["marketer"], version=left, reason="She is not")
    review_mail.tell()
    assert [to for to, _ in mails()] == ["admin@example.com", "marketer@example.com", "admin@example.com"]
    assert mails()[1][1] == "SENT BACK | carts | v2"


def test_nobody_is_mailed_about_what_they_did_themselves_nor_about_what_was_over_before_anybody_looked(
    world: Filled, carts: Audience
) -> None:
    left = change(carts, world.users["marketer"])
    reviews.withdraw(actor=world.users["marketer"], version=left)
    assert review_mail.tell() == 0
    User.objects.exclude(role="marketer").update(is_active=False)
    left.refresh_from_db()
    versions.publish(actor=world.users["marketer"], version=left, reason="Alone")
    impact = gate.look(left)
    assert impact is not None
    reviews.approve(
        actor=world.users["marketer"], version=left, typed="carts", words="alone", impact=impact, saw=impact.figures
    )
    assert Review.objects.latest("pk").self_approved
    assert review_mail.tell() == 0


def test_a_review_that_somebody_else_ended_is_told_to_its_asker(world: Filled, carts: Audience) -> None:
    change(carts, world.users["marketer"])
    other = draft(carts, CARTS | {"within": "2h"}, world.users["admin"])
    versions.publish(actor=world.users["admin"], version=other, reason="This one first", override="agreed")
    review_mail.tell()
    assert mails() == [("marketer@example.com", "WITHDRAWN | carts | v2")]


def test_approved_in_the_middle_of_a_test_the_mail_says_when_it_goes_live(world: Filled, carts: Audience) -> None:
    left = change(carts, world.users["marketer"])
    locks.set_lock(
        actor=world.users["buyer"], audience=carts, until=timezone.now() + timedelta(days=2), note="Creative"
    )
    approve(carts, world.users["admin"])
    left.refresh_from_db()
    assert left.publish_at is not None
    review_mail.tell()
    assert "it goes live when the test ends" in Mail.objects.get(to="marketer@example.com").text


def test_what_a_file_left_in_review_is_told_to_all_who_may_approve_it_and_decided_to_nobody(
    world: Filled, carts: Audience
) -> None:
    world.users["operator"].set_unusable_password()
    change(carts, None)
    review_mail.tell()
    assert sorted(to for to, _ in mails()) == ["admin@example.com", "marketer@example.com"]
    assert "a file asks for it to go live" in Mail.objects.first().text  # type: ignore[union-attr]
    approve(carts, world.users["admin"])
    assert review_mail.tell() == 0


def test_an_archived_audience_and_an_invited_user_are_left_alone(world: Filled, carts: Audience) -> None:
    admin = world.users["admin"]
    admin.set_unusable_password()
    admin.save()
    change(carts, world.users["marketer"])
    assert review_mail.tell() == 0
    admin.set_password("another-password-1")
    admin.save()
    audiences.archive(actor=admin, audience=carts, reason="Over")
    assert review_mail.tell() == 0


def test_such_a_mail_carries_no_rule_no_reason_and_nobodys_data_and_its_links_only_show(
    world: Filled, carts: Audience, settings: object
) -> None:
    settings.PUBLIC_URL = "https://rollcall.example"  # type: ignore[attr-defined]
    named = {"all": [*FEWER["all"], {"attribute": "tier", "op": "is_not", "value": "ann@shop.example"}]}
    version = draft(carts, named, world.users["marketer"])
    versions.publish(actor=world.users["marketer"], version=version, reason="bob@shop.example asked for it")
    review_mail.tell()
    mail = Mail.objects.get()
    for text in (mail.subject, mail.text, mail.html):
        assert "@shop.example" not in text
        assert "Germany" not in text
    links = set(re.findall(r"https?://[^\s\"'<>)]+", mail.text + mail.html))
    page = "https://rollcall.example/audiences/carts/review/?version=2"
    assert links == {page, "https://rollcall.example/audiences/carts/"}
    before = Review.objects.values().get()
    assert as_(world, "admin").get(page.removeprefix("https://rollcall.example")).status_code == 200
    assert Review.objects.values().get() == before


def test_a_hostile_name_becomes_neither_a_header_nor_markup(world: Filled, carts: Audience) -> None:
    change(carts, world.users["marketer"])
    Audience.objects.filter(pk=carts.pk).update(name="carts\r\nBcc: all@example.com <img src=x>")
    review_mail.tell()
    mail = Mail.objects.get()
    assert "\n" not in mail.subject and "<img" not in mail.html
    client = Client()
    client.force_login(world.users["admin"])
    assert client.get(f"/mail/{mail.pk}/").status_code == 200


def test_the_watch_tells_it_and_a_worker_sends_it(
    world: Filled, carts: Audience, settings: object, tmp_path: object
) -> None:
    settings.EMAIL_BACKEND, settings.DATA_DIR = "qa.outbox.Files", tmp_path  # type: ignore[attr-defined]
    change(carts, world.users["marketer"])
    jobs.keep_doing("qa.watch", "", every=timedelta(seconds=15), queue="sync")
    jobs.run_due_here(["sync"], rounds=3)
    files = list((tmp_path / "outbox").glob("*review-carts-v2-waits*.eml"))  # type: ignore[operator]
    assert len(files) == 1
