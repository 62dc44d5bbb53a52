"""Read the doubt inside the model, and open the answer with it: for local models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from honestproxy.errors import HonestProxyError, InvalidRequest, StepFailed
from honestproxy.types import Doubt, Doubts

if TYPE_CHECKING:
    from honestproxy.doubts import Scores
    from honestproxy.turn import Answer, Turn

CLEAR: Final = 0.45
"""Share of the doubt that a kind must hold for an opening of its own: a wrong one is untrue."""


async def introspect(turn: Turn) -> Answer:
    """Read doubt from the model's hidden states; where there is, open the answer with it."""
    try:
        scores = await turn.read()
    except InvalidRequest:
        raise
    except HonestProxyError as error:
        turn.start("draft")
        raise StepFailed(f"the model couldn't be read: {error.message}") from error
    wished = turn.request.options.threshold
    threshold = scores.threshold if wished is None else 1 - wished
    found = Doubts(confidence=round(1 - scores.doubt, 4))
    turn.findings = lambda: found
    turn.scores = _told(scores, threshold)
    if scores.doubt <= threshold:
        return turn.keep(turn.start("draft"), "no doubt")
    kind, chance = max(scores.kinds.items(), key=lambda item: item[1])
    clear = chance >= CLEAR * scores.doubt
    sub = scores.subs.get(kind)
    name = f"{kind}-{sub}" if sub else kind
    opening = turn.opening(name if clear else "unclear")
    text = opening.render()
    found = Doubts((Doubt(kind, text),), found.confidence)
    turn.scores |= {"opening": text}
    return turn.open("answer", opening, f"{kind if clear else 'unclear'} {scores.doubt:.2f}")


def _told(scores: Scores, threshold: float) -> dict[str, object]:
    kinds = {kind: round(chance, 4) for kind, chance in scores.kinds.items()}
    return {"doubt": round(scores.doubt, 4), "threshold": round(threshold, 4), "kinds": kinds}
