"""Samples, arms and upstreams of runs that tests make."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from honestproxy.backends.openai_compatible import OpenAICompatible
from honestproxy.compatible import Compatible
from honestproxy.evals import arms
from honestproxy.evals import log as logs
from honestproxy.evals.answers import Entrants
from honestproxy.evals.asking import Common, Entrant, Says
from honestproxy.evals.log import LOG, SAMPLES, Folder
from honestproxy.evals.patience import Patience
from honestproxy.evals.records import Answered, Sample, Verdict
from honestproxy.evals.runs import Experiment, Tally, run
from honestproxy.settings import Settings
from honestproxy.types import Backend
from tests.proxy import Script
from tests.upstreams import Reply, Seen, Upstream, upstream

CONFIG: dict[str, Any] = {"arms": ["raw"], "seed": 0}
IMPATIENT = Patience(attempts=3, first=0.0, longest=1.0)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a folder holds: of each answer and each verdict the newest."""

    config: Mapping[str, Any]
    samples: list[Sample]
    answers: Mapping[tuple[str, str], Answered]
    verdicts: list[Verdict]


def read(folder: Path) -> Recorded:
    """All of a run, under way or ended."""
    answers: dict[tuple[str, str], Answered] = {}
    verdicts: dict[tuple[str, str, str, str | None], Verdict] = {}
    for line in logs.lines(folder / LOG):
        if isinstance(line.record, Answered):
            answers[line.record.sample, line.record.arm] = line.record
        elif line.record is not None:
            said = line.record
            verdicts[said.sample, said.arm, said.judge, said.against] = said
    config = logs.configuration(folder)
    assert config is not None, f"no run in {folder}"
    return Recorded(config, [*logs.samples(folder / SAMPLES)], answers, [*verdicts.values()])


def samples(number: int) -> list[Sample]:
    return [Sample(f"q/{n}", f"Question {n}?") for n in range(number)]


def question(seen: Seen) -> str:
    """What the client asked, whatever of ours stands around it."""
    return seen.json()["messages"][-1]["content"].partition("\n")[0]


async def entrants(
    backend: Backend, specs: str, patience: Patience = IMPATIENT, **settings: Any
) -> list[Entrant]:
    found = arms.parse(specs, "http://127.0.0.1/v1", "m")
    common = Common("http://127.0.0.1/v1", backend, Settings(**settings), patience)
    asking = {one.name: one for one in common.entrants([a for a in found if not a.text], {})}
    return [Says(arm.name, arm.text) if arm.text else asking[arm.name] for arm in found]


async def ran(
    folder: Path,
    backend: Backend,
    specs: str,
    questions: list[Sample],
    *,
    patience: Patience = IMPATIENT,
    config: dict[str, Any] = CONFIG,
    **how: Any,
) -> tuple[Tally, Recorded]:
    """A run in this process, and what its folder holds then."""
    asked = Experiment(questions, Entrants(await entrants(backend, specs, patience)), **how)
    with Folder(folder) as held:
        tally = await run(asked, held.start(config, questions))
    return tally, read(folder)


@asynccontextmanager
async def asking(
    script: Script | Callable[[Seen], Reply],
) -> AsyncIterator[tuple[Upstream, Backend]]:
    """An upstream, and the backend that asks it."""
    async with upstream(script) as server:
        backend = OpenAICompatible(server.url, Settings())
        try:
            yield server, backend
        finally:
            await Compatible(backend).aclose()
