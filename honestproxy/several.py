"""Several answers to one request (`n` above 1): one draft call, one elicitation for all."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar

from honestproxy.call import Call
from honestproxy.errors import HonestProxyError
from honestproxy.templates import Prompt
from honestproxy.trace import Honesty, Step
from honestproxy.turn import Turn
from honestproxy.types import ChatRequest, ChatResponse, Chunk, Outcome

T = TypeVar("T")
_GRAVEST: Final[tuple[Outcome, ...]] = (
    "draft_fallback",
    "rewritten",
    "draft_kept",
    "passed_through",
)

_LARGEST: Final = 2**63 - 1
"""What a seed may be at most."""


class Absent(HonestProxyError):
    """The upstream gave fewer choices than were asked for."""

    status = 502


class Shared:
    """Calls that all answers to a request share, each made once."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._known: dict[Hashable, Call] = {}
        self._given_up: set[int] = set()

    def once(self, key: Hashable, turn: Turn, start: Callable[[], Call]) -> Call:
        """The call under this key; the first that asks starts it."""
        if key not in self._known:
            self._known[key] = call = start()
            turn.calls.remove(call)
            self.calls.append(call)
        return self._known[key]

    def give_up(self, index: int) -> bool:
        """Note that the draft's choice `index` is no answer; whether none of them is, then."""
        self._given_up.add(index)
        draft = self._known["draft"].step.response
        return draft is not None and len(self._given_up) == len(draft.get("choices"))


@dataclass(slots=True)
class ChoiceTurn(Turn):
    """The turn of one of several answers: its draft is the shared draft's choice `index`.

    A `seed` is another for each answer where a step is its own: else all would say the same.
    """

    shared: Shared = field(kw_only=True)
    index: int = field(kw_only=True)

    def start(
        self,
        step: str,
        *,
        returned: bool = True,
        prompt: str | None = None,
        **values: str | ChatResponse,
    ) -> Call:
        """Send a step, unless another answer has sent the very same."""
        texts = [value for value in values.values() if isinstance(value, str)]
        if step == "draft" or len(texts) < len(values):  # it holds this answer's own draft
            return Turn.start(self, step, returned=returned, prompt=prompt, **values)
        first = replace(self, index=0)  # whoever asks, all hear what the first would
        start = partial(Turn.start, first, step, returned=returned, prompt=prompt, **values)
        return self.shared.once((step, prompt, *texts), self, start)

    def _send(
        self,
        name: str,
        request: ChatRequest,
        prompt: Prompt | None = None,
        settled: Callable[[Call, str | BaseException], None] | None = None,
    ) -> Call:
        if name != "draft":
            return Turn._send(self, name, _seeded(request, self.index), prompt, settled)
        whole = self.shared.once("draft", self, lambda: Turn._send(self, name, request))
        call = Call(
            Step(name, request),
            _Part(whole, self.index),
            streamed=self.streamed,
            deadline=self.limits.deadline(self.began),
            settled=settled,
        )
        self.calls.append(call)
        return call


def give_up(turn: Turn, call: Call) -> bool:
    """Note that a call isn't this turn's answer; whether it is nobody's, then."""
    if isinstance(turn, ChoiceTurn) and call.step.name == "draft":
        return turn.shared.give_up(turn.index)
    return True


def _seeded(request: ChatRequest, index: int) -> ChatRequest:
    """The request with a seed of this answer's own, where it has one."""
    seed = request.get("seed")
    if not index or type(seed) is not int:
        return request
    return request.replace(seed=seed + index if seed + index <= _LARGEST else seed - index)


class _Part:
    """One choice of a shared call, as if an upstream had answered with it alone."""

    def __init__(self, call: Call, index: int) -> None:
        self._call = call
        self._index = index

    async def complete(self, _: ChatRequest) -> ChatResponse:
        response: ChatResponse = await self._call
        for at, choice in enumerate(response.get("choices")):
            if choice.get("index", at) == self._index:
                return response.replace(choices=[{**choice, "index": 0}])
        raise Absent(f"the upstream gave no choice {self._index}")

    async def stream(self, _: ChatRequest) -> AsyncGenerator[Chunk, None]:
        is_there = False
        async with aclosing(aiter(self._call)) as chunks:
            async for chunk in chunks:
                mine = [c for c in chunk.choices if c.get("index", 0) == self._index]
                is_there = is_there or bool(mine)
                if mine or (not chunk.choices and self._is_told(chunk)):
                    yield chunk.replace(choices=[{**choice, "index": 0} for choice in mine])
        if not is_there:
            raise Absent(f"the upstream gave no choice {self._index}")

    def _is_told(self, chunk: Chunk) -> bool:
        """Whether this answer hears of a chunk that is about all; one does of what clients see."""
        return self._index == 0 or chunk.blank or chunk.usage is not None


async def gathered(
    making: Sequence[Coroutine[Any, Any, ChatResponse]],
) -> list[ChatResponse | None]:
    """All responses, None for one that turns out to be absent; the first failure ends them all."""
    tasks = [asyncio.ensure_future(one) for one in making]
    try:
        return [await _present(task, at) for at, task in enumerate(tasks)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _present(task: Awaitable[T | None], at: int) -> T | None:
    try:
        return await task
    except Absent:
        if at == 0:  # then there is no answer at all
            raise
        return None


def joined(responses: Sequence[ChatResponse], told: Sequence[dict[str, Any]]) -> ChatResponse:
    """One response with the first choice of each, and what is told of it."""
    choices = [
        {**response.objects("choices")[0].fields, "index": at, **more}
        for at, (response, more) in enumerate(zip(responses, told, strict=True))
    ]
    return responses[0].replace(choices=choices)


def combined(each: Sequence[Honesty]) -> Honesty:
    """What was done to several answers: the gravest outcome, and how many it befell."""
    each = [h for h in each if h.outcome]
    outcome = next(name for name in _GRAVEST if any(h.outcome == name for h in each))
    reasons = [h.reason for h in each if h.outcome == outcome]
    found = next((h.doubts for h in each if h.doubts), None)
    reason = f"{len(reasons)} of {len(each)}: {reasons[0]}"
    return Honesty(each[0].trace, outcome, reason, found)


async def together(
    streams: Sequence[AsyncGenerator[Chunk, None]],
) -> AsyncGenerator[tuple[int, Chunk], None]:
    """The chunks of several streams as they come, each with its stream's number.

    One that turns out to be absent is left out; whatever else a stream raises ends them all.
    """
    pending = {asyncio.ensure_future(anext(stream, None)): n for n, stream in enumerate(streams)}
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=pending.__getitem__):
                number = pending.pop(task)
                chunk = await _present(task, number)
                if chunk is not None:
                    pending[asyncio.ensure_future(anext(streams[number], None))] = number
                    yield number, chunk
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for stream in streams:
            await stream.aclose()
