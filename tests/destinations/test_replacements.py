"""An audience published beside another, over real sockets: who is in both remote audiences until the date, on it and after; and what is in its way."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from audiences import jobs
from audiences.models import Audience, AuditEntry, Job, Replacement, SegmentVersion, User
from audiences.services import audiences, locks, versions
from audiences.services import replacements as publishing
from destinations import replacements
from destinations.models import Destination, Hold, Mapping, Run
from destinations.services import mappings
from destinations.services import replacements as service
from tests.audiences.people_in import identify, track
from tests.destinations import scene
from tests.destinations.scene import Scene, hashes

pytestmark = pytest.mark.django_db(transaction=True)
GERMAN = {"all": [*scene.NO_PURCHASE["all"], {"attribute": "country", "op": "is", "value": "DE"}]}
S = Mapping.State


@pytest.fixture
def operator() -> User:
    return User.objects.create(email="admin@example.com", role="admin", name="Admin")


@pytest.fixture
def cart(sandbox: Any, account_number: str, operator: User) -> Scene:
    """Three people in a live retargeting audience, two of them in Germany."""
    scene.workspace()
    for id, country in (("anna", "DE"), ("bert", "DE"), ("carl", "FR")):
        identify(id, email=f"{id}@example.com", country=country, **{"in": "yes"})
    track("zoe", "purchase")
    made = scene.audience("cart", scene.NO_PURCHASE)
    owned = dict.fromkeys(("definition_owner", "sync_owner", "alert_owner"), operator)
    audiences.set_owners(actor=None, audience=made, **owned)
    live = scene.live(sandbox, account_number, made, cadence_seconds=600, removal_limit_percent=30)
    live.sync()
    return live


def suppress(sandbox: Any, account_number: str, *linked: Audience) -> Scene:
    """Buyers, live at the same account and left out of these."""
    bought = scene.audience("bought", {"event": "purchase", "count": {"at_least": 1}}, purpose="suppression")
    for audience in linked:
        audiences.link_suppression(actor=None, audience=audience, suppression=bought)
    return scene.live(sandbox, account_number, bought)


def beside(audience: Audience, actor: User | None, segment: dict[str, Any] = GERMAN) -> SegmentVersion:
    version = versions.save_draft(actor=actor, audience=audience, segment=segment)
    in_two_weeks = timezone.now() + timedelta(days=14)
    return publishing.publish(
        actor=actor, version=version, reason="Only Germany", retires_at=in_two_weeks, override="for the test"
    )


def work() -> None:
    """What a worker does, now that it is asked."""
    jobs.run_now(service.TASK, "")


def the_day_comes() -> Replacement:
    Replacement.objects.update(retires_at=timezone.now() - timedelta(seconds=1))
    work()
    return Replacement.objects.select_related("old", "new").get()


def of_new(old: Scene, key: str = "cart_v2") -> Scene:
    return replace(old, mapping=Mapping.objects.get(audience__key=key, destination=old.mapping.destination))


def sync_retired(old: Scene) -> None:
    """By the job that a retired connection has."""
    jobs.run_now(mappings.TASK, old.mapping.pk)


def words(row: Replacement | None = None) -> list[str]:
    found = row or Replacement.objects.select_related("old", "new").get()
    return [hindrance.words for hindrance in replacements.hindrances(found)]


def test_the_old_one_goes_on_losing_buyers_until_the_date_on_which_it_is_emptied_and_the_new_one_holds_its_own_people(
    cart: Scene, sandbox: Any, account_number: str, operator: User
) -> None:
    bought = suppress(sandbox, account_number, cart.mapping.audience)
    bought.sync()
    assert cart.emails() == hashes("anna", "bert", "carl")
    beside(cart.mapping.audience, operator)
    work()
    new = of_new(cart)
    assert (new.mapping.state, new.mapping.identifiers, new.mapping.cadence_seconds) == (S.LIVE, ["email"], 600)
    assert new.mapping.removal_limit_percent == 30
    assert new.sync().state == "done"
    assert new.emails() == hashes("anna", "bert")
    assert new.mapping.remote_id != cart.mapping.remote_id and new.mapping.remote_name == "cart_v2"
    assert cart.emails() == hashes("anna", "bert", "carl"), "ad sets on the old one keep it untouched"

    track("anna", "purchase")
    identify("dora", email="dora@example.com", country="DE", **{"in": "yes"})
    cart.sync()
    new.sync()
    assert cart.emails() == hashes("bert", "carl", "dora") and new.emails() == hashes("bert", "dora")
    track("carl", "purchase")
    cart.sync()
    assert cart.emails() == hashes("bert", "dora"), "who buys leaves the old one too, though the new one never had them"
    work()
    assert Mapping.objects.get(pk=cart.mapping.pk).state == S.LIVE, "before the date nothing ends"

    row = the_day_comes()
    cart.mapping.refresh_from_db()
    assert cart.mapping.state == S.RETIRED and row.begun_at is not None and row.hindered == []
    work()
    row.old.refresh_from_db()
    assert row.old.archived_at is None, "people are there still"
    sync_retired(cart)
    assert cart.emails() == set()
    work()
    row.old.refresh_from_db()
    assert row.old.archived_at is not None
    new.sync()
    assert new.emails() == hashes("bert", "dora")
    assert AuditEntry.objects.get(verb="audience.archived").object_key == "cart"
    before = AuditEntry.objects.count(), Run.objects.count()
    work()
    assert (AuditEntry.objects.count(), Run.objects.count()) == before, "asked again, nothing is done twice"


def test_killed_between_any_two_steps_it_goes_on_where_it_stopped(
    cart: Scene, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = beside(cart.mapping.audience, operator)
    own = mappings.create

    def dies(**given: Any) -> Mapping:
        own(**given)
        raise KeyboardInterrupt

    monkeypatch.setattr(mappings, "create", dies)
    with pytest.raises(KeyboardInterrupt):
        service.connect(Replacement.objects.get())
    monkeypatch.setattr(mappings, "create", own)
    assert not made.audience.mappings.exists()
    work()
    assert made.audience.mappings.count() == 1
    scene.allowed(of_new(cart).mapping)
    mappings.go_live(actor=None, mapping=of_new(cart).mapping)
    retire = mappings.retire

    def dies_too(**given: Any) -> Mapping:
        retire(**given)
        raise KeyboardInterrupt

    Replacement.objects.update(retires_at=timezone.now())
    monkeypatch.setattr(mappings, "retire", dies_too)
    with pytest.raises(KeyboardInterrupt):
        service.carry_out(Replacement.objects.get())
    monkeypatch.setattr(mappings, "retire", retire)
    assert Mapping.objects.get(pk=cart.mapping.pk).state == S.LIVE and Replacement.objects.get().begun_at is None
    assert the_day_comes().begun_at is not None


@pytest.mark.parametrize(
    ("role", "state", "wanted"),
    [
        ("admin", S.LIVE, S.LIVE),
        ("admin", S.TRIAL, S.TRIAL),
        ("admin", S.PAUSED, S.REHEARSAL),
        ("admin", S.FROZEN, S.REHEARSAL),
        ("admin", S.REHEARSAL, S.REHEARSAL),
        ("marketer", S.LIVE, S.REHEARSAL),
    ],
)
def test_a_copy_starts_as_the_old_one_is_where_whoever_publishes_may_start_connections(
    cart: Scene, sandbox: Any, account_number: str, operator: User, role: str, state: str, wanted: str
) -> None:
    suppress(sandbox, account_number, cart.mapping.audience)
    Mapping.objects.filter(pk=cart.mapping.pk).update(state=state)
    User.objects.filter(pk=operator.pk).update(role=role)
    operator.refresh_from_db()
    beside(cart.mapping.audience, operator)
    work()
    copy = of_new(cart).mapping
    assert copy.state == wanted and copy.override is None
    (pair,) = replacements.pairs(Replacement.objects.select_related("old", "new").get())
    if wanted != S.REHEARSAL:
        assert pair.waits == "" and Job.objects.filter(task=mappings.TASK, key=str(copy.pk)).exists()
    elif role == "marketer":
        assert pair.waits == "Nothing stands against it: an admin or operator takes it live."
    else:
        assert f"As the old one is {S(state).label.lower()} there" in pair.waits
    if wanted == S.REHEARSAL:
        assert copy.runs.get().rehearsal, "and shows what it would send"


def test_where_a_gate_objects_it_stays_a_rehearsal_and_says_why_though_the_old_one_has_an_exception(
    cart: Scene, operator: User
) -> None:
    beside(cart.mapping.audience, operator)
    work()
    assert of_new(cart).mapping.state == S.REHEARSAL
    (pair,) = replacements.pairs(Replacement.objects.select_related("old", "new").get())
    assert "No suppression audience is linked to cart_v2" in pair.waits


def test_a_name_that_somebody_chose_for_the_connection_is_told_apart(
    cart: Scene, sandbox: Any, account_number: str, operator: User
) -> None:
    suppress(sandbox, account_number, cart.mapping.audience)
    mappings.change(actor=None, mapping=cart.mapping, own_name="Carts of spring")
    beside(cart.mapping.audience, operator)
    work()
    new = of_new(cart)
    assert new.sync().state == "done" and new.emails() == hashes("anna", "bert")
    assert new.mapping.remote_name == "Carts of spring v2"


def test_a_connection_of_the_new_one_that_somebody_made_first_is_left_alone(cart: Scene, operator: User) -> None:
    made = beside(cart.mapping.audience, operator)
    own = mappings.create(
        actor=operator, audience=made.audience, destination=cart.mapping.destination, identifiers=["email", "phone"]
    )
    work()
    assert list(made.audience.mappings.all()) == [own]


# ---- What is in the way


@pytest.fixture
def replaced(cart: Scene, sandbox: Any, account_number: str, operator: User) -> Scene:
    """The old one; the new one is live beside it, and nothing is in the way."""
    suppress(sandbox, account_number, cart.mapping.audience)
    beside(cart.mapping.audience, operator)
    work()
    assert words() == []
    return cart


def stays(old: Scene, said: str) -> Replacement:
    """On the date nothing is retired, and why is kept."""
    first, *rest = words()
    assert said in first
    row = the_day_comes()
    old.mapping.refresh_from_db()
    assert row.begun_at is None and old.mapping.state != S.RETIRED
    assert row.hindered == [first, *rest] and row.hindered_since is not None
    return row


def goes(old: Scene) -> None:
    row = the_day_comes()
    old.mapping.refresh_from_db()
    assert row.begun_at is not None and old.mapping.state == S.RETIRED and row.hindered == []


def test_another_audiences_rule_that_names_it(replaced: Scene) -> None:
    both = scene.audience("both", {"all": [{"audience": "cart"}, scene.IN]}, "analytics")
    first = stays(replaced, "The rule of both names cart: publish one that names cart_v2 instead").hindered_since
    assert the_day_comes().hindered_since == first, "it is so since then, however often one looks"
    scene.audience(both.key, {"all": [{"audience": "cart_v2"}, scene.IN]})
    goes(replaced)


def test_a_test_that_goes_on(replaced: Scene) -> None:
    until = timezone.now() + timedelta(days=2)
    locks.set_lock(actor=None, audience=replaced.mapping.audience, until=until, note="Creative")
    stays(replaced, "cart is in test until")
    locks.end_lock(actor=None, audience=replaced.mapping.audience)
    goes(replaced)


def test_a_paused_and_a_frozen_connection(replaced: Scene) -> None:
    mappings.pause(actor=None, mapping=replaced.mapping)
    stays(replaced, f"Its connection to {replaced.mapping.destination.name} is paused")
    until = timezone.now() + timedelta(days=1)
    mappings.freeze(actor=None, mapping=replaced.mapping, reason="Legal looks at it", until=until)
    stays(replaced, "is frozen: let it go on, or retire it by hand")
    mappings.retire(actor=None, mapping=Mapping.objects.get(pk=replaced.mapping.pk))
    goes(replaced)


def test_what_keeps_people_from_being_removed_there(replaced: Scene) -> None:
    Mapping.objects.filter(pk=replaced.mapping.pk).update(blocked_reason="The audience is gone.")
    stays(replaced, "is stopped, so nobody can be removed there: The audience is gone.")
    Mapping.objects.filter(pk=replaced.mapping.pk).update(blocked_reason="")
    hold = Hold.objects.create(mapping=replaced.mapping, direction="removes", rule="x", reason="Feed is silent")
    stays(replaced, "are stopped for safety")
    Hold.objects.filter(pk=hold.pk).update(lifted_at=timezone.now())
    Destination.objects.update(state="refused")
    stays(replaced, "refuses our access")
    Destination.objects.update(state="connected")
    Mapping.objects.filter(pk=replaced.mapping.pk).update(lost="gone", lost_at=timezone.now(), blocked_reason="Gone.")
    goes(replaced)  # nobody is there
    work()
    assert Audience.objects.get(key="cart").archived_at is not None


def test_a_new_one_that_is_a_rehearsal_still_or_archived(replaced: Scene) -> None:
    copy = of_new(replaced).mapping
    Mapping.objects.filter(pk=copy.pk).update(state=S.REHEARSAL)
    stays(replaced, "cart_v2, which takes its place, is still a rehearsal")
    Mapping.objects.filter(pk=copy.pk).update(state=S.RETIRED)
    audiences.archive(actor=None, audience=copy.audience, reason="A mistake")
    stays(replaced, "cart_v2, which takes its place, is archived")


def test_a_suppression_audience_hands_over_its_links_and_leaves_nobody_unguarded(
    cart: Scene, sandbox: Any, account_number: str, operator: User
) -> None:
    cart_row = cart.mapping.audience
    old = suppress(sandbox, account_number, cart_row)
    owned = dict.fromkeys(("definition_owner", "sync_owner", "alert_owner"), operator)
    audiences.set_owners(actor=None, audience=old.mapping.audience, **owned)
    mappings.override(actor=None, mapping=cart.mapping, by="x@example.com", reason="over", until=timezone.now())
    beside(old.mapping.audience, operator, {"event": "purchase", "count": {"at_least": 1}, "within": "9d"})
    work()
    new = of_new(old, "bought_v2")
    assert {row.key for row in cart_row.excluded_by.all()} == {"bought", "bought_v2"}
    mappings.retire(actor=None, mapping=new.mapping)
    stays(old, "Without it, nothing would keep buyers out of cart")
    Mapping.objects.filter(pk=new.mapping.pk).update(state=S.LIVE)
    cart_row.excluded_by.remove(new.mapping.audience)
    stays(old, "cart leaves the people of bought out and not those of bought_v2")
    audiences.link_suppression(actor=None, audience=cart_row, suppression=new.mapping.audience)
    goes(old)
    assert [row.key for row in cart_row.excluded_by.all()] == ["bought_v2"]


def test_kept_after_all_nothing_happens_on_the_date(replaced: Scene) -> None:
    row = Replacement.objects.get()
    publishing.keep(actor=None, replacement=row, reason="It sells")
    work()
    replaced.mapping.refresh_from_db()
    assert replaced.mapping.state == S.LIVE and words() == []


def test_who_is_still_there_an_hour_later_is_trouble_and_what_is_stopped_at_once(replaced: Scene) -> None:
    the_day_comes()
    work()
    assert Replacement.objects.get().hindered == [], "it is being emptied"
    Replacement.objects.update(begun_at=timezone.now() - timedelta(hours=2))
    work()
    assert "still has people of it, or has not said" in Replacement.objects.get().hindered[0]
    Mapping.objects.filter(pk=replaced.mapping.pk).update(blocked_reason="The token ended.")
    Replacement.objects.update(begun_at=timezone.now())
    work()
    assert "its connection there is stopped. The token ended." in Replacement.objects.get().hindered[0]
    Mapping.objects.filter(pk=replaced.mapping.pk).update(blocked_reason="")
    sync_retired(replaced)
    work()
    row = Replacement.objects.select_related("old").get()
    assert row.hindered == [] and row.old.archived_at is not None


def test_an_audience_that_goes_nowhere_is_archived_on_the_date(operator: User) -> None:
    scene.workspace()
    track("zoe", "purchase")
    identify("anna", **{"in": "yes"})
    owned = dict.fromkeys(("definition_owner", "sync_owner", "alert_owner"), operator)
    made = scene.audience("quiet", scene.NO_PURCHASE, "analytics")
    audiences.set_owners(actor=None, audience=made, **owned)
    beside(made, operator, scene.IN)
    the_day_comes()
    work()
    made.refresh_from_db()
    assert made.archived_at is not None
