"""What a model holds at the end of a conversation: its hidden states, as one vector."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from honestproxy.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

LONGEST: Final = 1024
"""Tokens of an exemplar that are read, its last ones."""
TAIL: Final = 48
"""Tokens at the end over which states are averaged."""
BATCH: Final = 32
DEPTHS: Final = (0.4, 0.6)
"""Where in the model doubt is looked for, as parts of its depth."""

REMEDY: Final = "choose another strategy, such as 'gated', or a local causal language model"


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of a model whose output is read, counted from 1."""

    modules: Sequence[Any]
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, model: Any) -> Layers:
        """Raises InvalidRequest where the model shows no hidden states."""
        from torch.nn import ModuleList

        config: Any = getattr(model, "config", None)
        text = config.get_text_config() if hasattr(config, "get_text_config") else None
        depth = getattr(text, "num_hidden_layers", 0)
        modules = model.modules() if hasattr(model, "modules") else ()
        found = [m for m in modules if isinstance(m, ModuleList) and len(m) == depth > 0]
        if not found:
            raise InvalidRequest(
                f"{type(model).__name__} shows no hidden states to read doubt from; {REMEDY}",
                param="honesty.strategy",
                code="unsupported_strategy",
            )
        numbers = sorted({max(1, round(depth * part)) for part in DEPTHS})
        return cls(list(found[0]), tuple(numbers))


class _Enough(Exception):
    """The highest layer that is read has been computed."""


def vectors(
    model: Any, prompts: Sequence[Sequence[int]], shared: Any, layers: Layers
) -> np.ndarray[Any, Any]:
    """States of prompts that are read together: (prompts, layers, 2 × width), float32.

    Each is the last token's state and the mean over the last `TAIL` tokens. `shared` is what
    `prefix` made of the beginning that all of them have; it isn't part of the mean.
    """
    import torch

    begun = len(shared.ids) if shared else 0
    rests = [list(ids[begun:]) for ids in prompts]
    width = max(map(len, rests))
    ids, mask = torch.zeros(2, len(rests), width, dtype=torch.long)
    for row, rest in enumerate(rests):
        ids[row, : len(rest)] = torch.tensor(rest)
        mask[row, : len(rest)] = 1
    known = torch.ones(len(rests), begun, dtype=torch.long)
    cache = shared.copies(len(rests)) if shared else None
    states = _forward(model, ids, torch.cat([known, mask], 1), cache, layers)
    return torch.stack([_pooled(state, mask) for state in states], 1).numpy()


class Tail:
    """What layers hold at a prompt's end, gathered while an engine reads the prompt.

    `told` gets a prompt's part of `vectors`: (layers, 2 × width). The prompt's first `begun`
    tokens aren't part of the mean.
    """

    rows = 1

    def __init__(
        self,
        layers: Sequence[Any],
        length: int,
        begun: int,
        told: Callable[[np.ndarray[Any, Any]], None],
    ) -> None:
        self.since = max(begun, length - TAIL)
        self._layers = layers
        self._wanted = length - self.since
        self._told = told
        self._states: list[list[Tensor]] = [[] for _ in layers]

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Take down what the layers put out."""
        pairs = zip(self._layers, self._states, strict=True)
        hooks = [layer.register_forward_hook(partial(self._keep, kept)) for layer, kept in pairs]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def seen(self, at: int, logits: Tensor) -> None:
        """Logits say nothing here."""

    def whole(self) -> None:
        """Tell what has been gathered."""
        import torch

        tails = [torch.cat(kept)[-self._wanted :].float() for kept in self._states]
        self._told(torch.stack([torch.cat([t[-1], t.mean(0)]) for t in tails]).numpy())

    def _keep(self, kept: list[Tensor], module: Any, args: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        kept.append(states[0, -self._wanted :].cpu())


def _pooled(state: Tensor, mask: Tensor) -> Tensor:
    import torch

    lengths, places = mask.sum(1), torch.arange(mask.shape[1])
    inside = (places < lengths[:, None]) & (places >= lengths[:, None] - TAIL)
    state = state.float().cpu()
    last = state[torch.arange(len(state)), lengths - 1]
    return torch.cat([last, (state * inside[..., None]).sum(1) / inside.sum(1)[:, None]], 1)


@dataclass(frozen=True, slots=True)
class Shared:
    """The beginning that many prompts have in common, and the model's cache of it."""

    ids: tuple[int, ...]
    cache: Any

    def copies(self, number: int) -> Any:
        """A cache of its own for each of so many rows."""
        from copy import deepcopy

        cache = deepcopy(self.cache)
        cache.batch_repeat_interleave(number)
        return cache


def prefix(model: Any, ids: Sequence[int], layers: Layers) -> Shared | None:
    """Read the beginning that prompts share, such as the template's own system message."""
    if not ids:
        return None
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    _forward(model, torch.tensor([list(ids)]), None, cache, layers)
    return Shared(tuple(ids), cache)


def common(prompts: Sequence[list[int]]) -> list[int]:
    """The tokens that all prompts begin with, leaving each at least one of its own."""
    first, last = min(prompts), max(prompts)
    shortest = min(map(len, prompts)) - 1
    pairs = zip(first[:shortest], last[:shortest], strict=False)
    same = [a == b for a, b in pairs] + [False]
    return list(first[: same.index(False)])


def _forward(model: Any, ids: Tensor, mask: Tensor | None, cache: Any, layers: Layers) -> Any:
    """The output of each layer that is read; those above are not computed."""
    seen: dict[int, Any] = {}
    device = model.device
    with _watched(layers, seen), contextlib.suppress(_Enough):
        model(
            input_ids=ids.to(device),
            attention_mask=None if mask is None else mask.to(device),
            past_key_values=cache,
            use_cache=cache is not None,
        )
    return [seen[number] for number in layers.numbers]


@contextlib.contextmanager
def _watched(layers: Layers, seen: dict[int, Any]) -> Iterator[None]:
    def watch(number: int) -> Any:
        def keep(module: Any, args: Any, output: Any) -> None:
            seen[number] = output[0] if isinstance(output, tuple) else output
            if number == layers.numbers[-1]:
                raise _Enough

        return layers.modules[number - 1].register_forward_hook(keep)

    hooks = [watch(number) for number in layers.numbers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
