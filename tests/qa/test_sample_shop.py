"""The sample shop is the same each time and has the troubles that a real shop has."""

import pyarrow.compute as pc
import pytest

from qa.sample import shop

END = 1_790_000_000_000_000


@pytest.fixture(scope="module")
def sample():
    return shop.make(END, people=5_000, events=100_000)


def test_the_same_seed_and_end_make_the_same_shop(sample):
    again = shop.make(END, people=5_000, events=100_000)
    assert again.events.equals(sample.events)
    assert again.profiles.equals(sample.profiles)


def test_nothing_happens_after_the_end_or_before_the_year(sample):
    times = sample.events["time"].cast("int64")
    assert pc.max(times).as_py() <= END
    assert pc.min(times).as_py() >= END - shop.DAYS * shop.DAY


def test_it_is_about_as_large_as_asked_for(sample):
    assert sample.profiles.num_rows == 5_000
    assert 95_000 < sample.events.num_rows < 105_000


def test_the_ios_app_never_sends_checkout_started(sample):
    checkouts = sample.events.filter(pc.equal(sample.events["event"], "checkout_started"))
    assert set(checkouts["platform"].to_pylist()) == {"android", "web"}


def test_it_has_guests_shared_mailboxes_and_malformed_addresses(sample):
    emails = [email for email in sample.profiles["email"].to_pylist() if email]
    assert 0.1 < 1 - len(emails) / 5_000 < 0.25
    assert len(set(emails)) < len(emails)
    assert any("@@" in email for email in emails)
    assert any(email != email.strip() for email in emails)


def test_purchases_follow_a_cart(sample):
    names = dict(
        zip(*[column.to_pylist() for column in pc.value_counts(sample.events["event"]).flatten()], strict=True)
    )
    assert names["product_viewed"] > names["add_to_cart"] > names["purchase"] > 0
