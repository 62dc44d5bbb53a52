"""What became of one request, and who is told of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from starlette.types import Message, Send

from honestproxy.pipeline import AnyRun
from honestproxy.server.caller import ANYONE, Caller
from honestproxy.types import ChatRequest

Api = Literal["chat", "responses", "relay"]

_LEFT: Final = 499  # as nginx counts a client that was gone before its answer


@dataclass(slots=True)
class Account:
    """One request from its coming to its end. What isn't known, it may never have come to.

    `status` is that of the head that was sent; `failed` says what went wrong, in a stream's
    midst too, and `left` that the client was gone before the end. `run` is there where the
    pipeline was asked; a request that was refused before has none.
    """

    api: Api
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0
    caller: Caller = ANYONE
    asked: ChatRequest | None = None
    run: AnyRun | None = None
    status: int = _LEFT
    failed: str | None = None
    left: bool = False
    cached: bool = False

    def heard(self, send: Send) -> Send:
        """`send`, with the status of the head that goes through it written down."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            await send(message)

        return sent

    def close(self, observers: Sequence[Observer]) -> None:
        """The request has ended: tell everyone."""
        self.seconds = time.perf_counter() - self.started
        for observer in observers:
            observer.note(self)


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
        "outcome": honesty.outcome if honesty else None,
        "model": asked.model if asked else None,
        "key": account.caller.id,
        "seconds": round(account.seconds, 4),
        "left": account.left,
        "failed": account.failed is not None,
    }
