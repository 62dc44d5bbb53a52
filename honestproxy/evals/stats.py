"""Statistics for comparisons, most of them paired: intervals, tests, exact bounds.

scipy and scikit-learn do the work, and are imported where they are used.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from honestproxy.errors import BackendError
from honestproxy.evals.figures import Figure, Part

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Key = TypeVar("Key", bound=Hashable)

LEVEL: Final = 0.95
RESAMPLES: Final = 2_000
_BATCH: Final = 250_000
"""Numbers drawn at once: enough to be fast, few enough to stay in the cache."""
_FEW: Final = 1_000
"""Distinct rows up to which drawing their counts is faster than drawing each question."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its interval, as far as they are defined. `n` counts questions.

    `fewest` are those on which the part of it rests that rests on the fewest.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    unscored: int = 0
    fewest: int = 0


@dataclass(frozen=True, slots=True)
class Significance:
    """A two-sided test's p, 1.0 where nothing decides it; `n` is `more` and `fewer` together."""

    p: float
    n: int
    more: int
    fewer: int


@dataclass(frozen=True, slots=True)
class Bounded:
    """A rare event's share, and what it may be: at least `low`, at most `high`.

    Each bound is one-sided, exact (Clopper-Pearson), and holds at the level by itself.
    """

    share: Figure
    low: float
    high: float


def check_installed() -> None:
    """Raise BackendError, with the remedy, where what measures need isn't installed."""
    if any(importlib.util.find_spec(name) is None for name in ("numpy", "scipy", "sklearn")):
        raise BackendError("measures need scipy and scikit-learn; pip install 'honestproxy[evals]'")


def aligned(
    before: Mapping[Key, float | None], after: Mapping[Key, float | None]
) -> tuple[list[float], list[float], int]:
    """Both arms' values of the questions that have both, in order, and how many haven't."""
    keys = list(dict.fromkeys([*before, *after]))
    pairs = [(before.get(key), after.get(key)) for key in keys]
    both = [(old, new) for old, new in pairs if old is not None and new is not None]
    return [old for old, _ in both], [new for _, new in both], len(keys) - len(both)


def resampled(parts: Sequence[Part], *, heaviest: float | None = 1.0, seed: int = 0) -> Estimate:
    """A share or mean, resampled by question; for `heaviest` see `of_shares`."""
    return of_shares(parts, lambda share: share, heaviest=heaviest, seed=seed)


def paired_difference(
    before: Sequence[Part],
    after: Sequence[Part],
    *,
    heaviest: float | None = 1.0,
    seed: int = 0,
) -> Estimate:
    """The share or mean of `after` less that of `before`, resampled by question."""
    rows = [(*old, *new) for old, new in zip(before, after, strict=True)]
    return of_shares(rows, _difference, heaviest=heaviest, seed=seed)


def unpaired_difference(
    before: Sequence[Part],
    after: Sequence[Part],
    *,
    heaviest: float | None = 1.0,
    seed: int = 0,
) -> Estimate:
    """The same where the questions of one have nothing to do with those of the other."""
    return of_shares(_apart(before, after), _difference, heaviest=heaviest, seed=seed)


def unpaired_ratio(before: Sequence[Part], after: Sequence[Part], *, seed: int = 0) -> Estimate:
    """The share or mean of `after` over that of `before`, of questions without pairs."""
    return of_shares(_apart(before, after), lambda old, new: new / old, heaviest=None, seed=seed)


def _difference(before: Any, after: Any) -> Any:
    return after - before


def _apart(before: Sequence[Part], after: Sequence[Part]) -> list[tuple[float, ...]]:
    return [*((*part, 0.0, 0.0) for part in before), *((0.0, 0.0, *part) for part in after)]


def paired_ratio(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> Estimate:
    """Total of `after` over total of `before`, resampled by question."""
    rows = list(zip(before, after, strict=True))
    return bootstrap(rows, lambda sums: sums[:, 1] / sums[:, 0], seed=seed)


def of_shares(
    rows: Sequence[Sequence[float]],
    statistic: Callable[..., Any],
    *,
    counts: Sequence[int] | None = None,
    heaviest: float | None = 1.0,
    seed: int = 0,
) -> Estimate:
    """A statistic of shares, of one or of several, resampled by question.

    A row holds what a question adds above and below each share's line. A share on which all
    questions agree is the same in every resample, however few they are. So what so few leave
    open is added to the interval, as independent sources of error are (square-and-add: Newcombe
    1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I).

    `heaviest` is the most that a question adds below a line where others add 1. With None these
    are means or ratios without ends: of what agrees nothing more is known.
    """
    import numpy as np

    def of_sums(sums: Array) -> Any:
        return statistic(*(sums[:, at] / sums[:, at + 1] for at in range(0, sums.shape[1], 2)))

    found = bootstrap(rows, of_sums, counts=counts, seed=seed)
    if found.value is None:
        return found
    often = np.ones(len(rows), dtype=int) if counts is None else np.asarray(counts, dtype=int)
    values = np.asarray(rows, dtype=float)[often > 0]
    sides = [
        _Side.of(values[:, at : at + 2], often[often > 0]) for at in range(0, len(values[0]), 2)
    ]
    found = replace(found, fewest=min(side.few for side in sides))
    return found if heaviest is None else _opened(found, statistic, sides, heaviest)


@dataclass(frozen=True, slots=True)
class _Side:
    """One share of a statistic: on how many questions it rests, and whether they all agree."""

    share: float
    few: int
    agree: bool

    @classmethod
    def of(cls, parts: Array, often: Array) -> _Side:
        above, below = parts[:, 0], parts[:, 1]
        bear = below != 0
        each = above[bear] / below[bear]
        agree = math.isclose(each.min(), each.max(), abs_tol=1e-12)
        return cls(float(often @ above / (often @ below)), int(often[bear].sum()), agree)

    def ends(self, heaviest: float) -> tuple[float, float]:
        """What the share may be, if others than those asked say otherwise."""
        other = unseen(self.few, heaviest)
        return self.share * (1 - other), self.share + (1 - self.share) * other


def _opened(
    found: Estimate, statistic: Callable[..., Any], sides: Sequence[_Side], heaviest: float
) -> Estimate:
    """The estimate, its interval wider by what agreeing sides leave open."""
    value, shares = found.value or 0.0, [side.share for side in sides]
    down = up = 0.0
    for at, side in enumerate(sides):
        if side.agree:
            moved = [
                statistic(*shares[:at], end, *shares[at + 1 :]) - value
                for end in side.ends(heaviest)
            ]
            down, up = down - min(*moved, 0.0), up + max(*moved, 0.0)
    low = value if found.low is None else found.low
    high = value if found.high is None else found.high
    return replace(
        found, low=value - math.hypot(value - low, down), high=value + math.hypot(high - value, up)
    )


def unseen(few: int, heaviest: float = 1.0, *, level: float = LEVEL) -> float:
    """The largest share, by weight, of what says otherwise where none of `few` does.

    Clopper-Pearson's two-sided bound, each of the others being the heaviest there is.
    """
    alike = math.pow((1 - level) / 2, 1 / few)
    others = (1 - alike) * heaviest
    return others / (others + alike)


def bootstrap(
    rows: Sequence[Sequence[float]],
    statistic: Callable[[Array], Array],
    *,
    counts: Sequence[int] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """The percentile interval of a statistic, resampled by question.

    A row holds one question's numbers, for both arms where they are paired; `counts` says how
    often each row occurs (once, where absent). The statistic gets sums over questions, of shape
    (any, columns), and gives (any,): means, ratios and whatever else is made of sums. Resamples
    in which it is undefined, such as those with an empty denominator, don't count. Of a single
    question there is no interval.
    """
    import numpy as np

    often = np.ones(len(rows), dtype=int) if counts is None else np.asarray(counts, dtype=int)
    n = int(often.sum())
    if not n:
        return Estimate(None, None, None, 0)
    values, often = _merged(np.asarray(rows, dtype=float), often)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic((often @ values)[None])[0])
        drawn = statistic(_resampled_sums(values, often, seed, resamples))
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not drawn.size:
        return Estimate(None, None, None, n)
    if n == 1:
        return Estimate(value, None, None, n, fewest=n)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), n, fewest=n)


def _merged(values: Array, often: Array) -> tuple[Array, Array]:
    """The distinct rows, and how often each occurs: labels have few, so that is fast."""
    import numpy as np

    distinct, at = np.unique(values, axis=0, return_inverse=True)
    return distinct, np.bincount(at.reshape(-1), weights=often).astype(int)


def _resampled_sums(values: Array, often: Array, seed: int, resamples: int) -> Array:
    """Column sums of each resample."""
    import numpy as np

    rng = np.random.default_rng(seed)
    batch = max(1, _BATCH // len(values))
    sizes = [min(batch, resamples - done) for done in range(0, resamples, batch)]
    return np.concatenate([_redrawn(rng, often, size) @ values for size in sizes])


def _redrawn(rng: np.random.Generator, often: Array, size: int) -> Array:
    """How often each distinct row comes in each of `size` resamples: (size, rows)."""
    import numpy as np

    n = int(often.sum())
    if len(often) <= _FEW:
        return rng.multinomial(n, often / n, size=size)
    row = np.repeat(np.arange(len(often)), often)[rng.integers(0, n, (size, n))]
    apart = row + len(often) * np.arange(size)[:, None]
    return np.bincount(apart.reshape(-1), minlength=size * len(often)).reshape(size, -1)


def mcnemar(lost: int, gained: int) -> Significance:
    """McNemar's exact test: whether as many pairs changed one way as the other."""
    from scipy.stats import binomtest

    n = lost + gained
    p = float(binomtest(gained, n).pvalue) if n else 1.0
    return Significance(p, n, more=gained, fewer=lost)


def sign_test(differences: Sequence[float]) -> Significance:
    """Whether as many differences lie above zero as below; ties decide nothing."""
    return mcnemar(
        lost=sum(difference < 0 for difference in differences),
        gained=sum(difference > 0 for difference in differences),
    )


def clopper_pearson(count: int, n: int, *, level: float = LEVEL) -> tuple[float, float]:
    """The exact two-sided interval of a share; all of 0 to 1 where `n` is 0."""
    return _exact(count, n, "two-sided", level)


def exact(count: int, n: int, *, level: float = LEVEL) -> Bounded:
    """A share with both its one-sided bounds: none of 120 shows only "under 3 %" (2.47 %)."""
    low, _ = _exact(count, n, "greater", level)
    _, high = _exact(count, n, "less", level)
    return Bounded(Figure.share(count, n), low, high)


def _exact(count: int, n: int, side: Any, level: float) -> tuple[float, float]:
    from scipy.stats import binomtest

    if not n:
        return 0.0, 1.0
    found = binomtest(count, n, alternative=side).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """p-values corrected for having asked several questions at once (Holm's step-down)."""
    corrected: dict[Key, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}
