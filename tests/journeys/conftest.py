"""Whole deployments for whole journeys."""

import pytest

from tests.destinations.conftest import account_number, sandbox
from tests.journeys.deployment import Deployment

__all__ = ["account_number", "sandbox"]


@pytest.fixture
def deployment(tmp_path):
    made = Deployment(tmp_path / "var")
    yield made
    made.remove()
