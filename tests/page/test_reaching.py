"""Who can use the page: by keyboard, on a narrow screen, in the dark, with a screen reader."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page

from tests.browser import chats, compared, opened, text, texts
from tests.proxy import DOUBT, proxy, script
from tests.upstreams import Reply, answer, chunk, event

pytestmark = pytest.mark.asyncio(loop_scope="session")

NARROW = {"viewport": {"width": 360, "height": 700}}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
SEEN = """element => {
  const ringed = [element, element.closest(".box")].filter(Boolean);
  return ringed.some((one) => {
    const style = getComputedStyle(one);
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
  });
}"""
NAME = "e => e.id || e.dataset.part || e.value || e.textContent.trim()"


async def violations(page: Page) -> list[Any]:
    # A transition's colours are between two that are fine.
    found = await Axe().run(page, options=RULES)
    return [
        (rule["id"], node["html"], node["failureSummary"])
        for rule in found.response["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
async def test_a_checker_of_accessibility_finds_nothing(
    browser: Browser, scheme: str, width: int
) -> None:
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    async with proxy(script(confusion=DOUBT)) as on, opened(browser, on, **look) as page:
        assert await violations(page) == []
        await compared(page)
        await page.click("#vote [value=wrapped]")
        await page.get_by_label("Good answer").last.click()
        for side in ("raw", "wrapped"):
            await page.click(f"article.{side} [data-part=trace]")
            await page.locator(f"#{side}-steps summary").last.click()
        assert await violations(page) == []
        await page.click("#open-history")
        assert await violations(page) == []
        await page.keyboard.press("Escape")
        await page.click("#open-keys")
        assert await violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nor_in_an_error_and_in_every_kind_of_doubt(browser: Browser, scheme: str) -> None:
    kinds = ["latest_information", "user_input", "professional_capability", "modality_mismatch"]
    kinds += ["interactivity_sensory", "self_identity", "knowledge_gap"]
    doubts = ", ".join(f'{{"kind": "{kind}", "statement": "Why."}}' for kind in kinds)
    confusion = f'{{"doubts": [{doubts}], "confidence": 0}}'
    broken = Reply([event(chunk("The mer"))], content_type="text/event-stream", then="drop")
    replies = script(confusion=confusion)
    async with proxy(replies) as on, opened(browser, on, color_scheme=scheme) as page:
        await compared(page)
        assert len(await texts(page, ".chip")) == len(kinds)
        assert await violations(page) == []
        replies.replies["merge"] = broken
        replies.replies["draft"] = answer({"error": {"message": "slow down"}}, status=429)
        await compared(page)
        assert await page.locator(".error:visible").count() == 2
        assert await violations(page) == []


async def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Browser) -> None:
    async with proxy(script(confusion=DOUBT)) as on, opened(browser, on) as page:
        await page.keyboard.type("What does it cost now?")
        await page.keyboard.press("Control+Enter")
        await page.wait_for_selector("#vote:visible")
        shown = page.locator("button:visible, select:visible, summary:visible, textarea:visible")
        everything = set(await shown.evaluate_all(f"all => all.map({NAME})"))
        reached = set()
        for _ in range(2 * len(everything) + 10):
            await page.keyboard.press("Tab")
            here = page.locator(":focus")
            if await here.count():
                reached.add(await here.evaluate(NAME))
                assert await here.evaluate(SEEN), reached
        assert everything <= reached


async def test_single_keys_do_what_the_list_says(browser: Browser) -> None:
    async with proxy(script(confusion=DOUBT)) as on, opened(browser, on) as page:
        await compared(page)
        await page.locator("#open-history").focus()
        await page.keyboard.press("3")
        assert await page.locator("#vote [value=wrapped][aria-pressed=true]").count() == 1
        await page.keyboard.press("w")
        await page.locator("#wrapped-steps li").first.wait_for()
        await page.keyboard.press("h")
        assert await page.locator("#history").is_visible()
        await page.keyboard.press("1")
        assert await page.locator("#vote [value=wrapped][aria-pressed=true]").count() == 1
        await page.keyboard.press("Escape")
        await page.keyboard.press("?")
        listed = await texts(page, "#keys-list kbd")
        assert {"?", "/", "h", "t", "1", "2", "3", "Esc", "Ctrl ↵"} <= set(listed)
        await page.uncheck("#keys-on")
        await page.keyboard.press("Escape")
        await page.keyboard.press("h")
        assert await page.locator("#history").is_hidden()


async def test_keys_that_are_typed_into_the_question_are_no_commands(browser: Browser) -> None:
    async with proxy(script()) as on, opened(browser, on) as page:
        await page.keyboard.type("ht?/123 ")
        assert await page.input_value("#question") == "ht?/123 "
        assert await page.locator("dialog[open]").count() == 0


async def test_escape_stops(browser: Browser) -> None:
    begun = Reply([event(chunk("Gold co"))], content_type="text/event-stream", then="hold")
    async with proxy(script(draft=begun, confusion=begun)) as on, opened(browser, on) as page:
        await page.keyboard.type("Gold?")
        await page.keyboard.press("Control+Enter")
        await page.get_by_text("Gold co").wait_for()
        await page.keyboard.press("Escape")
        await page.wait_for_selector("#compare:enabled")
        await asyncio.wait_for(on.upstream.gone.wait(), 10)


async def test_an_empty_question_is_not_asked(browser: Browser) -> None:
    async with proxy(script()) as on, opened(browser, on) as page:
        await page.keyboard.type("  ")
        await page.keyboard.press("Control+Enter")
        assert await text(page, "#notice") == "Write a question first."
        assert chats(on) == []


async def test_an_example_fills_in_the_question_and_leaves_the_asking_to_you(
    browser: Browser,
) -> None:
    async with proxy(script()) as on, opened(browser, on) as page:
        first = page.locator("#examples button").first
        question = await first.locator("span").text_content()
        await first.click()
        assert await page.input_value("#question") == question
        assert chats(on) == []
        await page.keyboard.press("Enter")
        await page.wait_for_selector("article.raw .text:not(:empty)")


async def test_the_theme_is_the_systems_until_one_is_chosen(browser: Browser) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    async with proxy(script()) as on, opened(browser, on, color_scheme="dark") as page:
        dark = await page.evaluate(paper)
        await page.emulate_media(color_scheme="light")
        light = await page.evaluate(paper)
        assert dark != light
        await page.click("#theme")
        await page.click("#theme")
        assert await text(page, "#theme") == "Theme: dark"
        assert await page.evaluate(paper) == dark
        await page.reload()
        assert await page.evaluate(paper) == dark
        await page.click("#theme")
        assert await page.evaluate(paper) == light


@pytest.mark.parametrize(("width", "stacked"), [(320, True), (699, True), (700, False)])
async def test_on_a_narrow_screen_one_answer_stands_below_the_other(
    browser: Browser, width: int, stacked: bool
) -> None:
    look = {"viewport": {"width": width, "height": 700}}
    async with proxy(script(confusion=DOUBT)) as on, opened(browser, on, **look) as page:
        await compared(page)
        await page.click("article.wrapped [data-part=trace]")
        await page.locator("#wrapped-steps summary").last.click()
        raw, wrapped = [
            await page.locator(f"article.{side}").bounding_box() for side in ("raw", "wrapped")
        ]
        assert (wrapped["y"] >= raw["y"] + raw["height"]) == stacked
        assert await page.evaluate("document.documentElement.scrollWidth") == width
