"""A run over a cluster: workers ask and judge; the log stays with whoever started it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from honestproxy.backends.scripted import Scripted
from honestproxy.evals.answers import Ended, failed
from honestproxy.evals.arms import Arm
from honestproxy.evals.here import Asking, Bench
from honestproxy.evals.judging import Judging
from honestproxy.evals.records import Answered, Sample, Verdict
from honestproxy.ray.baggage import Baggage
from honestproxy.ray.calls import Lost
from honestproxy.ray.cluster import Reserved, connected, places
from honestproxy.ray.seats import Seats
from honestproxy.ray.worker import Judged, Plan

_LOSSES: Final = 3
"""Workers lost over one question after which it counts as failed: it may be what ends them."""


@asynccontextmanager
async def spread(
    address: str, reserved: Reserved, asking: Asking, concurrency: int
) -> AsyncIterator[Spread]:
    """A place for a run on the cluster at an address. Raises EvaluationError."""
    plan = Plan(Baggage.of(asking.settings), asking.patience, asking.fields)
    with connected(address) as ray:
        nodes = places(ray, reserved)
        each = -(-concurrency // len(nodes))
        async with Seats(ray, plan, nodes, each, reserved) as seats:
            yield Spread(seats, each, max(concurrency, len(nodes)))


class Spread:
    """A cluster's workers as the place of a run."""

    def __init__(self, seats: Seats, each: int, concurrency: int) -> None:
        self.concurrency = concurrency
        self._seats = seats
        self._each = each

    async def known(self, arms: Sequence[Arm]) -> list[Arm]:
        """The arms, their models known: one worker asks."""
        found: list[Arm] = await _asked(self._seats, "known", list(arms))
        return found

    async def answers(self, arms: Sequence[Arm]) -> SpreadAnswers:
        """What makes the answers of arms whose models are known. Raises EvaluationError."""
        await _asked(self._seats, "prepare", tuple(arms))
        return SpreadAnswers(self._seats, tuple(arms))

    async def judging(self, bench: Bench) -> SpreadJudging:
        """What judges them; workers do."""
        bench = replace(bench, concurrency=self._each)
        model: str = bench.model or await _asked(self._seats, "judge_model", bench)
        return SpreadJudging(self._seats, replace(bench, model=model))


@dataclass(frozen=True, slots=True)
class SpreadAnswers:
    """Answers that workers make: what is asked together of one sample is asked of one worker."""

    seats: Seats
    arms: tuple[Arm, ...]

    async def each(
        self, sample: Sample, names: Sequence[str], known: Mapping[str, Answered] | None
    ) -> AsyncGenerator[Ended, None]:
        """The answers of these arms, once all of them are in."""
        asked = ("answers", self.arms, sample, list(names), known)
        try:
            ended: list[Ended] = await _asked(self.seats, *asked)
        except Lost as lost:
            ended = [failed(sample, name, lost, 0.0) for name in names]
        for one in ended:
            yield one


class SpreadJudging:
    """Judging by workers; what is due is told here."""

    def __init__(self, seats: Seats, bench: Bench) -> None:
        self._seats = seats
        self._bench = bench
        model = bench.model or ""
        self._rules = Judging(bench.judges, Scripted([]), model, upstream=bench.upstream)

    @property
    def config(self) -> Mapping[str, Any]:
        """What must be the same for a run to go on."""
        return self._rules.config

    def due(
        self, sample: Sample, answers: Mapping[str, Answered], done: Iterable[Verdict] = ()
    ) -> Sequence[object]:
        """What is still to be judged."""
        return self._rules.due(sample, answers, done)

    async def each(
        self, sample: Sample, answers: Mapping[str, Answered], done: Iterable[Verdict] = ()
    ) -> AsyncGenerator[Verdict, None]:
        """The verdicts that are due, once all of them are in. Raises HonestProxyError."""
        asked = ("verdicts", self._bench, sample, dict(answers), list(done))
        judged: Judged = await _asked(self._seats, *asked)
        for verdict in judged.verdicts:
            yield verdict
        if judged.error is not None:
            raise judged.error


async def _asked(seats: Seats, method: str, *words: Any) -> Any:
    """What a worker answers; where one is lost, the next. Raises Lost after a few."""
    losses = 0
    while True:
        async with seats.taken() as seat:
            try:
                return await seat.ask(method, *words)
            except Lost as lost:
                losses += 1
                if losses == _LOSSES:
                    raise lost.adding(f"{losses} were lost over this question") from None
