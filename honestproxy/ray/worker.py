"""A worker of a cluster: it asks as a run of one machine would, each upstream opened once.

Ray makes an actor of it. Whatever it is given or returns goes through pickle.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from honestproxy import __version__
from honestproxy.errors import HonestProxyError
from honestproxy.evals.answers import Ended, Entrants
from honestproxy.evals.arms import Arm
from honestproxy.evals.here import Asking, Bench, Here, ready
from honestproxy.evals.judging import Judging
from honestproxy.evals.patience import Patience
from honestproxy.evals.records import Answered, Sample, Verdict
from honestproxy.ray.baggage import Baggage, fingerprint
from honestproxy.settings import Settings


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker is given to begin with."""

    baggage: Baggage
    patience: Patience
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Versions:
    """What must be the same everywhere for answers to be comparable."""

    honestproxy: str
    python: str
    prompts: str

    @classmethod
    def of(cls, settings: Settings) -> Versions:
        """Those of this process."""
        python = ".".join(map(str, sys.version_info[:2]))
        return cls(__version__, python, fingerprint(settings))


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts on a sample's answers, up to an error."""

    verdicts: list[Verdict]
    error: HonestProxyError | None = None


class Worker:
    """Asks and judges, under the settings of whoever started the run."""

    def __init__(self, plan: Plan) -> None:
        # There only if anything is laid out in it: a worker that is killed can't clear up.
        self._folder = Path(tempfile.gettempdir()) / f"honestproxy-{secrets.token_hex(8)}"
        self._settings = plan.baggage.unpacked(self._folder)
        self._here = Here(Asking(self._settings, plan.patience, plan.fields), ready)
        self._opening = asyncio.Lock()
        self._answers: dict[tuple[Arm, ...], Entrants] = {}
        self._judging: dict[tuple[str, str | None], Judging] = {}

    async def versions(self) -> Versions:
        """What is installed here."""
        return Versions.of(self._settings)

    async def known(self, arms: Sequence[Arm]) -> list[Arm]:
        """The arms, their models known. Raises HonestProxyError."""
        async with self._opening:
            return await self._here.known(arms)

    async def prepare(self, arms: tuple[Arm, ...]) -> None:
        """Open what these arms ask, so that the first of them doesn't wait. Raises alike."""
        await self._of(arms)

    async def judge_model(self, bench: Bench) -> str:
        """The model that plays the judges. Raises HonestProxyError."""
        return (await self._on(bench)).model

    async def answers(
        self,
        arms: tuple[Arm, ...],
        sample: Sample,
        names: Sequence[str],
        known: Mapping[str, Answered] | None,
    ) -> list[Ended]:
        """A sample's answers by the arms of these names, in the order in which they ended."""
        entrants = await self._of(arms)
        async with aclosing(entrants.each(sample, names, known)) as coming:
            return [_light(ended) async for ended in coming]

    async def verdicts(
        self,
        bench: Bench,
        sample: Sample,
        answers: Mapping[str, Answered],
        done: Sequence[Verdict],
    ) -> Judged:
        """What is due on a sample's answers."""
        judging, verdicts = await self._on(bench), []
        try:
            async with aclosing(judging.each(sample, answers, done)) as coming:
                async for verdict in coming:
                    verdicts.append(verdict)  # noqa: PERF401 - these are kept when an error comes
        except HonestProxyError as error:
            return Judged(verdicts, error.at_rest())
        return Judged(verdicts)

    async def close(self) -> None:
        """Let go of the upstreams, and of what was unpacked."""
        await self._here.aclose()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _of(self, arms: tuple[Arm, ...]) -> Entrants:
        async with self._opening:  # a model is loaded once, however many ask for it
            if arms not in self._answers:
                self._answers[arms] = await self._here.answers(arms)
            return self._answers[arms]

    async def _on(self, bench: Bench) -> Judging:
        key = bench.upstream, bench.model
        async with self._opening:
            if key not in self._judging:
                self._judging[key] = await self._here.judging(bench)
            return self._judging[key]


def _light(ended: Ended) -> Ended:
    """The same without the frames that an error came through."""
    return replace(ended, error=ended.error and ended.error.at_rest())
