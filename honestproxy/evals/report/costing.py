"""The rows on what arms cost: calls, tokens, money, seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from honestproxy.evals import prices
from honestproxy.evals.costs import Costs, costs, part
from honestproxy.evals.figures import Figure
from honestproxy.evals.report.reading import Arm, Run
from honestproxy.evals.report.table import Measure, Spec, Value, times

COST: Final = "What it costs"

_MEANS: Final = {
    "calls": ("calls", "Calls to the model, a question."),
    "tokens": ("tokens", "Tokens read and written, a question."),
}
_TIMES: Final = {
    "seconds_p50": ("seconds, median", "To the end of the answer.", "seconds"),
    "seconds_p95": ("seconds, 95 of 100", "The time that 95 % of answers need at most.", ""),
    "first_p50": ("to the first token, median", "Seconds.", "first"),
    "first_p95": ("to the first token, 95 of 100", "Seconds.", ""),
}


def rows(run: Run) -> list[Measure]:
    """The rows; what an arm takes beside another is by total, over questions both answered."""
    found = {
        arm.shown: costs(
            [fact.answered for fact in run.facts[arm.shown].values()], _price(run, arm)
        )
        for arm in run.arms
    }
    made = [*_means(run, found), *_seconds(run, found), _money(found)]
    return [row for row in made if row is not None]


def _means(run: Run, found: Mapping[str, Costs]) -> Iterator[Measure | None]:
    for key, (name, about) in _MEANS.items():
        spec = Spec(key, name, about, COST, unit="number", better="less")
        yield _row(run, spec, {arm: getattr(one, key) for arm, one in found.items()}, key)


def _seconds(run: Run, found: Mapping[str, Costs]) -> Iterator[Measure | None]:
    for key, (name, about, what) in _TIMES.items():
        spec = Spec(key, name, about, COST, unit="seconds", better="less")
        yield _row(run, spec, {arm: getattr(one, key) for arm, one in found.items()}, what)


def _money(found: Mapping[str, Costs]) -> Measure | None:
    spec = Spec(
        "money",
        "dollars, in all",
        "By the price given, or litellm's table.",
        COST,
        "dollars",
        "less",
    )
    values = {arm: _value(one.money) for arm, one in found.items()}
    return spec.row(values) if any(value.n for value in values.values()) else None


def _row(run: Run, spec: Spec, figures: Mapping[str, Figure], what: str) -> Measure | None:
    values = {
        arm: _value(figure)
        for arm, figure in figures.items()
        if figure.n or not run.arm(arm).is_fixed
    }
    if not what:
        return spec.row(values)
    columns = {
        arm: {s: part(fact.answered, what) for s, fact in run.facts[arm].items()} for arm in values
    }
    pairs = [
        (before, after)
        for before, after in run.pairs
        if before in values and values[before].value
        if after in values and values[after].value is not None and not run.arm(after).is_fixed
    ]
    made = [
        times(before, after, columns[before], columns[after], paired=not run.is_live)
        for before, after in pairs
    ]
    return spec.row(values, made)


def _value(figure: Figure) -> Value:
    return Value(figure.value, n=figure.n, unscored=figure.unscored)


def _price(run: Run, arm: Arm) -> prices.Price | None:
    """The price that the run was given, or else that of the table."""
    if not arm.upstream:
        return None
    given = run.config.get("price")
    return prices.parse(given) if given else prices.known(arm.upstream, arm.model or "")
