"""Tokens into text, as they come: no half character, no part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

_HALF: Final = "\ufffd"
_PARAGRAPH: Final = "\n\n"
_PATIENCE: Final = 8  # tokens; a character has four bytes at most, so more are no character


class Detokenizer:
    """Gives the text that each token adds.

    Decodes from a few tokens back, since whether a token begins with a space can depend on
    the one before it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._start = 0
        self._given = 0

    def add(self, token: int) -> str:
        """The new text; empty while the last character is incomplete."""
        self._ids.append(token)
        text = self._news()
        if text.endswith(_HALF) and len(self._ids) - self._given < _PATIENCE:
            return ""
        if text:
            self._start, self._given = self._given, len(self._ids)
        return text

    def rest(self) -> str:
        """What was held back and is whole; half a character at the end is dropped."""
        return self._news().rstrip(_HALF)

    def _news(self) -> str:
        known = self._decode(self._ids[self._start : self._given])
        return self._decode(self._ids[self._start :])[len(known) :]


class StopGuard:
    """Ends a text before the first stop string, and holds back what may become one.

    With `paragraph` it ends with its first paragraph, too, but goes on after a colon.
    """

    def __init__(self, stops: Sequence[str], *, paragraph: bool = False) -> None:
        self._stops = (*stops, _PARAGRAPH) if paragraph else tuple(stops)
        self._paragraph = paragraph
        self._held = ""
        self._last = ""

    def add(self, text: str) -> tuple[str, bool]:
        """The text that may go out now, and whether a stop string was met."""
        self._held += text
        found = [at for stop in self._stops if (at := self._find(stop)) >= 0]
        cut = min(found) if found else len(self._held) - self._suspicious()
        return self._out(cut), bool(found)

    def rest(self) -> str:
        """What was held back, now that nothing follows."""
        return self._out(len(self._held))

    def _out(self, cut: int) -> str:
        out, self._held = self._held[:cut], self._held[cut:]
        self._last = out.rstrip()[-1:] or self._last
        return out

    def _find(self, stop: str) -> int:
        at = self._held.find(stop)
        while at >= 0 and self._paragraph and stop == _PARAGRAPH and self._announces(at):
            at = self._held.find(stop, at + 1)
        return at

    def _announces(self, at: int) -> bool:
        """Whether the paragraph that ends here says that something follows."""
        return (self._last + self._held[:at].rstrip()).endswith(":")

    def _suspicious(self) -> int:
        """How many of the last characters may be the beginning of a stop string."""
        longest = max(map(len, self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
