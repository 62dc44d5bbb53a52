"""Rewrite only where there is doubt: draft and structured confusion, then a merge if needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from honestproxy.call import usable
from honestproxy.doubts import Reading, count, describe, doubtful
from honestproxy.strategies.introspect import sensed
from honestproxy.templates import block

if TYPE_CHECKING:
    from honestproxy.turn import Answer, Turn


async def gated(turn: Turn) -> Answer:
    """Draft and list doubts; keep the draft untouched where there is none, else merge."""
    draft = turn.start("draft")
    reading = Reading(turn.start("confusion", abilities=turn.abilities))
    turn.findings = reading.doubts
    if await reading.is_empty():
        return turn.keep(draft, "no doubt")
    confusion = usable(await reading.call, "confusion", whole=True)
    doubts = reading.doubts()
    if doubts and not doubtful(doubts, turn.limits.threshold):
        return turn.keep(draft, f"{count(doubts)}, but confidence {doubts.confidence:g}")
    statements = describe(doubts) if doubts else confusion.text
    return turn.finish(
        "merge",
        draft=await draft,
        confusion=block("confusion", statements),
        fallback=draft,
        reason=count(doubts) if doubts else "doubts in prose",
        opening=await sensed(turn),
    )


async def annotate(turn: Turn) -> Answer:
    """Elicit doubts beside an answer that must not be rewritten."""
    draft = turn.start("draft")
    turn.patience = turn.limits.step_timeout
    turn.findings = Reading(turn.start("confusion", abilities=turn.abilities)).doubts
    return turn.keep(draft, "annotated")
