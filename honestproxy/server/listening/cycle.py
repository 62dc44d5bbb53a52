"""One request and its answer, as ASGI has them, between a connection and the application.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.types import Message, Scope

from honestproxy.server.answering import bug, send_json
from honestproxy.wire import reply

if TYPE_CHECKING:
    from honestproxy.server.listening.protocol import Connection

log = logging.getLogger(__name__)

_AHEAD: Final = 65536
"""Bytes of a body that wait to be received before no more are read."""

_GO_ON: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODILESS: Final = (204, 304)
_UNTIL_CLOSED: Final = -1
_CONTROLS: Final = bytes({*range(32), 127} - {*b"\t\r\n"})
"""What no header may hold; line ends are counted."""


def status_line(status: int) -> bytes:
    """The first line of an answer, its line end included."""
    known = status in HTTPStatus.__members__.values()
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase if known else ''}\r\n".encode()


_LINES: Final = {status: status_line(status) for status in range(200, 600)}


class Cycle:
    """One request and its answer.

    `is_begun`: the answer's head is sent; `is_over`: all of it. `is_gone`: nobody is there for
    it any more. `keep_alive`: the connection serves again after it, which `may_stay` says of the
    request alone. `task` is there once it is its turn, and `is_running` once it has begun.
    """

    __slots__ = (
        *("_body", "_connection", "_held", "_is_awaited", "_is_bodiless", "_left", "_more"),
        *("_news", "_size", "_waiting", "is_begun", "is_gone", "is_over", "is_running"),
        *("keep_alive", "may_stay", "scope", "task"),
    )

    def __init__(
        self, connection: Connection, scope: Scope, *, keep_alive: bool, is_awaited: bool
    ) -> None:
        self.scope = scope
        self.task: asyncio.Task[None] | None = None
        self.keep_alive = self.may_stay = keep_alive
        self.is_begun = self.is_over = self.is_gone = self.is_running = False
        self._connection = connection
        self._is_awaited = is_awaited
        self._body: list[bytes] = []
        self._size = 0
        self._more, self._news = True, False
        self._waiting: asyncio.Event | None = None
        self._held = b""
        self._is_bodiless = scope["method"] == "HEAD"
        self._left: int | None = None  # bytes of the answer that are still owed; None: in chunks

    async def run(self) -> None:
        """Let the application answer; what it leaves undone is told, or broken off."""
        self.is_running = True
        try:
            await self._connection.app(self.scope, self.receive, self.send)
            if not (self.is_over or self.is_gone):
                log.error("a request was left without an answer, or without the end of it")
                await self._fail()
        except asyncio.CancelledError:
            self._break_off()
        except Exception:
            log.exception("a request failed")
            await self._fail()
        finally:
            self._connection.cycles.discard(self)

    async def receive(self) -> Message:
        """More of the body, or that the client is gone or has its answer."""
        connection = self._connection
        if self._is_awaited and not connection.transport.is_closing():
            self._is_awaited = False
            connection.transport.write(_GO_ON)
        if not (self._news or self.is_over or self.is_gone):
            connection.resume_reading()
            self._waiting = waiting = self._waiting or asyncio.Event()
            await waiting.wait()
            waiting.clear()
        self._news = False
        if self.is_over or self.is_gone:
            return {"type": "http.disconnect"}
        parts, self._body, self._size = self._body, [], 0
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return {"type": "http.request", "body": body, "more_body": self._more}

    async def send(self, message: Message) -> None:
        """The answer's head, or more of its body. Raises RuntimeError where that can't follow."""
        connection = self._connection
        while connection.writable is not None:
            await asyncio.shield(connection.writable)  # others may wait for it, too
        if self.is_gone:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.is_begun:
            self._begin(message["status"], list(message.get("headers", ())))
        elif kind == "http.response.body" and self.is_begun and not self.is_over:
            self._go_on(message.get("body", b""), is_last=not message.get("more_body"))
        else:
            raise RuntimeError(f"{kind!r} can't be sent at this point of an answer")

    @property
    def is_full(self) -> bool:
        """Whether so much of its body waits to be received that no more should be read."""
        return self._size > _AHEAD

    def came(self, part: bytes) -> None:
        """A part of the body has come."""
        self._body.append(part)
        self._size += len(part)
        if self.is_full:
            self._connection.pause_reading()
        self.tell()

    def whole(self) -> None:
        """The body's end has come."""
        self._more = False
        self.tell()

    def leave(self) -> None:
        """Nobody is there for it any more: what is sent from now on goes nowhere."""
        self.is_gone = True
        self._held = b""
        self.tell()

    def tell(self) -> None:
        """Let whoever receives look: more has come, or the client is gone."""
        self._news = True
        if self._waiting is not None:
            self._waiting.set()

    def _begin(self, status: int, headers: Collection[tuple[bytes, bytes]]) -> None:
        """Make the head; it is sent with the beginning of the body, or as the loop goes round.

        Each write is a system call and a packet: together they are most of a short answer's cost.
        """
        told = dict(headers)
        is_bodiless, left = self._is_bodiless or status in _BODILESS, None
        keep_alive = self.keep_alive and b"close" not in told.get(b"connection", b"").lower()
        lines = [_LINES.get(status) or status_line(status), self._connection.date]
        lines += [b"%b: %b\r\n" % (name, value) for name, value in headers]
        if b"content-length" in told:
            left = int(told[b"content-length"])
        elif not is_bodiless and self.scope["http_version"] != "1.1":
            keep_alive, left = False, _UNTIL_CLOSED
        elif not is_bodiless and b"transfer-encoding" not in told:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not keep_alive and b"connection" not in told:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        if not head.count(b"\r") == head.count(b"\n") == len(lines) or _is_odd(head):
            raise RuntimeError("a header of the answer holds characters that none can carry")
        self.keep_alive, self._is_bodiless, self._left = keep_alive, is_bodiless, left
        self._held, self.is_begun, self._is_awaited = head, True, False
        self._connection.loop.call_soon(self._flush)

    def _go_on(self, body: bytes, *, is_last: bool) -> None:
        if self._is_bodiless:
            body = b""
        elif self._left is None:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body += b"0\r\n\r\n" if is_last else b""
        elif self._left != _UNTIL_CLOSED:
            self._left -= len(body)
            if self._left < 0 or (is_last and self._left):
                raise RuntimeError("the answer isn't as long as its content-length says")
        if self._held and len(body) <= _AHEAD:
            body, self._held = self._held + body, b""
        self._flush()
        if body:
            self._connection.transport.write(body)
        if is_last:
            self.is_over = True
            self.tell()
            self._connection.answered(self)

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self._connection.transport.is_closing():
            self._connection.transport.write(held)

    async def _fail(self) -> None:
        """Tell of a mistake of ours, or break off what has begun."""
        if self.is_begun:
            self._break_off()
        else:
            await send_json(self.send, bug().status, reply.error(bug()), {"connection": "close"})

    def _break_off(self) -> None:
        """End the connection, unless the answer is whole: then that is for others by now."""
        if not self.is_over:
            self._flush()
            self._connection.transport.close()


def _is_odd(head: bytes) -> bool:
    return len(head.translate(None, _CONTROLS)) != len(head)
