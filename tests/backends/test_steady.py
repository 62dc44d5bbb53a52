"""Remote upstreams: what is asked again, what isn't, and when one is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from honestproxy import backends
from honestproxy.backends.breaker import Breaker
from honestproxy.backends.scripted import Scripted
from honestproxy.backends.steady import Steady
from honestproxy.backends.upstreams import Upstreams
from honestproxy.errors import (
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest
from honestproxy.wire.responses import ResponsesRequest
from tests.upstreams import (
    Reply,
    Seen,
    Upstream,
    answer,
    chunk,
    event,
    events,
    free_port,
    upstream,
)

GOOD = b'{"choices": [{"message": {"content":"Paris."}, "finish_reason": "stop"}],\n "x":1}'
STREAM = [event(chunk("Par")), event(chunk("is.")), event(chunk(None, "stop"))]
DROPPED = Reply(then="drop")


def failing(status: int, **headers: str) -> Reply:
    body = {"error": {"message": "no", "type": "t", "param": None, "code": None}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer(body, status=status, headers=named)


@asynccontextmanager
async def steady(
    *script: Reply | Callable[[Seen], Reply], **settings: Any
) -> AsyncIterator[tuple[Any, Upstream]]:
    async with upstream(*script) as server:
        backend = backends.load(Settings(upstream=server.url, **settings))
        try:
            yield backend, server
        finally:
            await backend.aclose()


def asking(**more: Any) -> ChatRequest:
    return ChatRequest({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more})


async def streamed(backend: Any, request: ChatRequest) -> bytes:
    return b"".join([part.event or b"" async for part in backend.stream(request)])


async def test_the_failure_that_opens_the_breaker_is_the_upstreams_own_and_no_retry() -> None:
    async with steady(failing(503), breaker_failures=1, retries=3) as (backend, server):
        with pytest.raises(UpstreamError) as raised:
            await backend.complete(asking())
        assert (raised.value.status, raised.value.body()["error"]["message"]) == (503, "no")
        assert (len(server.seen), backend.asked_again) == (1, 0)
        with pytest.raises(UpstreamUnavailable):
            await backend.complete(asking())


async def test_a_relayed_refusal_that_never_ends_is_given_up_at_the_deadline() -> None:
    half = Reply([b'{"err'], status=503, then="hold")
    async with steady(lambda _: half, step_timeout=0.5, retries=1) as (backend, _):
        async with asyncio.timeout(10):
            with pytest.raises(UpstreamTimeout, match="step_timeout"):
                await backend.relay("GET", "/files", {}, None)


@pytest.mark.parametrize("fault", [failing(502), failing(503), DROPPED])
async def test_the_answer_after_a_retry_is_the_upstreams_byte_for_byte(fault: Reply) -> None:
    async with steady(fault, answer(GOOD), fault, events(*STREAM)) as (backend, server):
        assert (await backend.complete(asking())).raw == GOOD
        assert await streamed(backend, asking(stream=True)) == b"".join([*STREAM, event(b"[DONE]")])
    assert len(server.seen) == 4


@pytest.mark.parametrize("status", [400, 401, 404, 408, 429, 500, 501, 504])
@pytest.mark.parametrize("kind", ["whole", "stream"])
async def test_other_errors_go_back_as_they_are(status: int, kind: str) -> None:
    async with steady(failing(status), answer(GOOD)) as (backend, server):
        with pytest.raises(UpstreamError) as caught:
            await (backend.complete(asking()) if kind == "whole" else streamed(backend, asking()))
    assert (caught.value.status, len(server.seen)) == (status, 1)


async def test_a_good_status_without_a_good_answer_is_not_asked_again() -> None:
    page = Reply([b"<html>Busy</html>"], content_type="text/html")
    async with steady(page, answer(GOOD)) as (backend, server):
        with pytest.raises(UpstreamBroken):
            await backend.complete(asking())
    assert len(server.seen) == 1


async def test_after_the_first_event_nothing_is_asked_again() -> None:
    broken = events(STREAM[0], done=False, then="drop")
    async with steady(broken, events(*STREAM)) as (backend, server):
        parts = backend.stream(asking(stream=True))
        assert [(await anext(parts)).event for _ in range(2)] == [b"", STREAM[0]]
        with pytest.raises(UpstreamBroken):
            await anext(parts)
    assert len(server.seen) == 1


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_it_is_asked_again_as_often_as_is_set(retries: int) -> None:
    async with steady(failing(503), retries=retries) as (backend, server):
        with pytest.raises(UpstreamError) as caught:
            await backend.complete(asking())
    assert (caught.value.status, len(server.seen)) == (503, 1 + retries)


async def test_a_retry_is_the_same_request_under_the_same_idempotency_key() -> None:
    request = asking().with_headers({"Idempotency-Key": "once"})
    async with steady(failing(503), answer(GOOD)) as (backend, server):
        await backend.complete(request)
    first, second = server.seen
    assert (first.body, first.headers["Idempotency-Key"]) == (second.body, "once")
    assert second.headers["Idempotency-Key"] == "once"


async def test_a_429_is_asked_again_where_that_is_set() -> None:
    limited = failing(429, retry_after="0")
    async with steady(limited, answer(GOOD), retry_429=True) as (backend, server):
        assert (await backend.complete(asking())).raw == GOOD
    assert len(server.seen) == 2


async def test_a_retry_after_beyond_the_deadline_is_not_waited_for() -> None:
    busy = failing(503, retry_after="3600")
    request = asking().until(asyncio.get_running_loop().time() + 60)
    async with steady(busy, answer(GOOD)) as (backend, server):
        with pytest.raises(UpstreamError) as caught:
            await backend.complete(request)
    assert caught.value.headers["retry-after"] == "3600"
    assert len(server.seen) == 1


async def test_what_leaves_something_behind_is_sent_once() -> None:
    asked = ResponsesRequest({"model": "m", "input": "Hi", "conversation": "conv_1"})
    lasting = ChatRequest(asked.chat, origin=asked)
    async with steady(failing(503), answer(GOOD)) as (backend, server):
        with pytest.raises(UpstreamError):
            await backend.complete(lasting)
    assert len(server.seen) == 1


async def test_a_list_of_models_is_asked_for_again() -> None:
    listed = answer({"data": [{"id": "m"}]})
    async with steady(failing(503), listed) as (backend, server):
        assert await backend.models() == [{"id": "m"}]
    assert len(server.seen) == 2


@pytest.mark.parametrize("fault", [failing(503), DROPPED])
async def test_a_relayed_request_without_a_body_is_sent_again(fault: Reply) -> None:
    async with steady(fault, answer(GOOD)) as (backend, server):
        exchange = await backend.relay("GET", "/files?limit=2", {}, None)
        assert (exchange.status, await exchange.read()) == (200, GOOD)
        exchange.close()
    assert [seen.path for seen in server.seen] == ["/v1/files?limit=2"] * 2


async def test_a_relayed_refusal_is_passed_on_after_the_last_retry() -> None:
    async with steady(failing(503)) as (backend, server):
        exchange = await backend.relay("GET", "/files", {}, None)
        assert exchange.status == 503
        assert b'"no"' in await exchange.read()
    assert len(server.seen) == 2


@pytest.mark.parametrize("fault", [failing(503), DROPPED])
async def test_an_upload_is_sent_once(fault: Reply) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"part"

    async with steady(fault, answer(GOOD)) as (backend, server):
        try:
            exchange = await backend.relay("POST", "/files", {}, parts())
        except UpstreamUnreachable:
            assert fault is DROPPED
        else:
            assert exchange.status == 503
            exchange.close()
    assert len(server.seen) == 1


class Plain(Scripted):
    """A backend with optional methods, as they are named."""

    def __init__(self, *names: str) -> None:
        super().__init__([])
        for name in names:
            setattr(self, name, lambda *_: None)


OPTIONAL = ["read", "reads", "relay", "discard", "load", "load_reader"]


@pytest.mark.parametrize("names", [[], ["relay", "discard"], ["reads"], OPTIONAL])
def test_it_can_what_the_backend_can_and_no_more(names: list[str]) -> None:
    wrapped = Steady(Plain(*names), Settings(), "one")
    assert [name for name in OPTIONAL if hasattr(wrapped, name)] == [
        name for name in OPTIONAL if name in names
    ]
    assert backends.traits(wrapped) == backends.Traits()


def test_a_local_upstream_and_ones_own_are_left_as_they_are() -> None:
    own = Scripted([])
    assert Upstreams(Settings(), own).named(None) is own


async def test_an_upstream_that_keeps_failing_is_left_alone_and_then_tried_once() -> None:
    async with steady(
        *[failing(500)] * 3, answer(GOOD), breaker_failures=3, breaker_seconds=0.2
    ) as (backend, server):
        for _ in range(3):
            with pytest.raises(UpstreamError, match="500"):
                await backend.complete(asking())
        for ask in (backend.complete(asking()), streamed(backend, asking()), backend.models()):
            with pytest.raises(UpstreamUnavailable, match="left alone") as caught:
                await ask
        assert (caught.value.status, caught.value.headers) == (503, {"retry-after": "1"})
        assert len(server.seen) == 3
        assert backend.breaker.state == "open"
        await asyncio.sleep(0.25)
        assert backend.breaker.state == "half-open"
        assert (await backend.complete(asking())).raw == GOOD
        assert backend.breaker.state == "closed"


async def test_while_one_call_tries_the_others_fail_at_once() -> None:
    held = Reply([1.0], then="end")
    script = [failing(500), held]
    async with steady(*script, breaker_failures=1, breaker_seconds=0.1, retries=0) as (
        backend,
        server,
    ):
        with pytest.raises(UpstreamError):
            await backend.complete(asking())
        await asyncio.sleep(0.15)
        tries = [asyncio.create_task(backend.complete(asking())) for _ in range(5)]
        done, waiting = await asyncio.wait(tries, timeout=0.05)
        assert {type(task.exception()) for task in done} == {UpstreamUnavailable}
        assert (len(waiting), len(server.seen)) == (1, 2)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


async def test_one_that_fails_its_try_is_left_alone_again() -> None:
    async with steady(failing(500), breaker_failures=1, breaker_seconds=0.1) as (backend, server):
        for _ in range(2):
            with pytest.raises(UpstreamError, match="500"):
                await backend.complete(asking())
            with pytest.raises(UpstreamUnavailable):
                await backend.complete(asking())
            await asyncio.sleep(0.15)
    assert len(server.seen) == 2


@pytest.mark.parametrize("status", [400, 404, 429, 501])
async def test_refusals_are_signs_of_life(status: int) -> None:
    script = [failing(500), failing(status), failing(500), answer(GOOD)]
    async with steady(*script, breaker_failures=2) as (backend, server):
        for _ in range(3):
            with pytest.raises(UpstreamError):
                await backend.complete(asking())
        assert (await backend.complete(asking())).raw == GOOD
    assert len(server.seen) == 4


@pytest.mark.parametrize("kind", ["whole", "stream"])
async def test_answers_that_dont_come_in_time_are_failures(kind: str) -> None:
    hanging = Reply(then="hold")
    async with steady(hanging, breaker_failures=2) as (backend, _):
        for _ in range(2):
            deadline = asyncio.get_running_loop().time() + 0.1
            request = asking().until(deadline)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await (
                        backend.complete(request) if kind == "whole" else streamed(backend, request)
                    )
        with pytest.raises(UpstreamUnavailable, match="504"):
            await backend.complete(asking())


async def test_hangs_are_no_failures_in_a_row_where_others_were_answered_meanwhile() -> None:
    def hanging_for_some(seen: Seen) -> Reply:
        return Reply(then="hold") if b"hang" in seen.body else answer(GOOD)

    async with steady(hanging_for_some, breaker_failures=2) as (backend, server):
        deadline = asyncio.get_running_loop().time() + 1

        async def hung() -> None:
            async with asyncio.timeout_at(deadline):
                await backend.complete(asking(user="hang").until(deadline))

        hangs = [asyncio.create_task(hung()) for _ in range(5)]
        while len(server.seen) < len(hangs):
            await asyncio.sleep(0.001)
        assert (await backend.complete(asking())).raw == GOOD
        ends = await asyncio.gather(*hangs, return_exceptions=True)
        assert {type(end) for end in ends} == {TimeoutError}
        assert backend.breaker.state == "closed"


async def test_clients_that_leave_are_no_failures() -> None:
    async with steady(Reply(then="hold"), breaker_failures=1) as (backend, server):
        request = asking().until(asyncio.get_running_loop().time() + 60)
        asked = asyncio.create_task(backend.complete(request))
        await server.holding.wait()
        asked.cancel()
        await asyncio.wait([asked])
        assert backend.breaker.state == "closed"


async def test_no_connection_is_a_failure_and_zero_never_leaves_alone() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    for most, kind in ((1, UpstreamUnavailable), (0, UpstreamUnreachable)):
        settings = Settings(upstream=nowhere, breaker_failures=most, retries=0)
        backend = backends.load(settings)
        with pytest.raises(UpstreamUnreachable):
            await backend.complete(asking())
        with pytest.raises(kind):
            await backend.complete(asking())
        await backend.aclose()


async def test_relayed_answers_count_too() -> None:
    async with steady(failing(500), breaker_failures=2) as (backend, server):
        for _ in range(2):
            (await backend.relay("POST", "/embeddings", {}, b"{}")).close()
        with pytest.raises(UpstreamUnavailable):
            await backend.relay("POST", "/embeddings", {}, b"{}")
    assert len(server.seen) == 2


async def test_an_upstream_that_doesnt_list_its_models_in_time_is_told() -> None:
    async with steady(Reply(then="hold"), step_timeout=0.1) as (backend, _):
        with pytest.raises(UpstreamTimeout, match="step_timeout"):
            await backend.models()


def test_what_a_breaker_says_repeats_no_ones_words() -> None:
    breaker = Breaker("one", 1, 5)
    breaker.judge(UpstreamError("the prompt was: secret", status=500), None, breaker.begin())
    with pytest.raises(UpstreamUnavailable) as caught:
        breaker.begin()
    assert "secret" not in caught.value.message
