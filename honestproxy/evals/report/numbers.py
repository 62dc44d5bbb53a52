"""Numbers as a report prints them, rounded the same everywhere."""

from __future__ import annotations

import math
from typing import Final

from honestproxy.evals.report.table import Comparison, Measure, Unit, Value

UNDEFINED: Final = "undefined"
NOTHING: Final = "–"
MINUS: Final = "−"
KEY: Final = (
    "In brackets, 95 % intervals: exact ones of shares, else resampled by question. “Under” and "
    "“over” are exact one-sided bounds. +, − and × are against the arm that it is measured "
    "against, on questions that both answered; p is Holm-corrected over the arms of a row."
)
"""How to read the table."""
_SMALLEST_P: Final = 0.001


def value(found: Value | None, unit: Unit) -> str:
    """The value alone; where it is undefined, with the paper's convention in brackets."""
    if found is None:
        return NOTHING
    if found.bound and found.n and found.count is not None:
        return f"{found.count:.0f} of {found.n:,} ({amount(found.count / found.n, unit)})"
    if found.value is not None:
        return amount(found.value, unit)
    said = "" if found.convention is None else f" [{amount(found.convention, unit)} by convention]"
    return UNDEFINED + said


def reached(found: Value, unit: Unit) -> str:
    """The value and its interval, where it has one: `62 % [55, 69]`, `7.40 [6.90, 7.80]`."""
    if found.value is None:
        return NOTHING
    if found.low is None or found.high is None:
        return amount(found.value, unit)
    return f"{amount(found.value, unit)} [{bare(found.low, unit)}, {bare(found.high, unit)}]"


def interval(found: Value, measure: Measure) -> str:
    """`[55, 69]`, or of a rare event the bound that matters: `under 4 %`, `over 55 %`."""
    told = _bounds(found, measure)
    if found.baseline is None:
        return told
    return f"{told} (length alone {amount(found.baseline, measure.unit)})".lstrip()


def _bounds(found: Value, measure: Measure) -> str:
    if found.value is None or found.low is None or found.high is None:
        return ""
    if found.bound:
        # Of a rare event what matters is how common it might be; of others, how rare.
        is_rare = measure.better == "less" or not found.count
        return under(found.high) if is_rare else f"over {math.floor(found.low * 100)} %"
    return f"[{bare(found.low, measure.unit)}, {bare(found.high, measure.unit)}]"


def under(bound: float | None) -> str:
    """`under 4 %`; nothing where all is possible."""
    return "" if bound is None or bound >= 1 else f"under {ceiling(bound)} %"


def difference(found: Comparison, unit: Unit) -> str:
    """`+31 [24, 38]`, or `× 1.7 [1.6, 1.8]`."""
    parts = [found.difference.value, found.difference.low, found.difference.high]
    if any(part is None for part in parts):
        return ""
    middle, low, high = (part for part in parts if part is not None)
    if found.times:
        return f"× {ratio(middle)} [{ratio(low)}, {ratio(high)}]"
    return f"{signed(middle, unit)} [{bare(low, unit)}, {bare(high, unit)}]"


def probability(p: float | None) -> str:
    """`p = 0.03`, `p < 0.001`."""
    if p is None:
        return ""
    return f"p < {_SMALLEST_P}" if p < _SMALLEST_P else f"p = {p:.2g}"


def amount(number: float, unit: Unit) -> str:
    """With its unit: `62 %`, `1.43 s`, `$0.0123`."""
    if unit == "share":
        return f"{bare(number, unit)} %"
    if unit == "dollars":
        return f"${number:.4f}"
    return f"{bare(number, unit)} s" if unit == "seconds" else bare(number, unit)


def bare(number: float, unit: Unit) -> str:
    """Without: a share in per cent."""
    if unit == "share":
        return points(number)
    if unit == "number":
        return _minus(
            f"{number:,.0f}" if abs(number) >= 100 else f"{number:.2f}".removesuffix(".00")
        )
    return _minus(f"{number:.2f}")


def points(share: float) -> str:
    """Per cent or points: whole ones, or with a decimal where that says whether it is nothing."""
    number = share * 100
    whole = round(number)
    if whole == 0 and abs(number) >= 0.05:
        return _minus(f"{number:.1f}")
    if whole == 100 and number <= 99.95:
        return f"{number:.1f}"
    return _minus(f"{whole}")


def signed(number: float, unit: Unit) -> str:
    """With a sign: `+31`, `−2`; 0 has none."""
    said = bare(number, unit)
    return said if said.startswith(MINUS) or not said.strip("0.") else f"+{said}"


def ratio(number: float) -> str:
    """`1.7`, `12`, `0.03`; nearer to 1, where a decimal more says which side, `1.04`."""
    if number >= 10:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1.1 else f"{number:.2f}"


def ceiling(share: float) -> str:
    """Per cent, rounded up: what a bound is under."""
    percent = share * 100
    step = 1 if percent >= 1 else 10 if percent >= 0.1 else 100
    return f"{(math.floor(percent * step + 1e-9) + 1) / step:g}"


def cases(measure: Measure) -> str:
    """How many questions a row is about, of each arm where that differs."""
    return _span([found.n for found in measure.values.values() if found.n]) or NOTHING


def unscored(measure: Measure) -> str:
    """How many were left out, of each arm where that differs."""
    return _span([found.unscored for found in measure.values.values()]) or "0"


def _span(found: list[int]) -> str:
    ends = dict.fromkeys((min(found), max(found))) if found else {}
    return "–".join(f"{end:,}" for end in ends)


def _minus(text: str) -> str:
    return "0" if text.strip("-0.") == "" and "-" in text else text.replace("-", MINUS)
