"""What a model says, or anyone else, is text: no element is ever made of it."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, Error

from tests.browser import compared, opened, text
from tests.proxy import Script, proxy, script
from tests.upstreams import answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMAGE = '<img src="x" onerror="window.harmed = true">'
TEXTS = {
    "image": IMAGE,
    "script": "</div><script>window.harmed = true</script>",
    "frame": '<iframe srcdoc="<script>parent.harmed = true</script>"></iframe>',
    "markdown": "# Title\n\n**bold** [link](javascript:harmed=1) ![x](http://example.invalid/x.png)",
    "entities": "&lt;b&gt; &amp;amp; &#60;",
    "placeholders": "${alert(1)} {{7*7}} <%= 1 %>",
    "lines": "one\n\n  two\tthree\r\nfour",
    "right to left": "שלום <b>עולם</b>, مرحبا.",
    "overriding": "\u202eevil\u202c \u2066x\u2069",
    "long word": "Donau" * 400,
    "astral": "👩‍👩‍👧 𝔘𝔫𝔦 \u0000 e\u0301",
}


@pytest.mark.parametrize("said", TEXTS.values(), ids=TEXTS.keys())
async def test_every_text_arrives_as_it_is_and_makes_no_element(
    browser: Browser, said: str
) -> None:
    doubts = [{"kind": "user_input", "statement": said.strip()}, {"kind": IMAGE, "statement": "x"}]
    confusion = json.dumps({"doubts": doubts, "confidence": 0.1})
    replies = script(draft=said, confusion=confusion, merge=said)
    async with proxy(replies) as on, opened(browser, on) as page:
        await compared(page, said)
        for side in ("raw", "wrapped"):
            shown = page.locator(f"article.{side} .text")
            assert await shown.text_content() == said
            assert await shown.evaluate("element => element.childElementCount") == 0
        await page.click("article.wrapped [data-part=trace]")
        await page.locator("#wrapped-steps summary").first.click()
        await page.click("#open-history")
        assert (await text(page, "#history-list .question")) == said.replace("\r\n", "\n").strip()
        assert (
            await page.locator("main img, main script, main iframe, main strong + b").count() == 0
        )
        assert await page.evaluate("window.harmed") is None
        wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0


@pytest.mark.parametrize("status", [400, 500])
async def test_errors_and_names_of_models_are_text_too(browser: Browser, status: int) -> None:
    refused = {"message": IMAGE, "type": IMAGE, "code": IMAGE}
    replies = Script({"draft": answer({"error": refused}, status=status)}, models=[IMAGE])
    link = f"#q={quote(IMAGE)}&model={quote(IMAGE)}&strategy={quote(IMAGE)}"
    async with proxy(replies) as on, opened(browser, on, link) as page:
        assert await page.input_value("#question") == IMAGE
        await compared(page, IMAGE)
        assert IMAGE in await text(page, "article.raw .error")
        assert await page.locator("img").count() == 0
        assert await page.evaluate("window.harmed") is None


@pytest.mark.parametrize(
    ("said", "direction"), [("مرحبا, hello", "rtl"), ("hello, مرحبا", "ltr"), ("123", "ltr")]
)
async def test_a_text_runs_as_its_first_letters_do(
    browser: Browser, said: str, direction: str
) -> None:
    statement = {"doubts": [{"kind": "user_input", "statement": said}], "confidence": 0.1}
    replies = script(draft=said, confusion=json.dumps(statement), merge=said)
    async with proxy(replies) as on, opened(browser, on) as page:
        await compared(page, said)
        for place in ("#question", "article.raw .text", "article.wrapped .text", ".doubts li"):
            element = page.locator(place).first
            assert await element.evaluate("e => getComputedStyle(e).direction") == direction


@pytest.mark.parametrize(
    "mistake",
    [
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        "document.body.setAttribute('onclick', 'window.harmed = true')",
        "document.createElement('script').text = 'window.harmed = true'",
        "document.createElement('iframe').srcdoc = '<b>x</b>'",
    ],
)
async def test_the_policy_stops_what_a_mistake_of_ours_would_let_in(
    browser: Browser, mistake: str
) -> None:
    async with proxy(script()) as on, opened(browser, on) as page:
        with pytest.raises(Error, match="requires 'Trusted"):
            await page.evaluate(mistake)
