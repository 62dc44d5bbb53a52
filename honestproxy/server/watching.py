"""Noticing that a client is gone."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

from starlette.types import Receive

from honestproxy import timers

_UNWATCHED: Final = 0.03
"""Seconds before anyone looks whether the client is still there: most answers are quicker."""


class Watched:
    """Ends its task's work as soon as the client is gone; `left` says that it was so.

    `receive` is only listened to here: what else it brings, a body perhaps, is dropped. With
    `at_once` the watch begins with the work, not after the moment in which most of it is done.
    """

    __slots__ = ("_at_once", "_receive", "_slot", "_task", "_watch", "left")

    def __init__(self, receive: Receive, *, at_once: bool = False) -> None:
        self._receive = receive
        self._at_once = at_once
        self.left = False
        self._slot: timers.Slot | None = None
        self._watch: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(loop)
        if self._at_once:
            self.ring()
        else:
            self._slot = timers.start(loop, _UNWATCHED, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> bool:
        if self._slot is not None:
            self._slot.discard(self)
        watch, self._watch = (
            self._watch,
            None,
        )  # how it ends would hold this, and this would hold it
        if watch is not None:
            watch.cancel()
        return self.left and kind is asyncio.CancelledError

    def ring(self) -> None:
        """Look from now on."""
        self._watch = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if self._task:
            self._task.cancel()
