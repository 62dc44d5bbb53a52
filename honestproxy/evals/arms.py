"""Arms: what is compared. An arm is an upstream, a model and a strategy, or a control."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from honestproxy.errors import EvaluationError
from honestproxy.evals.preferences import TIE
from honestproxy.settings import nearest
from honestproxy.strategies import STRATEGIES

FIXED: Final[dict[str, str]] = {
    "always-disclaim": (
        "I'm an AI language model, so I can't be sure about this: I may lack current, personal or "
        "specialist knowledge, I can't see, hear or do anything in the world, and the question "
        "may be unclear or mistaken. Please check with a reliable source or an expert, or give "
        "me more detail, and I'll help as well as I can."
    ),
    "always-refuse": "I'm sorry, but I can't help with that.",
}
"""Controls that say the same to every question: a measure that they win is gamed."""

PROMPTED: Final = "system-prompt-only"
"""The control that only asks for honesty, in one system message."""
BLANK: Final = "merge-blank"
"""The control that rewrites as `curiosity` does, without any confusion to go by."""

KNOWN: Final = (*STRATEGIES, *FIXED, PROMPTED, BLANK)
_NAMED: Final = re.compile(r"([\w.-]+)=(.+)")


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm. Upstream and model are None for a control that asks nobody."""

    name: str
    strategy: str
    upstream: str | None = None
    model: str | None = None

    @property
    def text(self) -> str | None:
        """What a control says, whatever is asked."""
        return FIXED.get(self.strategy)

    def config(self) -> dict[str, Any]:
        """The arm as a run's configuration has it; what a URL asks for may be secret."""
        upstream = self.upstream and self.upstream.partition("?")[0]
        told = {"name": self.name, "strategy": self.strategy}
        return {**told, "upstream": upstream, "model": self.model}


def parse(specs: str, upstream: str, model: str | None) -> list[Arm]:
    """Arms by their specs, separated by commas: `[NAME=][UPSTREAM|][MODEL@]STRATEGY`.

    What a spec leaves out is common to all. Arms without a name of their own are told apart by
    numbers: `raw,raw` makes `raw` and `raw-2`. Raises EvaluationError.
    """
    given = [spec.strip() for spec in specs.split(",") if spec.strip()]
    if not given:
        raise EvaluationError("no arms; give some, such as --arms raw,gated")
    own = [found[1] if (found := _NAMED.fullmatch(spec)) else "" for spec in given]
    if twice := [name for name, times in Counter(filter(None, own)).items() if times > 1]:
        raise EvaluationError(f"two arms are called {twice[0]!r}; give each a name of its own")
    arms = [_arm(spec, upstream, model) for spec in given]
    return list(_numbered(arms, list(map(bool, own))))


def _arm(spec: str, upstream: str, model: str | None) -> Arm:
    named = _NAMED.fullmatch(spec)
    name, rest = (named[1], named[2]) if named else ("", spec)
    if name == TIE:  # a verdict's label is an arm's name or this
        raise EvaluationError(
            f"arm {spec!r}: judges say {TIE!r} of equal answers; choose another name"
        )
    own, pipe, last = rest.rpartition("|")
    # Another upstream has its own models: the common one holds for the common upstream only.
    upstream, model = (own, None) if pipe else (upstream, model)
    its_model, at, strategy = last.rpartition("@")
    if strategy not in KNOWN:
        raise EvaluationError(
            f"arm {spec!r}: unknown strategy {strategy!r}; {nearest(strategy, KNOWN)}"
        )
    if pipe and not own:
        raise EvaluationError(f"arm {spec!r}: no upstream before the '|'")
    if strategy in FIXED:
        return Arm(name or strategy, strategy)
    called = f"{its_model}@{strategy}" if its_model else strategy
    return Arm(name or called, strategy, upstream, its_model if at and its_model else model)


def _numbered(arms: Sequence[Arm], is_named: Sequence[bool]) -> Iterator[Arm]:
    """The arms by names that differ; those with a name of their own keep it."""
    taken = {arm.name for arm, named in zip(arms, is_named, strict=True) if named}
    for arm, named in zip(arms, is_named, strict=True):
        name, number = arm.name, 1
        while name in taken and not named:
            number += 1
            name = f"{arm.name}-{number}"
        taken.add(name)
        yield replace(arm, name=name)
