"""Faults on the way from an event to a platform (rows 5, 6, 36, 38 and 41 to 43 of the matrix), with real workers, real HTTP, and the sandbox's member set."""

import pytest

from tests.faults.shop_at_work import BOUGHT, CART, ShopAtWork, eventually


@pytest.fixture
def shop(tmp_path, sandbox, account_number):
    made = ShopAtWork(tmp_path / "var", sandbox, account_number)
    yield made
    made.remove()


@pytest.mark.slow
def test_fault_41_whoever_buys_while_everybody_is_being_added_leaves_and_is_suppressed_ahead_of_them(shop):
    shop.fill(3_000)
    shop.deployment.up()
    eventually(lambda: shop.has(CART, "p0") and shop.has(BOUGHT, "zoe"))

    shop.act("p0")

    eventually(lambda: shop.lacks(CART, "p0") and shop.has(BOUGHT, "p0"), within=30)
