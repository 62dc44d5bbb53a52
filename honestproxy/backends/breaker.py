"""Whether an upstream is asked at all: not while it is down."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Final

from honestproxy.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable

log = logging.getLogger(__name__)

_NOT_IMPLEMENTED: Final = 501
"""Says that a path is unknown, not that the upstream is down."""
_TICK: Final = 0.01
"""Seconds by which a deadline may fire early."""


class Breaker:
    """Leaves an upstream alone for some seconds after so many failures in a row.

    Then one call tries it, and one more each time as many seconds later, until one is answered.
    A call that fails counts only if none has been answered since it began: of many at once,
    those that hang end together, long after others have been answered.

    Of the libraries at hand, pybreaker holds a lock and knows no coroutines of asyncio's.
    purgatory does, but lets everything through at once when it tries again, takes a client that
    leaves for a failure, and sends an event through its message bus after each call. This one
    changes only between awaits, so that it needs no lock, and costs a comparison.
    """

    def __init__(self, name: str, failures: int, seconds: float) -> None:
        self._name = name
        self._most = failures or math.inf
        self._seconds = seconds
        self._failures = 0
        self._answered = 0
        self._last = 0
        self._until = 0.0
        self._is_tried = False

    @property
    def state(self) -> str:
        """`closed` where calls go through, `open` where none does, `half-open` where one tries."""
        if self._failures < self._most:
            return "closed"
        return "half-open" if self._is_tried or time.monotonic() >= self._until else "open"

    @property
    def lets_through(self) -> bool:
        """Whether a call may begin now."""
        return self._failures < self._most or time.monotonic() >= self._until

    def begin(self) -> int:
        """A call begins: what to say at its end. Raises UpstreamUnavailable where none may."""
        if self._failures < self._most:
            return self._answered
        left = self._until - time.monotonic()
        if left > 0:
            raise UpstreamUnavailable(
                f"upstream {self._name!r} has failed {self._failures} times in a row, last with "
                f"{self._last}, and is left alone; ask again in {math.ceil(left)} s",
                headers={"retry-after": str(math.ceil(left))},
            )
        self._is_tried, self._until = True, time.monotonic() + self._seconds
        return self._answered

    def succeeded(self) -> None:
        """The upstream has answered."""
        self._failures = 0
        self._answered += 1

    def failed(self, status: int, begun: int) -> None:
        """It hasn't, or only to say that it can't."""
        if begun != self._answered:
            return
        self._failures, self._last = self._failures + 1, status
        if self._failures == self._most or (self._is_tried and self._failures > self._most):
            self._is_tried, self._until = False, time.monotonic() + self._seconds
            log.warning("upstream %s is left alone for %g s", self._name, self._seconds)

    def judge(self, error: BaseException, deadline: float | None, begun: int) -> None:
        """Enter what became of a call: its own refusals (4xx) and clients that leave don't count.

        A call that is cancelled at its `deadline` has come to nothing in all that time.
        """
        if isinstance(error, UpstreamError):
            self.answered(error.status, begun)
        elif isinstance(error, asyncio.CancelledError) and _is_past(deadline):
            self.failed(UpstreamTimeout.status, begun)

    def answered(self, status: int, begun: int) -> None:
        """It has answered with this status."""
        if status >= 500 and status != _NOT_IMPLEMENTED:
            self.failed(status, begun)
        else:
            self.succeeded()


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and asyncio.get_running_loop().time() >= deadline - _TICK
