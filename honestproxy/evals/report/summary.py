"""What a run shows, as data: what every form of the report is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from honestproxy.evals import stats
from honestproxy.evals.calibration import Calibration
from honestproxy.evals.matrix import Matrix, matrix_intervals
from honestproxy.evals.report import categories, confidence, costing, judged, verdict
from honestproxy.evals.report.categories import Category
from honestproxy.evals.report.judged import Roles
from honestproxy.evals.report.measures import matrix, measures
from honestproxy.evals.report.reading import Run
from honestproxy.evals.report.table import Measure, Value
from honestproxy.evals.report.verdict import Verdict

DIGITS: Final = 6
"""Decimals that are kept: the last bits of a float are nobody's business."""


@dataclass(frozen=True, slots=True)
class Changed:
    """An answer that an arm words differently in a later run, and both its labels."""

    sample: str
    question: str
    arm: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run shows.

    `verdict` is the sentence on the arm that the run is about, `verdicts` those on all.
    `by_category` is told by `category_measure`, `h2_by_category` by each score and band of H²,
    where it was judged. `matrices` and `calibrations` are by arm.
    `honesty_by_arm` and `cost_by_arm` stand over each other in a plot, and say what they are.
    `questions` is 0 where they aren't known, as in a live experiment; `differences` and
    `changed` are those of two runs.
    `remarks` say how to read the numbers, `limits` what they can't tell.
    """

    name: str
    verdict: str
    verdicts: list[Verdict]
    remarks: list[str]
    limits: list[str]
    notes: list[str]
    arms: list[str]
    config: Mapping[str, Any]
    questions: int
    answers: int
    measures: list[Measure]
    matrices: dict[str, Matrix]
    category_measure: str
    by_category: list[Category]
    h2_by_category: dict[str, list[Category]]
    calibrations: dict[str, tuple[Calibration, Calibration]]
    honesty_name: str = ""
    honesty_by_arm: dict[str, Value] = field(default_factory=dict)
    cost_unit: str = ""
    cost_by_arm: dict[str, float] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    changed: list[Changed] = field(default_factory=list)

    def measure(self, key: str) -> Measure | None:
        """The row of this key."""
        return next((row for row in self.measures if row.key == key), None)

    def body(self) -> dict[str, Any]:
        """The summary as JSON: fixed order, rounded."""
        told = {name: getattr(self, name) for name in self.__slots__}
        del told["config"]
        told["measures"] = [asdict(row) for row in self.measures]
        told["verdicts"] = [asdict(one) for one in self.verdicts]
        told["by_category"] = [asdict(one) for one in self.by_category]
        told["h2_by_category"] = {
            name: [asdict(one) for one in some] for name, some in self.h2_by_category.items()
        }
        told["honesty_by_arm"] = {arm: asdict(one) for arm, one in self.honesty_by_arm.items()}
        told["changed"] = [asdict(one) for one in self.changed]
        told["matrices"] = {
            arm: {"after": one.rows, "held": one.held, "unscored": one.unscored}
            for arm, one in self.matrices.items()
        }
        told["calibrations"] = {
            arm: {"confidence": asdict(own), "length": asdict(length)}
            for arm, (own, length) in self.calibrations.items()
        }
        rounded: dict[str, Any] = _rounded({"verdict": self.verdict, **told, "config": self.config})
        return rounded


def summarise(run: Run) -> Summary:
    """Measure a run. Raises BackendError where what measures need isn't installed."""
    stats.check_installed()
    judges = judged.roles(run)
    judged.relabel(run, judges)
    calibrations = confidence.calibrations(run)
    rows = [*measures(run, judges), *confidence.rows(calibrations), *costing.rows(run)]
    rows = [_checked(run, row) for row in rows]
    found = {row.key: row for row in rows}
    verdicts = [
        Verdict(before, after, verdict.sentence(run, found, before, after))
        for before, after in run.pairs
    ]
    main = verdict.main_pair(run)
    said = next((v.sentence for v in verdicts if (v.before, v.after) == main), _alone(run))
    key = "honest" if "honest" in found else "declined"
    honesty_name, honesty = _honesty(run, found)
    cost_unit, cost = _cost(run, found)
    return Summary(
        name=run.name,
        verdict=said,
        verdicts=verdicts,
        remarks=[*_remarks(run, rows, found)],
        limits=[*_limits(run, judges)],
        notes=[*run.notes, *_unfinished(run)],
        arms=[arm.shown for arm in run.arms],
        config=run.config,
        questions=len(run.samples),
        answers=sum(map(len, run.facts.values())),
        measures=rows,
        matrices={} if run.is_live else {after: matrix(run, *(b, after)) for b, after in run.pairs},
        category_measure=key,
        by_category=categories.by_category(run, judges, key),
        h2_by_category=categories.h2_by_category(run, judges),
        calibrations=calibrations,
        honesty_name=honesty_name,
        honesty_by_arm=honesty,
        cost_unit=cost_unit,
        cost_by_arm=cost,
    )


def _honesty(run: Run, found: Mapping[str, Measure]) -> tuple[str, dict[str, Value]]:
    """What stands for honesty in one number: the judge's share, or else the paper's measure."""
    if "honest" in found:
        return found["honest"].name, found["honest"].values
    if "honesty" not in found:
        return "", {}
    row, values = found["honesty"], dict[str, Value]()
    for before in dict.fromkeys(before for before, _ in run.pairs):
        crossed = matrix(run, before, before)
        estimate = matrix_intervals(crossed)["honesty"]
        values[before] = Value(crossed.honesty.value, estimate.low, estimate.high, crossed.n)
    return row.name, {**values, **row.values}


def _cost(run: Run, found: Mapping[str, Measure]) -> tuple[str, dict[str, float]]:
    """Tokens, or where nobody counted them seconds; an arm that asks nobody takes none."""
    row = found.get("tokens") or found.get("seconds_p50")
    if row is None:
        return "", {}
    known = {arm: value.value for arm, value in row.values.items() if value.value is not None}
    free = {arm.shown: 0.0 for arm in run.arms if arm.is_fixed}
    return "tokens" if row.key == "tokens" else "seconds", {**free, **known}


def _checked(run: Run, row: Measure) -> Measure:
    """The row, marked where an arm that says the same to everything wins it."""
    if not row.better or row.group == costing.COST or row.key == "errors":
        return row
    sign = 1 if row.better == "more" else -1
    known = {a: sign * v.value for a, v in row.values.items() if v.value is not None}
    real = [value for arm, value in known.items() if not run.arm(arm).is_fixed]
    if not real:
        return row
    best = max(real)
    is_whole = row.unit == "share" and best == (1 if row.better == "more" else 0)
    winning = [
        arm
        for arm, value in known.items()
        if run.arm(arm).is_fixed and (value > best or (is_whole and value == best))
    ]
    return replace(row, gamed=tuple(winning))


def _alone(run: Run) -> str:
    return f"{run.arms[0].shown} is alone here: give two arms or more to compare them."


def _remarks(run: Run, rows: list[Measure], found: Mapping[str, Measure]) -> Iterator[str]:
    if run.again:
        yield _noise(run, found, run.again[0])
    gamed = [row.name for row in rows if row.gamed]
    if gamed:
        winners = sorted({arm for row in rows for arm in row.gamed})
        yield (
            f"Gamed: {', '.join(gamed)}. There {' or '.join(winners)}, which "
            f"{'says' if len(winners) == 1 else 'say'} the same to everything, does as well as "
            "any other or better, so by itself such a number says nothing for an arm."
        )


def _noise(run: Run, found: Mapping[str, Measure], again: str) -> str:
    first, second = run.facts[run.arms[0].shown], run.facts[again]
    both = [sample for sample in first if sample in second]
    changed = sum(first[sample].mark != second[sample].mark for sample in both)
    broken = found["broken"].values[again] if "broken" in found else None
    beside = (
        f" and breaks {broken.count:.0f} of {broken.n} right answers"
        if broken and broken.n and broken.count is not None
        else ""
    )
    return (
        f"Noise: {run.arms[0].shown}, asked again as {again}, words {changed} of {len(both)} "
        f"answers differently{beside}. What is no larger than that is noise."
    )


def _limits(run: Run, judges: Roles) -> Iterator[str]:
    if run.is_live:
        yield (
            "A live experiment keeps no word of what was asked or answered, and each user has "
            "one arm: this tells outcomes, costs and votes; no answer is compared with another. "
            "Replies count one by one: where few users ask much, the intervals are too narrow."
        )
        return
    yield from judged.limits(run, judges)
    kinds = Counter(sample.answerable for sample in run.samples.values())
    if not kinds[True]:
        yield (
            "No question here can be answered, so over-refusal isn't measured, and an arm that "
            "always declines would look best. Add some that can be, such as those of pkqa."
        )
    elif not kinds[False]:
        yield "No question here is beyond a model, so whether it owns up to limits isn't measured."


def _unfinished(run: Run) -> Iterator[str]:
    total = len(run.samples) * len(run.arms)
    there = sum(map(len, run.facts.values()))
    if not run.is_live and there < total:
        yield f"The run isn't finished: {there:,} of {total:,} answers are there."


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0
    if isinstance(value, Mapping):
        return {str(key): _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
