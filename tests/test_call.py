"""Calls under way: awaited, iterated, cancelled; and streams put together again."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from honestproxy.backends.scripted import Scripted
from honestproxy.call import Assembly, Call, Deadline
from honestproxy.errors import UpstreamBroken
from honestproxy.trace import Step
from honestproxy.types import ChatRequest, ChatResponse, Chunk


def call(backend: Any, *, streamed: bool = True, seconds: float = 5) -> Call:
    step, deadline = Step("draft", ChatRequest({})), Deadline.after(seconds)
    return Call(step, backend, streamed=streamed, deadline=deadline)


async def test_a_stream_can_be_awaited_and_read_again_from_its_beginning() -> None:
    one = call(Scripted([["a", "b", "c"]]))
    assert (await one).text == "abc"
    assert "".join([chunk.text async for chunk in one]) == "abc"
    assert one.step.response is not None


async def test_what_was_passed_on_as_it_came_can_be_read_again_and_is_the_same() -> None:
    class Wire:
        async def stream(self, _: ChatRequest) -> AsyncGenerator[Chunk, None]:
            for text in ("a", "b"):
                made = Chunk.of(text).raw
                yield Chunk(made, event=b"data: " + made + b"\n\n", headers={"x": "y"})
            yield Chunk(Chunk.of(finish_reason="stop").raw, event=b"data: end\n\n")

    one = call(Wire())
    first, second = [[(c.raw, c.event, c.text) async for c in one] for _ in range(2)]
    assert first == second
    assert [text for _, _, text in first] == ["a", "b", ""]


async def test_a_whole_answer_can_be_iterated() -> None:
    one = call(Scripted(["abc"]), streamed=False)
    assert "".join([chunk.text async for chunk in one]) == "abc"


async def test_giving_up_on_a_call_leaves_it_running() -> None:
    one = call(Scripted([["a", "b"]], delay=0.02))

    async def impatient() -> ChatResponse:
        return await one

    waiting = asyncio.create_task(impatient())
    await asyncio.sleep(0.01)
    waiting.cancel()
    assert (await one).text == "ab"


async def test_a_cancelled_call_closes_its_stream() -> None:
    closed = asyncio.Event()

    class Endless:
        async def stream(self, _: ChatRequest) -> AsyncGenerator[Chunk, None]:
            try:
                while True:
                    yield Chunk.of("x")
                    await asyncio.sleep(0.001)
            finally:
                closed.set()

    one = call(Endless())
    await asyncio.sleep(0.01)
    one.cancel()
    await asyncio.wait_for(closed.wait(), 5)
    assert one.failed
    assert one.step.error == "cancelled"


async def test_a_cancelled_call_leaves_nothing_for_a_collection() -> None:
    class Endless:
        async def stream(self, _: ChatRequest) -> AsyncGenerator[Chunk, None]:
            yield Chunk.of("one")
            await asyncio.Event().wait()

    gc.collect()
    gc.disable()
    try:
        one = call(Endless())
        await asyncio.sleep(0.01)
        one.cancel()
        await asyncio.sleep(0.01)
        known = weakref.ref(one)
        del one
        assert known() is None
    finally:
        gc.enable()


async def test_a_slow_reader_stops_the_upstream_from_running_ahead() -> None:
    made = 0

    class Eager:
        async def stream(self, _: ChatRequest) -> AsyncGenerator[Chunk, None]:
            nonlocal made
            for made in range(5000):  # noqa: B007 - counts what was asked of it
                yield Chunk.of("x")
            yield Chunk.of(finish_reason="stop")

    one = call(Eager())
    reader = aiter(one)
    await anext(reader)
    for _ in range(50):
        await asyncio.sleep(0)
    assert made < 500
    assert sum([1 async for _ in reader]) == 5000


async def test_a_stream_without_an_end_is_broken() -> None:
    class Broken:
        async def stream(self, _: ChatRequest) -> AsyncGenerator[Chunk, None]:
            yield Chunk.of("half")

    with pytest.raises(UpstreamBroken, match="broke off"):
        await call(Broken())


def assembled(*chunks: dict[str, Any]) -> dict[str, Any]:
    assembly = Assembly()
    for body in chunks:
        assembly.add(Chunk(body))
    return assembly.response().dict()


def piece(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> Any:
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
    return {"id": "1", "model": "m", "choices": [choice]}


def test_texts_reasoning_and_refusals_are_joined() -> None:
    found = assembled(
        piece({"role": "assistant", "content": "", "reasoning_content": "I "}),
        piece({"reasoning_content": "think"}),
        piece({"content": "Par"}),
        piece({"content": "is"}, "stop"),
        {"id": "1", "choices": [], "usage": {"total_tokens": 3}, "x_late": 1},
    )
    message = found["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Paris", "I think")
    assert (found["usage"], found["x_late"]) == ({"total_tokens": 3}, 1)
    assert found["object"] == "chat.completion"


def test_parallel_tool_calls_are_joined_by_index() -> None:
    def tool(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        function = {"arguments": arguments} | ({"name": more["name"]} if "name" in more else {})
        identity = {"id": more["id"], "type": "function"} if "id" in more else {}
        return {"tool_calls": [{"index": index, **identity, "function": function}]}

    found = assembled(
        piece(tool(0, "", id="a", name="f")),
        piece(tool(1, "", id="b", name="g")),
        piece(tool(0, '{"x":')),
        piece(tool(1, "{}")),
        piece(tool(0, "1}")),
        piece({}, "tool_calls"),
    )
    calls = found["choices"][0]["message"]["tool_calls"]
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
        ("a", "f", '{"x":1}'),
        ("b", "g", "{}"),
    ]


def test_choices_and_logprobs_are_kept_apart_and_joined() -> None:
    def logged(token: str, index: int) -> Any:
        return piece({"content": token}, index=index, logprobs={"content": [{"token": token}]})

    found = assembled(
        logged("a", 0), logged("x", 1), logged("b", 0), piece({}, "stop", 0), piece({}, "length", 1)
    )
    first, second = found["choices"]
    assert [item["token"] for item in first["logprobs"]["content"]] == ["a", "b"]
    assert (second["message"]["content"], second["finish_reason"]) == ("x", "length")
