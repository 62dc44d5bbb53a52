"""Keys and values of rows that are decoded together, with room for the tokens to come.

It is imported where torch is wanted anyway: it builds on the library's own cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM: Final = 64
"""Tokens that fit in before everything is copied to where there is room again."""


class Roomy(DynamicLayer):  # type: ignore[misc]
    """One layer's: a step writes its tokens in, where the library's would copy all others."""

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor], width: int) -> None:
        super().__init__()
        self.lazy_initialization(keys[0], values[0])
        self._lay_out(keys, values, width)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add tokens to every row; all that there are now."""
        begin = self.keys.shape[-2]
        end = begin + key_states.shape[-2]
        if end > self._space[0].shape[-2]:
            self._lay_out([self.keys], [self.values], begin)
        for space, states in zip(self._space, (key_states, value_states), strict=True):
            space[..., begin:end, :] = states
        return self._show(end)

    def _lay_out(self, keys: Sequence[Tensor], values: Sequence[Tensor], width: int) -> None:
        self._space = _aligned(keys, width), _aligned(values, width)
        self._show(width)

    def _show(self, width: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (space[..., :width, :] for space in self._space)
        return self.keys, self.values


def gather(parts: Sequence[tuple[Any, Sequence[int]]], width: int) -> Any:
    """Some rows of several caches, aligned on the right in so many columns, in the first one."""
    first = parts[0][0]
    for number, layers in enumerate(zip(*(cache.layers for cache, _ in parts), strict=True)):
        chosen = [(layer, list(rows)) for layer, (_, rows) in zip(layers, parts, strict=True)]
        keys = [layer.keys[rows] for layer, rows in chosen]
        values = [layer.values[rows] for layer, rows in chosen]
        first.layers[number] = Roomy(keys, values, width)  # what it held can go
    return first


def _aligned(parts: Sequence[Tensor], width: int) -> Tensor:
    """The rows of all parts, their last tokens in the same column, with zeros before them."""
    _, heads, _, size = parts[0].shape
    space = parts[0].new_empty(sum(map(len, parts)), heads, width + ROOM, size)
    row = 0
    for part in parts:
        place, row = space[row : row + len(part)], row + len(part)
        begin = width - part.shape[-2]
        place[..., : max(begin, 0), :] = 0
        place[..., max(begin, 0) : width, :] = part[..., max(-begin, 0) :, :]
    return space
