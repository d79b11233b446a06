"""Whole deployments for whole journeys."""

import pytest

from tests.journeys.deployment import Deployment


@pytest.fixture
def deployment(tmp_path):
    made = Deployment(tmp_path / "var")
    yield made
    made.remove()
