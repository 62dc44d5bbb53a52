"""A call: one request to the model, under way, and what may be made of what comes back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from honestproxy import timers
from honestproxy.errors import HonestProxyError, StepFailed, UpstreamBroken, UpstreamTimeout
from honestproxy.trace import Step
from honestproxy.types import Answerer, ChatRequest, ChatResponse, Chunk, Message

log = logging.getLogger(__name__)
_AHEAD: Final = 256
"""Chunks that a call may run ahead of a slow client before it stops reading its upstream."""


class Deadline(NamedTuple):
    """Until when an answer must have come, by the running loop's clock, and which setting says so.

    `seconds` is what that setting allows.
    """

    at: float
    seconds: float
    setting: str = "step_timeout"

    @classmethod
    def after(cls, seconds: float, setting: str = "step_timeout") -> Self:
        """So many seconds from now."""
        return cls(asyncio.get_running_loop().time() + seconds, seconds, setting)

    def missed(self, step: str) -> UpstreamTimeout:
        """The error of a step that has no answer by then."""
        what = f"the {step} step" if self.setting == "step_timeout" else "the turn"
        where = "" if self.setting == "step_timeout" else f" in its {step} step"
        return UpstreamTimeout(
            f"{what} took longer than {self.seconds:g} s{where} (setting {self.setting})"
        )


class Alarm:
    """One timer for many waits, in whichever tasks: one for each costs more than to read a chunk.

    While it is entered, the wait ends in a TimeoutError when the time has come.
    """

    __slots__ = ("_before", "_loop", "_rang", "_slot", "_task")

    def __init__(self, deadline: Deadline) -> None:
        self._rang = False
        self._before = 0
        self._task: asyncio.Task[Any] | None = None
        self._loop = loop = asyncio.get_running_loop()
        self._slot = timers.start(loop, deadline.at - loop.time(), self)

    def __enter__(self) -> None:
        if self._rang:
            raise TimeoutError
        self._task = task = asyncio.current_task(self._loop)
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
        self._slot.discard(self)

    def ring(self) -> None:
        """The time has come."""
        self._rang = True
        if self._task is not None:
            self._task.cancel()


class Call:
    """One request to the model, under way.

    Await it for the whole response, iterate it for what has come so far and then live, or
    cancel it. `accepted` is set once a streamed call can no longer fail with a status;
    `settled` is told as soon as it is clear that this answer must not be rewritten, and why,
    or that it failed. `headers` are the upstream's, once a streamed call is accepted.
    """

    def __init__(
        self,
        step: Step,
        backend: Answerer,
        *,
        streamed: bool,
        deadline: Deadline,
        accepted: asyncio.Event | None = None,
        settled: Callable[[Call, str | BaseException], None] | None = None,
    ) -> None:
        self.step = step
        self.headers: Mapping[str, str] = {}
        self._chunks: list[Chunk | _Packed] = []
        self._readers: dict[object, int] = {}
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._settled = settled
        self.accepted = accepted or asyncio.Event()
        self._is_streamed = streamed
        request = step.request.until(deadline.at)
        run = self._streamed(backend, request) if streamed else backend.complete(request)
        self._task = asyncio.create_task(timed(step, run, deadline), name=f"step {step.name}")
        self._task.add_done_callback(self._ended)

    def __await__(self) -> Generator[Any, None, ChatResponse]:
        # Shielded: a strategy that is given up must not take the call with it.
        return asyncio.shield(self._task).__await__()

    async def __aiter__(self) -> AsyncGenerator[Chunk, None]:
        if not self._is_streamed:
            for chunk in (await self).chunks():
                yield chunk
            return
        reader, chunks, readers, at = object(), self._chunks, self._readers, 0
        readers[reader] = 0
        try:
            while True:
                while at < len(chunks):
                    readers[reader] = at = at + 1
                    self._room.set()
                    chunk = _unpacked(chunks[at - 1])
                    yield chunk
                    chunks[at - 1] = _packed(chunk)
                if self._task.done():
                    self._task.result()
                    return
                self._news.clear()
                await self._news.wait()
        finally:
            readers.pop(reader, None)
            self._room.set()

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._task.done()

    @property
    def failed(self) -> bool:
        """Whether it ended in an error."""
        return self.done and (self._task.cancelled() or self._task.exception() is not None)

    async def wait(self, seconds: float) -> None:
        """Wait for the end, but no longer than `seconds`, without raising what went wrong."""
        await asyncio.wait([self._task], timeout=seconds)

    def cancel(self) -> None:
        """End it, and the upstream's work with it."""
        self._task.cancel()

    def close(self) -> None:
        """End it, and put an error that it ended with to rest."""
        self._task.cancel()
        error = self._task.exception() if self.failed and not self._task.cancelled() else None
        if isinstance(error, HonestProxyError):
            error.at_rest()

    def _ended(self, task: asyncio.Task[ChatResponse]) -> None:
        self._news.set()
        # The turn knows this call: without a way back, both go as soon as nobody asks for them.
        settled, self._settled = self._settled, None
        if task.cancelled():
            self.step.error = "cancelled"
            with suppress(asyncio.CancelledError):
                task.exception()  # lets go of it: it holds the frames on its way, and they this
            return
        if error := task.exception():
            self.step.error = str(error)
        if settled and (reason := error or untouchable(task.result())):
            settled(self, reason)

    async def _streamed(self, backend: Answerer, request: ChatRequest) -> ChatResponse:
        assembly = Assembly()
        async with aclosing(backend.stream(request)) as chunks:
            async for chunk in chunks:
                if chunk.headers:
                    self.headers = chunk.headers
                self.accepted.set()
                assembly.add(chunk)
                self._chunks.append(chunk)
                self._news.set()
                if self._settled and assembly.has_tool_calls:
                    self._settled(self, "tool calls")
                await self._backpressure()
        response = assembly.response()
        response.headers = self.headers
        return response

    async def _backpressure(self) -> None:
        while self._readers and len(self._chunks) - min(self._readers.values()) > _AHEAD:
            self._room.clear()
            await self._room.wait()


_Packed = tuple[bytes, bytes]
"""A chunk's JSON and its event."""


def _packed(chunk: Chunk) -> Chunk | _Packed:
    """A chunk that has been passed on, without what was read of it.

    The garbage collector goes through all that is read, again and again: with a hundred streams
    that stops all of them for a tenth of a second. Bytes are none of its business.
    """
    if chunk.event is None or chunk.headers:
        return chunk
    return chunk.raw, chunk.event


def _unpacked(kept: Chunk | _Packed) -> Chunk:
    return Chunk(kept[0], event=kept[1]) if isinstance(kept, tuple) else kept


async def timed(step: Step, run: Awaitable[ChatResponse], deadline: Deadline) -> ChatResponse:
    """The step's answer, with what it took written down; raises UpstreamError where it failed."""
    started, alarm = time.perf_counter(), Alarm(deadline)
    try:
        with alarm:
            response = await run
    except Exception as error:  # noqa: BLE001 - becomes one of ours
        raise failure(step, error, deadline) from None
    finally:
        alarm.stop()
        step.seconds = round(time.perf_counter() - started, 4)
    step.response, step.usage = response, response.usage
    return response


def failure(step: Step, error: Exception, deadline: Deadline) -> HonestProxyError:
    """What went wrong in a step, as an error of ours; of which kind it is, the step tells."""
    ours = _ours(step, error, deadline)
    step.failure = type(ours).code or str(ours.status)  # an instance's code may be an upstream's
    return ours


def _ours(step: Step, error: Exception, deadline: Deadline) -> HonestProxyError:
    if isinstance(error, HonestProxyError):
        return error
    if isinstance(error, TimeoutError):
        return deadline.missed(step.name)
    log.error("the %s step failed", step.name, exc_info=error)
    return UpstreamBroken(f"the {step.name} step failed: {type(error).__name__}")


class Assembly:
    """Puts a streamed answer together again: texts joined, tool calls by their index."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self.has_tool_calls = False

    def add(self, chunk: Chunk) -> None:
        """Take in the next chunk."""
        for name in chunk.fields:
            if name not in self._head and name not in _PER_CHUNK:
                self._head[name] = chunk.get(name)
        if (usage := chunk.get("usage")) is not None:  # some count as they go
            self._head["usage"] = usage
        for news in chunk.choices:
            self._merge(news)

    def _merge(self, news: Mapping[str, Any]) -> None:
        index = news.get("index")
        index = index if isinstance(index, int) else 0
        blank = {"index": index, "message": {"role": "assistant", "content": None}}
        choice = self._choices.setdefault(index, blank)
        for name, value in news.items():
            if name == "delta":
                self._merge_delta(choice["message"], value or {})
            elif name == "logprobs" and value:
                _join(choice.setdefault("logprobs", {}), value)
            elif value is not None:
                choice[name] = value

    def _merge_delta(self, message: Message, delta: Mapping[str, Any]) -> None:
        calls = delta.get("tool_calls") or []
        self.has_tool_calls |= bool(calls or delta.get("function_call"))
        for call in calls:
            known = message.setdefault("tool_calls", [])
            at = call.get("index")
            if not isinstance(at, int):  # some upstreams don't number them
                at = len(known) - (bool(known) and not call.get("id"))
            known.extend({} for _ in range(at + 1 - len(known)))
            _join(known[at], {n: v for n, v in call.items() if n != "index"})
        _join(message, {n: v for n, v in delta.items() if n != "tool_calls"})

    def response(self) -> ChatResponse:
        """The whole answer. Raises UpstreamBroken where the stream broke off."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        if not choices or not all(choice.get("finish_reason") for choice in choices):
            raise UpstreamBroken("the upstream broke off in mid-answer, without a finish_reason")
        return ChatResponse({**self._head, "object": "chat.completion", "choices": choices})


_ATOMS: Final = frozenset({"role", "id", "type", "name"})
_PER_CHUNK: Final = frozenset({"object", "choices", "usage"})


def _join(known: dict[str, Any], news: Mapping[str, Any]) -> None:
    """Add a delta: texts and lists grow, objects merge, identities are set once."""
    for name, value in news.items():
        before = known.get(name)
        if value is None:
            known.setdefault(name, None)
        elif before is not None and _grows(name, value) and type(before) is type(value):
            known[name] = before + value
        elif isinstance(value, Mapping) and isinstance(before, dict):
            _join(before, value)
        else:
            known[name] = dict(value) if isinstance(value, Mapping) else value


def _grows(name: str, value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and name not in _ATOMS)


def untouchable(response: ChatResponse) -> str | None:
    """Why this draft must reach the client as it is, or None (DESIGN: what is not rewritten)."""
    message = response.message
    if message.get("tool_calls") or message.get("function_call"):
        return "tool calls"
    if response.finish_reason == "content_filter":
        return "content filter"
    if message.get("refusal"):
        return "refusal"
    return None if response.text.strip() else "empty content"


def usable(response: ChatResponse, step: str, *, whole: bool = False) -> ChatResponse:
    """The response of a step, if it can stand for something. Raises StepFailed if it can't."""
    if reason := untouchable(response):
        raise StepFailed(f"the {step} step came back unusable: {reason}")
    if whole and response.finish_reason == "length":
        raise StepFailed(f"the {step} step was cut off at its token cap")
    return response
