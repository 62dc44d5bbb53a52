"""One file per method: an async function from a turn to an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from honestproxy.strategies.critique import critique
from honestproxy.strategies.curiosity import curiosity
from honestproxy.strategies.gated import gated
from honestproxy.strategies.introspect import introspect
from honestproxy.strategies.raw import raw
from honestproxy.strategies.single import single

if TYPE_CHECKING:
    from honestproxy.turn import Strategy

STRATEGIES: Final[dict[str, Strategy]] = {
    "raw": raw,
    "curiosity": curiosity,
    "gated": gated,
    "single": single,
    "critique": critique,
    "introspect": introspect,
}
"""Every strategy by the name that users choose it by."""

READING: Final = frozenset({"introspect", "gated", "curiosity"})
"""Those that read inside the model, where they can."""
