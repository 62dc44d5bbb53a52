"""A row of the report's table: one measure, each arm's value, and how arms differ from another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal

from honestproxy.evals import stats
from honestproxy.evals.figures import Figure, Part
from honestproxy.evals.report.reading import Run
from honestproxy.evals.stats import Estimate, aligned

Unit = Literal["share", "score", "number", "seconds", "dollars"]
Better = Literal["more", "less", ""]

Column = Mapping[str, Part | None]
"""Parts by question, of all questions that the measure is about; None is unscored."""

SHOWN: Final = 0.05
"""Corrected p below which a difference counts as shown, its interval agreeing."""

FEWEST: Final = 6
"""Questions below which nothing counts as shown: all of five may agree by chance (p = 0.06).
Where arms were asked different ones, or a ratio rests on some alone, the fewest count."""


@dataclass(frozen=True, slots=True)
class Value:
    """What an arm reached.

    `bound` marks intervals of two one-sided bounds, of rare events. `baseline` is what an answer's
    length alone reaches.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unscored: int = 0
    count: float | None = None
    convention: float | None = None
    bound: bool = False
    baseline: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How `after` differs from `before`: by how much, or how many times as much (`times`)."""

    before: str
    after: str
    difference: Estimate
    times: bool = False
    p: float | None = None
    corrected: float | None = None
    more: int | None = None
    fewer: int | None = None

    @property
    def is_shown(self) -> bool:
        """Whether a difference was shown: neither interval nor test leaves room for none."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or self.difference.fewest < FEWEST:
            return False
        none = 1.0 if self.times else 0.0
        return not low <= none <= high and (self.corrected is None or self.corrected < SHOWN)


@dataclass(frozen=True, slots=True)
class Measure:
    """One row. `gamed` names the arms that say the same to everything, and win here."""

    key: str
    name: str
    about: str
    group: str
    unit: Unit
    better: Better
    values: dict[str, Value]
    comparisons: list[Comparison] = field(default_factory=list)
    gamed: tuple[str, ...] = ()

    def against(self, after: str) -> Comparison | None:
        """How this arm compares with what it is measured against."""
        return next((found for found in self.comparisons if found.after == after), None)


@dataclass(frozen=True, slots=True)
class Spec:
    """A measure's name, what it says, and which way is better.

    `of_all`: each scored question bears on it, also one that adds nothing below its line.
    `convention` is what its paper puts in the place of an undefined value.
    """

    key: str
    name: str
    about: str
    group: str
    unit: Unit = "share"
    better: Better = "more"
    of_all: bool = False
    convention: float | None = None

    @property
    def heaviest(self) -> float | None:
        """The most that a question adds below a share's line: two as hit and as target, or one."""
        if self.unit != "share":
            return None
        return 2.0 if self.of_all else 1.0

    def row(
        self,
        values: dict[str, Value],
        comparisons: Iterable[Comparison] = (),
        *,
        undefined: bool = False,
    ) -> Measure | None:
        """The row; None where it is defined for no arm, unless `undefined` says to tell that."""
        if not undefined and all(value.value is None for value in values.values()):
            return None
        found = _corrected(list(comparisons) if self.better else [])
        return Measure(
            self.key, self.name, self.about, self.group, self.unit, self.better, values, found
        )


def measured(
    run: Run, spec: Spec, columns: Mapping[str, Column], *, tested: bool = True
) -> Measure | None:
    """The row of a measure that is a mean, a share or a ratio over questions, by arm.

    A ratio isn't `tested`: what changes below its line is no matter of pairs. One that a paper
    has a convention for is told where it is undefined, too, if anything was scored.
    """
    value = partial(value_of, spec=spec)
    values = {arm: value(column) for arm, column in columns.items() if column}
    pairs = [pair for pair in run.pairs if all(_is_known(values.get(arm)) for arm in pair)]
    comparisons = [
        compared(*pair, *(columns[arm] for arm in pair), spec=spec, paired=not run.is_live)
        for pair in pairs
    ]
    if not tested:
        comparisons = [replace(one, p=None, more=None, fewer=None) for one in comparisons]
    is_scored = any(part is not None for column in columns.values() for part in column.values())
    return spec.row(values, comparisons, undefined=is_scored and spec.convention is not None)


def value_of(column: Column, spec: Spec) -> Value:
    """A share with its exact interval; of other means and ratios the bootstrap's."""
    found = Figure.of(column.values(), of_all=spec.of_all, convention=spec.convention)
    parts = [part for part in column.values() if part is not None]
    low, high = _interval(found, parts, spec.heaviest)
    return Value(found.value, low, high, found.n, found.unscored, found.count, found.convention)


def _interval(
    found: Figure, parts: Sequence[Part], heaviest: float | None
) -> tuple[float | None, float | None]:
    if found.value is None:
        return None, None
    if heaviest and found.count is not None and is_yes_or_no(parts):
        return stats.clopper_pearson(round(found.count), found.n)
    drawn = stats.resampled(parts, heaviest=heaviest)
    return drawn.low, drawn.high


def compared(
    before: str, after: str, old: Column, new: Column, *, spec: Spec, paired: bool
) -> Comparison:
    """The difference, on questions that both arms answered, or between all of both."""
    if not paired:
        differing = partial(stats.unpaired_difference, heaviest=spec.heaviest)
        found = _apart(differing, old, new)
        return Comparison(before, after, found, p=_unpaired_p(old, new))
    both = [(old[key], new[key]) for key in old if key in new]
    scored = [(one, other) for one, other in both if one is not None and other is not None]
    missing = len({*old, *new}) - len(scored)
    sides = [one for one, _ in scored], [other for _, other in scored]
    found = replace(stats.paired_difference(*sides, heaviest=spec.heaviest), unscored=missing)
    tested = stats.sign_test([other[0] - one[0] for one, other in scored])
    return Comparison(before, after, found, p=tested.p, more=tested.more, fewer=tested.fewer)


def times(before: str, after: str, old: Column, new: Column, *, paired: bool) -> Comparison:
    """How many times as much, in all."""
    plain = [{key: part and part[0] for key, part in column.items()} for column in (old, new)]
    if paired:
        one, other, missing = aligned(*plain)
        found = replace(stats.paired_ratio(one, other), unscored=missing)
    else:
        found = _apart(stats.unpaired_ratio, old, new)
    return Comparison(before, after, found, times=True)


def is_yes_or_no(parts: Iterable[Part]) -> bool:
    """Whether each question counts as one, and either does or doesn't."""
    return all(below == 1 and above in (0, 1) for above, below in parts)


def _apart(
    of: Callable[[Sequence[Part], Sequence[Part]], Estimate], old: Column, new: Column
) -> Estimate:
    sides = [[part for part in column.values() if part is not None] for column in (old, new)]
    return replace(of(*sides), unscored=len(old) + len(new) - sum(map(len, sides)))


def _unpaired_p(old: Column, new: Column) -> float | None:
    """Fisher's exact test, where both are shares of replies that have nothing in common."""
    from scipy.stats import fisher_exact

    sides = [[part for part in column.values() if part is not None] for column in (old, new)]
    if not all(sides) or not all(map(is_yes_or_no, sides)):
        return None
    table = [[round(sum(a for a, _ in s)), round(sum(b - a for a, b in s))] for s in sides]
    return float(fisher_exact(table)[1])


def _is_known(value: Value | None) -> bool:
    return value is not None and value.value is not None


def _corrected(comparisons: list[Comparison]) -> list[Comparison]:
    """p-values corrected over all arms that are compared by this measure."""
    asked = {one.after: one.p for one in comparisons if one.p is not None}
    corrected = stats.holm(asked)
    return [replace(one, corrected=corrected.get(one.after)) for one in comparisons]
