"""Statistics for comparisons, most of them paired: intervals, tests, exact bounds.

scipy and scikit-learn do the work, and are imported where they are used.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
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
    """A value and its interval, as far as they are defined. `n` counts questions."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    unscored: int = 0


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


def resampled(parts: Sequence[Part], *, seed: int = 0) -> Estimate:
    """A share or mean, resampled by question."""
    within = (0.0, 1.0) if _are_shares(parts) else None
    return bootstrap(parts, _share, below=(1,), within=within, seed=seed)


def paired_difference(before: Sequence[Part], after: Sequence[Part], *, seed: int = 0) -> Estimate:
    """The share or mean of `after` less that of `before`, resampled by question."""
    rows = [(*old, *new) for old, new in zip(before, after, strict=True)]
    return _differing(rows, [*before, *after], seed)


def unpaired_difference(
    before: Sequence[Part], after: Sequence[Part], *, seed: int = 0
) -> Estimate:
    """The same where the questions of one have nothing to do with those of the other."""
    return _differing(_apart(before, after), [*before, *after], seed)


def unpaired_ratio(before: Sequence[Part], after: Sequence[Part], *, seed: int = 0) -> Estimate:
    """The share or mean of `after` over that of `before`, of questions without pairs."""
    return bootstrap(_apart(before, after), _ratio, below=(1, 3), seed=seed)


def _differing(rows: Sequence[Sequence[float]], parts: Sequence[Part], seed: int) -> Estimate:
    within = (-1.0, 1.0) if _are_shares(parts) else None
    return bootstrap(rows, _difference, below=(1, 3), within=within, seed=seed)


def _are_shares(parts: Sequence[Part]) -> bool:
    return all(0 <= above <= below for above, below in parts)


def _apart(before: Sequence[Part], after: Sequence[Part]) -> list[tuple[float, ...]]:
    return [*((*part, 0.0, 0.0) for part in before), *((0.0, 0.0, *part) for part in after)]


def _share(sums: Array) -> Array:
    share: Array = sums[:, 0] / sums[:, 1]
    return share


def _difference(sums: Array) -> Array:
    difference: Array = sums[:, 2] / sums[:, 3] - sums[:, 0] / sums[:, 1]
    return difference


def _ratio(sums: Array) -> Array:
    ratio: Array = (sums[:, 2] / sums[:, 3]) / (sums[:, 0] / sums[:, 1])
    return ratio


def paired_ratio(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> Estimate:
    """Total of `after` over total of `before`, resampled by question."""
    rows = list(zip(before, after, strict=True))
    return bootstrap(rows, lambda sums: sums[:, 1] / sums[:, 0], seed=seed)


def bootstrap(
    rows: Sequence[Sequence[float]],
    statistic: Callable[[Array], Array],
    *,
    counts: Sequence[int] | None = None,
    below: Sequence[int] = (),
    within: tuple[float, float] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """The percentile interval of a statistic, resampled by question.

    A row holds one question's numbers, for both arms where they are paired; `counts` says how
    often each row occurs (once, where absent). The statistic gets sums over questions, of shape
    (any, columns), and gives (any,): means, ratios and whatever else is made of sums. Resamples
    in which it is undefined, such as those with an empty denominator, don't count.

    Where all questions agree, resampling finds no width however few they are. Then the interval
    is as wide as what so few can't have shown: the statistic lies `within` some ends, and rests
    on the questions of which one of the columns `below` a line isn't 0. Without ends nothing is
    known from a single question.
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
    low, high = map(float, np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
    if math.isclose(low, high, abs_tol=1e-12):
        n_below = [int(often[values[:, column] != 0].sum()) for column in below]
        return _unseen(value, n, min(n_below, default=n), within, level)
    return Estimate(value, low, high, n)


def _unseen(
    value: float, n: int, few: int, within: tuple[float, float] | None, level: float
) -> Estimate:
    """What a statistic may be of which `few` questions all say the same.

    At the level, no more than a share of `1 - ((1 - level) / 2) ** (1 / few)` of all questions
    says otherwise (Clopper-Pearson for none of `few`), and those as far off as can be.
    """
    if within is None:
        return Estimate(value, value, value, n) if few > 1 else Estimate(value, None, None, n)
    lowest, highest = within
    other = 1 - ((1 - level) / 2) ** (1 / few)
    low, high = value - other * (value - lowest), value + other * (highest - value)
    return Estimate(value, low, high, n)


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
