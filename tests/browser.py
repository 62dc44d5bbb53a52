"""The compare page in a real Chromium, before a proxy and a scripted upstream on loopback."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.proxy import Proxy

NAMES = ("chromium", "chromium-browser", "google-chrome")
WITHIN = 20_000
"""Milliseconds that anything on the page may take on a busy machine."""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The machine's own Chromium; without it tests are skipped, or fail where CI runs them."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        missing = "Chromium is not installed: `apt-get install chromium`"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    # Without a user namespace, as in most containers, Chromium has no sandbox to use.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(
    browser: Browser, on: Proxy, fragment: str = "", **context: Any
) -> AsyncIterator[Page]:
    """The page, ready. It must ask nobody but the proxy, and raise nothing."""
    home = on.url.removesuffix("v1")
    made = await browser.new_context(**context)
    made.set_default_timeout(WITHIN)
    page = await made.new_page()
    asked, raised = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: raised.append(str(error)))
    try:
        await page.goto(home + fragment)
        await page.wait_for_selector("body[data-ready]", state="attached")
        yield page
    finally:
        await made.close()
    assert raised == []
    assert [url for url in asked if not url.startswith((home, "data:"))] == []


async def compared(page: Page, question: str = "What does it cost now?") -> None:
    """Ask, and wait until both sides have ended."""
    await page.fill("#question", question)
    await page.keyboard.press("Control+Enter")
    await page.wait_for_selector("#compare:enabled")


async def text(page: Page, selector: str) -> str:
    """The text of the first element that is found."""
    return await page.locator(selector).first.text_content() or ""


async def texts(page: Page, selector: str) -> list[str]:
    """The texts of all that are found."""
    return await page.locator(selector).all_text_contents()


def chats(on: Proxy) -> list[dict[str, Any]]:
    """What the upstream was asked."""
    return [seen.json() for seen in on.upstream.seen if seen.body]
