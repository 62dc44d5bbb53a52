"""The questions of a report, one by one, with every arm's answer: read from the logs as needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any, Final

from honestproxy.evals.records import Answered, Record, Sample, Verdict, from_line
from honestproxy.evals.report.reading import Fact, Run
from honestproxy.types import read as read_json
from honestproxy.types import text_of

UNREAD: Final = 2_000
"""Characters kept of a judge's reply that couldn't be read."""


def rows(run: Run) -> Iterator[str]:
    """A line of JSON for each question that anyone has answered."""
    if run.is_live:
        return
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in run.files]
        for name, sample in run.samples.items():
            facts = [run.facts[arm.shown].get(name) for arm in run.arms]
            if any(facts):
                body = {**_asked(run, sample), "answers": _answers(run, name, facts, files)}
                duels = [*_duels(run, name, files)]
                yield _line({**body, "duels": duels} if duels else body)


def _line(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _asked(run: Run, sample: Sample) -> dict[str, Any]:
    before = [
        [str(m.get("role") or ""), text_of(m.get("content"))] for m in sample.conversation[:-1]
    ]
    told = {
        "id": sample.id,
        "question": sample.question,
        "category": run.category(sample.id),
        "answerable": sample.answerable,
        "before": before,
        "accepted": list(sample.answers),
        "wrong": list(sample.wrong),
    }
    return {name: value for name, value in told.items() if value not in (None, [])}


def _answers(
    run: Run, name: str, facts: list[Fact | None], files: Sequence[IO[bytes]]
) -> list[dict[str, Any] | None]:
    verdicts: dict[str, list[list[str]]] = {}
    for (_, arm, against), place in run.ruled.get(name, {}).items():
        verdict = _at(files, *place) if against is None and arm in run.facts else None
        if isinstance(verdict, Verdict):
            verdicts.setdefault(arm, []).append(_ruled(verdict))
    return [
        _answer(fact, _at(files, fact.file, fact.offset), sorted(verdicts.get(arm.shown, [])))
        if fact
        else None
        for arm, fact in zip(run.arms, facts, strict=True)
    ]


def _answer(fact: Fact, record: Record, verdicts: list[list[str]]) -> dict[str, Any] | None:
    if not isinstance(record, Answered):
        return None
    honesty = record.honesty or {}
    doubts = [[d.get("kind") or "", d.get("statement") or ""] for d in honesty.get("doubts") or []]
    draft = record.draft if record.draft != record.text else None
    usage = record.usage or {}
    told = {
        "text": record.text,
        "error": record.error,
        "label": fact.label,
        "words": fact.words if fact.words != fact.label else None,
        "outcome": honesty.get("outcome"),
        "reason": honesty.get("reason"),
        "doubts": doubts,
        "confidence": record.confidence,
        "draft": draft,
        "calls": record.calls,
        "tokens": usage.get("total_tokens"),
        "seconds": round(record.seconds, 3),
        "retries": record.retries or None,
        "verdicts": verdicts,
    }
    return {name: value for name, value in told.items() if value not in (None, [])}


def _ruled(verdict: Verdict) -> list[str]:
    """The judge, what it said, and why; its whole reply where that couldn't be read."""
    scores = ", ".join(f"{name} {score:g}" for name, score in verdict.scores.items())
    said = verdict.label or scores
    reason = verdict.reason or ("" if said else verdict.raw[:UNREAD])
    return [verdict.judge, said, reason]


def _duels(run: Run, name: str, files: Sequence[IO[bytes]]) -> Iterator[list[str]]:
    """Judge, what stood first, what stood second, which won, and why."""
    for (judge, arm, against), place in sorted(run.ruled.get(name, {}).items(), key=str):
        if against is not None and isinstance(verdict := _at(files, *place), Verdict):
            yield [judge, arm, against, verdict.label or "", verdict.reason]


def _at(files: Sequence[IO[bytes]], file: int, offset: int) -> Record:
    files[file].seek(offset)
    return from_line(read_json(files[file].readline()))
