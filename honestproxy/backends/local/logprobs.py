"""How likely the model itself found each token of an answer, as OpenAI's API tells it.

The numbers come from the model's own logits: before penalties, biases and temperature.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor

MOST: Final = 20
"""Likeliest tokens that are told beside each."""
LOWEST: Final = -9999.0
"""Stands for what can't be: minus infinity is no JSON."""

Entry = dict[str, Any]

_HALF: Final = "\ufffd"
_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Spelling:
    """What each token adds to a text, by itself: as a string, and as bytes."""

    def __init__(self, tokenizer: Any, decode: Callable[[Sequence[int]], str]) -> None:
        self._tokenizer = tokenizer
        self._decode = decode
        # After some letter, since a text's first token may lose the space that it begins with.
        self._before: list[int] = tokenizer.encode("a", add_special_tokens=False)
        self._known: dict[int, tuple[str, bytes | None]] = {}

    def __call__(self, token: int) -> tuple[str, bytes | None]:
        """A token that adds nothing, such as a control token, has no bytes."""
        if token not in self._known:
            self._known[token] = self._look_up(token)
        return self._known[token]

    def covering(self, ids: Sequence[int], text: str) -> int:
        """How many of the last tokens it takes to make `text`, with which they end."""
        missing = len(text.encode())
        for count, token in enumerate(reversed(ids)):
            if missing <= 0:
                return count
            missing -= len(self(token)[1] or b"")
        return len(ids)

    def _look_up(self, token: int) -> tuple[str, bytes | None]:
        piece = self._tokenizer.convert_ids_to_tokens(token) or ""
        text = self._decode([*self._before, token])[len(self._decode(self._before)) :]
        if not text:
            return piece, None
        spelled = _spelled(piece) if _HALF in text else text.encode()
        return spelled.decode(errors="backslashreplace"), spelled


def _spelled(piece: str) -> bytes:
    """The bytes of a token that is no whole character: each alphabet of tokenizers has a way."""
    if found := _BYTE.fullmatch(piece):
        return bytes.fromhex(found[1])
    if all(character in _ALPHABET for character in piece):
        return bytes(_ALPHABET[character] for character in piece)
    return piece.encode()


def _alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level tokenizer stands for."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(0x100) if byte not in shown]
    others = {chr(0x100 + place): byte for place, byte in enumerate(hidden)}
    return {chr(byte): byte for byte in shown} | others


_ALPHABET: Final = _alphabet()


class Ledger:
    """One answer's log-probabilities: each goes out with the text that its token completes.

    Together their bytes are the text. What is cut off is not told.
    """

    def __init__(self, spelling: Spelling, top: int) -> None:
        self._spelling = spelling
        self._top = top
        self._unread: list[Entry] = []
        self._waiting: deque[tuple[Entry, bytes]] = deque()
        self._credit = 0

    def add(self, token: int, logits: Tensor, text: str) -> None:
        """Note a token; `text` is what it and those since the last text make, once they do."""
        self._unread.append(self._entry(token, logits))
        if text:
            self._read(text)

    def out(self, text: str) -> list[Entry]:
        """`text` goes out: the entries that it completes."""
        self._credit += len(text.encode())
        told = []
        while self._waiting and len(self._waiting[0][1]) <= self._credit:
            entry, part = self._waiting.popleft()
            self._credit -= len(part)
            told.append(_with(entry, part))
        return told

    def close(self, rest: str, text: str) -> list[Entry]:
        """The last entries: `rest` is what the last tokens make, `text` what still goes out."""
        self._read(rest)
        while self._waiting and not self._waiting[-1][1] and self._waiting[-1][0]["bytes"]:
            self._waiting.pop()  # half a character
        told = self.out(text)
        if self._credit and self._waiting:
            entry, part = self._waiting[0]
            told.append(_with(entry, part[: self._credit]))
        return told

    def _read(self, text: str) -> None:
        parts = _parts([bytes(entry["bytes"] or ()) for entry in self._unread], text.encode())
        self._waiting.extend(zip(self._unread, parts, strict=True))
        self._unread = []

    def _entry(self, token: int, logits: Tensor) -> Entry:
        chances = logits.log_softmax(-1)
        best = chances.topk(min(self._top, len(chances)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        told = self._one(token, float(chances[token]))
        return {**told, "top_logprobs": [self._one(other, chance) for other, chance in pairs]}

    def _one(self, token: int, chance: float) -> Entry:
        text, spelled = self._spelling(token)
        told = None if spelled is None else list(spelled)
        return {"token": text, "logprob": max(chance, LOWEST), "bytes": told}


def _with(entry: Entry, part: bytes) -> Entry:
    return {**entry, "bytes": list(part) if part or entry["bytes"] is not None else None}


def _parts(spelled: Sequence[bytes], text: bytes) -> list[bytes]:
    """What of a text comes from each token.

    At its ends tokens may hold more than the text: a space that is dropped, half a character.
    Where they don't make the text at all, it counts as the last one's.
    """
    at = b"".join(spelled).find(text)
    if at < 0:
        return [*(b"" for _ in spelled[1:]), text]
    parts, place = [], -at
    for one in spelled:
        parts.append(text[max(place, 0) : max(place + len(one), 0)])
        place += len(one)
    return parts


class Weighing:
    """Weighs, while the prompt is read, the text that an answer begins with.

    `text` is what the prompt ends with; `told` gets the entries of its beginning `shown`.
    """

    def __init__(
        self,
        ids: Sequence[int],
        text: str,
        shown: str,
        ledger: Ledger,
        spelling: Spelling,
        told: Callable[[list[Entry]], None],
    ) -> None:
        count = min(spelling.covering(ids, text), len(ids) - 1)
        self.since = len(ids) - count - 1
        self.rows = count + 1
        self._ids = ids
        self._texts = text, shown
        self._ledger = ledger
        self._told = told

    def looking(self) -> AbstractContextManager[None]:
        """Nothing is to be done meanwhile."""
        return nullcontext()

    def seen(self, at: int, logits: Tensor) -> None:
        """Weigh each token of the opening by the logits before it."""
        for place, row in enumerate(logits, at + 1):
            if self.since < place < len(self._ids):
                self._ledger.add(self._ids[place], row, "")

    def whole(self) -> None:
        """Tell all of them."""
        self._told(self._ledger.close(*self._texts))
