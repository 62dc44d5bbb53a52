"""The answer cache: who gets a kept answer, who must not, and what is never kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import httpx
import pytest
from openai import AsyncOpenAI

from honestproxy.errors import SettingsError
from honestproxy.server import create_app
from honestproxy.server.cache.store import Memory
from honestproxy.settings import Settings
from honestproxy.wire import reply
from tests.proxy import DOUBT, DRAFT, MERGED, Proxy, ask, proxy, script, serving
from tests.redis_server import redis_server
from tests.upstreams import Upstream, answer, chunk, completion, event, events, upstream

KEPT = {"answer_cache": "memory"}


async def posted(
    on: Proxy, body: Any, path: str = "chat/completions", **headers: str
) -> tuple[int, bytes, Mapping[str, str]]:
    """What came back to a plain client, byte for byte."""
    sent = {"Content-Type": "application/json", "Authorization": "Bearer mine"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    raw = json.dumps(body).encode()
    async with on.session.post(f"{on.url}/{path}", data=raw, headers=sent) as got:
        return got.status, await got.read(), got.headers


async def told(on: Proxy, body: Any, path: str = "chat/completions", **headers: str) -> str | None:
    """What the header says of the cache."""
    _, _, got = await posted(on, body, path, **headers)
    return got.get("x-honesty-cache")


@asynccontextmanager
async def proxy_of(settings: Settings, behind: Upstream) -> AsyncIterator[Proxy]:
    """One more proxy under these settings, before an upstream that is there already."""
    async with serving(settings) as url, aiohttp.ClientSession() as session:
        yield Proxy(url, behind, AsyncOpenAI(base_url=url, api_key="none"), session)


async def in_time(on: Proxy, wanted: str) -> bool:
    """Whether the same request gets that: what is kept in a Redis is so a moment later."""
    for _ in range(100):
        if await told(on, ask()) == wanted:
            return True
        await asyncio.sleep(0.05)
    return False


async def test_it_is_off_unless_asked_for() -> None:
    async with proxy(script()) as on:
        assert [await told(on, ask()), await told(on, ask())] == [None, None]
        assert len(on.upstream.seen) == 4


@pytest.mark.parametrize("strategy", ["raw", "gated", "curiosity"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_same_request_gets_the_same_bytes_and_asks_nobody(
    strategy: str, streamed: bool
) -> None:
    body = ask(stream=streamed)
    async with proxy(script(confusion=DOUBT), strategy=strategy, **KEPT) as on:
        _, first, was = await posted(on, body)
        asked = len(on.upstream.seen)
        _, second, now = await posted(on, body)
        assert len(on.upstream.seen) == asked
    assert second == first.replace(reply.PING, b"")
    assert (was["x-honesty-cache"], now["x-honesty-cache"]) == ("miss", "hit")
    assert int(now["age"]) >= 0
    assert now["content-type"] == was["content-type"]
    assert now["x-honesty-strategy"] == strategy
    assert now["x-honesty-outcome"] == ("passed_through" if strategy == "raw" else "rewritten")
    assert now["x-honesty-trace-id"] != was["x-honesty-trace-id"]


async def test_the_sdk_reads_a_kept_stream_as_any_other() -> None:
    async with proxy(script(), **KEPT) as on:
        texts = []
        for _ in range(2):
            stream = await on.client.chat.completions.create(**ask(), stream=True)
            async with aclosing(stream.__aiter__()) as chunks:
                texts.append("".join([c.choices[0].delta.content or "" async for c in chunks]))
        assert len(on.upstream.seen) == 2
    assert texts == [DRAFT, DRAFT]


@pytest.mark.parametrize("streamed", [False, True])
async def test_responses_that_are_not_stored_are_kept_too(streamed: bool) -> None:
    body = {"model": "m", "input": "What does it cost now?", "store": False, "stream": streamed}
    replies = script(confusion=DOUBT)

    def chat_alone(seen: Any) -> Any:
        gone = answer({"error": {"message": "no such path"}}, status=404)
        return gone if seen.path.endswith("/responses") else replies(seen)

    async with proxy(chat_alone, **KEPT) as on:
        _, first, _ = await posted(on, body, "responses")
        _, second, now = await posted(on, body, "responses")
    assert MERGED.encode() in first
    assert (second, now["x-honesty-cache"]) == (first.replace(reply.PING, b""), "hit")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (ask("What does it cost today?"), {}),
        (ask(seed=1), {}),
        (ask(stream=True), {}),
        (ask(honesty={"threshold": 0.1}), {}),
        (ask(honesty={"capabilities": ["web_search"]}), {}),
        (ask(), {"X_Honesty": "curiosity"}),
        (ask(), {"Authorization": "Bearer another's"}),
        (ask(), {"OpenAI_Project": "another"}),
    ],
)
async def test_what_differs_in_anything_that_matters_is_asked_anew(
    body: Any, headers: dict[str, str]
) -> None:
    async with proxy(script(), **KEPT) as on:
        assert await told(on, ask()) == "miss"
        assert await told(on, body, **headers) == "miss"
        assert await told(on, ask()) == "hit"


async def test_what_differs_from_try_to_try_alone_is_the_same_request() -> None:
    async with proxy(script(), **KEPT) as on:
        await told(on, ask(), Idempotency_Key="1", X_Client_Request_Id="1")
        assert await told(on, ask(), Idempotency_Key="2", X_Client_Request_Id="2") == "hit"
        assert await told(on, ask(), X_Honesty="gated") == "hit"  # the default, named


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"functions": [{"name": "f"}]},
        {"web_search_options": {}, "store": True},
        {"store": True},
    ],
)
async def test_what_does_more_than_answer_is_never_kept(more: dict[str, Any]) -> None:
    async with proxy(script(), **KEPT) as on:
        assert [await told(on, ask(**more)) for _ in range(2)] == [None, None]


async def test_a_response_that_is_stored_is_asked_for_each_time() -> None:
    body = {"model": "m", "input": "Hello!"}
    stored = {"id": "resp_1", "object": "response", "status": "completed", "output": []}
    async with proxy(lambda _: answer(stored), strategy="raw", **KEPT) as on:
        assert [await told(on, body, "responses") for _ in range(2)] == [None, None]
        assert len(on.upstream.seen) == 2


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "replies",
    [
        script(confusion=answer({"error": {"message": "down"}}, status=500)),
        script(draft=answer({"error": {"message": "slow down"}}, status=429)),
        script(draft=answer({"error": {"message": "no"}}, status=200)),
    ],
    ids=["fallback", "limited", "not an answer"],
)
async def test_only_whole_good_answers_are_kept(replies: Any, streamed: bool) -> None:
    async with proxy(replies, **KEPT) as on:
        assert [await told(on, ask(stream=streamed)) for _ in range(2)] == ["miss", "miss"]


async def test_a_stream_that_was_cut_is_not_kept() -> None:
    cut = replace(events(event(chunk("half")), done=False), then="drop")
    async with proxy(lambda _: cut, strategy="raw", **KEPT) as on:
        assert [await told(on, ask(stream=True)) for _ in range(2)] == ["miss", "miss"]


async def test_an_answer_that_nobody_waited_for_is_not_kept() -> None:
    held = replace(events(event(chunk("half")), done=False), then="hold")
    whole = events(event(chunk("whole", "stop")))
    async with proxy(script(draft=held), strategy="raw", **KEPT) as on:
        body = json.dumps(ask(stream=True)).encode()
        sent = {"Content-Type": "application/json"}
        async with on.session.post(f"{on.url}/chat/completions", data=body, headers=sent) as got:
            await got.content.readany()
        await asyncio.wait_for(on.upstream.gone.wait(), 10)
        on.upstream._script = lambda _: whole
        _, said, now = await posted(on, ask(stream=True), Authorization="")
    assert (b"whole" in said, now["x-honesty-cache"]) == (True, "miss")


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_another_upstream_answered_in_its_place_is_not_kept(streamed: bool) -> None:
    async with upstream(script()) as spare:
        others = {"spare": {"url": spare.url}}
        down = answer({"error": {"message": "down"}}, status=500)
        known = {"upstreams": others, "fallbacks": ("spare",), "strategy": "raw", **KEPT}
        async with proxy(lambda _: down, **known) as on:
            for _ in range(2):
                status, _, headers = await posted(on, ask(stream=streamed))
                assert (status, headers["x-honesty-upstream"]) == (200, "spare")
                assert headers["x-honesty-cache"] == "miss"


async def test_a_client_may_want_no_cache() -> None:
    async with proxy(script(), **KEPT) as on:
        assert await told(on, ask(), Cache_Control="no-store") is None
        assert await told(on, ask()) == "miss"
        assert await told(on, ask(), Cache_Control="no-store") is None
        assert await told(on, ask(), Cache_Control="no-cache") == "miss"
        assert await told(on, ask(), Cache_Control="max-age=0") == "miss"
        assert await told(on, ask(), Cache_Control="max-age=600") == "hit"


async def test_no_cache_still_renews_what_is_kept() -> None:
    texts = iter(["First.", "Second."])
    async with proxy(lambda _: answer(completion(next(texts))), strategy="raw", **KEPT) as on:
        await told(on, ask())
        await told(on, ask(), Cache_Control="no-cache")
        _, said, now = await posted(on, ask())
    assert (b"Second." in said, now["x-honesty-cache"]) == (True, "hit")


async def test_an_answers_time_runs_out() -> None:
    async with proxy(script(), **KEPT, answer_cache_seconds=0.05) as on:
        await told(on, ask())
        await asyncio.sleep(0.1)
        assert await told(on, ask()) == "miss"


async def test_a_trace_that_is_to_be_kept_is_of_a_turn_that_was_taken() -> None:
    async with proxy(script(), **KEPT) as on:
        await told(on, ask())
        assert await told(on, ask(), X_Honesty_Trace="keep") is None
        assert len(on.upstream.seen) == 4


async def test_limits_and_ids_of_the_upstream_are_not_told_again() -> None:
    fresh = {"x-ratelimit-remaining-requests": "9", "x-request-id": "r1"}
    async with proxy(lambda _: answer(completion(), headers=fresh), strategy="raw", **KEPT) as on:
        await told(on, ask())
        _, _, now = await posted(on, ask())
    assert now["x-honesty-cache"] == "hit"
    assert not fresh.keys() & {name.lower() for name in now}


async def test_a_hit_is_counted_for_its_arm_and_costs_nothing() -> None:
    async with proxy(script(), experiment={"raw": 1, "gated": 1e-9}, **KEPT) as on:
        for _ in range(3):
            _, _, headers = await posted(on, ask(user="one"))
            assert headers["x-honesty-arm"] == "raw"
        vote = {"trace_id": headers["x-honesty-trace-id"], "vote": "up"}
        assert (await posted(on, vote, "honesty/feedback"))[0] == 204
        async with on.session.get(f"{on.url}/honesty/experiment") as got:
            arm = (await got.json())["arms"]["raw"]
        assert len(on.upstream.seen) == 1
    assert (arm["requests"], arm["calls"], arm["tokens"]) == (3, 1, 7)
    assert arm["outcomes"] == {"passed_through": 3}
    assert arm["votes"] == {"up": 1, "down": 0}


async def test_what_is_kept_outlives_a_reload_but_is_not_for_other_settings() -> None:
    async with upstream(script()) as server:
        known = {"upstream": server.url, **KEPT}
        app = create_app(Settings(**known))
        said = []
        inside = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=inside, base_url="http://proxy") as client:
            for more in ({}, {"threshold": 0.5}, {}):
                await app.reload(Settings(**known, **more))
                got = await client.post("/v1/chat/completions", json=ask())
                said.append(got.headers["x-honesty-cache"])
        await app.service.aclose()
    assert said == ["miss", "miss", "hit"]


async def test_memory_keeps_to_its_room() -> None:
    memory = Memory(60, room=100)
    for name in "abc":
        memory.put(name, b"x" * 30)
    await memory.get("a")
    memory.put("d", b"x" * 30)  # someone must go: not the one just used
    assert [await memory.get(name) is not None for name in "abcd"] == [True, False, True, True]
    memory.put("e", b"x" * 200)
    assert await memory.get("e") is None


async def test_replicas_share_what_a_redis_keeps(tmp_path: Any) -> None:
    async with redis_server(tmp_path) as server, upstream(script()) as behind:
        settings = Settings(upstream=behind.url, answer_cache=server.url)
        async with proxy_of(settings, behind) as one, proxy_of(settings, behind) as two:
            assert await told(one, ask()) == "miss"
            assert await in_time(two, "hit")
            assert len(behind.seen) == 2
        from redis.asyncio import Redis

        async with Redis.from_url(server.url) as direct:
            keys = [key.decode() for key in await direct.keys()]
            assert [key.rpartition(":")[0] for key in keys] == ["honestproxy:answer"]
            assert 0 < await direct.ttl(keys[0]) <= 3600
            await direct.set(keys[0], b"\x81nonsense")
        async with proxy_of(settings, behind) as three:
            assert await told(three, ask()) == "miss"


async def test_a_redis_that_goes_and_comes_back_costs_no_request(
    tmp_path: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("honestproxy.server.cache.redis._LEFT_ALONE", 0.05)
    async with redis_server(tmp_path) as server, upstream(script()) as behind:
        settings = Settings(upstream=behind.url, answer_cache=server.url)
        async with proxy_of(settings, behind) as on:
            assert await told(on, ask()) == "miss"
            assert await in_time(on, "hit")
            await server.stop()
            for number in range(20):
                status, said, headers = await posted(on, ask(f"Question {number}?"))
                assert (status, json.loads(said)["choices"][0]["message"]["content"]) == (
                    200,
                    DRAFT,
                )
                assert headers["x-honesty-cache"] == "miss"
            await server.start()
            assert await in_time(on, "hit")
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2
    assert "fails" in warnings[0]
    assert "again" in warnings[1]
    assert "planted-secret" not in caplog.text


async def test_a_redis_that_never_was_there_keeps_no_proxy_from_starting() -> None:
    async with proxy(script(), answer_cache="redis://127.0.0.1:1/0") as on:
        assert [await told(on, ask()) for _ in range(3)] == ["miss"] * 3


@pytest.mark.parametrize(
    "place",
    [
        *("disk", "memcached://localhost", "redis://host:port-no"),
        *("redis://h/0?ssl_cert_reqs=none", "redis://h/0?foo=1", "redis://h/0?protocol=9"),
        "redis://h/0?retry=1",
    ],
)
def test_a_place_that_is_none_is_a_mistake_in_the_settings(place: str) -> None:
    with pytest.raises(SettingsError, match="answer_cache") as raised:
        create_app(Settings(upstream="http://127.0.0.1:1/v1", answer_cache=place))
    assert raised.value.param == "answer_cache"
