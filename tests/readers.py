"""A scripted backend that also says what it reads inside its model."""

from __future__ import annotations

from typing import Any

from honestproxy.backends.scripted import Scripted
from honestproxy.doubts import Scores
from honestproxy.types import ChatRequest

PRICE = {"latest_information": 0.9, "self_identity": 0.05}


class Reading(Scripted):
    """Scripted, with `scores`: what is read, or an error to raise.

    As a backend that continues an opening, it gives back what a request with `echo` begins with.
    """

    def __init__(self, replies: Any, scores: Any = None) -> None:
        super().__init__(replies)
        self.scores = scores or Scores(PRICE, 0.7, {"latest_information": {"live_price": 1.0}})

    async def read(self, request: ChatRequest) -> Scores:
        if isinstance(self.scores, Exception):
            raise self.scores
        return self.scores  # type: ignore[no-any-return]

    async def _next(self, request: ChatRequest) -> Any:
        reply = await super()._next(request)
        begun = _begun(request.messages[-1]["content"]) if request.get("echo") else None
        return [begun, reply] if begun and isinstance(reply, str) else reply


def _begun(content: Any) -> str:
    """The opening, with the last word of a question in its gap."""
    if isinstance(content, str):
        return content
    words = (
        p["text"].split()[-1].strip("?") if p["type"] == "quote" else p["text"] for p in content
    )
    return "".join(words)
