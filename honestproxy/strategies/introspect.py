"""Read the doubt inside the model, and open the answer with it: for local models."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from honestproxy.errors import HonestProxyError, InvalidRequest, StepFailed
from honestproxy.types import Doubt, Doubts

if TYPE_CHECKING:
    from honestproxy.doubts import Scores
    from honestproxy.templates import Prompt
    from honestproxy.turn import Answer, Turn

CLEAR: Final = 0.55
"""Share of the doubt that a kind must hold for an opening of its own: a wrong one is untrue."""
ALSO: Final = 0.25
"""Share of the doubt that a kind must hold to be listed beside the likeliest."""
UNCLEAR: Final = "unclear"


async def introspect(turn: Turn) -> Answer:
    """Read doubt from the model's hidden states; where there is, open the answer with it."""
    try:
        scores = await _read(turn)
    except InvalidRequest:
        raise
    except HonestProxyError as error:
        turn.start("draft")
        raise StepFailed(f"the model couldn't be read: {error.message}") from error
    if scores is None:
        return turn.keep(turn.start("draft"), "no question was asked")
    told = _note(turn, scores)
    if scores.doubt <= _threshold(turn, scores):
        return turn.keep(turn.start("draft"), "no doubt")
    name = named(scores)
    opening = turn.opening(name)

    def findings() -> Doubts:
        told["opening"] = opening.beginning(turn.said(opening)) or None
        return _doubts(turn, scores, told["opening"] or _first(opening))

    turn.findings = findings
    return turn.open("answer", opening, f"{name.partition('-')[0]} {scores.doubt:.2f}")


async def noted(turn: Turn) -> Answer:
    """Read doubt beside an answer that must not be rewritten."""
    try:
        scores = await _read(turn)
    except InvalidRequest:
        raise
    except HonestProxyError as error:
        return turn.keep(turn.start("draft"), f"the model couldn't be read: {error.message}")
    if scores is not None:
        _note(turn, scores)
        if scores.doubt > _threshold(turn, scores):
            said = _first(turn.opening(named(scores)))
            turn.findings = partial(_doubts, turn, scores, said)
    return turn.keep(turn.start("draft"), "annotated")


async def sensed(turn: Turn) -> Prompt | None:
    """The opening for a merge, where the model can be read and is in doubt."""
    if not turn.backend.reads:
        return None
    try:
        scores = await _read(turn)
    except HonestProxyError:
        return None
    return turn.opening(named(scores)) if scores and scores.doubt > scores.threshold else None


def named(scores: Scores) -> str:
    """The opening that says this doubt: the likeliest kind's, where one is clear."""
    kind, chance = max(scores.kinds.items(), key=lambda item: item[1])
    form = scores.form(kind)
    return f"{kind}-{form}" if form and chance >= CLEAR * scores.doubt else UNCLEAR


async def _read(turn: Turn) -> Scores | None:
    """What goes on inside the model; None where no question was asked."""
    if turn.backend.reads and not turn.query.strip():
        return None
    return await turn.read()


def _threshold(turn: Turn, scores: Scores) -> float:
    wished = turn.options.threshold
    return scores.threshold if wished is None else 1 - wished


def _note(turn: Turn, scores: Scores) -> dict[str, Any]:
    """What was read, as trace and reply tell it: as yet, no doubt of it."""
    turn.scores = told = _told(scores, _threshold(turn, scores))
    turn.findings = lambda: Doubts(confidence=round(1 - scores.doubt, 4))
    return told


def _doubts(turn: Turn, scores: Scores, said: str) -> Doubts:
    """The likeliest doubt as the answer says it, and those that are nearly as likely."""
    first, *others = sorted(scores.kinds, key=lambda kind: -scores.kinds[kind])
    also = [kind for kind in others if scores.kinds[kind] >= ALSO * scores.doubt]
    openings = {kind: turn.opening(f"{kind}-{scores.form(kind)}") for kind in scores.forms}
    stated = [Doubt(kind, _first(openings[kind])) for kind in also if kind in openings]
    return Doubts((Doubt(first, said), *stated), round(1 - scores.doubt, 4))


def _first(opening: Prompt) -> str:
    """The opening's first sentence, about nothing in particular."""
    text = opening.render(**dict.fromkeys(opening.placeholders, "this"))
    return text.partition(". ")[0] + "."


def _told(scores: Scores, threshold: float) -> dict[str, Any]:
    kinds = {kind: round(chance, 4) for kind, chance in scores.kinds.items()}
    return {"doubt": round(scores.doubt, 4), "threshold": round(threshold, 4), "kinds": kinds}
