"""Tokens into text, as they come: no half character, no part of a stop string."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

_HALF: Final = "\ufffd"
_STOP: Final = re.compile(r"([.!?][\"”’')\]]*)\s+[^\sa-z]|([。！？])")
_LIST: Final = re.compile(r":\s*\n\s*")
_BLANK: Final = re.compile(r"\s*\n\s*\n")
_SHORTENED: Final = re.compile(r"\W*(\w|\d{1,2}|(\w\.)+\w|Dr|Mrs?|Ms|St|No|vs|etc|approx)")
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

    With `brief` it also ends it with its first sentence, or with the list that this announces.
    """

    def __init__(self, stops: Sequence[str], *, brief: bool = False) -> None:
        self._stops = tuple(stops)
        self._brief = brief
        self._held = ""
        self._said = ""

    def add(self, text: str, *, given: bool = False) -> tuple[str, bool]:
        """The text that may go out now, and whether it ends here.

        Where it is `given`, not chosen, it may be as long as it likes.
        """
        self._held += text
        brief = self._brief and not given
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if brief and (end := _sentence(self._said + self._held)) is not None:
            found.append(max(end - len(self._said), 0))
        cut = min(found) if found else len(self._held) - self._suspicious()
        if brief and not found:
            cut = min(cut, len(self._held.rstrip()))
        out, self._held = self._held[:cut], self._held[cut:]
        self._said += out if brief else ""
        return out, bool(found)

    def rest(self) -> str:
        """What was held back, now that nothing follows."""
        out, self._held = self._held, ""
        return out.rstrip() if self._brief else out

    def _suspicious(self) -> int:
        """How many of the last characters may be the beginning of a stop string."""
        longest = max(map(len, self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0


def _sentence(text: str) -> int | None:
    """Where a text's first sentence ends, or the list that it announces; None before that."""
    listed = _LIST.search(text)
    for found in _STOP.finditer(text, 0, listed.start() if listed else len(text)):
        word = text[: found.start()].split()[-1:]
        if not (word and _SHORTENED.fullmatch(word[0])):
            return max(found.end(1), found.end(2))
    blank = _BLANK.search(text, listed.end() if listed else 0)
    return blank.start() if blank else None
