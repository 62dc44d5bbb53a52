"""Judging: what judges say of the answers to a sample, from whatever model plays them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from honestproxy.compatible import Compatible
from honestproxy.errors import HonestProxyError, UpstreamTimeout
from honestproxy.evals.judges import Due, Judge, due
from honestproxy.evals.patience import Patience, Patient
from honestproxy.evals.preferences import TIE
from honestproxy.evals.records import Answered, Sample, Verdict
from honestproxy.evals.rulings import Ruling
from honestproxy.types import Backend, ChatRequest, ChatResponse, Options, Usage

_RAW: Final = Options(strategy="raw")
"""A judge is never made honest, whatever else the backend wraps."""
_REFUSALS: Final = (400, 413, 422)
"""What a judge that can be asked says to one question: too long, say, or filtered."""


class Judging:
    """Asks judges, at most so many at a time; counts its own calls and tokens.

    `backend` is any; a pipeline passes the judges' questions on. One that is given the same
    question for two arms is asked once.
    """

    def __init__(
        self,
        judges: Sequence[Judge],
        backend: Backend,
        model: str,
        *,
        upstream: str = "",
        concurrency: int = 8,
        patience: Patience | None = None,
        timeout: float = 600.0,
    ) -> None:
        self.judges = tuple(judges)
        self.model = model
        self.calls = 0
        self.usage = Usage()
        self._upstream = upstream
        self._backend = Compatible(Patient(backend, patience or Patience()))
        self._free = asyncio.Semaphore(max(1, concurrency))
        self._timeout = timeout

    @property
    def config(self) -> dict[str, Any]:
        """What must be the same for a run to go on; what a URL asks for may be secret."""
        judges = [judge.config() for judge in self.judges]
        return {"upstream": self._upstream.partition("?")[0], "model": self.model, "judges": judges}

    def due(
        self, sample: Sample, answers: Mapping[str, Answered], done: Iterable[Verdict] = ()
    ) -> list[Due]:
        """The verdicts that a sample wants and that aren't among those done."""
        there = {(v.judge, v.arm, v.against) for v in done if v.sample == sample.id}
        wanted = due(self.judges, sample, answers)
        return [one for one in wanted if (one.judge.name, one.arm, one.against) not in there]

    async def verdicts(
        self, sample: Sample, answers: Mapping[str, Answered], done: Iterable[Verdict] = ()
    ) -> list[Verdict]:
        """The verdicts that are due, in their own order.

        One whose reply can't be read, or whose question the judge refuses, is unscored. Raises
        HonestProxyError where the judge can't be asked: then all are due still.
        """
        order = {(one.judge.name, *one.arms): n for n, one in enumerate(self.due(sample, answers))}
        async with aclosing(self.each(sample, answers, done)) as coming:
            found = [verdict async for verdict in coming]
        return sorted(found, key=lambda v: order[(v.judge, *filter(None, (v.arm, v.against)))])

    async def each(
        self, sample: Sample, answers: Mapping[str, Answered], done: Iterable[Verdict] = ()
    ) -> AsyncGenerator[Verdict, None]:
        """The same, one by one as they come. Closing this takes back what is still being asked."""
        alike: dict[tuple[str, str], list[Due]] = {}
        for one in self.due(sample, answers, done):
            prompt = one.judge.ask(sample, *_texts(one, answers))
            alike.setdefault((one.judge.name, prompt), []).append(one)
        asking = [
            asyncio.create_task(self._ruled(sample, answers, group, prompt))
            for (_, prompt), group in alike.items()
        ]
        try:
            for ended in asyncio.as_completed(asking):
                for verdict in await ended:
                    yield verdict
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ruled(
        self, sample: Sample, answers: Mapping[str, Answered], group: list[Due], prompt: str
    ) -> list[Verdict]:
        """What is said of every arm that gave this answer; the first bears what it cost."""
        if _are_same(_texts(group[0], answers)):
            same = Ruling(TIE, reason="both answers are the same")
            return [_verdict(sample, one, same) for one in group]
        judge = group[0].judge
        try:
            response = await self._asked(judge, prompt)
        except HonestProxyError as error:
            if error.status not in _REFUSALS:
                raise error.adding(f"this was the judge, {self.model}") from None
            refused = Ruling(reason=f"not judged: {error.message}")
            return [_verdict(sample, one, refused) for one in group]
        ruling = _read(judge, response, prompt)
        first, *others = (_verdict(sample, one, ruling, response.text) for one in group)
        return [replace(first, usage=dict(response.usage or {}) or None), *others]

    async def _asked(self, judge: Judge, prompt: str) -> ChatResponse:
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        # As fields of ours, so that they are left out for a model that refuses them.
        request = ChatRequest(body, options=_RAW).adding(
            temperature=judge.settings.temperature, max_tokens=judge.settings.max_tokens
        )
        async with self._free:
            try:
                async with asyncio.timeout(self._timeout):
                    response = await self._backend.complete(request)
            except TimeoutError:
                message = f"no verdict within {self._timeout:g} seconds"
                raise UpstreamTimeout(message) from None
        self.calls += 1
        self.usage = self.usage + (response.usage or {})
        return response


def _texts(one: Due, answers: Mapping[str, Answered]) -> tuple[str, ...]:
    return tuple(answers[arm].text or "" for arm in one.arms)


def _are_same(texts: Sequence[str]) -> bool:
    """Whether two answers leave nothing to choose between."""
    return len(texts) > 1 and len({text.strip() for text in texts}) == 1


def _read(judge: Judge, response: ChatResponse, prompt: str) -> Ruling:
    """What the reply says; one that was cut off may end in half a number."""
    whole = response.text.rstrip().removesuffix("```").rstrip().endswith("}")
    if response.finish_reason == "length" and not whole:
        return Ruling(reason="not judged: the reply was cut off")
    return judge.parser(response.text, prompt)


def _verdict(sample: Sample, one: Due, ruling: Ruling, raw: str = "") -> Verdict:
    label = ruling.label
    if one.against is not None:  # the judge is blind to arms: it knows a first and a second
        label = {"first": one.arm, "second": one.against}.get(label or "", label)
    return Verdict(
        sample=sample.id,
        arm=one.arm,
        judge=one.judge.name,
        label=label,
        scores=ruling.scores,
        reason=ruling.reason,
        raw=raw,
        against=one.against,
    )
