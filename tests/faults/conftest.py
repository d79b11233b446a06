"""What these tests share: the running sandbox of the floor below, an account of it for each test, and three people live in one audience."""

import pytest

from tests.audiences.people_in import track
from tests.destinations import scene
from tests.destinations.conftest import account_number, sandbox

__all__ = ["account_number", "sandbox"]


@pytest.fixture
def cart(sandbox, account_number):
    scene.workspace()
    scene.imported("anna", "bert", "carl")
    track("zoe", "purchase")
    return scene.live(sandbox, account_number, scene.audience("cart", scene.NO_PURCHASE))
