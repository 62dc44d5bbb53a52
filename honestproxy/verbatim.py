"""A turn that only passes on: the upstream's answer, byte for byte."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Any

from honestproxy.call import Deadline, failure, timed
from honestproxy.streams import Reads, one_by_one, reads_of
from honestproxy.trace import Honesty, Step, Trace
from honestproxy.types import Backend, ChatRequest, ChatResponse, Chunk


class Verbatim:
    """One call, and nothing around it that its client would have to wait for.

    `limit` is its seconds, and the setting that says so.
    """

    verbatim = True

    def __init__(
        self, backend: Backend, request: ChatRequest, trace: Trace, limit: tuple[float, str]
    ) -> None:
        self.honesty = Honesty(trace, "passed_through", "raw")
        self.headers: Mapping[str, str] = {}
        self._backend = backend
        self._limit = limit
        self._step = Step("draft", request.without_options())
        trace.steps.append(self._step)

    async def complete(self) -> ChatResponse:
        """The upstream's answer, whole."""
        deadline, request = self._begin()
        try:
            return await timed(self._step, self._backend.complete(request), deadline)
        except asyncio.CancelledError:
            self._step.error = "cancelled"
            raise
        except Exception as error:
            self._step.error = str(error)
            raise
        finally:
            self._end()

    def stream(self) -> AsyncGenerator[Chunk, None]:
        """The upstream's own events, as they come."""
        return one_by_one(self.reads())

    async def reads(self) -> Reads:
        """The same, as many at once as came at once."""
        deadline, request = self._begin()
        reads = reads_of(self._backend, request)
        self._step.last = last = deque[Chunk](maxlen=3)  # one of them tells the usage
        alarm = _Alarm(deadline.at)
        try:
            while True:
                with alarm:
                    chunks = await anext(reads)
                if chunks and chunks[0].headers:
                    self.headers = chunks[0].headers
                last.extend(chunks)
                yield chunks
        except StopAsyncIteration:
            pass
        except (asyncio.CancelledError, GeneratorExit):
            self._step.error = "cancelled"
            raise
        except Exception as error:  # noqa: BLE001 - becomes one of ours
            self._step.error = str(error)
            raise failure(self._step, error, deadline) from None
        finally:
            alarm.stop()
            self._step.usage = next((usage for c in reversed(last) if (usage := c.usage)), None)
            self._end()
            await reads.aclose()

    async def accepted(self) -> None:
        """Never before the first chunk, which says so."""
        await asyncio.Event().wait()

    def _begin(self) -> tuple[Deadline, ChatRequest]:
        if watch := self.honesty.trace.watch:
            watch(self._step)
        deadline = Deadline.after(*self._limit)
        return deadline, self._step.request.until(deadline.at)

    def _end(self) -> None:
        trace = self.honesty.trace
        trace.ended = time.perf_counter()
        self._step.seconds = round(trace.seconds, 4)


class _Alarm:
    """One timer for many waits, in whichever tasks: one for each costs more than to read a chunk.

    While it is entered, the wait ends in a TimeoutError when the time has come.
    """

    __slots__ = ("_before", "_rang", "_task", "_timer")

    def __init__(self, at: float) -> None:
        self._rang = False
        self._before = 0
        self._task: asyncio.Task[Any] | None = None
        self._timer = asyncio.get_running_loop().call_at(at, self._ring)

    def __enter__(self) -> None:
        if self._rang:
            raise TimeoutError
        self._task = task = asyncio.current_task()
        self._before = task.cancelling() if task else 0

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if not self._rang or task is None:
            return
        is_only_ours = task.uncancel() <= self._before
        if is_only_ours and kind is asyncio.CancelledError:
            raise TimeoutError

    def stop(self) -> None:
        """Let it not ring any more."""
        self._timer.cancel()

    def _ring(self) -> None:
        self._rang = True
        if self._task is not None:
            self._task.cancel()
