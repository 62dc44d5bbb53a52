"""A backend that is asked again where the trouble may pass: no connection, 429, 5xx."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential, wait_random

from honestproxy.backends.steady import retry_after
from honestproxy.errors import BackendError, UpstreamError
from honestproxy.types import Backend, ChatRequest, ChatResponse, Chunk

_NOT_THE_QUESTION: Final = frozenset({401, 402, 403, 404, 408, 409, 425, 429})
_NEVER_SOON: Final = frozenset({401, 402, 403, 404})
_BESIDE: Final = frozenset({"aclose", "load", "load_reader", "models", "read", "traits"})
"""What of a backend may be there or not, and is passed on as it is."""

_retries: ContextVar[list[int] | None] = ContextVar("retries", default=None)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a call is made at most, and the least and the longest wait between, in seconds."""

    attempts: int = 5
    first: float = 0.5
    longest: float = 60.0


def may_pass(error: BaseException) -> bool:
    """Whether asking again later can help, since the question itself isn't at fault."""
    if isinstance(error, UpstreamError):
        return error.status >= 500 or error.status in _NOT_THE_QUESTION
    return isinstance(error, BackendError)


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count the calls that are made again within this block: its one number."""
    count = [0]
    token = _retries.set(count)
    try:
        yield count
    finally:
        _retries.reset(token)


class Patient:
    """Wraps a backend: the same answers, after as many attempts as patience allows.

    A stream is begun again only as long as no text of it has come.
    """

    def __init__(self, backend: Backend, patience: Patience) -> None:
        self._backend = backend
        self._patience = patience
        grows = wait_exponential(patience.first, patience.longest)
        self._wait = grows + wait_random(0, patience.first)  # so that not all come back at once

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The whole answer."""
        return await self._attempted(self._whole, request)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The answer as it is made."""
        chunks, begun = await self._attempted(self._begun, request)
        async with aclosing(chunks):
            for chunk in begun:
                yield chunk
            async for chunk in chunks:
                yield chunk

    def __getattr__(self, name: str) -> Any:
        if name in _BESIDE:
            return getattr(self._backend, name)
        raise AttributeError(name)

    async def _whole(self, request: ChatRequest) -> ChatResponse:
        return await self._backend.complete(request)

    async def _begun(self, request: ChatRequest) -> tuple[AsyncGenerator[Chunk, None], list[Chunk]]:
        """A stream of which the first text has come, and all up to that."""
        chunks, begun = self._backend.stream(request), []
        try:
            async for chunk in chunks:
                begun.append(chunk)
                if chunk.text or chunk.finished:
                    break
        except BaseException:
            await chunks.aclose()
            raise
        return chunks, begun

    async def _attempted(
        self, call: Callable[[ChatRequest], Awaitable[Result]], request: ChatRequest
    ) -> Result:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._patience.attempts),
            wait=self._seconds,
            retry=retry_if_exception(self._is_worth_it),
            before_sleep=_count,
            reraise=True,
        )
        return await retrying(call, request)

    def _is_worth_it(self, error: BaseException) -> bool:
        if not isinstance(error, UpstreamError) or not may_pass(error):
            return False
        soon = (retry_after(error) or 0.0) <= self._patience.longest
        return soon and error.status not in _NEVER_SOON

    def _seconds(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        told = retry_after(error) if isinstance(error, UpstreamError) else None
        return max(told or 0.0, self._wait(state))


def _count(state: RetryCallState) -> None:
    if (count := _retries.get()) is not None:
        count[0] += 1
