"""Consent from attributes that a workspace names, beside what people say outright: the latest word counts, and all of it is kept."""

import gzip

import pytest
from django.db import transaction

from audiences import jobs
from audiences.models import Consent, ConsentStatement, ImportFile, Job, RefusedRow, Workspace
from audiences.people import consents, imports, profiles
from audiences.people.payloads import profile_row
from audiences.services import workspace
from tests import filled
from tests.audiences.people_in import identify, merge, number

pytestmark = pytest.mark.django_db
NOW = 1_790_000_000_000_000
HOUR = 3_600_000_000
ADS = ["ad_user_data", "ad_personalization"]


def rule(attribute, purposes=ADS, yes=(), no=()):
    return {"attribute": attribute, "purposes": list(purposes), "yes": list(yes), "no": list(no)}


def read_as_consent(*rules):
    workspace.change(actor=None, consent_attributes=list(rules))
    jobs.run_due_here(["compute"])


def say(at_us=NOW, **attributes):
    with transaction.atomic():
        profiles.upsert([profile_row("id", "ann", attributes, default_region="US", at_us=at_us)], source="test")


def holds(id="ann"):
    return {row.purpose: row.granted for row in Consent.objects.filter(profile_no=number(id))}


@pytest.mark.parametrize(
    ("value", "granted"),
    [
        (True, True), (False, False), ("granted", True), ("denied", False), ("TRUE", True), ("no", False), (1, True),
        ("opted_in", True), ("Gone", False),
    ],
)  # fmt: skip
def test_an_attribute_says_yes_or_no_to_the_uses_it_is_named_for(value, granted):
    read_as_consent(rule("marketing_ads_ok", yes=["Opted_in"], no=["gone"]))
    say(marketing_ads_ok=value)
    assert holds() == dict.fromkeys(ADS, granted)


def test_a_value_that_says_neither_is_put_on_record_and_changes_nothing():
    read_as_consent(rule("marketing_ads_ok"))
    identify("ann", marketing_ads_ok="no")
    identify("ann", marketing_ads_ok="perhaps")
    assert holds() == dict.fromkeys(ADS, False)
    row = RefusedRow.objects.get()
    assert (row.field, row.reason) == (
        "marketing_ads_ok",
        "does not say whether consent is given: kept as an attribute",
    )


def test_of_two_attributes_that_disagree_the_no_counts():
    read_as_consent(rule("a_ok"), rule("b_ok"))
    say(a_ok=False, b_ok=True)
    assert holds() == dict.fromkeys(ADS, False)


def test_an_attribute_that_stays_as_it_was_overrules_nobody_who_has_said_something_since():
    read_as_consent(rule("marketing_ads_ok"))
    say(marketing_ads_ok=True)
    say(NOW + HOUR, consent_ad_user_data=False)
    say(NOW + 2 * HOUR, marketing_ads_ok=True)  # the shop's nightly file, as every night
    assert holds() == {"ad_user_data": False, "ad_personalization": True}
    say(NOW + 3 * HOUR, marketing_ads_ok=False)
    say(NOW + 4 * HOUR, marketing_ads_ok=True)  # they changed their mind in the shop
    assert holds() == dict.fromkeys(ADS, True)


def test_what_is_said_outright_in_the_same_call_counts_more_than_the_attribute():
    read_as_consent(rule("marketing_ads_ok"))
    say(marketing_ads_ok=True, consent_ad_user_data=False)
    assert holds() == {"ad_user_data": False, "ad_personalization": True}


def test_a_word_that_was_confirmed_is_not_undone_by_a_call_from_before_the_confirmation():
    say(consent_analytics=False)
    say(NOW + 2 * HOUR, consent_analytics=False)
    say(NOW + HOUR, consent_analytics=True)
    assert holds() == {"analytics": False}
    assert Consent.objects.get().at_us == NOW + 2 * HOUR
    assert ConsentStatement.objects.count() == 1  # a confirmation is no change


def test_consent_at_says_when_it_was_given_and_cannot_lie_ahead():
    say(consent_analytics=True, consent_at="2026-01-02T00:00:00Z")
    assert Consent.objects.get().at_us == 1_767_312_000_000_000
    say(consent_analytics=False, consent_at="2026-01-01T00:00:00Z")
    assert holds() == {"analytics": True}
    say(NOW, consent_analytics=False, consent_at="2099-01-01")
    assert (holds(), Consent.objects.get().at_us) == ({"analytics": False}, NOW)


def test_naming_another_attribute_reads_everybody_anew_with_progress():
    for id, ok in (("ann", "yes"), ("bob", "no"), ("cem", "?")):
        identify(id, ads=ok, email=f"{id}@example.com")
    assert not Consent.objects.exists()

    read_as_consent(rule("ads"))

    assert (holds("ann"), holds("bob"), holds("cem")) == (dict.fromkeys(ADS, True), dict.fromkeys(ADS, False), {})
    progress = Job.objects.get(task=consents.TASK).progress
    assert (progress["people"], progress["of"], progress["changed"]) == (3, 3, 4)
    assert set(Consent.objects.values_list("source", "attribute")) == {("settings", "ads")}

    read_as_consent(rule("ads", ["analytics"]))
    assert holds("bob") == {"analytics": False}
    read_as_consent()
    assert not Consent.objects.exists()
    last = ConsentStatement.objects.filter(profile_no=number("bob")).latest("pk")
    assert (last.purpose, last.granted) == ("analytics", None)


def test_naming_an_attribute_overrules_nobody_who_has_said_something_outright():
    identify("ann", ads=True, consent_ad_user_data=False)
    read_as_consent(rule("ads"))
    assert holds() == {"ad_user_data": False, "ad_personalization": True}


def test_what_had_been_said_outright_holds_again_when_the_attribute_that_overruled_it_is_read_no_more():
    read_as_consent(rule("ads"))
    say(consent_ad_user_data=True)
    say(NOW + HOUR, ads="no")
    assert holds() == dict.fromkeys(ADS, False)
    read_as_consent()
    assert holds() == {"ad_user_data": True}
    assert Consent.objects.get().at_us == NOW


def test_an_attribute_that_is_taken_away_leaves_the_last_word_standing():
    read_as_consent(rule("ads"))
    say(ads="no")
    say(NOW + HOUR, ads=None)
    assert holds() == dict.fromkeys(ADS, False)
    workspace.change(actor=None, consent_attributes=[rule("ads", yes=["y"])])
    jobs.run_due_here(["compute"])
    assert holds() == dict.fromkeys(ADS, False)


def test_a_merge_keeps_each_statement_with_its_own_time():
    read_as_consent(rule("ads"))
    say(consent_analytics=True)
    with transaction.atomic():
        profiles.upsert(
            [
                profile_row(
                    "id", "bob", {"consent_analytics": False, "ads": True}, default_region="US", at_us=NOW + HOUR
                )
            ],
            source="test",
        )
    merge("ann", "bob")
    assert holds() == {"analytics": False, **dict.fromkeys(ADS, True)}
    assert Consent.objects.get(purpose="analytics").at_us == NOW + HOUR
    assert ConsentStatement.objects.filter(profile_no=number("ann"), purpose="analytics").count() == 3
    say(NOW + HOUR // 2, consent_analytics=True)
    assert holds()["analytics"] is False
    say(NOW + 2 * HOUR, consent_analytics=True)
    assert holds()["analytics"] is True


def test_a_files_columns_may_say_consent_and_when(tmp_path):
    path = tmp_path / "people.csv.gz"
    path.write_bytes(gzip.compress(b"nr,ok,since\n1,denied,2026-01-02\n2,granted,\n3,maybe,2026-01-02\n"))
    columns = {"id": "nr", "consent_ad_user_data": "ok", "consent_at": "since"}
    done = imports.run_here(imports.start(path, ImportFile.Kind.PROFILES, columns, in_background=False))
    said = {number(id): Consent.objects.filter(profile_no=number(id)).first() for id in ("1", "2", "3")}
    first = said[number("1")]
    assert (first.granted, first.at_us, first.source) == (False, 1_767_312_000_000_000, f"import {done.pk}")
    assert said[number("2")].granted is True
    assert said[number("3")] is None
    assert RefusedRow.objects.get(line=4).field == "ok"


@pytest.mark.parametrize(
    "value",
    [
        "ads", [{"attribute": "ads"}], [rule("")], [rule("ads", [])], [rule("ads", ["sales"])], [rule("ads"), rule("ads")],
        [rule("consent_analytics")], [rule("ads", yes=["x"], no=["X "])], [{**rule("ads"), "more": 1}], [rule("a" * 151)],
        [rule(f"a{n}") for n in range(21)],
    ],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_refused(value):
    with pytest.raises(workspace.SettingRefused):
        workspace.change(actor=None, consent_attributes=value)


def test_attributes_are_named_and_removed_on_the_consent_page_and_a_persons_page_shows_who_said_what():
    world = filled.fill()
    admin = filled.as_(world, "admin")
    posted = {"attribute": "tier", "purposes": ["analytics"], "yes": "gold, silver", "no": ""}
    assert admin.post("/settings/consent/attributes/", posted).status_code == 302
    page = admin.get("/settings/consent/").content.decode()
    assert "read anew" in page and "gold, silver" in page
    jobs.run_due_here(["compute"])
    page = admin.get("/settings/consent/").content.decode()
    assert "read anew" not in page and '<td class="num" data-label="Yes">1</td>' in page

    person = admin.get(f"/people/{world.person}/").content.decode()
    assert 'Analytics: <span class="good">yes</span>' in person and '<code class="anywhere">tier</code>' in person

    wrong = admin.post("/settings/consent/attributes/", {**posted, "no": "gold"})
    assert wrong.status_code == 422 and "cannot mean both yes and no" in wrong.content.decode()
    admin.post("/settings/consent/attributes/", {"remove": "tier"})
    assert Workspace.objects.get().consent_attributes == []
    assert filled.as_(world, "operator").post("/settings/consent/attributes/", posted).status_code == 403
