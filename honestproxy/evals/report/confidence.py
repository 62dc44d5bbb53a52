"""How well each arm's confidence tells right plain answers from wrong ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from honestproxy.evals.calibration import Calibration, calibration, length_baseline
from honestproxy.evals.records import Sample
from honestproxy.evals.report.reading import Fact, Run
from honestproxy.evals.report.table import Measure, Spec, Value

CONFIDENCE: Final = "Its confidence"
_FEWEST: Final = 2
_UNKNOWN: Final = (None, None)

_ROWS: Final = {
    "auroc": (
        "tells right from wrong (AUROC)",
        "The chance that a right plain answer has more confidence than a wrong one; 50 % is none.",
        "more",
        "share",
    ),
    "brier": ("Brier score", "Mean squared error of the confidence.", "less", "score"),
    "ece_width": ("calibration error (ECE)", "In ten bins of equal width.", "less", "score"),
    "ece_mass": ("ECE, equal mass", "In ten bins of equal numbers.", "less", "score"),
    "aurc": (
        "risk over coverage (AURC)",
        "Mean share of wrong answers when only the surest are given; lower is better.",
        "less",
        "score",
    ),
}


def calibrations(run: Run) -> dict[str, tuple[Calibration, Calibration]]:
    """By arm that tells its confidence: its calibration, and that of the answer's length.

    A plain answer is good if it is right, or declines what can't be answered. It is the arm's
    draft, or else what the arm says that it is measured against, where that is the model's own
    plain answer.
    """
    found = {}
    for arm in run.arms:
        facts = run.facts[arm.shown]
        if any(fact.confidence is not None for fact in facts.values()):
            plain = _plain_answers(run, arm.shown)
            rows = [
                _row(run.samples[sample], fact, plain.get(sample))
                for sample, fact in facts.items()
                if sample in run.samples
            ]
            if sum(good is not None and sure is not None for good, sure, _ in rows) >= _FEWEST:
                good = [one for one, _, _ in rows]
                sure = [one for _, one, _ in rows]
                lengths = [length for _, _, length in rows]
                found[arm.shown] = (calibration(sure, good), length_baseline(lengths, good))
    return found


def rows(found: Mapping[str, tuple[Calibration, Calibration]]) -> Iterator[Measure]:
    """Rows of the table: each measure, and beside it what the answer's length alone reaches."""
    for key, (name, about, better, unit) in _ROWS.items():
        spec = Spec(
            key,
            name,
            about,
            CONFIDENCE,
            unit="share" if unit == "share" else "score",
            better="more" if better == "more" else "less",
        )
        values = {
            arm: Value(
                getattr(own, key).value,
                low=own.intervals.get(key, _UNKNOWN)[0],
                high=own.intervals.get(key, _UNKNOWN)[1],
                n=own.n,
                unscored=own.unscored,
                baseline=getattr(length, key).value,
            )
            for arm, (own, length) in found.items()
        }
        if row := spec.row(values):
            yield row


def _plain_answers(run: Run, arm: str) -> Mapping[str, Fact]:
    """What the model says by itself, where an arm without a draft is measured against that."""
    before = next((before for before, after in run.pairs if after == arm), None)
    if before is None:
        return {}
    plain, wrapped = run.arm(before), run.arm(arm)
    is_same = (plain.upstream, plain.model) == (wrapped.upstream, wrapped.model)
    return run.facts[before] if plain.strategy == "raw" and is_same else {}


def _row(
    sample: Sample, fact: Fact, plain: Fact | None
) -> tuple[bool | None, float | None, int | None]:
    """Whether the plain answer is good, the confidence in it, and its length."""
    if fact.answered.error is not None or fact.confidence is None:
        return None, None, None
    if fact.plain_length is not None:
        return _is_good(sample, fact.plain), fact.confidence, fact.plain_length
    if plain is None or plain.answered.error is not None:
        return None, fact.confidence, None
    return _is_good(sample, plain.words), fact.confidence, plain.length


def _is_good(sample: Sample, label: str | None) -> bool | None:
    if label is None:
        return None
    return label == "correct" or (label == "idk" and sample.answerable is False)
