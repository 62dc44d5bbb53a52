"""Workers of a cluster at their places: taken one by one, and replaced where they are lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from honestproxy.errors import EvaluationError, HonestProxyError
from honestproxy.ray.calls import Lost, answered
from honestproxy.ray.cluster import Reserved
from honestproxy.ray.worker import Plan, Versions, Worker

log = logging.getLogger(__name__)

_AGAIN_AFTER: Final = 1.0
"""Seconds before a worker that was lost is started again."""
_FALSE_STARTS: Final = 5
"""Workers lost at one place before they could be asked, after which a run without any ends."""
_NOBODY_FOR: Final = 120.0
"""Seconds without any worker after which a run ends."""
_CLOSED_WITHIN: Final = 5.0
"""Seconds that a worker has to let go of its upstreams at the end."""


@dataclass(eq=False, slots=True)
class Seat:
    """A worker at its place. `lost` is set once nobody should ask it any more."""

    actor: Any
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, method: str, *words: Any) -> Any:
        """What a method of the worker returns. Raises Lost, and what the method raises of ours."""
        try:
            return await answered(getattr(self.actor, method).remote(*words))
        except Lost:
            self.lost.set()
            raise


class Seats:
    """As many workers as there are nodes given, each asked so many things at once."""

    def __init__(
        self, ray: Any, plan: Plan, nodes: Sequence[str], each: int, reserved: Reserved
    ) -> None:
        self._ray = ray
        self._plan = plan
        self._nodes = nodes
        self._each = each
        self._reserved = reserved
        self._free: asyncio.Queue[Seat | HonestProxyError] = asyncio.Queue()
        self._begun: set[Seat] = set()
        self._seated: set[Seat] = set()
        self._closing = False
        self._keepers: list[asyncio.Task[None]] = []
        self._versions = Versions.of(plan.baggage.settings)

    async def __aenter__(self) -> Self:
        self._keepers = [asyncio.create_task(self._keep(node)) for node in self._nodes]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Workers end first, and with them what is asked of them: Ray's client minds a call that is
        # cancelled.
        self._closing = True
        await asyncio.gather(*(self._end(seat) for seat in list(self._begun)))
        _, going = await asyncio.wait(self._keepers, timeout=_CLOSED_WITHIN)
        for keeper in going:
            keeper.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[Seat]:
        """A worker that has room for one thing more, waited for. Raises EvaluationError."""
        seat = await self._next()
        try:
            yield seat
        finally:
            if not seat.lost.is_set():
                self._free.put_nowait(seat)

    async def _next(self) -> Seat:
        while True:
            try:
                async with asyncio.timeout(_NOBODY_FOR):
                    seat = await self._free.get()
            except TimeoutError:
                if self._seated:  # they are only busy
                    continue
                raise EvaluationError(
                    f"the cluster has had no worker for {_NOBODY_FOR:g} seconds; `ray status` "
                    "tells what it is short of"
                ) from None
            if isinstance(seat, HonestProxyError):
                self._free.put_nowait(seat)  # for whoever else waits
                raise seat
            if not seat.lost.is_set():
                return seat

    async def _keep(self, node: str) -> None:
        """A worker for one place, and another one whenever it is lost."""
        false_starts = 0
        try:
            while not self._closing:
                seat = Seat(self._started(node))
                self._begun.add(seat)
                try:
                    await self._serve(seat)
                except Lost as lost:
                    if self._closing:
                        return
                    false_starts = 0 if seat in self._seated else false_starts + 1
                    self._check_begun(false_starts, lost)
                finally:
                    await self._end(seat)
                await asyncio.sleep(_AGAIN_AFTER)
        except HonestProxyError as error:
            self._free.put_nowait(error)

    def _check_begun(self, false_starts: int, lost: Lost) -> None:
        log.warning("a worker is lost, and is started again: %s", lost)
        if false_starts >= _FALSE_STARTS and not self._seated:
            raise EvaluationError(
                f"no worker can begin: {lost}; RAY_AUTH_MODE, and the versions of Ray and Python, "
                "must be those of the cluster"
            )

    async def _serve(self, seat: Seat) -> None:
        """Let a worker be taken until it is lost. Raises Lost, EvaluationError."""
        self._check(await seat.ask("versions"))
        self._seated.add(seat)
        for _ in range(self._each):
            self._free.put_nowait(seat)
        await seat.lost.wait()
        raise Lost("it stopped answering")

    def _started(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        made = self._ray.remote(Worker).options(
            num_cpus=self._reserved.cpus,
            num_gpus=self._reserved.gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True),
        )
        return made.remote(self._plan)

    async def _end(self, seat: Seat) -> None:
        if seat not in self._begun:
            return
        self._begun.discard(seat)
        is_well = seat in self._seated and not seat.lost.is_set()
        self._seated.discard(seat)
        seat.lost.set()
        if is_well:
            with suppress(HonestProxyError, TimeoutError):
                async with asyncio.timeout(_CLOSED_WITHIN):
                    await seat.ask("close")
        self._ray.kill(seat.actor)

    def _check(self, theirs: Versions) -> None:
        ours = self._versions
        if theirs != ours:
            raise EvaluationError(
                f"a worker has {_told(theirs)}, and this machine {_told(ours)}: "
                "install the same honestproxy on every node"
            )


def _told(versions: Versions) -> str:
    made = f"honestproxy {versions.honestproxy} on Python {versions.python}"
    return f"{made} with prompts {versions.prompts}"
