"""Deadlines and budgets of a turn: what isn't sent, what is cut, and what stands then."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.proxy import DOUBT, DRAFT, MERGED, NO_DOUBT, Proxy, ask, proxy, script, step_of
from tests.upstreams import Reply, answer, chunk, completion, event

HANGING = Reply(then="hold")
TRICKLING = Reply([piece for byte in b'{"choices": [' * 9 for piece in (bytes([byte]), 0.1)])


async def told(on: Proxy, streamed: bool, **more: Any) -> tuple[str, dict[str, Any]]:
    """The answer's text and its `honesty`, however it came."""
    if not streamed:
        status, body, _ = await on.post(ask(**more))
        assert status == 200, body
        return body["choices"][0]["message"]["content"], body["honesty"]
    text, honesty = "", {}
    async for part in await on.client.chat.completions.create(**ask(stream=True, **more)):
        text += part.choices[0].delta.content or ""
        honesty = (part.model_extra or {}).get("honesty") or honesty
    return text, honesty


async def failed(on: Proxy, streamed: bool, **more: Any) -> tuple[int, dict[str, Any]]:
    """The status of a reply, and the error that it holds, in band or not."""
    body = ask(stream=streamed, **more)
    async with on.session.post(f"{on.url}/chat/completions", json=body) as got:
        text = await got.text()
    last = text.strip().rpartition("data: ")[2]
    return got.status, json.loads(last)["error"]


def sent(on: Proxy) -> list[str]:
    return sorted(step_of(seen.json()) for seen in on.upstream.seen)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("strategy", "most", "steps", "outcome", "text"),
    [
        ("gated", 1, ["draft"], "draft_fallback", DRAFT),
        ("gated", 2, ["confusion", "draft"], "draft_fallback", DRAFT),
        ("gated", 3, ["confusion", "draft", "merge"], "rewritten", MERGED),
        ("curiosity", 2, ["confusion", "draft"], "draft_fallback", DRAFT),
        ("critique", 3, ["confusion", "draft", "merge"], "draft_fallback", DRAFT),
        ("raw", 1, ["draft"], "passed_through", DRAFT),
        ("single", 1, ["single"], "rewritten", "The answer."),
    ],
)
async def test_no_more_calls_are_made_than_a_turn_may_make(
    strategy: str, most: int, steps: list[str], outcome: str, text: str, streamed: bool
) -> None:
    single = f"<limits>{DOUBT}</limits>\n\nThe answer."
    replies = script(confusion=DOUBT, single=single)
    async with proxy(replies, strategy=strategy, max_calls=most) as on:
        if strategy == "raw":
            async with on.session.post(
                f"{on.url}/chat/completions", json=ask(stream=streamed)
            ) as got:
                assert text in await got.text()
        else:
            found, honesty = await told(on, streamed)
            assert (found, honesty["outcome"]) == (text, outcome)
            assert ("max_calls" in honesty["reason"]) == (outcome == "draft_fallback")
        assert sent(on) == steps


@pytest.mark.parametrize("streamed", [False, True])
async def test_no_step_begins_once_a_turn_has_used_its_tokens(streamed: bool) -> None:
    # Each call of the double's uses 7: draft and confusion begin together, and leave 14.
    for most, outcome in ((14, "draft_fallback"), (15, "rewritten")):
        async with proxy(script(confusion=DOUBT), strategy="gated", max_tokens=most) as on:
            _, honesty = await told(on, streamed)
        assert honesty["outcome"] == outcome
        assert ("14 tokens (setting max_tokens)" in honesty["reason"]) == (most == 14)


async def test_several_answers_share_one_budget() -> None:
    # One draft and one confusion serve both answers; the third call rewrites one of them.
    [one] = completion(DRAFT)["choices"]
    both = answer({**completion(), "choices": [one, {**one, "index": 1}]})
    async with proxy(script(draft=both, confusion=DOUBT), strategy="gated", max_calls=3) as on:
        status, body, _ = await on.post(ask(n=2))
    outcomes = sorted(choice["honesty"]["outcome"] for choice in body["choices"])
    assert (status, outcomes) == (200, ["draft_fallback", "rewritten"])
    assert body["honesty"]["reason"].startswith("1 of 2: the merge step wasn't sent")


async def test_an_error_may_be_wished_for_instead_of_the_draft() -> None:
    async with proxy(script(), strategy="gated", max_calls=1) as on:
        status, error = await failed(on, False, honesty={"on_failure": "error"})
    assert (status, error["code"]) == (502, "over_budget")
    assert "max_calls" in error["message"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("slow", [HANGING, TRICKLING])
@pytest.mark.parametrize("step", ["confusion", "merge"])
async def test_a_turn_that_takes_too_long_ends_with_its_draft(
    step: str, slow: Reply, streamed: bool
) -> None:
    replies = script(**{"confusion": DOUBT, step: slow})
    async with proxy(replies, strategy="gated", turn_timeout=2) as on:
        text, honesty = await told(on, streamed)
    assert (text, honesty["outcome"]) == (DRAFT, "draft_fallback")
    assert "2 s" in honesty["reason"]
    assert "(setting turn_timeout)" in honesty["reason"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("slow", [HANGING, TRICKLING])
@pytest.mark.parametrize("strategy", ["raw", "gated"])
@pytest.mark.parametrize("setting", ["turn_timeout", "step_timeout"])
async def test_without_a_draft_in_time_it_is_a_504(
    setting: str, strategy: str, slow: Reply, streamed: bool
) -> None:
    replies = script(draft=slow)
    async with proxy(replies, strategy=strategy, **{setting: 0.4}) as on:
        status, error = await failed(on, streamed)
    assert (status, error["code"]) == (504, "upstream_timeout")
    assert f"(setting {setting})" in error["message"]


@pytest.mark.parametrize("strategy", ["raw", "gated", "curiosity"])
async def test_a_stream_that_goes_on_too_long_ends_in_an_error(strategy: str) -> None:
    endless = Reply([event(chunk("Half an answer"))], content_type="text/event-stream", then="hold")
    step = "merge" if strategy == "curiosity" else "draft"
    replies = script(**{step: endless, "confusion": NO_DOUBT})
    async with proxy(replies, strategy=strategy, turn_timeout=2) as on:
        body = ask(stream=True)
        async with on.session.post(f"{on.url}/chat/completions", json=body) as got:
            text = await got.text()
    assert got.status == 200
    assert "Half an answer" in text
    assert "upstream_timeout" in text.strip().rpartition("data: ")[2]
    assert "[DONE]" not in text


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_deadline_holds_for_several_answers(streamed: bool) -> None:
    async with proxy(script(draft=HANGING), strategy="gated", turn_timeout=0.4) as on:
        status, error = await failed(on, streamed, n=3)
    assert (status, error["code"]) == (504, "upstream_timeout")
    assert "turn_timeout" in error["message"]


async def test_retries_end_with_the_deadline() -> None:
    async with proxy(
        script(draft=Reply(then="drop")), strategy="raw", retries=10, step_timeout=0.5
    ) as on:
        status, _ = await failed(on, False)
        assert status in (502, 504)
        assert 1 < len(on.upstream.seen) < 10
