"""The outbox: mails are rows, written in the transaction that gives rise to them; a worker sends them, as often as it takes.

At least once: a mail is marked after the server has taken it, so a crash between the two sends it again, under the same Message-ID.
"""

import logging
import re
import smtplib
import socket
import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.message import EmailMessage
from django.db import transaction
from django.utils import timezone
from django.utils.crypto import get_random_string

from audiences import jobs
from audiences.models import User
from qa import letters
from qa.letters import Letter
from qa.models import Incident, Mail

log = logging.getLogger(__name__)

TASK = "qa.send_mail"
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=15), timedelta(minutes=10)
GIVE_UP_AFTER = timedelta(days=7)
CROWD, CROWD_TIME = 5, timedelta(hours=1)  # so many mails to one person within the hour, and the rest come in a digest
DIGEST_WAIT = timedelta(minutes=10)
ON_ITS_WAY = timedelta(
    minutes=2
)  # nobody else takes a mail that is being sent; a killed sender's comes again after this
BATCH = 100


def post(*, to: User, letter: Letter, key: str, incident: Incident | None = None) -> Mail:
    """Put a mail in the outbox, in the caller's transaction; the one that is there already, if its key is. To somebody who has had many in
    the last hour it waits for the digest."""
    now = timezone.now()
    with transaction.atomic():
        mail, made = Mail.objects.get_or_create(
            dedupe_key=key,
            defaults={
                "incident": incident,
                "to": to.email,
                "subject": letter.subject[:300],
                "text": letter.text,
                "html": letter.html,
                "message_id": _message_id(incident),
                "references": _thread(incident),
                "due_at": now,
            },
        )
        if made and incident is not None and _crowded(mail, now):
            _fold(mail, to, now)
        if made:
            jobs.ask(TASK, "", queue="sync")
    return mail


def send_due(*, now: datetime | None = None, limit: int = BATCH) -> int:
    """Send what is due over one connection; how many were taken. A server that is away, or says later, delays; it loses nothing."""
    now = now or timezone.now()
    due = list(
        Mail.objects.filter(state=Mail.State.WAITING, due_at__lte=now)
        .select_related("incident")
        .order_by("due_at", "pk")[:limit]
    )
    if not due:
        return 0
    taken = 0
    backend: Any = get_connection()
    try:
        try:
            backend.open()
        except (OSError, smtplib.SMTPException, ssl.SSLError) as error:
            for mail in due:
                if _take(mail, now):
                    _later(mail, error, now)
            return 0
        for mail in due:
            if not _take(mail, now):
                continue
            try:
                backend.send_messages([message(mail)])
            except smtplib.SMTPRecipientsRefused as error:
                codes = [code for code, _ in error.recipients.values()]
                _fail(mail, error) if codes and all(code >= 500 for code in codes) else _later(mail, error, now)
            except (OSError, smtplib.SMTPException, ssl.SSLError) as error:
                _later(mail, error, now)
                if isinstance(error, (smtplib.SMTPServerDisconnected, OSError)):
                    _reopen(backend)
            except ValueError as error:  # no header can hold it; the others are not kept waiting by it
                _fail(mail, error)
            else:
                taken += _sent(mail)
    finally:
        _close(backend)
    return taken


@jobs.job(TASK, queue="sync")
def send_mail(claim: jobs.Claim) -> None:
    """What a worker does as long as anything waits."""
    while send_due() == BATCH:
        claim.renew()
    ask_again()


def ask_again() -> None:
    """Have the sender come back when the next mail is due."""
    first = Mail.objects.filter(state=Mail.State.WAITING).order_by("due_at").values_list("due_at", flat=True).first()
    if first is not None:
        jobs.ask(TASK, "", queue="sync", after=max(first - timezone.now(), timedelta(seconds=1)))


def try_again(mail: Mail) -> None:
    """A person asks for one that was given up, or does not want to wait."""
    waiting = Mail.objects.filter(pk=mail.pk, state__in=(Mail.State.FAILED, Mail.State.WAITING))
    if waiting.update(state=Mail.State.WAITING, due_at=timezone.now(), attempts=0):
        jobs.ask(TASK, "", queue="sync")


def to_files() -> bool:
    """Whether mails go to files, because nobody has said where else."""
    return str(settings.EMAIL_BACKEND) == "qa.outbox.Files"


def message(mail: Mail) -> EmailMultiAlternatives:
    """As it goes out: text and HTML, threaded with the mails about the same thing."""
    headers = {
        "Message-ID": mail.message_id,
        "Date": mail.created_at.strftime("%a, %d %b %Y %H:%M:%S +0000"),
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
    }
    if mail.references:
        headers |= {"References": mail.references, "In-Reply-To": mail.references}
    built = EmailMultiAlternatives(
        letters.one_line(mail.subject, 300), mail.text, settings.DEFAULT_FROM_EMAIL, [mail.to], headers=headers
    )
    built.attach_alternative(mail.html, "text/html")
    return built


class Files(BaseEmailBackend):
    """Each mail is a file of its own in DATA_DIR/outbox, as any mail program opens it. The same mail again writes the same file."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        folder = Path(settings.DATA_DIR) / "outbox"
        folder.mkdir(parents=True, exist_ok=True)
        for mail in email_messages:
            path = folder / file_name(mail)
            scratch = path.with_suffix(f".{get_random_string(6)}.part")
            scratch.write_bytes(mail.message().as_bytes())
            scratch.replace(path)
        return len(email_messages)


def file_name(mail: EmailMessage) -> str:
    """20261124-091500-critical-meta-vip-size-41-alert-7-x1.eml: by time, then by what it says."""
    headers = mail.extra_headers
    moment = timezone.now()
    if headers.get("Date"):
        moment = datetime.strptime(headers["Date"], "%a, %d %b %Y %H:%M:%S %z")
    said = re.sub(r"[^a-z0-9]+", "-", mail.subject.lower()).strip("-")[:60].strip("-")
    own = re.sub(r"[^A-Za-z0-9]+", "-", headers.get("Message-ID", "").split("@")[0]).strip("-")[-40:]
    return f"{moment:%Y%m%d-%H%M%S}-{said}-{own or get_random_string(8)}.eml"


def _message_id(incident: Incident | None) -> str:
    about = f"alert-{incident.pk}" if incident is not None else "mail"
    return f"<{about}.{get_random_string(12).lower()}@{_host()}>"


def _host() -> str:
    return urlsplit(settings.PUBLIC_URL).hostname or "rollcall.invalid"


def _thread(incident: Incident | None) -> str:
    """The first mail about it, which the later ones answer."""
    if incident is None:
        return ""
    return Mail.objects.filter(incident=incident).order_by("pk").values_list("message_id", flat=True).first() or ""


def _crowded(mail: Mail, now: datetime) -> bool:
    """Whether this person has had their mails of the hour."""
    lately = Mail.objects.filter(to=mail.to, incident__isnull=False, created_at__gt=now - CROWD_TIME).exclude(
        state=Mail.State.FOLDED
    )
    return lately.exclude(pk=mail.pk).count() >= CROWD


def _fold(mail: Mail, to: User, now: datetime) -> None:
    """Into the digest that waits for this person, or a new one. One that is due, or was a moment ago, may be on its way."""
    open_ = Mail.objects.select_for_update().filter(
        to=mail.to, dedupe_key__startswith="digest:", state=Mail.State.WAITING, due_at__gt=now + ON_ITS_WAY
    )
    digest = open_.order_by("-pk").first()
    if digest is None:
        digest = Mail.objects.create(
            dedupe_key=f"digest:{mail.pk}",
            to=mail.to,
            subject="DIGEST",
            text="",
            html="",
            message_id=_message_id(None),
            due_at=now + DIGEST_WAIT,
        )
    mail.state, mail.digest, mail.due_at = Mail.State.FOLDED, digest, None
    mail.save(update_fields=["state", "digest", "due_at"])
    letter = letters.of_digest(list(digest.folded.select_related("incident").order_by("pk")), to)
    Mail.objects.filter(pk=digest.pk).update(subject=letter.subject[:300], text=letter.text, html=letter.html)


def _take(mail: Mail, now: datetime) -> bool:
    """Takes it before it is sent, so that no other sender does; and reads what a digest says by then."""
    with transaction.atomic():
        row = Mail.objects.select_for_update().filter(pk=mail.pk, state=Mail.State.WAITING, due_at=mail.due_at).first()
        if row is None:
            return False
        mail.subject, mail.text, mail.html = row.subject, row.text, row.html
        mail.attempts = row.attempts = row.attempts + 1
        row.due_at = now + ON_ITS_WAY
        row.save(update_fields=["attempts", "due_at"])
    return True


def _sent(mail: Mail) -> int:
    return Mail.objects.filter(pk=mail.pk, state=Mail.State.WAITING).update(
        state=Mail.State.SENT, sent_at=timezone.now(), due_at=None, error=""
    )


def _later(mail: Mail, error: Exception, now: datetime) -> None:
    """Tried again, at growing distances."""
    if now - mail.created_at > GIVE_UP_AFTER:
        _fail(mail, error)
        return
    wait = min(FIRST_WAIT * 2 ** min(mail.attempts - 1, 10), LONGEST_WAIT)
    Mail.objects.filter(pk=mail.pk, state=Mail.State.WAITING).update(due_at=now + wait, error=_words(error))
    log.warning("mail waits", extra={"mail": mail.pk, "error": type(error).__name__})


def _fail(mail: Mail, error: Exception) -> None:
    Mail.objects.filter(pk=mail.pk, state=Mail.State.WAITING).update(
        state=Mail.State.FAILED, due_at=None, error=_words(error)
    )
    log.warning("mail given up", extra={"mail": mail.pk, "error": type(error).__name__})


def _words(error: Exception) -> str:
    """What the mail server said, without its own words: they may hold addresses."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = sorted({code for code, _ in error.recipients.values()})
        return f"The mail server does not take mail for this address ({', '.join(map(str, codes))})."
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"The mail server refuses the user or password of EMAIL_URL ({error.smtp_code})."
    if isinstance(error, smtplib.SMTPSenderRefused):
        return f"The mail server does not let us send as MAIL_FROM ({error.smtp_code})."
    if isinstance(error, smtplib.SMTPResponseException):
        later = "asks us to come back later" if 400 <= error.smtp_code < 500 else "refused it"
        return f"The mail server {later} ({error.smtp_code})."
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "The mail server hung up."
    if isinstance(error, (socket.gaierror, ConnectionError, TimeoutError)):
        return f"The mail server cannot be reached ({type(error).__name__})."
    return f"It could not be sent ({type(error).__name__})."


def _reopen(backend: Any) -> None:
    """After a broken connection, for the mails that remain; the next attempt says if that fails too."""
    _close(backend)
    try:
        backend.open()
    except (OSError, smtplib.SMTPException):
        log.warning("mail server does not come back")


def _close(backend: Any) -> None:
    try:
        backend.close()
    except (OSError, smtplib.SMTPException):
        log.warning("mail server did not say goodbye")
