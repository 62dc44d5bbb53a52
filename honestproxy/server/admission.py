"""How many requests are answered at once, who waits, and who is turned away."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from types import TracebackType
from typing import Final

from starlette.types import Receive, Scope

from honestproxy.errors import HonestProxyError, InvalidRequest, Overloaded, Stopping
from honestproxy.server.access.caller import Caller
from honestproxy.server.watching import Watched
from honestproxy.settings import Settings

_RATED_OVER: Final = (2.0, 20.0)
"""Seconds over which it is counted how fast places come free: no fewer, and no more."""

_LONGEST: Final = 60
"""Seconds that a client is told to stay away at most."""


class Admission:
    """Places for requests: so many at once, the rest in a fair queue or turned away.

    It outlives its settings: `adopt` sets other limits, and all who are here stay. `busy` and
    `waiting` say how many are answered and how many wait, `shed` how many were turned away.
    `ended`: the server is cutting off whatever is left.
    """

    def __init__(self, settings: Settings) -> None:
        self.busy = self.waiting = self.shed = 0
        self.ended = False
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self._served = _Rate()
        self.adopt(settings)

    def adopt(self, settings: Settings) -> None:
        """Go on under the limits of these settings."""
        self._settings = settings
        self._places = settings.max_concurrency
        while self.waiting and self.busy < self._places:
            self.busy += 1
            self._pass_on()

    def place(self, caller: Caller, scope: Scope, receive: Receive) -> Place:
        """A place for one request, to be entered; `receive` tells that its client has left.

        Entering raises Overloaded where there is none in time, Stopping at the very end, and
        InvalidRequest where the client leaves.
        """
        return Place(self, caller, scope, receive)

    @property
    def pressure(self) -> float:
        """How full the queue is: 0 where nobody waits, 1 where nobody else may."""
        most = max(1, self._settings.max_queue)  # a reload may leave fewer than wait already
        return min(1.0, self.waiting / most)

    def end(self) -> None:
        """Tell whoever waits that the server cuts them off."""
        self.ended = True
        while self._queues:
            self._next().refuse(stopping())

    def enter(self) -> bool:
        """Take a place that is free, if there is one."""
        if self.busy >= self._places or self.waiting:
            return False
        self.busy += 1
        return True

    def leave(self) -> None:
        """Give a place back: it goes to whoever has come first of the caller whose turn it is."""
        self._served.count += 1
        if self.waiting and self.busy <= self._places:
            self._pass_on()
        else:
            self.busy -= 1

    async def wait(self, who: str, receive: Receive) -> None:
        """Wait for a place; raises what `place` says."""
        waiter = self._queued(who)
        seconds = self._settings.queue_timeout
        timer = asyncio.get_running_loop().call_later(seconds, self._expire, waiter, seconds)
        admitted = False
        try:
            with Watched(receive) as watched:
                await waiter.turn
                admitted = True
        finally:
            timer.cancel()
            if not admitted:
                self._give_up(waiter)
        if watched.left:
            raise InvalidRequest("the client left before its request had a place", status=499)

    def _queued(self, who: str) -> _Waiter:
        self._served.take()
        if self.ended:
            raise stopping()
        if self.waiting >= self._settings.max_queue:
            self._make_room(who)
        waiter = _Waiter(who)
        self._queues.setdefault(who, deque()).append(waiter)
        self.waiting += 1
        return waiter

    def _make_room(self, who: str) -> None:
        """Turn away one of the caller that has most in the full queue: its last, or this one."""
        self.shed += 1
        sizes = {name: len(queue) for name, queue in self._queues.items()}
        most = max(sizes, key=sizes.__getitem__, default=who)
        full = self._overloaded("its queue is full (settings max_concurrency, max_queue)")
        if sizes.get(most, 0) <= sizes.get(who, 0) + 1:
            raise full
        last = self._queues[most][-1]
        self._remove(last)
        last.refuse(full)

    def _expire(self, waiter: _Waiter, seconds: float) -> None:
        if not waiter.turn.done():
            self.shed += 1
            self._remove(waiter)
            waiter.refuse(self._overloaded(f"none came free in {seconds:g} s"))

    def _give_up(self, waiter: _Waiter) -> None:
        """Let go of what a waiter has: a place that it was just given, or its turn."""
        if waiter.is_admitted:
            self.leave()
        else:
            self._remove(waiter)

    def _remove(self, waiter: _Waiter) -> None:
        queue = self._queues.get(waiter.who, ())
        if queue and waiter in queue:
            queue.remove(waiter)
            self.waiting -= 1
            if not queue:
                del self._queues[waiter.who]

    def _pass_on(self) -> None:
        """Give a place that has come free to the next in turn; let it be free if nobody is."""
        while self._queues:
            waiter = self._next()
            if not waiter.turn.done():  # it may have been cancelled just now
                waiter.turn.set_result(None)
                return
        self.busy -= 1

    def _next(self) -> _Waiter:
        """The next in turn, out of the queue: callers take turns, each one's requests in order."""
        who, queue = self._queues.popitem(last=False)
        self.waiting -= 1
        waiter = queue.popleft()
        if queue:
            self._queues[who] = queue
        return waiter

    def _overloaded(self, why: str) -> Overloaded:
        headers = {"retry-after": str(self._served.seconds_for(self.waiting))}
        return Overloaded(f"honestproxy has no free place, and {why}; try later", headers=headers)


class Place:
    """One request's place, while it is entered."""

    __slots__ = ("_admission", "_caller", "_receive", "_scope")

    def __init__(
        self, admission: Admission, caller: Caller, scope: Scope, receive: Receive
    ) -> None:
        self._admission = admission
        self._caller = caller
        self._scope = scope
        self._receive = receive

    async def __aenter__(self) -> None:
        """Take it, or wait for it."""
        if not self._admission.enter():
            await self._admission.wait(self._who(), self._receive)

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        """Give it back."""
        self._admission.leave()

    def _who(self) -> str:
        """Whose turn it takes: its key's, else its client's address."""
        client = self._scope.get("client")
        return self._caller.id or (client[0] if client else "")


class _Waiter:
    """A request in the queue."""

    __slots__ = ("turn", "who")

    def __init__(self, who: str) -> None:
        self.who = who
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_admitted(self) -> bool:
        turn = self.turn
        return turn.done() and not turn.cancelled() and turn.exception() is None

    def refuse(self, error: HonestProxyError) -> None:
        if not self.turn.done():
            self.turn.set_exception(error)


class _Rate:
    """How fast requests have been served of late."""

    def __init__(self) -> None:
        self.count = 0
        self._before, self._at, self._rate = 0, time.monotonic(), 0.0

    def take(self) -> None:
        """Look at the clock, so that what is said later is of late."""
        now = time.monotonic()
        shortest, longest = _RATED_OVER
        if (seconds := now - self._at) >= shortest:
            self._rate = (self.count - self._before) / seconds if seconds <= longest else 0.0
            self._before, self._at = self.count, now

    def seconds_for(self, many: int) -> int:
        """How long as many more will take, in whole seconds; 1 where that isn't known."""
        return max(1, min(_LONGEST, math.ceil(many / self._rate))) if self._rate else 1


def stopping() -> Stopping:
    """What a request is told that is cut off at the server's end."""
    message = "honestproxy is being stopped, and this request wasn't done in time; send it again"
    return Stopping(message, headers={"retry-after": "1"})
