"""What tokens cost: litellm's price table, where it is installed and knows the model.

The table is a file of that package: litellm itself, which takes seconds, is not imported.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from honestproxy.errors import EvaluationError

Price = Callable[[Mapping[str, Any]], float | None]
"""What a `usage` costs in dollars; None where it counts no tokens."""

TABLE: Final = "model_prices_and_context_window_backup.json"
_MILLION: Final = 1_000_000


def parse(text: str) -> Price:
    """`0.15/0.60`: dollars for a million tokens read and written. Raises EvaluationError."""
    read, slash, written = text.partition("/")
    try:
        return per_token(_dollars(read), _dollars(written if slash else read))
    except ValueError:
        hint = "give dollars for a million tokens read and written, such as 0.15/0.60"
        raise EvaluationError(f"price {text!r} is no price; {hint}") from None


def known(upstream: str, model: str) -> Price | None:
    """The price of a model, None where no table knows it; a local model costs no money."""
    if upstream.startswith("local:"):
        return None
    spec = upstream.removeprefix("litellm:") if upstream.startswith("litellm:") else model
    table = _table()
    for name in (spec, spec.partition("/")[2], model):
        row = table.get(name) or {}
        read, written = row.get("input_cost_per_token"), row.get("output_cost_per_token")
        if isinstance(read, int | float) and isinstance(written, int | float):
            return per_token(float(read), float(written))
    return None


def per_token(read: float, written: float) -> Price:
    """A price by token: one for those read, one for those written."""

    def price(usage: Mapping[str, Any]) -> float | None:
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(prompt, int | float) or not isinstance(completion, int | float):
            return None
        return prompt * read + completion * written

    return price


def _dollars(text: str) -> float:
    """What a million tokens cost, for one of them."""
    dollars = float(text)
    if not math.isfinite(dollars) or dollars < 0:
        raise ValueError(text)
    return dollars / _MILLION


def _table() -> Mapping[str, Any]:
    found = importlib.util.find_spec("litellm")
    for folder in (found and found.submodule_search_locations) or ():
        try:
            table: dict[str, Any] = json.loads((Path(folder) / TABLE).read_bytes())
        except (OSError, ValueError):
            continue
        return table
    return {}
