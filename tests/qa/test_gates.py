"""No retargeting goes live without suppression beside it, or a named person's exception that has not ended."""

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from audiences.models import Audience, AuditEntry
from destinations.models import Destination, Mapping
from destinations.services import Refused, Stopped, mappings
from qa import gates
from tests import filled
from tests.destinations import scene
from tests.filled import as_

pytestmark = pytest.mark.django_db
S = Mapping.State


@pytest.fixture
def world() -> filled.Filled:
    """The cart's connection as it was before it went live."""
    world = filled.fill()
    Mapping.objects.filter(pk=world.mapping.pk).update(state=S.REHEARSAL, override=None)
    world.mapping.refresh_from_db()
    return world


def beside(world: filled.Filled, state: str = S.LIVE) -> Mapping:
    """The suppression audience on the same destination."""
    return Mapping.objects.create(
        audience=world.buyers, destination=world.destination, identifiers=["email"], state=state
    )


def live(world: filled.Filled) -> str:
    mapping = Mapping.objects.select_related("audience", "destination").get(pk=world.mapping.pk)
    return mappings.go_live(actor=world.users["operator"], mapping=mapping).state


@pytest.mark.parametrize("state", [S.REHEARSAL, S.RETIRED, S.FROZEN])
def test_a_suppression_audience_that_is_not_at_work_there_does_not_count(world, state):
    beside(world, state)
    with pytest.raises(Stopped, match="meta_buyers_7d"):
        live(world)
    world.mapping.refresh_from_db()
    assert world.mapping.state == S.REHEARSAL


@pytest.mark.parametrize("state", [S.LIVE, S.TRIAL, S.PAUSED])
def test_one_that_is_at_work_there_lets_it_pass(world, state):
    beside(world, state)
    assert live(world) == S.LIVE


def test_one_on_another_destination_does_not_count(world):
    other = Destination.objects.create(key="other", name="Other", kind="meta", account=world.destination.account)
    Mapping.objects.create(audience=world.buyers, destination=other, identifiers=["email"], state=S.LIVE)
    with pytest.raises(Stopped, match="is not connected to Meta EU"):
        live(world)


def test_one_that_is_not_linked_or_is_archived_does_not_count(world):
    beside(world)
    world.cart.excluded_by.clear()
    with pytest.raises(Stopped, match="No suppression audience is linked"):
        live(world)
    world.cart.excluded_by.add(world.buyers)
    Audience.objects.filter(pk=world.buyers.pk).update(archived_at=timezone.now())
    with pytest.raises(Stopped):
        live(world)


def test_a_trial_and_a_resumption_by_a_person_are_asked_too(world):
    operator = world.users["operator"]
    with pytest.raises(Stopped):
        mappings.start_trial(actor=operator, mapping=world.mapping)
    Mapping.objects.filter(pk=world.mapping.pk).update(state=S.PAUSED, state_before=S.LIVE)
    world.mapping.refresh_from_db()
    with pytest.raises(Stopped):
        mappings.resume(actor=operator, mapping=world.mapping)
    beside(world)
    assert mappings.resume(actor=operator, mapping=world.mapping).state == S.LIVE


def test_suppression_and_other_purposes_are_not_asked(world):
    for purpose in ("suppression", "lookalike"):
        audience = filled.audience(f"of_{purpose}", filled.BUYERS, world.users["marketer"], purpose)
        mapping = mappings.create(actor=None, audience=audience, destination=world.destination, identifiers=["email"])
        assert mappings.go_live(actor=None, mapping=mapping).state == S.LIVE


@pytest.mark.parametrize(
    ("written", "holds"),
    [
        ({"by": "operator@example.com", "reason": "launch", "until": timedelta(days=3)}, True),
        ({"by": "operator@example.com", "reason": "launch", "until": None}, True),
        ({"by": "operator@example.com", "reason": "launch", "until": timedelta(minutes=-1)}, False),
        ({"by": "operator@example.com", "reason": "  ", "until": timedelta(days=3)}, False),
        ({"by": "", "reason": "launch", "until": timedelta(days=3)}, False),
        ({}, False),
        (None, False),
    ],
)
def test_an_exception_names_a_person_and_a_reason_and_ends(world, written, holds):
    if written:
        until = written["until"] and (timezone.now() + written["until"]).isoformat()
        written = {**written, "until": until}
    Mapping.objects.filter(pk=world.mapping.pk).update(override=written)
    world.mapping.refresh_from_db()
    assert gates.excepted(world.mapping) is holds
    if holds:
        assert live(world) == S.LIVE
    else:
        with pytest.raises(Stopped):
            live(world)


def test_many_connections_are_asked_about_in_one_query(world, django_assert_num_queries):
    beside(world)
    with django_assert_num_queries(1):
        assert gates.suppressed_among([world.mapping] * 3) == {world.mapping.pk}


# --- In the browser.


def test_the_page_says_what_is_missing_with_both_remedies_and_only_to_whom_they_are_open(world):
    address = f"/connections/{world.mapping.pk}/"
    page = as_(world, "admin").get(address).content.decode()
    assert "meta_buyers_7d is not connected to Meta EU" in page
    assert f'href="/audiences/{world.cart.key}/pair/"' in page
    assert f'href="{address}do/exception/"' in page
    operators = as_(world, "operator").get(address).content.decode()
    assert f'href="{address}do/exception/"' in operators
    assert f'href="/audiences/{world.cart.key}/pair/"' not in operators


def test_going_live_is_refused_on_its_page_and_an_exception_lets_it_pass_on_record(world):
    client, base = as_(world, "operator"), f"/connections/{world.mapping.pk}/do"
    refused = client.post(f"{base}/live/", {"reason": "now"})
    assert refused.status_code == 422
    assert "Write an exception" in refused.content.decode()
    until = (timezone.localdate() + timedelta(days=10)).isoformat()
    client.post(f"{base}/exception/", {"reason": "The <b>outlet</b> has no buyers yet", "until": until})
    world.mapping.refresh_from_db()
    assert world.mapping.override["by"] == "operator@example.com"
    page = client.get(f"/connections/{world.mapping.pk}/").content.decode()
    assert "Exception from suppression" in page
    assert "The &lt;b&gt;outlet&lt;/b&gt; has no buyers yet" in page
    assert AuditEntry.objects.filter(verb="mapping.overridden", actor=world.users["operator"]).count() == 1
    client.post(f"{base}/live/", {"reason": "now"})
    world.mapping.refresh_from_db()
    assert world.mapping.state == S.LIVE


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"reason": "", "until": "+5"}, "This field is required"),
        ({"reason": "x", "until": ""}, "This field is required"),
        ({"reason": "x", "until": "-1"}, "must not lie in the past"),
        ({"reason": "x", "until": "+91"}, "At most 90 days"),
        ({"reason": "x" * 501, "until": "+5"}, "at most 500 characters"),
        ({"reason": "x", "until": "soon"}, "Enter a valid date"),
    ],
)
def test_an_exception_needs_a_reason_and_an_end_within_ninety_days(world, form, words):
    if form["until"][:1] in ("+", "-"):
        form = {**form, "until": (timezone.localdate() + timedelta(days=int(form["until"]))).isoformat()}
    response = as_(world, "operator").post(f"/connections/{world.mapping.pk}/do/exception/", form)
    assert response.status_code == 422
    assert words in response.content.decode()
    world.mapping.refresh_from_db()
    assert world.mapping.override is None


def test_who_may_not_edit_connections_writes_no_exception_and_suppression_needs_none(world):
    for role in ("marketer", "buyer"):
        assert as_(world, role).get(f"/connections/{world.mapping.pk}/do/exception/").status_code == 403
    suppression = beside(world, S.REHEARSAL)
    page = as_(world, "operator").get(f"/connections/{suppression.pk}/").content.decode()
    assert "exception" not in page


# --- apply.

FILE = """
audiences:
  - {key: cart_24h, purpose: retargeting, segment: {event: add_to_cart, count: {at_least: 1}, within: 24h}%(links)s}
  - {key: bought_14d, purpose: suppression, segment: {event: purchase, count: {at_least: 1}, within: 14d}}
destinations:
  - {key: m, kind: meta, config: {ad_account_id: "act_1"}, credentials: {access_token: {env: META_TOKEN}}}
mappings:
  - {audience: cart_24h, destination: m, identifiers: [email], state: live%(override)s}
  - {audience: bought_14d, destination: m, identifiers: [email], state: live}
"""


@pytest.fixture
def apply(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("META_TOKEN", "t")

    def run(links="", override="", *options):
        path = tmp_path / "shop.yaml"
        path.write_text(FILE % {"links": links, "override": override})
        code = 0
        try:
            call_command("apply", str(path), *options)
        except CommandError as error:
            code, words = error.returncode, str(error)
            print(words)
        return code, capsys.readouterr().out

    return run


def states() -> dict[str, str]:
    rows = Mapping.objects.filter(destination__key="m")
    return dict(rows.values_list("audience__key", "state"))


def test_apply_takes_suppression_live_first_whatever_the_order_in_the_file(apply):
    code, _ = apply(", excluded_by: [bought_14d]")
    assert code == 0
    assert states() == {"cart_24h": "live", "bought_14d": "live"}


def test_apply_leaves_what_a_gate_stops_in_rehearsal_does_the_rest_and_exits_3(apply):
    code, out = apply()
    assert code == 3
    assert states() == {"cart_24h": "rehearsal", "bought_14d": "live"}
    [line] = [line for line in out.splitlines() if "cart_24h → m stays as it was" in line]
    assert "No suppression audience is linked" in line
    code, _ = apply(", excluded_by: [bought_14d]")  # put right in the file, it goes on from there
    assert (code, states()["cart_24h"]) == (0, "live")


def test_apply_says_what_was_stopped_to_machines_too(apply):
    code, out = apply("", "", "--json")
    assert code == 3
    assert '"mapping": "cart_24h → m"' in out.replace('":"', '": "')


def test_an_override_in_the_file_passes_the_gate(apply):
    code, _ = apply("", ', override: {by: operator@example.com, reason: "first campaign"}')
    assert (code, states()["cart_24h"]) == (0, "live")
    assert Mapping.objects.get(audience__key="cart_24h", destination__key="m").override["reason"] == "first campaign"


def test_a_refusal_that_is_no_gates_is_none_of_these(world):
    mapping = mappings.create(
        actor=None,
        audience=world.draft,
        destination=scene.destination(_Nowhere(), "act_9", "webhook"),
        identifiers=["email"],
    )
    with pytest.raises(Refused) as refused:
        mappings.go_live(actor=None, mapping=mapping)
    assert not isinstance(refused.value, Stopped)


class _Nowhere:
    """A sandbox that is never called."""

    base_url = "http://127.0.0.1:9"


def test_apply_does_not_bring_back_what_was_paused_without_suppression_either(apply):
    apply("", ', override: {by: operator@example.com, reason: "first campaign"}')
    Mapping.objects.filter(audience__key="cart_24h").update(state="paused", state_before="live", override=None)
    code, _ = apply()
    assert (code, states()["cart_24h"]) == (3, "paused")


def test_the_end_of_a_freeze_asks_nobody(world):
    past = timezone.now() - timedelta(minutes=1)
    Mapping.objects.filter(pk=world.mapping.pk).update(state=S.FROZEN, state_before=S.LIVE, state_until=past)
    assert mappings.thaw(now=timezone.now()) == 1
    world.mapping.refresh_from_db()
    assert world.mapping.state == S.LIVE
