"""Debian's Chromium, driven by Playwright, against a live server on this machine."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests import filled
from tests.destinations.conftest import account_number, sandbox

__all__ = ["account_number", "sandbox"]

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not there; apt-get install chromium, or set CHROMIUM")
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # Playwright runs a loop in this thread; Django's ORM would refuse
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()
    if before is None:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


def is_complaint(message: ConsoleMessage) -> bool:
    """An error or a warning; not that htmx broke off a question which a newer one has replaced, as it is told to."""
    broken_off = message.text.startswith(("htmx:sendAbort", "htmx:afterRequest"))  # a failure also says htmx:sendError
    return message.type in ("error", "warning") and not broken_off


@pytest.fixture
def world(transactional_db: None) -> filled.Filled:
    return filled.fill()


@pytest.fixture
def open_as(browser: Browser, live_server: Any) -> Iterator[Callable[..., Page]]:
    """A page signed in by its form, with every complaint of the browser collected in `page.complaints`."""
    contexts: list[BrowserContext] = []

    def open_(role: str = "admin", *, width: int = 1280, **options: Any) -> Page:
        context = browser.new_context(
            base_url=live_server.url, viewport={"width": width, "height": 900 if width > 500 else 844}, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.complaints = []  # type: ignore[attr-defined]
        page.on("pageerror", lambda error: page.complaints.append(str(error)))  # type: ignore[attr-defined]
        page.on(
            "console",
            lambda message: page.complaints.append(message.text) if is_complaint(message) else None,  # type: ignore[attr-defined]
        )
        if role:
            page.goto("/sign-in/?next=/audiences/")
            page.get_by_label("E-mail").fill(f"{role}@example.com")
            page.get_by_label("Password").fill(filled.PASSWORD)
            page.get_by_role("button", name="Sign in", exact=True).click()
            page.wait_for_url("**/audiences/")
        return page

    yield open_
    for context in contexts:
        context.close()
