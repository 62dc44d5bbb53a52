"""One draft for all arms that ask the same: what they differ in is then the strategy alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final

from honestproxy.call import Call, Deadline
from honestproxy.evals.records import Answered
from honestproxy.trace import Step
from honestproxy.types import Backend, ChatRequest, ChatResponse, Chunk

_BESIDE: Final = frozenset(
    {"aclose", "complete", "load", "load_reader", "models", "read", "traits"}
)


class Drafts:
    """Wraps a backend: a request that is shared is sent once, and all who ask it hear the answer.

    They hear it as it comes, so that each is as slow as it would be alone.
    """

    def __init__(self, backend: Backend, seconds: float) -> None:
        self._backend = backend
        self._seconds = seconds
        self._shared: dict[bytes, Call | Answered | None] = {}

    @contextmanager
    def shared(self, request: ChatRequest, known: Answered | None = None) -> Iterator[None]:
        """Send this request at most once within the block; not at all where its draft is known."""
        key = request.raw
        if key in self._shared:  # the same question stands twice in the data
            yield
            return
        self._shared[key] = known
        try:
            yield
        finally:
            made = self._shared.pop(key)
            if isinstance(made, Call):
                made.cancel()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The answer as it is made, perhaps for others."""
        async with aclosing(self._heard(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    def __getattr__(self, name: str) -> Any:
        if name in _BESIDE:
            return getattr(self._backend, name)
        raise AttributeError(name)

    def _heard(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        if not self._shared or (key := request.raw) not in self._shared:
            return self._backend.stream(request)
        made = self._shared[key]
        if isinstance(made, Answered):
            return _replayed(made, request.model)
        if made is None:
            step = Step("draft", request)
            deadline = Deadline.after(self._seconds)
            made = Call(step, self._backend, streamed=True, deadline=deadline)
            self._shared[key] = made
        return _listening(made)


async def _listening(call: Call) -> AsyncGenerator[Chunk, None]:
    async for chunk in call:
        yield chunk


async def _replayed(known: Answered, model: str) -> AsyncGenerator[Chunk, None]:
    """A draft that is in the log already, after the seconds that it took then."""
    steps = (known.honesty or {}).get("steps") or ()
    step: dict[str, Any] = next((step for step in steps if step["name"] == "draft"), {})
    await asyncio.sleep(step.get("seconds") or 0.0)
    usage = {"usage": step["usage"]} if step.get("usage") else {}
    for chunk in ChatResponse.of(known.draft or "", model=model, **usage).chunks():
        yield chunk
