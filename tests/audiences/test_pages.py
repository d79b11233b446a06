"""The pages of people and audiences, as a browser without scripts sees them."""

import io
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from audiences import clock
from audiences.models import (
    ApiKey,
    Audience,
    AuditEntry,
    ImportFile,
    Job,
    Membership,
    Refresh,
    SegmentVersion,
    User,
    Workspace,
    frozen,
)
from audiences.people import imports as files
from audiences.services import users as user_service
from tests import filled
from tests.audiences.people_in import identify, number
from tests.filled import as_

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> filled.Filled:
    cache.clear()
    return filled.fill()


def text(response) -> str:
    return response.content.decode()


# --- Who may see what.


def test_every_page_answers_the_roles_that_may_and_refuses_the_others(world):
    for address, roles in filled.addresses(world).items():
        for role in User.Role.values:
            response = as_(world, role).get(address)
            expected = 200 if role in roles else 403
            assert response.status_code == expected, (address, role)
            if expected == 403:
                assert "not for your role" in text(response), (address, role)


def test_every_page_sends_a_stranger_to_the_sign_in_and_back(world):
    for address in filled.addresses(world):
        response = Client().get(address)
        assert response.status_code == 302, address
        assert parse_qs(urlsplit(response["Location"]).query) == {"next": [address]}, address


def test_an_expired_session_inside_a_fragment_leads_the_whole_page_to_the_sign_in(world):
    response = Client().get(
        f"/runs/{world.run.pk}/", headers={"HX-Request": "true", "HX-Current-URL": "http://testserver/runs/?a=1&b=2"}
    )
    assert response.status_code == 204
    assert response["HX-Redirect"] == "/sign-in/?next=%2Fruns%2F%3Fa%3D1%26b%3D2"


def test_every_page_has_one_heading_no_inline_script_or_style_and_is_not_kept_by_browsers(world):
    client = as_(world, "admin")
    for address in filled.addresses(world):
        response = client.get(address)
        page = text(response)
        assert page.count("<h1") == 1, address
        assert " style=" not in page, address
        assert "<style" not in page, address
        assert "onclick" not in page, address
        assert "<script>" not in page, address
        assert response["Cache-Control"] == "no-store, private", address


def test_what_does_not_exist_is_not_found_for_everyone_who_may_look(world):
    client = as_(world, "admin")
    for address in (
        "/audiences/no_such/",
        "/audiences/no_such/connections/",
        "/people/999999/",
        f"/people/{world.person}/audiences/no_such/",
        "/imports/999/",
        "/imports/refused/?import=999",
        "/destinations/no_such/",
        "/destinations/new/no_such/",
        "/connections/999/",
        f"/connections/{world.mapping.pk}/do/no_such/",
        "/runs/999/",
        "/no-such-page/",
    ):
        response = client.get(address)
        assert response.status_code == 404, address
        assert "There is nothing at this address" in text(response), address


def test_a_buyer_sees_no_personal_data_anywhere(world):
    client = as_(world, "buyer")
    for address, roles in filled.addresses(world).items():
        if "buyer" in roles:
            page = text(client.get(address))
            for secret in ("ann@shop.example", "bob@shop.example", "+4915112345678", "15112345678"):
                assert secret not in page, (address, secret)


# --- Coming in.


def test_an_empty_installation_leads_every_address_to_the_first_set_up():
    for address in ("/", "/audiences/", "/settings/"):
        response = Client().get(address, follow=True)
        assert response.redirect_chain[-1][0] == "/setup/", address
        assert "Set up Rollcall" in text(response)


SET_UP = {
    "user_name": "Ada",
    "email": "Ada@Example.com",
    "password": "harbour-lights-9",
    "again": "harbour-lights-9",
    "name": "Harbour Goods",
    "timezone": "Europe/Berlin",
    "currency": "EUR",
    "default_region": "DE",
    "consent": "opt_out",
    "opt_in_countries": "DE, fr",
}


def test_the_first_set_up_makes_the_workspace_and_its_admin_and_signs_them_in():
    client = Client()
    response = client.post("/setup/", SET_UP, follow=True)
    assert response.status_code == 200
    user = User.objects.get()
    assert (user.email, user.role, user.check_password("harbour-lights-9")) == ("ada@example.com", "admin", True)
    assert Workspace.objects.get().consent_policy == {
        "default": "opt_out",
        "by_country": {"DE": "opt_in", "FR": "opt_in"},
    }
    assert "Rollcall is set up" in text(response)
    assert Client().get("/setup/")["Location"] == "/sign-in/"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"again": "something-else-9"}, "This is not the same password."),
        ({"password": "short", "again": "short"}, "too short"),
        ({"email": "nobody"}, "valid email"),
        ({"timezone": "Mars/Base"}, "not one of the available choices"),
        ({"opt_in_countries": "DE, XX"}, "Not the two letters of a country: XX"),
        ({"opt_out_countries": "DE"}, "Named in both lists: DE"),
        ({"consent": ""}, "This field is required"),
        ({"name": "x" * 101}, "at most 100 characters"),
    ],
)
def test_the_first_set_up_says_what_is_wrong_and_makes_nothing(change, words):
    response = Client().post("/setup/", SET_UP | change)
    assert response.status_code == 422
    assert words in text(response)
    assert not User.objects.exists()
    assert not Workspace.objects.exists()


def test_signing_in_leads_where_one_wanted_to_go_and_never_to_another_host(world):
    for wanted, target in (("/runs/", "/runs/"), ("https://evil.example/", "/"), ("//evil.example/x", "/")):
        client = Client()
        response = client.post(
            "/sign-in/", {"email": "Buyer@Example.com ", "password": filled.PASSWORD, "next": wanted}
        )
        assert (response.status_code, response["Location"]) == (302, target)


def test_a_wrong_password_an_unknown_address_and_a_deactivated_user_read_the_same(world):
    user_service.deactivate(actor=None, user=world.users["operator"])
    for email, password in (
        ("buyer@example.com", "wrong"),
        ("nobody@example.com", "wrong"),
        ("operator@example.com", filled.PASSWORD),
    ):
        response = Client().post("/sign-in/", {"email": email, "password": password})
        assert response.status_code == 422
        assert "E-mail or password is wrong, or this user may no longer sign in." in text(response)


def test_the_demo_lets_one_in_with_one_click_as_each_sample_user_and_nothing_else_does(world, settings):
    assert 'name="role"' not in text(Client().get("/sign-in/"))
    assert Client().post("/enter/", {"role": "buyer"}).status_code == 404
    settings.DEMO = True
    page = text(Client().get("/sign-in/?next=/runs/"))
    assert 'name="password"' in page
    for role in User.Role.values:
        assert f'name="role" value="{role}"' in page
        client = Client()
        assert client.post("/enter/", {"role": role, "next": "/runs/"})["Location"] == "/runs/"
        assert f"{role}@example.com" in text(client.get("/runs/"))
    assert Client().post("/enter/", {"role": "buyer", "next": "https://elsewhere.example/"})["Location"] == "/"
    assert Client(enforce_csrf_checks=True).post("/enter/", {"role": "admin"}).status_code == 403
    assert Client().post("/enter/", {"role": "owner"}).status_code == 404
    assert Client().get("/enter/").status_code == 405


def test_the_demo_lets_nobody_in_as_a_user_who_is_not_of_the_sample(world, settings):
    settings.DEMO = True
    User.objects.filter(role="admin").update(email="ada@harbour.shop")
    assert Client().post("/enter/", {"role": "admin"}).status_code == 404
    assert 'value="admin"' not in text(Client().get("/sign-in/"))


def test_a_link_sets_a_password_once(world):
    invitation = user_service.invite(actor=world.users["admin"], email="new@example.com", role="buyer")
    link = invitation.link.removeprefix("http://127.0.0.1:8000")
    client = Client()
    assert "For new@example.com, media buyer in Harbour Goods" in text(client.get(link))
    assert client.post(link, {"password": "harbour-lights-9", "again": "other"}).status_code == 422
    assert client.post(link, {"password": "harbour-lights-9", "again": "harbour-lights-9"})["Location"] == "/"
    assert client.get("/audiences/").status_code == 200
    again = Client().get(link)
    assert again.status_code == 410
    assert "This link no longer works" in text(again)


def test_signing_out_needs_a_button_and_ends_the_session(world):
    client = as_(world, "buyer")
    assert client.get("/sign-out/").status_code == 405
    client.post("/sign-out/")
    assert client.get("/audiences/").status_code == 302


def test_a_form_without_its_token_is_refused_in_words(world):
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.users["admin"])
    response = client.post(f"/audiences/{world.cart.key}/count/")
    assert response.status_code == 403
    assert "This form was too old" in text(response)


def test_the_theme_is_kept_in_a_cookie_that_only_takes_what_there_is(world):
    client = as_(world, "buyer")
    client.post("/theme/", {"theme": "dark", "next": "/runs/"})
    assert 'data-theme="dark"' in text(client.get("/audiences/"))
    client.cookies["theme"] = '"><script>'
    page = text(client.get("/audiences/"))
    assert "data-theme" not in page
    assert client.post("/theme/", {"theme": "", "next": "https://evil.example"})["Location"] == "/"


def test_ones_own_account_changes_name_zone_keys_and_password(world):
    client = as_(world, "buyer")
    client.post("/account/", {"name": "Ben", "timezone": "Asia/Tokyo"})
    user = User.objects.get(email="buyer@example.com")
    assert (user.name, user.timezone, user.single_keys) == ("Ben", "Asia/Tokyo", False)
    assert "data-keys" not in text(client.get("/audiences/"))
    assert client.post("/account/password/", {"password": "short", "again": "short"}).status_code == 422
    client.post("/account/password/", {"password": "harbour-lights-9", "again": "harbour-lights-9"})
    assert client.get("/account/").status_code == 200, "the browser in which it was changed stays signed in"
    user.refresh_from_db()
    assert user.check_password("harbour-lights-9")


def test_times_are_shown_in_the_readers_zone(world):
    world.users["buyer"].timezone = "Asia/Tokyo"
    world.users["buyer"].save()
    assert " JST" in text(as_(world, "buyer").get(f"/audiences/{world.cart.key}/"))
    assert " CE" in text(as_(world, "admin").get(f"/audiences/{world.cart.key}/"))


# --- Lists, and what health says.


def test_htmx_gets_the_results_alone_and_the_whole_page_when_it_goes_back(world):
    client = as_(world, "buyer")
    part = text(client.get("/audiences/?q=cart", headers={"HX-Request": "true"}))
    assert "meta_cart_24h" in part
    assert "<html" not in part
    back = client.get("/audiences/?q=cart", headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})
    assert "<html" in text(back)
    assert "HX-Request" in back["Vary"]


def test_hostile_words_and_names_are_shown_and_never_run(world):
    hostile = "\"><script>alert(1)</script>{{ 7 }}' OR 1=1"
    Audience.objects.filter(pk=world.cart.pk).update(name=hostile, description=hostile)
    with frozen.set_aside():
        SegmentVersion.objects.filter(pk=world.cart.live_version_id).update(sentence=hostile, reason=hostile)
    identify("eve", email="eve@shop.example", **{hostile: hostile})
    client = as_(world, "admin")
    for address in (
        "/audiences/",
        f"/audiences/?q={hostile}",
        f"/audiences/{world.cart.key}/",
        f"/people/{number('eve')}/",
    ):
        page = text(client.get(address))
        assert "<script>alert" not in page, address
    for address in (
        "/audiences/?q=%00&only=%00&page=%00",
        "/runs/?state=%00&audience=%00",
        "/audiences/?page=99999999999999",
    ):
        assert client.get(address).status_code == 200, address


def grown(audience: Audience, *, usual: int, now: int) -> None:
    today = timezone.now().date()
    daily = [[(today - timedelta(days=back)).isoformat(), usual] for back in range(20, 0, -1)] + [
        [today.isoformat(), now]
    ]
    Membership.objects.filter(audience=audience).update(count=now, daily=daily)


@pytest.mark.parametrize(
    ("usual", "now", "word", "why"),
    [
        (1000, 590, "Problem", "Dropped 41% against its usual 1,000"),
        (1000, 1800, "Watch", "Grew 80% against its usual 1,000"),
        (1000, 900, "Healthy", ""),
        (20, 2, "Healthy", ""),
    ],
)
def test_health_tells_a_swing_from_chance(world, usual, now, word, why):
    grown(world.cart, usual=usual, now=now)
    response = as_(world, "buyer").get(f"/audiences/{world.cart.key}/")
    health = response.context["row"].health
    assert health.word == word
    assert health.why.startswith(why)
    assert response.context["row"].change == now - usual


def test_health_says_failed_late_uncountable_and_archived(world):
    def health() -> tuple[str, str]:
        found = as_(world, "buyer").get(f"/audiences/{world.cart.key}/").context["row"].health
        return found.word, found.why

    refresh = Refresh.objects.filter(audience=world.cart).latest("pk")
    Refresh.objects.filter(pk=refresh.pk).update(as_of_us=clock.now_us() - clock.DAY)
    assert health() == ("Watch", "The count is old: it should be made every 15 minutes.")
    Refresh.objects.create(
        audience=world.cart,
        version=refresh.version,
        state="failed",
        cause="schedule",
        as_of_us=2,
        error="the disk is full",
    )
    assert health() == ("Problem", "The last count failed: the disk is full. The count shown is the one before.")
    Audience.objects.filter(pk=world.cart.pk).update(invalid_reason="“step” is unknown")
    assert health()[0] == "Problem"
    assert "“step” is unknown" in health()[1]
    Audience.objects.filter(pk=world.cart.pk).update(archived_at=timezone.now())
    assert health()[0] == "Paused"


# --- People.


@pytest.mark.parametrize("words", ["ann", "ANN@Shop.example ", "+49 151 12345678"])
def test_a_person_is_found_by_id_e_mail_or_phone_and_no_address_carries_it(world, words):
    response = as_(world, "marketer").post("/people/", {"q": words})
    assert response["Location"] == f"/people/{world.person}/"


def test_nobody_found_says_so_without_repeating_what_was_typed_into_an_address(world):
    response = as_(world, "marketer").post("/people/", {"q": "nobody@shop.example"})
    assert response.status_code == 404
    assert "Nobody answers to that" in text(response)


def test_a_persons_page_masks_identifiers_and_says_which_rule_keeps_them_out(world):
    client = as_(world, "marketer")
    page = text(client.get(f"/people/{number('bob')}/"))
    assert "bob@shop.example" not in page
    assert "b•••@s•••.example" in page
    standing = {found.audience.key: found for found in client.get(f"/people/{number('bob')}/").context["standings"]}
    assert standing["meta_buyers_7d"].now is True
    assert standing["meta_cart_24h"].now is False
    assert [rule.words for rule in standing["meta_cart_24h"].decisive] == ["Did not do “purchase” in the last 3 days"]
    assert standing["meta_cart_24h"].counted is False
    ann = client.get(f"/people/{world.person}/")
    assert {found.audience.key: found.now for found in ann.context["standings"]} == {
        "meta_cart_24h": True,
        "meta_buyers_7d": False,
    }
    assert "Oilskin jacket" in text(ann)
    assert "Staff" in text(ann)
    assert "Ann" not in text(ann).replace("Annual", "")


def test_revealing_is_an_admins_and_leaves_a_line_on_record(world):
    address = f"/people/{world.person}/reveal/"
    assert as_(world, "marketer").post(address).status_code == 403
    assert as_(world, "admin").get(address).status_code == 405
    page = text(as_(world, "admin").post(address))
    assert "ann@shop.example" in page
    entry = AuditEntry.objects.get(verb="person.revealed")
    assert (entry.actor_label, entry.object_key) == ("admin@example.com", str(world.person))


def test_the_page_of_one_person_and_one_audience_says_when_they_came(world):
    page = text(as_(world, "operator").get(f"/people/{world.person}/audiences/{world.cart.key}/"))
    assert "In since before the first count on record" in page
    assert "Still in" in page


# --- Imports.


def test_a_file_goes_from_upload_by_its_columns_to_a_done_import(world, django_capture_on_commit_callbacks):
    client = as_(world, "operator")
    file = io.BytesIO(b"customer_id,mail,tier\nc1,c1@shop.example,gold\nc2,broken@@shop,silver\n")
    file.name = "people.csv"
    columns = client.post("/imports/new/", {"kind": "profiles", "file": file})
    assert columns.status_code == 302
    form = client.get(columns["Location"])
    assert form.context["form"].fields["map_id"].initial == "customer_id"
    assert form.context["form"].fields["map_email"].initial == "mail"
    started = client.post(columns["Location"], {"map_id": "customer_id", "map_email": "mail"})
    row = ImportFile.objects.get(name="people.csv")
    assert started["Location"] == f"/imports/{row.pk}/"
    live = client.get(started["Location"], headers={"HX-Request": "true"})
    assert live.status_code == 200
    assert "every 2s" in text(live)
    files.run_here(row)
    done = client.get(started["Location"], headers={"HX-Request": "true"})
    assert done.status_code == 286, "the page stops asking"
    row.refresh_from_db()
    assert row.state == "done"
    assert row.rows_read == 2


def test_an_upload_that_cannot_be_read_says_so_at_the_file(world):
    client = as_(world, "operator")
    for name, content, words in (
        ("people.xlsx", b"x", "must end in .csv"),
        ("empty.csv", b"", "empty"),
        ("people.parquet", b"PAR1 broken", "Parquet"),
    ):
        file = io.BytesIO(content)
        file.name = name
        response = client.post("/imports/new/", {"kind": "profiles", "file": file})
        assert response.status_code == 422, name
        assert words.lower() in text(response).lower(), name
    assert list(files.uploads().iterdir()) == []


def test_events_need_their_name_from_one_place(world):
    client = as_(world, "operator")
    file = io.BytesIO(b"customer_id,at,what\nann,2026-01-01,purchase\n")
    file.name = "events.csv"
    address = client.post("/imports/new/", {"kind": "events", "file": file})["Location"]
    for extra in ({}, {"map_name": "what", "event_name": "purchase"}):
        response = client.post(address, {"map_profile": "customer_id", "map_time": "at", **extra})
        assert response.status_code == 422
        assert "one of the two" in text(response)
    assert not ImportFile.objects.filter(kind="events").exists()
    assert client.post(f"{address}discard/")["Location"] == "/imports/"
    assert list(files.uploads().iterdir()) == []


def test_an_upload_belongs_to_the_session_that_made_it(world):
    file = io.BytesIO(b"customer_id\nc1\n")
    file.name = "people.csv"
    address = as_(world, "operator").post("/imports/new/", {"kind": "profiles", "file": file})["Location"]
    assert as_(world, "admin").get(address)["Location"] == "/imports/new/"


def test_refused_rows_are_masked_on_the_page_and_whole_only_in_an_export_on_record(world):
    for role in ("marketer", "operator"):
        page = text(as_(world, role).get(f"/imports/refused/?import={world.import_file.pk}"))
        assert "is not an e-mail address" in page
        assert "secret-person" not in page
        assert as_(world, role).post("/imports/refused/export/").status_code == 403
    response = as_(world, "admin").post("/imports/refused/export/", {"import": str(world.import_file.pk)})
    lines = b"".join(response).decode().splitlines()
    assert lines[0] == "source,file,line,field,reason,row"
    assert "secret-person@@shop.example" in lines[1]
    assert AuditEntry.objects.get(verb="refused.exported").object_key == str(world.import_file.pk)


def test_cancelling_asks_the_import_to_stop_and_an_ended_one_says_so(world):
    client = as_(world, "operator")
    row = ImportFile.objects.create(kind="events", name="e.csv", path="/x", state="reading")
    assert "stops at its next checkpoint" in text(client.post(f"/imports/{row.pk}/cancel/", follow=True))
    row.refresh_from_db()
    assert row.cancel_requested
    assert "had ended already" in text(client.post(f"/imports/{world.import_file.pk}/cancel/", follow=True))


# --- Settings.


def test_a_new_api_key_is_shown_once(world):
    client = as_(world, "admin")
    made = client.post("/settings/keys/", {"name": "Shop"})
    key = ApiKey.objects.get()
    secret = made.context["made"].secret
    assert secret in text(made)
    assert key.site_id in text(client.get("/settings/keys/"))
    assert secret not in text(client.get("/settings/keys/"))
    client.post(f"/settings/keys/{key.pk}/revoke/")
    key.refresh_from_db()
    assert key.revoked_at is not None


def test_users_are_invited_given_roles_and_let_go_and_the_last_admin_stays(world):
    client = as_(world, "admin")
    page = text(client.post("/settings/users/", {"email": "new@example.com", "name": "", "role": "buyer"}))
    assert "/set-password/" in page
    assert "a user with this e-mail address already" in text(
        client.post("/settings/users/", {"email": "new@example.com", "name": "", "role": "buyer"})
    )
    new = User.objects.get(email="new@example.com")
    client.post(f"/settings/users/{new.pk}/", {"deed": "role", "role": "operator"})
    new.refresh_from_db()
    assert new.role == "operator"
    for deed in ({"deed": "deactivate"}, {"deed": "role", "role": "buyer"}):
        response = client.post(f"/settings/users/{world.users['admin'].pk}/", deed, follow=True)
        assert "the only admin who can sign in" in text(response)
    assert client.post(f"/settings/users/{new.pk}/", {"deed": "role", "role": "king"}, follow=True).status_code == 200


def test_the_consent_policy_is_changed_whole(world):
    client = as_(world, "admin")
    client.post("/settings/consent/", {"consent": "opt_in", "opt_out_countries": "US"})
    assert Workspace.objects.get().consent_policy == {"default": "opt_in", "by_country": {"US": "opt_out"}}
    assert client.post("/settings/consent/", {"consent": "maybe"}).status_code == 422


def test_settings_refuse_what_the_service_refuses(world):
    response = as_(world, "admin").post(
        "/settings/", {"name": " ", "timezone": "UTC", "currency": "EUR", "default_region": "DE"}
    )
    assert response.status_code == 422
    assert Workspace.objects.get().name == "Harbour Goods"


def test_failing_background_work_comes_first_with_its_reason(world):
    Job.objects.create(task="audiences.flush", key="all", attempts=3, error="OSError in write:12")
    page = text(as_(world, "admin").get("/settings/jobs/"))
    assert "Failed 3 times" in page
    assert "OSError in write:12" in page
    assert page.index("audiences.flush") < page.index("audiences.refresh_due")


def test_the_trail_reads_in_words(world):
    page = text(as_(world, "buyer").get(f"/audiences/{world.cart.key}/"))
    assert "Version published: v1" in page
    assert "First version" in page
    assert "audience.published" not in page


def test_the_demo_tells_on_every_page_how_far_it_is_filled_and_loads_anew_when_it_is(world, settings):
    client = as_(world, "buyer")
    job = Job.objects.create(
        task="some.filling", key="x", lease_until=timezone.now(), progress={"step": "Taking events in", "percent": 45}
    )
    assert "Taking events in" not in text(client.get("/audiences/"))
    settings.DEMO = True
    page = text(client.get("/runs/"))
    assert "Taking events in" in page
    assert 'value="45"' in page
    asked = client.get("/working/", headers={"HX-Request": "true"})
    assert "HX-Refresh" not in asked
    assert "<html" not in text(asked)
    Job.objects.filter(pk=job.pk).update(lease_until=None)
    assert client.get("/working/", headers={"HX-Request": "true"})["HX-Refresh"] == "true"
    assert "Taking events in" not in text(client.get("/runs/"))
    assert client.get("/working/").status_code == 200
