"""Tokens as Responses counts them, and as a chat does: the same numbers, other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from honestproxy.types import Usage

_NAMES: Final = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "input_tokens_details": "prompt_tokens_details",
    "output_tokens_details": "completion_tokens_details",
}
_BACK: Final = {theirs: ours for ours, theirs in _NAMES.items()}
# Readers of Responses may rely on these being there.
_INPUT_DETAILS: Final = {"cached_tokens": 0, "cache_write_tokens": 0}
_OUTPUT_DETAILS: Final = {"reasoning_tokens": 0}


def chat_usage(usage: Mapping[str, Any]) -> Usage:
    """Usage of a Response under the names of a chat."""
    return Usage({_NAMES.get(name, name): value for name, value in usage.items()})


def responses_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Usage of a chat under the names of Responses, every number that those promise included."""
    given = {_BACK.get(name, name): value for name, value in usage.items()}
    spent = {"input_tokens": given.get("input_tokens") or 0}
    spent["output_tokens"] = given.get("output_tokens") or 0
    total = given.get("total_tokens") or spent["input_tokens"] + spent["output_tokens"]
    return {
        **given,
        **spent,
        "total_tokens": total,
        "input_tokens_details": _filled(_INPUT_DETAILS, given.get("input_tokens_details")),
        "output_tokens_details": _filled(_OUTPUT_DETAILS, given.get("output_tokens_details")),
    }


def _filled(promised: Mapping[str, int], details: Any) -> dict[str, Any]:
    given = details if isinstance(details, Mapping) else {}
    return {**promised, **{name: value for name, value in given.items() if value is not None}}
