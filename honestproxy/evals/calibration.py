"""How well a confidence tells right answers from wrong ones, beside what their length tells.

`right` says of each answer whether it was right; what is None there, or in the confidences, is
unscored. The confidence of a strategy speaks of its plain answer, so `right` should, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from honestproxy.evals.figures import Figure

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

BINS: Final = 10
POINTS: Final = 100
"""Points of a risk-coverage curve that are kept for a plot."""
_FOLDS: Final = 5
RESAMPLES: Final = 1000
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of like confidence, above `low` up to `high`: its mean, and how many are right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """If only the surest are answered: which share that is, and which share of them is wrong."""

    coverage: float
    risk: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """All that is measured of one score. `risk` is the share of wrong answers among all.

    AUROC is undefined where all answers are right, or all are wrong. Brier's score, the expected
    calibration error (ECE) and the bins need probabilities, and are undefined without.
    `aurc`, the area under the risk-coverage curve, is `risk` for a score that says nothing.
    `intervals` has the bounds of AUROC, Brier's score and AURC, by name, where they are asked for.
    """

    n: int
    unscored: int
    risk: Figure
    auroc: Figure
    brier: Figure
    ece_width: Figure
    ece_mass: Figure
    aurc: Figure
    bins_width: list[Bin]
    bins_mass: list[Bin]
    risk_coverage: list[Coverage]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def calibration(confidences: Sequence[float | None], right: Sequence[bool | None]) -> Calibration:
    """Measures of confidences, with intervals; what is no number from 0 to 1 is unscored."""
    kept = [
        (confidence, good)
        for confidence, good in zip(confidences, right, strict=True)
        if good is not None and confidence is not None and 0 <= confidence <= 1
    ]
    scores = [confidence for confidence, _ in kept]
    rights = [good for _, good in kept]
    found = _measured(scores, scores, rights, len(right) - len(kept))
    return replace(found, intervals=intervals(scores, rights))


def length_baseline(lengths: Sequence[int | None], right: Sequence[bool | None]) -> Calibration:
    """The same measures where the only thing known of an answer is its length.

    A shorter answer counts as surer. Probabilities come from a logistic regression on the
    logarithm of the length, each answer's from those of other folds; with fewer than five right or
    five wrong answers there are none.
    """
    kept = [
        (length, good)
        for length, good in zip(lengths, right, strict=True)
        if length is not None and good is not None
    ]
    rights = [good for _, good in kept]
    logs = [-math.log1p(length) for length, _ in kept]
    return _measured(logs, _out_of_fold(logs, rights), rights, len(right) - len(kept))


def intervals(
    probabilities: Sequence[float], right: Sequence[bool], *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals at 95 %, resampled by question; in which they are defined.

    The calibration error has none: resampling adds to it what it measures.
    """
    import numpy as np

    if not len(right):
        return {}
    scores, good = np.asarray(probabilities, dtype=float), np.asarray(right, dtype=bool)
    drawing, values = np.random.default_rng(seed), dict[str, list[float | None]]()
    for _ in range(RESAMPLES):  # one at a time: all at once would take gigabytes
        at = drawing.integers(len(good), size=len(good))
        for name, measure in _RESAMPLED.items():
            values.setdefault(name, []).append(measure(scores[at], good[at]))
    known = {name: np.array([v for v in all_ if v is not None]) for name, all_ in values.items()}
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    bounds = {name: np.quantile(found, tails) for name, found in known.items() if len(found)}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def _auroc(scores: Array, right: Array) -> float | None:
    """AUROC by ranks (Mann-Whitney); None where all are right, or none."""
    from scipy.stats import rankdata

    good = int(right.sum())
    if good in (0, len(right)):
        return None
    above = rankdata(scores)[right].sum() - good * (good + 1) / 2
    return float(above / (good * (len(right) - good)))


def _brier(scores: Array, right: Array) -> float | None:
    return float(((scores - right) ** 2).mean())


def _aurc(scores: Array, right: Array) -> float | None:
    return aurc(scores, right).value  # type: ignore[arg-type]


_RESAMPLED: Final = {"auroc": _auroc, "brier": _brier, "aurc": _aurc}


def reliability(
    probabilities: Sequence[float], right: Sequence[bool], *, mass: bool = False, bins: int = BINS
) -> list[Bin]:
    """The bins that aren't empty: of equal width, or as equal in mass as ties allow."""
    import numpy as np

    if not len(probabilities):
        return []
    values, good = np.asarray(probabilities, dtype=float), np.asarray(right, dtype=float)
    edges = np.linspace(0, 1, bins + 1)
    if mass:
        edges = np.quantile(values, edges)
    at = np.searchsorted(edges[1:-1], values)
    return [_bin(edges, one, values[at == one], good[at == one]) for one in np.unique(at)]


def ece(bins: Sequence[Bin]) -> Figure:
    """Expected calibration error: how far bins are from what they claim, by their size."""
    n = sum(one.n for one in bins)
    off = sum(one.n * abs(one.confidence - one.right) for one in bins)
    return Figure(off / n if n else None, n)


def risk_coverage(
    scores: Sequence[float], right: Sequence[bool], *, points: int = POINTS
) -> list[Coverage]:
    """The risk at each coverage that a threshold can reach, thinned to so many points."""
    import numpy as np

    if not len(scores):
        return []
    levels, answered, wrong = _by_threshold(scores, right)
    at = np.arange(len(levels))
    if len(at) > points:
        at = np.unique(np.linspace(0, len(levels) - 1, points).round().astype(int))
    return [
        Coverage(float(answered[i] / len(scores)), float(wrong[i] / answered[i]), float(levels[i]))
        for i in at
    ]


def aurc(scores: Sequence[float], right: Sequence[bool]) -> Figure:
    """The mean risk over all coverages; answers of the same score come in random order."""
    import numpy as np

    n = len(scores)
    if not n:
        return Figure(None, 0)
    _, answered, wrong = _by_threshold(scores, right)
    covered = np.arange(1, n + 1)
    expected = np.interp(covered, [0, *answered], [0, *wrong])
    return Figure(float((expected / covered).mean()), n)


def _measured(
    scores: Sequence[float],
    probabilities: Sequence[float] | None,
    right: Sequence[bool],
    unscored: int,
) -> Calibration:
    widths, masses = list[Bin](), list[Bin]()
    if probabilities is not None:
        widths = reliability(probabilities, right)
        masses = reliability(probabilities, right, mass=True)
    return Calibration(
        n=len(right),
        unscored=unscored,
        risk=Figure.share(right.count(False), len(right)),
        auroc=auroc(scores, right),
        brier=brier(probabilities or [], right if probabilities else []),
        ece_width=ece(widths),
        ece_mass=ece(masses),
        aurc=aurc(scores, right),
        bins_width=widths,
        bins_mass=masses,
        risk_coverage=risk_coverage(scores, right),
    )


def auroc(scores: Sequence[float], right: Sequence[bool]) -> Figure:
    """The chance that a right answer has a higher score than a wrong one; ties count half."""
    from sklearn.metrics import roc_auc_score

    if len(set(right)) < 2:
        return Figure(None, len(right))
    return Figure(float(roc_auc_score(right, scores)), len(right))


def brier(probabilities: Sequence[float], right: Sequence[bool]) -> Figure:
    """The mean squared error of the probabilities."""
    from sklearn.metrics import brier_score_loss

    if not len(right):
        return Figure(None, 0)
    return Figure(float(brier_score_loss(right, probabilities, pos_label=True)), len(right))


def _bin(edges: Array, number: int, values: Array, good: Array) -> Bin:
    return Bin(
        low=float(edges[number]),
        high=float(edges[number + 1]),
        n=len(values),
        confidence=float(values.mean()),
        right=float(good.mean()),
    )


def _by_threshold(scores: Sequence[float], right: Sequence[bool]) -> tuple[Array, Array, Array]:
    """Each distinct score, highest first; how many lie at or above it, and how many are wrong."""
    import numpy as np

    values, wrong = np.asarray(scores, dtype=float), ~np.asarray(right, dtype=bool)
    levels, at = np.unique(-values, return_inverse=True)
    answered = np.bincount(at)
    return -levels, answered.cumsum(), np.bincount(at, weights=wrong).cumsum()


def _out_of_fold(features: Sequence[float], right: Sequence[bool]) -> list[float] | None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if min(right.count(True), right.count(False)) < _FOLDS:
        return None
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    rows = [[feature] for feature in features]
    found = cross_val_predict(LogisticRegression(), rows, right, cv=folds, method="predict_proba")
    return [float(chance) for chance in found[:, 1]]
