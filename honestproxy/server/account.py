"""What became of one request, and who is told of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from starlette.types import Message, Send

from honestproxy.pipeline import AnyRun
from honestproxy.server.access.caller import ANYONE, Caller
from honestproxy.server.access.usage import Overheard
from honestproxy.types import ChatRequest
from honestproxy.wire.reply import PING

if TYPE_CHECKING:
    from honestproxy.server.seeing.telemetry import Spans
    from honestproxy.server.traces.recording import Recording
    from honestproxy.trace import Honesty, Trace

log = logging.getLogger(__name__)

_NOTHING: Final = (b"", None, PING)

Api = Literal["chat", "responses", "relay"]

_LIMITS: Final = b"x-ratelimit-"

LEFT: Final = 499
"""The status of a client that was gone before its answer, as nginx has it."""


@dataclass(slots=True)
class Account:
    """One request from its coming to its end. What isn't known, it may never have come to.

    `status` is that of the head that was sent; `failed` says what went wrong, in a stream's
    midst too, and `left` that the client was gone before the end. `first` is when the body began,
    pings aside; `cached` and `missed` say whether a cache had the answer, where one was asked.
    `run` is there where the pipeline was asked; a request that was refused before has none.
    `upstream` is the spec of the one that its model leads to. `is_strangers`: it came
    without a key that holds, so that anyone could have sent it.
    `spans` are OpenTelemetry's, where they are wanted; `request_id` is the client's own. `told`
    are headers about the key's own limits, in place of an upstream's about its own; `overheard`
    is there where it matters what an answer took that doesn't say so, and `recording` where
    texts are to be kept.
    """

    api: Api
    started: float = field(default_factory=time.perf_counter)
    first: float | None = None
    seconds: float = 0.0
    caller: Caller = ANYONE
    asked: ChatRequest | None = None
    run: AnyRun | None = None
    upstream: str | None = None
    status: int = LEFT
    failed: str | None = None
    left: bool = False
    cached: bool = False
    missed: bool = False
    is_strangers: bool = False
    spans: Spans | None = None
    request_id: str | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    overheard: Overheard | None = None
    recording: Recording | None = None

    def heard(self, send: Send) -> Send:
        """`send`, with what goes through it written down: the head's status, the body's begin."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                if self.told:
                    message = {**message, "headers": _limits_told(message["headers"], self.told)}
                await send(message)
                self.status = message["status"]  # a second head, for an error, can't be sent
                return
            if self.first is None and message.get("body") not in _NOTHING:
                self.first = time.perf_counter()
            await send(message)

        return sent

    @property
    def gone(self) -> bool:
        """Whether the client was gone before the end, or before there was anything to send."""
        return self.left or self.status == LEFT

    @property
    def outcome(self) -> str:
        """What became of the request, in one word: that of its answer, `error` or `client_left`."""
        if self.gone:
            return "client_left"
        if self.failed is not None:
            return "error"
        if self.run is not None and self.run.honesty.outcome:
            return self.run.honesty.outcome
        return "passed_through" if self.api == "relay" else "error"

    def close(self, observers: Sequence[Observer]) -> None:
        """The request has ended: tell everyone."""
        self.seconds = time.perf_counter() - self.started
        for observer in observers:
            try:
                observer.note(self)
            except Exception:  # a mistake of one mustn't keep it from the others
                log.exception("%s failed on a request's end", type(observer).__name__)


def _limits_told(headers: Iterable[tuple[bytes, bytes]], told: Mapping[str, str]) -> Any:
    others = [pair for pair in headers if not pair[0].startswith(_LIMITS)]
    return others + [(name.encode(), value.encode()) for name, value in told.items()]


class Observer(Protocol):
    """Whoever is told of each request's end; on the hot path, so it must be quick."""

    def note(self, account: Account) -> None:
        """Take it in. Must not raise, block or wait."""
        ...


class Lasting(Protocol):
    """An observer that works in the background, from the server's start to its end."""

    async def start(self) -> None:
        """Begin; nothing where it has begun. Raises SettingsError where it can't."""
        ...

    async def aclose(self) -> None:
        """End, with nothing lost that was taken in."""
        ...


def facts(account: Account) -> dict[str, Any]:
    """What may be written down of any request: no text, no key."""
    run, asked = account.run, account.asked
    honesty = run.honesty if run else None
    return {
        "trace_id": honesty.trace.id if honesty else None,
        "api": account.api,
        "status": account.status,
        "strategy": honesty.trace.strategy if honesty else None,
        "outcome": account.outcome,
        "model": asked.model if asked else None,
        "key": account.caller.id,
        "seconds": round(account.seconds, 4),
        "left": account.gone,
        "failed": account.failed is not None,
    }


def reason_of(honesty: Honesty) -> str | None:
    """The reason, never in an upstream's words: those may repeat what was asked."""
    if honesty.outcome != "draft_fallback":
        return honesty.reason
    return _failed_step(honesty.trace) or "a later step failed"


def error_of(account: Account) -> str | None:
    """Why a request failed, if so, never in an upstream's words."""
    if account.failed is None:
        return None
    failed = _failed_step(account.run.honesty.trace) if account.run else None
    return failed or (f"HTTP {account.status}" if account.status >= 400 else "broken off")


def _failed_step(trace: Trace) -> str | None:
    failed = next((step for step in trace.steps if step.failure), None)
    return f"{failed.name}: {failed.failure}" if failed else None
