"""Versions: who publishes what, when and why; what waits for a test; and what nobody changes any more, whoever writes."""

import html
import re

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from audiences.models import Audience, AuditEntry, User, frozen
from audiences.services import refreshes, trail, versions
from audiences.services.audiences import AudienceRefused
from qa import soundness
from tests import filled
from tests.audiences.people_in import identify, track
from tests.filled import as_

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


# ---- the pages ----


@pytest.fixture
def people():
    return filled.users()


@pytest.fixture
def cart(people):
    track("anna", "add_to_cart")
    return filled.audience("cart", filled.CART, people["marketer"])


def text(response):
    return html.unescape(response.content.decode())


def publish(audience, segment, author, reason="because"):
    return versions.publish(actor=author, version=draft(audience, segment, author), reason=reason)


def longer(days):
    return {"all": [filled.CART["all"][0], {**filled.CART["all"][1], "within": f"{days}d"}]}


def test_the_list_says_who_when_why_and_how_large_before_and_after(cart, people):
    refreshes.refresh([cart], cause="manual")
    publish(cart, {"not": GERMAN}, people["marketer"], "Only <i>abroad</i>")
    refreshes.refresh(Audience.objects.filter(pk=cart.pk).select_related("live_version"), cause="manual")

    answer = as_(people, "buyer").get("/audiences/cart/versions/")

    page = answer.content.decode()
    assert "“Only &lt;i&gt;abroad&lt;/i&gt;”" in page
    assert "by Marketer" in page
    rows = answer.context["rows"]
    assert [(row.version.number, row.live, row.before, row.size) for row in rows] == [
        (2, True, 0, 0),
        (1, False, None, 0),
    ]
    assert "sign-off" not in page  # spot checks are not the buyer's
    assert "sign-off" in text(as_(people, "marketer").get("/audiences/cart/versions/"))


def test_a_number_that_nobody_counted_is_never_zero(cart, people):
    publish(cart, GERMAN, people["marketer"])
    draft(cart, {"not": GERMAN}, people["marketer"])

    page = text(as_(people, "marketer").get("/audiences/cart/versions/"))
    assert page.count("Not counted") == 2
    assert "Counted when it is published" in text(as_(people, "marketer").get("/audiences/cart/versions/3/"))


def test_the_list_asks_as_much_for_two_versions_as_for_twenty(cart, people, django_assert_num_queries):
    client = as_(people, "marketer")
    publish(cart, longer(4), people["marketer"])
    with CaptureQueriesContext(connection) as few:
        client.get("/audiences/cart/versions/")
    for days in range(5, 20):
        publish(cart, longer(days), people["marketer"])

    with django_assert_num_queries(len(few)):
        client.get("/audiences/cart/versions/")


def test_two_versions_side_by_side(cart, people):
    publish(cart, {"all": [*longer(14)["all"], {"not": GERMAN}]}, people["marketer"], "longer")
    client = as_(people, "buyer")

    page = text(client.get("/audiences/cart/versions/2/"))
    assert "Window of “purchase” 3 → 14 days; added: who are not among those (whose country is “DE”)." in page
    assert page.count('<span class="visually-hidden">Changed</span>') == 1
    assert page.count('<span class="visually-hidden">Added</span>') == 1
    assert page.count('<span class="visually-hidden">Unchanged</span>') == 1
    back = text(client.get("/audiences/cart/versions/1/?against=2"))
    assert "Window of “purchase” 14 → 3 days; removed: who are not among those" in back
    assert "Nothing changed." in text(client.get("/audiences/cart/versions/2/?against=2"))
    assert "The first version" in text(client.get("/audiences/cart/versions/1/"))


@pytest.mark.parametrize("address", ["9/", "1/?against=9", "1/?against=x", "1/?against=99999999999999999999", "0/"])
def test_a_version_that_is_not_there_is_not_found(cart, people, address):
    assert as_(people, "marketer").get(f"/audiences/cart/versions/{address}").status_code == 404


def test_publishing_from_the_page_and_the_way_back(cart, people):
    client = as_(people, "marketer")
    made = draft(cart, longer(14), people["marketer"])

    answer = client.post(
        "/audiences/cart/versions/2/publish/", {"reason": "A longer look", "sha256": made.sha256}, follow=True
    )

    cart.refresh_from_db()
    assert (cart.live_version.number, cart.live_version.reason) == (2, "A longer look")
    page = text(answer)
    assert "v2 is live and is being counted." in page
    assert "Roll back to v1" in page
    undone = client.post("/audiences/cart/versions/1/roll-back/", {"seen": "2", "reason": "Undone"}, follow=True)
    cart.refresh_from_db()
    assert (cart.live_version.number, cart.live_version.segment) == (3, cart.versions.get(number=1).segment)
    assert "v3, a copy of v1, is live" in text(undone)


def test_publishing_without_a_reason_keeps_the_page_and_says_so_beside_the_field(cart, people):
    made = draft(cart, longer(14), people["marketer"])

    answer = as_(people, "marketer").post("/audiences/cart/versions/2/publish/", {"reason": " ", "sha256": made.sha256})

    assert answer.status_code == 422
    assert 'id="reason_error"' in text(answer)
    assert Audience.objects.get(pk=cart.pk).live_version.number == 1


def test_a_draft_that_was_changed_since_is_not_published_unseen(cart, people):
    stale = draft(cart, longer(14), people["marketer"]).sha256
    draft(cart, longer(30), people["marketer"])

    answer = as_(people, "marketer").post("/audiences/cart/versions/2/publish/", {"reason": "x", "sha256": stale})

    assert answer.status_code == 409
    assert "has been changed since" in text(answer)


def test_pressing_publish_twice_publishes_once(cart, people):
    made, client = draft(cart, longer(14), people["marketer"]), as_(people, "marketer")
    for _ in range(2):
        answer = client.post("/audiences/cart/versions/2/publish/", {"reason": "x", "sha256": made.sha256})
        assert answer.status_code == 302
    assert cart.versions.count() == 2
    for _ in range(2):
        answer = client.post("/audiences/cart/versions/1/roll-back/", {"reason": "x", "seen": "2"})
    assert answer.status_code == 409
    assert "version 3 went live meanwhile" in text(answer).lower()
    assert cart.versions.count() == 3


def test_going_back_leaves_a_draft_alone(cart, people):
    publish(cart, longer(14), people["marketer"])
    kept = draft(cart, longer(30), people["marketer"])

    made = versions.go_back(actor=people["marketer"], version=cart.versions.get(number=1), reason="back")

    kept.refresh_from_db()
    assert (made.number, kept.number, kept.state) == (4, 3, "draft")


@pytest.mark.parametrize(("role", "status"), [("buyer", 403), ("operator", 403), ("admin", 302)])
def test_who_may_publish_and_roll_back(cart, people, role, status):
    publish(cart, longer(14), people["marketer"])
    made, client = draft(cart, longer(30), people["marketer"]), as_(people, role)

    assert client.post("/audiences/cart/versions/1/roll-back/", {"reason": "x", "seen": "2"}).status_code == status
    fields = {"reason": "x", "sha256": made.sha256}
    assert client.post("/audiences/cart/versions/3/publish/", fields).status_code == status


def test_a_name_that_nobody_knows_is_said_with_its_place(cart, people):
    made = draft(cart, {"event": "purchse", "count": {"at_least": 1}}, people["marketer"])

    answer = as_(people, "marketer").post("/audiences/cart/versions/2/publish/", {"reason": "x", "sha256": made.sha256})

    assert answer.status_code == 422
    assert re.search(r"Event: .*purchse.*purchase", text(answer))


def test_guards_that_were_lost_are_found_by_doctor_and_put_back_by_migrate():
    def state():
        return {finding.question: finding.state for finding in soundness.examine()}["history"]

    frozen.remove(connection)
    assert state() == "problem"

    call_command("migrate", verbosity=0)

    assert state() == "ok"
    assert frozen.installed(connection) == {guard.name for guard in frozen.GUARDS}


@pytest.mark.parametrize("number", ["99999999999999999999999", "4294967296", "0"])
@pytest.mark.parametrize("deed", ["", "publish/", "roll-back/", "discard/", "stop-waiting/"])
def test_a_forged_number_is_nothing_wrong(cart, people, number, deed):
    client, address = as_(people, "admin"), f"/audiences/cart/versions/{number}/{deed}"
    answer = client.post(address, {"reason": "x"}) if deed else client.get(address)

    assert answer.status_code == (302 if deed == "discard/" else 404)  # what is gone is thrown away already


@pytest.mark.parametrize(
    ("reason", "words"), [("a\0b", "holds a NUL character"), ("", "say why"), ("<img onerror=x>\u202e", "")]
)
def test_a_hostile_reason_is_refused_or_shown_as_it_is(cart, people, reason, words):
    made, client = draft(cart, longer(14), people["marketer"]), as_(people, "marketer")

    answer = client.post("/audiences/cart/versions/2/publish/", {"reason": reason, "sha256": made.sha256})

    if words:
        assert answer.status_code == 422
        assert words in text(answer).lower().replace("nul c", "NUL c")
    else:
        assert "<img onerror" not in client.get("/audiences/cart/versions/").content.decode()
