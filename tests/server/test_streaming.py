"""Streams as clients see them: through the real OpenAI SDK, and byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from honestproxy.backends.openai_compatible import OpenAICompatible
from honestproxy.pipeline import Pipeline
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest, Options
from tests.proxy import DOUBT, DRAFT, MERGED, NO_DOUBT, Proxy, ask, proxy, script
from tests.upstreams import Reply, answer, chunk, completion, event, events, upstream

BROKEN = Reply([event(chunk("The mer"))], content_type="text/event-stream", then="drop")


async def lines(on: Proxy, body: dict[str, Any]) -> AsyncIterator[bytes]:
    async with on.session.post(f"{on.url}/chat/completions", json=body) as got:
        assert got.headers["content-type"].startswith("text/event-stream")
        async for line in got.content:
            yield line.strip()


async def chunks(on: Proxy, body: dict[str, Any]) -> list[dict[str, Any]]:
    found = [line async for line in lines(on, body) if line.startswith(b"data: ")]
    assert found[-1] == b"data: [DONE]"
    return [json.loads(line[6:]) for line in found[:-1]]


def texts(found: list[dict[str, Any]]) -> str:
    deltas = [choice["delta"] for piece in found for choice in piece["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


@pytest.mark.parametrize("strategy", ["raw", "curiosity", "gated", "single", "critique"])
async def test_one_role_one_end_one_usage_one_done(strategy: str) -> None:
    said = {"confusion": DOUBT, "critique": "A fault.", "edit": ["Edit", "ed."]}
    single = ["<lim", f"its>{NO_DOUBT}</lim", "its>\n", "Sin", "gle."]
    replies = script(**said, merge=["The mer", "ged."], single=single)
    async with proxy(replies, strategy=strategy) as on:
        found = await chunks(on, ask(stream=True, stream_options={"include_usage": True}))
    choices = [choice for piece in found for choice in piece["choices"]]
    assert [c["delta"]["role"] for c in choices if "role" in c["delta"]] == ["assistant"]
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["stop"]
    assert [bool(piece.get("usage")) for piece in found].count(True) == 1
    assert (
        found[-1]["usage"]["total_tokens"]
        == 7 * {"raw": 1, "curiosity": 3, "gated": 3, "single": 1, "critique": 5}[strategy]
    )
    expected = {"raw": DRAFT, "single": "Single.", "critique": "Edited."}
    assert texts(found) == expected.get(strategy, "The merged.")


async def test_no_usage_chunk_where_none_was_asked_for() -> None:
    async with proxy(script()) as on:
        found = await chunks(on, ask(stream=True))
        assert on.bodies()["draft"]["stream_options"] == {"include_usage": True}
    assert all(piece["choices"] for piece in found)
    assert not any(piece.get("usage") for piece in found)


@pytest.mark.parametrize(("confusion", "outcome"), [(NO_DOUBT, "draft_kept"), (DOUBT, "rewritten")])
async def test_honesty_rides_on_the_finishing_chunk(confusion: str, outcome: str) -> None:
    async with proxy(script(confusion=confusion)) as on:
        stream = await on.client.chat.completions.create(**ask(), stream=True)
        found = [piece async for piece in stream]
    labelled = [piece for piece in found if "honesty" in (piece.model_extra or {})]
    assert [bool(piece.choices[0].finish_reason) for piece in labelled] == [True]
    honesty = labelled[0].model_extra["honesty"]
    assert honesty["outcome"] == outcome
    assert labelled[0].choices[0].model_extra["honesty"] == honesty
    assert all(step["usage"]["total_tokens"] == 7 for step in honesty["steps"])


async def test_raw_streams_byte_for_byte() -> None:
    sent = [b": hello\n\n", event(chunk("a")), event(chunk("b", "stop"))]
    async with proxy(lambda _: events(*sent), strategy="raw") as on:
        url = f"{on.url}/chat/completions"
        async with on.session.post(url, json=ask(stream=True)) as got:
            assert await got.read() == b"".join(sent) + b"data: [DONE]\n\n"
        assert on.upstream.seen[0].json() == ask(stream=True)


async def test_a_merge_that_fails_before_its_text_gives_the_draft() -> None:
    role = {**chunk(), "choices": [{"index": 0, "delta": {"role": "assistant"}}]}
    broken = Reply([event(role)], content_type="text/event-stream", then="drop")
    async with proxy(script(confusion=DOUBT, merge=broken)) as on:
        found = await chunks(on, ask(stream=True))
    assert texts(found) == DRAFT
    roles = [piece["choices"][0]["delta"].get("role") for piece in found]
    assert roles.count("assistant") == 1
    assert found[-1]["honesty"]["outcome"] == "draft_fallback"


@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_an_answer_that_breaks_off_raises_in_the_sdk(strategy: str) -> None:
    replies = script(confusion=DOUBT, merge=BROKEN, draft=DRAFT if strategy == "gated" else BROKEN)
    async with proxy(replies, strategy=strategy) as on:
        seen: list[str] = []
        with pytest.raises(openai.APIError, match="broke off"):
            await _drained(on, seen)
    assert "".join(seen) == "The mer"


async def test_a_draft_that_breaks_off_while_the_gate_is_shut_is_an_error_not_an_answer() -> None:
    async with proxy(script(draft=BROKEN, confusion=events(0.3, event(chunk(NO_DOUBT))))) as on:
        with pytest.raises(openai.APIError, match="broke off"):
            await _drained(on)


async def _drained(on: Proxy, seen: list[str] | None = None) -> None:
    stream = await on.client.chat.completions.create(**ask(), stream=True)
    async for piece in stream:
        if seen is not None:
            seen.append(piece.choices[0].delta.content or "")


@pytest.mark.parametrize(
    "garbage", [b'{"choices": [', b'{"choices": [nul]}', b'{"choices": [null]}']
)
async def test_a_chunk_that_is_no_chunk_is_an_error_or_a_fallback(garbage: bytes) -> None:
    broken = events(event(chunk("x")), event(garbage + b"}"))
    async with proxy(script(confusion=broken)) as on:
        found = await chunks(on, ask(stream=True))
        assert found[-1]["honesty"]["outcome"] == "draft_fallback"
    async with proxy(script(draft=broken)) as on:
        with pytest.raises(openai.APIError):
            await _drained(on)


async def test_pings_flow_while_early_steps_run() -> None:
    async with proxy(
        script(confusion=events(0.5, event(chunk(NO_DOUBT, "stop")))), ping_interval=0.1
    ) as on:
        found = [line async for line in lines(on, ask(stream=True))]
    pings = [line for line in found if line == b": ping"]
    assert len(pings) >= 2
    assert found.index(b": ping") < next(i for i, line in enumerate(found) if b"data:" in line)


async def test_no_ping_comes_before_its_interval_is_over() -> None:
    slowly = script(confusion=events(0.3, event(chunk(NO_DOUBT, "stop"))))
    async with proxy(slowly, ping_interval=30) as on:
        found = [line async for line in lines(on, ask(stream=True))]
    assert b": ping" not in found
    assert b"data: [DONE]" in found


async def test_the_head_goes_out_before_a_draft_that_takes_its_time() -> None:
    slow = Reply([0.5, event(chunk("x", "stop"))], content_type="text/event-stream")

    async def head(on: Proxy) -> int:
        async with on.session.post(f"{on.url}/chat/completions", json=ask(stream=True)) as got:
            return len(await got.content.readline())

    async with proxy(script(draft=slow), stream_head_wait=0.05, ping_interval=0.1) as on:
        assert await head(on) == len(b": ping\n")


async def test_a_kept_draft_is_released_as_soon_as_the_gate_is_settled() -> None:
    """An empty list of doubts is enough: the rest of the confusion is still to come."""
    settled = Reply(
        [event(chunk('{"doubts": [], '))], content_type="text/event-stream", then="hold"
    )
    async with proxy(script(draft=["First ", "last."], confusion=settled)) as on:
        stream = await on.client.chat.completions.create(**ask(), stream=True)
        said = [piece.choices[0].delta.content async for piece in stream if piece.choices]
        await asyncio.wait_for(on.upstream.gone.wait(), 5)
    assert [text for text in said if text] == ["First ", "last."]


async def test_tool_calls_are_released_at_their_first_delta_and_the_confusion_cancelled() -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "get_quote", "arguments": ""}}
    first, last = chunk(), chunk(None, "tool_calls")
    first["choices"][0]["delta"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    held = Reply([event(chunk("{"))], content_type="text/event-stream", then="hold")
    async with proxy(script(draft=events(event(first), event(last)), confusion=held)) as on:
        tools = [{"type": "function", "function": {"name": "get_quote"}}]
        found = await chunks(on, ask(stream=True, tools=tools))
        await asyncio.wait_for(on.upstream.gone.wait(), 5)
    assert found[0]["choices"][0]["delta"]["tool_calls"] == [call]
    assert found[-1]["honesty"]["reason"] == "tool calls"


@pytest.mark.parametrize("held", ["draft", "confusion", "merge"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_ends_every_upstream_call(held: str, streamed: bool) -> None:
    holding = Reply([event(chunk("x"))], content_type="text/event-stream", then="hold")
    replies = {"confusion": DOUBT, held: holding}
    async with proxy(script(**replies)) as on:
        asking = asyncio.create_task(_read(on, ask(stream=streamed)))
        await asyncio.wait_for(on.upstream.holding.wait(), 5)
        asking.cancel()
        await asyncio.wait_for(on.upstream.gone.wait(), 5)


async def _read(on: Proxy, body: dict[str, Any]) -> None:
    async with on.session.post(f"{on.url}/chat/completions", json=body) as got:
        await got.read()


async def test_reasoning_streams_live_and_an_empty_answer_after_it_falls_back() -> None:
    thought = chunk()
    thought["choices"][0]["delta"] = {"role": "assistant", "reasoning_content": "Hm."}
    merge = events(event(thought), event(chunk(None, "length")))
    async with proxy(script(confusion=DOUBT, merge=merge)) as on:
        found = await chunks(on, ask(stream=True))
    assert found[0]["choices"][0]["delta"]["reasoning_content"] == "Hm."
    assert texts(found) == DRAFT
    roles = [c["delta"].get("role") for piece in found for c in piece["choices"]]
    assert roles.count("assistant") == 1


async def test_a_merge_that_calls_a_tool_falls_back_and_never_splices() -> None:
    called = chunk()
    called["choices"][0]["delta"] = {"role": "assistant", "tool_calls": [{"index": 0, "id": "c"}]}
    merge = events(event(called), event(chunk(None, "tool_calls")))
    async with proxy(script(confusion=DOUBT, merge=merge)) as on:
        found = await chunks(on, ask(stream=True))
    assert texts(found) == DRAFT
    assert not any("tool_calls" in c["delta"] for piece in found for c in piece["choices"])


@pytest.mark.parametrize("asked", [False, True])
async def test_usage_on_the_finishing_chunk_is_told_once_if_asked_for(asked: bool) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    draft = events(event(chunk("x")), event(chunk(None, "stop", usage=usage)))
    options = {"stream_options": {"include_usage": True}} if asked else {}
    async with proxy(script(draft=draft)) as on:
        found = await chunks(on, ask(stream=True, **options))
    reported = [piece for piece in found if piece.get("usage")]
    assert [piece["choices"] for piece in reported] == ([[]] if asked else [])


def counting(*texts: str) -> Reply:
    """An answer that tells with each chunk what it has cost so far."""
    pieces = [chunk(text) for text in texts] + [chunk(None, "stop")]
    for at, piece in enumerate(pieces, 1):
        piece["usage"] = {"prompt_tokens": 5, "completion_tokens": at, "total_tokens": 5 + at}
    return events(*map(event, pieces))


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize(("setting", "total"), [("sum", 8 + 7), ("answer", 8)])
async def test_usage_that_is_counted_as_it_goes_is_told_once_if_asked_for(
    setting: str, total: int, asked: bool
) -> None:
    options = {"stream_options": {"include_usage": True}} if asked else {}
    async with proxy(script(draft=counting("The ", "draft.")), usage=setting) as on:
        found = await chunks(on, ask(stream=True, **options))
    assert texts(found) == "The draft."
    reported = [piece["usage"]["total_tokens"] for piece in found if piece.get("usage")]
    assert reported == ([total] if asked else [])


async def test_raw_counts_what_an_answer_has_cost_in_the_end() -> None:
    async with upstream(counting("The ", "draft.")) as server:
        pipeline = Pipeline(OpenAICompatible(server.url, Settings(upstream=server.url)))
        run = pipeline.run(ChatRequest(ask(stream=True), options=Options(strategy="raw")))
        assert [part.text async for part in run.stream()][1:3] == ["The ", "draft."]
        await pipeline.aclose()
    assert run.honesty.trace.usage["total_tokens"] == 8


async def test_a_usage_of_null_behind_the_usage_takes_nothing_back() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    ends = [{**chunk(), "choices": [], "usage": told} for told in (usage, None)]
    draft = events(event(chunk("x")), event(chunk(None, "stop")), *map(event, ends))
    async with proxy(script(draft=draft)) as on:
        found = await chunks(on, ask(stream=True, stream_options={"include_usage": True}))
    assert found[-1]["usage"]["total_tokens"] == 14
    told = next(piece["honesty"] for piece in found if "honesty" in piece)
    assert [step["usage"]["total_tokens"] for step in told["steps"]] == [7, 7]


async def test_a_confusion_that_trails_on_doesnt_hold_up_the_end() -> None:
    trailing = Reply(
        [event(chunk('{"doubts": [], ')), 30.0], content_type="text/event-stream", then="hold"
    )
    slow = [word + " " for word in ["one", "two", "three"]]
    async with proxy(script(draft=slow, confusion=trailing)) as on:
        found = await asyncio.wait_for(chunks(on, ask(stream=True)), 10)
    assert found[-1]["honesty"]["outcome"] == "draft_kept"
    assert found[-1]["honesty"]["steps"][1]["usage"] is None


@pytest.mark.parametrize("done", [b"data:[DONE]\n\n", b"data: [DONE]\r\n\r\n"])
async def test_raw_streams_end_as_the_upstream_ends_them(done: bytes) -> None:
    sent = [event(chunk("a", "stop")), done]
    async with proxy(lambda _: events(*sent, done=False), strategy="raw") as on:
        url = f"{on.url}/chat/completions"
        async with on.session.post(url, json=ask(stream=True)) as got:
            assert await got.read() == b"".join(sent)


async def test_merged_text_and_kept_text_are_never_spliced() -> None:
    async with proxy(script(confusion=DOUBT)) as on:
        found = await chunks(on, ask(stream=True))
    assert texts(found) == MERGED


async def test_raw_texts_that_come_at_once_are_each_there_for_who_reads_them_in_process() -> None:
    at_once = events(b"".join(event(chunk(text)) for text in "abc") + event(chunk(None, "stop")))
    async with upstream(at_once) as server:
        pipeline = Pipeline(OpenAICompatible(server.url, Settings(upstream=server.url)))
        asked = ChatRequest(ask(stream=True), options=Options(strategy="raw"))
        texts = [part.text async for part in pipeline.stream(asked)]
        await pipeline.aclose()
    assert [text for text in texts if text] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "empty", [{"tool_calls": None}, {"tool_calls": []}, {"function_call": None}]
)
@pytest.mark.parametrize("strategy", ["gated", "curiosity", "single"])
async def test_names_without_a_value_in_a_delta_call_no_tool(strategy: str, empty: dict) -> None:
    def with_nulls(text: str) -> Reply:
        pieces = [chunk(""), *(chunk(part) for part in text.split(" ")), chunk(None, "stop")]
        for piece in pieces:
            piece["choices"][0]["delta"] |= empty
        return events(*map(event, pieces))

    single = f"<limits>{DOUBT}</limits> The single answer."
    replies = script(
        draft=with_nulls(DRAFT),
        confusion=DOUBT,
        merge=with_nulls("Merged."),
        single=with_nulls(single),
    )
    async with proxy(replies, strategy=strategy) as on:
        chunks = [c async for c in await on.client.chat.completions.create(**ask(stream=True))]
    assert chunks[-1].model_extra["honesty"]["outcome"] == "rewritten"


@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_an_empty_finish_reason_is_none(strategy: str) -> None:
    cut = events(event(chunk("The dra", "")), done=False)
    async with proxy(script(draft=cut), strategy=strategy) as on:
        with pytest.raises(openai.APIError, match="broke off"):
            async for _ in await on.client.chat.completions.create(**ask(stream=True)):
                pass


@pytest.mark.parametrize("confusion", [NO_DOUBT, DOUBT])
@pytest.mark.parametrize("strategy", ["gated", "curiosity", "single"])
@pytest.mark.parametrize("reason", [None, ""])
async def test_done_ends_an_answer_without_a_finish_reason(
    strategy: str, confusion: str, reason: str | None
) -> None:
    def bare(text: str) -> Reply:
        return events(*(event(chunk(part, reason)) for part in text.partition(" ")))

    single = f"<limits>{confusion}</limits> The single answer."
    steps = {"draft": DRAFT, "confusion": confusion, "merge": MERGED, "single": single}
    replies = script(**{step: bare(text) for step, text in steps.items()})
    async with proxy(replies, strategy=strategy) as on:
        found = await chunks(on, ask(stream=True))
    kept = strategy == "gated" and confusion == NO_DOUBT
    expected = "The single answer." if strategy == "single" else DRAFT if kept else MERGED
    assert texts(found).strip() == expected
    ends = [c["finish_reason"] for piece in found for c in piece["choices"] if c["finish_reason"]]
    assert ends == ["stop"]
    last = found[-1]
    assert (last["id"], last["object"]) == ("chatcmpl-1", "chat.completion.chunk")
    assert last["honesty"]["outcome"] == ("draft_kept" if kept else "rewritten")
    assert last["choices"][0]["honesty"] == last["honesty"]


async def test_done_ends_each_choice_that_nothing_else_has() -> None:
    parts = [chunk("One."), chunk("Two."), chunk(None, "length")]
    for index, part in zip((0, 1, 0), parts, strict=True):
        part["choices"][0]["index"] = index
    async with proxy(script(draft=events(*map(event, parts))), strategy="gated") as on:
        found = await chunks(on, ask(n=2, stream=True))
    ends = [
        (c["index"], c["finish_reason"], c["honesty"]["outcome"])
        for piece in found
        for c in piece["choices"]
        if c["finish_reason"]
    ]
    assert sorted(ends) == [(0, "length", "draft_kept"), (1, "stop", "draft_kept")]


async def test_done_behind_no_choice_at_all_is_no_answer() -> None:
    empty = events(event({**chunk(), "choices": []}))
    async with proxy(script(draft=empty), strategy="gated") as on:
        with pytest.raises(openai.APIError, match="broke off"):
            await _drained(on)


async def test_raw_passes_on_what_done_alone_ends() -> None:
    sent = [event(chunk("Done.")), event(b"[DONE]")]
    async with proxy(lambda _: events(*sent, done=False), strategy="raw") as on:
        url = f"{on.url}/chat/completions"
        async with on.session.post(url, json=ask(stream=True)) as got:
            assert await got.read() == b"".join(sent)


@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_of_two_choices_both_must_end(strategy: str) -> None:
    other = chunk("The other")
    other["choices"][0]["index"] = 1
    cut = events(event(chunk("One.", "stop")), event(other), done=False)
    async with proxy(script(draft=cut), strategy=strategy) as on:
        with pytest.raises(openai.APIError, match="broke off"):
            async for _ in await on.client.chat.completions.create(**ask(n=2, stream=True)):
                pass


async def test_the_end_of_one_choice_never_holds_up_anothers_text() -> None:
    one, other = chunk("1}", "stop"), chunk('{"a":')
    other["choices"][0]["index"] = 1
    both = {**one, "choices": one["choices"] + other["choices"]}
    last = chunk("2}", "stop")
    last["choices"][0]["index"] = 1
    asked = ask(n=2, stream=True, response_format={"type": "json_object"})
    async with proxy(script(draft=events(event(both), event(last))), strategy="gated") as on:
        texts = {0: "", 1: ""}
        async for part in await on.client.chat.completions.create(**asked):
            for choice in part.choices:
                texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "1}", 1: '{"a":2}'}


async def test_calls_without_a_number_are_put_together_in_their_order() -> None:
    deltas = [
        [{"index": None, "id": "c1", "function": {"name": "look", "arguments": ""}}],
        [{"index": None, "function": {"arguments": "{}"}}],
    ]
    pieces = [{**chunk(), "choices": [{"index": 0, "delta": {"tool_calls": d}}]} for d in deltas]
    replies = script(draft=events(*map(event, pieces), event(chunk(None, "tool_calls"))))
    async with proxy(replies, strategy="gated") as on:
        body = json.dumps(ask(stream=True))
        headers = {"Content-Type": "application/json"}
        async with on.session.post(f"{on.url}/chat/completions", data=body, headers=headers) as got:
            raw = await got.text()
    assert "draft_kept" in raw
    assert "TypeError" not in raw
    assert raw.endswith("data: [DONE]\n\n")


async def test_usage_that_nobody_asked_for_is_not_made_of_a_whole_answer() -> None:
    async with proxy(script(draft=answer(completion())), strategy="raw") as on:
        chunks = [c async for c in await on.client.chat.completions.create(**ask(stream=True))]
        wanted = ask(stream=True, stream_options={"include_usage": True})
        told = [c async for c in await on.client.chat.completions.create(**wanted)]
    assert all(part.choices for part in chunks)
    assert told[-1].usage.total_tokens == 7
