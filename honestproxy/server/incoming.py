"""Bodies on their way in: held whole to be read, or passed on as they come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Final

from starlette.types import Message, Receive, Scope

from honestproxy.errors import InvalidRequest, TooLarge, TooSlow
from honestproxy.server.access.usage import Overheard
from honestproxy.settings import Settings

WHOLE: Final = "honestproxy.whole"
"""In the scope of a request whose body had come whole before its work began."""

LARGE: Final = 1_000_000
"""Bytes beyond which a body is worked on in a thread: it would hold all others up."""

_AHEAD: Final = 1_000_000
"""Bytes that are read of an upload beyond what its upstream has taken, while it takes some."""

_STALLED: Final = 0.25
"""Seconds without that, after which as much is read as a JSON body may have."""


def headers_of(scope: Scope) -> dict[str, str]:
    """The request's headers by their lower-case names; of one that is repeated, the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def json_body(scope: Scope, receive: Receive, headers: Mapping[str, str]) -> bytes:
    """The request's body.

    Raises InvalidRequest where it isn't JSON by its type, too large, or too slow to come.
    """
    settings: Settings = scope["service"].settings
    limit, seconds = settings.max_body_bytes, settings.body_timeout
    kind = headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind.lower() != "application/json":
        raise InvalidRequest(f"send application/json, not {kind}", status=415)
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)
    if WHOLE in scope:  # needs no timer, which costs more than the reading
        parts = await _parts(receive, limit)
    else:
        try:
            async with asyncio.timeout(seconds):
                parts = await _parts(receive, limit)
        except TimeoutError:
            raise too_slow(seconds) from None
    if len(parts) == 1:
        return parts[0]
    size = sum(map(len, parts))
    return await asyncio.to_thread(b"".join, parts) if size > LARGE else b"".join(parts)


class Upload:
    """A body that is passed on as it comes, read some way ahead of its upstream.

    So a client's leaving is noticed even while the upstream reads nothing: let `receive` be
    watched. Leaving comes behind all that was sent before; where that is more than a JSON body
    may have, it waits for the upstream. `is_overdue`: the rest of the body doesn't come.
    """

    def __init__(self, scope: Scope, receive: Receive, headers: dict[str, str]) -> None:
        self.headers = headers
        self.overheard: Overheard | None = None
        self.is_overdue = self._is_broken_off = False
        self._scope = scope
        self._receive = receive
        settings: Settings = scope["service"].settings
        self._patience, self._most = settings.body_timeout, settings.max_body_bytes
        length = self.headers.get("content-length", "0")
        self.is_coming = self._is_there = "transfer-encoding" in self.headers or length != "0"
        self._ahead: deque[bytes] = deque()
        self._size = 0
        self._taken_at = 0.0
        self._news, self._room = asyncio.Event(), asyncio.Event()

    async def whole(self) -> bytes:
        """All of it, where it is JSON. Raises InvalidRequest where it isn't, or is too large."""
        body = b""
        if self.is_coming:
            body = await json_body(self._scope, self._receive, self.headers)
        self.is_coming = False
        return body

    def hold(self, body: bytes) -> bytes:
        """Send this in the place of what came."""
        self._is_there = bool(body)
        self._take_in(body)
        self.headers["content-length"] = str(len(body))
        self.headers.pop("transfer-encoding", None)
        return body

    async def begin(self) -> None:
        """Read the first of it: most bodies are whole then."""
        if not self.is_coming:
            return
        if (await self.receive())["type"] == "http.disconnect":
            raise _left()
        self.check()

    def check(self) -> None:
        """Raise InvalidRequest where the rest of the body won't come: what is there isn't all."""
        if self._is_broken_off:
            raise _left()
        if self.is_overdue:
            raise too_slow(self._patience)

    def body(self) -> AsyncGenerator[bytes, None] | bytes | None:
        """All of it where it has come, else its parts as they come; None where there is none.

        Raises what `check` raises.
        """
        self.check()
        if self.is_coming:
            return self._parts()
        return b"".join(self._ahead) if self._is_there else None

    async def receive(self) -> Message:
        """The client's next event: a part of the body, which is taken in, or its leaving."""
        if not self.is_coming:
            return await self._receive()
        await self._until_wanted()
        message: Message = {"type": "http.request", "body": b"", "more_body": False}
        try:
            async with asyncio.timeout(self._patience):
                message = dict(await self._receive())
        except TimeoutError:
            self.is_overdue = True
        if message["type"] == "http.disconnect":
            self._is_broken_off = True
        self.is_coming = message.get("more_body", False)
        self._take_in(message.get("body", b""))
        return message

    async def _until_wanted(self) -> None:
        """Wait while enough has been read ahead."""
        clock = asyncio.get_running_loop().time
        while self._size > _AHEAD:
            if self._size <= self._most and clock() - self._taken_at >= _STALLED:
                return
            self._room.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_STALLED):
                    await self._room.wait()

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        clock = asyncio.get_running_loop().time
        while True:
            while self._ahead:
                part = self._ahead.popleft()
                self._size -= len(part)
                self._taken_at = clock()
                self._room.set()
                yield part
            self.check()
            if not self.is_coming:
                return
            self._news.clear()
            await self._news.wait()

    def _take_in(self, part: bytes) -> None:
        if part:
            self._ahead.append(part)
            self._size += len(part)
            if self.overheard is not None and "json" in self.headers.get("content-type", ""):
                self.overheard.asked += len(part)
        self._news.set()


async def _parts(receive: Receive, limit: int) -> list[bytes]:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _left()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return parts


def _left() -> InvalidRequest:
    return InvalidRequest("the client left before its request was complete", status=499)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the request body is over the limit of {limit} bytes (setting max_body_bytes)")


def too_slow(seconds: float) -> TooSlow:
    """What a request is told that doesn't come whole, or stands still on its way, for so long."""
    message = f"the request didn't come within {seconds:g} s (setting body_timeout)"
    return TooSlow(message, headers={"connection": "close"})
