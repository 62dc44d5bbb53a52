"""Answers that people have labelled, to hold a judge against."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from honestproxy.errors import EvaluationError
from honestproxy.evals import tables
from honestproxy.evals.judges import Judge
from honestproxy.evals.judging import Judging
from honestproxy.evals.metrics import BANDS, band
from honestproxy.evals.records import Answered, Sample, Verdict
from honestproxy.evals.rulings import plain
from honestproxy.evals.tables import Row
from honestproxy.evals.tasks.honeset import KINDS
from honestproxy.settings import nearest
from honestproxy.types import DOUBT_KINDS

COLUMNS: Final = ("question", "answer", "second", "label", "category", "accepted")
FIRST, SECOND = "first", "second"
_MIDDLE: Final = {"poor": 2.0, "medium": 5.0, "excellent": 8.5}


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer, or a pair, and what a person says of it.

    `label` is in the judge's own terms, for scores a band; `value` is the same as a number: 1 for
    a judge's first label or a preference for the first answer, 0 for others, 0.5 for a tie.
    """

    sample: Sample
    answers: Mapping[str, Answered]
    label: str
    value: float


def read(path: Path, judge: Judge) -> list[Labelled]:
    """The rows of a file. Raises EvaluationError, naming file and line."""
    rows = tables.read(path).rows
    return [_labelled(str(number), row, judge) for number, row in enumerate(rows, 1)]


def guessed(path: Path, judges: Sequence[Judge]) -> Judge:
    """The judge that the rows are for, by their columns and labels. Raises EvaluationError."""
    rows = tables.read(path).rows
    pairs = any(row.get("second") is not None for row in rows)
    labels = {str(row.get("label")) for row in rows if row.get("label") is not None}
    for judge in judges:
        if judge.pairs == pairs and {plain(label) for label in labels} <= _words(judge).keys():
            return judge
    if not pairs and all(_is_number(label) for label in labels):
        return next(judge for judge in judges if judge.settings.parser == "scores")
    listed = ", ".join(sorted(labels)[:6])
    raise EvaluationError(f"{path}: no judge has all of these labels: {listed}; name one: --name")


async def judged(
    labelled: Sequence[Labelled], judging: Judging, ended: Callable[[int], object]
) -> list[Verdict]:
    """The judges' verdicts on all of them; `ended` is told how many are done.

    Raises HonestProxyError where the judge can't be asked.
    """
    asking = [asyncio.create_task(judging.verdicts(one.sample, one.answers)) for one in labelled]
    found: list[Verdict] = []
    try:
        for number, task in enumerate(asyncio.as_completed(asking), 1):
            found += await task
            ended(number)
    finally:
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return found


def named(verdict: Verdict) -> str | None:
    """A verdict's label, for scores the band of the overall one."""
    overall = verdict.scores.get("overall")
    return verdict.label if overall is None else band(overall)


def valued(judge: Judge, label: str) -> float:
    """A label as a number, the more the better; for pairs, the more for the first answer."""
    if judge.settings.parser == "scores":
        return _MIDDLE[label]
    return 1.0 if label == next(iter(judge.settings.labels.values())) else 0.5 * (label == "tie")


def _labelled(number: str, row: Row, judge: Judge) -> Labelled:
    for column in sorted(row.values.keys() - set(COLUMNS)):
        raise row.wrong(f"unknown column {column!r}; {nearest(column, COLUMNS)}")
    label, value = _human(row, judge)
    texts = {FIRST: _answer(row, "answer")}
    if judge.pairs:
        texts[SECOND] = _answer(row, "second")
    sample = Sample(
        number,
        row.text("question"),
        answers=row.texts("accepted"),
        kind=_kind(row, judge),
        answerable=False if judge.settings.asks == "limits" else None,
    )
    if not judge.judges(sample):
        raise row.wrong(f"no 'accepted' answers, by which {judge.name} judges")
    answers = {name: Answered(number, name, text) for name, text in texts.items()}
    return Labelled(sample, answers, label, value)


def _answer(row: Row, column: str) -> str:
    """What a model said, which may be nothing."""
    given = row.values.get(column)
    return "" if isinstance(given, str) and not given.strip() else row.text(column)


def _human(row: Row, judge: Judge) -> tuple[str, float]:
    """A person's label in the judge's terms, and its value."""
    said = row.get("label")
    if said is None:
        raise row.wrong("no 'label'")
    words = _words(judge)
    if judge.settings.parser == "scores" and _is_number(said):
        least, most = judge.settings.scale
        if not least <= float(said) <= most:
            raise row.wrong(f"label {said!r} is not from {least:g} to {most:g}")
        return band(float(said)), float(said)
    if plain(said) not in words:
        raise row.wrong(f"label {said!r} is none of {judge.name}'s: {', '.join(words)}")
    label = words[plain(said)]
    return label, valued(judge, label)


def _words(judge: Judge) -> dict[str, str]:
    """What a person may write for each label: the judge's own words, or the label itself."""
    if judge.settings.parser == "scores":
        return {name: name for name in BANDS}
    labels = judge.settings.labels
    return {plain(word): label for word, label in labels.items()} | {v: v for v in labels.values()}


def _kind(row: Row, judge: Judge) -> str | None:
    """The category as a kind of doubt, by that name or HoneSet's."""
    category = row.get("category")
    if category is None:
        return None
    known = {name: name for name in (*DOUBT_KINDS, *judge.settings.required)} | KINDS
    if plain(category) not in known:
        raise row.wrong(f"unknown category {category!r}; {nearest(plain(category), known)}")
    return known[plain(category)]


def _is_number(value: object) -> bool:
    try:
        return not isinstance(value, bool) and float(str(value)) == float(str(value))
    except ValueError:
        return False
