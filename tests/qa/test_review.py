"""Changes that need a second person: what the page shows of them, who may approve, and that no way of publishing goes round it."""

from collections.abc import Callable
from datetime import timedelta
from html import unescape

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from audiences import impact
from audiences.impact import Figures
from audiences.models import Audience, AuditEntry, Membership, Refresh, Review, SegmentVersion, User, Workspace, frozen
from audiences.services import exclusions, gate, locks, refreshes, reviews, versions
from qa import drafting, pairs
from tests.audiences.people_in import identify, track
from tests.filled import PASSWORD, Filled, audience
from tests.qa import carts as shop
from tests.qa.carts import CARTS, FEWER, SAME, change, draft, live

pytestmark = pytest.mark.django_db(transaction=True)  # a count takes in what is committed


@pytest.fixture
def world() -> Filled:
    return shop.world()


@pytest.fixture
def carts(world: Filled) -> Audience:
    return shop.carts(world)


@pytest.fixture
def sign_in(world: Filled) -> Callable[[str], Client]:
    def signed_in(role: str) -> Client:
        client = Client()
        assert client.login(username=f"{role}@example.com", password=PASSWORD)
        return client

    return signed_in


def alone(world: Filled, role: str = "marketer") -> User:
    """Nobody but this one may publish."""
    User.objects.exclude(role=role).update(is_active=False)
    return world.users[role]


def form(client: Client, audience: Audience, **typed: str) -> dict[str, str]:
    """What the page's form sends, with this typed."""
    response = client.get(reverse("qa:review", args=[audience.key]))
    version = response.context["version"]
    return {"version": str(version.number), "saw": response.context["saw"], "sha256": version.sha256, **typed}


def test_a_small_change_goes_live_and_a_large_one_is_left_in_review(world: Filled, carts: Audience) -> None:
    marketer = world.users["marketer"]
    assert change(carts, marketer, SAME).state == "published"
    left = change(carts, marketer)
    assert left.state == "in_review" and left.publish_at is None
    now = live(carts)
    assert now is not None and now.number == 2
    review = left.reviews.get()
    assert (review.state, review.before, review.size, review.enters, review.leaves) == ("open", 10, 5, 0, 5)
    assert review.asked_by == marketer and review.reason == "Only Germany"
    assert AuditEntry.objects.filter(verb="audience.review_asked", object_key="carts").count() == 1
    change(carts, marketer)
    assert Review.objects.filter(state="open").count() == 1, "asking twice is one review"


@pytest.mark.parametrize(("percent", "state"), [(49, "in_review"), (50, "published")])
def test_the_workspace_says_from_which_share_on(world: Filled, carts: Audience, percent: int, state: str) -> None:
    Workspace.objects.update(review_above_percent=percent)
    assert change(carts, world.users["marketer"]).state == state


def test_as_many_in_as_out_is_a_large_change_too() -> None:
    assert Figures(100, 100, 40, 40, 0).share == 0.4
    assert Figures(0, 3, 3, 0, 0).share == 1
    assert Figures(0, 0, 0, 0, 0).share == 0
    assert Figures(None, 3, None, None, 0).share is None


def test_the_first_version_needs_nobody_and_every_later_one_of_a_suppression_audience_does(world: Filled) -> None:
    marketer = world.users["marketer"]
    bought = {"event": "purchase", "count": {"at_least": 1}, "within": "14d"}
    made = audience("buyers_14d", bought, marketer, "suppression")
    assert live(made) is not None
    refreshes.refresh([made], cause=Refresh.Cause.MANUAL)
    assert change(made, marketer, {**bought, "within": "15d"}).state == "in_review"
    assert live(pairs.make(actor=marketer, audience=world.cart)) is not None


def test_what_nobody_has_counted_moves_nobody(world: Filled) -> None:
    made = audience("uncounted", CARTS, world.users["marketer"])
    assert change(made, world.users["marketer"]).state == "published"


def test_what_cannot_be_counted_just_now_needs_a_second_person(world: Filled, carts: Audience) -> None:
    assert "cannot be counted" in gate.why(carts, None)


def test_another_user_approves_by_typing_the_name_and_it_goes_live(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    left = change(carts, world.users["marketer"])
    client = sign_in("admin")
    typed = form(client, carts, typed="carts", words="Looks right")
    response = client.post(reverse("qa:approve-review", args=["carts"]), typed, follow=True)
    assert "approved and live" in response.content.decode()
    now = live(carts)
    assert now is not None and now.pk == left.pk and now.published_by == world.users["admin"]
    review = left.reviews.get()
    assert (review.state, review.self_approved, review.size, review.leaves) == ("approved", False, 5, 5)
    entry = AuditEntry.objects.get(verb="audience.approved")
    assert entry.reason == "Looks right" and entry.after["size"] == 5 and entry.after["self_approved"] is False
    again = client.post(reverse("qa:approve-review", args=["carts"]), typed, follow=True)
    assert "is live already" in again.content.decode()


def test_the_author_cannot_approve_and_the_page_says_who_can(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    left = change(carts, world.users["marketer"])
    client = sign_in("marketer")
    text = client.get(reverse("qa:review", args=["carts"])).content.decode()
    assert "May approve it: Admin" in text and "Approve and publish" not in text
    response = client.post(reverse("qa:approve-review", args=["carts"]), form(client, carts, typed="carts"))
    assert response.status_code == 422 and "somebody else approves it: Admin" in unescape(response.content.decode())
    now = live(carts)
    assert now is not None and now.number == 1 and left.reviews.get().state == "open"


@pytest.mark.parametrize("typed", ["", "Carts", "carts2", "<img src=x onerror=alert(1)>", "carts\0", "c" * 10_000])
def test_a_name_typed_wrong_approves_nothing(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client], typed: str
) -> None:
    change(carts, world.users["marketer"])
    client = sign_in("admin")
    response = client.post(reverse("qa:approve-review", args=["carts"]), form(client, carts, typed=typed))
    text = response.content.decode()
    assert response.status_code == 422 and "exactly as it is written" in text and "<img src=x" not in text
    now = live(carts)
    assert now is not None and now.number == 1


def test_figures_that_nobody_saw_are_not_taken(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    left = change(carts, world.users["marketer"])
    client = sign_in("admin")
    sent = form(client, carts, typed="carts")
    for saw in ("", "forged", sent["saw"][:-2], impact.seal("0" * 64, carts.live_version_id, None)):
        response = client.post(reverse("qa:approve-review", args=["carts"]), {**sent, "saw": saw})
        assert response.status_code == 409, saw
    assert left.reviews.get().state == "open"


def test_data_that_moved_since_it_was_seen_asks_again(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    change(carts, world.users["marketer"])
    client = sign_in("admin")
    sent = form(client, carts, typed="carts", words="fine")
    for number in range(3):
        identify(f"new{number}", country="DE")
        track(f"new{number}", "add_to_cart")
    response = client.post(reverse("qa:approve-review", args=["carts"]), sent)
    text = response.content.decode()
    assert response.status_code == 409 and "People have moved since you looked" in text and "fine" in text
    assert response.context["impact"].figures.size == 8
    now = live(carts)
    assert now is not None and now.number == 1
    response = client.post(
        reverse("qa:approve-review", args=["carts"]), form(client, carts, typed="carts", words="fine"), follow=True
    )
    assert "approved and live" in response.content.decode()


@pytest.mark.parametrize(
    ("now", "far"),
    [
        (Figures(100, 50, 0, 50, 1), False),
        (Figures(105, 55, 2, 52, 1), False),
        (Figures(100, 61, 0, 39, 1), True),
        (Figures(100, 50, 20, 70, 1), True),
        (Figures(None, 50, None, None, 1), True),
    ],
)
def test_more_than_a_tenth_of_the_audience_is_other_figures(now: Figures, far: bool) -> None:
    assert now.far_from(Figures(100, 50, 0, 50, 0)) is far


def test_whoever_is_alone_approves_with_name_and_reason_and_has_ten_minutes_to_take_it_back(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    marketer = alone(world)
    left = change(carts, marketer)
    client = sign_in("marketer")
    assert "self-approved" in client.get(reverse("qa:review", args=["carts"])).content.decode()
    url = reverse("qa:approve-review", args=["carts"])
    assert client.post(url, form(client, carts, typed="carts")).status_code == 422, "a reason is needed"
    response = client.post(url, form(client, carts, typed="carts", words="Nobody else is here"), follow=True)
    text = response.content.decode()
    assert "self-approved and live" in text and reverse("qa:undo-review", args=["carts"]) in text
    assert left.reviews.get().self_approved
    assert AuditEntry.objects.get(verb="audience.self_approved").reason == "Nobody else is here"
    for page in (
        reverse("audiences:version", args=["carts", left.number]),
        reverse("audiences:versions", args=["carts"]),
    ):
        assert "Self-approved" in client.get(page).content.decode()
    assert "Change self-approved" in client.get(reverse("audiences:activity")).content.decode()
    client.post(reverse("qa:undo-review", args=["carts"]), {"seen": str(left.number)})
    now = live(carts)
    assert now is not None and now.number == 3 and now.sha256 == carts.versions.get(number=1).sha256


def test_after_ten_minutes_going_back_is_a_change_like_any_other(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    marketer = alone(world)
    left = change(carts, marketer)
    client = sign_in("marketer")
    client.post(
        reverse("qa:approve-review", args=["carts"]), form(client, carts, typed="carts", words="alone"), follow=True
    )
    refreshes.refresh([carts], cause=Refresh.Cause.PUBLISH)
    with frozen.set_aside():
        SegmentVersion.objects.filter(pk=left.pk).update(published_at=timezone.now() - timedelta(minutes=11))
    response = client.post(reverse("qa:undo-review", args=["carts"]), {"seen": "2"}, follow=True)
    assert "ten minutes have passed" in response.content.decode()
    made = versions.go_back(actor=marketer, version=carts.versions.get(number=1), reason="It was better")
    assert made.state == "in_review"
    now = live(carts)
    assert now is not None and now.pk == left.pk


def test_an_invited_user_who_never_came_is_nobody_to_ask(world: Filled, carts: Audience) -> None:
    admin = world.users["admin"]
    admin.set_unusable_password()
    admin.save()
    assert reviews.alone(world.users["marketer"], draft(carts, FEWER, world.users["marketer"]))


def test_what_a_file_left_in_review_is_approved_by_anybody_who_may(world: Filled, carts: Audience) -> None:
    left = change(carts, None)
    assert left.state == "in_review" and reviews.may_approve(world.users["marketer"], left)
    assert not reviews.alone(world.users["marketer"], left)


def test_sent_back_with_words_it_is_a_draft_again_and_withdrawn_nobody_is_asked(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    left = change(carts, world.users["marketer"])
    admin, marketer = sign_in("admin"), sign_in("marketer")
    back = reverse("qa:send-back", args=["carts"])
    assert admin.post(back, {"version": "2", "words": " "}).status_code == 422
    response = admin.post(back, {"version": "2", "words": "Keep <b>Austria</b>"}, follow=True)
    assert "Keep &lt;b&gt;Austria" in response.content.decode()
    left.refresh_from_db()
    assert left.state == "draft" and left.reviews.get().state == "sent_back"
    asked = {"version": "2", "sha256": left.sha256, "reason": "Austria buys nothing"}
    marketer.post(reverse("qa:ask-review", args=["carts"]), asked)
    assert left.reviews.filter(state="open").get().reason == "Austria buys nothing"
    marketer.post(reverse("qa:withdraw-review", args=["carts"]), {"version": "2"})
    left.refresh_from_db()
    assert left.state == "draft" and not left.reviews.filter(state="open").exists()
    assert admin.post(back, {"version": "2", "words": "too late"}).status_code == 422


def test_a_draft_changed_since_the_page_was_opened_is_not_asked_for(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    draft(carts, FEWER, world.users["marketer"])
    sent = {"version": "2", "sha256": "0" * 64, "reason": "x"}
    assert sign_in("marketer").post(reverse("qa:ask-review", args=["carts"]), sent).status_code == 409


def test_the_page_says_whom_it_moves_masked_and_only_to_those_who_may_see_people(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    change(carts, world.users["marketer"])
    url = reverse("qa:review", args=["carts"])
    shown, hidden = sign_in("admin").get(url), sign_in("buyer").get(url)
    figures = shown.context["impact"].figures
    assert (figures.before, figures.size, figures.enters, figures.leaves) == (10, 5, 0, 5)
    assert "Some who leave" in shown.content.decode() and len(shown.context["leaving"]) == 5
    assert "p5@shop.example" not in shown.content.decode() and "@s•••.example" in shown.content.decode()
    assert "Some who" not in hidden.content.decode() and "shop" not in hidden.content.decode().replace("Oilskin", "")
    assert hidden.status_code == 200 and "-50" in shown.content.decode().replace("−", "-")


def test_the_page_says_what_hangs_together_with_it(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    marketer = world.users["marketer"]
    on_top = audience("on_top", {"all": [{"audience": "carts"}, CARTS]}, marketer)
    locks.set_lock(actor=marketer, audience=on_top, until=timezone.now() + timedelta(days=3), note="A against B")
    locks.set_lock(actor=marketer, audience=world.cart, until=timezone.now() + timedelta(days=3), note="C against D")
    change(carts, marketer)
    response = sign_in("admin").get(reverse("qa:review", args=["carts"]))
    reach = response.context["reach"]
    assert [row.key for row in reach.referring] == ["on_top"]
    assert [(one.audience.key, one.blocks) for one in reach.tests] == [("on_top", False)]
    text = response.content.decode()
    assert "A against B" in text and "C against D" not in text
    assert [row.key for row in response.context["overlaps"]] == ["meta_buyers_7d"]
    buyers = sign_in("admin")
    draft(world.buyers, {"event": "purchase", "count": {"at_least": 1}, "within": "8d"}, marketer)
    of_buyers = buyers.get(reverse("qa:review", args=["meta_buyers_7d"])).context["reach"]
    assert [row.destination.name for row in of_buyers.others] == ["Meta EU"]
    assert [(one.audience.key, one.because) for one in of_buyers.tests] == [
        ("meta_cart_24h", "it sends nobody who is in this audience")
    ]


def test_a_test_blocks_and_what_is_approved_waits_for_its_end_unless_data_moves(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    left = change(carts, world.users["marketer"])
    lock = locks.set_lock(
        actor=world.users["marketer"], audience=carts, until=timezone.now() + timedelta(days=3), note="A against B"
    )
    client = sign_in("admin")
    assert "in the middle of its test" in client.get(reverse("qa:review", args=["carts"])).content.decode()
    response = client.post(
        reverse("qa:approve-review", args=["carts"]), form(client, carts, typed="carts"), follow=True
    )
    assert "goes live when the test ends" in response.content.decode()
    left.refresh_from_db()
    assert left.state == "in_review" and left.publish_at == lock.until
    for number in range(3):
        identify(f"new{number}", country="DE")
        track(f"new{number}", "add_to_cart")
    locks.end_lock(actor=world.users["marketer"], audience=carts)
    versions.publish_due(carts)
    left.refresh_from_db()
    assert left.state == "in_review" and left.publish_at is None, "the data moved: it asks again"
    assert left.reviews.filter(state="open").get().size == 8


def test_what_is_approved_in_a_test_goes_live_at_its_end(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    left = change(carts, world.users["marketer"])
    locks.set_lock(actor=None, audience=carts, until=timezone.now() + timedelta(days=3), note="A against B")
    client = sign_in("admin")
    client.post(reverse("qa:approve-review", args=["carts"]), form(client, carts, typed="carts"))
    locks.end_lock(actor=None, audience=carts)
    versions.publish_due(carts)
    now = live(carts)
    assert now is not None and now.pk == left.pk


def test_no_way_of_publishing_goes_round_it(world: Filled, carts: Audience, sign_in: Callable[[str], Client]) -> None:
    marketer, client = world.users["marketer"], sign_in("marketer")
    wrote = draft(carts, FEWER, marketer)
    url = reverse("audiences:publish", args=["carts", wrote.number])
    response = client.post(url, {"sha256": wrote.sha256, "reason": "Only Germany"}, follow=True)
    assert response.redirect_chain[-1][0].startswith(reverse("qa:review", args=["carts"]))
    assert "is not live: a second person" in response.content.decode()
    versions.discard(actor=marketer, version=wrote)
    gold = audience("gold", {"attribute": "tier", "op": "is", "value": "gold"}, marketer)
    done = exclusions.exclude(actor=marketer, audience=carts, other=gold, seen=1, reason="twice")
    assert not done.in_review, "one of ten is less than a fifth"
    german = audience("german", {"attribute": "country", "op": "is", "value": "DE"}, marketer)
    refreshes.refresh([german, carts], cause=Refresh.Cause.MANUAL)
    done = exclusions.exclude(actor=marketer, audience=carts, other=german, seen=2, reason="elsewhere")
    assert done.in_review
    now = live(carts)
    assert now is not None and now.number == 2


def test_a_rule_from_the_set_up_and_a_way_back_are_left_in_review_too(world: Filled, carts: Audience) -> None:
    marketer = world.users["marketer"]
    same = versions.parse(SAME)
    for tree, number, seen in ((same, 2, 1), (versions.parse(FEWER), 2, 2)):
        made = drafting.publish(
            actor=marketer,
            audience=Audience.objects.get(pk=carts.pk),
            tree=tree,
            key="",
            purpose="retargeting",
            seen=seen,
            reason="From the set-up",
        )
        assert made.live_version is not None and made.live_version.number == number
    waiting = carts.versions.get(state="in_review")
    versions.publish(actor=None, version=waiting, reason="for the test", override="for the test")
    refreshes.refresh([carts], cause=Refresh.Cause.PUBLISH)
    back = versions.go_back(actor=marketer, version=carts.versions.get(number=1), reason="It was better")
    assert back.state == "in_review", (
        "what was live before the last version may come back; what was before that is a change"
    )


def test_approvers_find_it_on_their_home_page_and_the_author_sees_that_it_waits(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    change(carts, world.users["marketer"])
    for role, mine in (("admin", True), ("marketer", False)):
        agenda = sign_in(role).get(reverse("qa:home")).context["agenda"]
        there = [item for item in (agenda.mine if mine else agenda.others) if "second person" in item.sentence]
        assert [item.url for item in there] == [reverse("qa:review", args=["carts"]) + "?version=2"], role


def test_with_nothing_open_the_page_says_so_and_forged_numbers_are_not_found(
    world: Filled, carts: Audience, sign_in: Callable[[str], Client]
) -> None:
    client, url = sign_in("admin"), reverse("qa:review", args=["carts"])
    assert "Nothing waits for a review" in client.get(url).content.decode()
    for version in ("9", "x", "-1", "²", "9" * 30):
        assert client.get(url, {"version": version}).status_code == 404, version
        assert client.post(reverse("qa:approve-review", args=["carts"]), {"version": version}).status_code == 404
    assert client.get(reverse("qa:review", args=["nothing"])).status_code == 404


def test_an_override_goes_live_on_record(world: Filled, carts: Audience) -> None:
    left = change(carts, world.users["marketer"])
    versions.publish(actor=None, version=left, reason="applied", override="Agreed by phone (operator@example.com)")
    now = live(carts)
    assert now is not None and now.pk == left.pk
    entry = AuditEntry.objects.get(verb="audience.review_skipped")
    assert entry.reason == "Agreed by phone (operator@example.com)"
    assert left.reviews.get().state == "withdrawn"


def test_looking_changes_nothing(world: Filled, carts: Audience, sign_in: Callable[[str], Client]) -> None:
    change(carts, world.users["marketer"])
    before = Review.objects.values().get(), Membership.objects.count(), AuditEntry.objects.count()
    sign_in("admin").get(reverse("qa:review", args=["carts"]))
    assert (Review.objects.values().get(), Membership.objects.count(), AuditEntry.objects.count()) == before
