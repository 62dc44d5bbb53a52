"""A run: every arm answers every sample, judges judge, and all of it is logged as it ends."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from honestproxy.errors import (
    HonestProxyError,
    UpstreamError,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from honestproxy.evals.answers import Answers, Ended
from honestproxy.evals.log import Log
from honestproxy.evals.patience import may_pass
from honestproxy.evals.prices import Price
from honestproxy.evals.records import Answered, Sample, Verdict

FEW: Final = 5
"""Failures in a row, of one upstream, after which a run ends: asking on would only add to them."""

MANY: Final = 20
"""The same of questions that have failed before, each perhaps at fault itself."""

_JUDGE: Final = "the judge"


class Judging(Protocol):
    """What judges the answers to a sample once all arms are in.

    Answers are by arm; those with an `error` have no text. `done` are verdicts that the log has.
    """

    @property
    def config(self) -> Mapping[str, Any]:
        """What must be the same for a run to go on."""
        ...

    def due(
        self, sample: Sample, answers: Mapping[str, Answered], done: Iterable[Verdict] = ()
    ) -> Sequence[object]:
        """What is still to be judged."""
        ...

    def each(
        self, sample: Sample, answers: Mapping[str, Answered], done: Iterable[Verdict] = ()
    ) -> AsyncGenerator[Verdict, None]:
        """The verdicts that are due, as they come. Raises HonestProxyError."""
        ...


@dataclass(slots=True)
class Tally:
    """How far a run is. `done` of `total` answers, `kept` of them from before.

    `judged` are verdicts, `unjudged` samples that the judge failed on: it is asked again when the
    run goes on. `judge_failure` is why, the last time.
    """

    total: int
    done: int = 0
    kept: int = 0
    failed: int = 0
    judged: int = 0
    unjudged: int = 0
    judge_failure: str | None = None
    tokens: int = 0
    dollars: float = 0.0
    priced: bool = False
    started: float = field(default_factory=time.monotonic)

    def add(self, answered: Answered, price: Price | None) -> None:
        """Count an answer, and what it cost."""
        self.done += 1
        self.failed += answered.error is not None
        if answered.usage:
            self.spend(answered.usage, price)

    def spend(self, usage: Mapping[str, Any], price: Price | None) -> None:
        """Count tokens, and what they cost where that is known."""
        tokens = usage.get("total_tokens")
        self.tokens += tokens if isinstance(tokens, int) else 0
        dollars = price(usage) if price else None
        if dollars is not None:
            self.priced = True
            self.dollars += dollars


Watch = Callable[[Tally], object]


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is run: who answers what, and how. `prices` are by arm."""

    samples: Sequence[Sample]
    answers: Answers
    judging: Judging | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    judge_price: Price | None = None
    concurrency: int = 8
    share_drafts: bool = False


async def run(experiment: Experiment, log: Log, watch: Watch = lambda tally: None) -> Tally:
    """Answer and judge all that the log doesn't hold yet.

    An answer that fails is recorded, and the run goes on. Raises the error of an upstream that
    fails again and again; what ended by then is in the log.
    """
    running = _Running(experiment, log, watch)
    missed = {sample for sample, _ in log.done.missed}
    # Those that failed before come last: what they are at fault of mustn't keep others waiting.
    waiting = iter(sorted(enumerate(experiment.samples), key=lambda one: one[1].id in missed))
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(max(1, experiment.concurrency)):
                workers.create_task(running.work(waiting))
    except* HonestProxyError as group:
        failure = group
    else:
        return running.tally
    raise _first(failure)


class _Running:
    """One run under way."""

    def __init__(self, experiment: Experiment, log: Log, watch: Watch) -> None:
        self._experiment = experiment
        self._log = log
        self._watch = watch
        self._in_a_row: Counter[str] = Counter()
        self._missed = frozenset(log.done.missed)  # in earlier runs
        self._arms = {arm.name: arm for arm in experiment.answers.arms}
        done = log.done.answers
        kept = sum(
            (sample.id, name) in done for sample in experiment.samples for name in self._arms
        )
        total = len(experiment.samples) * len(self._arms)
        judged = sum(map(len, log.done.verdicts.values()))
        self.tally = Tally(total, kept, kept, log.done.failed, judged)
        for name, usage in log.done.usage.items():
            self.tally.spend(usage, experiment.prices.get(name))
        self.tally.spend(log.done.judging, experiment.judge_price)
        watch(self.tally)

    async def work(self, waiting: Iterator[tuple[int, Sample]]) -> None:
        """Take one sample after the other, as long as there are any."""
        for number, sample in waiting:
            await self._answer(number, sample)
            if self._experiment.judging is not None:
                await self._judge(sample, self._experiment.judging)

    async def _answer(self, number: int, sample: Sample) -> None:
        names = list(self._arms)
        turn = number % len(names)
        # Each arm comes first as often as any: upstreams answer faster what they have just read.
        order = [*names[turn:], *names[:turn]]
        missing = [name for name in order if (sample.id, name) not in self._log.done.answers]
        if not missing:
            return
        if self._experiment.share_drafts:
            await self._together(sample, missing, self._known(sample))
            return
        for name in missing:
            await self._together(sample, [name], None)

    async def _together(
        self, sample: Sample, names: Sequence[str], known: Mapping[str, Answered] | None
    ) -> None:
        """The answers of arms that are asked together, or why there are none, in the log."""
        async with aclosing(self._experiment.answers.each(sample, names, known)) as coming:
            async for ended in coming:
                self._ended(ended)

    def _ended(self, ended: Ended) -> None:
        answered = ended.answered
        self._log.append(answered)
        self.tally.add(answered, self._experiment.prices.get(answered.arm))
        self._watch(self.tally)
        if (upstream := self._arms[answered.arm].upstream) is not None:
            again = (answered.sample, answered.arm) in self._missed
            self._note(upstream, ended.error, MANY if again and _answers(ended.error) else FEW)

    def _known(self, sample: Sample) -> dict[str, Answered]:
        """The sample's answers that the log has, by arm."""
        known = {name: self._log.answer(sample.id, name) for name in self._arms}
        return {name: answer for name, answer in known.items() if answer is not None}

    def _note(self, upstream: str, error: HonestProxyError | None, most: int = FEW) -> None:
        """Raise what went wrong once it has gone wrong too often in a row."""
        if error is None or not may_pass(error):
            self._in_a_row[upstream] = 0
            return
        self._in_a_row[upstream] += 1
        if self._in_a_row[upstream] >= most:
            raise error

    async def _judge(self, sample: Sample, judging: Judging) -> None:
        answers, done = self._known(sample), self._log.verdicts(sample.id)
        # An arm that is to be asked again is not in yet.
        if len(answers) < len(self._arms) or not judging.due(sample, answers, done):
            return
        try:
            async with aclosing(judging.each(sample, answers, done)) as verdicts:
                async for verdict in verdicts:
                    self._judged(verdict)
        except HonestProxyError as error:
            self.tally.unjudged += 1
            self.tally.judge_failure = error.message
            self._note(_JUDGE, error)
        else:
            self._note(_JUDGE, None)

    def _judged(self, verdict: Verdict) -> None:
        self._log.append(verdict)
        self.tally.judged += 1
        self.tally.spend(verdict.usage or {}, self._experiment.judge_price)
        self._watch(self.tally)


def _answers(error: HonestProxyError | None) -> bool:
    """Whether an upstream is there, if it has no good answer."""
    if isinstance(error, UpstreamUnreachable | UpstreamUnavailable):
        return False
    return isinstance(error, UpstreamError) and error.status >= 500


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
