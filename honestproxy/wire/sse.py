"""Server-sent events: a stream of bytes cut into events, and what an event says.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re
from typing import Final

DONE: Final = b"[DONE]"
"""What OpenAI's API sends as data when a stream is complete."""

_BOM: Final = b"\xef\xbb\xbf"
# None of these needs a look at what follows, so that where the network cuts never matters.
_BLANK_LINE: Final = re.compile(rb"\n\n|\n\r\n|\r\r")
_OVERLAP: Final = 2  # bytes of a terminator that may have come with an earlier read


class EventSplitter:
    r"""Cuts bytes into events, each with its terminator, however the network has cut them.

    >>> splitter = EventSplitter()
    >>> splitter.feed(b"data: 1\n\ndata:")
    [b'data: 1\n\n']
    >>> splitter.feed(b" 2\n\n")
    [b'data: 2\n\n']
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def rest(self) -> bytes:
        """What has come of an event that isn't complete."""
        return bytes(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """The events that `data` completes."""
        held = self._held
        # Only new bytes are searched, or a large event would cost the square of its size.
        search_from = max(0, len(held) - _OVERLAP)
        held += data
        events: list[bytes] = []
        start = 0
        while found := _BLANK_LINE.search(held, search_from):
            search_from = found.end()
            events.append(bytes(held[start:search_from]))
            start = search_from
        del held[:start]
        return events


def data_of(event: bytes) -> bytes:
    """The data of an event, its lines joined; empty for a comment or a ping."""
    if event.startswith(b"data:"):
        data = event[5:].rstrip(b"\r\n")
        if b"\n" not in data and b"\r" not in data:
            return data.removeprefix(b" ")
    return b"\n".join(_values(event, b"data"))


def name_of(event: bytes) -> bytes:
    """What an event calls itself (`event: error`); empty where it says nothing."""
    if b"event" not in event:
        return b""
    names = _values(event, b"event")
    return names[-1] if names else b""


def _values(event: bytes, field: bytes) -> list[bytes]:
    values = []
    for line in event.removeprefix(_BOM).splitlines():
        name, _, value = line.partition(b":")
        if name == field:
            values.append(value.removeprefix(b" "))
    return values
