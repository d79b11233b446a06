"""The fixed order: who each step takes out, what suppression passes, and where nobody may be sent."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pyroaring import BitMap

from audiences.bitmaps import unpack
from audiences.models import Consent, Membership, Workspace
from audiences.services import audiences, lists, refreshes
from destinations import eligibility, identities
from destinations.models import Eligibility, Exclusion, Mapping
from destinations.services import mappings
from tests.audiences.people_in import erase, identify, merge, number, numbers
from tests.destinations import scene

pytestmark = pytest.mark.django_db(transaction=True)
EVERYBODY = ("anna", "bert", "carl", "dora")


@pytest.fixture
def mapping(sandbox, account_number):
    scene.workspace()
    scene.imported(*EVERYBODY)
    target = scene.destination(sandbox, account_number)
    return mappings.create(
        actor=None, audience=scene.audience("all", scene.IN), destination=target, identifiers=["email"]
    )


def as_suppression(mapping):
    mapping.audience.purpose = "suppression"
    return mapping


def everybody():
    return BitMap(numbers(*EVERYBODY))


def judge(mapping):
    left, steps = eligibility.judge(mapping, everybody())
    return set(left), {step.name: set(step.taken_out) for step in steps if step.taken_out}


def test_the_order_is_fixed_and_every_step_is_there(mapping):
    _, steps = eligibility.judge(mapping, everybody())

    assert [step.name for step in steps] == list(eligibility.ORDER[:-1])
    assert [step.remaining for step in steps] == [4] * 6


def test_removed_people_go_first(mapping):
    erase("anna")
    merge("bert", "carl")
    gone = everybody()  # the keys of the gone are gone with them

    left, steps = eligibility.judge(mapping, BitMap(range(1, 5)))

    assert len(left) == 2
    assert steps[0].name == "removed"
    assert len(steps[0].taken_out) == 2
    assert left <= gone


@pytest.mark.parametrize(
    ("policy", "by_country", "left"),
    [
        ("opt_out", {}, {"anna", "carl", "dora"}),
        ("opt_in", {}, {"anna"}),
        ("opt_out", {"DE": "opt_in"}, {"anna", "dora"}),
        ("opt_in", {"FR": "opt_out"}, {"anna", "dora"}),
    ],
)
def test_consent_is_judged_by_the_policy_of_the_country(mapping, policy, by_country, left):
    Workspace.objects.update(consent_policy={"default": policy, "by_country": by_country})
    identify("anna", country="DE", consent_ad_user_data=True, consent_ad_personalization=True)
    identify("bert", country="DE", consent_ad_personalization=False)
    identify("carl", country="DE")
    identify("dora", country="FR")

    assert judge(mapping)[0] == numbers(*left)


def test_each_purpose_needs_its_own_consents(mapping):
    identify("anna", consent_ad_personalization=False)
    identify("bert", consent_ad_user_data=False)
    identify("carl", consent_analytics=False)

    assert judge(mapping)[1] == {"consent": numbers("anna", "bert")}
    assert judge(as_suppression(mapping))[1] == {"consent": numbers("bert")}
    assert set(eligibility.without_consent(everybody(), [Consent.Purpose.ANALYTICS])) == numbers("carl")
    assert not eligibility.without_consent(everybody(), eligibility.consents_needed("warehouse"))


@pytest.mark.parametrize("policy", [None, "no workspace"])
def test_nobody_is_sent_before_the_policy_is_answered(mapping, policy):
    if policy is None:
        Workspace.objects.update(consent_policy=None)
    else:
        Workspace.objects.all().delete()

    with pytest.raises(eligibility.NotAnswered, match="opt-in or opt-out"):
        judge(mapping)


def test_lists_and_audiences_are_left_out_everywhere_or_at_one_destination(mapping, sandbox, account_number):
    staff = lists.make("staff", "Staff", None)
    lists.change(staff, None, add=numbers("anna"))
    Exclusion.objects.create(person_list=staff)
    identify("bert", vip="1")
    vip = scene.audience("vip", {"attribute": "vip", "op": "is", "value": "1"}, purpose="suppression")
    refreshes.refresh([vip], cause="manual")
    Exclusion.objects.create(destination=mapping.destination, audience=vip)
    other = scene.destination(sandbox, account_number, "google")
    elsewhere = Mapping.objects.create(audience=mapping.audience, destination=other, identifiers=["email"])

    assert judge(mapping)[1] == {"excluded": numbers("anna", "bert")}
    assert judge(elsewhere)[1] == {"excluded": numbers("anna")}
    assert judge(as_suppression(mapping))[1] == {}


def test_whoever_must_be_left_out_but_cannot_be_named_stops_everybody(mapping):
    uncounted = scene.audience("vip", scene.IN, purpose="suppression")
    audiences.set_excluded_by(actor=None, audience=mapping.audience, suppressions=[uncounted])

    with pytest.raises(eligibility.CannotExclude, match="vip"):
        judge(mapping)


def test_the_steps_are_kept_for_the_waterfall(sandbox, account_number):
    scene.workspace()
    scene.imported("anna", "bert")
    scene.imported("guest", email="")
    identify("bert", consent_ad_user_data=False)
    connected = scene.live(sandbox, account_number, scene.audience("all", scene.IN))
    connected.sync()

    rows = Eligibility.objects.filter(mapping=connected.mapping).order_by("position")
    assert [(row.step, row.out_count, row.remaining) for row in rows] == [
        ("removed", 0, 3),
        ("consent", 1, 2),
        ("excluded", 0, 2),
        ("cooldown", 0, 2),
        ("priority", 0, 2),
        ("holdout", 0, 2),
        ("unreachable", 1, 1),
    ]
    assert unpack(rows[1].taken_out) == BitMap([number("bert")])
    connected.sync()
    assert Eligibility.objects.values("refresh").distinct().count() == 2
    assert Membership.objects.get().count == 3


def test_identities_are_found_alike_for_few_and_for_many(mapping, monkeypatch):
    identify("anna", email="anna.new@example.com")
    few = identities.in_force(everybody(), ["email"])
    monkeypatch.setattr(identities, "_FEW", 0)

    assert identities.in_force(everybody(), ["email"]) == few
    assert set(few[0]) == {scene.identity_of(id) for id in EVERYBODY}
    assert set(few[1]) == numbers(*EVERYBODY)
    assert identities.in_force(everybody(), ["phone"]) == (BitMap(), BitMap())


@pytest.mark.parametrize("policy", ["opt_in", "opt_out"])
def test_who_may_be_sent_is_found_alike_for_few_and_for_many(mapping, monkeypatch, policy):
    Workspace.objects.update(consent_policy={"default": policy, "by_country": {"DE": "opt_in", "FR": "opt_out"}})
    identify("anna", country="DE", consent_ad_user_data=True, consent_ad_personalization=True)
    identify("bert", country="FR", consent_ad_personalization=False)
    identify("carl", country="FR")
    people = everybody()
    merge("carl", "dora")
    few = judge(mapping), eligibility.judge(mapping, people), eligibility.merged(people)
    monkeypatch.setattr(eligibility, "_FEW", 0)

    assert (judge(mapping), eligibility.judge(mapping, people), eligibility.merged(people)) == few
    assert few[2] == people - everybody()


def test_an_identifier_of_a_kind_that_is_only_taken_back_is_spared_for_nobody(mapping):
    identify("anna", email="anna@example.com", phone="+491701234567")
    old = scene.identity_of("anna")
    identify("anna", email="anna.new@example.com")
    there = BitMap([scene.identity_of("anna")])

    def phones(sent):
        return (
            identities.removal(identities.rows(BitMap([old]), ("email", "phone")), there, sent)
            .people["phone"]
            .to_pylist()
        )

    assert phones(("email", "phone")) == [None]
    assert phones(("email",)) == ["+491701234567"]


def test_who_shares_an_identifier_is_found_by_an_index(mapping, monkeypatch):
    """SQLite takes a partial index only for a condition in the index's own words."""
    identify("anna", first_name="Anna", last_name="Smith", zip="10115", phone="+491701234567")
    kinds = ("email", "phone", "external_id", "first_name", "last_name", "zip")
    found = identities.rows(BitMap([scene.identity_of("anna")]), kinds)
    people = everybody()
    monkeypatch.setattr(eligibility, "_FEW", 0)  # of a few, the numbers are the index
    with CaptureQueriesContext(connection) as asked:
        identities.removal(found, BitMap([1]), kinds)
        eligibility.gone(people)
        eligibility.merged(people)

    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}[connection.vendor]
    assert len(asked) == 6
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET enable_seqscan = off")  # a handful of rows would be read whole
        for query in asked:
            cursor.execute(f"{explain} {query['sql'].replace('%', '%%')}")
            steps = " ".join(str(row[-1]) for row in cursor.fetchall())
            assert "identity_by_" in steps or "profile_gone" in steps, steps
        if connection.vendor == "postgresql":
            cursor.execute("RESET enable_seqscan")
