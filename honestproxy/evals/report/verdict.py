"""The verdict: what was shown of an arm, and what it costs, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from honestproxy.evals.report import numbers
from honestproxy.evals.report.reading import Run
from honestproxy.evals.report.table import Comparison, Measure

_HONEST: Final = "honest"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One arm's sentence."""

    before: str
    after: str
    sentence: str


def main_pair(run: Run) -> tuple[str, str] | None:
    """What a run is about: the first arm that is neither a control nor the first one again.

    Of two runs, it is the first arm that is more than the plain model.
    """

    def rank(pair: tuple[str, str]) -> int:
        arm = run.arm(pair[1])
        is_plain = run.is_comparison and arm.strategy == "raw"
        return 2 * arm.is_fixed + (arm.is_control or is_plain or arm.shown in run.again)

    return min(run.pairs, key=rank, default=None)


def sentence(run: Run, measures: Mapping[str, Measure], before: str, after: str) -> str:
    """What the measures say of one arm beside another."""
    clauses = [
        *_honesty(measures, after),
        *_right(run, measures, after),
        *_votes(measures, after),
        *([] if run.arm(after).is_fixed else _costs(measures, after)),
    ]
    if not clauses:
        return f"Against {before}, nothing could be measured of {after}."
    return f"Against {before}, {after} {_listed(clauses)}."


def _honesty(measures: Mapping[str, Measure], after: str) -> Iterator[str]:
    judged = _compared(measures, _HONEST, after)
    if judged:
        yield _said(
            judged,
            more="answers {} more honestly",
            fewer="answers {} less honestly",
            none="shows no difference in honesty",
        ) + _gamed(measures[_HONEST], after)
    elif found := _compared(measures, "declined", after):
        yield _said(
            found,
            more="declines {} more of what can't be answered",
            fewer="declines {} less of what can't be answered",
            none="shows no difference in declining what can't be answered",
        ) + _gamed(measures["declined"], after)
    if found := _compared(measures, "over_refusal", after):
        yield _said(
            found,
            more="declines {} more of what can be answered",
            fewer="declines {} less of what can be answered",
            none="shows no difference in over-refusal",
        )


def _gamed(measure: Measure, after: str) -> str:
    """What a control that says the same to everything gains by this measure."""
    name = next(iter(measure.gamed), None)
    if after in measure.gamed:
        return ""
    found = name and measure.against(name)
    own = measure.against(after)
    if not found or found.difference.value is None or not own or not own.is_shown:
        return ""
    return f" ({name}: {numbers.points(found.difference.value)})"


def _said(found: Comparison, *, more: str, fewer: str, none: str) -> str:
    middle, low, high = (
        found.difference.value or 0.0,
        found.difference.low or 0.0,
        found.difference.high or 0.0,
    )
    between = f"[{numbers.points(low)}, {numbers.points(high)}]"
    if not found.is_shown:
        p = numbers.probability(found.corrected)
        # Where the interval leaves no room for none, it is the test that does.
        because = f"; {p}" if p and not low <= 0 <= high else ""
        return f"{none} ({numbers.signed(middle, 'share')} {_points(middle)} {between}{because})"
    if middle < 0:
        between = f"[{numbers.points(-high)}, {numbers.points(-low)}]"
    shape = more if middle > 0 else fewer
    return f"{shape.format(f'{numbers.points(abs(middle))} {_points(middle)}')} {between}"


def _points(share: float) -> str:
    return "point" if numbers.points(abs(share)) == "1" else "points"


def _right(run: Run, measures: Mapping[str, Measure], after: str) -> Iterator[str]:
    broken = measures.get("broken")
    found = broken and broken.values.get(after)
    if not found or not found.n or found.count is None:
        return
    bound = numbers.under(found.high)
    under = f"{bound} at 95 %" if bound else ""
    noise = _noise(run, measures, after)
    beside = "; ".join(filter(None, (under, noise)))
    said = f"breaks {_none(found.count)} of {found.n:,} right answers"
    yield f"{said} ({beside})" if beside else said
    withheld = measures["withheld"].values[after].count
    if withheld:
        yield f"withholds {withheld:.0f} of them"
    mended = measures["mended"].values[after]
    if mended.count:
        yield f"mends {mended.count:.0f} of {mended.n:,} wrong ones"


def _noise(run: Run, measures: Mapping[str, Measure], after: str) -> str:
    """How many the baseline breaks of its own, asked again."""
    if not run.again or after in run.again:
        return ""
    count = measures["broken"].values[run.again[0]].count or 0
    return f"{run.arms[0].shown} asked again breaks {_none(count)}"


def _costs(measures: Mapping[str, Measure], after: str) -> Iterator[str]:
    found = {
        noun: comparison
        for key, noun in (("tokens", "tokens"), ("seconds_p50", "time"))
        if (comparison := _compared(measures, key, after))
    }
    shown = [
        f"{numbers.ratio(one.difference.value or 0)} × the {noun}"
        for noun, one in found.items()
        if one.is_shown
    ]
    if shown:
        yield f"costs {' and '.join(shown)}"
    for noun, one in found.items():
        if not one.is_shown and (told := numbers.difference(one, "number")):
            yield f"shows no difference in {noun} ({told})"


def _votes(measures: Mapping[str, Measure], after: str) -> Iterator[str]:
    if found := _compared(measures, "votes", after):
        yield _said(
            found,
            more="has {} more of its votes up",
            fewer="has {} less of its votes up",
            none="shows no difference in votes",
        )


def _compared(measures: Mapping[str, Measure], key: str, after: str) -> Comparison | None:
    measure = measures.get(key)
    found = measure.against(after) if measure else None
    return found if found and found.difference.value is not None else None


def _none(count: float) -> str:
    return f"{count:.0f}" if count else "none"


def _listed(clauses: list[str]) -> str:
    return clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])}, and {clauses[-1]}"
