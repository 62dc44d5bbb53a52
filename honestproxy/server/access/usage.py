"""How many tokens a request took: as its upstream told, and where it didn't, by estimate.

A limit that only counts what is told would be passed by asking such that nothing is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from starlette.types import Message, Send

if TYPE_CHECKING:
    from honestproxy.server.account import Account
    from honestproxy.trace import Step

_TOTAL: Final = re.compile(rb'"total_tokens"\s*+:\s*+(\d{1,12}+)(?![.eE\d])')
_BLOB: Final = re.compile(rb"[A-Za-z0-9+/_=-]{1000,}+")
"""An image or a sound in the midst of JSON, of which no letter is a token."""

_ENDS: Final = 4000
"""Bytes at either end of a relayed reply among which its usage is looked for."""

_LETTERS: Final = 4
"""Bytes of text to a token, roughly."""

_MOST: Final = 1 << 40
"""More than this is no count of tokens; a store's 64 bits hold sums of so many in any number."""


class Overheard:
    """What passed of a reply: how many events, and its two ends; `asked` are bytes of JSON."""

    __slots__ = ("asked", "events", "head", "tail")

    def __init__(self) -> None:
        self.asked = 0
        self.events = 0
        self.head = b""
        self.tail = b""

    def hearing(self, send: Send) -> Send:
        """`send`, listened to."""

        async def sent(message: Message) -> None:
            if body := message.get("body"):
                self._take(body)
            await send(message)

        return sent

    def tokens(self) -> int:
        """The tokens of a relayed request: what its reply tells, or what its size suggests."""
        told = _TOTAL.findall(self.head + b" " + self.tail)
        return int(told[-1]) if told else self.asked // _LETTERS + self.events

    def _take(self, body: bytes) -> None:
        self.events += body.count(b"data:")
        if len(self.head) < _ENDS:
            self.head += body[: _ENDS - len(self.head)]
        self.tail = (self.tail + body[-_ENDS:])[-_ENDS:]


def count(told: Any) -> int | None:
    """A count of tokens as an upstream told it; None for what can't be one."""
    return told if type(told) is int and 0 <= told <= _MOST else None


def summed(usages: Sequence[Mapping[str, Any]], name: str) -> int | None:
    """The sum of what upstreams told, if any told it."""
    if len(usages) == 1:
        return count(usages[0].get(name))
    counts = [told for usage in usages if (told := count(usage.get(name))) is not None]
    return sum(counts) if counts else None


def tokens(account: Account) -> int:
    """The tokens that a request took, all its calls together."""
    heard = account.overheard
    if account.cached:
        return 0
    if account.run is None:
        return heard.tokens() if heard and account.api == "relay" and account.status < 400 else 0
    trace = account.run.honesty.trace
    return sum(_of_step(step, heard) for step in trace.steps)


def _of_step(step: Step, heard: Overheard | None) -> int:
    told = count(step.usage.get("total_tokens")) if step.usage else None
    if told is not None:
        return told
    if step.failure is not None:
        return 0  # it came to nothing, and an upstream charges nothing for that
    asked = len(_BLOB.sub(b"", step.request.raw)) // _LETTERS
    if step.response is not None:
        return asked + len(step.response.text) // _LETTERS
    return asked + (heard.events if heard else 0)
