"""What a mail says: subject, text and HTML of an incident that opened, got worse, waits still or is over; of a review; of a digest; of a test.

Nothing is sent here. No person's data, no remote images; every link leads to a page of PUBLIC_URL that only shows, and whose buttons act.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from django.conf import settings
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from audiences import replacements
from audiences.models import Review, User, Workspace
from audiences.services import gate
from qa import incidents
from qa.checks.registry import KINDS
from qa.models import Incident, Mail

LONGEST_NAME = 80
WORDS = {
    "opened": "",
    "worse": "It got worse",
    "still": "Still so: you let it wait until now",
    "over": "It is right again",
    "closed": "It is not watched any more",
}


@dataclass(frozen=True, slots=True)
class Letter:
    subject: str
    text: str
    html: str


def of_incident(incident: Incident, to: User, what: str) -> Letter:
    """`what`: a key of WORDS."""
    name, place = incidents.name(incident), incidents.place(incident)
    kind = KINDS.get(incident.kind)
    bad = incident.severity == Incident.Severity.CRITICAL
    over = what in ("over", "closed")
    level = {"over": "OK", "closed": "CLOSED"}.get(what, "CRITICAL" if bad else "WARNING")
    figure = incident.figure or incidents.label(incident.kind).lower()
    if what == "over":
        figure = kind.over if kind else "right again"
    elif what == "closed":
        figure = "not watched any more"
    audience = incident.audience or (incident.mapping.audience if incident.mapping else None)
    page = link(reverse("qa:alert", args=[incident.pk]))
    opens, opens_words = page, "Open the alert"
    if audience is not None:
        object_url, object_words = link(reverse("qa:audience", args=[audience.key])), "Open audience"
    elif incident.destination is not None:
        object_url = link(reverse("destinations:destination", args=[incident.destination.key]))
        object_words = "Open destination"
    else:
        object_url, object_words = "", ""
    context = {
        "level": level,
        "tone": "good" if what == "over" else "idle" if what == "closed" else "bad" if bad else "watch",
        "headline": WORDS[what],
        "name": one_line(name),
        "place": one_line(place),
        "coded": audience is not None,  # its name is a key-like one, as ad accounts show it
        "label": incidents.label(incident.kind),
        "sentence": incident.recovered_words if over and incident.recovered_words else incident.sentence,
        "before": incident.sentence if over else "",
        "remedy": "" if over else incident.remedy,
        "facts": [] if over else [(key, str(value)) for key, value in incident.facts.items()],
        "causes": [] if over else list(incident.causes)[:3],
        "since": incident.since,
        "until": incident.recovered_at,
        "opens": opens,
        "opens_words": opens_words,
        "object_url": object_url,
        "object_words": object_words,
        "snooze_url": f"{page}#snooze",
        "why_url": f"{page}#who",
        "over": over,
    }
    return _letter(_subject(level, name if not place else f"{name} on {place}", figure), "incident", context, to)


def of_review(review: Review, to: User) -> Letter:
    """A change that waits for this reader's approval, or what became of one that they asked for. Neither the rule nor anybody's reasons are in
    it: either may name a person. They are on the page."""
    version, audience = review.version, review.version.audience
    number, decider = f"Version {version.number}", str(review.decided_by or "Somebody")
    old = (
        replacements.standing(audience).of if version.retires_old_at and review.state == Review.State.APPROVED else None
    )
    when_live = "it goes live when the test ends" if version.publish_at else "it is live"
    if old is not None:
        when_live = f"it is live, beside {old.old.key}"
    level, tone, figure, sentence = {
        Review.State.OPEN: (
            "REVIEW",
            "watch",
            f"v{version.number} waits for approval",
            f"{number} waits for a second person: {review.asked_by or 'a file'} asks for it to go live.",
        ),
        Review.State.APPROVED: (
            "APPROVED",
            "good",
            f"v{version.number}",
            f"{decider} has approved version {version.number}: {when_live}.",
        ),
        Review.State.SENT_BACK: (
            "SENT BACK",
            "watch",
            f"v{version.number}",
            f"{decider} has sent version {version.number} back. It is a draft again; what is wrong with it is on the page.",
        ),
        Review.State.WITHDRAWN: (
            "WITHDRAWN",
            "idle",
            f"v{version.number}",
            f"{number} waits for nobody's approval any more: {decider} has ended its review.",
        ),
    }[Review.State(review.state)]
    context = {
        "level": level,
        "tone": tone,
        "name": one_line(audience.name),
        "sentence": sentence,
        "facts": _figures(review),
        "changes": review.state == Review.State.OPEN and audience.live_version_id is not None,
        "retires_at": version.retires_old_at,
        "key": audience.key,
        "opens": link(f"{reverse('qa:review', args=[audience.key])}?version={version.number}"),
        "opens_words": "Read and decide" if review.state == Review.State.OPEN else "Open the review",
        "object_url": link(reverse("qa:audience", args=[audience.key])),
        "asked": review.state == Review.State.OPEN,
    }
    return _letter(_subject(level, audience.name, figure), "review", context, to)


def _figures(review: Review) -> list[tuple[str, str]]:
    seen = gate.seen(review)
    if seen is None:
        return [("People", "Not counted")]
    people = f"{seen.size:,}" if seen.before is None else f"{seen.size:,}, {seen.before:,} before"
    moves = [] if seen.enters is None else [("Enter", f"{seen.enters:,}"), ("Leave", f"{seen.leaves:,}")]
    return [("People", people), *moves]


def of_digest(mails: Sequence[Mail], to: User | None) -> Letter:
    """Many at once, one line each."""
    rows = [
        {
            "subject": mail.subject,
            "sentence": _said(mail),
            "url": link(reverse("qa:alert", args=[mail.incident_id])) if mail.incident_id else "",
            "tone": "good"
            if mail.subject.startswith("OK")
            else "bad"
            if mail.subject.startswith("CRITICAL")
            else "watch",
        }
        for mail in mails
    ]
    number = len(rows)
    context = {
        "level": "DIGEST",
        "tone": "watch",
        "rows": rows,
        "headline": f"{number} more alerts" if number != 1 else "One more alert",
        "opens": link(reverse("qa:alerts")),
    }
    subject = _subject("DIGEST", f"{number} more alerts" if number != 1 else "one more alert", "")
    return _letter(subject, "digest", context, to)


def _said(mail: Mail) -> str:
    if mail.incident is None:
        return ""
    over = mail.subject.startswith(("OK", "CLOSED"))
    return mail.incident.recovered_words if over else mail.incident.sentence


def of_test(to: User) -> Letter:
    """So that somebody sees one before it matters."""
    context = {
        "level": "TEST",
        "tone": "idle",
        "headline": "Alerts reach you",
        "opens": link(reverse("qa:alerts")),
        "asked_by": str(to),
    }
    return _letter(_subject("TEST", "Rollcall", "alerts reach you"), "test", context, to)


def link(path: str) -> str:
    return f"{settings.PUBLIC_URL.rstrip('/')}{path}"


def one_line(text: str, longest: int = LONGEST_NAME) -> str:
    """A name as a header may carry it: no line ends, no control characters, none that turn the reading direction, not endless."""
    kept = "".join(
        " " if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn") else char for char in text
    )
    words = " ".join(kept.split())
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


def _subject(level: str, name: str, figure: str) -> str:
    return " | ".join(part for part in (level, one_line(name), one_line(figure)) if part)


def _letter(subject: str, template: str, context: Mapping[str, object], to: User | None) -> Letter:
    workspace = Workspace.objects.first()
    zone = (to.timezone if to else "") or (workspace.timezone if workspace else "") or "UTC"
    values = {
        "subject": subject,
        "workspace": workspace.name if workspace else "",
        "account_url": link("/"),
        "now": timezone.now(),
        **context,
    }
    with timezone.override(ZoneInfo(zone)):
        text = render_to_string(f"mail/{template}.txt", values)
        html = render_to_string(f"mail/{template}.html", values)
    return Letter(subject, _tidy(_printable(text)), _printable(html))


def _printable(text: str) -> str:
    """Without what no mail program shows, and PostgreSQL does not take."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def _tidy(text: str) -> str:
    """No more than one empty line at a time."""
    lines: list[str] = []
    for line in text.strip().splitlines():
        if line.strip() or (lines and lines[-1]):
            lines.append(line if line == "-- " else line.rstrip())  # so mail programs know a signature
    return "\n".join(lines) + "\n"
