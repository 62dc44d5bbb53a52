"""How soon an answer comes when each upstream call takes a known time.

An upstream on loopback answers draft, confusion and merge after 300 ms each. Shown: what a
client waits, whole and streamed, beside what the upstream itself took.

    python benchmarks/latency.py [--repeat 20] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from honestproxy.server import create_app
from honestproxy.server.listening.running import Server
from honestproxy.settings import Settings

STEP = 0.300
TOKEN = 0.020
TOKENS = 100
SETTLES = 0.400
NO_DOUBT = '{"doubts": [], "confidence": 0.97}'
DOUBT = (
    '{"doubts": [{"kind": "latest_information", "statement": "No live data."}], "confidence": 0.1}'
)
QUESTION = [{"role": "user", "content": "What does it cost now?"}]


class Upstream:
    """Answers by step; says when it sent the first and the last byte of each answer."""

    def __init__(self, confusion: str = DOUBT, *, slow_draft: bool = False) -> None:
        self.confusion = confusion
        self.slow_draft = slow_draft
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        step = _step(body["messages"][-1]["content"])
        text = self.confusion if step == "confusion" else f"This is the {step}."
        if not body.get("stream"):
            await asyncio.sleep(STEP)
            self.first[step] = self.last[step] = time.perf_counter()
            return web.json_response(_whole(text))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if step == "draft" and self.slow_draft:
            await self._tokens(response)
        else:
            await asyncio.sleep(SETTLES if self.slow_draft else STEP)
            self.first[step] = time.perf_counter()
            await response.write(_event(text, None))
        self.last[step] = time.perf_counter()
        await response.write(_event(None, "stop") + b"data: [DONE]\n\n")
        return response

    async def _tokens(self, response: web.StreamResponse) -> None:
        started = time.perf_counter()
        for number in range(TOKENS):
            await asyncio.sleep(started + (number + 1) * TOKEN - time.perf_counter())
            await response.write(_event(f"{number} ", None))


def _step(text: str) -> str:
    if "Two notes were made" in text:
        return "merge"
    return "confusion" if "What follows comes from the application" in text else "draft"


def _whole(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def _event(text: str | None, finish: str | None) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


def _listener() -> socket.socket:
    # asyncio switches Nagle's algorithm off only where a socket says that it speaks TCP.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@asynccontextmanager
async def proxy(upstream: Upstream) -> AsyncIterator[str]:
    """The proxy over real HTTP before a real upstream; yields the URL of chat completions."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", upstream.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    settings = Settings(upstream=f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    server, listener = Server(create_app(settings)), _listener()
    serving = asyncio.create_task(server.run_until_stopped(listener))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/chat/completions"
    finally:
        server.stop(signal.SIGINT)
        await serving
        await runner.cleanup()


async def _ask(session: aiohttp.ClientSession, url: str, strategy: str, *, stream: bool) -> Any:
    """Seconds to the first content and to the end, by the client's clock, and both instants."""
    body = {"model": "m", "messages": QUESTION, "stream": stream}
    started = time.perf_counter()
    first = last = 0.0
    async with session.post(url, json=body, headers={"X-Honesty": strategy}) as response:
        response.raise_for_status()
        async for line in response.content:
            if b'"content"' in line:
                last = time.perf_counter()
                first = first or last
    return started, first, last


async def _repeat(measure: Callable[[], Awaitable[float]], times: int) -> tuple[float, float]:
    await measure()
    found = [await measure() * 1000 for _ in range(times)]
    return statistics.median(found), max(found)


async def measure(times: int) -> list[dict[str, Any]]:
    """The rows: what is measured, median and worst in ms, and the bound it is to keep."""
    rows: list[dict[str, Any]] = []

    async def row(name: str, bound: float, measured: Callable[[], Awaitable[float]]) -> None:
        median, worst = await _repeat(measured, times)
        rows.append({"what": name, "median_ms": median, "worst_ms": worst, "bound_ms": bound})

    async with aiohttp.ClientSession() as session:
        upstream = Upstream()
        async with proxy(upstream) as url:

            async def whole() -> float:
                started, _, last = await _ask(session, url, "curiosity", stream=False)
                return last - started

            async def merged() -> float:
                _, first, _ = await _ask(session, url, "curiosity", stream=True)
                return first - upstream.first["merge"]

            await row("curiosity, whole", 630, whole)
            await row("curiosity, first token after the upstream's", 20, merged)
        async with proxy(Upstream(NO_DOUBT)) as url:

            async def kept() -> float:
                started, _, last = await _ask(session, url, "gated", stream=False)
                return last - started

            await row("gated without doubt, whole", 330, kept)
        slow = Upstream(NO_DOUBT, slow_draft=True)
        async with proxy(slow) as url:

            async def first_token() -> float:
                started, first, _ = await _ask(session, url, "gated", stream=True)
                return first - started

            async def last_token() -> float:
                _, _, last = await _ask(session, url, "gated", stream=True)
                return last - slow.last["draft"]

            few = max(2, times // 5)
            for name, bound, one in (
                ("kept draft, first token (settles at 400 ms)", 420, first_token),
                ("kept draft, last token after the upstream's", 20, last_token),
            ):
                median, worst = await _repeat(one, few)
                rows.append(
                    {"what": name, "median_ms": median, "worst_ms": worst, "bound_ms": bound}
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments.repeat))
    if arguments.json:
        print(json.dumps(rows))
        return
    for found in rows:
        print(
            f"{found['what']:<48} {found['median_ms']:8.1f} ms  worst {found['worst_ms']:8.1f}"
            f"  bound {found['bound_ms']:5.0f}"
        )


if __name__ == "__main__":
    main()
