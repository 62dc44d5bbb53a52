"""HTTP transports that answer chat requests by the proxy's application, in this process.

All other requests go straight to the HTTP client that was wrapped.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from weakref import WeakKeyDictionary

from honestproxy.backends.connection import Connection
from honestproxy.backends.openai_compatible import OpenAICompatible
from honestproxy.client.calls import AsyncCalls, ThreadCalls
from honestproxy.client.flavour import Flavour
from honestproxy.client.inprocess import Head, InProcess
from honestproxy.client.loop import LoopThread
from honestproxy.client.origin import Origin
from honestproxy.client.told import RECORD
from honestproxy.server.app import DIRECT, Proxy, create_app
from honestproxy.settings import Settings

_BASE: Final = "/v1"


class Applications:
    """The application, once for each event loop that asks: its locks belong to one."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        first = self._made()
        self._unused: list[Proxy] = [first]
        self._lock = threading.Lock()
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Proxy] = WeakKeyDictionary()
        self._suffixes = [path.removeprefix(_BASE) for path in DIRECT]

    def suffix(self, request: Any) -> str | None:
        """Where the request's path ends like one that is answered here, that end."""
        if request.method != "POST":
            return None
        path = request.url.path
        return next((end for end in self._suffixes if path.endswith(end)), None)

    def answer(self, suffix: str, body: bytes, origin: Origin) -> InProcess:
        """The reply of the running loop's application, not begun yet."""
        app = self._by_loop.get(asyncio.get_running_loop()) or self._first()
        return InProcess(app, _BASE + suffix, body, origin)

    def _first(self) -> Proxy:
        for loop in list(self._by_loop):
            if loop.is_closed():
                self._by_loop.pop(loop, None)
        with self._lock:
            app = self._unused.pop() if self._unused else self._made()
        self._by_loop[asyncio.get_running_loop()] = app
        return app

    def _made(self) -> Proxy:
        return create_app(self._settings, OpenAICompatible.over(self._connection))


class AsyncTransport:
    """The transport of an asynchronous client; it works in the loop of whoever calls."""

    def __init__(self, inner: Any, flavour: Flavour, settings: Settings) -> None:
        self._inner = inner
        self._library = flavour.library
        self._body = flavour.stream(AsyncBody)
        self._calls = AsyncCalls(inner)
        self._apps = Applications(settings, self._calls)

    async def handle_async_request(self, request: Any) -> Any:
        """Answer a request, here or by the inner client."""
        suffix = self._apps.suffix(request)
        if suffix is None:
            return await self._calls.send(request, follow_redirects=False)
        origin = Origin(self._library, request, suffix)
        reply = self._apps.answer(suffix, await request.aread(), origin)
        head = await reply.head()
        return _response(self._library, head, self._body(reply), reply)

    async def aclose(self) -> None:
        """Close the inner client."""
        await self._calls.aclose()
        await self._inner.aclose()

    async def __aenter__(self) -> AsyncTransport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Transport:
    """The transport of a synchronous client; a loop in a thread of its own does the work."""

    def __init__(self, inner: Any, flavour: Flavour, settings: Settings) -> None:
        self._inner = inner
        self._library = flavour.library
        self._body = flavour.stream(Body)
        self._apps = Applications(settings, ThreadCalls(inner))
        self._loop = LoopThread()

    def handle_request(self, request: Any) -> Any:
        """Answer a request, here or by the inner client."""
        suffix = self._apps.suffix(request)
        if suffix is None:
            return self._inner.send(request, stream=True, follow_redirects=False)
        reply, head = self._loop.run(self._begun(request, suffix, request.read()))
        return _response(self._library, head, self._body(reply, self._loop), reply)

    async def _begun(self, request: Any, suffix: str, body: bytes) -> tuple[InProcess, Head]:
        reply = self._apps.answer(suffix, body, Origin(self._library, request, suffix))
        return reply, await reply.head()

    def close(self) -> None:
        """Stop the loop, and close the inner client."""
        self._loop.close()
        self._inner.close()

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncBody:
    """A reply's body as it is made."""

    def __init__(self, reply: InProcess) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (part := await self._reply.next()) is not None:
            yield part

    async def aclose(self) -> None:
        """End the calls that are still under way."""
        self._reply.leave()


class Body:
    """The same for a thread without a loop."""

    def __init__(self, reply: InProcess, loop: LoopThread) -> None:
        self._reply = reply
        self._loop = loop

    def __iter__(self) -> Iterator[bytes]:
        while (part := self._loop.run(self._reply.next())) is not None:
            yield part

    def close(self) -> None:
        """End the calls that are still under way."""
        self._loop.soon(self._reply.leave)


def wrapped(inner: Any, flavour: Flavour, settings: Settings) -> Any:
    """An HTTP client of the same library, configured alike, which sends through `inner`."""
    made = AsyncTransport if flavour.asynchronous else Transport
    return flavour.client(
        transport=made(inner, flavour, settings),
        base_url=inner.base_url,
        cookies=inner.cookies.jar,
        follow_redirects=inner.follow_redirects,
        headers=inner.headers,
        max_redirects=inner.max_redirects,
        params=inner.params,
        timeout=inner.timeout,
        trust_env=False,
    )


def _response(library: Any, head: Head, body: Any, reply: InProcess) -> Any:
    status, headers = head
    return library.Response(status, headers=headers, stream=body, extensions={RECORD: reply.record})
