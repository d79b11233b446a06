"""Where a person finds an audience in the ad account: an address for each platform, of the real one and of the sandbox."""

import pytest

from destinations.connectors import registry
from destinations.models import Mapping
from destinations.placements import matched

SANDBOX = "http://127.0.0.1:9009"


@pytest.mark.parametrize(
    ("kind", "config", "base_url", "address"),
    [
        ("meta", {"ad_account_id": "act_12"}, "", "https://business.facebook.com/adsmanager/audiences?act=12&selected_audience_ids=7"),
        ("meta", {"ad_account_id": "act_12"}, "https://proxy.example", "https://business.facebook.com/adsmanager/audiences?act=12&selected_audience_ids=7"),
        ("meta", {"ad_account_id": "act_12"}, SANDBOX, f"{SANDBOX}/accounts/meta/12/7/"),
        ("google", {"account_id": "123-456"}, "", "https://ads.google.com/aw/audiences/management/details?__e=123456&userListId=7"),
        ("google", {"account_id": "123-456"}, f"{SANDBOX}/", f"{SANDBOX}/accounts/google/123456/7/"),
        ("openlist", {}, SANDBOX, f"{SANDBOX}/accounts/openlist/main/7/"),
        ("openlist", {}, "https://lists.example", ""),
        ("webhook", {"url": "https://shop.example/hook"}, "", ""),
    ],
)  # fmt: skip
def test_each_platform_has_its_own_page_of_an_audience(kind, config, base_url, address):
    assert registry.CONNECTORS[kind].page_of(base_url, config, "7") == address


def test_a_remote_id_cannot_lead_out_of_the_page():
    address = registry.CONNECTORS["meta"].page_of(SANDBOX, {"ad_account_id": "act_12"}, "../../evil?x=1#y")
    assert address == f"{SANDBOX}/accounts/meta/12/..%2F..%2Fevil%3Fx%3D1%23y/"


@pytest.mark.parametrize(
    ("low", "high", "words", "said"),
    [
        (31_000, 36_000, "", "31,000–36,000"),
        (31_000, None, "", "31,000"),
        (None, 36_000, "", "36,000"),
        (0, 0, "", "0"),
        (None, None, "Meta does not say", "Meta does not say"),
        (None, None, "", "Not known yet"),
    ],
)
def test_matched_is_a_number_a_range_or_who_does_not_say(low, high, words, said):
    mapping = Mapping(matched_low=low, matched_high=high, matched_words=words)
    assert matched(mapping, "{:,}".format) == said
