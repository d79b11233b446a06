"""Versions: who publishes what, when and why; what waits for a test; and what nobody changes any more, whoever writes."""


import pytest
from django.db import IntegrityError, connection, connections, transaction

from audiences.models import AuditEntry, User, frozen
from audiences.services import trail, versions
from audiences.services.audiences import AudienceRefused
from tests import filled
from tests.audiences.people_in import identify, track

pytestmark = pytest.mark.django_db
BOUGHT = {"event": "purchase", "count": {"at_least": 1}}
GERMAN = {"attribute": "country", "op": "is", "value": "DE"}


@pytest.fixture(autouse=True)
def seen():
    identify("anna", country="DE")
    track("anna", "purchase", value=10)


@pytest.fixture
def author():
    return User.objects.create_user("author@example.com", role="marketer")


@pytest.fixture
def buyers(author):
    return filled.audience("buyers", BOUGHT, author)


def draft(audience, segment=GERMAN, author=None):
    return versions.save_draft(actor=author, audience=audience, segment=segment)


def refused_by_the_database(statement, *values):
    with pytest.raises(IntegrityError) as refused, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, values)
    return str(refused.value)


# ---- the database ----


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("segment", "{}"),
        ("sha256", "0" * 64),
        ("sentence", "People who did nothing."),
        ("number", 7),
        ("reason", "another"),
        ("state", "draft"),
        ("author_id", None),
        ("published_by_id", None),
        ("published_at", "2020-01-01 00:00:00+00:00"),
        ("created_at", "2020-01-01 00:00:00+00:00"),
    ],
)
@pytest.mark.parametrize("state", ["published", "retired"])
def test_the_database_refuses_to_change_what_was_published(buyers, author, state, column, value):
    if state == "retired":
        versions.publish(actor=author, version=draft(buyers, author=author), reason="another")
    first = buyers.versions.get(number=1)
    assert first.state == state

    words = refused_by_the_database(f"UPDATE audiences_segmentversion SET {column} = %s WHERE id = %s", value, first.pk)
    assert "a published version never changes" in words
    assert "never deleted" in refused_by_the_database("DELETE FROM audiences_segmentversion WHERE id = %s", first.pk)


def test_a_draft_may_be_changed_and_thrown_away(buyers, author):
    made = draft(buyers, author=author)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE audiences_segmentversion SET reason = 'x' WHERE id = %s", [made.pk])
    versions.discard(actor=author, version=made)

    assert [version.number for version in buyers.versions.all()] == [1]
    with pytest.raises(AudienceRefused, match="version 1 is published, not a draft"):
        versions.discard(actor=author, version=buyers.versions.get())


def test_the_database_refuses_to_change_the_audit_trail(author):
    trail.record(author, "audience.changed", "audience", "x", before={"name": "a"}, after={"name": "b"})
    entry = AuditEntry.objects.get(object_key="x")

    for statement in (
        "UPDATE audiences_auditentry SET reason = 'nothing happened' WHERE id = %s",
        "UPDATE audiences_auditentry SET actor_id = NULL WHERE id = %s",
        "DELETE FROM audiences_auditentry WHERE id = %s",
    ):
        assert "only ever added to" in refused_by_the_database(statement, entry.pk)
    with pytest.raises(IntegrityError), transaction.atomic():
        AuditEntry.objects.all().delete()


def test_the_guards_are_back_after_the_sample_shop_has_made_up_its_past(author):
    trail.record(author, "audience.changed", "audience", "x")
    with frozen.set_aside():
        assert AuditEntry.objects.filter(object_key="x").update(reason="long ago") == 1

    assert frozen.installed(connection) == {guard.name for guard in frozen.GUARDS}
    with pytest.raises(RuntimeError), frozen.set_aside():
        raise RuntimeError
    assert frozen.installed(connections["default"]) == {guard.name for guard in frozen.GUARDS}
