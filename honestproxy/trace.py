"""What was done for one request: its calls, and what became of its answer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from honestproxy.types import ChatRequest, ChatResponse, Chunk, Doubts, Outcome, Usage

_DRAWN: Final[list[str]] = []
"""The random parts of ids to come: to ask the system for many costs as much as for one."""

if hasattr(os, "register_at_fork"):  # two processes must never give the same
    os.register_at_fork(after_in_child=_DRAWN.clear)


def new_id() -> str:
    """The id of a request: 32 hex digits, of which the first twelve tell the millisecond.

    A store's index grows at its end then, instead of everywhere: that is most of a row's cost.
    """
    return f"{time.time_ns() // 1_000_000:012x}{_random()}"


def _random() -> str:
    """Twenty hex digits that nobody can guess."""
    try:
        return _DRAWN.pop()
    except IndexError:
        drawn = os.urandom(10 * 256).hex()
        first, *others = (drawn[at : at + 20] for at in range(0, len(drawn), 20))
        _DRAWN.extend(others)
        return first


@dataclass(slots=True)
class Step:
    """One call of a turn: what was sent, what came back, what it cost.

    `error` says what went wrong, perhaps in an upstream's words; `failure` of which kind that is:
    one of our errors' codes, or an upstream's status. `scores`: what was read inside the model
    before, and the opening that came of it. `last`: an answer's last chunks, where it was passed
    on unread and has no `response`.
    """

    name: str
    request: ChatRequest
    prompt: str | None = None
    digest: str | None = None
    response: ChatResponse | None = None
    usage: Usage | None = None
    seconds: float | None = None
    error: str | None = None
    failure: str | None = None
    scores: Mapping[str, Any] | None = None
    last: Sequence[Chunk] = ()

    def summary(self) -> dict[str, Any]:
        """The step as the `honesty` object lists it."""
        row: dict[str, Any] = {"name": self.name, "seconds": self.seconds, "usage": self.usage}
        if self.prompt:
            row |= {"prompt": self.prompt, "digest": self.digest}
        if self.scores:
            row["scores"] = self.scores
        return row | ({"error": self.error} if self.error else {})


@dataclass(slots=True)
class Trace:
    """The calls of one request, in the order they were started.

    `arm` is that of a live experiment, where the request has fallen to one. `watch` is told of
    each step right before it is sent, and may add headers to its request. `note` is told beside
    the reason of its outcome.
    """

    strategy: str
    arm: str | None = None
    id: str = field(default_factory=new_id)
    created: float = field(default_factory=time.time)
    started: float = field(default_factory=time.perf_counter)
    steps: list[Step] = field(default_factory=list)
    ended: float | None = None
    watch: Callable[[Step], None] | None = None
    note: str | None = None

    @property
    def seconds(self) -> float:
        """From the request's coming to its answer's end, or till now."""
        return (self.ended or time.perf_counter()) - self.started

    @property
    def usage(self) -> Usage:
        """The sum over all calls that reported theirs."""
        return sum((step.usage for step in self.steps if step.usage), Usage())


@dataclass(slots=True)
class Honesty:
    """What was done to one answer: the `honesty` object of a reply, and its trace."""

    trace: Trace
    outcome: Outcome | None = None
    reason: str | None = None
    doubts: Doubts | None = None

    def body(self) -> dict[str, Any]:
        """The object as the wire carries it (`doubts` is null where they are unknown)."""
        found = self.doubts
        doubts = (
            [{"kind": d.kind, "statement": d.statement} for d in found.items] if found else None
        )
        arm = {"arm": self.trace.arm} if self.trace.arm else {}
        return {
            "strategy": self.trace.strategy,
            **arm,
            "outcome": self.outcome,
            "reason": "; ".join(filter(None, (self.reason, self.trace.note))) or None,
            "doubts": doubts,
            "confidence": found.confidence if found else None,
            "calls": len(self.trace.steps),
            "seconds": round(self.trace.seconds, 4),
            "trace_id": self.trace.id,
            "steps": [step.summary() for step in self.trace.steps],
        }
