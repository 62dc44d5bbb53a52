"""`honestproxy ab`: two or more arms answer the same questions, and a report says what differs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from honestproxy.cli import question
from honestproxy.cli.options import FAILURE, Json, with_settings
from honestproxy.cli.output import count, noted, print_json, safe, stderr, stdout
from honestproxy.cli.watching import watched
from honestproxy.errors import EvaluationError, HonestProxyError
from honestproxy.settings import Settings
from honestproxy.settings.references import blotted

if TYPE_CHECKING:
    from honestproxy.evals.arms import Arm
    from honestproxy.evals.here import Bench, Place
    from honestproxy.evals.log import Folder, Log
    from honestproxy.evals.patience import Patience
    from honestproxy.evals.prices import Price
    from honestproxy.evals.records import Sample
    from honestproxy.evals.runs import Judging, Tally
    from honestproxy.evals.samples import Loaded, Source
    from honestproxy.ray.cluster import Reserved
    from honestproxy.types import Backend

Data = Annotated[
    list[str],
    typer.Argument(
        metavar="[TASK:]FILE[:N]...",
        help="Questions: JSONL or CSV with `question`, or a task's data. `:N` draws N by the "
        "seed, `:N+M` N that can be answered and M that can't. For FILE, `hub` or "
        "`hub:owner/name` fetches a data set by its id.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="The run's folder; one that is there goes on.")]
Arms = Annotated[
    str,
    typer.Option(
        metavar="ARM,...",
        help="[NAME=][UPSTREAM|][MODEL@]STRATEGY each; or always-disclaim, always-refuse, "
        "system-prompt-only, merge-blank. `raw,raw` measures noise. Default: raw and the "
        "upstream's own strategy.",
        show_default=False,
    ),
]
Task = Annotated[str | None, typer.Option("--task", help="Task of data that name none.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Ask the first so many only.")]
Number = Annotated[int | None, typer.Option("--sample", min=1, help="Draw so many by the seed.")]
Seed = Annotated[int, typer.Option(help="Of what is drawn.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Questions asked at once.")]
Share = Annotated[
    bool, typer.Option("--share-drafts", help="One draft a question for all arms of a model.")
]
Temperature = Annotated[
    float | None, typer.Option(min=0, help="Of all requests; the upstream's own where unset.")
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Cap of an answer.")]
Retries = Annotated[int, typer.Option(min=0, help="How often a failed call is made again.")]
Cost = Annotated[
    str | None,
    typer.Option(
        "--price",
        metavar="IN[/OUT]",
        help="Dollars for a million tokens, one number for both; litellm's table where unset.",
    ),
]
JudgeUpstream = Annotated[str | None, typer.Option(help="Upstream of the judge; none, no judge.")]
JudgeModel = Annotated[str | None, typer.Option(help="Its model; the first listed where unset.")]
Judges = Annotated[
    str | None,
    typer.Option(
        metavar="JUDGE,...", help="What it judges, folders of prompts/judge/; all but pairwise."
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Spread the questions over a Ray cluster: HOST:PORT, ray://HOST:PORT, auto, or "
        "local, which starts one here.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--ray-workers", min=1, help="Workers of the cluster; one a node where unset."),
]
Cpus = Annotated[float, typer.Option("--ray-cpus", min=0.1, help="CPUs that each worker reserves.")]
Gpus = Annotated[float, typer.Option("--ray-gpus", min=0, help="GPUs that each worker reserves.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for, checked before anything is loaded."""

    settings: Settings
    folder: Folder
    data: list[Loaded]
    samples: list[Sample]
    arms: list[Arm]
    draws: dict[str, Any]
    fields: dict[str, Any]
    patience: Patience
    price: str | None
    concurrency: int
    share_drafts: bool
    bench: Bench | None
    cluster: str | None
    reserved: Reserved


@with_settings("prompts", "prompt_set", "threshold", "capabilities", "on_failure")
def ab(
    settings: Settings,
    data: Data,
    out: Out,
    arms: Arms = "",
    task: Task = None,
    limit: Limit = None,
    number: Number = None,
    seed: Seed = 0,
    concurrency: Concurrency = 8,
    share_drafts: Share = False,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    retries: Retries = 4,
    cost: Cost = None,
    judge: JudgeUpstream = None,
    judge_model: JudgeModel = None,
    judges: Judges = None,
    cluster: Cluster = None,
    workers: Workers = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
    as_json: Json = False,
) -> None:
    """Compare arms on the same questions; the same command again goes on where it stopped."""
    from honestproxy.evals import arms as arming
    from honestproxy.evals import prices, stats
    from honestproxy.evals.log import Folder
    from honestproxy.evals.patience import Patience
    from honestproxy.ray.cluster import Reserved

    question.check(settings)
    stats.check_installed()  # what the report needs, before hours are spent on answers
    loaded = _loaded(data, task, seed)
    chosen = _chosen(loaded, limit=limit, number=number, seed=seed)
    if cost is not None:
        prices.parse(cost)  # a wrong one is told before anything is asked
    wanted = arming.parse(arms or _usual(settings), settings.upstream, settings.model)
    fields = {"temperature": temperature, "max_tokens": max_tokens}
    with Folder(out) as folder:
        asked = Asked(
            settings=settings,
            folder=folder,
            data=loaded,
            samples=chosen,
            arms=wanted,
            draws={"seed": seed, "limit": limit, "sample": number},
            fields={name: value for name, value in fields.items() if value is not None},
            patience=Patience(attempts=retries + 1),
            price=cost,
            concurrency=concurrency,
            share_drafts=share_drafts,
            bench=_bench(settings, judge, judge_model, judges, concurrency),
            cluster=cluster,
            reserved=Reserved(workers, cpus, gpus),
        )
        with _resumable(out):
            tally = asyncio.run(_run(asked))
    del loaded, chosen, asked  # the report reads them again: no need to hold them twice
    _tell(tally, out, as_json=as_json)


def _loaded(data: Sequence[str], task: str | None, seed: int) -> list[Loaded]:
    """The questions of each source."""
    from honestproxy.evals import samples

    sources = [samples.parse(spec, task) for spec in data]
    for source in sources:
        _check_answered(source)
    loaded = [samples.load(source, seed) for source in sources]
    for note in filter(None, (one.note for one in loaded)):
        stderr().print(safe(note), soft_wrap=True)
    return loaded


def _chosen(
    loaded: Sequence[Loaded], *, limit: int | None, number: int | None, seed: int
) -> list[Sample]:
    """Those of them that are asked."""
    from honestproxy.evals import samples

    every = [sample for some in loaded for sample in some.samples]
    return samples.chosen(every, limit=limit, number=number, seed=seed)


def _bench(
    settings: Settings, upstream: str | None, model: str | None, names: str | None, concurrency: int
) -> Bench | None:
    """Who judges, if anyone does."""
    from honestproxy.evals import judges
    from honestproxy.evals.here import Bench
    from honestproxy.templates import Prompts

    if upstream is None:
        if model or names:
            raise EvaluationError("--judges and --judge-model need a model: --judge UPSTREAM")
        return None
    given = [name.strip() for name in (names or "").split(",") if name.strip()]
    if names is not None and not given:
        raise EvaluationError("--judges names none; give some, or leave it out for the usual ones")
    chosen = judges.load(given or judges.USUAL, Prompts(settings.prompts))
    return Bench(chosen, upstream, model, concurrency)


def _usual(settings: Settings) -> str:
    own = "introspect" if settings.upstream.startswith("local:") else "gated"
    return f"raw,{settings.strategy or own}"


@contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """Say how to go on, where a run that has begun is stopped."""
    try:
        yield
    except KeyboardInterrupt:
        stderr().print(f"stopped; the same command goes on: {safe(str(out))}", soft_wrap=True)
        raise


async def _run(asked: Asked) -> Tally:
    from honestproxy.evals.configuration import configuration
    from honestproxy.evals.runs import Experiment, run

    async with _placed(asked) as place:
        arms = await place.known(asked.arms)
        answers = await place.answers(arms)
        judging = await _judging(place, asked.bench) if asked.bench else None
        config = configuration(
            data=asked.data,
            samples=len(asked.samples),
            arms=arms,
            settings=asked.settings,
            draws=asked.draws,
            fields=asked.fields,
            share_drafts=asked.share_drafts,
            judge=judging.config if judging else None,
            price=asked.price,
        )
        log = asked.folder.start(config, asked.samples)
        for note in log.notes:
            stderr().print(safe(note), soft_wrap=True)
        experiment = Experiment(
            asked.samples,
            answers,
            judging,
            _prices(_price(asked.folder), arms),
            _judge_price(asked, judging),
            place.concurrency,
            asked.share_drafts,
        )
        with watched() as watch:
            try:
                return await run(experiment, log, watch)
            except HonestProxyError as error:
                raise error.adding(_kept(asked, log)) from None


async def _judging(place: Place, bench: Bench) -> Judging:
    try:
        return await place.judging(bench)
    except HonestProxyError as error:
        raise error.adding("this was the judge") from None


def _placed(asked: Asked) -> AbstractAsyncContextManager[Place]:
    """Where the questions are asked."""
    from honestproxy.evals.here import Asking, Here
    from honestproxy.ray.cluster import Reserved

    asking = Asking(asked.settings, asked.patience, asked.fields)
    if asked.cluster is None and asked.reserved != Reserved():
        raise EvaluationError("--ray-workers, --ray-cpus and --ray-gpus need a cluster: --ray …")
    if asked.cluster is None:
        return Here(asking, _opened, asked.concurrency)
    from honestproxy.ray.spread import spread

    return spread(asked.cluster, asked.reserved, asking, asked.concurrency)


async def _opened(settings: Settings) -> Backend:
    from honestproxy.evals.here import ready

    with noted(f"loading {blotted(settings.upstream)} …") as note:
        return await ready(settings, note.update)


def _kept(asked: Asked, log: Log) -> str:
    total = len(asked.samples) * len(asked.arms)
    kept = f"{len(log.done.answers)} of {count(total, 'answer')}"
    return f"{kept} are in {asked.folder.path}; the same command goes on from there"


def _check_answered(source: Source) -> None:
    if source.name == "truthfulqa-mc":
        raise EvaluationError(
            "truthfulqa-mc is weighed by log-probabilities, not answered: honestproxy mc "
            f"truthfulqa-mc:{source.where}; for answers, give truthfulqa:FILE"
        )


def _price(folder: Folder) -> str | None:
    """The price that the run was given last, now or before: the report counts by it, too."""
    from honestproxy.evals.log import configuration

    return (configuration(folder.path) or {}).get("price")


def _prices(price: str | None, arms: list[Arm]) -> dict[str, Price]:
    from honestproxy.evals import prices

    given = prices.parse(price) if price else None
    found = {
        arm.name: given or prices.known(arm.upstream, arm.model or "")
        for arm in arms
        if arm.upstream
    }
    return {name: price for name, price in found.items() if price}


def _judge_price(asked: Asked, judging: Judging | None) -> Price | None:
    from honestproxy.evals import prices

    if judging is None or asked.bench is None:
        return None
    return prices.known(asked.bench.upstream, judging.config["model"])


def _tell(tally: Tally, out: Path, *, as_json: bool) -> None:
    from honestproxy.evals import report

    if not as_json:  # first: what is in the folder stays there, whatever becomes of the report
        stderr().print(_facts(tally, out), soft_wrap=True)
        if tally.judge_failure is not None:
            what = f"{count(tally.unjudged, 'sample')} not judged: {safe(tally.judge_failure)}"
            stderr().print(f"{what}; the same command asks again", soft_wrap=True)
    verdict = report.write(out).verdict
    body = {
        "out": str(out),
        "answers": tally.done,
        "kept": tally.kept,
        "failed": tally.failed,
        "judged": tally.judged,
        "unjudged": tally.unjudged,
        "judge_failure": tally.judge_failure,
        "tokens": tally.tokens,
        "dollars": round(tally.dollars, 6) if tally.priced else None,
        "verdict": verdict,
    }
    if as_json:
        print_json(body)
    else:
        stdout().print(safe(verdict), soft_wrap=True)
    if tally.failed == tally.done:
        raise typer.Exit(FAILURE)


def _facts(tally: Tally, out: Path) -> str:
    parts = [
        count(tally.done, "answer"),
        f"{tally.kept} from before" if tally.kept else "",
        f"{tally.failed} failed" if tally.failed else "",
        count(tally.tokens, "token") if tally.tokens else "",
        f"${tally.dollars:.4f}" if tally.priced else "",
        safe(str(out)),
    ]
    return " · ".join(filter(None, parts))
