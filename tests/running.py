"""The proxy as `serve` runs it, in this process, before a scripted upstream, for tests."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from honestproxy.server import create_app
from honestproxy.server.app import Proxy
from honestproxy.server.listening.running import Server
from honestproxy.settings import Settings
from honestproxy.types import Backend
from tests.upstreams import Upstream


@dataclass
class Reply:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Running:
    """A server under way; `ended` is its task, which gives the signal that ended it."""

    app: Proxy
    server: Server
    port: int
    settings: list[Settings]
    ended: asyncio.Task[int]
    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client's connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.connections.append(writer)
        return reader, writer

    async def ask(self, raw: bytes) -> Reply:
        """Send these bytes over a connection of their own; the first answer to them."""
        reader, writer = await self.connect()
        writer.write(raw)
        return await read(reader)

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end, and wait for that."""
        self.server.stop(number)
        return await self.ended


@asynccontextmanager
async def running(
    upstream: Upstream | str = "http://127.0.0.1:9/v1",
    *,
    backend: Backend | None = None,
    ready: Callable[[], Awaitable[None]] | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """The server; a reload loads what was put into `settings`, the last of that list."""
    url = upstream if isinstance(upstream, str) else upstream.url
    known = [Settings(upstream=url, **{"traces": "off", "shutdown_timeout": 5, **settings})]
    app = create_app(known[0], backend)
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    server, port = Server(app, lambda: known[-1]), listener.getsockname()[1]
    ended = asyncio.create_task(server.run_until_stopped(listener, ready))
    on = Running(app, server, port, known, ended)
    try:
        yield on
    finally:
        for writer in on.connections:
            writer.transport.abort()
        server.stop()
        await asyncio.wait((ended,))


def post(body: bytes, path: str = "/v1/chat/completions", **headers: str) -> bytes:
    """A request as a client writes it."""
    told = {"Host": "127.0.0.1", "Content-Type": "application/json"}
    told |= {"Content-Length": str(len(body))}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def read(reader: asyncio.StreamReader) -> Reply:
    """One answer, whole."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in head[1:] if line)
    headers = {name.lower(): value for name, _, value in pairs}
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = b"".join([part async for part in _chunks(reader)])
    return Reply(int(head[0].split()[1]), headers, body)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
