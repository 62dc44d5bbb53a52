"""How an arm answers a sample: through the pipeline, in this process, streamed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from honestproxy.compatible import Compatible
from honestproxy.errors import EvaluationError
from honestproxy.evals.arms import BLANK, PROMPTED, Arm
from honestproxy.evals.drafts import Drafts
from honestproxy.evals.patience import Patience, Patient, counted
from honestproxy.evals.records import Answered, Sample
from honestproxy.pipeline import AnyRun, Pipeline
from honestproxy.run import Run
from honestproxy.settings import Settings
from honestproxy.templates import Prompts, block
from honestproxy.trace import Honesty, Trace
from honestproxy.turn import Answer, Limits, Turn
from honestproxy.types import Backend, ChatRequest, Message, Options, text_of
from honestproxy.weighing import Weighing

SYSTEM: Final = "control/system"


class Entrant(Protocol):
    """One that answers samples in the name of an arm."""

    @property
    def name(self) -> str:
        """The arm's name."""
        ...

    @property
    def upstream(self) -> str | None:
        """Whom it asks; None where nobody."""
        ...

    async def answer(self, sample: Sample) -> Answered:
        """Its answer. Raises HonestProxyError."""
        ...


@dataclass(frozen=True, slots=True)
class Says:
    """A control that says the same to everything."""

    name: str
    text: str
    upstream: str | None = None

    async def answer(self, sample: Sample) -> Answered:
        """Its one text."""
        return Answered(sample.id, self.name, self.text, first=0.0)


@dataclass(frozen=True, slots=True)
class Asks:
    """An arm that asks a model. `fields` are what its requests hold beside the conversation."""

    name: str
    upstream: str
    model: str
    run: Callable[[ChatRequest], AnyRun]
    strategy: str | None
    drafts: Drafts
    fields: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None

    def request(self, sample: Sample) -> ChatRequest:
        """What is asked; the same for all arms that share a draft."""
        messages = sample.conversation
        body = {
            "model": self.model,
            "messages": _with_system(messages, self.system) if self.system else messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.fields,
        }
        return ChatRequest(body, options=Options(strategy=self.strategy))

    async def answer(self, sample: Sample) -> Answered:
        """The arm's answer, and what it cost. Raises HonestProxyError."""
        run = self.run(self.request(sample))
        started, first, pieces = time.perf_counter(), None, []
        with counted() as retries:
            async with aclosing(run.stream()) as chunks:
                async for chunk in chunks:
                    if chunk.text and first is None:
                        first = time.perf_counter() - started
                    pieces.append(chunk.text)
        seconds = time.perf_counter() - started
        text, honesty = "".join(pieces), run.honesty
        return Answered(
            sample.id,
            self.name,
            text,
            honesty=honesty.body(),
            draft=_draft(honesty, text),
            usage=dict(honesty.trace.usage) or None,
            calls=len(honesty.trace.steps),
            seconds=round(seconds, 4),
            first=None if first is None else round(first, 4),
            retries=retries[0],
        )


@dataclass(frozen=True, slots=True)
class Common:
    """One upstream, and what all arms that ask it have in common."""

    spec: str
    backend: Backend
    settings: Settings
    patience: Patience = field(default_factory=Patience)

    def entrants(self, arms: list[Arm], fields: Mapping[str, Any]) -> list[Asks]:
        """Those of its arms, their models known.

        One that repeats another shares no draft with it: how they differ is to show the noise.
        """
        common, known, found = self._drafts(), set(), []
        for arm in arms:
            is_repeated = (arm.model, arm.strategy) in known
            known.add((arm.model, arm.strategy))
            drafts = self._drafts() if is_repeated else common
            found.append(self._entrant(arm, Pipeline(drafts, self.settings), drafts, fields))
        return found

    def _drafts(self) -> Drafts:
        return Drafts(Patient(self.backend, self.patience), self.settings.step_timeout)

    def _entrant(
        self, arm: Arm, pipeline: Pipeline, drafts: Drafts, fields: Mapping[str, Any]
    ) -> Asks:
        one = Asks(
            name=arm.name,
            upstream=self.spec,
            model=arm.model or "",
            run=pipeline.run,
            strategy=arm.strategy,
            drafts=drafts,
            fields=fields,
        )
        if arm.strategy == PROMPTED:
            return replace(one, strategy="raw", system=pipeline.prompts[SYSTEM].render())
        if arm.strategy == BLANK:
            blank = _Blank(drafts, pipeline.prompts, self.settings)
            return replace(one, run=blank.run, strategy=None)
        if arm.strategy == "introspect" and not hasattr(self.backend, "read"):
            raise EvaluationError(
                f"arm {arm.name!r}: {self.spec} shows no hidden states, which introspect reads; "
                "choose another strategy, or a `local:` upstream"
            )
        return one


class _Blank:
    """What `curiosity` would do if nothing were confusing: a draft, and a merge with nothing."""

    def __init__(self, backend: Backend, prompts: Prompts, settings: Settings) -> None:
        self._backend = Compatible(backend)
        self._prompts = prompts
        self._settings = settings

    def run(self, request: ChatRequest) -> Run:
        """One turn, not begun yet."""
        settings = self._settings
        turn = Turn(
            request=request.without_options(),
            options=Options(),
            backend=self._backend,
            prompts=self._prompts,
            trace=Trace(BLANK),
            limits=Limits(settings.capabilities, step_timeout=settings.step_timeout),
            streamed=True,
            folder="curiosity",
        )
        return Run([Weighing(turn, _merge_blank, settings, None)], settings)


async def _merge_blank(turn: Turn) -> Answer:
    """Draft, then merge it with a blank confusion: what is left is what rewriting alone does."""
    draft, blank = turn.start("draft", returned=False), block("confusion", "")
    return turn.finish(
        "merge", draft=await draft, confusion=blank, fallback=draft, reason="merged with nothing"
    )


def _draft(honesty: Honesty, text: str) -> str | None:
    step = next((step for step in honesty.trace.steps if step.name == "draft"), None)
    if step is None or step.error:
        return None
    if step.response is not None:
        return step.response.text
    return text if honesty.outcome == "passed_through" else None


def _with_system(messages: list[Message], text: str) -> list[Message]:
    """Ours before theirs: two system messages are more than some chat templates take."""
    if messages[0].get("role") != "system":
        return [{"role": "system", "content": text}, *messages]
    both = f"{text}\n\n{text_of(messages[0].get('content'))}"
    return [{**messages[0], "content": both}, *messages[1:]]
