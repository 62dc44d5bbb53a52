"""A request's account as a row of the trace store: taken in a few microseconds, written later."""

from __future__ import annotations

import time
from dataclasses import dataclass
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
    """What is known of a request at its end: no text, unless there is a `recording` to store.

    The row is made at once: what a request has left behind would cost more to keep until the
    writer comes than to read. Texts alone wait, since to go through them takes its time.
    """

    __slots__ = ("_row", "_texts", "id", "weight")

    def __init__(
        self, account: Account, recording: Recording | None, upstream: str, redaction: Redaction
    ) -> None:
        run, asked, key = account.run, account.asked, account.caller.id
        honesty = run.honesty if run else None
        trace = honesty.trace if honesty else None
        steps = trace.steps if trace else ()
        usages = [step.usage for step in steps if step.usage]
        doubts = honesty.doubts if honesty else None
        reason = _reason(honesty, whole=recording is not None) if honesty else None
        self.id = trace.id if trace else new_id()
        self.weight = 1 if recording is None else recording.size + _STEP * len(steps)
        self._texts = recording and _Texts(recording, honesty, account.failed, redaction)
        self._row = Row(
            id=self.id,
            created=trace.created if trace else time.time() - account.seconds,
            api=account.api,
            model=redaction.line(asked.model) if asked else None,
            strategy=trace.strategy if trace else None,
            arm=trace.arm if trace else None,
            outcome=_outcome(account),
            reason=reason and redaction.line(reason),
            status=account.status,
            failed=account.failed is not None,
            client_left=account.gone,
            streamed=asked is not None and asked.streamed,
            cached=account.cached,
            seconds=round(account.seconds, 4),
            calls=len(steps),
            prompt_tokens=summed(usages, "prompt_tokens"),
            completion_tokens=summed(usages, "completion_tokens"),
            total_tokens=summed(usages, "total_tokens"),
            spent_tokens=tokens(account) if key is not None else None,
            doubts=_told(doubts) if doubts else None,
            confidence=doubts.confidence if doubts else None,
            upstream=upstream,
            key_id=key,
            error=None,
            trace=None,
        )

    def row(self) -> Row:
        """The row, with what was recorded as JSON."""
        return self._texts.added(self._row) if self._texts else self._row


@dataclass(frozen=True, slots=True)
class _Texts:
    """What is stored of a request only where texts are kept."""

    recording: Recording
    honesty: Honesty | None
    error: str | None
    redaction: Redaction

    def added(self, row: Row) -> Row:
        """The row with texts, secrets blotted out."""
        redaction, honesty = self.redaction, self.honesty
        row = row._replace(error=self.error and redaction.line(self.error))
        if honesty is None:
            return row
        doubts = _told(honesty.doubts, redaction) if honesty.doubts else None
        trace = told(honesty, self.recording.heard, redaction).decode()
        return row._replace(doubts=doubts, trace=trace)


def _told(doubts: Doubts, redaction: Redaction | None = None) -> str:
    return write(_listed(doubts, redaction)).decode()


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
