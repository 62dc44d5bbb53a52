"""Pass through, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from honestproxy.turn import Answer, Turn


async def raw(turn: Turn) -> Answer:
    """Pass the request through, byte for byte."""
    return turn.keep(turn.start("draft"), "raw")
