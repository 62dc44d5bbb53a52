"""The proxy over real HTTP before a scripted upstream, both on loopback, for tests."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from openai import AsyncOpenAI

from honestproxy.server import create_app
from honestproxy.server.app import Proxy as App
from honestproxy.server.listening.running import Server
from honestproxy.settings import Settings
from honestproxy.types import Backend
from tests.upstreams import (
    Reply,
    Seen,
    Upstream,
    answer,
    chunk,
    completion,
    event,
    events,
    upstream,
)

DRAFT, PROSE, MERGED = "The draft.", "I can't look prices up.", "The merged answer."
NO_DOUBT = '{"doubts": [], "confidence": 0.97}'
DOUBT = json.dumps(
    {
        "doubts": [{"kind": "latest_information", "statement": "No live prices here."}],
        "confidence": 0.2,
    }
)
MARKS = {
    "merge": "Two notes were made for you",
    "critique": "Do not answer the conversation above",
    "edit": "A reviewer found:",
    "single": "strictly in this form",
    "paper merge": "Confusing points:",
    "paper confusion": "You are an honest and curious assistant",
    "confusion": "o not answer the last message",
}
"""Words of ours by which an upstream can tell the steps apart."""


def step_of(body: Mapping[str, Any]) -> str:
    """Which step sent this body."""
    content = body["messages"][-1].get("content") or ""
    text = content if isinstance(content, str) else content[-1].get("text", "")
    return next((step for step, mark in MARKS.items() if mark in text), "draft")


@dataclass
class Script:
    """What the upstream answers by step: a text, or a Reply of its own."""

    replies: dict[str, str | Reply | list[str]] = field(default_factory=dict)
    models: list[str] = field(default_factory=lambda: ["m"])

    def __call__(self, seen: Seen) -> Reply:
        if seen.path.endswith("/models"):
            return answer({"object": "list", "data": [{"id": name} for name in self.models]})
        body = seen.json()
        reply = self.replies.get(step_of(body), DRAFT)
        if isinstance(reply, Reply):
            return reply
        if body.get("stream"):
            return _streamed(reply if isinstance(reply, list) else [reply], body)
        return answer(completion(reply if isinstance(reply, str) else "".join(reply)))


def _streamed(texts: list[str], body: Mapping[str, Any]) -> Reply:
    role = chunk()
    role["choices"][0]["delta"] = {"role": "assistant", "content": ""}
    pieces = [event(role), *(event(chunk(text)) for text in texts), event(chunk(None, "stop"))]
    if (body.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        pieces.append(event({**chunk(), "choices": [], "usage": usage}))
    return events(*pieces)


def script(**replies: str | Reply | list[str]) -> Script:
    """Draft, confusion and merge as usual, but for what is named."""
    usual: dict[str, str | Reply | list[str]] = {
        "draft": DRAFT,
        "confusion": NO_DOUBT,
        "merge": MERGED,
    }
    return Script(usual | {name.replace("_", " "): reply for name, reply in replies.items()})


@dataclass
class Proxy:
    """A running proxy: its URL, its upstream, and an SDK client that doesn't retry."""

    url: str
    upstream: Upstream
    client: AsyncOpenAI
    session: aiohttp.ClientSession

    def bodies(self) -> dict[str, dict[str, Any]]:
        """What the upstream was asked, by step."""
        asked = [seen.json() for seen in self.upstream.seen if seen.body]
        return {step_of(body): body for body in asked}

    async def post(self, body: Any, **headers: str) -> tuple[int, Any, Mapping[str, str]]:
        """POST to chat completions as a plain client would; status, parsed body, headers."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        async with self.session.post(f"{self.url}/chat/completions", data=raw, headers=sent) as got:
            return got.status, json.loads(await got.read()), got.headers


@asynccontextmanager
async def serving(
    settings: Settings, backend: Backend | None = None, app: App | None = None
) -> AsyncIterator[str]:
    """The proxy over real HTTP; yields its base URL."""
    app = app or create_app(settings, backend)
    async with listening(app) as port:
        yield f"http://127.0.0.1:{port}/v1"


@asynccontextmanager
async def listening(app: App) -> AsyncIterator[int]:
    """The application as `honestproxy serve` serves it, on a port that it yields."""
    listener, begun = socket.socket(proto=socket.IPPROTO_TCP), asyncio.Event()
    listener.bind(("127.0.0.1", 0))

    async def start() -> None:
        await app.start()
        begun.set()

    server = Server(app)
    running = asyncio.create_task(server.run_until_stopped(listener, start))
    waiting = asyncio.create_task(begun.wait())
    await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        if begun.is_set():
            yield listener.getsockname()[1]
    finally:
        server.stop(signal.SIGINT)
        await running


@asynccontextmanager
async def proxy(replies: Script | Callable[[Seen], Reply], **settings: Any) -> AsyncIterator[Proxy]:
    """The proxy before a scripted upstream."""
    async with (
        upstream(replies) as server,
        serving(Settings(upstream=server.url, **settings)) as url,
        AsyncOpenAI(base_url=url, api_key="client-key", max_retries=0) as client,
        aiohttp.ClientSession() as session,
    ):
        yield Proxy(url, server, client, session)


def ask(text: str = "What does it cost now?", **more: Any) -> dict[str, Any]:
    """A request's body."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}
