"""A run: every arm answers every sample, judges judge, and all of it is logged as it ends."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from honestproxy.errors import HonestProxyError
from honestproxy.evals.asking import Asks, Entrant
from honestproxy.evals.log import Log
from honestproxy.evals.patience import may_pass
from honestproxy.evals.prices import Price
from honestproxy.evals.records import Answered, Sample, Verdict

FEW: Final = 5
"""Failures in a row, of one upstream, after which a run ends: asking on would only add to them."""

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
    run goes on.
    """

    total: int
    done: int = 0
    kept: int = 0
    failed: int = 0
    judged: int = 0
    unjudged: int = 0
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
    entrants: Sequence[Entrant]
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
    waiting = iter(enumerate(experiment.samples))
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
        done, entrants = log.done.answers, experiment.entrants
        kept = sum((s.id, e.name) in done for s in experiment.samples for e in entrants)
        total = len(experiment.samples) * len(entrants)
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
        entrants = self._experiment.entrants
        turn = number % len(entrants)
        # Each arm comes first as often as any: upstreams answer faster what they have just read.
        order = [*entrants[turn:], *entrants[:turn]]
        missing = [e for e in order if (sample.id, e.name) not in self._log.done.answers]
        if not missing:
            return
        if self._experiment.share_drafts:
            with self._shared(sample):
                await _together([self._one(entrant, sample) for entrant in missing])
            return
        for entrant in missing:
            await self._one(entrant, sample)

    async def _one(self, entrant: Entrant, sample: Sample) -> None:
        """One answer, or why there is none, in the log."""
        started = time.perf_counter()
        error: Exception | None = None
        try:
            answered = await entrant.answer(sample)
        except Exception as raised:  # noqa: BLE001 - one bad sample must not end a run
            error = raised
            answered = _failed(sample, entrant, raised, time.perf_counter() - started)
        self._log.append(answered)
        self.tally.add(answered, self._experiment.prices.get(entrant.name))
        self._watch(self.tally)
        self._note(entrant.upstream, error)

    def _note(self, upstream: str | None, error: Exception | None) -> None:
        """Raise what went wrong once it has gone wrong too often in a row."""
        if upstream is None:
            return
        if error is None or not may_pass(error):
            self._in_a_row[upstream] = 0
            return
        self._in_a_row[upstream] += 1
        if self._in_a_row[upstream] >= FEW and isinstance(error, HonestProxyError):
            raise error

    async def _judge(self, sample: Sample, judging: Judging) -> None:
        names = [entrant.name for entrant in self._experiment.entrants]
        known = {name: self._log.answer(sample.id, name) for name in names}
        answers = {name: answer for name, answer in known.items() if answer is not None}
        done = self._log.verdicts(sample.id)
        # An arm that is to be asked again is not in yet.
        if len(answers) < len(names) or not judging.due(sample, answers, done):
            return
        try:
            async with aclosing(judging.each(sample, answers, done)) as verdicts:
                async for verdict in verdicts:
                    self._judged(verdict)
        except HonestProxyError as error:
            self.tally.unjudged += 1
            self._note(_JUDGE, error)
        else:
            self._note(_JUDGE, None)

    def _judged(self, verdict: Verdict) -> None:
        self._log.append(verdict)
        self.tally.judged += 1
        self.tally.spend(verdict.usage or {}, self._experiment.judge_price)
        self._watch(self.tally)

    def _shared(self, sample: Sample) -> ExitStack:
        """Within this, arms that ask the same hear one draft: one in the log, or a new one."""
        stack = ExitStack()
        asking = [e for e in self._experiment.entrants if isinstance(e, Asks)]
        for entrant in asking:
            request = entrant.request(sample)
            same = [
                other.name
                for other in asking
                if other.drafts is entrant.drafts and other.request(sample).raw == request.raw
            ]
            answers = (self._log.answer(sample.id, name) for name in same)
            known = next((answer for answer in answers if answer and answer.draft), None)
            stack.enter_context(entrant.drafts.shared(request, known))
        return stack


async def _together(running: Sequence[Any]) -> None:
    async with asyncio.TaskGroup() as group:
        for one in running:
            group.create_task(one)


def _failed(sample: Sample, entrant: Entrant, error: Exception, seconds: float) -> Answered:
    known = isinstance(error, HonestProxyError)
    said = str(error) if known else f"{type(error).__name__}: {error}"
    again = may_pass(error)
    took = round(seconds, 4)
    return Answered(sample.id, entrant.name, None, error=said, seconds=took, again=again)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
