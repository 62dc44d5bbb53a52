"""Connections to one upstream: made, kept while they are idle, and used again."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Final

import aiohappyeyeballs

from honestproxy.backends.http1 import Link

_IDLE: Final = 4.0  # Node and many others drop idle connections after 5 s; be first, or lose a POST
_KNOWN: Final = 10.0
"""Seconds for which a host's addresses are known."""
_STAGGER: Final = 0.25  # seconds before the next address of a name is tried (RFC 8305)


class Pool:
    """Connections to one host, of one event loop; those that are idle serve again."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self.loop = asyncio.get_running_loop()
        self._host, self._port, self._context = host, port, context
        self._links: set[Link] = set()
        self._idle: dict[Link, None] = {}
        """In the order of their use."""
        self._sweeping: asyncio.TimerHandle | None = None
        self._lookup: asyncio.Task[list[Any] | OSError] | None = None
        self._known: list[Any] = []
        self._known_until = 0.0

    def take(self) -> Link | None:
        """The connection that was used last, where one is idle; it is idle no more."""
        while self._idle:
            link, _ = self._idle.popitem()
            if link.is_open:
                return link
        return None

    async def made(self) -> Link:
        """A new connection. Raises OSError."""
        infos = await self._addresses()
        try:
            sock = await aiohappyeyeballs.start_connection(
                infos, happy_eyeballs_delay=_STAGGER, interleave=1, loop=self.loop
            )
            link = await self._linked(sock)
        except BaseException:
            self._known_until = 0.0  # perhaps the host is elsewhere by now
            raise
        self._links.add(link)
        return link

    async def _linked(self, sock: socket.socket) -> Link:
        name = self._host.rstrip(".") if self._context else None
        try:
            _, link = await self.loop.create_connection(
                lambda: Link(self), sock=sock, ssl=self._context, server_hostname=name
            )
        except BaseException:
            sock.close()
            raise
        return link

    def keep(self, link: Link) -> None:
        """It is idle now."""
        link.idle_since = self.loop.time()
        self._idle[link] = None
        if self._sweeping is None:
            self._sweeping = self.loop.call_later(_IDLE, self._sweep)

    def forget(self, link: Link) -> None:
        """It is closed."""
        self._links.discard(link)
        self._idle.pop(link, None)

    def close(self) -> None:
        """Close all."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for link in list(self._links):
            link.abort()
        self._idle.clear()

    def _sweep(self) -> None:
        """Close those that have been idle for long."""
        self._sweeping = None
        for link in list(self._idle):
            if (due := link.idle_since + _IDLE) > self.loop.time():
                self._sweeping = self.loop.call_at(due, self._sweep)
                return
            del self._idle[link]
            link.abort()

    async def _addresses(self) -> list[Any]:
        """Where the host is: looked up once for all that ask, and known for a while."""
        if self.loop.time() < self._known_until:
            return self._known
        if self._lookup is None:
            self._lookup = self.loop.create_task(self._looked_up())
        found = await asyncio.shield(self._lookup)
        if isinstance(found, OSError):  # for each its own: an error holds the frames on its way
            raise type(found)(*found.args)
        return found

    async def _looked_up(self) -> list[Any] | OSError:
        try:
            found = await self.loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except UnicodeError:
            return OSError("no host can have that name")
        except OSError as error:
            return error.with_traceback(None)
        finally:
            self._lookup = None
        self._known, self._known_until = list(found), self.loop.time() + _KNOWN
        return self._known
