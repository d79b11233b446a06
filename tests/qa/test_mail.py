"""The outbox against a real mail server in another process, and as files; what a mail says, and what it must never carry."""

import email
import email.policy
import os
import re
import subprocess
import sys
import time
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

import environ
import pytest
from django.test import Client
from django.utils import timezone

from audiences import jobs
from audiences.models import Job, User
from destinations.models import Mapping
from qa import alerts, incidents, letters, outbox, watch
from qa.models import Incident, Mail
from tests import filled
from tests.qa import mail_server, moving

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]
HOSTILE = [
    "cart\r\nBcc: everybody@example.com",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{ settings.SECRET_KEY }} {% now 'Y' %}",
    "\u202etfel-ot-thgir\u202c",
    "ä" * 10_000,
    "a\x00b\x1b[31m",
]


class Server:
    """The server's process and what it has taken."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "tests.qa.mail_server", "0", str(folder), *options]
        self.process = subprocess.Popen(command, cwd=ROOT)
        deadline = time.monotonic() + 30
        while not (folder / "port").exists() or not (folder / "port").read_text():
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.05)
        self.port = int((folder / "port").read_text())

    def does(self, what: str) -> Path:
        path = self.folder / what
        path.touch()
        return path

    @property
    def mails(self) -> list[EmailMessage]:
        found = [path.read_bytes() for path in sorted(self.folder.glob("*.eml"))]
        return [email.message_from_bytes(one, policy=email.policy.default) for one in found]

    @property
    def attempts(self) -> int:
        path = self.folder / "attempts"
        return len(path.read_text()) if path.exists() else 0

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    yield made
    made.stop()


def use(settings, url: str) -> None:
    """As settings.py reads EMAIL_URL."""
    for name, value in environ.Env().email_url_config(url).items():
        setattr(settings, name, value)


@pytest.fixture
def smtp(server, settings):
    use(settings, f"smtp://127.0.0.1:{server.port}")
    return server


@pytest.fixture
def files(settings, tmp_path):
    settings.EMAIL_BACKEND = "qa.outbox.Files"
    settings.DATA_DIR = tmp_path
    return tmp_path / "outbox"


@pytest.fixture
def people():
    return filled.users()


@pytest.fixture
def dropped(people) -> Incident:
    cart = moving.audience(people["marketer"])
    moving.count(cart, 400)
    moving.looks()
    return moving.the("size")


def part(mail: EmailMessage, kind: str) -> str:
    body = mail.get_body((kind,))
    assert body is not None
    return body.get_content()


# ---- Over a real server


def test_an_alert_and_its_recovery_arrive_threaded_as_text_and_html(smtp, dropped, settings):
    settings.PUBLIC_URL = "https://rollcall.example"
    settings.DEFAULT_FROM_EMAIL = "Rollcall <alerts@rollcall.example>"
    assert outbox.send_due() == 1
    alerts.end(dropped, "The size is usual again.")
    assert outbox.send_due() == 1
    first, second = smtp.mails
    assert first["Subject"] == "CRITICAL | cart | size −60%"
    assert second["Subject"] == "OK | cart | the size is usual again"
    assert (first["From"], first["To"]) == ("Rollcall <alerts@rollcall.example>", "marketer@example.com")
    assert first["Message-ID"] != second["Message-ID"]
    assert second["References"] == second["In-Reply-To"] == first["Message-ID"]
    assert first["Auto-Submitted"] == "auto-generated"
    for kind in ("plain", "html"):
        body = part(first, kind)
        assert "Dropped 60% since" in body
        assert "400 people, where 1,000 is usual" in body
        assert "What to do" in body
    assert "It is right again" in part(second, "plain")
    assert {mail.state for mail in Mail.objects.all()} == {"sent"}
    assert outbox.send_due() == 0
    assert len(smtp.mails) == 2


def test_fault_50_a_server_that_says_later_for_hours_delays_and_loses_nothing(smtp, dropped):
    later = smtp.does("later")
    now = timezone.now()
    waits = []
    for _ in range(16):
        assert outbox.send_due(now=now) == 0
        mail = Mail.objects.get()
        assert mail.state == "waiting"
        waits.append((mail.due_at - now).total_seconds())
        assert outbox.send_due(now=mail.due_at - timedelta(seconds=1)) == 0  # not before its time
        now = mail.due_at
    assert now > timezone.now() + timedelta(hours=1, minutes=30)
    assert waits[:3] == [15, 30, 60]
    assert waits[-1] == 600
    assert smtp.attempts == 16
    assert mail.error == "The mail server asks us to come back later (451)."
    later.unlink()
    assert outbox.send_due(now=now) == 1
    assert len(smtp.mails) == 1
    assert Mail.objects.get().state == "sent"
    assert Mail.objects.get().error == ""


def test_a_server_that_is_away_delays_every_mail_by_one_attempt(dropped, settings, people):
    alerts.send_test(actor=people["admin"])
    use(settings, "smtp://127.0.0.1:9")
    assert outbox.send_due() == 0
    assert list(Mail.objects.values_list("state", "attempts")) == [("waiting", 1)] * 2
    assert Mail.objects.first().error.startswith("The mail server cannot be reached")
    assert Mail.objects.filter(due_at__gt=timezone.now()).count() == 2


def test_killed_between_sending_and_noting_it_the_mail_comes_again_under_the_same_id(smtp, dropped, monkeypatch):
    def killed(mail):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "_sent", killed)
        with pytest.raises(KeyboardInterrupt):
            outbox.send_due()
    assert Mail.objects.get().state == "waiting"
    assert outbox.send_due() == 0  # another sender might have it in hand
    assert outbox.send_due(now=timezone.now() + outbox.ON_ITS_WAY) == 1
    first, again = smtp.mails
    assert first["Message-ID"] == again["Message-ID"] == Mail.objects.get().message_id
    assert first["Date"] == again["Date"]


def test_a_server_that_hangs_up_does_not_keep_the_others_waiting(smtp, dropped, people):
    alerts.send_test(actor=people["admin"])
    smtp.does("cut")
    assert outbox.send_due() == 1
    states = dict(Mail.objects.values_list("to", "state"))
    assert states == {"marketer@example.com": "waiting", "admin@example.com": "sent"}
    assert outbox.send_due(now=timezone.now() + timedelta(minutes=1)) == 1


def test_an_address_that_is_refused_for_good_is_given_up_and_can_be_tried_again(smtp, dropped, people):
    refuse = smtp.does("refuse")
    assert outbox.send_due() == 0
    mail = Mail.objects.get()
    assert mail.state == "failed"
    assert mail.error == "The mail server does not take mail for this address (550)."
    web = Client()
    web.force_login(people["operator"])
    assert "Some mail was given up" in web.get("/mail/").content.decode()
    refuse.unlink()
    web.post(f"/mail/{mail.pk}/again/")
    assert outbox.send_due() == 1
    assert len(smtp.mails) == 1


def test_an_address_that_no_header_can_hold_is_given_up_and_keeps_nobody_waiting(smtp, dropped, people):
    Mail.objects.update(to="marketer@example.com\r\nBcc: everybody@example.com")
    alerts.send_test(actor=people["admin"])
    assert outbox.send_due() == 1
    assert dict(Mail.objects.values_list("pk", "state"))[Mail.objects.first().pk] == "failed"
    assert [mail["To"] for mail in smtp.mails] == ["admin@example.com"]


def test_a_wrong_password_waits_for_somebody_to_put_it_right(tmp_path, settings, dropped):
    server = Server(tmp_path, "--password")
    try:
        use(settings, f"smtp://rollcall:wrong@127.0.0.1:{server.port}")
        assert outbox.send_due() == 0
        assert Mail.objects.get().error == "The mail server refuses the user or password of EMAIL_URL (535)."
        assert Mail.objects.get().state == "waiting"
        password = mail_server.PASSWORD.decode().replace("/", "%2F").replace(":", "%3A")
        use(settings, f"smtp://rollcall:{password}@127.0.0.1:{server.port}")
        assert outbox.send_due(now=timezone.now() + timedelta(minutes=1)) == 1
        assert len(server.mails) == 1
    finally:
        server.stop()


def test_a_worker_sends_and_comes_back_for_what_waits(smtp, dropped):
    later = smtp.does("later")
    jobs.run_now(outbox.TASK, "", queue="sync")
    job = Job.objects.get(task=outbox.TASK)
    assert timedelta(seconds=5) < job.due_at - timezone.now() < timedelta(seconds=20)
    later.unlink()
    Mail.objects.update(due_at=timezone.now())
    jobs.run_now(outbox.TASK, "", queue="sync")
    assert len(smtp.mails) == 1


# ---- Many at once


def many_drops(people, number: int) -> None:
    for n in range(number):
        moving.count(moving.audience(people["marketer"], f"cart_{n:02}"), 400)


def test_after_five_in_an_hour_the_rest_come_in_one(people, smtp):
    many_drops(people, 9)
    moving.looks(2)
    assert outbox.send_due() == 5
    assert Mail.objects.filter(state="folded").count() == 4
    assert outbox.send_due(now=timezone.now() + timedelta(minutes=11)) == 1
    digest = smtp.mails[-1]
    assert digest["Subject"] == "DIGEST | 4 more alerts"
    for kind in ("plain", "html"):
        assert part(digest, kind).count("/alerts/") >= 5
        for n in range(5, 9):
            assert f"cart_{n:02}" in part(digest, kind)
    assert len(smtp.mails) == 6
    assert outbox.send_due(now=timezone.now() + timedelta(hours=2)) == 0


def test_what_comes_after_a_digest_has_gone_out_is_in_the_next(people, smtp):
    many_drops(people, 7)
    moving.looks()
    outbox.send_due()
    outbox.send_due(now=timezone.now() + timedelta(minutes=11))
    moving.count(moving.audience(people["marketer"], "later_one"), 400)
    moving.looks()
    outbox.send_due(now=timezone.now() + timedelta(minutes=11))
    assert smtp.mails[-1]["Subject"] == "DIGEST | one more alert"
    assert "later_one" in part(smtp.mails[-1], "plain")


def test_somebody_else_has_their_own_five(people, smtp):
    many_drops(people, 6)
    moving.count(moving.audience(people["operator"], "others"), 400)
    moving.looks()
    assert outbox.send_due() == 6
    assert [mail["To"] for mail in smtp.mails].count("operator@example.com") == 1


# ---- As files


def test_without_a_server_each_mail_is_a_file_that_a_mail_program_opens(files, dropped):
    assert outbox.send_due() == 1
    (path,) = files.glob("*")
    assert re.fullmatch(r"\d{8}-\d{6}-critical-cart-size-60-alert-\d+-\w+\.eml", path.name)
    mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert mail["Subject"] == "CRITICAL | cart | size −60%"
    assert "Dropped 60%" in part(mail, "html")
    Mail.objects.update(state="waiting", due_at=timezone.now())
    outbox.send_due()
    assert len(list(files.glob("*"))) == 1  # the same mail again is the same file


def test_the_pages_say_that_mail_goes_to_files_and_only_then(files, people, dropped, settings):
    web = Client()
    web.force_login(people["buyer"])
    mail = Mail.objects.get()
    for page in ("/alerts/", "/mail/"):
        assert "Mail goes to files until EMAIL_URL is set." in web.get(page).content.decode()
    assert ".eml" in web.get(f"/mail/{mail.pk}/").content.decode()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    for page in ("/alerts/", "/mail/"):
        assert "EMAIL_URL" not in web.get(page).content.decode()


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("", "qa.outbox.Files None 0 False False"),
        ("smtp://mail.example:2525", "django.core.mail.backends.smtp.EmailBackend mail.example 2525 False False"),
        (
            "smtp+tls://u%40x:p%40%2F@mail.example:587",
            "django.core.mail.backends.smtp.EmailBackend mail.example 587 True False",
        ),
        ("smtp+ssl://u:p@mail.example:465", "django.core.mail.backends.smtp.EmailBackend mail.example 465 False True"),
    ],
)
def test_the_environment_says_where_mail_goes(tmp_path, url, wanted):
    script = (
        "from django.conf import settings as s; import config.settings as c;"
        "print(s.EMAIL_BACKEND, getattr(c, 'EMAIL_HOST', None), getattr(c, 'EMAIL_PORT', 0), s.EMAIL_USE_TLS, s.EMAIL_USE_SSL);"
        "print(s.EMAIL_HOST_USER, s.EMAIL_HOST_PASSWORD); print(s.DEFAULT_FROM_EMAIL)"
    )
    env = {
        **os.environ,
        "EMAIL_URL": url,
        "DATA_DIR": str(tmp_path),
        "PUBLIC_URL": "https://rollcall.example:8443",
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    first, login, sender = done.stdout.splitlines()
    assert first == wanted
    assert sender == "Rollcall <rollcall@rollcall.example>"
    if "%40" in url:
        assert login == "u@x p@/"


# ---- What a mail says


def test_a_mail_leads_only_to_our_pages_and_loads_nothing(dropped, settings, people):
    settings.PUBLIC_URL = "https://rollcall.example"
    letter = letters.of_incident(dropped, people["marketer"], "opened")
    for text in (letter.text, letter.html):
        found = re.findall(r"https?://[^\s\"'<>)]+", text)
        assert found
        assert all(link.startswith("https://rollcall.example/") for link in found)
    assert re.search(r"<(img|script|link|iframe|object)\b", letter.html) is None
    assert "url(" not in letter.html
    assert f"https://rollcall.example/alerts/{dropped.pk}/#snooze" in letter.text
    assert "https://rollcall.example/audiences/cart/" in letter.html


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("what", ["opened", "over", "still"])
def test_a_hostile_name_neither_reaches_a_header_nor_becomes_markup(smtp, dropped, people, name, what):
    dropped.audience.name = name  # as an import of the past, or a bug, could have left it
    dropped.sentence = f"Dropped: {name[:500]}"
    mail = outbox.post(
        to=people["admin"], letter=letters.of_incident(dropped, people["admin"], what), key="x", incident=dropped
    )
    outbox.send_due()
    (sent,) = [one for one in smtp.mails if one["To"] == "admin@example.com"]
    assert sent["Bcc"] is None
    assert len(sent["Subject"]) < 300
    assert "\u202e" not in sent["Subject"]
    html = part(sent, "html")
    assert re.search(r"<(img|svg|script)\b", html) is None
    assert "SECRET_KEY" not in name or "{{" in html
    web = Client()
    web.force_login(people["admin"])
    for page in (f"/mail/{mail.pk}/", f"/mail/{mail.pk}/html/", "/mail/", f"/alerts/{dropped.pk}/"):
        answer = web.get(page)
        assert answer.status_code == 200
        assert re.search(r"<(img|svg) (src|onload)", answer.content.decode()) is None


def test_no_mail_carries_a_persons_data(people):
    """Every kind that a filled workspace can give rise to."""
    User.objects.all().delete()
    world = filled.fill()
    Mapping.objects.update(blocked_reason="")
    world.run.state, world.run.error = "failed", "It failed."
    world.run.save()
    world.destination.state = "connected"
    world.destination.save()
    moving.looks(slow=True)
    assert Mail.objects.count() >= 2
    for mail in Mail.objects.all():
        for text in (mail.subject, mail.text, mail.html):
            for secret in ("ann@shop", "bob@shop", "+4915112345678", "secret-person"):
                assert secret not in text


# ---- Pages


def test_a_mail_is_shown_as_its_reader_sees_it_in_a_frame_that_runs_nothing(people, dropped):
    web = Client()
    web.force_login(people["marketer"])
    mail = Mail.objects.get()
    page = web.get(f"/mail/{mail.pk}/").content.decode()
    assert f'src="/mail/{mail.pk}/html/"' in page
    assert "sandbox=" in page
    frame = web.get(f"/mail/{mail.pk}/html/")
    assert frame.content.decode() == mail.html
    policy = frame["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "style-src 'unsafe-inline'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "script-src" not in policy
    assert "sandbox allow-popups allow-popups-to-escape-sandbox" in policy
    assert frame["X-Frame-Options"] == "SAMEORIGIN"


def test_send_me_a_test_alert(people, smtp):
    web = Client()
    web.force_login(people["buyer"])
    page = web.post("/mail/test/", follow=True)
    web.post("/mail/test/")  # a double click
    assert page.redirect_chain[-1][0] == f"/mail/{Mail.objects.get().pk}/"
    assert "on its way to buyer@example.com" in page.content.decode()
    outbox.send_due()
    (mail,) = smtp.mails
    assert (mail["To"], mail["Subject"]) == ("buyer@example.com", "TEST | Rollcall | alerts reach you")


def test_a_list_of_mail_filters_by_state(people, dropped):
    web = Client()
    web.force_login(people["marketer"])
    assert "CRITICAL | cart" in web.get("/mail/?state=waiting").content.decode()
    assert "No mail is in this state" in web.get("/mail/?state=sent").content.decode()
    assert web.get("/mail/?state=nonsense").status_code == 200
    assert incidents.mails([dropped])[dropped.pk] == Mail.objects.get()
    assert watch.look() == (0, 0)
