"""How well `introspect` tells doubt from none, on data sets that it has not learnt from.

    python benchmarks/introspect.py --data PATH [--half tune|report] [--sample 150]
        [--situations FILE] [--answers FILE]

PATH holds `honeset/`, `alignment_for_honesty/`, `selfaware/` and `trustllm/`. Each set is split
by the SHA-256 of a row's text: the even half, `tune`, may be looked at while working; the other,
`report`, is for figures alone. FILE holds situations, a JSON object a line: `id`, `messages`,
and as `expect` the doubts that should be found; those with tools or images are left out.
`--answers` writes, a JSON object a line, what the wrapped model answers to HoneSet's questions,
for a judge: opened answers, up to `--number`, and as many of the others as came between.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from honestproxy.backends.local import Local
from honestproxy.doubts import Scores
from honestproxy.pipeline import Pipeline
from honestproxy.settings import Settings
from honestproxy.strategies.introspect import UNCLEAR, named
from honestproxy.types import ChatRequest, Options

KINDS = {
    "Latest Information with External Services": "latest_information",
    "User Input Not Enough Or With Wrong Information": "user_input",
    "Professional Capability in Specific Domains": "professional_capability",
    "Modality Mismatch": "modality_mismatch",
    "Interactivity Sensory Processing": "interactivity_sensory",
    "Self Identity Cognition": "self_identity",
}
Row = tuple[str, str | None]


def sets(data: Path) -> dict[str, list[Row]]:
    """Rows of each set: a text, and its kind of doubt where the set says."""
    honeset = json.loads((data / "honeset" / "honeset_dev.json").read_text())
    pkqa = (data / "alignment_for_honesty" / "pkqa_13b.jsonl").read_text().splitlines()
    aware = json.loads((data / "selfaware" / "SelfAware.json").read_text())["example"]
    safety = json.loads((data / "trustllm" / "exaggerated_safety.json").read_text())
    return {
        "honeset_dev": [(row["instruction"], KINDS.get(row["category"])) for row in honeset],
        "pkqa_13b": [(json.loads(line)["question"], None) for line in pkqa],
        "SelfAware, answerable": [(row["question"], None) for row in aware if row["answerable"]],
        "SelfAware, unanswerable": [
            (row["question"], None) for row in aware if not row["answerable"]
        ],
        "exaggerated_safety": [(row["prompt"], None) for row in safety],
    }


def half(rows: list[Row], name: str, sample: int) -> list[Row]:
    odd = name == "report"
    mine = [r for r in rows if int(hashlib.sha256(r[0].encode()).hexdigest(), 16) % 2 == odd]
    return random.Random(0).sample(mine, min(sample, len(mine)))


async def scores(backend: Local, messages: Any) -> Scores:
    asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return await backend.read(ChatRequest({"messages": asked}))


async def measured(backend: Local, name: str, chosen: list[Row]) -> None:
    """Print what is found in one set, and whether the openings name the right kind."""
    found, by_kind, named_kinds, right = 0, Counter[str](), 0, 0
    for text, kind in chosen:
        read = await scores(backend, text)
        if read.doubt > read.threshold:
            found += 1
            by_kind[kind or "-"] += 1
            opening = named(read).partition("-")[0]
            named_kinds += opening != UNCLEAR
            right += opening == kind
    print(f"{name}: doubt in {found} of {len(chosen)} = {found / len(chosen):.1%}")
    of_kind = Counter(kind for _, kind in chosen if kind)
    for kind, total in of_kind.items():
        print(f"    {kind}: {by_kind[kind]} of {total}")
    if of_kind and named_kinds:
        share = f"{right} of {named_kinds} = {right / named_kinds:.1%}"
        print(f"    kind right, where an opening names one: {share}")


async def situations(backend: Local, rows: list[dict[str, Any]]) -> None:
    """Print how many situations are read as expected, and which aren't."""
    plain = [row for row in rows if not row.get("tools") and _textual(row["messages"])]
    missed = []
    for row in plain:
        read = await scores(backend, row["messages"])
        if (read.doubt > read.threshold) != bool(row["expect"]):
            missed.append(row["id"])
    right = len(plain) - len(missed)
    print(f"situations: {right} of {len(plain)} = {right / len(plain):.1%} as expected")
    print(f"    not: {', '.join(missed)}")


def _textual(messages: list[dict[str, Any]]) -> bool:
    return all(isinstance(message["content"], str) for message in messages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--half", choices=("tune", "report"), default="tune")
    parser.add_argument("--sample", type=int, default=150)
    parser.add_argument("--situations", type=Path)
    parser.add_argument("--answers", type=Path)
    parser.add_argument("--number", type=int, default=100)
    asked = parser.parse_args()
    told = asked.situations.read_text().splitlines() if asked.situations else []
    asyncio.run(compared(asked, [json.loads(line) for line in told]))


async def answered(backend: Local, rows: list[Row], number: int) -> list[dict[str, Any]]:
    """Wrapped answers, eight at a time, until so many of them are opened."""
    pipeline, told, opened = Pipeline(backend, Settings()), list[dict[str, Any]](), 0
    while rows and opened < number:
        some, rows = rows[:8], rows[8:]
        runs = [pipeline.run(_asked(text)) for text, _ in some]
        answers = await asyncio.gather(*(run.complete() for run in runs))
        for (text, kind), run, answer in zip(some, runs, answers, strict=True):
            opened += run.honesty.outcome == "rewritten"
            scores = run.honesty.body()["steps"][0]["scores"]
            row = {"question": text, "kind": kind, "outcome": run.honesty.outcome}
            told.append(row | {"opening": scores.get("opening"), "answer": answer.text})
    return told


def _asked(text: str) -> ChatRequest:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 200}
    return ChatRequest(body, options=Options(strategy="introspect"))


async def compared(asked: argparse.Namespace, told: list[dict[str, Any]]) -> None:
    backend = Local("smollm2-135m-instruct", Settings())
    await backend.load()
    started = time.perf_counter()
    await backend.load_reader(print)
    print(f"reader ready in {time.perf_counter() - started:.2f} s; half: {asked.half}")
    figures = (await (await backend.sense()).ready(print)).reader.figures
    print("out of fold:", ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    for name, rows in sets(asked.data).items():
        await measured(backend, name, half(rows, asked.half, asked.sample))
    if told:
        await situations(backend, told)
    if asked.answers:
        rows = half(sets(asked.data)["honeset_dev"], asked.half, 10**6)
        answers = await answered(backend, rows, asked.number)
        asked.answers.write_text("".join(json.dumps(row) + "\n" for row in answers))
    await backend.aclose()


main()
