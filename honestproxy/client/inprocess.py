"""One request answered by an ASGI application in this process, its reply read as it is made."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from honestproxy.client.origin import ORIGIN, RAISED, Origin
from honestproxy.client.told import Record
from honestproxy.wire.sse import DONE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Scope

Head = tuple[int, list[tuple[bytes, bytes]]]
"""A reply's status and headers."""

_AHEAD: Final = 64  # parts of a reply that the application may be ahead of its reader
_GRACE: Final = 0.1  # seconds after the last event, for what the upstream sends behind it
_FAILS: Final = re.compile(rb'"code":"upstream_(timeout|broken|unreachable)"')


class InProcess:
    """The reply to one request: first its head, then its body as it comes.

    What a call to the model raised is raised again, where that is why there is no answer.
    """

    def __init__(self, app: ASGIApp, path: str, body: bytes, origin: Origin) -> None:
        self.record = Record()
        self._app = app
        self._scope = _scope(path, origin.request)
        self._request: Message | None = {"type": "http.request", "body": body}
        self._origin = origin
        self._head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._parts: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(_AHEAD)
        self._left = asyncio.Event()
        self._refused = False
        self._ended = False

    async def head(self) -> Head:
        """Begin, and wait for the reply's head."""
        self._task = asyncio.create_task(self._run())
        try:
            return await self._head
        except BaseException:
            self.leave()
            raise

    async def next(self) -> bytes | None:
        """What has come of the body since; None at its end."""
        part = await self._parts.get()
        if isinstance(part, Exception):
            raise part
        if part is not None:
            self.record.note(part)
            self._ended = part.rstrip().endswith(DONE)
        return part

    def leave(self) -> None:
        """The client is gone: every call of the turn ends."""
        if self._task.done():
            return
        with suppress(asyncio.QueueFull):  # who still waits for a part is told, too
            self._parts.put_nowait(None)
        if self._ended:
            # Clients leave at the last event, while the upstream's connection is still read to
            # its end, to be used again.
            asyncio.get_running_loop().call_later(_GRACE, self._end)
        else:
            self._end()

    def _end(self) -> None:
        self._left.set()
        self._task.cancel()

    async def _run(self) -> None:
        ORIGIN.set(self._origin)
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - a bug, which the caller sees as it is
            if self._head.done():
                await self._parts.put(error)
            else:
                self._head.set_exception(error)

    async def _receive(self) -> Message:
        if self._request is not None:
            request, self._request = self._request, None
            return request
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(message["status"], message["headers"])
        elif not self._refused:
            await self._pass_on(message.get("body", b""), more=message.get("more_body", False))

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        raised = dict(headers).get(RAISED.encode())
        self._refused = raised is not None
        if self._head.done():
            return
        if raised is not None:
            self._head.set_exception(self._origin.raised[int(raised)])
        else:
            self._head.set_result((status, headers))

    async def _pass_on(self, body: bytes, *, more: bool) -> None:
        if body:
            await self._parts.put(body if more else self._failure(body) or body)
        if not more:
            await self._parts.put(None)

    def _failure(self, last: bytes) -> Exception | None:
        """What a stream ends with, where that tells of an exception."""
        raised = self._origin.raised
        return raised[-1] if raised and _FAILS.search(last) else None


def _scope(path: str, request: Any) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": None,
        "server": None,
        "state": {},
    }
