"""`honestproxy judge`: the judges of evaluations, and what they are worth."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from honestproxy.cli import question
from honestproxy.cli.options import Json, ListByDefault, with_settings
from honestproxy.cli.output import count, noted, print_json, safe, stdout
from honestproxy.settings import Settings

if TYPE_CHECKING:
    from honestproxy.evals.judges import Judge
    from honestproxy.evals.labelled import Labelled

app = typer.Typer(cls=ListByDefault, help="Judges of evaluations: list them, check one.")

Labels = Annotated[
    Path,
    typer.Argument(
        metavar="LABELS.jsonl",
        help='What people say, one answer a line: {"question", "answer", "label"}, and as the '
        'judge needs it "category", "accepted" answers or, to compare, a "second" answer.',
    ),
]
Upstream = Annotated[
    str | None,
    typer.Option("--judge", metavar="UPSTREAM", help="The judge's upstream; else --upstream."),
]
Model = Annotated[
    str | None,
    typer.Option("--judge-model", help="Its model; else --model, or the first that it lists."),
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="Which judge; told from the labels where unset."),
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, help="Calls at a time.")]


@app.command("list")
@with_settings("prompts")
def list_(settings: Settings, as_json: Json = False) -> None:
    """List the judges: what each tells, for which questions, and after which paper."""
    rows = [_row(judge) for judge in _judges(settings)]
    if as_json:
        print_json({"judges": rows})
        return
    table = Table("judge", "tells", "of", "source", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], " ".join(row["labels"]), row["asks"], row["source"])
    stdout().print(table)


@app.command()
@with_settings("prompts")
def check(
    settings: Settings,
    labels: Labels,
    judge: Upstream = None,
    judge_model: Model = None,
    name: Name = None,
    concurrency: Concurrency = 8,
    as_json: Json = False,
) -> None:
    """Hold a judge against people's labels: agreement, kappa, position and length bias."""
    from honestproxy.evals import stats
    from honestproxy.evals.here import settings_of

    stats.check_installed()
    model = judge_model or settings.model
    settings = settings_of(settings, judge or settings.upstream).model_copy(update={"model": model})
    chosen, labelled = _labelled(settings, labels, name)
    body = asyncio.run(_checked(settings, chosen, labelled, concurrency))
    if as_json:
        print_json(body)
    else:
        _print(body)


def _judges(settings: Settings) -> list[Judge]:
    from honestproxy.evals import judges
    from honestproxy.templates import Prompts

    prompts = Prompts(settings.prompts)
    prompts.check()
    # Ours first, as they are asked by default: a file's labels may fit several.
    names = dict.fromkeys([*judges.USUAL, *judges.known(prompts)])
    return judges.load(names, prompts)


def _labelled(settings: Settings, path: Path, name: str | None) -> tuple[Judge, list[Labelled]]:
    from honestproxy.evals import judges, labelled
    from honestproxy.templates import Prompts

    if name:
        (judge,) = judges.load([name], Prompts(settings.prompts))
    else:
        judge = labelled.guessed(path, _judges(settings))
    return judge, labelled.read(path, judge)


async def _checked(
    settings: Settings, judge: Judge, labelled: list[Labelled], concurrency: int
) -> dict[str, Any]:
    from honestproxy.compatible import Compatible
    from honestproxy.evals.agreement import agreement
    from honestproxy.evals.judging import Judging
    from honestproxy.evals.labelled import judged

    backend = await question.loaded(settings)
    try:
        model = await question.pick_model(backend, settings)
        judging = Judging(
            [judge], backend, model, concurrency=concurrency, timeout=settings.step_timeout
        )
        with noted("judging …") as note:
            of = len(labelled)
            verdicts = await judged(
                labelled, judging, lambda n: note.update(f"judging: {n} of {of}")
            )
    finally:
        await Compatible(backend).aclose()
    cost = {"model": model, "calls": judging.calls, "usage": judging.usage}
    return {**agreement(judge, labelled, verdicts).body(), **cost}


def _row(judge: Judge) -> dict[str, Any]:
    settings = judge.settings
    return {
        **judge.config(),
        "about": settings.about,
        "asks": settings.asks,
        "labels": list(settings.labels.values()) or list(settings.scores),
        "source": settings.source,
        "path": str(judge.prompt.path),
    }


def _print(body: dict[str, Any]) -> None:
    console = stdout()
    tokens = body["usage"].get("total_tokens")
    costs = count(body["calls"], "call") + (f", {count(tokens, 'token')}" if tokens else "")
    console.print(f"{body['judge']}, judged by {safe(body['model'])}: {costs}\n")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("agreement", _interval(body["agreement"]))
    table.add_row("Cohen's kappa", _interval(body["kappa"]))
    table.add_row("unscored", f"{body['agreement']['unscored']} of {_all(body)}")
    if body["position"]:
        table.add_row("prefers the first position", f"{_value(body['position'])} (0.50: no bias)")
    lengths = f"{_value(body['length'])} (people: {_value(body['human_length'])})"
    table.add_row("rank correlation with length", lengths)
    console.print(table)
    console.print()
    console.print(_matrix(body["matrix"]))


def _matrix(counts: dict[str, dict[str, int]]) -> Table:
    columns = list(next(iter(counts.values())))
    table = Table("people \\ judge", *columns, box=None, pad_edge=False)
    for label, row in counts.items():
        table.add_row(label, *(str(number) if number else "·" for number in row.values()))
    return table


def _all(body: dict[str, Any]) -> int:
    return body["agreement"]["n"] + body["agreement"]["unscored"]  # type: ignore[no-any-return]


def _interval(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "undefined"
    bounds = (
        f"[{estimate['low']:.2f}, {estimate['high']:.2f}]" if estimate["low"] is not None else ""
    )
    return f"{estimate['value']:.2f} {bounds}, {count(estimate['n'], 'answer')}"


def _value(figure: dict[str, Any]) -> str:
    return "undefined" if figure["value"] is None else f"{figure['value']:.2f}"
