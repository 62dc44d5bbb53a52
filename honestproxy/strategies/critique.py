"""Curiosity, then a critique of its answer and a minimal edit (arXiv 2506.16064)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from honestproxy.call import usable

if TYPE_CHECKING:
    from honestproxy.turn import Answer, Turn


async def critique(turn: Turn) -> Answer:
    """Merge as curiosity does, criticise the result, and mend only what the critique names."""
    draft = turn.start("draft", returned=False)
    elicited = turn.start("confusion", prompt="curiosity/confusion")
    confusion = usable(await elicited, "confusion", whole=True)
    merging = turn.rewrite(
        "merge", prompt="curiosity/merge", draft=await draft, confusion=confusion
    )
    answer = usable(await merging, "merge")
    faults = usable(await turn.start("critique", answer=answer), "critique", whole=True)
    return turn.finish(
        "edit", answer=answer, critique=faults, fallback=draft, reason="criticised and edited"
    )
