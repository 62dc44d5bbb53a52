"""Links, history and votes: what the browser remembers, and what it never does unasked."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import parse_qs, urlencode

import pytest
from playwright.async_api import Browser, Page, Route

from tests.browser import chats, compared, opened, text, texts
from tests.proxy import DOUBT, DRAFT, MERGED, proxy, script

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOLD = {"q": "Was kostet Gold & Silber? #1 🪙", "model": "m", "strategy": "curiosity"}
ENTRIES = "#history-list .entry"


async def kept(page: Page) -> list[dict]:
    return json.loads(await page.evaluate("localStorage.getItem('honestproxy.history')") or "[]")


async def test_a_link_fills_in_what_it_asks_and_asks_nothing(browser: Browser) -> None:
    async with proxy(script()) as on, opened(browser, on, f"#{urlencode(GOLD)}") as page:
        assert await page.input_value("#question") == GOLD["q"]
        assert await page.input_value("#strategy") == "curiosity"
        assert "not asked yet" in await text(page, "#notice")
        assert await page.locator("#answers").is_hidden()
        assert chats(on) == []
        await page.click("#compare")
        await page.wait_for_selector("#compare:enabled")
        assert await text(page, "article.wrapped .text") == MERGED


async def test_a_comparison_is_in_the_address_and_never_in_a_request_for_the_page(
    browser: Browser,
) -> None:
    async with proxy(script()) as on, opened(browser, on) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.select_option("#strategy", "curiosity")
        await compared(page, GOLD["q"])
        told = await page.evaluate("location.hash.slice(1)")
        assert {name: values[0] for name, values in parse_qs(told).items()} == GOLD
        await page.reload()
        await page.wait_for_selector("body[data-ready]", state="attached")
        assert not any("Gold" in url.partition("#")[0] for url in asked)


async def test_a_link_to_what_was_asked_before_shows_it_without_asking_again(
    browser: Browser,
) -> None:
    async with proxy(script(confusion=DOUBT)) as on, opened(browser, on) as page:
        await compared(page)
        before = len(chats(on))
        await page.reload()
        await page.wait_for_selector("body[data-ready]", state="attached")
        assert "Nothing was asked now" in await text(page, "#notice")
        assert await text(page, "article.wrapped .text") == MERGED
        assert await text(page, ".statement") == "No live prices here."
        assert await page.evaluate("document.activeElement.id") == "question"
        assert len(chats(on)) == before


async def test_an_earlier_comparison_shows_its_trace_while_the_proxy_has_it(
    browser: Browser,
) -> None:
    async with proxy(script(confusion=DOUBT)) as on, opened(browser, on) as page:
        await compared(page)
        await page.route("**/v1/honesty/traces/*", lambda route: route.fulfill(status=404))
        await page.click("article.wrapped [data-part=trace]")
        await page.locator("#wrapped-steps li").nth(2).wait_for()
        assert "no longer kept" in await text(page, "#wrapped-steps")
        assert await texts(page, "#wrapped-steps b") == ["draft", "confusion", "merge"]


async def test_history_lists_opens_deletes_and_clears(browser: Browser) -> None:
    async with proxy(script()) as on, opened(browser, on) as page:
        for question in ("One?", "Two?", "Three?"):
            await compared(page, question)
        await page.reload()
        await page.wait_for_selector("body[data-ready]", state="attached")
        await page.click("#open-history")
        assert await texts(page, f"{ENTRIES} .question") == ["Three?", "Two?", "One?"]
        await page.get_by_label("Delete: Two?").click()
        assert await texts(page, f"{ENTRIES} .question") == ["Three?", "One?"]
        assert "One?" in await text(page, ":focus")
        asked = len(chats(on))
        await page.locator(ENTRIES).nth(1).click()
        assert await page.input_value("#question") == "One?"
        assert await text(page, "article.raw .text") == DRAFT
        assert len(chats(on)) == asked
        await page.click("#open-history")
        await page.click("#history-clear")
        assert await page.locator(ENTRIES).count() == 2
        await page.get_by_text("Really delete all 2?").click()
        assert await page.locator(ENTRIES).count() == 0
        assert await page.locator("#history-none").is_visible()
        assert await kept(page) == []


async def test_history_is_bounded_and_texts_that_fill_the_storage_push_out_the_oldest(
    browser: Browser,
) -> None:
    async with proxy(script(draft="long " * 200_000)) as on, opened(browser, on) as page:
        for number in range(4):
            await compared(page, f"{number}?")
        questions = [entry["question"] for entry in await kept(page)]
        assert questions[0] == "3?"
        assert 0 < len(questions) < 4


@pytest.mark.parametrize("broken", ["{", "7", "[1, null, {}]", '{"a": 1}', '"x"'])
async def test_what_else_is_in_the_storage_does_no_harm(browser: Browser, broken: str) -> None:
    names = ["history", "choice", "theme", "keys"]
    async with proxy(script()) as on, opened(browser, on) as page:
        for name in names:
            await page.evaluate("v => localStorage.setItem(...v)", [f"honestproxy.{name}", broken])
        await page.reload()
        await compared(page)
        assert await text(page, "article.raw .text") == DRAFT
        assert len(await kept(page)) == 1


async def test_asked_before_the_models_are_listed_it_waits_for_what_there_is_to_choose(
    browser: Browser,
) -> None:
    listed = asyncio.Event()

    async def late(route: Route) -> None:
        await listed.wait()
        await route.continue_()

    async with proxy(script()) as on, opened(browser, on, f"#{urlencode(GOLD)}") as page:
        await page.route("**/v1/models", late)
        await page.reload()
        await page.wait_for_selector("#strategy option", state="attached")
        await page.click("#compare")
        assert await page.locator("#stop").is_visible()
        listed.set()
        await page.wait_for_selector("#compare:enabled")
        assert await text(page, "article.wrapped .text") == MERGED
        assert [chat["model"] for chat in chats(on)] == ["m"] * 4


async def test_where_nothing_can_be_listed_it_says_so_and_asks_all_the_same(
    browser: Browser,
) -> None:
    async with proxy(script(confusion=DOUBT)) as on, opened(browser, on) as page:
        await page.route("**/page/about.json", lambda route: route.fulfill(status=503, body="{}"))
        await page.reload()
        await page.wait_for_selector("body[data-ready]", state="attached")
        assert "strategies can’t be listed" in await text(page, "#notice")
        await compared(page)
        assert await text(page, "article.raw .text") == DRAFT
        assert await text(page, "article.wrapped .text") == MERGED


async def test_without_storage_the_page_works(browser: Browser) -> None:
    gone = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('blocked') }})"
    async with proxy(script()) as on, opened(browser, on) as page:
        await page.context.add_init_script(gone)
        await page.reload()
        await compared(page)
        assert await text(page, "article.raw .text") == DRAFT
        await page.click("#vote [value=raw]")
        await page.click("#open-history")
        assert await page.locator("#history-none").is_visible()


async def test_a_vote_is_remembered_and_told_to_the_proxy_but_never_to_the_upstream(
    browser: Browser,
) -> None:
    async with proxy(script(confusion=DOUBT)) as on, opened(browser, on) as page:
        await compared(page)
        wrapped = (await kept(page))[0]["sides"]["wrapped"]["traceId"]
        async with page.expect_request("**/v1/honesty/feedback") as told:
            await page.click("#vote [value=wrapped]")
        sent = json.loads((await told.value).post_data or "")
        assert (sent["trace_id"], sent["vote"]) == (wrapped, "up")
        async with page.expect_request("**/v1/honesty/feedback") as told:
            await page.get_by_label("Bad answer").first.click()
        assert json.loads((await told.value).post_data or "")["vote"] == "down"
        await page.get_by_text("Remembered in this browser.").wait_for()
        await page.reload()
        await page.wait_for_selector("#vote [value=wrapped][aria-pressed=true]")
        assert await page.locator("article.raw [value=down][aria-pressed=true]").count() == 1
        assert not any("honesty" in seen.path for seen in on.upstream.seen)


async def test_a_vote_can_be_taken_back(browser: Browser) -> None:
    async with proxy(script()) as on, opened(browser, on) as page:
        await compared(page)
        await page.click("#vote [value=tie]")
        assert (await kept(page))[0]["vote"] == "tie"
        await page.click("#vote [value=tie]")
        assert (await kept(page))[0]["vote"] is None
        assert await page.locator("#vote [aria-pressed=true]").count() == 0


async def test_answers_and_links_can_be_copied(browser: Browser) -> None:
    rights = ["clipboard-read", "clipboard-write"]
    async with proxy(script()) as on, opened(browser, on, permissions=rights) as page:
        await compared(page, GOLD["q"])
        await page.locator("article.raw [data-part=copy]").click()
        await page.get_by_text("Copied").wait_for()
        assert await page.evaluate("navigator.clipboard.readText()") == DRAFT
        await page.click("#link")
        await page.get_by_text("The link is copied").wait_for()
        assert await page.evaluate("navigator.clipboard.readText()") == page.url
