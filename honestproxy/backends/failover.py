"""Several upstreams as one: where the first fails before its first token, the next is asked."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple, TypeVar

from honestproxy.backends import traits
from honestproxy.backends.wrapping import listed
from honestproxy.compatible import Compatible
from honestproxy.errors import HonestProxyError, UpstreamBroken, UpstreamTimeout
from honestproxy.streams import Reads, one_by_one, reads_of
from honestproxy.types import Answerer, Backend, ChatRequest, ChatResponse, Chunk

log = logging.getLogger(__name__)
T = TypeVar("T")

HEADER: Final = "x-honesty-upstream"
"""Names the upstream that has answered, where that wasn't the first."""
_KEPT: Final = frozenset(
    {"idempotency-key", "openai-beta", "traceparent", "tracestate", "x-client-request-id"}
)
"""A client's headers that another upstream than the first may see: no key, no account."""
_REFUSALS: Final = (408, 429)
"""Refusals (4xx) that say nothing of the request, only that this upstream can't now."""
_SILENT: Final = 8
"""Chunks after which an answer has begun, whatever they say."""


class Named(NamedTuple):
    """An upstream, what it is called, and whether the client's own key is for it, too."""

    name: str
    backend: Backend
    takes_key: bool = False


class Failover:
    """Several upstreams, asked in order until one answers; it has what the first has.

    The next is asked where one can't be reached, breaks, takes too long, is left alone, or says
    408, 429 or 5xx. It gets the request under its own key, without the client's unless that is
    for it, too. A step's time is shared: each upstream has an equal part of what is left.

    Relayed paths are the first's alone, and so is what only it can mean: a conversation that it
    keeps, an answer that it is to go on with. `stood_in` counts the answers of each other.
    """

    def __init__(self, chain: Sequence[Named]) -> None:
        self._first, *self._others = chain
        self.stood_in: Counter[str] = Counter()
        # Each learns for itself which of our parameters it refuses.
        self._asked: dict[str, Answerer] = {one.name: Compatible(one.backend) for one in chain[1:]}
        if any(hasattr(one.backend, "load") for one in chain):
            self.load = self._load
        if any(hasattr(one.backend, "discard") for one in chain):
            self.discard = self._discard

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The whole answer of the first that gives one."""

        async def whole(backend: Answerer, asked: ChatRequest) -> ChatResponse:
            return await backend.complete(asked)

        name, response = await self._answered(request, whole)
        if name != self._first.name:
            response.headers = {**response.headers, HEADER: name}
        return response

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The answer as it is made, of the first that begins one."""
        return one_by_one(self.reads(request))

    async def reads(self, request: ChatRequest) -> Reads:
        """The same, as many chunks at once as came at once."""
        name, (held, reads) = await self._answered(request, _begun)
        async with aclosing(reads):
            if name != self._first.name and held and held[0]:
                held[0][0].headers = {**(held[0][0].headers or {}), HEADER: name}
            for chunks in held:
                yield chunks
            async for chunks in reads:
                yield chunks

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """What the first lists that can."""
        failures: dict[str, HonestProxyError] = {}
        for one in (self._first, *self._others):
            try:
                return await listed(one.backend, self._headers(headers or {}, one))
            except HonestProxyError as error:
                _take(failures, one.name, error)
        raise _failed(failures)

    async def aclose(self) -> None:
        """Close all."""
        closes = [getattr(one.backend, "aclose", None) for one in (self._first, *self._others)]
        await asyncio.gather(*(close() for close in closes if close))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._first.backend, name)

    def __repr__(self) -> str:
        return repr([self._first.backend, *(one.backend for one in self._others)])

    async def _answered(
        self, request: ChatRequest, ask: Callable[[Answerer, ChatRequest], Awaitable[T]]
    ) -> tuple[str, T]:
        """What the first gives that doesn't fail, and its name.

        Raises the error of the very first, with a hint of what else failed.
        """
        failures: dict[str, HonestProxyError] = {}
        for one, deadline in self._in_turn(request):
            backend = self._asked.get(one.name, one.backend)
            try:
                asked = self._translated(request, one)
                found = await _within(deadline, one.name, backend, asked, ask)
            except HonestProxyError as error:
                _take(failures, one.name, error)
                continue
            self.stood_in[one.name] += one is not self._first
            return one.name, found
        raise _failed(failures)

    def _in_turn(self, request: ChatRequest) -> Iterator[tuple[Named, float | None]]:
        """Each upstream, and until when it has time; the last has all that is left."""
        is_lasting = request.origin is not None and request.origin.is_lasting
        others = [] if is_lasting or "echo" in request else self._others
        for at, one in enumerate([self._first, *others]):
            deadline, left = None, len(others) + 1 - at
            if request.deadline is not None and left > 1:
                now = asyncio.get_running_loop().time()
                deadline = now + (request.deadline - now) / left
            yield one, deadline

    def _translated(self, request: ChatRequest, one: Named) -> ChatRequest:
        """The request as that upstream may see it."""
        if one is self._first:
            return request
        asked = request.with_headers(self._headers(request.headers, one))
        asked.query = ""
        return asked if traits(one.backend).responses else asked.without_origin()

    def _headers(self, headers: Mapping[str, str], one: Named) -> Mapping[str, str]:
        """What of the client's headers that upstream may see."""
        if one is self._first or one.takes_key:
            return headers
        return {name: value for name, value in headers.items() if name.lower() in _KEPT}

    async def _load(self, progress: Callable[[str], None] | None = None) -> None:
        for one in (self._first, *self._others):
            if load := getattr(one.backend, "load", None):
                await load(progress)

    async def _discard(self, request: ChatRequest, response: ChatResponse) -> None:
        """Have the answer deleted by the upstream that gave it."""
        name = response.headers.get(HEADER, self._first.name)
        one = next(each for each in (self._first, *self._others) if each.name == name)
        if delete := getattr(one.backend, "discard", None):
            await delete(self._translated(request, one), response)


async def _within(
    deadline: float | None,
    name: str,
    backend: Answerer,
    request: ChatRequest,
    ask: Callable[[Answerer, ChatRequest], Awaitable[T]],
) -> T:
    """What one upstream gives in its time. Whatever goes wrong is an error of ours."""
    if deadline is not None:
        request = request.until(deadline)
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(deadline):
            return await ask(backend, request)
    except HonestProxyError:
        raise
    except TimeoutError:
        seconds = asyncio.get_running_loop().time() - began
        raise UpstreamTimeout(f"upstream {name!r} gave no answer in {seconds:.3g} s") from None
    except Exception as error:  # a backend of one's own may raise anything
        log.exception("upstream %s failed", name)
        raise UpstreamBroken(f"upstream {name!r} failed: {type(error).__name__}") from None


async def _begun(backend: Answerer, request: ChatRequest) -> tuple[list[list[Chunk]], Reads]:
    """A stream whose answer has begun: all that came up to there, and the rest."""
    reads, held = reads_of(backend, request), list[list[Chunk]]()
    try:
        async for chunks in reads:
            held.append(chunks)
            if sum(map(len, held)) > _SILENT or any(map(_says, chunks)):
                break
    except BaseException:
        await reads.aclose()
        raise
    return held, reads


def _says(chunk: Chunk) -> bool:
    """Whether anything of an answer is in it."""
    for choice in chunk.choices:
        said = {name for name, value in (choice.get("delta") or {}).items() if value}
        if said - {"role"} or choice.get("finish_reason"):
            return True
    return False


def _take(failures: dict[str, HonestProxyError], name: str, error: HonestProxyError) -> None:
    """Write a failure down; a refusal of the first's own is what the client is told at once."""
    if not failures and error.status < 500 and error.status not in _REFUSALS:
        raise error
    failures[name] = error


def _failed(failures: Mapping[str, HonestProxyError]) -> HonestProxyError:
    """The first failure, with a hint of the others."""
    (_, first), *others = failures.items()
    told = ", ".join(f"{name!r} ({error.status}: {error.message})" for name, error in others)
    return first.adding(f"its fallbacks failed, too: {told}") if told else first
