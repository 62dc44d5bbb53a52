"""A turn: one client request, as a strategy sees it, and the calls it starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from honestproxy import conversation
from honestproxy.errors import StepFailed, UpstreamBroken, UpstreamTimeout
from honestproxy.templates import Prompt, Prompts, block
from honestproxy.types import (
    Backend,
    ChatRequest,
    ChatResponse,
    Chunk,
    Doubts,
    Message,
    Step,
    Trace,
)

IDEMPOTENCY: Final = "Idempotency-Key"
_AHEAD: Final = 256
"""Chunks that a call may run ahead of a slow client before it stops reading its upstream."""


class View(Protocol):
    """What of an answer's text is for the client: fed the text as it comes."""

    def feed(self, text: str) -> str:
        """The part of what has come so far that may be shown now."""
        ...

    def close(self) -> str:
        """The rest. Raises StepFailed where nothing of the text was an answer."""
        ...


class Call:
    """One request to the model, under way.

    Await it for the whole response, iterate it for what has come so far and then live, or
    cancel it. `accepted` is set once a streamed call can no longer fail with a status;
    `settled` is told as soon as it is clear that this answer must not be rewritten, and why,
    or that it failed.
    """

    def __init__(
        self,
        step: Step,
        backend: Backend,
        *,
        streamed: bool,
        seconds: float,
        accepted: asyncio.Event | None = None,
        settled: Callable[[Call, str | BaseException], None] | None = None,
    ) -> None:
        self.step = step
        self._chunks: list[Chunk] = []
        self._read: int | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._settled = settled
        self.accepted = accepted or asyncio.Event()
        run = self._streamed(backend) if streamed else self._whole(backend)
        self._task = asyncio.create_task(self._timed(run, seconds), name=f"step {step.name}")
        self._task.add_done_callback(self._ended)

    def __await__(self) -> Generator[Any, None, ChatResponse]:
        # Shielded: a strategy that is given up must not take the call with it.
        return asyncio.shield(self._task).__await__()

    async def __aiter__(self) -> AsyncGenerator[Chunk, None]:
        self._read = 0
        while True:
            while self._read < len(self._chunks):
                self._read += 1
                self._room.set()
                yield self._chunks[self._read - 1]
            if self._task.done():
                self._task.result()
                return
            self._news.clear()
            await self._news.wait()

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

    def _ended(self, task: asyncio.Task[ChatResponse]) -> None:
        self._news.set()
        if task.cancelled():
            self.step.error = "cancelled"
            return
        if error := task.exception():
            self.step.error = str(error)
        if self._settled and (reason := error or untouchable(task.result())):
            self._settled(self, reason)

    async def _timed(self, run: Awaitable[ChatResponse], seconds: float) -> ChatResponse:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(seconds):
                response = await run
        except TimeoutError:
            message = f"the {self.step.name} step took longer than {seconds:g} s"
            raise UpstreamTimeout(message) from None
        finally:
            self.step.seconds = round(time.perf_counter() - started, 4)
        self.step.response, self.step.usage = response, response.usage
        return response

    async def _whole(self, backend: Backend) -> ChatResponse:
        response = await backend.complete(self.step.request)
        self._chunks.extend(response.chunks())
        return response

    async def _streamed(self, backend: Backend) -> ChatResponse:
        assembly = Assembly()
        async with aclosing(backend.stream(self.step.request)) as chunks:
            async for chunk in chunks:
                self.accepted.set()
                assembly.add(chunk)
                self._chunks.append(chunk)
                self._news.set()
                if self._settled and assembly.has_tool_calls:
                    self._settled(self, "tool calls")
                await self._backpressure()
        return assembly.response()

    async def _backpressure(self) -> None:
        while self._read is not None and len(self._chunks) - self._read > _AHEAD:
            self._room.clear()
            await self._room.wait()


class Assembly:
    """Puts a streamed answer together again: texts joined, tool calls by their index."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self.has_tool_calls = False

    def add(self, chunk: Chunk) -> None:
        """Take in the next chunk."""
        for name in chunk.fields:
            if name == "usage" or (name not in self._head and name not in _PER_CHUNK):
                self._head[name] = chunk.get(name)
        for news in chunk.choices:
            self._merge(news)

    def _merge(self, news: Mapping[str, Any]) -> None:
        index = news.get("index", 0)
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
        self.has_tool_calls = self.has_tool_calls or bool(calls) or "function_call" in delta
        for call in calls:
            known = message.setdefault("tool_calls", [])
            at = call.get("index", len(known))
            known.extend({} for _ in range(at + 1 - len(known)))
            _join(known[at], {n: v for n, v in call.items() if n != "index"})
        _join(message, {n: v for n, v in delta.items() if n != "tool_calls"})

    def response(self) -> ChatResponse:
        """The whole answer. Raises UpstreamBroken where the stream broke off."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        if not choices or any(choice.get("finish_reason") is None for choice in choices):
            raise UpstreamBroken("the upstream broke off in mid-answer, without a finish_reason")
        return ChatResponse({**self._head, "object": "chat.completion", "choices": choices})


_ATOMS: Final = frozenset({"role", "id", "type", "name"})
_PER_CHUNK: Final = frozenset({"object", "choices"})


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


@dataclass(frozen=True, slots=True)
class Keep:
    """The answer is a call that stands as it is."""

    call: Call
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer is one more call, not sent yet: the pipeline awaits or streams it.

    `fallback` stands in where it fails before its first token; `view` picks the client's
    part of its text.
    """

    start: Callable[[], Call]
    reason: str
    fallback: Callable[[], Call]
    view: View | None = None


Answer = Keep | Finish


class Strategy(Protocol):
    """From a turn to an answer; its first docstring line is what users read."""

    def __call__(self, turn: Turn) -> Coroutine[Any, Any, Answer]:
        """Start calls, weigh what comes back, and say which answer stands."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a turn must keep to, from settings, request and backend."""

    capabilities: tuple[str, ...] = ()
    threshold: float = 0.8
    confusion_tokens: int = 4096
    step_timeout: float = 600.0
    paper: bool = False


@dataclass(slots=True)
class Turn:
    """One client request: a strategy's only door to the model.

    `draft` is the call that answers the client's own request, once started; under `verbatim`
    it goes out byte for byte. `kept` resolves when the draft turns out untouchable, or fails,
    whatever the strategy is waiting for. A strategy that elicits doubts sets `findings`, which
    tells of them at the end.
    """

    request: ChatRequest
    backend: Backend
    prompts: Prompts
    trace: Trace
    limits: Limits
    streamed: bool
    folder: str
    verbatim: bool = False
    findings: Callable[[], Doubts | None] = lambda: None
    draft: Call | None = None
    calls: list[Call] = field(default_factory=list)
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    kept: asyncio.Future[Keep] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def query(self) -> str:
        """The text of the last user message."""
        return conversation.query(self.request)

    @property
    def abilities(self) -> str:
        """What the app can do beyond the bare model, as lines for a prompt."""
        return conversation.abilities(self.request, self.limits.capabilities)

    def start(self, step: str, *, returned: bool = True, **values: str | ChatResponse) -> Call:
        """Send a step now: the client's own request for `draft`, else a question about it.

        `returned`: whether a draft may become the answer. `values` fill the step's prompt.
        """
        if step == "draft":
            return self._start_draft(returned)
        prompt, text = self._prompt(step, values)
        if self.limits.paper:
            return self._send(step, conversation.single_message(self.request, text), prompt)
        cap = self.limits.confusion_tokens
        return self._send(step, conversation.elicitation(self.request, text, cap), prompt)

    def rewrite(self, step: str, **values: str | ChatResponse) -> Call:
        """Send a step that answers the client, made from what earlier steps found."""
        prompt, text = self._prompt(step, values)
        if self.limits.paper:
            return self._send(step, conversation.single_message(self.request, text), prompt)
        return self._send(step, conversation.rewrite(self.request, text), prompt)

    def keep(self, call: Call, reason: str) -> Keep:
        """The answer: this call, as it is."""
        return Keep(call, reason)

    def finish(
        self,
        step: str,
        *,
        fallback: Call | None = None,
        reason: str = "",
        view: View | None = None,
        **values: str | ChatResponse,
    ) -> Finish:
        """The answer: one more step, sent when the pipeline asks; without a fallback, a draft."""
        spare = (lambda: fallback) if fallback else (lambda: self.start("draft"))
        self._prompt(step, values)  # a prompt that can't be filled fails here, before the head
        return Finish(lambda: self.rewrite(step, **values), reason, spare, view)

    def cancel(self) -> None:
        """End every call in flight."""
        for call in self.calls:
            call.cancel()

    def _start_draft(self, returned: bool) -> Call:
        if self.verbatim:
            request = self.request
        elif self.limits.paper:
            request = conversation.single_message(self.request, self.query)
        else:
            request = conversation.draft(self.request, returned=returned)
        self.draft = self._send("draft", request, settled=self._settle)
        return self.draft

    def _settle(self, call: Call, reason: str | BaseException) -> None:
        if self.kept.done():
            return
        if isinstance(reason, BaseException):
            self.kept.set_exception(reason)
            self.kept.exception()  # seen: a turn that is given up never asks
        else:
            self.kept.set_result(Keep(call, reason))

    def _prompt(self, step: str, values: Mapping[str, str | ChatResponse]) -> tuple[Prompt, str]:
        prompt = self.prompts[f"{self.folder}/{step}"]
        texts = {
            name: value if isinstance(value, str) else block(name, value.text)
            for name, value in values.items()
        }
        if self.limits.paper:
            texts["query"] = self.query
        return prompt, prompt.render(**texts)

    def _shaped(self, request: ChatRequest, step: str) -> ChatRequest:
        shaped = conversation.streaming(request) if self.streamed else conversation.whole(request)
        if not (key := shaped.headers.get(IDEMPOTENCY)):
            return shaped
        # One key for different requests is an error upstream.
        return shaped.with_headers({**shaped.headers, IDEMPOTENCY: f"{key}-{step}"})

    def _send(
        self,
        name: str,
        request: ChatRequest,
        prompt: Prompt | None = None,
        settled: Callable[[Call, str | BaseException], None] | None = None,
    ) -> Call:
        step = Step(name, request if self.verbatim else self._shaped(request, name))
        if prompt:
            step.prompt, step.digest = prompt.name, prompt.digest
        self.trace.steps.append(step)
        call = Call(
            step,
            self.backend,
            streamed=self.streamed,
            seconds=self.limits.step_timeout,
            accepted=None if self.calls else self.accepted,
            settled=settled,
        )
        self.calls.append(call)
        return call
