"""What was read last, kept: a prompt that begins as an earlier one is read from there on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor

LIMIT: Final = 512 * 2**20
"""Bytes of key-values that are kept: with the embedded model some 20,000 tokens in bfloat16,
half as many in float32."""
CONVERSATIONS: Final = 16
"""Conversations that are kept: each is compared with every new prompt."""

_CHANGING: Final = ("dynamic", "longrope")
"""Rotations that depend on how much is read at once: a beginning has no key-values of its own."""


@dataclass(eq=False, slots=True)
class Known:
    """Tokens, the keys and values of every layer for them, and logits by what they follow.

    Nothing writes into these tensors: a cache that goes on from them makes new ones.
    """

    ids: Sequence[int]
    layers: list[tuple[Tensor, Tensor]]
    logits: dict[int, Tensor]

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        tensors = [*self.logits.values(), *(tensor for pair in self.layers for tensor in pair)]
        return sum(tensor.nbytes for tensor in tensors)

    def cache(self, length: int) -> Any:
        """A cache of the first tokens, to go on from."""
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        cache = DynamicCache()
        for keys, values in self.layers:
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys[..., :length, :], values[..., :length, :]
            cache.layers.append(layer)
        return cache


class Prefixes:
    """The conversations used last, within a limit of bytes. For one thread."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept: list[Known] = []

    def find(self, ids: Sequence[int], most: int) -> tuple[Any, int, Tensor | None]:
        """A cache to read `ids` from, how many of them it holds, and the logits after all.

        It holds no more than `most` tokens, and all of them only where the logits are known.
        """
        from transformers import DynamicCache

        most = min(most, len(ids))
        begins = [min(_common(known.ids, ids), most) for known in self._kept]
        if not any(begins):
            return DynamicCache(), 0, None
        length = max(begins)
        best = self._used(begins, length, len(ids))
        logits = best.logits.get(length) if length == len(ids) else None
        if logits is None and length == len(ids):
            length -= 1
        return best.cache(length) if length else DynamicCache(), length, logits

    def keep(self, ids: Sequence[int], cache: Any, logits: Tensor, row: int = 0) -> None:
        """Keep a row of a cache, whose last columns are those of `ids`.

        Caches of any other kind are left alone: cut off, they would be wrong.
        """
        if self._limit > 0 and _plain(cache, len(ids)):
            try:
                self._add(_known(ids, cache, logits, row))
            except RuntimeError:  # no memory: what is kept is the first that can go
                self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._kept = []

    def _used(self, begins: Sequence[int], length: int, whole: int) -> Known:
        """One that begins so far, if possible with the logits of the whole; the last to go now."""
        fitting = [k for k, begin in zip(self._kept, begins, strict=True) if begin == length]
        best = next((known for known in fitting if whole in known.logits), fitting[-1])
        self._kept.remove(best)
        self._kept.append(best)
        return best

    def _add(self, new: Known) -> None:
        """In the place of those that it goes on from; what goes on from it is as good."""
        for old in list(self._kept):
            common = _common(old.ids, new.ids)
            if common == len(old.ids):
                new.logits = {**old.logits, **new.logits}
                self._kept.remove(old)
            elif common == len(new.ids):
                old.logits |= new.logits
                return
        self._kept.append(new)
        while self._kept and (len(self._kept) > CONVERSATIONS or self._size() > self._limit):
            self._kept.pop(0)

    def _size(self) -> int:
        return sum(known.size for known in self._kept)


def _known(ids: Sequence[int], cache: Any, logits: Tensor, row: int) -> Known:
    first = cache.get_seq_length() - len(ids)
    both = [(layer.keys[row : row + 1], layer.values[row : row + 1]) for layer in cache.layers]
    layers = [(_own(k[..., first:, :]), _own(v[..., first:, :])) for k, v in both]
    return Known(list(ids), layers, {len(ids): _own(logits)})


def reusable(model: Any) -> bool:
    """Whether a beginning's key-values are the same whatever follows it."""
    config = model.config.get_text_config()
    rotation = str(getattr(config, "rope_parameters", None))
    return not any(kind in rotation for kind in _CHANGING)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _plain(cache: Any, length: int) -> bool:
    from transformers.cache_utils import DynamicLayer

    from honestproxy.backends.local.cache import Roomy

    wide = cache.get_seq_length()
    return (
        bool(cache.layers)
        and wide >= length
        and all(
            type(layer) in (DynamicLayer, Roomy)
            and layer.is_initialized
            and layer.keys.shape[-2] == layer.values.shape[-2] == wide
            for layer in cache.layers
        )
    )


def _own(tensor: Tensor) -> Tensor:
    """The tensor itself where it is all of its memory; else a copy, which keeps no other alive."""
    return tensor if tensor.nbytes == tensor.untyped_storage().nbytes() else tensor.clone()
