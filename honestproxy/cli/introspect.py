"""`honestproxy introspect`: teach a local model's reader where it is in doubt, and ask it why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from honestproxy.cli import question
from honestproxy.cli.options import Json, with_settings
from honestproxy.cli.output import Note, count, noted, print_json, safe, stdout
from honestproxy.cli.question import System, Words
from honestproxy.errors import SettingsError
from honestproxy.settings import Settings
from honestproxy.settings.references import blotted

if TYPE_CHECKING:
    from honestproxy.backends.local import Local
    from honestproxy.backends.local.exemplars import Exemplar
    from honestproxy.backends.local.own import Files, Given
    from honestproxy.backends.local.sense import Ready, Sense
    from honestproxy.doubts import Scores
    from honestproxy.trace import Honesty
    from honestproxy.types import Message

app = typer.Typer(
    no_args_is_help=True, help="Doubt inside local models: fit a reader to your data, explain it."
)

Data = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="DATA.jsonl",
        help='Labelled questions, one a line: {"text" or "messages", "kind", "sub"}.',
    ),
]
Forget = Annotated[
    list[str] | None,
    typer.Option("--forget", "--remove", metavar="NAME", help="Take a file of yours away."),
]
Number = Annotated[int, typer.Option("-k", min=1, help="How many exemplars to show.")]


@app.command()
@with_settings("exemplars", "cache")
def fit(
    settings: Settings, data: Data = None, forget: Forget = None, as_json: Json = False
) -> None:
    """Fit the reader to your labelled questions, kept beside ours; say how well it tells."""
    from honestproxy.backends.local import own

    _check_local(settings)
    given = [own.given(path) for path in data or ()]
    gone = [own.named(name, settings.exemplars) for name in forget or ()]
    _check_names([file.name for file in given], [path.name for path in gone])
    kept = own.kept(settings.exemplars, {file.name for file in given} | {p.name for p in gone})
    there = {path.name for path in own.paths(settings.exemplars)}
    files = kept | {file.name: file.exemplars for file in given}
    with own.storing(given, settings.exemplars):
        name, ready = asyncio.run(_fitted(settings, files))
    own.forget(gone)
    changes = _changes(given, there, [path.name for path in gone])
    body = _report(name, ready, files) | {"changes": changes}
    if as_json:
        print_json(body)
    else:
        _print_report(body)


@app.command()
@with_settings("exemplars", "cache", "prompts", "capabilities")
def explain(
    settings: Settings,
    words: Words,
    system: System = None,
    number: Number = 5,
    as_json: Json = False,
) -> None:
    """Say what the reader sees in a question, what `introspect` would do, and what it is like."""
    _check_local(settings)
    question.check(settings)
    messages = question.conversation(words, system)
    body = asyncio.run(_explained(settings, messages, number))
    if as_json:
        print_json(body)
    else:
        _print_explained(body)


def _check_local(settings: Settings) -> None:
    if not settings.upstream.startswith("local:"):
        raise SettingsError(
            f"upstream {blotted(settings.upstream)!r} shows no hidden states: introspect reads "
            "local models only; give --upstream local:<name, folder, GGUF file or hub id>"
        )


def _check_names(given: Sequence[str], gone: Sequence[str]) -> None:
    names = [*given, *gone]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"{twice[0]} is named twice: rename one, or leave it out")


@asynccontextmanager
async def _sensing(settings: Settings) -> AsyncIterator[tuple[Local, Sense, Note]]:
    """The local model and what reads inside it, until the block is left."""
    from honestproxy.backends.local import Local

    local = Local(settings.upstream.removeprefix("local:"), settings)
    try:
        with noted(f"loading {settings.upstream} …") as note:
            yield local, await local.sense(settings.model or "", note.update), note
    finally:
        await local.aclose()


async def _fitted(settings: Settings, files: Files) -> tuple[str, Ready]:
    from honestproxy.backends.local import own

    theirs = own.joined(files)
    async with _sensing(settings) as (local, sense, note):
        return local.name, await sense.ready(note.update, theirs)


def _changes(given: Sequence[Given], there: set[str], gone: Sequence[str]) -> list[dict[str, Any]]:
    """What became of the user's files."""
    rows = [(file, "replaced" if file.name in there else "added") for file in given]
    kept = [{"file": f.name, "exemplars": len(f.exemplars), "change": how} for f, how in rows]
    return [*kept, *({"file": name, "change": "forgotten"} for name in gone)]


def _report(name: str, ready: Ready, files: Files) -> dict[str, Any]:
    """What the reader is, and how well it tells doubt, out of fold."""
    from honestproxy.backends.local import evaluation

    exemplars, reader = ready.exemplars, ready.reader
    own = [row for row, exemplar in enumerate(exemplars) if exemplar.own]
    alone = evaluation.enough([exemplars[row] for row in own])
    return {
        "model": name,
        "exemplars": {"shipped": len(exemplars) - len(own), "own": len(own)},
        "files": sorted(files),
        "reader": reader.digest,
        "layers": ready.numbers,
        "depth": len(ready.layers.modules),
        "threshold": reader.threshold,
        "all": evaluation.figures(reader, exemplars, range(len(exemplars))),
        "own": evaluation.figures(reader, exemplars, own) if alone else None,
    }


def _print_report(body: dict[str, Any]) -> None:
    console = stdout()
    for change in body["changes"]:
        number = f": {count(change['exemplars'], 'exemplar')}" if "exemplars" in change else ""
        console.print(f"{change['change']} {safe(change['file'])}{number}", soft_wrap=True)
    shipped, own = body["exemplars"]["shipped"], body["exemplars"]["own"]
    yours = f", {own} of yours ({safe(', '.join(body['files']))})" if own else ""
    console.print(f"{safe(body['model'])}: {shipped} exemplars of ours{yours}", soft_wrap=True)
    read = " and ".join(map(str, body["layers"]))
    console.print(
        f"layer {read} of {body['depth']} · threshold {body['threshold']:.2f} · "
        f"reader {body['reader']}"
    )
    _print_figures("all exemplars", body["all"])
    if body["own"]:
        _print_figures("yours alone", body["own"])
    elif own:
        from honestproxy.backends.local.evaluation import ENOUGH, SOME

        console.print(
            f"\nYours alone are judged from {ENOUGH} on, {SOME} in doubt and {SOME} without."
        )


def _print_figures(title: str, figures: dict[str, Any]) -> None:
    console = stdout()
    console.print(Text(f"\n{title}, each judged by a reader fitted without it", "bold"))
    console.print(
        f"{figures['exemplars']} exemplars, {figures['doubtful']} in doubt · "
        f"AUROC {figures['auroc']:.3f} · "
        f"recall {_percent(figures['recall_at_5_percent'])} at 5 % false alarms\n"
        f"at the threshold: recall {_percent(figures['recall'])}, "
        f"false alarms {_percent(figures['false_alarms'])}\n"
    )
    console.print(_confusion(figures["confusion"]))
    console.print()
    console.print(_reliability(figures["reliability"]))
    console.print(f"Brier score {figures['brier']:.3f} · ECE {figures['ece']:.3f}")


def _confusion(counts: dict[str, dict[str, int]]) -> Table:
    """True kinds as rows; the columns bear the rows' numbers, for want of room."""
    table = Table("", "kind \\ read as", box=None, pad_edge=False)
    for number in range(1, len(counts) + 1):
        table.add_column(str(number), justify="right")
    for number, (kind, row) in enumerate(counts.items(), 1):
        table.add_row(str(number), kind, *(str(n) if n else "·" for n in row.values()))
    return table


def _reliability(bins: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("probability", "exemplars", "mean predicted", "in doubt"):
        table.add_column(heading, justify="right")
    for row in bins:
        span = f"{row['from']:.1f}–{row['to']:.1f}"
        shares = (f"{row['predicted']:.2f}", f"{row['doubtful']:.2f}")
        table.add_row(span, str(row["n"]), *shares)
    return table


async def _explained(settings: Settings, messages: list[Message], number: int) -> dict[str, Any]:
    from honestproxy.conversation import lifted
    from honestproxy.types import ChatRequest

    request = ChatRequest({"model": settings.model or "", "messages": messages})
    async with _sensing(settings) as (local, sense, note):
        await sense.ready(note.update)
        found, nearest = await sense.explain(request, number)
    scores = found.without(lifted(request, settings.capabilities))
    kinds = sorted(scores.kinds, key=lambda kind: -scores.kinds[kind])
    return {
        "model": local.name,
        "doubt": scores.doubt,
        "threshold": scores.threshold,
        "in_doubt": scores.doubt > scores.threshold,
        "kinds": [
            {"kind": kind, "probability": scores.kinds[kind], "sub": scores.form(kind)}
            for kind in kinds
        ],
        "introspect": await _would_do(settings, request.messages, scores),
        "nearest": [_neighbour(exemplar, cosine) for exemplar, cosine in nearest],
    }


def _neighbour(exemplar: Exemplar, cosine: float) -> dict[str, Any]:
    named = {"file": exemplar.file.name, "line": exemplar.line} if exemplar.file else {}
    return {
        "similarity": cosine,
        "kind": exemplar.kind,
        "sub": exemplar.sub or None,
        "own": exemplar.own,
        **named,
        "text": exemplar.text,
    }


async def _would_do(settings: Settings, messages: list[Message], scores: Scores) -> dict[str, Any]:
    """What becomes of a turn with these scores: the real pipeline, before a model that is played.

    So this can't differ from what `introspect` does.
    """
    from honestproxy.templates import Prompts

    honesty = await _played(settings, messages, scores)
    prompt = next((step.prompt for step in honesty.trace.steps if step.prompt), None)
    parts = Prompts(settings.prompts)[prompt].parts() if prompt else []
    # What stands in a gap, the model says only while it answers.
    opening = "".join(part or "…" for part in parts) or None
    told = {"outcome": honesty.outcome, "reason": honesty.reason}
    return {**told, "prompt": prompt, "opening": opening}


async def _played(settings: Settings, messages: list[Message], scores: Scores) -> Honesty:
    from honestproxy.backends.scripted import Scripted
    from honestproxy.pipeline import Pipeline
    from honestproxy.types import ChatRequest, Options

    class Played(Scripted):
        async def read(self, request: ChatRequest) -> Scores:
            return scores

    free = settings.model_copy(update={"strategies_allowed": None})
    options = Options(strategy="introspect")
    request = ChatRequest({"model": "played", "messages": messages}, options=options)
    run = Pipeline(Played(lambda request: "…"), free).run(request)
    await run.complete()
    return run.honesty


def _print_explained(body: dict[str, Any]) -> None:
    console = stdout()
    side = "above" if body["in_doubt"] else "not above"
    console.print(
        f"doubt {body['doubt']:.2f}, {side} the threshold {body['threshold']:.2f}\n",
    )
    console.print(_kinds(body["kinds"]))
    would = body["introspect"]
    console.print()
    if would["prompt"]:
        opening = safe(would["opening"])
        console.print(f"introspect would open the answer with {would['prompt']}.md:")
        console.print(Text(f"  {opening}"), soft_wrap=True)
    else:
        console.print(f"introspect would leave the answer untouched ({would['reason']})")
    console.print()
    console.print(_nearest(body["nearest"]))


def _kinds(rows: list[dict[str, Any]]) -> Table:
    table = Table("kind", "probability", "likeliest", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["kind"], f"{row['probability']:.3f}", row["sub"] or "")
    return table


def _nearest(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("cosine", "kind", "whose", "nearest exemplars"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        whose = safe(f"yours, {row['file']}:{row['line']}") if row["own"] else "shipped"
        kind = f"{row['kind']} {row['sub']}" if row["sub"] else row["kind"]
        text = " ".join(safe(row["text"]).split())
        table.add_row(f"{row['similarity']:.2f}", kind, whose, Text(text))
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
