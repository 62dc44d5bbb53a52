"""What an upstream can do wrong, and what a client gets to see of it: never more than an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from honestproxy.backends.scripted import Scripted
from honestproxy.settings import Settings
from tests.proxy import DRAFT, MERGED, Proxy, ask, proxy, script, serving
from tests.upstreams import Reply, answer, chunk, completion, event, events

HALF = json.dumps(completion())[:60].encode()
EVENTS = "text/event-stream"
TOLD = {"error": {"message": "the upstream says why", "type": "t", "param": None, "code": "c"}}

FAULTS = {
    "429": (answer(TOLD, status=429, headers={"Retry-After": "7"}), {429}),
    "500": (answer(TOLD, status=500), {500}),
    "503": (answer(TOLD, status=503), {503}),
    "503 as a page": (Reply([b"<html>Busy"], status=503, content_type="text/html"), {503}),
    "a hang": (Reply(then="hold"), {504}),
    "a reset before headers": (Reply(then="drop"), {502}),
    "a reset after headers": (Reply([b" "], then="drop"), {502}),
    "half a JSON": (answer(HALF), {502}),
    "half a JSON, then a hang": (Reply([HALF], then="hold"), {504}),
    "a web page": (Reply([b"<html>Hello</html>"], content_type="text/html"), {502}),
    "a 200 with an error": (answer(TOLD), {502}),
    "a byte now and then": (Reply([part for _ in range(90) for part in (b" ", 0.1)]), {504}),
    "another content type": (Reply([b"Hello"], content_type="text/plain"), {502}),
    "no answer in it": (answer({"object": "chat.completion", "choices": []}), {502}),
    "an empty body": (answer(b""), {502}),
}
"""What comes instead of an answer, whole or streamed, and the statuses that may come of it."""

MIDWAY = {
    "a reset": Reply([event(chunk("Half"))], content_type=EVENTS, then="drop"),
    "a hang": Reply([event(chunk("Half"))], content_type=EVENTS, then="hold"),
    "an end": events(event(chunk("Half")), done=False),
    "nothing but [DONE]": events(),
    "an error": events(event(chunk("Half")), event(TOLD)),
    "half an event": Reply([event(chunk("Half")), b'data: {"choi'], content_type=EVENTS),
    "a byte now and then": Reply(
        [event(chunk("Half")), *(part for _ in range(90) for part in (b":", 0.1))],
        content_type=EVENTS,
    ),
}
"""How a stream that has begun can end."""

SOON = {"step_timeout": 0.6, "retries": 1, "breaker_failures": 0}


async def asked(on: Proxy, **more: Any) -> tuple[int, str]:
    async with on.session.post(f"{on.url}/chat/completions", json=ask(**more)) as got:
        return got.status, await got.text()


def error_of(text: str) -> dict[str, Any]:
    """The error in OpenAI's shape with which a reply ends, whole or streamed."""
    found: dict[str, Any] = json.loads(text.strip().rpartition("data: ")[2])["error"]
    assert found["message"]
    assert {"message", "type", "code"} <= found.keys()
    return found


def open_now() -> tuple[int, int]:
    """How many tasks there are, and how many files and sockets are open."""
    return len(asyncio.all_tasks()), len(list(Path("/dev/fd").iterdir()))


async def settled(before: tuple[int, int]) -> tuple[int, int]:
    """What is open once no more is than before, or else after two seconds."""
    for _ in range(200):
        now = open_now()
        if now[0] <= before[0] and now[1] <= before[1]:
            break
        await asyncio.sleep(0.01)
    return now


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("strategy", ["raw", "gated"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_draft_that_fails_is_an_error_and_leaves_nothing_open(
    fault: str, strategy: str, streamed: bool
) -> None:
    replies = script()
    async with proxy(replies, strategy=strategy, **SOON) as on:
        assert DRAFT in (await asked(on, stream=streamed))[1]
        before = open_now()
        replies.replies["draft"], statuses = FAULTS[fault]
        status, text = await asked(on, stream=streamed)
        assert status in statuses
        error_of(text)
        now = await settled(before)
        assert (now[0] <= before[0], now[1] <= before[1]) == (True, True), (before, now)
        replies.replies["draft"] = DRAFT
        status, text = await asked(on, stream=streamed)
        assert (status, DRAFT in text) == (200, True)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", ["confusion", "merge"])
async def test_a_later_step_that_fails_leaves_the_draft(
    step: str, fault: str, streamed: bool
) -> None:
    confusion = '{"doubts": [{"kind": "user_input", "statement": "Which?"}], "confidence": 0.1}'
    replies = script(confusion=confusion)
    async with proxy(replies, strategy="gated", **SOON) as on:
        assert MERGED in (await asked(on, stream=streamed))[1]
        before = open_now()
        replies.replies[step] = FAULTS[fault][0]
        status, text = await asked(on, stream=streamed)
        assert (status, DRAFT in text, MERGED in text) == (200, True, False)
        assert '"outcome":"draft_fallback"' in text
        now = await settled(before)
        assert (now[0] <= before[0], now[1] <= before[1]) == (True, True), (before, now)


@pytest.mark.parametrize("strategy", ["raw", "gated", "curiosity"])
@pytest.mark.parametrize("fault", MIDWAY)
async def test_a_stream_that_breaks_ends_in_an_error_that_sdks_raise(
    fault: str, strategy: str
) -> None:
    step = "merge" if strategy == "curiosity" else "draft"
    replies = script()
    async with proxy(replies, strategy=strategy, **SOON) as on:
        assert "[DONE]" in (await asked(on, stream=True))[1]
        before = open_now()
        replies.replies[step] = MIDWAY[fault]
        status, text = await asked(on, stream=True)
        if strategy == "curiosity" and "Half" not in text:  # before its text: the draft stands
            assert DRAFT in text
        else:
            assert "[DONE]" not in text
            error_of(text)
        assert status in (200, 502)
        now = await settled(before)
        assert (now[0] <= before[0], now[1] <= before[1]) == (True, True), (before, now)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_a_fault_that_passes_is_never_seen(strategy: str, streamed: bool) -> None:
    seen: set[str] = set()
    usual = script()

    def first_fails(request: Any) -> Reply:
        key = request.body.decode()
        if key in seen or request.path.endswith("/models"):
            return usual(request)
        seen.add(key)
        return FAULTS["503"][0] if len(seen) % 2 else FAULTS["a reset before headers"][0]

    async with proxy(first_fails, strategy=strategy) as on:
        status, text = await asked(on, stream=streamed)
    assert (status, DRAFT in text) == (200, True)
    assert "draft_fallback" not in text


class Buggy(Scripted):
    """A backend that fails where none of ours would."""

    def __init__(self, *parts: bytes) -> None:
        super().__init__(lambda _: DRAFT)
        self.status, self.headers = 200, dict[str, str]()
        self._parts = parts

    async def models(self, headers: Any = None) -> list[dict[str, Any]]:
        raise TypeError("secret words")

    async def relay(self, *_: Any) -> Any:
        if not self._parts:
            raise TypeError("secret words")
        return self

    async def parts(self) -> AsyncGenerator[bytes, None]:
        for part in self._parts:
            yield part
        raise TypeError("secret words")

    def close(self) -> None:
        """Nothing to close."""


async def counted(url: str, session: aiohttp.ClientSession) -> list[str]:
    """The metric of requests, once one has ended."""
    while True:
        async with session.get(url.removesuffix("/v1") + "/metrics") as got:
            lines = (await got.text()).splitlines()
        if found := [line for line in lines if line.startswith("honestproxy_requests_total{")]:
            return found


@pytest.mark.parametrize(("path", "api"), [("chat/completions", "chat"), ("files", "relay")])
async def test_a_mistake_of_ours_is_told_as_openai_would_and_counted_as_one(
    path: str, api: str
) -> None:
    async with serving(Settings(upstream="x:y"), Buggy()) as url, aiohttp.ClientSession() as on:
        async with on.post(f"{url}/{path}", json=ask(model="m@gated")) as got:
            assert got.status == 500
            assert "its log says why" in error_of(await got.text())["message"]
        (line,) = await counted(url, on)
    assert f'api="{api}",outcome="error",status="500"' in line


async def test_a_mistake_in_the_midst_of_an_answer_drops_the_connection() -> None:
    settings = Settings(upstream="x:y")
    async with serving(settings, Buggy(b"half")) as url, aiohttp.ClientSession() as on:
        with pytest.raises(aiohttp.ClientPayloadError):
            async with on.get(f"{url}/files") as got:
                await got.read()
        (line,) = await counted(url, on)
    assert 'outcome="error",status="200"' in line


async def test_an_upstream_that_is_left_alone_is_told_with_when_to_come_back() -> None:
    replies = script(draft=FAULTS["500"][0])
    async with proxy(replies, strategy="raw", breaker_failures=2, breaker_seconds=30) as on:
        for _ in range(2):
            assert (await asked(on))[0] == 500
        status, body, headers = await on.post(ask())
        assert (status, body["error"]["code"]) == (503, "upstream_unavailable")
        assert 1 <= int(headers["Retry-After"]) <= 30
        assert len(on.upstream.seen) == 2
