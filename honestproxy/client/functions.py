"""`completion` and `acompletion`: litellm's functions of these names, with honest answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from functools import cache
from typing import Any

from honestproxy.backends import litellm_calls as litellm
from honestproxy.client.limits import own
from honestproxy.client.loop import LoopThread
from honestproxy.errors import HonestProxyError
from honestproxy.pipeline import AnyRun, Pipeline
from honestproxy.settings import Settings
from honestproxy.strategies import STRATEGIES
from honestproxy.types import ChatRequest, Chunk
from honestproxy.wire.request import options, split_suffix


def completion(
    model: str,
    messages: list[Any],
    *,
    strategy: str | None = None,
    honesty: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    **arguments: Any,
) -> Any:
    """`litellm.completion`, with an honest answer.

    Takes what litellm takes, by name, and gives what it gives: a `ModelResponse`, or with
    `stream=True` an iterator of `ModelResponseStream`. `honest.trace` reads from either what was
    done. litellm's errors come through as they are. `honesty` is what a request's body field of
    that name holds; `strategy`, or a suffix of the model's name, is short for its strategy. All
    other options of litellm's go along with each call to the model.
    """
    loop = _loop()
    answer = loop.run(
        acompletion(
            model, messages, strategy=strategy, honesty=honesty, settings=settings, **arguments
        )
    )
    return Parts(answer, loop) if isinstance(answer, AsyncParts) else answer


async def acompletion(
    model: str,
    messages: list[Any],
    *,
    strategy: str | None = None,
    honesty: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    **arguments: Any,
) -> Any:
    """`litellm.acompletion`, with an honest answer: see `completion`."""
    name, suffix = split_suffix(model, STRATEGIES)
    fields, others = litellm.split({**arguments, "messages": messages})
    backend = litellm.Called(name, others, own(settings, None))
    asked = ChatRequest(
        {"model": name, **fields}, options=options(dict(honesty or {}), strategy or suffix)
    )
    try:
        run = Pipeline(backend, own(settings, None)).run(asked)
        return await (_streamed(run) if asked.streamed else _whole(run))
    except HonestProxyError as error:
        raise litellm.original(error) from None


class AsyncParts:
    """A streamed answer as it is made, in parts of litellm's type.

    `honesty` is what the last of them tells of it; None before.
    """

    def __init__(self, first: Chunk | None, chunks: AsyncGenerator[Chunk, None]) -> None:
        self.honesty: Mapping[str, Any] | None = None
        self._chunks = chunks
        self._parts = self._all(first)

    def __aiter__(self) -> AsyncParts:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._parts)

    async def aclose(self) -> None:
        """End every call that is still under way."""
        await self._parts.aclose()
        await self._chunks.aclose()

    async def _all(self, first: Chunk | None) -> AsyncGenerator[Any, None]:
        chunk = first
        try:
            while chunk is not None:
                if not chunk.blank:
                    self.honesty = chunk.get("honesty") or self.honesty
                    yield litellm.chunk(chunk)
                chunk = await anext(self._chunks, None)
        except HonestProxyError as error:
            raise litellm.original(error) from None


class Parts:
    """The same for a thread without a loop."""

    def __init__(self, parts: AsyncParts, loop: LoopThread) -> None:
        self._parts = parts
        self._loop = loop

    @property
    def honesty(self) -> Mapping[str, Any] | None:
        """What the last part tells of the answer; None before."""
        return self._parts.honesty

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self._loop.run(self._parts.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End every call that is still under way."""
        self._loop.run(self._parts.aclose())


async def _whole(run: AnyRun) -> Any:
    return litellm.response(await run.complete())


async def _streamed(run: AnyRun) -> AsyncParts:
    chunks = run.stream()
    return AsyncParts(await anext(chunks, None), chunks)  # what is wrong is raised at once


@cache
def _loop() -> LoopThread:
    """One for the process: litellm keeps its connections by loop."""
    return LoopThread()
