"""How one answer's next token is chosen.

The random numbers of an answer are its own: the same `seed` gives the same text whatever
else is decoded beside it, as long as the logits are the same. In float32 they are, for all
practical purposes; in bfloat16 a batch of another size, or a prompt whose beginning was
known, rounds otherwise, and after some dozens of tokens the text can drift.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Generator, Tensor

_LIKELY: Final = 1024
"""Tokens among which a nucleus is sought first: sorting a whole vocabulary takes longer than
the model does for its next token."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a request, or else its model, says of decoding. Temperature 0 is greedy.

    `brief` ends the answer
    with its first sentence, or with the list that this announces.

    The penalties look at what the answer holds so far, never at the prompt: an answer may
    well repeat the words of its question. `logprobs` is how many of the likeliest tokens are
    told beside each one; None: nothing is told of any.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    brief: bool = False
    n: int = 1
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None


class Picker:
    """Chooses one answer's tokens, and remembers them for the penalties."""

    def __init__(self, sampling: Sampling, choice: int = 0, begun: Iterable[int] = ()) -> None:
        self._sampling = sampling
        self._seen: Counter[int] = Counter(begun)
        self._generator: Generator | None = None
        self._choice = choice
        penalties = sampling.presence_penalty, sampling.frequency_penalty
        self._mild = sampling.repetition_penalty == 1 and not any(penalties)

    def pick(self, logits: Tensor) -> int:
        """The next token. `logits`: (vocabulary,), float32, on the CPU."""
        logits = self._penalised(logits)
        greedy = self._sampling.temperature == 0
        token = int(logits.argmax()) if greedy else self._drawn(logits)
        return self.take(token)

    def take(self, token: int) -> int:
        """A token that isn't to be chosen, but counts for the penalties."""
        self._seen[token] += 1
        return token

    def _penalised(self, logits: Tensor) -> Tensor:
        import torch

        rules = self._sampling
        if self._seen and not self._mild:
            seen = torch.tensor(list(self._seen))
            counts = torch.tensor(list(self._seen.values()), dtype=logits.dtype)
            values, repeated = logits[seen], rules.repetition_penalty
            values = torch.where(values > 0, values / repeated, values * repeated)
            values -= rules.presence_penalty + rules.frequency_penalty * counts
            logits = logits.index_put((seen,), values)
        if rules.logit_bias:
            logits = logits.clone()
            for token, bias in rules.logit_bias.items():
                if 0 <= token < len(logits):
                    logits[token] += bias
        return logits

    def _drawn(self, logits: Tensor) -> int:
        import torch

        rules = self._sampling
        scaled = logits.double()
        scaled = (scaled - scaled.max()) / rules.temperature  # tiny ones overflow on one side only
        if 0 < rules.top_k < len(scaled):
            scaled[scaled < scaled.topk(rules.top_k).values[-1]] = -torch.inf
        chances = scaled.softmax(-1)
        if rules.top_p < 1:
            chances = _nucleus(chances, rules.top_p)
        # By the inverse of the distribution, in the order of the vocabulary: a last bit that
        # another batch rounds otherwise then moves a border by as little, and no order.
        ladder = chances.cumsum(-1)
        point = torch.rand(1, generator=self._random(), dtype=ladder.dtype) * ladder[-1]
        at = int(torch.searchsorted(ladder, point, right=True))
        return min(at, int(chances.nonzero()[-1]))

    def _random(self) -> Generator:
        import torch

        if self._generator is None:
            self._generator = torch.Generator()
            if self._sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(self._sampling.seed + self._choice)
        return self._generator


def _nucleus(chances: Tensor, top_p: float) -> Tensor:
    """Only the likeliest tokens that hold `top_p` together, and at least one."""
    import torch

    ordered, tokens = chances.topk(min(_LIKELY, len(chances)))
    if float(ordered.sum()) < top_p:  # rare: a flat distribution, or a top_p of nearly one
        ordered, tokens = chances.sort(descending=True, stable=True)
    ahead = ordered.cumsum(-1) - ordered
    kept = tokens[ahead <= 0 if top_p == 0 else ahead < top_p]
    return torch.zeros_like(chances).index_copy(0, kept, chances[kept])
