"""Calls to the model through the client that was wrapped: a `Connection` for each of its kinds.

They go through the inner HTTP client's `send`, so that its proxies, certificates, event hooks
and connections serve as before.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from honestproxy.backends.connection import Exchange
from honestproxy.backends.http1 import Body
from honestproxy.client.homes import Homes
from honestproxy.client.origin import ORIGIN, Origin

_LINGER: Final = 0.02  # seconds that a body's end may come after the answer's
_AHEAD: Final = 64  # parts of a body that a thread may be ahead of their reader


class AsyncCalls:
    """A connection over an asynchronous HTTP client, in the loop of whoever asks."""

    name = "the wrapped client"

    def __init__(self, client: Any) -> None:
        self._client = client
        self._closing: set[asyncio.Task[None]] = set()
        self._homes = Homes(client)

    async def open(
        self, method: str, path: str, headers: Mapping[str, str], body: Body = None
    ) -> Exchange:
        """Send a call made from the current turn's request. Raises UpstreamError."""
        origin = ORIGIN.get()
        request = origin.call(method, path, headers, body)
        try:
            response = await self.send(request)
        except Exception as error:  # noqa: BLE001 - raised again by the transport, as it is
            raise origin.failed(error) from None
        return _AsyncExchange(response, origin, self._closing)

    async def send(self, request: Any, **options: Any) -> Any:
        """The response's head. Never sent twice: each of it may be one more that is billed."""
        await self._homes.settle()
        return await self._client.send(request, stream=True, **options)

    async def aclose(self) -> None:
        """Wait for what is being let go; the client is its owner's to close."""
        here = asyncio.get_running_loop()
        own = [task for task in self._closing if task.get_loop() is here]
        await asyncio.gather(*own, return_exceptions=True)


class ThreadCalls:
    """A connection over a synchronous HTTP client: each call has a thread while it lasts."""

    name = "the wrapped client"

    def __init__(self, client: Any) -> None:
        self._client = client

    async def open(
        self, method: str, path: str, headers: Mapping[str, str], body: Body = None
    ) -> Exchange:
        """Send a call made from the current turn's request. Raises UpstreamError."""
        origin = ORIGIN.get()
        content = body if isinstance(body, bytes | None) else await _joined(body)
        request = origin.call(method, path, headers, content)
        exchange = _ThreadExchange(self._client, request, origin)
        try:
            await exchange.began()
        except BaseException:
            exchange.close()
            raise
        return exchange

    async def aclose(self) -> None:
        """Nothing to do: the client is its owner's to close."""


class _AsyncExchange:
    """An answer under way in this loop."""

    def __init__(self, response: Any, origin: Origin, closing: set[asyncio.Task[None]]) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._received = response.aiter_bytes()
        self._origin = origin
        self._closing = closing

    async def read(self) -> bytes:
        return await _joined(self.parts())

    async def parts(self) -> AsyncGenerator[bytes, None]:
        try:
            async for part in self._received:
                yield part
        except Exception as error:  # noqa: BLE001 - as above
            raise self._origin.failed(error, begun=True) from None

    async def finish(self) -> None:
        with suppress(Exception):
            async with asyncio.timeout(_LINGER):
                async for _ in self._received:
                    pass

    def close(self) -> None:
        if not self._response.is_closed:
            task = asyncio.get_running_loop().create_task(self._let_go())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _let_go(self) -> None:
        with suppress(Exception):  # nobody is left to be told
            await self._received.aclose()
            await self._response.aclose()


class _ThreadExchange:
    """An answer under way in a thread, which reads it as it comes and no further than it may."""

    def __init__(self, client: Any, request: Any, origin: Origin) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._client = client
        self._request = request
        self._origin = origin
        self._loop = asyncio.get_running_loop()
        self._head: asyncio.Future[Any] = self._loop.create_future()
        self._parts: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._room = threading.Semaphore(_AHEAD)
        self._lock = threading.Lock()
        self._response: Any = None
        self._closed = False

    async def began(self) -> None:
        """Send it, and wait for the head."""
        run = contextvars.copy_context().run
        threading.Thread(
            target=run, args=(self._run,), name="honestproxy call", daemon=True
        ).start()
        try:
            response = await self._head
        except Exception as error:  # noqa: BLE001 - as above
            raise self._origin.failed(error) from None
        self.status, self.headers = response.status_code, response.headers

    async def read(self) -> bytes:
        return await _joined(self.parts())

    async def parts(self) -> AsyncGenerator[bytes, None]:
        while (part := await self._parts.get()) is not None:
            self._room.release()
            if isinstance(part, Exception):
                raise self._origin.failed(part, begun=True)
            yield part

    async def finish(self) -> None:
        with suppress(Exception):
            async with asyncio.timeout(_LINGER):
                async for _ in self.parts():
                    pass

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._response is not None:
                _cut(self._response)
        self._room.release()

    def _run(self) -> None:
        try:
            response = self._client.send(self._request, stream=True)
        except Exception as error:  # noqa: BLE001 - as above
            self._tell(self._failed, error)
            return
        self._tell(self._answered, response)
        last: Exception | None = None
        try:
            self._pass_on(response)
        except Exception as error:  # noqa: BLE001 - as above
            last = error
        finally:
            with self._lock:  # from here on its connection may serve someone else
                self._response = None
            with suppress(Exception):  # nobody is left to be told
                response.close()
            self._tell(self._parts.put_nowait, last)

    def _pass_on(self, response: Any) -> None:
        parts = self._received(response)
        for part in parts:
            self._room.acquire()
            if self._closed:
                return
            self._tell(self._parts.put_nowait, part)

    def _received(self, response: Any) -> Iterator[bytes]:
        is_plain = "content-encoding" not in response.headers and not response.is_stream_consumed
        if not is_plain:
            yield from response.iter_bytes()
            return
        with self._lock:
            self._response = response
        if not self._closed:
            # Not by `iter_bytes`: that gives the connection back before anyone could know.
            yield from response.stream

    def _answered(self, response: Any) -> None:
        if not self._head.done():
            self._head.set_result(response)

    def _failed(self, error: Exception) -> None:
        if not self._head.done():
            self._head.set_exception(error)

    def _tell(self, callback: Callable[..., object], value: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody listens
            self._loop.call_soon_threadsafe(callback, value)


def _cut(response: Any) -> None:
    """End the connection under a thread that reads from it, which nothing else would wake."""
    if response.http_version == "HTTP/2":
        return  # it serves other calls as well; the thread lets go at the next part
    stream = response.extensions.get("network_stream")
    end = stream.get_extra_info("socket") if stream else None
    if isinstance(end, socket.socket):
        with suppress(OSError):
            socket.socket.shutdown(end, socket.SHUT_RDWR)


async def _joined(parts: Any) -> bytes:
    return b"".join([part async for part in parts])
