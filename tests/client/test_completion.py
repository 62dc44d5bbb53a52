"""`completion` and `acompletion`: as litellm's, with honest answers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel

import honestproxy
from honestproxy import honest
from honestproxy.backends.litellm import load
from honestproxy.errors import InvalidRequest
from honestproxy.wire.request import chat_request
from tests.proxy import DOUBT, DRAFT, MERGED, Script, ask, script, step_of
from tests.upstreams import Reply, Seen, Upstream, answer, chunk, event, upstream

# litellm looks at every attribute of pydantic's models.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning")

MESSAGES = ask()["messages"]
KEY = "sk-caller-0123456789"
BOTH = ["completion", "acompletion"]
Ask = Callable[..., Any]


async def _sync(*args: Any, **named: Any) -> Any:
    return await asyncio.to_thread(honestproxy.completion, *args, **named)


@pytest.fixture(params=BOTH)
def asked(request: pytest.FixtureRequest) -> Ask:
    """Each of the two."""
    return honestproxy.acompletion if request.param == "acompletion" else _sync


async def read(stream: Any) -> list[Any]:
    if hasattr(stream, "__aiter__"):
        return [part async for part in stream]
    return await asyncio.to_thread(list, stream)


@asynccontextmanager
async def before(
    replies: Script | Callable[[Seen], Reply],
) -> AsyncIterator[tuple[Upstream, dict[str, Any]]]:
    """An upstream, and how litellm is told of it."""
    async with upstream(replies) as server:
        try:
            yield server, {"api_base": server.url, "api_key": KEY}
        finally:
            litellm = load()
            await litellm.close_litellm_async_clients()
            litellm.in_memory_llm_clients_cache.flush_cache()


async def test_an_answer_is_of_litellms_type_and_has_a_trace(asked: Ask) -> None:
    async with before(script(confusion=DOUBT)) as (server, where):
        reply = await asked("openai/m", MESSAGES, temperature=0.5, **where)
    assert isinstance(reply, load().ModelResponse)
    assert reply.choices[0].message.content == MERGED
    assert reply.usage.total_tokens == 21
    assert honest.trace(reply).calls == 3
    assert {seen.headers["Authorization"] for seen in server.seen} == {f"Bearer {KEY}"}
    sent = {step_of(seen.json()): seen.json() for seen in server.seen}
    assert sent["draft"]["temperature"] == 0.5


async def test_a_stream_is_of_litellms_type_and_can_be_put_together(asked: Ask) -> None:
    async with before(script(confusion=DOUBT, merge=["The ", "end."])) as (_, where):
        stream = await asked("openai/m", MESSAGES, stream=True, **where)
        assert honest.trace(stream) is None
        parts = await read(stream)
    assert all(isinstance(part, load().ModelResponseStream) for part in parts)
    assert load().stream_chunk_builder(parts).choices[0].message.content == "The end."
    assert honest.trace(parts[-1]).outcome == "rewritten"
    assert honest.trace(stream) == honest.trace(parts[-1])


@pytest.mark.parametrize(
    ("how", "strategy"),
    [
        ({"strategy": "curiosity"}, "curiosity"),
        ({"honesty": {"strategy": "single"}, "strategy": "raw"}, "single"),
        ({"model": "openai/m@curiosity"}, "curiosity"),
    ],
)
async def test_the_strategy_is_chosen_by_name(how: dict[str, Any], strategy: str) -> None:
    async with before(script(single="Limits:\nnone\nAnswer:\nyes")) as (server, where):
        named = {"model": "openai/m", "messages": MESSAGES, **how, **where}
        reply = await honestproxy.acompletion(**named)
    assert honest.trace(reply).strategy == strategy
    assert {seen.json()["model"] for seen in server.seen} == {"m"}


async def test_options_of_litellms_go_along_with_each_call() -> None:
    async with before(script(confusion=DOUBT)) as (server, where):
        more = {"extra_headers": {"X-App": "mine"}, "extra_body": {"min_p": 0.1}}
        await honestproxy.acompletion("openai/m", MESSAGES, **more, **where)
    assert [seen.headers["X-App"] for seen in server.seen] == ["mine"] * 3
    assert [seen.json()["min_p"] for seen in server.seen] == [0.1] * 3


async def test_without_an_upstream_litellms_own_mock_answers(asked: Ask) -> None:
    reply = await asked("openai/m", MESSAGES, strategy="raw", mock_response="Mocked.")
    assert reply.choices[0].message.content == "Mocked."


async def test_messages_and_formats_may_be_objects() -> None:
    class Price(BaseModel):
        amount: int

    async with before(script(draft='{"amount": 3}')) as (server, where):
        first = await honestproxy.acompletion("openai/m", MESSAGES, strategy="raw", **where)
        messages = [*MESSAGES, first.choices[0].message, *MESSAGES]
        reply = await honestproxy.acompletion("openai/m", messages, response_format=Price, **where)
    sent = server.seen[-1].json()
    assert Price(**json.loads(reply.choices[0].message.content)).amount == 3
    assert honest.trace(reply).outcome == "passed_through"
    assert sent["response_format"]["json_schema"]["name"] == "Price"
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]


async def test_errors_are_litellms_own(asked: Ask) -> None:
    refused = answer({"error": {"message": "wrong key", "type": "x", "code": "y"}}, status=401)
    async with before(script(draft=refused)) as (_, where):
        for more in ({}, {"stream": True}):
            with pytest.raises(load().AuthenticationError, match="wrong key"):
                await asked("openai/m", MESSAGES, **more, **where)


async def test_a_mistake_in_honesty_is_told_as_ours(asked: Ask) -> None:
    with pytest.raises(InvalidRequest, match=r"unknown field 'honesty\.strat'"):
        await asked("openai/m", MESSAGES, honesty={"strat": "raw"})


@pytest.mark.parametrize("stream", [False, True])
async def test_no_message_at_all_is_told_as_the_proxy_tells_it(asked: Ask, stream: bool) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat_request(b'{"messages": []}', {})
    async with before(script()) as (server, where):
        with pytest.raises(InvalidRequest) as raised:
            await asked("openai/m", [], stream=stream, **where)
    assert raised.value.body() == refused.value.body()
    assert server.seen == []


async def test_closing_a_stream_ends_the_call(asked: Ask) -> None:
    held = Reply([event(chunk("The "))] * 2, content_type="text/event-stream", then="hold")
    async with before(script(draft=held)) as (server, where):
        stream = await asked("openai/m", MESSAGES, stream=True, strategy="raw", **where)
        await server.holding.wait()
        await (stream.aclose() if hasattr(stream, "aclose") else asyncio.to_thread(stream.close))
        await asyncio.wait_for(server.gone.wait(), 10)


async def test_threads_share_one_loop() -> None:
    async with before(lambda seen: script()(seen)) as (_, where):
        replies = await asyncio.gather(
            *(_sync("openai/m", MESSAGES, strategy="raw", **where) for _ in range(8))
        )
    assert {reply.choices[0].message.content for reply in replies} == {DRAFT}
    loops = [t for t in threading.enumerate() if t.name == "honestproxy loop"]
    assert len(loops) == 1
