"""The pipeline: a backend made honest. It runs a strategy and awaits or streams its answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import fields
from typing import Any, Final

from honestproxy import conversation
from honestproxy.backends import traits
from honestproxy.compatible import Compatible
from honestproxy.errors import Forbidden, InvalidRequest
from honestproxy.run import Run
from honestproxy.settings import Settings, nearest
from honestproxy.several import ChoiceTurn, Shared
from honestproxy.strategies import STRATEGIES
from honestproxy.strategies.gated import annotate
from honestproxy.strategies.introspect import noted
from honestproxy.strategies.raw import raw
from honestproxy.templates import Prompts
from honestproxy.trace import Trace
from honestproxy.turn import Limits, Strategy, Turn
from honestproxy.types import Backend, ChatRequest, ChatResponse, Chunk
from honestproxy.verbatim import Verbatim
from honestproxy.weighing import Weighing

_OWN: Final = frozenset({"calls", "kept"})
"""What of a turn is never shared among the answers to one request."""

AnyRun = Run | Verbatim
"""One turn under way, whole or streamed, and what was done to its answer."""


class Pipeline:
    """A backend whose answers are honest; itself a backend.

    Raises InvalidRequest or PromptError at once where strategy or prompts can't work.
    """

    is_routed = False

    def __init__(
        self, backend: Backend, settings: Settings | None = None, prompts: Prompts | None = None
    ) -> None:
        self.backend = backend
        self.settings = settings or Settings()
        self.prompts = prompts or Prompts(self.settings.prompts)
        if prompts is None:  # those that are given have been checked
            self.prompts.check()
        self._traits = traits(backend)
        self.default_strategy = self.settings.strategy or self._traits.default_strategy
        _named(self.default_strategy)
        self._compatible = Compatible(backend)
        limits = ("step_timeout", "turn_timeout")
        self._one_call = min((getattr(self.settings, name), name) for name in limits)

    def of(self, model: str) -> Pipeline:
        """The pipeline that answers for a model of that name: here, the same for all."""
        return self

    def run(self, request: ChatRequest) -> AnyRun:
        """One turn, not begun yet. Raises InvalidRequest where it asks for what isn't there."""
        name = self._chosen(request)
        strategy = _named(name)
        if not self._traits.responses:
            request = request.without_origin()
        if strategy is raw:
            return Verbatim(self.backend, request, Trace(name), self._one_call)
        rule = self._rule(request, name)
        if rule:
            strategy = _beside(request, name)
        shared = Shared() if _choices(request) > 1 and not rule else None
        turns = self._turns(request, name, strategy, shared)
        answers = [Weighing(turn, strategy, self.settings, rule) for turn in turns]
        return Run(answers, self.settings, shared)

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The honest answer, whole."""
        return await self.run(request).complete()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The honest answer as it is made."""
        async with aclosing(self.run(request).stream()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """The backend's models."""
        return await self._compatible.models(headers)

    async def load(self) -> None:
        """Load the backend, where that takes its time."""
        if warm_up := getattr(self.backend, "load", None):
            await warm_up()

    async def settled(self) -> None:
        """Return once all is deleted upstream that is to be."""
        await self._compatible.settled()

    async def aclose(self) -> None:
        """Close the backend."""
        await self._compatible.aclose()

    def _chosen(self, request: ChatRequest) -> str:
        name, allowed = request.options.strategy, self.settings.strategies_allowed
        if name is None:
            return self.default_strategy
        _named(name)
        if allowed is not None and name not in allowed:
            listed = ", ".join(allowed)
            raise Forbidden(f"strategy {name!r} is not allowed here; allowed are {listed}")
        return name

    def _paper(self, name: str) -> bool:
        return name == "curiosity" and self.settings.prompt_set == "paper"

    def _rule(self, request: ChatRequest, name: str) -> str | None:
        # What has no draft of its own can't keep one that calls a tool.
        if name == "single" and (_offers_tools(request) or request.get("logprobs")):
            what = "logprobs" if request.get("logprobs") else "tools"
            return f"{what} (single has no place for them)"
        if self._paper(name) and (_offers_tools(request) or conversation.attachments(request)):
            return "tools or attachments (the paper's prompts have no place for them)"
        if self._paper(name) and _choices(request) > 1:
            return "n > 1 (the paper's prompts have no place for it)"
        return conversation.pass_through(request)

    def _turns(
        self, request: ChatRequest, name: str, strategy: Strategy, shared: Shared | None
    ) -> list[Turn]:
        """One turn, or one for each choice that the client wants, with what they share."""
        turn = self._turn(request, name, strategy)
        if shared is None:
            return [turn]
        same = {f.name: getattr(turn, f.name) for f in fields(turn) if f.name not in _OWN}
        return [ChoiceTurn(**same, shared=shared, index=n) for n in range(_choices(request))]

    def _turn(self, request: ChatRequest, name: str, strategy: Strategy) -> Turn:
        settings, options = self.settings, request.options
        paper = strategy is _named(name) and self._paper(name)
        limits = Limits(
            capabilities=settings.capabilities + (options.capabilities or ()),
            threshold=settings.threshold if options.threshold is None else options.threshold,
            confusion_tokens=settings.confusion_tokens or self._traits.confusion_tokens,
            step_timeout=settings.step_timeout,
            turn_timeout=settings.turn_timeout,
            max_calls=settings.max_calls,
            max_tokens=settings.max_tokens,
            paper=paper,
            rambles=self._traits.rambles,
        )
        folders = {annotate: "gated"}
        return Turn(
            request=request.without_options(),
            options=options,
            backend=self._compatible,
            prompts=self.prompts,
            trace=Trace(name),
            limits=limits,
            streamed=request.streamed,
            folder=f"{name}/paper" if paper else folders.get(strategy, name),
        )


def _choices(request: ChatRequest) -> int:
    return request.get("n") or 1


def _beside(request: ChatRequest, name: str) -> Strategy:
    """What passes a request through, and finds doubts beside it where these are wanted."""
    is_lasting = request.origin is not None and request.origin.is_lasting
    if is_lasting or not request.options.annotate:
        return raw
    return noted if name == "introspect" else annotate


def _offers_tools(request: ChatRequest) -> bool:
    offered = request.get("tools") or request.get("functions")
    return bool(offered) and request.get("tool_choice") != "none"


def _named(name: str) -> Strategy:
    if name not in STRATEGIES:
        hint = nearest(name, STRATEGIES)
        raise InvalidRequest(f"unknown strategy {name!r}; {hint}", param="honesty.strategy")
    return STRATEGIES[name]
