"""What arms cost: calls, tokens, money, seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from honestproxy.evals.figures import Figure, Part
from honestproxy.evals.records import Answered

Price = Callable[[Mapping[str, Any]], float | None]
"""What a `usage` costs in dollars; None where the price isn't known."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What an arm's answers cost. All but `money` are by question.

    Seconds are of answers alone, since an error may come at once, or after all retries. `money`
    is the sum over answers whose price is known; the others are unscored.
    """

    calls: Figure
    tokens: Figure
    money: Figure
    seconds_p50: Figure
    seconds_p95: Figure
    first_p50: Figure
    first_p95: Figure


def costs(answers: Sequence[Answered], price: Price | None = None) -> Costs:
    """Calls, tokens, money and seconds of one arm's answers."""
    good = [answer for answer in answers if answer.error is None]
    seconds = [answer.seconds for answer in good]
    first = [answer.first for answer in good]
    return Costs(
        calls=_mean([float(answer.calls) for answer in answers]),
        tokens=_mean([tokens(answer) for answer in answers]),
        money=_money(answers, price),
        seconds_p50=quantile(seconds, 0.50),
        seconds_p95=quantile(seconds, 0.95),
        first_p50=quantile(first, 0.50),
        first_p95=quantile(first, 0.95),
    )


def tokens(answer: Answered) -> float | None:
    """All tokens of an answer, over all its calls; None where the upstream didn't count."""
    total = _tokens(answer, "total_tokens")
    if total is not None:
        return total
    parts = [_tokens(answer, "prompt_tokens"), _tokens(answer, "completion_tokens")]
    return None if None in parts else sum(part for part in parts if part is not None)


def quantile(values: Sequence[float | None], share: float) -> Figure:
    """The value below which this share lies, with linear interpolation."""
    import numpy as np

    known = [value for value in values if value is not None]
    value = float(np.quantile(known, share)) if known else None
    return Figure(value, len(known), unscored=len(values) - len(known))


_TAKEN: Final[Mapping[str, Callable[[Answered], float | None]]] = {
    "calls": lambda answer: float(answer.calls),
    "tokens": tokens,
    "seconds": lambda answer: answer.seconds,
    "first": lambda answer: answer.first,
}


def part(answer: Answered, what: str) -> Part | None:
    """What one answer took of calls, tokens, seconds or seconds to the first token.

    An error is unscored.
    """
    taken = _TAKEN[what](answer) if answer.error is None else None
    return None if taken is None else (taken, 1.0)


def _money(answers: Sequence[Answered], price: Price | None) -> Figure:
    priced = [price(answer.usage) if price and answer.usage else None for answer in answers]
    known = [dollars for dollars in priced if dollars is not None]
    unscored = len(priced) - len(known)
    return Figure(sum(known) if known else None, len(known), unscored=unscored)


def _mean(values: Sequence[float | None]) -> Figure:
    known = [value for value in values if value is not None]
    return Figure.mean(known, unscored=len(values) - len(known))


def _tokens(answer: Answered, name: str) -> float | None:
    found = (answer.usage or {}).get(name)
    return float(found) if isinstance(found, int | float) else None
