"""A request's account as a row of the trace store: taken in a few microseconds, written later."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from honestproxy.server.access.usage import summed, tokens
from honestproxy.server.account import reason_of
from honestproxy.server.traces.recording import told
from honestproxy.server.traces.redaction import Redaction
from honestproxy.store.schema import Row
from honestproxy.trace import new_id
from honestproxy.types import write

if TYPE_CHECKING:
    from honestproxy.server.account import Account
    from honestproxy.server.traces.recording import Recording
    from honestproxy.trace import Honesty
    from honestproxy.types import Doubts

_STEP: Final = 4000
"""Bytes that a step of a trace takes beside what its client sent."""


class Noted:
    """What is known of a request at its end: no text, unless there is a `recording` to store."""

    __slots__ = (
        *("_doubts", "_error", "_facts", "_honesty", "_recording", "_redaction", "_upstream"),
        *("_usages", "id", "weight"),
    )

    def __init__(
        self, account: Account, recording: Recording | None, upstream: str, redaction: Redaction
    ) -> None:
        run, asked, self._recording = account.run, account.asked, recording
        self._upstream, self._redaction = upstream, redaction
        honesty = run.honesty if run else None
        trace = honesty.trace if honesty else None
        steps = trace.steps if trace else ()
        self.id = trace.id if trace else new_id()
        self._usages = [step.usage for step in steps if step.usage]
        self._doubts = honesty.doubts if honesty else None
        self._error: str | None = None
        self._honesty: Honesty | None = None
        self.weight = 1
        if recording is not None:
            self._honesty, self._error = honesty, account.failed
            self.weight = recording.size + _STEP * len(steps)
        self._facts: tuple[Any, ...] = (
            trace.created if trace else time.time() - account.seconds,
            account.api,
            asked.model if asked else None,
            trace.strategy if trace else None,
            trace.arm if trace else None,
            _outcome(account),
            _reason(honesty, whole=self._honesty is not None) if honesty else None,
            account.status,
            account.failed is not None,
            account.gone,
            asked is not None and asked.streamed,
            account.cached,
            account.seconds,
            len(steps),
            tokens(account) if account.caller.id is not None else None,
            account.caller.id,
        )

    def row(self) -> Row:
        """The row, with what was recorded as JSON."""
        redaction = self._redaction
        created, api, model, strategy, arm, outcome, reason, *rest, spent, key = self._facts
        status, failed, left, streamed, cached, seconds, calls = rest
        return Row(
            id=self.id,
            created=created,
            api=api,
            model=model and redaction.line(model),
            strategy=strategy,
            arm=arm,
            outcome=outcome,
            reason=reason and redaction.line(reason),
            status=status,
            failed=failed,
            client_left=left,
            streamed=streamed,
            cached=cached,
            seconds=round(seconds, 4),
            calls=calls,
            prompt_tokens=summed(self._usages, "prompt_tokens"),
            completion_tokens=summed(self._usages, "completion_tokens"),
            total_tokens=summed(self._usages, "total_tokens"),
            spent_tokens=spent,
            doubts=self._told_doubts(),
            confidence=self._doubts.confidence if self._doubts else None,
            upstream=self._upstream,
            key_id=key,
            error=self._error and redaction.line(self._error),
            trace=self._told(),
        )

    def _told(self) -> str | None:
        if self._honesty is None or self._recording is None:
            return None
        return told(self._honesty, self._recording.heard, self._redaction).decode()

    def _told_doubts(self) -> str | None:
        if self._doubts is None:
            return None
        return write(_listed(self._doubts, self._redaction if self._honesty else None)).decode()


def _listed(doubts: Doubts, redaction: Redaction | None) -> list[dict[str, Any]]:
    """The doubts; their statements, which may repeat what was asked, only where texts are kept."""
    if redaction is None:
        return [{"kind": doubt.kind} for doubt in doubts.items]
    return [{"kind": d.kind, "statement": redaction.text(d.statement)} for d in doubts.items]


def _outcome(account: Account) -> str | None:
    """What the answer was, once it was whole; a strategy may have said so before it broke off."""
    if account.run is None or account.gone or account.failed is not None:
        return None
    return account.run.honesty.outcome


def _reason(honesty: Honesty, *, whole: bool) -> str | None:
    """The reason; that of a step's failure in words of ours, where no text is to be kept."""
    return honesty.reason if whole else reason_of(honesty)
