"""A turn: one client request, as a strategy sees it, and the calls it starts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from honestproxy import conversation
from honestproxy.call import Call, Deadline
from honestproxy.compatible import IDEMPOTENCY, Compatible
from honestproxy.doubts import Scores
from honestproxy.errors import StepFailed
from honestproxy.templates import Prompt, Prompts, block
from honestproxy.trace import Step, Trace
from honestproxy.types import ChatRequest, ChatResponse, Doubts, Options, Usage


class View(Protocol):
    """What of an answer's text is for the client: fed the text as it comes."""

    def feed(self, text: str) -> str:
        """The part of what has come so far that may be shown now."""
        ...

    def close(self) -> str:
        """The rest. Raises StepFailed where nothing of the text was an answer."""
        ...


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
    turn_timeout: float = math.inf
    max_calls: int | None = None
    max_tokens: int | None = None
    paper: bool = False
    rambles: bool = False

    def deadline(self, began: float) -> Deadline:
        """For a step that begins now, of a turn that began then: its own, or the turn's."""
        step = Deadline.after(self.step_timeout)
        turn = began + self.turn_timeout
        return step if step.at <= turn else Deadline(turn, self.turn_timeout, "turn_timeout")

    def check(self, step: str, trace: Trace) -> None:
        """Raise StepFailed where a step would go beyond what a turn may cost."""
        calls = len(trace.steps)
        if self.max_calls is not None and calls >= self.max_calls:
            made = f"{calls} {'call' if calls == 1 else 'calls'}"
            raise _over_budget(step, f"the turn has made {made} (setting max_calls)")
        if self.max_tokens is not None and (used := _tokens(trace.usage)) >= self.max_tokens:
            raise _over_budget(step, f"the turn has used {used} tokens (setting max_tokens)")


def _tokens(usage: Usage) -> int:
    read, written = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    return int(usage.get("total_tokens") or read + written)


def _over_budget(step: str, why: str) -> StepFailed:
    return StepFailed(f"the {step} step wasn't sent: {why}", code="over_budget")


@dataclass(slots=True)
class Turn:
    """One client request: a strategy's only door to the model.

    `draft` is the call that answers the client's own request, once started. `kept` resolves
    when the draft turns out untouchable, or fails, whatever the strategy is waiting for. A
    strategy that elicits doubts sets `findings`, which tells of them at the end, and
    `patience`: the seconds from its answer that an elicitation still has for its confidence
    and usage. One that reads inside the model sets `scores`, for the trace.
    """

    request: ChatRequest
    options: Options
    backend: Compatible
    prompts: Prompts
    trace: Trace
    limits: Limits
    streamed: bool
    folder: str
    patience: float = 1.0
    findings: Callable[[], Doubts | None] = lambda: None
    draft: Call | None = None
    scores: Mapping[str, Any] | None = None
    calls: list[Call] = field(default_factory=list)
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())
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

    def start(
        self,
        step: str,
        *,
        returned: bool = True,
        prompt: str | None = None,
        **values: str | ChatResponse,
    ) -> Call:
        """Send a step now: the client's own request for `draft`, else a question about it.

        `returned`: whether a draft may become the answer. `values` fill the prompt, which is
        the step's own unless another is named.
        """
        if step == "draft":
            return self._start_draft(returned)
        found, text = self._prompt(prompt or f"{self.folder}/{step}", values)
        if self.limits.paper:
            asked = conversation.single_message(self.request, text, answers=False)
            return self._send(step, asked, found)
        cap = self.limits.confusion_tokens
        return self._send(step, conversation.elicitation(self.request, text, cap), found)

    def rewrite(
        self, step: str, *, prompt: str | None = None, **values: str | ChatResponse
    ) -> Call:
        """Send a step that answers the client, made from what earlier steps found."""
        found, text = self._prompt(prompt or f"{self.folder}/{step}", values)
        return self._rewrite(step, found, text, None, returned=False)

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
        opening: Prompt | None = None,
        **values: str | ChatResponse,
    ) -> Finish:
        """The answer: one more step, sent when the pipeline asks; without a fallback, a draft.

        Where the model can go on from an `opening`, its text begins with that.
        """
        spare = (lambda: fallback) if fallback else (lambda: self.start("draft"))
        prompt, text = self._prompt(f"{self.folder}/{step}", values)
        begun = None if self.limits.paper else opening
        # What a view has cut isn't what the upstream would store.
        whole = view is None or self.request.origin is None
        start = partial(self._rewrite, step, prompt, text, begun, returned=whole)
        return Finish(start, reason, spare, view)

    async def read(self) -> Scores:
        """What goes on inside the model, but for doubts that the app's own abilities rule out.

        Raises InvalidRequest where the backend can't read there.
        """
        deadline = self.limits.deadline(self.began)
        try:
            async with asyncio.timeout_at(deadline.at):
                scores = await self.backend.read(self.request)
        except TimeoutError:
            raise StepFailed(deadline.missed("reading").message) from None
        return scores.without(conversation.lifted(self.request, self.limits.capabilities))

    def opening(self, name: str) -> Prompt:
        """A prompt that is an answer's first words; `introspect` holds them all."""
        return self.prompts[f"introspect/{name}"]

    def said(self, opening: Prompt) -> str:
        """The answer that began with `opening`, once it is whole."""
        own = (call.step for call in self.calls if call.step.prompt == opening.name)
        return next((step.response.text for step in own if step.response), "")

    def open(self, step: str, opening: Prompt, reason: str) -> Finish:
        """The answer: one more step, which begins with `opening` and which the model goes on."""
        request = self._opened(self.request, opening)
        spare = partial(self.start, "draft")
        return Finish(lambda: self._send(step, request, opening), reason, spare)

    def cancel(self) -> None:
        """End every call in flight."""
        for call in self.calls:
            call.cancel()

    def _start_draft(self, returned: bool) -> Call:
        if self.limits.paper:
            request = conversation.single_message(self.request, self.query)
        else:
            request = conversation.draft(self.request, returned=returned)
        self.draft = self._send("draft", request, settled=self._settle)
        return self.draft

    def _rewrite(
        self, step: str, prompt: Prompt, text: str, opening: Prompt | None, *, returned: bool = True
    ) -> Call:
        if self.limits.paper:
            return self._send(step, conversation.single_message(self.request, text), prompt)
        request = conversation.rewrite(self.request, text, returned=returned)
        return self._send(step, self._opened(request, opening) if opening else request, prompt)

    def _opened(self, request: ChatRequest, opening: Prompt) -> ChatRequest:
        begun = conversation.opened(request, opening.parts(), self.query)
        return begun.replace(brief=True) if self.limits.rambles else begun

    def _settle(self, call: Call, reason: str | BaseException) -> None:
        if self.kept.done():
            return
        if isinstance(reason, BaseException):
            self.kept.set_exception(reason)
            self.kept.exception()  # seen: a turn that is given up never asks
        else:
            self.kept.set_result(Keep(call, reason))

    def _check_limits(self, step: str) -> None:
        """Raise where the turn has no call, token or second left for a step."""
        self.limits.check(step, self.trace)
        deadline = self.limits.deadline(self.began)
        if deadline.at <= asyncio.get_running_loop().time():
            raise deadline.missed(step)

    def _prompt(self, name: str, values: Mapping[str, str | ChatResponse]) -> tuple[Prompt, str]:
        prompt = self.prompts[name]
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
        if name != "draft":  # what the client asked for itself always goes
            self._check_limits(name)
        step = Step(name, self._shaped(request, name))
        step.scores = self.scores
        if prompt:
            step.prompt, step.digest = prompt.name, prompt.digest
        self.trace.steps.append(step)
        if self.trace.watch:
            self.trace.watch(step)
        call = Call(
            step,
            self.backend,
            streamed=self.streamed,
            deadline=self.limits.deadline(self.began),
            accepted=None if self.calls else self.accepted,
            settled=settled,
        )
        self.calls.append(call)
        return call
