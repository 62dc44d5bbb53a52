"""HonestLLM's training-free pipeline: draft, confusion, merge (arXiv 2406.00380, section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from honestproxy.call import usable
from honestproxy.strategies.introspect import sensed

if TYPE_CHECKING:
    from honestproxy.turn import Answer, Turn


async def curiosity(turn: Turn) -> Answer:
    """Draft, ask what is confusing, and always merge both."""
    draft, elicited = turn.start("draft", returned=False), turn.start("confusion")
    confusion = usable(await elicited, "confusion", whole=True)
    return turn.finish(
        "merge",
        draft=await draft,
        confusion=confusion,
        fallback=draft,
        reason="always merged",
        opening=await sensed(turn),
    )
