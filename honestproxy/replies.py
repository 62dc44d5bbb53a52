"""JSON in what a model wrote, whatever stands around it: reasoning, fences, prose, slips."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

_REASONING: Final = re.compile(r"\A\s*<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
scan: Final = json.JSONDecoder().raw_decode


def without_reasoning(text: str) -> str:
    """The reply behind a reasoning preamble; nothing where that never ends."""
    plain = _REASONING.sub("", text)
    # Some chat templates open the reasoning themselves, so that only its end is seen.
    return plain.partition("</think>")[2] if "</think>" in plain else plain


def objects(text: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Well-formed objects and where each begins and ends; what is inside another doesn't count."""
    at = text.find("{")
    while at >= 0:
        try:
            value, end = scan(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield value, at, end
        at = text.find("{", end)


def names(text: str, name: str) -> list[int]:
    """Where a text names this field of an object."""
    named = re.compile(rf"""["']?\b{re.escape(name)}["']?\s*:""", re.IGNORECASE)
    return [found.start() for found in named.finditer(text)]


def repaired(text: str, name: str) -> Iterator[dict[str, Any]]:
    """What the first object that names this field was meant to be, slips mended."""
    named = names(text, name)
    start = text.rfind("{", 0, named[0]) if named else -1
    if start < 0:
        return
    import json_repair  # not needed where the model writes what it was asked for

    value = json_repair.loads(text[start:].partition("```")[0])
    for candidate in value if isinstance(value, list) else [value]:
        if isinstance(candidate, dict):
            yield candidate


def lowered(value: dict[str, Any]) -> dict[str, Any]:
    """The object with its names in small letters: models capitalise them."""
    return {str(name).lower(): item for name, item in value.items()}
