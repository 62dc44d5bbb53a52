"""How likely given texts are after another one, which is read once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from honestproxy.backends.local.batch import Prefill
from honestproxy.backends.local.prefixes import Prefixes
from honestproxy.errors import BackendError, InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor

TOKENS: Final = 256
"""Tokens of texts that are read at a time, padding included: their logits take memory."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The tokens of what comes first, and of each text that may follow it."""

    first: list[int]
    texts: list[list[int]]


def encoded(tokenizer: Any, context: int, first: str, texts: Sequence[str]) -> Choices:
    """Tokens of each text as they are where it follows: both are encoded as one.

    Spaces at the end of `first` count as the texts' own, since tokens begin with them. There is
    no chat template, and the tokenizer adds what it always does, such as a mark of the beginning.
    Raises InvalidRequest where a text has no tokens of its own, or is too long.
    """
    begin = first.rstrip()
    known: list[int] = tokenizer.encode(begin, verbose=False)
    if not known:
        raise InvalidRequest("there is no text before the choices: give one", param="first")
    wholes = [tokenizer.encode(begin + first[len(begin) :] + text, verbose=False) for text in texts]
    found = Choices(known, [whole[len(known) :] for whole in wholes])
    for number, ids in enumerate(found.texts):
        if not ids:
            said = f"choice {number} adds nothing to what comes before it"
            raise InvalidRequest(said, param=f"texts[{number}]")
        if (length := len(known) + len(ids)) > context:
            raise InvalidRequest(
                f"This model's maximum context length is {context} tokens. However, choice "
                f"{number} and what comes before it have {length}. Please shorten them.",
                param=f"texts[{number}]",
                code="context_length_exceeded",
            )
    return found


def weighed(model: Any, prefixes: Prefixes, choices: Choices) -> list[float]:
    """The sum of each text's log-probabilities, token by token, in float32.

    For the engine's thread. What begins like an earlier first text is read from there on.
    Raises BackendError.
    """
    try:
        return _sums(model, prefixes, choices)
    except Exception as error:
        prefixes.clear()  # it may have been for want of memory
        said = f"{type(error).__name__}: {error}"[:300]
        raise BackendError(f"the local model can't weigh these texts ({said})") from error


def _sums(model: Any, prefixes: Prefixes, choices: Choices) -> list[float]:
    reading = Prefill(model, choices.first, prefixes)
    while (logits := reading.advance()) is None:
        pass
    sums = [float(_chances(logits[None], ids[:1])[0]) for ids in choices.texts]
    for some in _batches(choices.texts):
        ids = [choices.texts[row] for row in some]
        for row, later in zip(some, _later(model, reading.cache, ids), strict=True):
            sums[row] += later
    return sums


def _batches(texts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Positions of texts of like length; a first token follows from what has been read."""
    rows = sorted(
        (row for row, ids in enumerate(texts) if len(ids) > 1), key=lambda r: len(texts[r])
    )
    batch: list[int] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(texts[row]) > TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _later(model: Any, cache: Any, texts: Sequence[Sequence[int]]) -> list[float]:
    """The sums over all tokens but the first, of texts that are read together.

    Padded on the right, where nothing looks at it: each token sees what lies before it alone.
    """
    import torch

    width = max(map(len, texts)) - 1
    padded = [[*ids[:-1], *[0] * (width + 1 - len(ids))] for ids in texts]
    out = model(
        input_ids=torch.tensor(padded, device=model.device),
        past_key_values=_fanned(cache, len(texts)),
        use_cache=True,
    )
    rows = zip(out.logits, texts, strict=True)
    return [float(_chances(logits[: len(ids) - 1], ids[1:]).sum()) for logits, ids in rows]


def _chances(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """Log-probabilities of tokens, each by the logits in its row."""
    import torch

    logits = logits.float()
    said = logits.gather(-1, torch.tensor(ids, device=logits.device)[:, None])[:, 0]
    return said - logits.logsumexp(-1)


def _fanned(cache: Any, rows: int) -> Any:
    """The same for every row, none of it copied until the rows' own tokens are added."""
    from transformers import DynamicCache

    fanned = DynamicCache()
    for layer in cache.layers:
        wide = copy(layer)
        wide.keys = layer.keys.expand(rows, -1, -1, -1)
        wide.values = layer.values.expand(rows, -1, -1, -1)
        fanned.layers.append(wide)
    return fanned
