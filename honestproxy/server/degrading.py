"""Under load: an answer with less care rather than none.

What makes several calls becomes `single` as soon as requests wait for a place, and `raw` once
the queue is half full; `single` becomes `raw` then, too. `introspect` makes no more calls than
`raw` and stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from honestproxy.types import ChatRequest

_HALF_FULL: Final = 0.5
_SEVERAL: Final = frozenset({"gated", "curiosity", "critique"})


def lesser(strategy: str, pressure: float, may: Callable[[str], bool]) -> str:
    """What answers in the place of a strategy while the queue is that full; often itself.

    A strategy that may not answer is passed over.
    """
    steps = (
        ("raw", pressure >= _HALF_FULL, _SEVERAL | {"single"}),
        ("single", pressure > 0, _SEVERAL),
    )
    fits = (name for name, is_time, replaced in steps if is_time and strategy in replaced)
    return next(filter(may, fits), strategy)


def by(strategy: str, request: ChatRequest) -> ChatRequest:
    """The same request, to be answered by that strategy."""
    chosen = request.with_headers(request.headers)
    chosen.options = replace(request.options, strategy=strategy)
    return chosen


def note(instead_of: str, strategy: str) -> str:
    """What the reply tells of it."""
    return f"under load: {strategy} instead of {instead_of}"
