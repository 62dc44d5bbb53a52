"""How far a judge can be trusted: its verdicts beside people's, its positions, its lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from honestproxy.evals.figures import Figure
from honestproxy.evals.judges import Judge
from honestproxy.evals.labelled import FIRST, SECOND, Labelled, named, valued
from honestproxy.evals.metrics import BANDS
from honestproxy.evals.preferences import preferences
from honestproxy.evals.records import Verdict
from honestproxy.evals.stats import Estimate, bootstrap, clopper_pearson, unseen

if TYPE_CHECKING:
    from honestproxy.evals.stats import Array

UNSCORED: Final = "unscored"
_FEW: Final = 3


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge beside people.

    `matrix` counts by the person's label, then the judge's. `position` is, of a judge of pairs,
    how often it prefers what stands first, of the verdicts that prefer one: 0.5 has no bias.
    `length` and `human_length` are rank correlations (Spearman) of the judge's and of people's
    values with the length of the answer, or of the first less the second: where the judge's is
    higher, it likes length for its own sake.
    """

    judge: str
    agreement: Estimate
    kappa: Estimate
    matrix: Mapping[str, Mapping[str, int]]
    position: Figure | None
    length: Figure
    human_length: Figure

    def body(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def agreement(
    judge: Judge, labelled: Sequence[Labelled], verdicts: Sequence[Verdict], *, seed: int = 0
) -> Agreement:
    """What the verdicts are worth, by people's labels of the same answers."""
    said = _labels(judge, verdicts)
    pairs = [(one, said.get(one.sample.id)) for one in labelled]
    both = [(one, label) for one, label in pairs if label is not None]
    unscored = len(pairs) - len(both)
    names = _names(judge, [label for one, label in both] + [one.label for one in labelled])
    matrix = {name: dict.fromkeys([*names, UNSCORED], 0) for name in names}
    for one, label in pairs:
        matrix[one.label][label or UNSCORED] += 1
    values = _values(judge, verdicts)
    scored = [one for one, _ in both]
    return Agreement(
        judge=judge.name,
        agreement=_shared(sum(one.label == label for one, label in both), len(both), unscored),
        kappa=kappa([[matrix[a][b] for b in names] for a in names], unscored, seed=seed),
        matrix=matrix,
        position=preferences(verdicts, FIRST, SECOND).first if judge.pairs else None,
        length=_correlation([(values[one.sample.id], _length(one)) for one in scored]),
        human_length=_correlation([(one.value, _length(one)) for one in scored]),
    )


def kappa(counts: Sequence[Sequence[int]], unscored: int = 0, *, seed: int = 0) -> Estimate:
    """Cohen's kappa of a table of counts with its interval, resampled by answer.

    Undefined where both raters only ever say one and the same thing.
    """
    size = len(counts)
    cells = [[float(n == cell) for n in range(size**2)] for cell in range(size**2)]
    flat = [count for row in counts for count in row]

    def statistic(sums: Array) -> Array:
        tables = sums.reshape(-1, size, size)
        n = tables.sum(axis=(1, 2))
        observed = tables.trace(axis1=1, axis2=2) / n
        chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / n**2
        found: Array = (observed - chance) / (1 - chance)
        return found

    found = replace(bootstrap(cells, statistic, counts=flat, seed=seed), unscored=unscored)
    if found.value is None or found.low != found.high:
        return found
    # No resample differs. An answer that might moves kappa the more, the more agree by chance.
    sides = zip(map(sum, counts), map(sum, zip(*counts, strict=True)), strict=True)
    by_chance = sum(row * column for row, column in sides) / found.n**2
    low = max(-1.0, found.value - unseen(found.n) / (1 - by_chance))
    return replace(found, low=low, high=min(1.0, 2 * found.value - low))


def _labels(judge: Judge, verdicts: Sequence[Verdict]) -> dict[str, str]:
    """The judge's label by sample; of two orders, the preference that both share, else a tie."""
    if judge.pairs:
        names = {1.0: FIRST, 0.5: "tie", 0.0: SECOND}
        outcomes = preferences(verdicts, FIRST, SECOND).outcomes
        return {sample: names[outcome] for sample, outcome in outcomes.items()}
    found = ((verdict.sample, named(verdict)) for verdict in verdicts)
    return {sample: label for sample, label in found if label is not None}


def _values(judge: Judge, verdicts: Sequence[Verdict]) -> dict[str, float]:
    """The same as numbers: the overall score itself where there is one."""
    labels = {sample: valued(judge, label) for sample, label in _labels(judge, verdicts).items()}
    scores = {v.sample: v.scores["overall"] for v in verdicts if "overall" in v.scores}
    return labels | scores


def _names(judge: Judge, found: Sequence[str]) -> list[str]:
    """The labels in the judge's own order, and any that is met beside."""
    own = judge.settings.labels.values() if judge.settings.labels else BANDS
    return list(dict.fromkeys([*own, *sorted(found)]))


def _shared(count: int, n: int, unscored: int) -> Estimate:
    if not n:
        return Estimate(None, None, None, 0, unscored)
    return Estimate(count / n, *clopper_pearson(count, n), n, unscored)


def _length(one: Labelled) -> float:
    """Characters of the answer, or of the first less those of the second."""
    first, *second = (len(answered.text or "") for answered in one.answers.values())
    return float(first - sum(second))


def _correlation(pairs: Sequence[tuple[float, float]]) -> Figure:
    """Spearman's rank correlation; undefined where either side never varies."""
    from scipy.stats import spearmanr

    columns = list(zip(*pairs, strict=True))
    if len(pairs) < _FEW or any(len(set(column)) < 2 for column in columns):
        return Figure(None, len(pairs))
    return Figure(float(spearmanr(*columns).statistic), len(pairs))
