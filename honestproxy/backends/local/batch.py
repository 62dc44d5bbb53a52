"""Rows that are decoded together, each of its own length, joining and leaving at any step.

The cache is padded on the left, so that every row's last token lies in the same column.
That beats the library's continuous batching on CPUs, and leaves logits in our hands.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

from honestproxy.backends.local.prefixes import Prefixes

if TYPE_CHECKING:
    from torch import Tensor

CHUNK: Final = 256
"""Prompt tokens read at a time: what a cancelled request, or a row in the batch, waits for."""


class Watch(Protocol):
    """Sees more of a prompt's reading than the logits after it.

    What lies from position `since` on is read anew, even where it is known. Logits are wanted
    of the last `rows` tokens.
    """

    since: int
    rows: int

    def looking(self) -> AbstractContextManager[Any]:
        """Entered around each piece."""
        ...

    def seen(self, at: int, logits: Tensor) -> None:
        """The logits of a piece's last tokens, from position `at` on: (rows, vocabulary)."""
        ...

    def whole(self) -> None:
        """The prompt has been read."""
        ...


class Prefill:
    """A prompt that is being read, piece by piece."""

    def __init__(
        self, model: Any, ids: Sequence[int], prefixes: Prefixes, watch: Watch | None = None
    ) -> None:
        self.length = len(ids)
        self._model = model
        self._ids = ids
        self._prefixes = prefixes
        self._watch = watch
        most = watch.since if watch else len(ids)
        self.cache, self._at, self._logits = prefixes.find(ids, most)

    def advance(self) -> Tensor | None:
        """Read one more piece; after the last one, the logits for the answer's first token.

        Of a prompt that is known nothing is read.
        """
        if self._logits is None:
            logits = self._forward()
            if self._at >= self.length:
                self._logits = logits
                self._prefixes.keep(self._ids, self.cache, logits)
                if self._watch:
                    self._watch.whole()
        return self._logits

    def _forward(self) -> Tensor:
        import torch

        piece = self._ids[self._at : self._at + CHUNK]
        self._at += len(piece)
        wanted = self._at - self.length + (self._watch.rows if self._watch else 1)
        rows = min(max(1, wanted), len(piece))
        with self._watch.looking() if self._watch else nullcontext():
            out = self._model(
                input_ids=torch.tensor([piece], device=self._model.device),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=rows,
            )
        logits: Tensor = out.logits[0, -rows:].float().cpu()
        if self._watch:
            self._watch.seen(self._at - rows, logits)
        return logits[-1]


class Batch:
    """The rows in flight: one cache for all of them. Rows are known by their position."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache: Any = None
        self._lengths: list[int] = []

    def __len__(self) -> int:
        return len(self._lengths)

    def join(self, prompt: Prefill, copies: int) -> None:
        """Add a prompt's rows at the end, one for each of its answers."""
        old = [(self._cache, range(len(self)))] if self._lengths else []
        self._lengths += [prompt.length] * copies
        self._hold([*old, (prompt.cache, [0] * copies)])

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        if len(rows) == len(self):
            return
        self._lengths = [self._lengths[row] for row in rows]
        if rows:
            self._hold([(self._cache, rows)])
        else:
            self._cache = None

    def _hold(self, parts: Sequence[tuple[Any, Sequence[int]]]) -> None:
        """Hold these rows of these caches, in no more columns than the longest of them needs.

        On a CPU one column more, which nothing looks at: where there is something to mask, the
        library computes the heads that share keys together, which takes a third of the time.
        """
        from honestproxy.backends.local.cache import gather

        more = int(self._model.device.type == "cpu")
        self._cache = gather(parts, max(self._lengths) + more)

    def store(self, row: int, ids: Sequence[int], logits: Tensor, prefixes: Prefixes) -> None:
        """Keep what a row holds, if that is `ids`, and the logits that follow."""
        if self._lengths[row] == len(ids):
            prefixes.keep(ids, self._cache, logits, row)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Give each row its last token; the logits for the next: (rows, vocabulary), float32."""
        import torch

        device = self._model.device
        positions = torch.tensor(self._lengths).unsqueeze(1)
        width = self._cache.get_seq_length() + 1
        ragged = min(self._lengths) + 1 < width
        mask = (torch.arange(width) >= width - 1 - positions).long() if ragged else None
        out = self._model(
            input_ids=torch.tensor(tokens, device=device).unsqueeze(1),
            position_ids=positions.to(device),
            attention_mask=None if mask is None else mask.to(device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._lengths = [length + 1 for length in self._lengths]
        logits: Tensor = out.logits[:, -1].float().cpu()
        return logits
