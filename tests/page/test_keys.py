"""The page before a proxy with keys of its own: it asks for one, and keeps it for its tab alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect

from honestproxy.server.access import keys
from tests.browser import compared, opened, text
from tests.page.test_comparing import RAW, REFUSED
from tests.proxy import DRAFT, proxy, script
from tests.upstreams import answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

STORED = "[JSON.stringify(localStorage), document.cookie].join()"


async def test_it_asks_for_a_key_uses_it_and_forgets_it_with_the_tab(
    browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "keys.jsonl"
    key, _ = keys.create(file)
    async with proxy(script(), keys=file, upstream_key="sk-upstream") as on:
        async with opened(browser, on) as page:
            await page.wait_for_selector("#door:visible")
            await page.fill("#own-key", "hp-wrong")
            await page.press("#own-key", "Enter")
            await page.wait_for_selector("#door:visible")
            await page.fill("#own-key", key)
            await page.click("#door button")
            await page.wait_for_selector("#door", state="hidden")
            await expect(page.locator("#model")).to_have_value("m")
            await compared(page)
            assert await text(page, f"{RAW} .text") == DRAFT
            await page.reload()
            await page.wait_for_selector("body[data-ready]", state="attached")
            assert not await page.is_visible("#door")
            assert key not in await page.evaluate(STORED)
            assert key in await page.evaluate("JSON.stringify(sessionStorage)")
        async with opened(browser, on) as page:
            await page.wait_for_selector("#door:visible")
    asked = {seen.headers.get("Authorization") for seen in on.upstream.seen}
    assert asked == {"Bearer sk-upstream"}


async def test_the_field_can_be_reached_by_everyone(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    keys.create(file)
    async with proxy(script(), keys=file) as on, opened(browser, on) as page:
        await page.wait_for_selector("#door:visible")
        assert not await page.is_visible("#key")
        found = await Axe().run(page)
        assert [rule["id"] for rule in found.response["violations"]] == []


async def test_an_upstreams_own_refusal_does_not_ask_for_one(
    browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "keys.jsonl"
    key, _ = keys.create(file)
    refused = answer({"error": REFUSED}, status=401)
    async with proxy(script(draft=refused), keys=file) as on, opened(browser, on) as page:
        await page.fill("#own-key", key)
        await page.click("#door button")
        await expect(page.locator("#model")).to_have_value("m")
        await compared(page)
        assert "401 · invalid_api_key" in await text(page, f"{RAW} .error")
        assert not await page.is_visible("#door")
