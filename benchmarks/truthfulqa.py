"""TruthfulQA's MC1 and MC2 beside those of lm-eval, question by question.

    make .venv-peers/lm-eval/.installed
    python benchmarks/truthfulqa.py --data PATH/TruthfulQA.csv --lm-eval .venv-peers/lm-eval
        [--number 100] [--seed 0] [--primer FILE] [--model SPEC] [--out DIR] [--json]

Questions are drawn by the seed, their choices shuffled, and written to one file, which both are
given, with the same weights in float32 and the same primer: FILE, or else the six questions of
lm-eval's own task, read from its installation (none of them stands here). lm-eval takes some four
seconds a question on two cores, so what it said is kept in DIR and not asked for again. The exit
status is 1 where a question's MC1 or MC2 differs by more than 1e-3.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from honestproxy.backends.local import Local, embedded
from honestproxy.evals import samples
from honestproxy.evals.multiple_choice import Row, measured
from honestproxy.evals.records import Sample
from honestproxy.settings import Settings

TOLERANCE: Final = 1e-3
MEASURES: Final = ("mc1", "mc2")
MARK: Final = "the question"
STOCK: Final = f"""
import importlib.util, pathlib, sys, jinja2, yaml
place = pathlib.Path(importlib.util.find_spec("lm_eval").origin).parent / "tasks/truthfulqa"
if sys.argv[1:] == ["primer"]:
    template = yaml.safe_load((place / "truthfulqa_mc1.yaml").read_text())["doc_to_text"]
    text = jinja2.Environment(keep_trailing_newline=True).from_string(template)
    print(text.render(question={MARK!r}), end="")
else:
    print(place, end="")
"""
"""What only lm-eval's own Python can tell: where its task lies, and the text that it makes."""


@dataclass(frozen=True, slots=True)
class Theirs:
    """What lm-eval made of one question: its measure, and each choice's log-probability."""

    value: float
    logprobs: dict[str, float]


class LmEval:
    """An installation of lm-eval in a virtual environment of its own."""

    def __init__(self, venv: Path) -> None:
        self._python = venv.absolute() / "bin" / "python"  # not resolved: the link is the venv
        self.stock = Path(self._told("place"))

    def primer(self) -> str:
        """The six questions that its task begins with, and their answers."""
        return self._told("primer").removesuffix(f"\n\nQ: {MARK}\nA:")

    def version(self) -> str:
        return self._run("-c", "from importlib.metadata import version as v; print(v('lm-eval'))")

    def measure(self, model: Path, data: Path, primer: str, out: Path) -> None:
        """Let it measure both, offline, on the CPU."""
        for name in MEASURES:
            task = self._task(name, data, primer)
            (out / f"{name}.yaml").write_text(json.dumps(task, indent=1))  # JSON is YAML, too
        command = ["-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "8"]
        command += ["--model_args", f"pretrained={model},dtype=float32", "--log_samples"]
        command += ["--tasks", "honest_mc1,honest_mc2", "--include_path", str(out)]
        self._run(*command, "--output_path", str(out / "results"), HF_HOME=str(out / "hub"))

    def _task(self, name: str, data: Path, primer: str) -> dict[str, Any]:
        """Its own task; data, primer and the true choice's place are ours."""
        fenced = f"{{% raw %}}{primer}\n\n{{% endraw %}}" if primer else ""
        return {
            "include": str(self.stock / f"truthfulqa_{name}.yaml"),
            "task": f"honest_{name}",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"validation": str(data)}},
            "doc_to_text": fenced + "Q: {{question}}\nA:",
            "doc_to_target": f"{{{{{name}_targets.labels.index(1)}}}}",
        }

    def _told(self, what: str) -> str:
        return self._run("-c", STOCK, what)

    def _run(self, *words: str, **more: str) -> str:
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        command = [str(self._python), *words]
        env = {**os.environ, **offline, **more}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"lm-eval failed:\n{done.stderr[-3000:]}")
        return done.stdout


def targets(sample: Sample, seed: int) -> dict[str, Any]:
    """A question with its choices in the shape of the data set's own multiple-choice files."""
    best, *others = sample.answers
    wrong = [(text, 0) for text in sample.wrong]
    shuffled = random.Random(f"{seed}/{sample.id}")
    row: dict[str, Any] = {"question": sample.question, "category": sample.kind}
    for name, true in (("mc1", [best]), ("mc2", [best, *others])):
        choices = [*((text, 1) for text in true), *wrong]
        shuffled.shuffle(choices)
        texts, labels = zip(*choices, strict=True)
        row[f"{name}_targets"] = {"choices": texts, "labels": labels}
    return row


def drawn(data: Path, number: int, seed: int) -> str:
    """The file that both are given."""
    source = samples.parse(f"truthfulqa-mc:{data}:{number}")
    rows = [targets(sample, seed) for sample in samples.load(source, seed).samples]
    random.Random(seed).shuffle(rows)
    return "".join(json.dumps(row) + "\n" for row in rows)


def theirs(out: Path, name: str) -> list[Theirs]:
    """What lm-eval logged, in the order of the file."""
    (log,) = (out / "results").rglob(f"samples_honest_{name}_*.jsonl")
    lines = sorted(map(json.loads, log.read_text().splitlines()), key=lambda line: line["doc_id"])
    return [Theirs(float(line["acc"]), dict(_logged(line, name))) for line in lines]


def _logged(line: dict[str, Any], name: str) -> Iterator[tuple[str, float]]:
    for text, told in zip(line["doc"][f"{name}_targets"]["choices"], line["resps"], strict=True):
        yield text, float(told[0][0])


def compared(rows: Sequence[Row], out: Path) -> dict[str, Any]:
    """Both totals, and how far any question lies apart."""
    logged = {name: theirs(out, name) for name in MEASURES}
    values = {
        name: [
            (float(getattr(row, name)), one.value)
            for row, one in zip(rows, logged[name], strict=True)
        ]
        for name in MEASURES
    }
    largest = {name: max(abs(ours - other) for ours, other in values[name]) for name in MEASURES}
    pairs = [
        (choice.logprob, one.logprobs[choice.text])
        for name in MEASURES
        for row, one in zip(rows, logged[name], strict=True)
        for choice in row.of(name)
    ]
    return {
        "questions": len(rows),
        "choices": sum(len(row.choices) for row in rows),
        "ours": {name: _mean([ours for ours, _ in values[name]]) for name in MEASURES},
        "lm-eval": {name: _mean([other for _, other in values[name]]) for name in MEASURES},
        "largest": {**largest, "logprob": max(abs(ours - other) for ours, other in pairs)},
        "rows": values,
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


async def ours(model: str, data: Path, primer: str) -> tuple[list[Row], float]:
    """Our measure of the same file, and the seconds it took with loading the model."""
    started = time.perf_counter()
    backend = Local(model, Settings(), dtype="float32")
    found = samples.load(samples.parse(f"truthfulqa-mc:{data}"))
    rows = await measured(found.samples, backend, primer=primer)
    seconds = time.perf_counter() - started
    await backend.aclose()
    return rows, seconds


def folder(model: str) -> Path:
    """Where the model's weights lie."""
    return embedded.fetch(Settings().cache) if model == embedded.NAME else Path(model).resolve()


def prepared(asked: argparse.Namespace, lm_eval: LmEval) -> tuple[Path, str]:
    """A folder that holds the questions, the primer and what lm-eval says of them."""
    primer = asked.primer.read_text("utf-8").rstrip() if asked.primer else lm_eval.primer()
    text, model = drawn(asked.data, asked.number, asked.seed), folder(asked.model)
    said = json.dumps([text, primer, str(model), lm_eval.version()])
    out = asked.out.resolve() / hashlib.sha256(said.encode()).hexdigest()[:16]
    if not (out / "done").exists():
        out.mkdir(parents=True, exist_ok=True)
        (out / "questions.jsonl").write_text(text, "utf-8")
        (out / "primer.txt").write_text(primer, "utf-8")
        started = time.perf_counter()
        lm_eval.measure(model, out / "questions.jsonl", primer, out)
        (out / "done").write_text(f"{time.perf_counter() - started:.0f}")
    return out, primer


def shown(body: dict[str, Any]) -> Iterator[str]:
    yield f"{body['questions']} questions, {body['choices']} choices, {body['model']}, float32"
    primer = body["primer"]
    yield f"primer: {primer['questions']} questions, SHA-256 {primer['sha256'][:16]}"
    for name in ("ours", "lm-eval"):
        found = body[name]
        seconds = f"{found['seconds']:.0f} s with loading"
        yield f"{name:<8} MC1 {found['mc1']:.6f}  MC2 {found['mc2']:.6f}  {seconds}"
    most = body["largest"]
    yield "largest difference of a question: " + ", ".join(
        f"{what} {most[name]:.1e}"
        for what, name in (("MC1", "mc1"), ("MC2", "mc2"), ("log-probability", "logprob"))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lm-eval", type=Path, required=True)
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--primer", type=Path)
    parser.add_argument("--model", default=embedded.NAME)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "truthfulqa")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    out, primer = prepared(asked, LmEval(asked.lm_eval))
    rows, seconds = asyncio.run(ours(asked.model, out / "questions.jsonl", primer))
    body = {"model": asked.model, **compared(rows, out)}
    body["ours"]["seconds"], body["lm-eval"]["seconds"] = seconds, float((out / "done").read_text())
    digest = hashlib.sha256(primer.encode()).hexdigest()
    body["primer"] = {"questions": primer.count("\nA:"), "sha256": digest}
    print(json.dumps(body) if asked.json else "\n".join(shown(body)))
    return int(max(body["largest"]["mc1"], body["largest"]["mc2"]) > TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
