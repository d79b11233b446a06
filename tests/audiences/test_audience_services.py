"""Audiences and their versions: what is refused and with which words, what is on record."""

import pytest

from audiences.models import Audience, AuditEntry, Job, LakeColumn, PersonList, SegmentVersion, User
from audiences.services import audiences, versions
from audiences.services.audiences import AudienceRefused
from tests.audiences.people_in import identify, track

pytestmark = pytest.mark.django_db
BOUGHT = {"event": "purchase", "count": {"at_least": 1}}
GERMAN = {"attribute": "country", "op": "is", "value": "DE"}


@pytest.fixture
def author():
    return User.objects.create_user("author@example.com", role="marketer")


@pytest.fixture(autouse=True)
def seen():
    identify("anna", country="DE", plan="gold")
    track("anna", "purchase", value=10, category="shoes")


@pytest.fixture
def buyers(author):
    return audiences.create(actor=author, key="buyers", purpose="retargeting")


@pytest.fixture
def owned(buyers, author):
    owners = dict.fromkeys(("definition_owner", "sync_owner", "alert_owner"), author)
    return audiences.set_owners(actor=author, audience=buyers, **owners)


def publish(audience, segment, author=None, reason="because"):
    draft = versions.save_draft(actor=author, audience=audience, segment=segment)
    return versions.publish(actor=author, version=draft, reason=reason)


def words(refused):
    return [str(problem) for problem in refused.value.problems]


def test_the_key_is_the_name_where_none_is_given(buyers):
    assert (buyers.key, buyers.name, buyers.cadence_seconds) == ("buyers", "buyers", 900)


@pytest.mark.parametrize("key", ["", "two words", "ü", "_hidden", "a" * 101, "a/b", "x\n", "<b>"])
def test_a_key_that_could_not_stand_in_an_address_is_refused(author, key):
    with pytest.raises(AudienceRefused, match="key: must be 1 to 100"):
        audiences.create(actor=author, key=key, purpose="retargeting")


def test_a_key_is_never_reused_not_even_an_archived_ones(author, buyers):
    audiences.archive(actor=author, audience=buyers, reason="over")

    with pytest.raises(AudienceRefused, match="keys are never reused"):
        audiences.create(actor=author, key="buyers", purpose="suppression")


def test_everything_that_is_wrong_is_said_at_once(author):
    with pytest.raises(AudienceRefused) as refused:
        audiences.create(
            actor=author, key="x", name="n" * 1_000_000, purpose="spam", description="a\0b", cadence_seconds=1
        )

    assert words(refused) == [
        "name: must have 1 to 200 characters",
        "description: holds a NUL character",
        "purpose: must be one of retargeting, suppression, lookalike, analytics, warehouse",
        "cadence_seconds: must be from one minute to 30 days",
    ]
    assert not Audience.objects.exists()


def test_a_change_is_on_record_with_before_and_after_and_no_change_is_not(author, buyers):
    audiences.rename(actor=author, audience=buyers, name="Recent buyers", reason="clearer")
    audiences.rename(actor=author, audience=buyers, name="Recent buyers")
    audiences.set_owners(actor=author, audience=buyers, definition_owner=author, sync_owner=None, alert_owner=None)

    entries = AuditEntry.objects.filter(verb="audience.changed").order_by("id")
    assert [(entry.before, entry.after, entry.reason) for entry in entries] == [
        ({"name": "buyers"}, {"name": "Recent buyers"}, "clearer"),
        ({"definition_owner": None}, {"definition_owner": "author@example.com"}, ""),
    ]


def test_a_draft_is_replaced_and_a_published_version_never_changes(author, owned):
    first = versions.save_draft(actor=author, audience=owned, segment=BOUGHT)
    second = versions.save_draft(actor=author, audience=owned, segment=GERMAN)
    assert first.pk == second.pk
    published = versions.publish(actor=author, version=second, reason="first")
    third = versions.save_draft(actor=author, audience=owned, segment=BOUGHT)

    assert (published.number, third.number) == (1, 2)
    assert SegmentVersion.objects.get(pk=published.pk).segment == published.segment
    with pytest.raises(AudienceRefused, match="version 1 is published, not a draft"):
        versions.publish(actor=author, version=published, reason="again")


def test_publishing_makes_it_live_and_says_who_why_and_what(author, owned):
    version = publish(owned, BOUGHT, author, " a first rule ")

    owned.refresh_from_db()
    assert owned.live_version == version
    assert (version.state, version.reason, version.published_by, version.author) == (
        "published",
        "a first rule",
        author,
        author,
    )
    assert "purchase" in version.sentence
    entry = AuditEntry.objects.get(verb="audience.published")
    assert (entry.before, entry.after["version"], entry.reason) == (None, 1, "a first rule")
    assert set(Job.objects.filter(due_at__isnull=False).values_list("task", flat=True)) >= {
        "audiences.refresh_due",
        "audiences.backfill",
    }


def test_publishing_wants_a_reason(buyers):
    draft = versions.save_draft(actor=None, audience=buyers, segment=BOUGHT)

    with pytest.raises(AudienceRefused, match="reason: say why"):
        versions.publish(actor=None, version=draft, reason="  ")


def test_going_back_publishes_a_copy(author, owned):
    first = publish(owned, BOUGHT, author)
    publish(owned, GERMAN, author)

    third = versions.go_back(actor=author, version=first, reason="it was better")

    assert (third.number, third.sha256, third.state) == (3, first.sha256, "published")
    assert SegmentVersion.objects.filter(state="published").count() == 1


def test_names_that_rules_use_get_typed_columns(buyers):
    publish(buyers, {"all": [GERMAN, {**BOUGHT, "where": [{"property": "category", "op": "is", "value": "shoes"}]}]})

    assert set(LakeColumn.objects.values_list("kind", "name")) >= {("attribute", "country"), ("property", "category")}


@pytest.mark.parametrize(
    ("segment", "says"),
    [
        (
            {"all": [GERMAN, {**GERMAN, "attribute": "contry"}]},
            'all[1].attribute: no attribute "contry" is known; nearest: "country"',
        ),
        (
            {"not": {"event": "Purchase", "count": {"at_least": 1}}},
            'not.event: no event "Purchase" is known; nearest: "purchase"',
        ),
        (
            {
                **BOUGHT,
                "where": [
                    {"property": "value", "op": "gt", "value": 1},
                    {"property": "categori", "op": "is", "value": "x"},
                ],
            },
            'where[1].property: no property of "purchase" "categori" is known; nearest: "category"',
        ),
        (
            {"event": "purchase", "sum": "amount", "op": "gte", "value": 5},
            'sum: no property of "purchase" "amount" is known',
        ),
        (
            {"sequence": [{"event": "purchase"}, {"event": "refund", "within": "3d"}]},
            'sequence[1].event: no event "refund" is known',
        ),
        ({"list": "vipp"}, 'list: no list "vipp" is known; nearest: "vip"'),
        ({"customerio_segment": 7}, "customerio_segment: no list has the Customer.io segment 7"),
        ({"audience": "nobody"}, 'audience: no audience "nobody" is known'),
    ],
)
def test_publishing_refuses_an_unknown_name_with_its_place_and_the_nearest(buyers, segment, says):
    PersonList.objects.create(key="vip", name="VIP")
    draft = versions.save_draft(actor=None, audience=buyers, segment=segment)

    with pytest.raises(AudienceRefused) as refused:
        versions.publish(actor=None, version=draft, reason="try")

    assert words(refused) == [says]
    buyers.refresh_from_db()
    assert buyers.live_version is None


def test_any_event_needs_no_name(buyers):
    publish(buyers, {"event": "*", "count": {"at_least": 1}, "within": "30d"})

    buyers.refresh_from_db()
    assert buyers.live_version is not None


def test_a_malformed_rule_is_refused_with_its_path_and_no_draft_is_kept(buyers):
    with pytest.raises(AudienceRefused, match=r"^all\[1\]\.count\.at_least: "):
        versions.save_draft(
            actor=None, audience=buyers, segment={"all": [GERMAN, {"event": "purchase", "count": {"at_least": -1}}]}
        )

    assert not SegmentVersion.objects.exists()


def test_references_in_a_circle_are_refused(buyers):
    other = audiences.create(actor=None, key="other", purpose="analytics")
    publish(buyers, BOUGHT)
    publish(other, {"not": {"audience": "buyers"}})

    with pytest.raises(AudienceRefused, match="circle"):
        publish(buyers, {"all": [GERMAN, {"audience": "other"}]})
    with pytest.raises(AudienceRefused, match="circle"):
        publish(other, {"audience": "other"})


def test_an_audience_without_a_published_rule_and_an_archived_one_cannot_be_referred_to(buyers):
    audiences.create(actor=None, key="draft_only", purpose="analytics")
    archived = audiences.create(actor=None, key="archived", purpose="analytics")
    publish(archived, GERMAN)
    audiences.archive(actor=None, audience=archived, reason="over")

    with pytest.raises(AudienceRefused, match='"draft_only" has no published rule yet'):
        publish(buyers, {"audience": "draft_only"})
    with pytest.raises(AudienceRefused, match='"archived" is archived'):
        publish(buyers, {"audience": "archived"})


def test_what_others_need_is_not_archived(buyers):
    publish(buyers, BOUGHT)
    other = audiences.create(actor=None, key="other", purpose="analytics")
    publish(other, {"audience": "buyers"})
    with pytest.raises(AudienceRefused, match="needed by other"):
        audiences.archive(actor=None, audience=buyers, reason="over")

    publish(other, GERMAN)
    archived = audiences.archive(actor=None, audience=buyers, reason="over")
    assert archived.archived_at is not None
    assert archived.refresh_due_at is None
    with pytest.raises(AudienceRefused, match="is archived"):
        versions.save_draft(actor=None, audience=buyers, segment=GERMAN)
    with pytest.raises(AudienceRefused, match="is archived"):
        audiences.ask_refresh(actor=None, audience=buyers)


def test_only_suppression_audiences_are_linked_and_they_stay_suppression_while_they_are(buyers):
    bought = audiences.create(actor=None, key="bought_14d", purpose="suppression")
    audiences.link_suppression(actor=None, audience=buyers, suppression=bought)
    audiences.link_suppression(actor=None, audience=buyers, suppression=bought)
    assert [row.key for row in buyers.excluded_by.all()] == ["bought_14d"]
    assert AuditEntry.objects.filter(verb="audience.linked").count() == 1

    with pytest.raises(AudienceRefused, match='"buyers" is not a suppression audience'):
        audiences.link_suppression(actor=None, audience=bought, suppression=buyers)
    with pytest.raises(AudienceRefused, match="cannot exclude itself"):
        audiences.link_suppression(actor=None, audience=bought, suppression=bought)
    with pytest.raises(AudienceRefused, match="is the suppression audience of buyers"):
        audiences.change(actor=None, audience=bought, purpose="analytics")
    with pytest.raises(AudienceRefused, match="needed by buyers"):
        audiences.archive(actor=None, audience=bought, reason="over")

    audiences.unlink_suppression(actor=None, audience=buyers, suppression=bought)
    audiences.change(actor=None, audience=bought, purpose="analytics")
