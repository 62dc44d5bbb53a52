"""Fallback upstreams: when the next is asked, what it gets to see, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from honestproxy import backends
from honestproxy.backends.failover import HEADER, Failover, Named
from honestproxy.backends.scripted import Scripted
from honestproxy.backends.upstreams import Upstreams
from honestproxy.errors import SettingsError, UpstreamBroken, UpstreamError
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest, ChatResponse, Chunk
from honestproxy.wire.responses import ResponsesRequest
from tests.proxy import DRAFT, ask, proxy, script
from tests.upstreams import (
    Reply,
    Seen,
    Upstream,
    answer,
    chunk,
    completion,
    event,
    events,
    free_port,
    upstream,
)

SPARE = "From the spare one."
PIECES = [event(chunk("From ")), event(chunk("the spare one.")), event(chunk(None, "stop"))]


def spare(seen: Seen) -> Reply:
    if seen.path.endswith("/models"):
        return answer({"data": [{"id": "spare"}]})
    if seen.json().get("stream"):
        return events(*PIECES)
    return answer(completion(SPARE))


def refusing(status: int) -> Reply:
    return answer({"error": {"message": "not now", "code": "c"}}, status=status)


FAULTS = {
    "429": refusing(429),
    "500": refusing(500),
    "503": refusing(503),
    "dropped": Reply(then="drop"),
    "half a JSON": answer(b'{"choices": ['),
    "a web page": Reply([b"<html>"], content_type="text/html"),
    "hanging": Reply(then="hold"),
    "dropped before any text": Reply(
        [event(chunk(None))], content_type="text/event-stream", then="drop"
    ),
    "hanging before any text": Reply(
        [event(chunk(None))], content_type="text/event-stream", then="hold"
    ),
    "an error before any text": events(event({"error": {"message": "no", "code": 500}})),
}


@asynccontextmanager
async def chain(
    *scripts: Reply | Callable[[Seen], Reply], key: str | None = "key-of-the-spare", **more: Any
) -> AsyncIterator[tuple[Any, list[Upstream]]]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(upstream(one)) for one in scripts]
        table = {f"spare{n}": {"url": s.url, "key": key} for n, s in enumerate(servers) if n}
        settings = Settings(
            upstream=servers[0].url,
            upstreams=table,  # type: ignore[arg-type]
            fallbacks=tuple(table),
            **{"retries": 0, **more},
        )
        backend = backends.load(settings)
        stack.push_async_callback(backend.aclose)
        yield backend, servers


def asking(**more: Any) -> ChatRequest:
    request = ChatRequest({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more})
    return request.until(asyncio.get_running_loop().time() + 1)


@pytest.mark.parametrize("fault", FAULTS)
async def test_where_the_first_fails_the_next_answers_and_is_named(fault: str) -> None:
    async with chain(FAULTS[fault], spare) as (backend, _):
        response = await backend.complete(asking())
        assert (response.text, response.headers[HEADER]) == (SPARE, "spare1")


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_stream_begins_anew_at_the_next_and_holds_nothing_of_the_first(fault: str) -> None:
    async with chain(FAULTS[fault], spare) as (backend, _):
        parts = [part async for part in backend.stream(asking(stream=True))]
    assert b"".join(part.event or b"" for part in parts) == b"".join([*PIECES, event(b"[DONE]")])
    assert parts[0].headers[HEADER] == "spare1"


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_of_the_first_is_its_own_byte_for_byte(streamed: bool) -> None:
    body = b'{"choices": [{"message": {"content": "Own."}, "finish_reason": "stop"}],\n "x": 1}'
    own = events(*PIECES) if streamed else answer(body)
    async with chain(own, spare) as (backend, servers):
        if streamed:
            parts = [part async for part in backend.stream(asking(stream=True))]
            found = b"".join(part.event or b"" for part in parts)
            assert HEADER not in parts[0].headers
        else:
            response = await backend.complete(asking())
            found = response.raw
            assert HEADER not in response.headers
    assert found == (b"".join([*PIECES, event(b"[DONE]")]) if streamed else body)
    assert servers[1].seen == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_refusal_of_the_request_goes_back_at_once(status: int) -> None:
    async with chain(refusing(status), spare) as (backend, servers):
        with pytest.raises(UpstreamError) as caught:
            await backend.complete(asking())
    assert (caught.value.status, servers[1].seen) == (status, [])


async def test_after_the_first_token_there_is_no_other() -> None:
    broken = Reply([event(chunk("Half"))], content_type="text/event-stream", then="drop")
    async with chain(broken, spare) as (backend, servers):
        parts = backend.stream(asking(stream=True))
        assert "".join([(await anext(parts)).text for _ in range(2)]) == "Half"
        with pytest.raises(UpstreamBroken):
            await anext(parts)
    assert servers[1].seen == []


async def test_the_next_sees_its_own_key_and_no_credential_of_the_first() -> None:
    request = asking().with_headers(
        {
            "Authorization": "Bearer of-the-client",
            "OpenAI-Organization": "org",
            "OpenAI-Project": "project",
            "Idempotency-Key": "once",
        }
    )
    request.query = "key=secret"
    first = refusing(500)
    async with chain(first, spare, upstream_key="key-of-the-first") as (backend, servers):
        await backend.complete(request)
    [to_first], [to_spare] = servers[0].seen, servers[1].seen
    assert to_first.headers["Authorization"] == "Bearer key-of-the-first"
    assert to_spare.headers["Authorization"] == "Bearer key-of-the-spare"
    assert {"OpenAI-Organization", "OpenAI-Project"} & set(to_spare.headers) == set()
    assert (to_spare.path, to_spare.headers["Idempotency-Key"]) == ("/v1/chat/completions", "once")
    assert to_spare.body == to_first.body


async def test_one_without_a_key_gets_none_of_the_clients() -> None:
    request = asking().with_headers({"Authorization": "Bearer of-the-client"})
    async with chain(refusing(500), spare, key=None) as (backend, servers):
        await backend.complete(request)
        await backend.models({"Authorization": "Bearer of-the-client"})
    assert {seen.headers.get("Authorization") for seen in servers[1].seen} == {None}
    assert {seen.headers["Authorization"] for seen in servers[0].seen} == {"Bearer of-the-client"}


async def test_where_all_fail_the_first_error_tells_of_the_others() -> None:
    async with chain(refusing(503), refusing(500), refusing(404)) as (backend, _):
        with pytest.raises(UpstreamError) as caught:
            await backend.complete(asking())
    assert caught.value.status == 503
    told = caught.value.body()["error"]["message"]
    assert told.startswith("not now; its fallbacks failed, too: 'spare1' (500: ")
    assert "'spare2' (404: " in told


async def test_the_chain_goes_on_to_fallbacks_of_fallbacks_each_once() -> None:
    async with upstream(spare) as last:
        nowhere = f"http://127.0.0.1:{free_port()}/v1"
        table = {
            "a": {"url": nowhere, "fallbacks": ["b", "a"]},
            "b": {"url": last.url, "fallbacks": ["a"]},
        }
        settings = Settings(upstream=nowhere, upstreams=table, fallbacks=("a",), retries=0)  # type: ignore[arg-type]
        upstreams = Upstreams(settings)
        assert (await upstreams.named(None).complete(asking())).headers[HEADER] == "b"
        assert (await upstreams.named("a").complete(asking())).headers[HEADER] == "b"
        assert HEADER not in (await upstreams.named("b").complete(asking())).headers
        assert upstreams.named("a") is upstreams.named("a")
        await upstreams.aclose()


async def test_the_default_upstream_may_be_a_fallback() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    async with upstream(spare) as default:
        table = {"a": {"url": nowhere, "fallbacks": ["default"]}}
        settings = Settings(upstream=default.url, upstreams=table, upstream_key="own", retries=0)  # type: ignore[arg-type]
        upstreams = Upstreams(settings)
        response = await upstreams.named("a").complete(asking())
        await upstreams.aclose()
    assert response.headers[HEADER] == "default"
    assert default.seen[0].headers["Authorization"] == "Bearer own"


async def test_health_is_told_by_name_and_shared_by_all_who_ask() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    async with upstream(spare) as last:
        settings = Settings(
            upstream=last.url,
            upstreams={"a": {"url": nowhere, "fallbacks": ["b"]}, "b": {"url": last.url}},  # type: ignore[dict-item]
            fallbacks=("a",),
            retries=0,
            breaker_failures=2,
        )
        upstreams = Upstreams(settings)
        for _ in range(3):
            assert (await upstreams.named("a").complete(asking())).text == SPARE
        assert upstreams.health() == {"default": "closed", "a": "open", "b": "closed"}
        await upstreams.aclose()


def test_a_name_that_isnt_there_is_told_with_the_nearest() -> None:
    settings = Settings(
        upstream="http://127.0.0.1:9/v1",
        upstreams={"spare": {"url": "http://127.0.0.1:9/v1"}},  # type: ignore[dict-item]
    )
    with pytest.raises(SettingsError, match="no upstream 'spar'; did you mean 'spare'"):
        Upstreams(settings).named("spar")
    with pytest.raises(SettingsError, match="what the setting `upstream` is called"):
        Upstreams(Settings(upstreams={"default": {"url": "http://127.0.0.1:9/v1"}}))  # type: ignore[dict-item]


async def test_each_upstream_is_closed_once() -> None:
    closed = []

    class Own(Scripted):
        async def aclose(self) -> None:
            closed.append(self)

    own = Own([])
    settings = Settings(upstreams={"a": {"url": "http://127.0.0.1:9/v1"}}, fallbacks=("a",))  # type: ignore[dict-item]
    upstreams = Upstreams(settings, own)
    upstreams.named(None)
    upstreams.named("a")
    await upstreams.aclose()
    assert closed == [own]


async def test_an_upstream_of_ones_own_may_fail_in_any_way() -> None:
    class Wild:
        async def complete(self, request: ChatRequest) -> ChatResponse:
            raise ZeroDivisionError

        async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
            raise ZeroDivisionError
            yield

    async with upstream(spare) as last:
        settings = Settings(upstreams={"a": {"url": last.url}}, fallbacks=("a",))  # type: ignore[dict-item]
        upstreams = Upstreams(settings, Wild())  # type: ignore[arg-type]
        assert (await upstreams.named(None).complete(asking())).text == SPARE
        streamed = [p.text async for p in upstreams.named(None).stream(asking(stream=True))]
        assert "".join(streamed) == SPARE
        await upstreams.aclose()


async def test_what_only_the_first_can_mean_goes_to_no_other() -> None:
    async with chain(refusing(500), spare) as (backend, servers):
        with pytest.raises(UpstreamError):
            await backend.complete(asking(echo=True))
        exchange = await backend.relay("GET", "/files", {}, None)
        assert exchange.status == 500
        exchange.close()
    assert servers[1].seen == []


@pytest.mark.parametrize("strategy", ["raw", "gated"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_is_told_which_upstream_has_answered(strategy: str, streamed: bool) -> None:
    async with upstream(script()) as last:
        more = {"upstreams": {"b": {"url": last.url}}, "fallbacks": ("b",), "strategy": strategy}
        async with proxy(script(draft=Reply(then="drop"), confusion=refusing(500)), **more) as on:
            body = ask(stream=streamed)
            async with on.session.post(f"{on.url}/chat/completions", json=body) as got:
                text = await got.text()
                assert (got.status, got.headers["x-honesty-upstream"]) == (200, "b")
                assert DRAFT in text


async def test_a_fallback_that_knows_only_chat_is_asked_by_chat() -> None:
    asked = ResponsesRequest({"model": "m", "input": "Hi"})
    last = Scripted(["Hello."])
    async with upstream(refusing(500)) as first:
        settings = Settings(upstream=first.url, retries=0)
        backend = Failover([Named("first", backends.load(settings)), Named("b", last)])
        response = await backend.complete(ChatRequest(asked.chat, origin=asked))
        await backend.aclose()
    assert response.text == "Hello."
    assert [seen.path for seen in first.seen] == ["/v1/responses"]
    [request] = last.requests
    assert request.origin is None
    assert "store" not in request


async def test_a_shed_stored_answer_is_deleted_where_it_is() -> None:
    gone: list[Any] = []

    def discarding(name: str) -> Any:
        class Storing(Scripted):
            async def discard(self, _: ChatRequest, response: ChatResponse) -> None:
                gone.append((name, response.text))

        return Storing([UpstreamError("down", status=500)] if name == "first" else ["Kept."])

    backend = Failover([Named("first", discarding("first")), Named("b", discarding("b"))])
    response = await backend.complete(asking())
    await backend.discard(asking(), response)
    assert gone == [("b", "Kept.")]
