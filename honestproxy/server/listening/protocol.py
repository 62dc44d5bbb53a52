"""HTTP/1.1 as uvicorn speaks it, with limits, and such that its end loses no request."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from honestproxy.errors import HeadTooLarge, HonestProxyError, InvalidRequest
from honestproxy.server.incoming import WHOLE, too_slow
from honestproxy.server.listening.corked import Corked
from honestproxy.settings import Settings
from honestproxy.wire import reply

_PIPELINED: Final = 16
"""Requests of one connection that are read ahead of the one that is answered."""

_LINGER: Final = 1.0
"""Seconds that a client which was refused has to read why: closed at once, it might not."""


class Connection(HttpToolsProtocol):
    """One client's connection.

    A head that is too large is refused (431), and one that doesn't come whole in time (408);
    `refused` is told of such answers. Bodies are for the application to limit. A client that
    leaves is noticed while it has sent further requests ahead, too. After `shutdown` each answer
    says that the connection closes, and one that is idle stays open until `hang_up`: its next
    request may be on its way.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        refused: Callable[[HonestProxyError], None],
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self._settings = settings
        self._count = refused
        self._answered: RequestResponseCycle | None = None
        self._due: asyncio.TimerHandle | None = None
        self._is_coming = self._is_in_head = self._is_refused = self._is_ending = False
        self._since = self._head = 0
        self._idle_since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come, and should say something."""
        super().connection_made(transport)
        self.transport = self._corked = Corked(transport, self.loop)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left; also whoever is answered while others of its requests wait."""
        super().connection_lost(exc)
        self._no_longer_due()
        answered = self._answered
        if answered is not None and not answered.response_complete:
            answered.disconnected = True
            answered.message_event.set()

    def data_received(self, data: bytes) -> None:
        """More of one request, or of several."""
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
        size = len(data)
        self._since = self._since + size if self._is_coming else size
        if self._is_in_head:
            self._head += size
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # to nothing that is spoken here: the request is answered as it is
        except httptools.HttpParserError as error:
            self._refuse(_cause(error))
            return
        if self._is_in_head:
            self._check_head(self._head)
        if self._is_in_head or not (self._is_coming or self._is_busy):
            self._expect()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._is_coming = self._is_in_head = True
        self._head = 0

    def on_headers_complete(self) -> None:
        """A request's head is whole: its work begins, or waits for those before it."""
        self._is_in_head = False
        self._no_longer_due()
        if self._since > self._settings().max_header_bytes:
            told = sum(len(name) + len(value) + 4 for name, value in self.headers)
            self._check_head(told + len(self.url))
        before = self.cycle
        super().on_headers_complete()
        if self._is_ending:
            self.cycle.keep_alive = False
        if self.cycle is not before and before is not None and not before.response_complete:
            self._read_on(before)

    def on_message_complete(self) -> None:
        """The request is whole."""
        super().on_message_complete()
        self._is_coming = False
        self.scope[WHOLE] = True  # type: ignore[typeddict-unknown-key]

    def on_response_complete(self) -> None:
        """An answer has been sent."""
        self._idle_since = self.loop.time()
        super().on_response_complete()
        if self._is_coming:  # what is left of a body that nobody wants can't be waited for
            self._expect()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, idle for long, unless its next request has come just now."""
        if not self._has_come():
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """From now on each answer says that it is the last; where that can be said no more, later.

        A client that reads the end of an answer may have sent its next request already.
        """
        self._is_ending = True
        if self.cycle is None:
            self._idle_since = self.loop.time()
        if self._is_busy and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def hang_up(self, idle: float) -> None:
        """Close the connection if it has been idle for so many seconds, and nothing has come."""
        if not self._is_ending:  # it came when no others could any more
            self.shutdown()
        is_idle = not self._is_busy and not self._is_coming
        if is_idle and self.loop.time() - self._idle_since >= idle and not self._has_come():
            self.transport.close()

    @property
    def _is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        self._corked.cork()
        super()._start_asgi_task(cycle, app)

    def _read_on(self, before: RequestResponseCycle) -> None:
        """Go on reading behind a request that waits, so that its client's leaving is noticed."""
        if self._is_ending and not before.response_started:
            before.keep_alive = True  # the one behind it says that it is the last
        if len(self.pipeline) < _PIPELINED:
            self.flow.resume_reading()

    def _check_head(self, size: int) -> None:
        limit = self._settings().max_header_bytes
        if size <= limit:
            return
        error = HeadTooLarge(
            f"the request's head is over the limit of {limit} bytes (setting max_header_bytes)"
        )
        if not self._is_in_head:
            raise error  # to the parser, which comes back with it
        self._refuse(error)

    def _expect(self) -> None:
        """From now on it is counted how long the next request takes to come."""
        if self._due is None and not self.transport.is_closing():
            self._due = self.loop.call_later(self._settings().body_timeout, self._overdue)

    def _overdue(self) -> None:
        self._due = None
        if self._is_in_head:
            self._refuse(too_slow(self._settings().body_timeout))
        elif not self._is_busy and not self.transport.is_closing():
            self.transport.close()

    def _no_longer_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _refuse(self, error: HonestProxyError) -> None:
        """Answer in the application's place, and listen no more; answers before this one end."""
        self._is_refused = True
        self._no_longer_due()
        if self._is_busy:
            self.cycle.keep_alive = False
            return
        self._count(error)
        body = reply.error(error)
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        line = STATUS_LINE[error.status] + head.encode()
        self.transport.write(line + b"connection: close\r\n\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER, self.transport.close)

    def _has_come(self) -> bool:
        """Whether the kernel holds something that hasn't been read yet."""
        if self.transport.is_closing():
            return False
        found: socket.socket | None = self.transport.get_extra_info("socket")
        return found is not None and is_readable(found)


def is_readable(of: socket.socket) -> bool:
    """Whether a socket has something to read, or to accept, right now."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([of], [], [], 0)[0])
    poll = select.poll()
    poll.register(of.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _cause(error: httptools.HttpParserError) -> HonestProxyError:
    """What was raised while the parser was at work, or that this isn't HTTP."""
    below = error.__context__
    if isinstance(below, HonestProxyError):
        return below
    return InvalidRequest("what came is not an HTTP/1.1 request")
