"""What was done to an answer, read from the reply that a client got."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from honestproxy.types import Doubt, Outcome, read
from honestproxy.wire.sse import EventSplitter, data_of

MARK: Final = b'"honesty"'
"""In valid JSON an unescaped quote can't be inside a text, so this finds the key."""

RECORD: Final = "honesty"
"""The extension of an HTTP response that holds its `Record`."""


@dataclass(frozen=True, slots=True)
class ToldStep:
    """One call to the model: its name, what it took and what it cost."""

    name: str
    seconds: float | None = None
    usage: Mapping[str, Any] | None = None
    prompt: str | None = None
    digest: str | None = None
    scores: Mapping[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What was done to an answer: the `honesty` object of its reply.

    `doubts` and `confidence` are None where they are unknown.
    """

    strategy: str
    outcome: Outcome | None = None
    reason: str | None = None
    doubts: tuple[Doubt, ...] | None = None
    confidence: float | None = None
    calls: int = 0
    seconds: float = 0.0
    trace_id: str = ""
    steps: tuple[ToldStep, ...] = ()


class Record:
    """Keeps what a reply's body says of its honesty while it passes, unread until asked for."""

    __slots__ = ("_part",)

    def __init__(self) -> None:
        self._part = b""

    def note(self, part: bytes) -> None:
        """See a piece of the body; one that holds whole events, or all of it."""
        if MARK in part:
            self._part = part

    def told(self) -> Told | None:
        """What the last of them said."""
        return next(filter(None, map(_in_json, reversed(_documents(self._part)))), None)


def told(reply: Any) -> Told | None:
    """What was done to an answer, or None where its reply doesn't say.

    Takes whatever a client gives: completions, parsed ones, chunks and responses; streams that
    have been read, and what their helpers put together; raw responses; and plain dictionaries.
    """
    below = (getattr(reply, name, None) for name in ("response", "_response", "http_response"))
    return next(filter(None, map(_told, (reply, *below))), None)


def _told(reply: Any) -> Told | None:
    for part in (reply, *_choices(reply)):
        if found := _converted(_field(part, "honesty")):
            return found
    return _in_http(reply)


def _in_http(reply: Any) -> Told | None:
    extensions = getattr(reply, "extensions", None)
    if not isinstance(extensions, Mapping):
        return None
    if isinstance(record := extensions.get(RECORD), Record):
        return record.told()
    with suppress(RuntimeError):  # a body that hasn't been read, or hasn't been kept
        return _in_json(reply.content)
    return None


def _documents(part: bytes) -> list[bytes]:
    if part.lstrip().startswith(b"{"):
        return [part]
    return [data_of(event) for event in EventSplitter().feed(part) if MARK in event]


def _in_json(raw: bytes) -> Told | None:
    try:
        found = read(raw)
    except (ValueError, RecursionError):
        return None
    return told(found.get("response", found)) if isinstance(found, dict) else None


def _choices(reply: Any) -> Iterator[Any]:
    choices = _field(reply, "choices")
    yield from choices if isinstance(choices, list) else ()


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _converted(value: Any) -> Told | None:
    if not isinstance(value, Mapping) or "strategy" not in value:
        return None
    try:
        return msgspec.convert(value, Told)
    except msgspec.ValidationError:  # someone else's `honesty`
        return None
