"""HTTP/1.1 to one upstream: connections that are kept, requests written, answers read.

A general client costs a request more than all that is done here around it, so this is a small one,
over httptools (llhttp, as Node has it): no redirects, cookies, proxies or packed bodies.
https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, cast

import httptools
from multidict import CIMultiDict

from honestproxy.errors import InvalidRequest

if TYPE_CHECKING:
    from honestproxy.backends.pool import Pool

Body = bytes | AsyncIterable[bytes] | None

_LONGEST_HEAD: Final = 1 << 18
_HIGH: Final = 1 << 17
"""Bytes of an answer that wait for their reader before the upstream has to wait, too."""
_LARGE: Final = 1_000_000
_PIECE: Final = 1 << 16
_FORGET: Final = struct.pack("ii", 1, 0)  # SO_LINGER's: on, for no time


class NotHttp(ConnectionError):
    """What came is no HTTP/1.1 answer, or none to what was asked."""


class Lost(ConnectionError):
    """The connection was closed before the answer's end.

    `unseen`: it had been idle and was closed in good order before anything came, so that the
    upstream, as far as can be known, hasn't seen the request.
    """

    def __init__(self, why: Exception | None = None, *, unseen: bool = False) -> None:
        said = getattr(why, "strerror", None)
        super().__init__(said.lower() if said else "it closed the connection without an answer")
        self.unseen = unseen


class Answer:
    """An answer: `status` and `headers` are there once `begun` has returned, its body follows."""

    __slots__ = (
        "_loop",
        "_parts",
        "_waiter",
        "error",
        "headers",
        "is_whole",
        "link",
        "size",
        "status",
    )

    def __init__(self, link: Link) -> None:
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.link: Link | None = link
        """What it comes over; None once it has come whole, as the next may then."""
        self.is_whole = False
        self.error: Exception | None = None
        self.size = 0
        """Bytes that wait to be read."""
        self._parts: list[bytes] = []
        self._loop = link.loop
        self._waiter: asyncio.Future[None] | None = None

    async def begun(self) -> None:
        """Wait for the head. Raises ConnectionError where none comes."""
        while not self.status:
            await self._news()

    async def read(self) -> bytes:
        """What has come since, or comes next; empty at the end. Raises ConnectionError."""
        while not self._parts:
            if self.is_whole:
                return b""
            await self._news()
        parts, self._parts, self.size = self._parts, [], 0
        if self.link is not None:
            self.link.resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def came(self, part: bytes) -> None:
        """A part of the body has come."""
        self._parts.append(part)
        self.size += len(part)
        self.wake()

    def failed(self, error: Exception) -> None:
        """Nothing more will come."""
        self.error = self.error or error
        self.wake()

    def wake(self) -> None:
        """Let its reader look."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Let go of it; where more would have come, the connection ends."""
        if self.link is not None:
            self.link.abort()

    def _raise(self) -> NoReturn:
        # An error holds the frames that it came through: kept here, it would hold itself.
        assert self.error is not None  # noqa: S101 - whoever calls has looked
        error, self.error = self.error, Lost()
        try:
            raise error
        finally:
            del error

    async def _news(self) -> None:
        if self.error is not None:
            self._raise()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Link(asyncio.Protocol):
    """One connection, over which one request at a time is answered."""

    def __init__(self, pool: Pool) -> None:
        self.loop = pool.loop
        self._pool = pool
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(  # what other clients take, and some servers send
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._answer: Answer | None = None
        self._upload: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._in_head = self._is_large = self._is_paused = self._is_lost = False
        self._beside = 0  # bytes read since any of a body: of a head, a trailer, or of sizes
        self._without_body = False
        self._until_closed = False
        self.is_used = False
        """Whether it has carried an answer before."""
        self.idle_since = 0.0

    def ask(
        self, head: bytes, body: Body, *, size: int | None = None, without_body: bool = False
    ) -> Answer:
        """Send a request. `without_body`: the answer to a HEAD only tells of one.

        A body that comes piece by piece goes up while the answer may already come down, in chunks
        unless it is known to be of `size` bytes.
        """
        self._answer = answer = Answer(self)
        self._without_body = without_body
        self._in_head, self._beside, self._until_closed = True, 0, False
        self._is_large = not isinstance(body, bytes | None) or len(body or b"") > _PIECE
        if body is None:
            self._transport.write(head)
        elif isinstance(body, bytes) and len(body) <= _LARGE:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            size = len(body) if isinstance(body, bytes) else size
            self._upload = self.loop.create_task(self._uploaded(body, size))
        return answer

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return not (self._is_lost or self._transport.is_closing())

    def resume(self) -> None:
        """Let more come."""
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """End it at once: what is unsent is not sent, what is unread not read."""
        if self._is_large and (self._answer or self._upload):
            # Else the kernel holds what is sent until an upstream reads it that may never do so.
            with suppress(OSError):
                raw: socket.socket = self._transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _FORGET)
        if self._upload is not None:
            self._upload.cancel()
        self._is_lost, self._until_closed = True, False
        self._transport.abort()

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer have come; without a request they are none of ours."""
        answer = self._answer
        if answer is None:
            self.abort()
            return
        self._beside += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._broken(NotHttp("what came is not HTTP/1.1"))
            return
        if self._beside > _LONGEST_HEAD and not answer.is_whole:
            self._broken(NotHttp("a head or a trailer is too long"))
        elif answer.size > _HIGH and answer.link is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """The upstream says no more, which may be an answer's end, and is told no more either."""
        self._ended(None)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._ended(exc)
        self._is_lost = True
        self.resume_writing()
        self._pool.forget(self)
        if self._upload is not None:
            self._upload.cancel()
        del self._parser  # which holds this

    def pause_writing(self) -> None:
        """The upstream doesn't read as fast as it is written to."""
        self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        """It does again."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # What the parser says.

    def on_message_begin(self) -> None:
        """An answer begins; where nothing was asked, whoever sent it is not to be trusted."""
        if self._answer is None:
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come, or a trailer, which nobody asks for."""
        if self._in_head and self._answer is not None:
            value = value.rstrip(b" \t")
            self._answer.headers.add(name.decode("latin-1"), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """The head has come, if only of what is said ahead of an answer."""
        answer, status = self._answer, self._parser.get_status_code()
        if answer is None:
            return
        if 100 <= status < 200:
            answer.headers.clear()
            return
        if not 200 <= status < 600:
            raise NotHttp(f"there is no status {status}")  # to the parser, which comes back with it
        self._in_head, self._beside = False, 0
        answer.status = status
        headers = answer.headers
        coded = ",".join(headers.getall("transfer-encoding", ())).lower()
        is_chunked = coded.rpartition(",")[2].strip() == "chunked"
        self._until_closed = not (is_chunked or "content-length" in headers)
        if self._without_body:
            self._complete()  # its parser waits for one: it can't serve again
        else:
            answer.wake()

    def on_body(self, body: bytes) -> None:
        """A part of the body has come."""
        self._beside = 0
        if self._answer is not None:
            self._answer.came(body)

    def on_message_complete(self) -> None:
        """The answer is whole, unless it was only what is said ahead of it."""
        if not self._in_head and self._answer is not None:
            self._complete()

    def _complete(self) -> None:
        answer = self._answer
        assert answer is not None  # noqa: S101 - whoever calls has looked
        self._answer = answer.link = None
        answer.is_whole = True
        answer.wake()
        if self._is_lost:
            return
        self.resume()
        if self._upload or self._without_body or not self._parser.should_keep_alive():
            self.abort()
        else:
            self.is_used = True
            self._pool.keep(self)

    def _ended(self, why: Exception | None) -> None:
        """Nothing more comes: the answer is whole if that is how it ends, else it is lost."""
        answer = self._answer
        if answer is None:
            return
        # Whoever closes with an upload unread resets the connection, good as its answer may be.
        if self._until_closed and (why is None or self._upload):
            self._complete()
            return
        is_first = self._in_head and not self._beside
        unseen = is_first and self.is_used and not (why or self._upload or self._is_lost)
        answer.failed(Lost(why, unseen=unseen))
        self._answer = answer.link = None

    def _broken(self, error: Exception) -> None:
        if self._answer is not None:
            self._answer.failed(error)
        self.abort()

    async def _uploaded(self, body: bytes | AsyncIterable[bytes], size: int | None) -> None:
        write, sent = self._transport.write, 0
        wrong = "the body isn't as long as its content-length says"
        try:
            async for piece in _pieces(body) if isinstance(body, bytes) else body:
                if not piece:
                    continue  # an empty chunk would be the end
                sent += len(piece)
                if size is not None and sent > size:
                    raise InvalidRequest(wrong)
                if not self.is_open:
                    return
                write(piece if size is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
                if self._writable is not None:
                    await self._writable
            if size is None:
                write(b"0\r\n\r\n")
            elif sent != size:
                raise InvalidRequest(wrong)
            self._upload = None
        except Exception as error:  # noqa: BLE001 - whoever waits for the answer is told
            self._broken(error)


async def _pieces(body: bytes) -> AsyncIterable[bytes]:
    """A large body bit by bit: written in one go, it would hold all other requests up."""
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]
