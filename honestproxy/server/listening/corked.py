"""An answer's head and the beginning of its body in one write, which the framework makes in two."""

from __future__ import annotations

import asyncio
from typing import Any


class Corked(asyncio.Transport):
    """A transport that keeps what is written first until more comes, or the loop goes round.

    Each write is a system call and a packet: together they are most of what a short answer costs.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held = b""
        self._is_corked = False

    def cork(self) -> None:
        """Keep what is written next for a moment."""
        self._is_corked = True

    def write(self, data: Any) -> None:
        """Write it, behind what is held; hold it, if it is a beginning."""
        if self._is_corked:
            self._is_corked = False
            self._held += data
            self._loop.call_soon(self._flush)
        elif self._held:
            whole, self._held = self._held + data, b""
            self._transport.write(whole)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close it once all is written."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close it now."""
        self._held = b""
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is being closed."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the transport knows."""
        return self._transport.get_extra_info(name, default)

    def can_write_eof(self) -> bool:
        """Whether its end can be told before it is closed."""
        return self._transport.can_write_eof()

    def write_eof(self) -> None:
        """Tell that no more will be written."""
        self._flush()
        self._transport.write_eof()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)
