"""A turn that only passes on: the upstream's answer, byte for byte."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping

from honestproxy.call import Alarm, Deadline, failure, timed
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
        alarm = Alarm(deadline)
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
