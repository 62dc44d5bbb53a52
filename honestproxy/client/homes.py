"""The event loops in which an HTTP client is used, so that none comes upon another's connections.

httpx keeps idle connections without regard to loops. One of a loop that has ended still takes a
request; only the answer can't be read, and whoever sends it again has the model asked twice.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

_WRAPPED: Final = 8  # transports around transports, at most


class Homes:
    """The loops that may have connections in an asynchronous HTTP client."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def settle(self) -> None:
        """Close what idles in the client, unless only the running loop can have left it."""
        here = asyncio.get_running_loop()
        if len(self._loops) == 1 and self._loops[0]() is here:
            return
        others = [home for home in self._loops if _is_other(home(), here)]
        for connection in _idle(self._client):
            with suppress(Exception):  # what is left of it goes with its loop
                await connection.aclose()
        # Only now: a call that begins meanwhile must not take one of those that are left.
        self._loops = [weakref.ref(here), *others]


def _is_other(loop: asyncio.AbstractEventLoop | None, here: asyncio.AbstractEventLoop) -> bool:
    """Whether it is another loop, and can still leave connections behind."""
    return loop is not None and loop is not here and not loop.is_closed()


def _idle(client: Any) -> list[Any]:
    """The client's connections that nobody uses, where its transports are the library's own."""
    transports = (client._transport, *client._mounts.values())  # a proxy has one of its own
    pools = [pool for transport in transports for pool in _pools(transport)]
    return [found for pool in pools for found in pool.connections if found.is_idle()]


def _pools(transport: Any, depth: int = 0) -> Iterator[Any]:
    """The pools of connections in a transport, or in those that it wraps."""
    if hasattr(transport, "create_connection"):
        yield transport
    elif depth < _WRAPPED:
        for part in getattr(transport, "__dict__", {}).values():
            if hasattr(part, "handle_async_request"):
                yield from _pools(part, depth + 1)
