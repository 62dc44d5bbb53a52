"""`honest(client)`: it does all that the client did, and answers honestly.

Run with the SDK that is installed, and once more with the next one: see test_openai3.py.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI
from pydantic import BaseModel

from honestproxy import honest
from honestproxy.client import Told
from honestproxy.types import Doubt
from tests.able import Able, mind
from tests.client.clients import BOTH, KEY, KINDS, called, closed, made, plain, read, wrapped
from tests.outside.environments import run
from tests.proxy import DOUBT, DRAFT, MERGED, NO_DOUBT, ask, script, step_of
from tests.upstreams import (
    Reply,
    Seen,
    answer,
    chunk,
    completion,
    event,
    events,
    free_port,
    upstream,
)

DOUBTFUL = script(confusion=DOUBT)
AZURE = [AzureOpenAI, AsyncAzureOpenAI]


def steps(seen: list[Seen]) -> Counter[str]:
    """How often each step was sent."""
    return Counter(step_of(one.json()) for one in seen if one.method == "POST")


def text_of(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


async def failure(call: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one it is, the caller says
        await call
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_in_doubt_is_rewritten_and_typed_as_ever(kind: type) -> None:
    async with wrapped(kind, DOUBTFUL) as (client, server):
        reply = await called(client.chat.completions.create, **ask())
    assert type(client) is kind
    assert type(reply) is openai.types.chat.ChatCompletion
    assert reply.choices[0].message.content == MERGED
    assert steps(server.seen) == {"draft": 1, "confusion": 1, "merge": 1}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_comes_as_it_is_made_and_ends_as_ever(kind: type) -> None:
    told = script(confusion=DOUBT, merge=["The ", "merged ", "answer."])
    async with wrapped(kind, told) as (client, _):
        stream = await called(client.chat.completions.create, **ask(), stream=True)
        chunks = await read(stream)
    assert isinstance(stream, openai.Stream | openai.AsyncStream)
    assert [c.choices[0].delta.content for c in chunks] == [
        "", "The ", "merged ", "answer.", None
    ]  # fmt: skip
    assert honest.trace(stream).outcome == "rewritten"


@pytest.mark.parametrize("kind", BOTH)
async def test_parts_of_a_stream_are_not_held_back(kind: type) -> None:
    pieces = [event(chunk("early")), 0.05, event(chunk(" late")), event(chunk(None, "stop"))]
    waits = Reply(pieces, content_type="text/event-stream", then="hold")
    async with wrapped(kind, lambda _: waits, strategy="raw") as (client, server):
        stream = await called(client.chat.completions.create, **ask(), stream=True)
        first = await called(stream.__anext__ if kind is AsyncOpenAI else stream.__next__)
        assert first.choices[0].delta.content == "early"  # though the stream never ends
        await closed(stream)
        await asyncio.wait_for(server.gone.wait(), 10)


@pytest.mark.parametrize("kind", BOTH)
async def test_without_doubt_the_draft_comes_through(kind: type) -> None:
    async with wrapped(kind) as (client, _):
        reply = await called(client.chat.completions.create, **ask())
    assert reply.choices[0].message.content == DRAFT
    assert honest.trace(reply).outcome == "draft_kept"


async def test_the_trace_of_a_reply_is_typed() -> None:
    async with wrapped(AsyncOpenAI, DOUBTFUL) as (client, _):
        told = honest.trace(await client.chat.completions.create(**ask()))
    assert isinstance(told, Told)
    assert told.strategy == "gated"
    assert told.reason == "1 doubt"
    assert told.doubts == (Doubt("latest_information", "No live prices here."),)
    assert told.confidence == 0.2
    assert told.calls == 3
    assert [step.name for step in told.steps] == ["draft", "confusion", "merge"]
    assert told.steps[1].prompt == "gated/confusion"
    assert told.seconds > 0
    assert told.trace_id


async def test_a_reply_that_says_nothing_of_honesty_has_no_trace() -> None:
    async with plain(AsyncOpenAI) as (client, _):
        reply = await client.chat.completions.create(**ask())
        stream = await client.chat.completions.create(**ask(), stream=True)
        await read(stream)
        assert honest.trace(reply) is None
        assert honest.trace(stream) is None
        as_it_is = await honest(client, strategy="raw").chat.completions.create(**ask())
        assert honest.trace(as_it_is) is None
    assert honest.trace({"honesty": "the best policy"}) is None
    assert honest.trace(None) is None


@pytest.mark.parametrize("kind", BOTH)
async def test_raw_and_streaming_responses_work_and_have_a_trace(kind: type) -> None:
    async with wrapped(kind, DOUBTFUL) as (client, _):
        raw = await called(client.chat.completions.with_raw_response.create, **ask())
        assert raw.headers["x-honesty-outcome"] == "rewritten"
        assert raw.parse().choices[0].message.content == MERGED
        assert honest.trace(raw).calls == 3
        lines, told = await called(_lines if kind is OpenAI else _async_lines, client)
    assert lines[0].startswith("data: {")
    assert lines[-2] == "data: [DONE]"
    assert told.outcome == "rewritten"


def _lines(client: Any) -> tuple[list[str], Told | None]:
    streaming = client.chat.completions.with_streaming_response
    with streaming.create(**ask(), stream=True) as response:
        return list(response.iter_lines()), honest.trace(response)


async def _async_lines(client: Any) -> tuple[list[str], Told | None]:
    streaming = client.chat.completions.with_streaming_response
    async with streaming.create(**ask(), stream=True) as response:
        return [line async for line in response.iter_lines()], honest.trace(response)


@pytest.mark.parametrize("kind", BOTH)
async def test_the_stream_helper_works_and_has_a_trace(kind: type) -> None:
    async with wrapped(kind, DOUBTFUL) as (client, _):
        text, told = await called(_helped if kind is OpenAI else _async_helped, client)
    assert text == MERGED
    assert told.outcome == "rewritten"


def _helped(client: Any) -> tuple[str, Told | None]:
    with client.chat.completions.stream(**ask()) as stream:
        final = stream.get_final_completion()
        return final.choices[0].message.content, honest.trace(stream)


async def _async_helped(client: Any) -> tuple[str, Told | None]:
    async with client.chat.completions.stream(**ask()) as stream:
        final = await stream.get_final_completion()
        return final.choices[0].message.content, honest.trace(stream)


@pytest.mark.parametrize("kind", BOTH)
async def test_responses_are_honest_and_have_a_trace_as_well(kind: type) -> None:
    asked = {"model": "unsure", "input": "What does it cost now?"}
    async with wrapped(kind, Able(None)) as (client, _):
        whole = await called(client.responses.create, **asked)
        stream = await called(client.responses.create, **asked, stream=True)
        events = await read(stream)
        text, told = await called(_put_together if kind is OpenAI else _async_put_together, client)
    assert whole.output_text == events[-1].response.output_text == text == mind.MERGED
    for given in (whole, stream, events[-1], events[-1].response):
        assert honest.trace(given).outcome == "rewritten"
    assert told.outcome == "rewritten"


def _put_together(client: Any) -> tuple[str, Told | None]:
    with client.responses.stream(model="unsure", input="What does it cost?") as stream:
        return stream.get_final_response().output_text, honest.trace(stream)


async def _async_put_together(client: Any) -> tuple[str, Told | None]:
    async with client.responses.stream(model="unsure", input="What does it cost?") as stream:
        return (await stream.get_final_response()).output_text, honest.trace(stream)


class Price(BaseModel):
    amount: int


@pytest.mark.parametrize("kind", BOTH)
async def test_parsed_replies_are_passed_through_and_have_a_trace(kind: type) -> None:
    async with wrapped(kind, script(draft='{"amount": 3}')) as (client, server):
        reply = await called(client.chat.completions.parse, **ask(), response_format=Price)
    assert reply.choices[0].message.parsed == Price(amount=3)
    assert honest.trace(reply).outcome == "passed_through"
    assert len(server.seen) == 1


async def test_a_draft_that_calls_tools_is_untouched() -> None:
    body = completion(None)
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body["choices"][0] |= {"finish_reason": "tool_calls"}
    body["choices"][0]["message"] |= {"tool_calls": [call]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    async with wrapped(AsyncOpenAI, script(draft=answer(body), confusion=DOUBT)) as (client, _):
        reply = await client.chat.completions.create(**ask(tools=tools))
    assert reply.choices[0].message.tool_calls[0].function.name == "f"
    assert honest.trace(reply).reason == "tool calls"


@pytest.mark.parametrize("kind", BOTH)
async def test_a_request_chooses_its_strategy_as_over_http(kind: type) -> None:
    async with wrapped(kind, DOUBTFUL) as (client, server):
        create = client.chat.completions.with_raw_response.create
        chosen = {"honesty": {"strategy": "curiosity"}}
        by_body = await called(create, **ask(), extra_body=chosen)
        by_header = await called(create, **ask(), extra_headers={"X-Honesty": "single"})
        by_name = await called(create, **(ask() | {"model": "m@raw"}))
        unknown = await failure(called(create, **ask(), extra_body={"honesty": {"strat": "raw"}}))
    replies = [by_body, by_header, by_name]
    assert [r.headers["x-honesty-strategy"] for r in replies] == ["curiosity", "single", "raw"]
    assert isinstance(unknown, openai.BadRequestError)
    posted = [seen for seen in server.seen if seen.method == "POST"]
    assert {seen.json()["model"] for seen in posted} == {"m"}
    assert not any(b"honesty" in seen.body or "X-Honesty" in seen.headers for seen in posted)


@pytest.mark.parametrize("kind", KINDS)
async def test_each_call_has_the_address_and_headers_of_the_request(kind: type) -> None:
    more = {"default_headers": {"X-App": "mine"}, "default_query": {"tag": "t"}}
    async with wrapped(kind, DOUBTFUL, **more) as (client, server):
        await called(client.chat.completions.create, **ask(), extra_headers={"X-Call": "one"})
    assert len(server.seen) == 3
    for seen in server.seen:
        path, _, query = seen.path.partition("?")
        assert seen.headers["X-App"] == "mine"
        assert seen.headers["X-Call"] == "one"
        assert seen.headers["User-Agent"].split("/")[0].endswith(kind.__name__)
        assert "tag=t" in query
        if kind in AZURE:
            assert path == "/openai/deployments/m/chat/completions"
            assert "api-version=2024-10-21" in query
            assert seen.headers["api-key"] == KEY
        else:
            assert path == "/v1/chat/completions"
            assert seen.headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("kind", AZURE)
async def test_a_suffix_leaves_the_name_of_the_deployment_in_the_url(kind: type) -> None:
    async with wrapped(kind) as (client, server):
        reply = await called(client.chat.completions.create, **(ask() | {"model": "gpt 4@raw"}))
    assert reply.choices[0].message.content == DRAFT
    paths = [seen.path.partition("?")[0] for seen in server.seen]
    assert paths == ["/openai/models", "/openai/deployments/gpt%204/chat/completions"]


@pytest.mark.parametrize("kind", BOTH)
async def test_what_is_not_a_chat_goes_straight_to_the_api(kind: type) -> None:
    embedded = {"object": "list", "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    embedded["data"] = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    file = {"id": "f", "object": "file", "bytes": 3, "created_at": 1, "filename": "a.txt"}

    def replies(seen: Seen) -> Reply:
        found = {"/v1/embeddings": embedded, "/v1/files": {**file, "purpose": "batch"}}
        return answer(found.get(seen.path) or completion())

    async with wrapped(kind, replies) as (client, server):
        vectors = await called(
            client.embeddings.create, model="m", input="a", encoding_format="float"
        )
        sent = await called(client.files.create, file=("a.txt", b"abc"), purpose="batch")
        stored = await called(client.chat.completions.retrieve, "id")
        await called(client.chat.completions.update, "id", metadata={"a": "b"})
    assert vectors.data[0].embedding == [0.5]
    assert sent.filename == "a.txt"
    assert stored.choices[0].message.content == "Paris."
    assert [(seen.method, seen.path) for seen in server.seen] == [
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/files"),
        ("GET", "/v1/chat/completions/id"),
        ("POST", "/v1/chat/completions/id"),
    ]
    assert b"abc" in server.seen[1].body


@pytest.mark.parametrize("kind", BOTH)
async def test_under_raw_the_request_goes_out_as_without_us(kind: type) -> None:
    sent = []
    for wrap in (plain, wrapped):
        named = {"strategy": "raw"} if wrap is wrapped else {}
        async with wrap(kind, **named) as (client, server):
            await called(client.chat.completions.create, **ask(temperature=0.5), stream=True)
        sent.append(server.seen[0])
    without, through = sent
    assert through.body == without.body
    differs = {
        name for name in {*without.headers, *through.headers}
        if without.headers.get(name) != through.headers.get(name)
    }  # fmt: skip
    assert {name.lower() for name in differs} == {
        "host",
        "accept-encoding",
    }  # ports; compression would hold chunks back


@pytest.mark.parametrize("kind", BOTH)
async def test_streams_under_raw_share_one_connection(kind: type) -> None:
    async with wrapped(kind, strategy="raw") as (client, server):
        for _ in range(3):
            await read(await called(client.chat.completions.create, **ask(), stream=True))
    assert len({seen.connection for seen in server.seen}) == 1


# --- what goes wrong ---


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_status_of_the_api_is_raised_as_ever(kind: type, stream: bool) -> None:
    body = {"error": {"message": "wrong key", "type": "invalid_request_error", "code": "bad"}}
    refused = answer(body, status=401, headers={"x-request-id": "r"})
    async with wrapped(kind, script(draft=refused)) as (client, _):
        error = await failure(called(client.chat.completions.create, **ask(), stream=stream))
    assert isinstance(error, openai.AuthenticationError)
    assert error.body == body["error"]
    assert error.request_id == "r"


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("stream", [False, True])
async def test_no_connection_is_raised_as_ever(kind: type, stream: bool) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    client = made(kind, nowhere, max_retries=0)
    honestly = honest(client)
    error = await failure(called(honestly.chat.completions.create, **ask(), stream=stream))
    without = await failure(called(client.chat.completions.create, **ask()))
    await closed(honestly)
    assert type(error) is type(without) is openai.APIConnectionError
    assert type(error.__cause__) is type(without.__cause__)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("stream", [False, True])
async def test_timeouts_hold_for_each_call_and_are_raised_as_ever(kind: type, stream: bool) -> None:
    async with wrapped(kind, lambda _: Reply([5.0])) as (client, server):
        hurried = client.with_options(timeout=0.2, max_retries=0)
        error = await failure(called(hurried.chat.completions.create, **ask(), stream=stream))
    assert type(error) is openai.APITimeoutError
    assert steps(server.seen)["draft"] == 1


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("then", ["drop", "hold"])
async def test_what_breaks_off_is_raised_as_without_us(kind: type, then: str) -> None:
    broken = Reply([event(chunk("The "))], content_type="text/event-stream", then=then)
    raised = []
    for wrap in (plain, wrapped):
        async with wrap(kind, lambda _: broken, timeout=0.3) as (client, _):
            stream = await called(client.chat.completions.create, **ask(), stream=True)
            raised.append(await failure(read(stream)))
    assert type(raised[1]) is type(raised[0])


@pytest.mark.parametrize("kind", BOTH)
async def test_an_answer_that_just_ends_is_not_passed_off_as_complete(kind: type) -> None:
    cut = events(event(chunk("The ")), done=False)
    async with wrapped(kind, lambda _: cut, strategy="raw") as (client, _):
        stream = await called(client.chat.completions.create, **ask(), stream=True)
        assert isinstance(await failure(read(stream)), openai.APIError)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("retries", [0, 2])
async def test_a_request_is_retried_as_often_as_without_us(kind: type, retries: int) -> None:
    failing = answer({}, status=500, headers={"retry-after-ms": "1"})
    async with wrapped(kind, script(draft=failing), max_retries=retries) as (client, server):
        error = await failure(called(client.chat.completions.create, **ask()))
    sent = steps(server.seen)
    assert isinstance(error, openai.InternalServerError)
    assert sent["draft"] == retries + 1
    assert sent["confusion"] <= retries + 1
    assert sent["merge"] == 0


@pytest.mark.parametrize("kind", BOTH)
async def test_a_first_call_that_fails_once_costs_one_turn_more_at_most(kind: type) -> None:
    failing = answer({}, status=500, headers={"retry-after-ms": "1"})
    usual = script(confusion=DOUBT)
    failed: list[Seen] = []

    def replies(seen: Seen) -> Reply:
        if step_of(seen.json()) == "draft" and not failed:
            failed.append(seen)
            return failing
        return usual(seen)

    async with wrapped(kind, replies) as (client, server):
        reply = await called(client.chat.completions.create, **ask())
    sent = steps(server.seen)
    assert reply.choices[0].message.content == MERGED
    assert sent["draft"] == 2
    assert sent["confusion"] <= 2
    assert sent["merge"] == 1


@pytest.mark.parametrize("step", ["confusion", "merge"])
async def test_a_later_call_that_fails_is_not_retried_and_leaves_the_draft(step: str) -> None:
    failing = answer({}, status=500, headers={"retry-after-ms": "1"})
    async with wrapped(AsyncOpenAI, script(**{"confusion": DOUBT, step: failing})) as (
        client,
        server,
    ):
        reply = await client.chat.completions.create(**ask())
    assert reply.choices[0].message.content == DRAFT
    assert honest.trace(reply).outcome == "draft_fallback"
    assert steps(server.seen)[step] == 1


async def test_an_api_that_forbids_retries_is_heard() -> None:
    final = answer({}, status=500, headers={"x-should-retry": "false"})
    async with wrapped(AsyncOpenAI, script(draft=final)) as (client, server):
        await failure(client.chat.completions.create(**ask()))
    assert steps(server.seen)["draft"] == 1


# --- leaving ---


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_closing_a_stream_ends_the_call(kind: type, strategy: str) -> None:
    pieces = [event(chunk("The "))] * 3
    held = Reply(pieces, content_type="text/event-stream", then="hold")
    replies = script(draft=held, confusion=NO_DOUBT)
    async with wrapped(kind, replies, strategy=strategy) as (client, server):
        stream = await called(client.chat.completions.create, **ask(), stream=True)
        await server.holding.wait()
        await closed(stream)
        await asyncio.wait_for(server.gone.wait(), 10)


async def test_a_task_that_is_cancelled_ends_its_calls() -> None:
    async with wrapped(AsyncOpenAI, lambda _: Reply(then="hold")) as (client, server):
        waiting = asyncio.create_task(client.chat.completions.create(**ask()))
        await server.holding.wait()
        waiting.cancel()
        await asyncio.wait_for(server.gone.wait(), 10)


# --- threads and loops ---


async def test_many_threads_share_a_client_and_each_gets_its_own_answer() -> None:
    def echo(seen: Seen) -> Reply:
        body = seen.json()
        asked = next(m["content"] for m in body["messages"] if "nonce" in m["content"])
        text = DOUBT if step_of(body) == "confusion" else f"{step_of(body)} of {asked.split()[1]}"
        return answer(completion(text))

    async with wrapped(OpenAI, echo) as (client, _):

        def one(number: int) -> str:
            reply = client.chat.completions.create(**ask(f"nonce {number:04}"))
            return reply.choices[0].message.content

        with ThreadPoolExecutor(50) as threads:
            loop = asyncio.get_running_loop()
            said = await asyncio.gather(
                *(loop.run_in_executor(threads, one, number) for number in range(50))
            )
    assert said == [f"merge of {number:04}" for number in range(50)]


def ours() -> set[threading.Thread]:
    """Threads of ours that are alive."""
    return {t for t in threading.enumerate() if t.name.startswith("honestproxy")}


async def test_closing_a_client_ends_its_threads_and_connections() -> None:
    before = ours()
    async with plain(OpenAI) as (inner, _):
        client = honest(inner)
        await called(client.chat.completions.create, **ask())
        assert ours() > before
        client.close()
        async with asyncio.timeout(10):
            while ours() - before:
                await asyncio.sleep(0.001)
        assert client.is_closed()
        assert inner.is_closed()


# Which finaliser of a cycle runs first, the SDK client's or its socket's own, is Python's choice.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_client_that_is_forgotten_leaves_no_threads() -> None:
    before = ours()
    async with upstream(script()) as server:

        def use() -> None:
            client = honest(made(OpenAI, server.url))
            client.chat.completions.create(**ask())

        for _ in range(3):
            await asyncio.to_thread(use)
        async with asyncio.timeout(10):
            while ours() - before:
                gc.collect()  # the SDK's clients are cycles
                await asyncio.sleep(0.01)


LOOPS = """
import asyncio, sys
from openai import AsyncOpenAI
from honestproxy import honest

client = honest(AsyncOpenAI(base_url=sys.argv[1], api_key="k", max_retries=0))
asked = {"model": "m", "messages": [{"role": "user", "content": "What does it cost now?"}]}

async def both():
    replies = await asyncio.gather(*(client.chat.completions.create(**asked) for _ in range(2)))
    print(*(honest.trace(reply).outcome for reply in replies))

async def main():
    await both()
    await asyncio.to_thread(asyncio.run, both())
    await both()

asyncio.run(main())
asyncio.run(both())
"""


async def test_an_asynchronous_client_serves_several_loops() -> None:
    async with upstream(DOUBTFUL) as server:  # each loop leaves connections behind
        code, printed = await run(sys.executable, "-c", LOOPS, server.url, env={})
    assert code == 0, printed
    assert printed.splitlines().count("rewritten rewritten") == 4, printed


TWO_LOOPS = """
import asyncio, sys
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from honestproxy import honest

asked = {"model": "m", "messages": [{"role": "user", "content": "What does it cost now?"}]}
library = sys.modules[DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]]

class Around(library.AsyncBaseTransport):
    def __init__(self):
        self.inner = library.AsyncHTTPTransport()
    async def handle_async_request(self, request):
        return await self.inner.handle_async_request(request)

given = {
    "none": lambda: {},
    "client": lambda: {"http_client": library.AsyncClient(trust_env=False)},
    "mount": lambda: {"http_client": library.AsyncClient(mounts={"http://": Around()})},
    "transport": lambda: {"http_client": library.AsyncClient(transport=Around())},
}
client = AsyncOpenAI(base_url=sys.argv[1], api_key="k", max_retries=0, **given[sys.argv[2]]())
honestly = honest(client)

async def turns(number):
    create = honestly.chat.completions.create
    replies = await asyncio.gather(*(create(**asked) for _ in range(number)))
    print(*{honest.trace(reply).outcome for reply in replies})

async def listed(client):
    await client.models.list()

asyncio.run(listed(client))
asyncio.run(turns(6))
asyncio.run(turns(1))
asyncio.run(listed(honestly))
"""


@pytest.mark.parametrize("http_client", ["none", "client", "mount", "transport"])
async def test_a_request_is_sent_once_whatever_an_earlier_loop_has_left(http_client: str) -> None:
    async with upstream(DOUBTFUL) as server:
        argv = (sys.executable, "-c", TWO_LOOPS, server.url, http_client)
        code, printed = await run(*argv, env={})
    assert code == 0, printed
    assert printed.splitlines().count("rewritten") == 2, printed
    assert steps(server.seen) == {"draft": 7, "confusion": 7, "merge": 7}


# --- wrapping ---


async def test_a_copy_with_other_options_stays_honest() -> None:
    async with wrapped(AsyncOpenAI, DOUBTFUL) as (client, server):
        copy = client.with_options(default_headers={"X-Copy": "yes"})
        reply = await copy.chat.completions.create(**ask())
        assert reply.choices[0].message.content == MERGED
        bare = await honest.raw(copy).chat.completions.create(**ask())
        assert bare.choices[0].message.content == DRAFT
    assert [seen.headers.get("X-Copy") for seen in server.seen] == ["yes"] * 4


async def test_raw_gives_the_inner_client_back() -> None:
    async with plain(AsyncOpenAI) as (inner, _):
        client = honest(inner)
        assert honest.raw(client) is inner
        assert honest.raw(inner) is inner


async def test_wrapping_twice_wraps_once() -> None:
    async with plain(AsyncOpenAI, DOUBTFUL) as (inner, server):
        client = honest(honest(inner, strategy="curiosity"), strategy="single")
        reply = await client.chat.completions.with_raw_response.create(**ask())
        assert honest.raw(client) is inner
    assert reply.headers["x-honesty-strategy"] == "single"
    assert steps(server.seen)["curiosity"] == 0


@pytest.mark.parametrize("kind", BOTH)
async def test_an_http_client_makes_honest_what_builds_its_own_client(kind: type) -> None:
    async with plain(kind, DOUBTFUL) as (inner, server):
        for given in (inner, honest(inner), inner._client, honest(inner)._client):
            built = made(kind, server.url, http_client=honest.http_client(given))
            reply = await called(built.chat.completions.create, **ask())
            assert reply.choices[0].message.content == MERGED
            assert honest.trace(reply).calls == 3


async def test_settings_are_the_same_as_a_server_has() -> None:
    from honestproxy.settings import Settings

    settings = Settings(reply="headers", strategies_allowed=("gated",))
    async with plain(AsyncOpenAI, DOUBTFUL) as (inner, _):
        create = honest(inner, settings=settings).chat.completions.create
        reply = await create(**ask())
        refused = await failure(create(**ask(), extra_body={"honesty": {"strategy": "raw"}}))
    assert "honesty" not in reply.model_extra
    assert isinstance(refused, openai.PermissionDeniedError)


async def test_event_hooks_of_the_inner_http_client_see_each_call() -> None:
    seen: list[str] = []
    async with plain(AsyncOpenAI, DOUBTFUL) as (inner, server):

        async def hook(request: Any) -> None:
            seen.append(step_of(json.loads(request.content)))

        inner._client.event_hooks = {"request": [hook]}
        await honest(inner).chat.completions.create(**ask())
    assert Counter(seen) == steps(server.seen)


def test_importing_it_brings_in_no_server_and_no_sdk() -> None:
    heavy = "{'fastapi', 'httptools', 'openai', 'litellm', 'httpx', 'httpx2'}"
    code = f"import sys; from honestproxy import honest; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_is_no_openai_client_is_told_so() -> None:
    for wrong in (object(), OpenAI, "https://api.openai.com/v1", openai):
        with pytest.raises(TypeError, match=r"can't be made honest: pass an OpenAI client"):
            honest(wrong)
    with pytest.raises(TypeError, match=r"or an httpx\.Client"):
        honest.http_client(object())


async def test_an_unknown_strategy_is_told_at_once() -> None:
    async with plain(AsyncOpenAI) as (inner, _):
        with pytest.raises(Exception, match="did you mean 'gated'"):
            honest(inner, strategy="gatd")


async def test_replies_of_a_proxy_over_http_have_a_trace_too() -> None:
    from tests.proxy import proxy

    async with proxy(DOUBTFUL) as on:
        reply = await on.client.chat.completions.create(**ask())
        raw = await on.client.chat.completions.with_raw_response.create(**ask())
        assert honest.trace(reply).outcome == honest.trace(raw).outcome == "rewritten"
