"""A scripted OpenAI-compatible server over real loopback HTTP, for tests."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What to answer. `pieces` go out one by one; a number among them is a pause in seconds.

    `then`: after the pieces, end properly, drop the connection, or hold it until the client goes.
    """

    pieces: Sequence[bytes | float] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    then: str = "end"


class Upstream:
    """The server's face to a test: where it is, what it saw, and when a client went away."""

    def __init__(self, script: Sequence[Reply] | Callable[[Seen], Reply]) -> None:
        self._script = script
        self.url = ""
        self.seen: list[Seen] = []
        self.left: list[Seen] = []
        self.holding = asyncio.Event()
        self.gone = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        port = request.transport.get_extra_info("peername")[1]  # the client's: one per connection
        body = await request.read()
        seen = Seen(request.method, request.raw_path, request.headers, body, port)
        self.seen.append(seen)
        reply = self._choose(seen)
        try:
            return await self._send(request, reply)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left.append(seen)
            self.gone.set()
            raise

    def _choose(self, seen: Seen) -> Reply:
        if callable(self._script):
            return self._script(seen)
        return self._script[min(len(self.seen), len(self._script)) - 1]

    async def _send(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        if reply.then == "drop" and not reply.pieces:
            request.transport.abort()
            return web.Response()
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        response.headers["Content-Type"] = reply.content_type
        await response.prepare(request)
        for piece in reply.pieces:
            if isinstance(piece, bytes):
                await response.write(piece)
            await asyncio.sleep(0 if isinstance(piece, bytes) else piece)
        if reply.then == "hold":
            self.holding.set()
            await asyncio.Event().wait()
        if reply.then == "drop":
            request.transport.abort()
        return response


@asynccontextmanager
async def upstream(*script: Reply | Callable[[Seen], Reply]) -> AsyncIterator[Upstream]:
    """A server that gives these replies in order, the last one over and over; or one function's."""
    first = script[0]
    server = Upstream(first if callable(first) else script)  # type: ignore[arg-type]
    app = web.Application(client_max_size=100_000_000)
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def talking(words: bytes) -> AsyncIterator[str]:
    """A server that says these bytes, whatever it is told, and then hangs up; none: it waits."""

    writers: list[asyncio.StreamWriter] = []

    def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if words:
            writer.write(words)
            writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for writer in writers:
            writer.transport.abort()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer(body: Any, **more: Any) -> Reply:
    """A JSON reply; bytes go out as they are."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply([raw], **more)


def completion(text: str = "Paris.", **more: Any) -> dict[str, Any]:
    """A completion's body as OpenAI's API writes it."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**head, "choices": [choice], "usage": usage, **more}


def chunk(text: str | None = None, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk's body as OpenAI's API writes it."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [choice], **more}


def event(data: Any, terminator: bytes = b"\n\n") -> bytes:
    """One server-sent event."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return b"data: " + raw + terminator


def events(*pieces: bytes | float, done: bool = True, **more: Any) -> Reply:
    """A stream of these pieces, with `[DONE]` behind them."""
    last = [event(b"[DONE]")] if done else []
    return Reply([*pieces, *last], content_type="text/event-stream", **more)
