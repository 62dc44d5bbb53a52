"""One question, two answers: what is asked, what is shown of each, and what goes wrong."""

from __future__ import annotations

import asyncio
import json

import pytest
from playwright.async_api import Browser

from tests.browser import chats, compared, opened, text, texts
from tests.proxy import DOUBT, DRAFT, MERGED, Script, proxy, script
from tests.upstreams import Reply, answer, chunk, completion, event, events

pytestmark = pytest.mark.asyncio(loop_scope="session")

RAW, WRAPPED = "article.raw", "article.wrapped"
GOLD = event(chunk("Gold"))
REFUSED = {"message": "no such key", "type": "invalid_request_error", "code": "invalid_api_key"}


async def test_both_answers_stand_side_by_side_with_what_was_done_and_what_it_cost(
    browser: Browser,
) -> None:
    async with proxy(script(confusion=DOUBT)) as on, opened(browser, on) as page:
        await compared(page)
        assert await text(page, f"{RAW} .text") == DRAFT
        assert await text(page, f"{WRAPPED} .text") == MERGED
        assert await text(page, f"{WRAPPED} .outcome") == "Rewritten1 doubt"
        assert await text(page, f"{WRAPPED} .chip") == "latest information"
        assert await text(page, f"{WRAPPED} .statement") == "No live prices here."
        meter = page.locator(f"{WRAPPED} [role=meter]")
        assert await meter.get_attribute("aria-valuenow") == "20"
        raw, wrapped = await texts(page, f"{RAW} dd"), await texts(page, f"{WRAPPED} dd")
        assert raw[:2] == ["1", "7"]
        assert wrapped[:2] == ["3 × 3.0", "21 × 3.0"]
        assert all(time.endswith(" s") for time in raw[2:])
        sides = [await page.locator(side).bounding_box() for side in (RAW, WRAPPED)]
        assert sides[0]["y"] == sides[1]["y"]


async def test_a_draft_without_a_doubt_is_said_to_be_kept(browser: Browser) -> None:
    async with proxy(script()) as on, opened(browser, on) as page:
        await compared(page)
        assert await text(page, f"{WRAPPED} .text") == DRAFT
        assert await text(page, f"{WRAPPED} .outcome") == "Kept as draftedno doubt"
        assert await page.locator(".doubts").count() == 0


async def test_what_has_come_is_shown_and_stopping_ends_every_call(browser: Browser) -> None:
    begun = Reply([event(chunk("Gold co"))], content_type="text/event-stream", then="hold")
    async with proxy(script(draft=begun, confusion=begun)) as on, opened(browser, on) as page:
        await page.fill("#question", "What does it cost now?")
        await page.click("#compare")
        await page.get_by_text("Gold co").wait_for()
        live = page.locator(f"{RAW} .text")
        assert await live.get_attribute("aria-live") == "polite"
        assert await live.get_attribute("aria-busy") == "true"
        while len(chats(on)) < 3:
            await asyncio.sleep(0.02)
        await page.click("#stop")
        await page.wait_for_selector("#compare:enabled")
        async with asyncio.timeout(10):
            while len(on.upstream.left) < 3:
                await asyncio.sleep(0.02)
        assert await live.text_content() == "Gold co"
        assert await live.get_attribute("aria-busy") == "false"
        assert await texts(page, ".state") == ["stopped", "stopped"]


async def test_comments_odd_line_ends_and_cut_letters_make_no_difference(browser: Browser) -> None:
    said = event(chunk("Zür"), b"\r\n\r\n") + event(chunk("ich – 東京"), b"\r\r")
    raw = said.replace(b"\\u00fc", "ü".encode()).replace(b"\\u6771", "東".encode())
    pieces = [b": hello\r\n\r\n", *(raw[at : at + 3] for at in range(0, len(raw), 3))]
    last = [b": ping\n\n", b"event: message\nretry: 5\nid: 7\n" + event(chunk(None, "stop"))]
    replies = script(draft=events(*pieces, *last))
    async with proxy(replies) as on, opened(browser, on) as page:
        await compared(page)
        assert await text(page, f"{RAW} .text") == "Zürich – 東京"
        assert await page.locator(f"{RAW} .error").is_hidden()


async def test_pings_while_the_answer_is_worked_out_are_no_part_of_it(browser: Browser) -> None:
    slow = events(0.5, event(chunk(DOUBT)), event(chunk(None, "stop")))
    often = {"ping_interval": 0.05, "stream_head_wait": 0.05}
    async with proxy(script(confusion=slow), **often) as on, opened(browser, on) as page:
        await compared(page)
        assert await text(page, f"{WRAPPED} .text") == MERGED


@pytest.mark.parametrize(
    ("reply", "shown", "kept"),
    [
        (
            events(event(chunk("Gold")), event({"error": {"message": "it melted"}})),
            "melted",
            "Gold",
        ),
        (
            Reply([event(chunk("Gold"))], content_type="text/event-stream", then="drop"),
            "off",
            "Gold",
        ),
        (events(event(chunk("Gold")), done=False), "broke off", "Gold"),
        (events(event(b"{no json")), "no chunk", ""),
        (answer({"error": REFUSED}, status=401), "no such key", ""),
        (answer(b"<h1>Bad gateway</h1>", status=502), "Bad gateway", ""),
    ],
)
async def test_an_error_is_shown_as_text_beside_what_had_come(
    browser: Browser, reply: Reply, shown: str, kept: str
) -> None:
    async with proxy(script(draft=reply)) as on, opened(browser, on) as page:
        await compared(page)
        assert shown in await text(page, f"{RAW} .error")
        assert await page.locator(f"{RAW} .error").get_attribute("role") == "alert"
        assert await text(page, f"{RAW} .text") == kept
        assert (await texts(page, ".state"))[0] == "failed"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (GOLD, "ended too early"),
        (GOLD + event(b"{no json") + event(b"[DONE]"), "isn't JSON"),
        (GOLD + event({"error": "it melted"}), "it melted"),
    ],
)
async def test_something_between_that_spoils_the_stream_is_noticed(
    browser: Browser, body: bytes, shown: str
) -> None:
    async with proxy(script()) as on, opened(browser, on) as page:
        spoilt = {"body": body, "content_type": "text/event-stream"}
        await page.route("**/chat/completions", lambda route: route.fulfill(**spoilt))
        await compared(page)
        assert shown in await text(page, f"{WRAPPED} .error")
        assert await text(page, f"{WRAPPED} .text") == "Gold"


async def test_an_answer_that_comes_whole_is_shown_as_well(browser: Browser) -> None:
    async with proxy(script()) as on, opened(browser, on) as page:
        whole = {"body": json.dumps(completion("All at once.")), "content_type": "application/json"}
        await page.route("**/chat/completions", lambda route: route.fulfill(**whole))
        await compared(page)
        assert await texts(page, "article .text") == ["All at once."] * 2


async def test_a_refusal_tells_its_status_and_code_and_where_a_key_goes(browser: Browser) -> None:
    refused = answer({"error": REFUSED}, status=401)
    async with proxy(script(draft=refused)) as on, opened(browser, on) as page:
        await compared(page)
        for side in (RAW, WRAPPED):
            shown = await text(page, f"{side} .error")
            assert "401 · invalid_api_key" in shown
            assert "“More”" in shown


async def test_a_proxy_that_is_gone_is_said_to_be(browser: Browser) -> None:
    async with proxy(script()) as on, opened(browser, on) as page:
        await page.context.set_offline(True)
        await compared(page)
        assert "can't be reached" in await text(page, f"{RAW} .error")
        await page.context.set_offline(False)
        await compared(page)
        assert await text(page, f"{RAW} .text") == DRAFT
        assert await page.locator(".error:visible").count() == 0


async def test_model_and_strategy_are_those_that_were_picked(browser: Browser) -> None:
    async with proxy(Script(models=["m", "org/big"])) as on, opened(browser, on) as page:
        listed = await texts(page, "#model option")
        assert listed == ["m", "org/big", "another …"]
        assert "raw" not in await texts(page, "#strategy option")
        await page.select_option("#model", "org/big")
        await page.select_option("#strategy", "single")
        await compared(page)
        assert {body["model"] for body in chats(on)} == {"org/big"}
        assert await texts(page, "article .strategy") == ["org/big", "single"]
        assert len(chats(on)) == 2


async def test_a_model_that_is_not_listed_can_be_named(browser: Browser) -> None:
    def unlisted(seen):
        if seen.path.endswith("/models"):
            return answer({"error": {"message": "no list here"}}, status=404)
        return script()(seen)

    async with proxy(unlisted) as on, opened(browser, on) as page:
        assert "no list here" in await text(page, "#notice")
        await page.fill("#other-model", "mine")
        await compared(page)
        assert {body["model"] for body in chats(on)} == {"mine"}


async def test_a_key_goes_upstream_and_is_not_remembered(browser: Browser) -> None:
    async with proxy(script()) as on, opened(browser, on) as page:
        await page.click(".more summary")
        await page.fill("#key", "sk-secret")
        await compared(page)
        sent = {seen.headers.get("Authorization") for seen in on.upstream.seen if seen.body}
        assert sent == {"Bearer sk-secret"}
        assert "sk-secret" not in await page.evaluate("JSON.stringify(localStorage)")


async def test_one_after_the_other_starts_the_wrapped_answer_when_the_raw_one_has_ended(
    browser: Browser,
) -> None:
    begun = Reply([event(chunk("Gold co"))], content_type="text/event-stream", then="hold")
    async with proxy(script(draft=begun)) as on, opened(browser, on) as page:
        await page.click(".more summary")
        await page.check("#in-turn")
        await page.fill("#question", "What does it cost now?")
        await page.click("#compare")
        await page.get_by_text("Gold co").wait_for()
        await asyncio.sleep(0.3)
        assert len(chats(on)) == 1


async def test_reasoning_is_shown_apart_from_the_answer(browser: Browser) -> None:
    thought = chunk()
    thought["choices"][0]["delta"] = {"reasoning_content": "Let me see."}
    reply = events(event(thought), event(chunk("Two.")), event(chunk(None, "stop")))
    async with proxy(script(draft=reply)) as on, opened(browser, on) as page:
        await compared(page)
        assert await text(page, f"{RAW} .text") == "Two."
        assert await text(page, f"{RAW} .reasoning pre") == "Let me see."


async def test_where_replies_tell_nothing_the_trace_does(browser: Browser) -> None:
    replies = script(confusion=DOUBT)
    async with proxy(replies, reply="headers") as on, opened(browser, on) as page:
        await compared(page)
        assert await text(page, f"{WRAPPED} .statement") == "No live prices here."
        assert (await texts(page, f"{WRAPPED} dd"))[0].startswith("3")


async def test_the_trace_shows_what_each_step_sent_and_got_back(browser: Browser) -> None:
    async with proxy(script(confusion=DOUBT)) as on, opened(browser, on) as page:
        await compared(page, "What does gold cost?")
        await page.click(f"{WRAPPED} [data-part=trace]")
        steps = page.locator("#wrapped-steps li")
        await steps.nth(2).wait_for()
        assert await texts(page, "#wrapped-steps summary b") == ["draft", "confusion", "merge"]
        assert "gated/confusion.md · " in (await texts(page, "#wrapped-steps summary code"))[1]
        await steps.nth(1).locator("summary").click()
        sent, back = await steps.nth(1).locator("pre").all_text_contents()
        assert sent == on.bodies()["confusion"]["messages"][-1]["content"]
        assert back == DOUBT
        await page.click(f"{RAW} [data-part=trace]")
        await page.locator("#raw-steps summary").click()
        assert await texts(page, "#raw-steps pre") == ["What does gold cost?", DRAFT]
        await page.click(f"{WRAPPED} [data-part=trace]")
        assert await page.locator("#wrapped-steps").is_hidden()
