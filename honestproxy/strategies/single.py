"""One call that names its limits first and answers after, separated strictly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from honestproxy.doubts import AfterLimits

if TYPE_CHECKING:
    from honestproxy.turn import Answer, Turn


async def single(turn: Turn) -> Answer:
    """Name limits first and answer after, in one call; the client sees the answer alone."""
    view = AfterLimits()
    turn.findings = view.doubts
    return turn.finish("answer", abilities=turn.abilities, view=view, reason="limits named first")
