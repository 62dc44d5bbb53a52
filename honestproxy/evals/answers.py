"""A sample's answers: those of the arms that are asked together, each as it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Protocol

from honestproxy.errors import HonestProxyError
from honestproxy.evals.asking import Asks, Entrant
from honestproxy.evals.patience import may_pass
from honestproxy.evals.records import Answered, Sample


@dataclass(frozen=True, slots=True)
class Ended:
    """One answer, or why there is none; `error` is what was raised then, if it is one of ours."""

    answered: Answered
    error: HonestProxyError | None = None


class Competing(Protocol):
    """One that answers are made for: an arm."""

    @property
    def name(self) -> str:
        """The arm's name."""
        ...

    @property
    def upstream(self) -> str | None:
        """Whom it asks; None where nobody."""
        ...


class Answers(Protocol):
    """What makes answers, in this process or elsewhere."""

    @property
    def arms(self) -> Sequence[Competing]:
        """Whose answers it makes, in the order in which they were named."""
        ...

    def each(
        self, sample: Sample, names: Sequence[str], known: Mapping[str, Answered] | None
    ) -> AsyncGenerator[Ended, None]:
        """The answers of these arms, asked at the same time. Closing this takes them back.

        `known` are the sample's answers by arm that are there already; where it isn't None, arms
        that ask the same hear one draft.
        """
        ...


class Entrants:
    """Answers that entrants make in this process."""

    def __init__(self, entrants: Sequence[Entrant]) -> None:
        self.arms = entrants
        self._named = {entrant.name: entrant for entrant in entrants}

    async def each(
        self, sample: Sample, names: Sequence[str], known: Mapping[str, Answered] | None
    ) -> AsyncGenerator[Ended, None]:
        """The answers of these arms, as they end."""
        with nullcontext() if known is None else self._shared(sample, known):
            asked = [asyncio.create_task(_ended(self._named[name], sample)) for name in names]
            try:
                for ended in asyncio.as_completed(asked):
                    yield await ended
            finally:
                for task in asked:
                    task.cancel()
                await asyncio.gather(*asked, return_exceptions=True)

    def _shared(self, sample: Sample, known: Mapping[str, Answered]) -> ExitStack:
        """Within this, arms that ask the same hear one draft: a known one, or a new one."""
        stack = ExitStack()
        asking = [entrant for entrant in self.arms if isinstance(entrant, Asks)]
        for entrant in asking:
            request = entrant.request(sample)
            same = [
                known.get(other.name)
                for other in asking
                if other.drafts is entrant.drafts and other.request(sample).raw == request.raw
            ]
            drafted = next((answer for answer in same if answer and answer.draft), None)
            stack.enter_context(entrant.drafts.shared(request, drafted))
        return stack


async def _ended(entrant: Entrant, sample: Sample) -> Ended:
    """One answer, or why there is none."""
    started = time.perf_counter()
    try:
        return Ended(await entrant.answer(sample))
    except Exception as raised:  # noqa: BLE001 - one bad sample must not end a run
        took = round(time.perf_counter() - started, 4)
        return failed(sample, entrant.name, raised, took)


def failed(sample: Sample, arm: str, error: Exception, seconds: float) -> Ended:
    """What is recorded of an answer that there is none of."""
    ours = error if isinstance(error, HonestProxyError) else None
    said = str(error) if ours else f"{type(error).__name__}: {error}"
    again = may_pass(error)
    answered = Answered(sample.id, arm, None, error=said, seconds=seconds, again=again)
    return Ended(answered, ours)
