"""`honestproxy mc`: multiple choice by log-probabilities (MC1, MC2), on local models."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from honestproxy.cli.options import Json, with_settings
from honestproxy.cli.output import count, noted, print_json, safe, stdout
from honestproxy.errors import EvaluationError, SettingsError
from honestproxy.settings import Settings
from honestproxy.settings.references import blotted

if TYPE_CHECKING:
    from honestproxy.evals.multiple_choice import Row
    from honestproxy.evals.records import Sample
    from honestproxy.evals.stats import Estimate

Data = Annotated[
    list[str],
    typer.Argument(
        metavar="[TASK:]FILE[:N]...",
        help="Questions with `answers`, the best one first, and `wrong` ones; or a task's data, "
        "as truthfulqa-mc:TruthfulQA.csv. `:N` draws N by the seed.",
    ),
]
Primer = Annotated[
    Path | None,
    typer.Option(
        help="Text to stand before each question: others with their answers, as "
        "'Q: …', newline, 'A: …', with blank lines between them."
    ),
]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16"],
    typer.Option(help="What to compute in; anything but float32 rounds log-probabilities."),
]
Task = Annotated[str | None, typer.Option("--task", help="Task of data that name none.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Ask the first so many only.")]
Number = Annotated[int | None, typer.Option("--sample", min=1, help="Draw so many by the seed.")]
Seed = Annotated[int, typer.Option(help="Of what is drawn, and of the order of choices.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="File for all choices, a question a line (JSONL).")
]


@with_settings("cache")
def mc(
    settings: Settings,
    data: Data,
    primer: Primer = None,
    dtype: Dtype = "float32",
    task: Task = None,
    limit: Limit = None,
    number: Number = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Measure by log-probabilities how likely right answers are to a local model: MC1 and MC2."""
    from honestproxy.evals import samples, stats

    if not settings.upstream.startswith("local:"):
        raise SettingsError(
            f"mc weighs given texts, which {blotted(settings.upstream)!r} can't; name a local "
            "model, such as local:smollm2-135m-instruct"
        )
    stats.check_installed()
    loaded = [samples.load(samples.parse(spec, task), seed) for spec in data]
    every = [sample for some in loaded for sample in some.samples]
    chosen = samples.chosen(every, limit=limit, number=number, seed=seed)
    text = _read(primer) if primer else ""
    if out:
        _check_writable(out)  # before hours are spent on what is to be in it
    name, rows = asyncio.run(_measured(settings, chosen, text, dtype, seed))
    try:
        if out:
            out.write_text("".join(json.dumps(row.body()) + "\n" for row in rows), "utf-8")
    finally:  # whatever becomes of the file
        body = {
            "model": name,
            "dtype": dtype,
            "data": [some.config() for some in loaded],
            "seed": seed,
            "primer": _about(primer, text),
            **_figures(rows, seed),
        }
        _tell(body, as_json=as_json)


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8").strip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path}: can't be read: {error}") from None
    if not text.strip():
        raise EvaluationError(f"{path}: the primer is empty; leave --primer out for none")
    return text


def _check_writable(out: Path) -> None:
    """Make the folder of a file, and see that the file can be written; what is in it stays."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        is_new = not out.exists()
        out.open("ab").close()
        if is_new:
            out.unlink()
    except OSError as error:
        raise EvaluationError(f"{out}: can't be written: {error.strerror}") from None


def _about(path: Path | None, text: str) -> dict[str, Any] | None:
    """Where the primer is from, and a digest of what stands before each question."""
    if path is None:
        return None
    return {"path": str(path), "sha256": hashlib.sha256(text.rstrip().encode()).hexdigest()}


async def _measured(
    settings: Settings, samples: Sequence[Sample], primer: str, dtype: str, seed: int
) -> tuple[str, list[Row]]:
    from honestproxy.backends.local import Local
    from honestproxy.evals.multiple_choice import measured

    local = Local(settings.upstream.removeprefix("local:"), settings, dtype=dtype)
    if settings.model not in (None, local.name):
        raise SettingsError(f"model {settings.model!r} isn't here; there is {local.name!r}")
    try:
        with noted(f"loading {settings.upstream} …") as note:
            await local.load(note.update)

            def told(done: int, total: int) -> None:
                note.update(f"weighing choices: question {done} of {total}")

            return local.name, await measured(samples, local, told, primer=primer, seed=seed)
    finally:
        await local.aclose()


def _figures(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    from honestproxy.evals.multiple_choice import figures

    found = figures(rows, seed=seed)
    errors = [{"sample": row.sample, "error": row.error} for row in rows if row.error]
    return {
        "questions": len(rows),
        "choices": sum(len(row.choices) for row in rows),
        "mc1": _estimate(found.mc1, found.chance["mc1"]),
        "mc2": _estimate(found.mc2, found.chance["mc2"]),
        "unscored": errors,
    }


def _estimate(found: Estimate, chance: float | None) -> dict[str, Any]:
    return {"value": found.value, "interval": [found.low, found.high], "chance": chance}


def _tell(body: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(body)
        return
    console = stdout()
    primer = body["primer"]
    begun = f"primer {primer['path']}" if primer else "no primer (published figures have one)"
    asked = f"{count(body['questions'], 'question')}, {count(body['choices'], 'choice')}"
    console.print(safe(f"{body['model']}, {body['dtype']} · {asked} · {begun}"), soft_wrap=True)
    for name in ("mc1", "mc2"):
        console.print(f"{name.upper()} {_shown(body[name])}")
    for row in body["unscored"]:
        console.print(safe(f"unscored: {row['sample']}: {row['error']}"), soft_wrap=True)


def _shown(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return "undefined: no question could be weighed"
    low, high = found["interval"]
    return f"{found['value']:.3f} [{low:.3f}, {high:.3f}], by chance {found['chance']:.3f}"
