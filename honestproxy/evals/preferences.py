"""Which of two arms a judge prefers, whatever stands first and whatever is longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from honestproxy.evals.figures import Figure
from honestproxy.evals.records import Verdict

if TYPE_CHECKING:
    import numpy as np

TIE: Final = "tie"
_SAME: Final = 0.01
"""Spread of the length term, in -1 to 1, below which it is one number for all."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """How often a judge prefers an arm to another, asked in both orders.

    An arm wins where it is preferred in both; where the orders disagree it's a tie. A question
    that lacks a scored verdict in either order is unscored. `win_rate` counts a tie as half;
    `first` is how often whatever stood first was preferred, of verdicts that preferred one:
    far from 0.5 the judge looks at positions. `outcomes` are 1, 0.5 or 0, by question.
    """

    wins: int
    ties: int
    losses: int
    win_rate: Figure
    first: Figure
    outcomes: Mapping[str, float]


def preferences(verdicts: Sequence[Verdict], arm: str, against: str) -> Preferences:
    """What pairwise verdicts say of `arm` against another.

    A verdict's own `arm` is what stood first, its `against` what stood second.
    """
    both = [v for v in verdicts if {v.arm, v.against} == {arm, against}]
    by_sample: dict[str, dict[str, str | None]] = {}
    for verdict in both:
        by_sample.setdefault(verdict.sample, {})[verdict.arm] = verdict.label
    outcomes = {
        sample: _outcome(labels[arm], labels[against], arm, against)
        for sample, labels in by_sample.items()
        if labels.get(arm) is not None and labels.get(against) is not None
    }
    values, unscored = list(outcomes.values()), len(by_sample) - len(outcomes)
    preferred = [v for v in both if v.label in (arm, against)]
    return Preferences(
        wins=values.count(1.0),
        ties=values.count(0.5),
        losses=values.count(0.0),
        win_rate=Figure.share(sum(values), len(values), unscored=unscored),
        first=Figure.share(sum(v.label == v.arm for v in preferred), len(preferred)),
        outcomes=outcomes,
    )


def _outcome(one_way: str | None, other_way: str | None, arm: str, against: str) -> float:
    if one_way != other_way:
        return 0.5
    return {arm: 1.0, against: 0.0}.get(one_way or TIE, 0.5)


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A win rate as it might be between answers of the same length.

    `slope` says how much longer answers are liked: 0 not at all, above 0 more. Both are undefined
    where one arm is always longer by the same, so that length can't be told from the arm.
    """

    win_rate: Figure
    slope: float | None


def length_controlled(
    outcomes: Sequence[float], lengths: Sequence[float], others: Sequence[float]
) -> LengthControlled:
    """The win rate at a length difference of zero, after AlpacaEval 2 (arXiv 2404.04475).

    A logistic regression of the outcome (1, 0.5, 0) on the squashed length difference,
    tanh(difference / standard deviation); the win rate is what its intercept says. Simpler than
    the original, which also has terms for each instruction's difficulty, made from other models'
    answers. A tie counts as half a win and half a loss.
    """
    import numpy as np

    n = len(outcomes)
    if not n:
        return LengthControlled(Figure(None, 0), None)
    differences = np.subtract(lengths, others, dtype=float)
    if not differences.any():
        return LengthControlled(Figure.share(sum(outcomes), n), None)
    squashed = np.tanh(differences / (differences.std() or 1.0))
    if np.ptp(squashed) < _SAME:
        return LengthControlled(Figure(None, n), None)
    if len(decided := set(outcomes)) == 1 and decided != {0.5}:  # nothing to fit
        return LengthControlled(Figure.share(sum(outcomes), n), None)
    intercept, slope = _fitted(np.asarray(outcomes, dtype=float), squashed)
    return LengthControlled(Figure(1 / (1 + float(np.exp(-intercept))), n), slope)


def _fitted(outcomes: np.ndarray[Any, Any], squashed: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Intercept and slope. A light penalty keeps the slope finite where length tells all."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    rows = np.concatenate([squashed, squashed])[:, None]
    won = np.repeat([1, 0], len(outcomes))
    weights = np.concatenate([outcomes, 1 - outcomes])
    model = LogisticRegression(C=10.0, tol=1e-8, max_iter=1_000)
    model.fit(rows[weights > 0], won[weights > 0], sample_weight=weights[weights > 0])
    return float(model.intercept_[0]), float(model.coef_[0, 0])
