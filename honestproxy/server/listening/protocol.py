"""HTTP/1.1 over httptools (llhttp, as Node has it), with limits, such that its end loses nothing.

A general server costs a request as much as all that the pipeline does under `raw`, so this one
does what is needed here: no TLS, no upgrades. https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, cast

import httptools
from starlette.types import ASGIApp

from honestproxy.errors import HeadTooLarge, HonestProxyError, InvalidRequest
from honestproxy.server.incoming import WHOLE, too_slow
from honestproxy.server.listening.cycle import Cycle, status_line
from honestproxy.server.listening.lines import address, is_readable, parts_of
from honestproxy.settings import Settings
from honestproxy.wire import reply

_PIPELINED: Final = 16
"""Requests of one connection that are read ahead of the one that is answered."""

_LINGER: Final = 1.0
"""Seconds that a client which was refused has to read why: closed at once, it might not."""

_SHORT: Final = 256
"""Bytes of a URL up to which what it says is remembered: most are of a few kinds."""

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


class Listening:
    """What the connections of one server share.

    `date` is the header of that name, its line end included, which the server keeps true.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Callable[[], Settings],
        refused: Callable[[HonestProxyError], None],
    ) -> None:
        self.app = app
        self.settings = settings
        self.refused = refused
        self.connections: set[Connection] = set()
        self.cycles: set[Cycle] = set()
        """Those that are answered."""
        self.date = b""


class Connection(asyncio.Protocol):
    """One client's connection: its requests, answered one after another.

    A head that is too large is refused (431), and one that doesn't come whole in time (408);
    `Listening.refused` is told of such answers. Bodies are for the application to limit. A client
    that leaves is noticed while it has sent further requests ahead, too. After `shutdown` each
    answer says that the connection closes, and one that is idle stays open until `hang_up`: its
    next request may be on its way.

    `is_lost`: the client is gone. `writable` is there while it takes no more, and done when it
    does again.
    """

    def __init__(self, listening: Listening) -> None:
        self.app = listening.app
        self.cycles = listening.cycles
        self.loop = asyncio.get_running_loop()
        self.is_lost = False
        self.writable: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport
        self._listening = listening
        self._parser = self._new_parser()
        self._cycle: Cycle | None = None
        """The request that came last, which is answered unless it waits for others."""
        self._answered: Cycle | None = None
        self._waiting: deque[Cycle] = deque()
        self._context = contextvars.copy_context()
        """Without what any request has set in its own."""
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._is_paused = False
        self._due: asyncio.TimerHandle | None = None
        self._is_coming = self._is_in_head = self._is_refused = self._is_ending = False
        self._since = self._head = 0
        self._idle_since = self.loop.time()

    @property
    def date(self) -> bytes:
        """The answer's date, as a line of its head."""
        return self._listening.date

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come, and should say something."""
        self.transport = cast("asyncio.Transport", transport)
        self._server, self._client = (
            address(transport, "sockname"),
            address(transport, "peername"),
        )
        self._listening.connections.add(self)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, also whoever is answered while others of its requests wait."""
        self.is_lost = True
        self._listening.connections.discard(self)
        self._no_longer_due()
        self.resume_writing()
        for cycle in (self._answered, self._cycle, *self._waiting):
            if cycle is not None:
                cycle.leave()
        # What is left must not hold one another: a full collection, which is rare, would have to
        # take it away. Requests under way hold this, and so does the parser.
        self._answered = self._cycle = None
        self._waiting.clear()
        del self._parser

    def data_received(self, data: bytes) -> None:
        """More of one request, or of several."""
        if self._is_refused:
            return
        size = len(data)
        self._since = self._since + size if self._is_coming else size
        if self._is_in_head:
            self._head += size
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._refuse(_cause(error))
            return
        if self._is_in_head and self._is_too_large(self._head):
            self._refuse(self._too_large())
        elif self._is_in_head or not (self._is_coming or self._is_busy):
            self._expect()

    def pause_writing(self) -> None:
        """The client doesn't read as fast as it is written to."""
        self.writable = self.loop.create_future()

    def resume_writing(self) -> None:
        """It does again, or is gone."""
        if self.writable is not None and not self.writable.done():
            self.writable.set_result(None)
        self.writable = None

    # What the parser says.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._no_longer_due()
        self._url, self._headers = b"", []
        self._is_coming = self._is_in_head = True
        self._head = 0

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come, or a trailer, which nobody asks for and which is only counted."""
        if not self._is_in_head:
            self._head += len(name) + len(value) + 4
            if self._is_too_large(self._head):
                raise self._too_large()  # to the parser, which comes back with it
            return
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """A request's head is whole: its work begins, or waits for those before it."""
        if self._parser.get_method() == b"CONNECT":
            raise InvalidRequest("nobody is connected elsewhere from here")  # to the parser
        if self._parser.should_upgrade():
            return  # its parser stops here, and another reads it again
        self._no_longer_due()
        if self._is_too_large(self._since):
            told = sum(len(name) + len(value) + 4 for name, value in self._headers)
            if self._is_too_large(told + len(self._url)):
                raise self._too_large()  # as above
        before, self._cycle = self._cycle, self._begun()
        self._is_in_head, self._head = False, 0
        if before is None or before.is_over:
            self._start(self._cycle)
        else:
            self.pause_reading()
            self._waiting.append(self._cycle)
            self._read_on(before)

    def on_body(self, body: bytes) -> None:
        """A part of the body, which nobody wants once the answer is sent."""
        if self._cycle is not None and not self._cycle.is_over:
            self._cycle.came(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._is_in_head:
            return  # it wishes for another protocol, as above
        self._is_coming = False
        self._no_longer_due()
        cycle = self._cycle
        assert cycle is not None  # noqa: S101 - its head has come
        cycle.scope[WHOLE] = True
        if not cycle.is_over:
            cycle.whole()

    # What an answer says.

    def answered(self, cycle: Cycle) -> None:
        """It has been sent: the next in turn is answered."""
        self._idle_since = self.loop.time()
        if not cycle.keep_alive:
            self._hang_up_gently()
            return
        if self.transport.is_closing():
            return
        if self._waiting:
            self._start(self._waiting.popleft())
        self.resume_reading()
        if self._is_coming:  # what is left of a body that nobody wants can't be waited for
            self._expect()

    def pause_reading(self) -> None:
        """Read no more for now."""
        if not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless too much waits already that isn't answered yet."""
        last = self._cycle
        waits = last is not None and last is not self._answered and last.is_full
        if self._is_paused and not waits and len(self._waiting) < _PIPELINED:
            self._is_paused = False
            self.transport.resume_reading()

    # What the server says.

    def shutdown(self) -> None:
        """From now on each answer says that it is the last; where that can be said no more, later.

        A client that reads the end of an answer may have sent its next request already.
        """
        self._is_ending = True
        cycle = self._cycle
        if cycle is None:
            self._idle_since = self.loop.time()
        elif not (cycle.is_over or cycle.is_begun):
            cycle.keep_alive = False

    def hang_up(self, idle: float) -> None:
        """At the end: close it if it has been idle for so many seconds, asked before or not."""
        if not self._is_ending:  # it came when no others could any more
            self.shutdown()
        self._close_if_idle(idle)

    def close_idle(self, idle: float) -> None:
        """Close it if nothing has come for so many seconds since an answer."""
        if self._cycle is not None:
            self._close_if_idle(idle)

    @property
    def _is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self._cycle is not None and not self._cycle.is_over

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _feed(self, data: bytes) -> None:
        """Read requests. Raises HttpParserError.

        Java's client wishes for HTTP/2 with its first request, whose body a parser leaves to that.
        None is spoken here but this, and whoever is asked may say nothing to such a wish
        (RFC 9110, section 7.8): so it is taken out, and the request read anew.
        """
        while data:
            try:
                self._parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
                self._parser = self._new_parser()

    def _without_upgrade(self) -> bytes:
        """The head of a request that wishes for another protocol, without that wish."""
        version = self._parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b\r\n" % (self._parser.get_method(), self._url, version)]
        for name, value in self._headers:
            if name == b"connection":
                kept = [one for one in value.split(b",") if one.strip().lower() != b"upgrade"]
                value = b",".join(kept)
            if name != b"upgrade":
                lines.append(b"%b: %b\r\n" % (name, value))
        return b"".join([*lines, b"\r\n"])

    def _begun(self) -> Cycle:
        """The request whose head has come."""
        version = self._parser.get_http_version()
        headers, self._headers = self._headers, []
        known = len(self._url) <= _SHORT
        path, raw_path, query = parts_of(self._url) if known else parts_of.__wrapped__(self._url)
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "root_path": "",
            "method": self._parser.get_method().decode("ascii"),
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "state": {},
        }
        keep_alive = version != "1.0" and self._parser.should_keep_alive()
        is_awaited = dict(headers).get(b"expect", b"").lower() == b"100-continue"
        is_awaited = is_awaited and version != "1.0"
        cycle = Cycle(self, scope, keep_alive=keep_alive, is_awaited=is_awaited)
        cycle.keep_alive = keep_alive and not self._is_ending
        return cycle

    def _start(self, cycle: Cycle) -> None:
        self._answered = cycle
        cycle.task = self.loop.create_task(cycle.run(), context=self._context.copy())
        self.cycles.add(cycle)

    def _close_if_idle(self, idle: float) -> None:
        is_idle = not (self._is_busy or self._is_coming)
        if is_idle and self.loop.time() - self._idle_since >= idle and not self._has_come():
            self.transport.close()

    def _read_on(self, before: Cycle) -> None:
        """Go on reading behind a request that waits, so that its client's leaving is noticed."""
        if self._is_ending and not before.is_begun:
            before.keep_alive = before.may_stay  # the one behind it says that it is the last
        self.resume_reading()

    def _is_too_large(self, size: int) -> bool:
        """Whether so many bytes are too many for a head."""
        return size > self._listening.settings().max_header_bytes

    def _too_large(self) -> HeadTooLarge:
        limit = self._listening.settings().max_header_bytes
        return HeadTooLarge(
            f"the request's head is over the limit of {limit} bytes (setting max_header_bytes)"
        )

    def _expect(self) -> None:
        """From now on it is counted how long the next request takes to come."""
        if self._due is None and not (self._is_refused or self.transport.is_closing()):
            seconds = self._listening.settings().body_timeout
            self._due = self.loop.call_later(seconds, self._overdue)

    def _overdue(self) -> None:
        self._due = None
        if self._is_paused:
            self._expect()  # it is not the client that we wait for
        elif self._is_in_head:
            self._refuse(too_slow(self._listening.settings().body_timeout))
        elif not self._is_busy and not self.transport.is_closing():
            self.transport.close()

    def _no_longer_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _refuse(self, error: HonestProxyError) -> None:
        """Answer in the application's place, and listen no more; answers before this one end."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._no_longer_due()
        last = self._cycle
        if last is None or last.is_over:
            self._tell(error)
        elif self._is_in_head or not self._is_coming:  # it is whole, and what follows isn't
            last.keep_alive = False
        elif last is not self._answered:  # its body is broken, and it waits for others
            self._waiting.remove(last)
            last.leave()
            before = self._waiting[-1] if self._waiting else self._answered
            if before is not None:
                before.keep_alive = False
        elif last.is_begun:  # it can't be told any more
            self.transport.close()
        else:
            last.leave()
            self._tell(error)

    def _tell(self, error: HonestProxyError) -> None:
        self._listening.refused(error)
        body = reply.error(error)
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        line = status_line(error.status) + head.encode()
        self.transport.write(line + b"connection: close\r\n\r\n" + body)
        self._hang_up_gently(in_any_case=True)

    def _hang_up_gently(self, *, in_any_case: bool = False) -> None:
        """Close the connection; where more may be coming, a moment later.

        A client that is still sending when it is closed may lose the answer that it has got.
        """
        self._no_longer_due()
        if not (self._is_coming or in_any_case):
            self.transport.close()
            return
        self._is_refused = True
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER, self.transport.close)

    def _has_come(self) -> bool:
        """Whether the kernel holds something that hasn't been read yet."""
        if self.transport.is_closing():
            return False
        found: socket.socket | None = self.transport.get_extra_info("socket")
        return found is not None and is_readable(found)


def _cause(error: httptools.HttpParserError) -> HonestProxyError:
    """What was raised while the parser was at work, or that this isn't HTTP."""
    below = error.__context__
    if isinstance(below, HonestProxyError):
        return below
    return InvalidRequest("what came is not an HTTP/1.1 request")
