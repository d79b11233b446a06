"""What the tests of this floor share with the one below: a running sandbox, and an account of it for each test."""

from tests.destinations.conftest import account_number, sandbox

__all__ = ["account_number", "sandbox"]
