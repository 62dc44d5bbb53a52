"""A turn that only passes on: the upstream's answer, byte for byte."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping

from honestproxy.call import failure, timed
from honestproxy.trace import Honesty, Step, Trace
from honestproxy.types import Backend, ChatRequest, ChatResponse, Chunk


class Verbatim:
    """One call, and nothing around it that its client would have to wait for."""

    verbatim = True

    def __init__(
        self, backend: Backend, request: ChatRequest, trace: Trace, seconds: float
    ) -> None:
        self.honesty = Honesty(trace, "passed_through", "raw")
        self.headers: Mapping[str, str] = {}
        self._backend = backend
        self._seconds = seconds
        self._step = Step("draft", request.without_options())
        trace.steps.append(self._step)

    async def complete(self) -> ChatResponse:
        """The upstream's answer, whole."""
        try:
            answer = self._backend.complete(self._step.request)
            return await timed(self._step, answer, self._seconds)
        except Exception as error:
            self._step.error = str(error)
            raise
        finally:
            self._end()

    async def stream(self) -> AsyncGenerator[Chunk, None]:
        """The upstream's own events, as they come."""
        chunks = self._backend.stream(self._step.request)
        last: deque[Chunk] = deque(maxlen=3)  # one of them tells the usage
        deadline = asyncio.get_running_loop().time() + self._seconds
        try:
            while True:
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(chunks)
                if chunk.headers:
                    self.headers = chunk.headers
                last.append(chunk)
                yield chunk
        except StopAsyncIteration:
            pass
        except Exception as error:  # noqa: BLE001 - becomes one of ours
            self._step.error = str(error)
            raise failure(self._step, error, self._seconds) from None
        finally:
            self._step.usage = next((usage for c in last if (usage := c.usage)), None)
            self._end()
            await chunks.aclose()

    async def accepted(self) -> None:
        """Never before the first chunk, which says so."""
        await asyncio.Event().wait()

    def _end(self) -> None:
        trace = self.honesty.trace
        trace.ended = time.perf_counter()
        self._step.seconds = round(trace.seconds, 4)
