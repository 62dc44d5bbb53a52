"""What a judge's reply says: a label or scores, and why; or nothing, where that isn't clear."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from honestproxy.replies import lowered, names, objects, repaired, without_reasoning

VERDICT: Final = "verdict"
REASON: Final = "reason"


@dataclass(frozen=True, slots=True)
class Ruling:
    """A label, or scores by name; neither where the reply couldn't be read."""

    label: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


Parser = Callable[[str, str], Ruling]
"""From a reply, and the material that it was about, to a ruling."""


def labels(meanings: Mapping[str, str]) -> Parser:
    """Reads `{"reason", "verdict"}`; `meanings` says which label each verdict stands for."""
    known = {plain(word): label for word, label in meanings.items()}

    def read(reply: str, material: str) -> Ruling:
        found = _ruled(reply, material, [VERDICT])
        return Ruling(known.get(plain(found.get(VERDICT, ""))), reason=_reason(found))

    return read


def scores(dimensions: Sequence[str], least: float, most: float) -> Parser:
    """Reads `{"reason", …}` with a number for each dimension; one that is missing makes it none."""

    def read(reply: str, material: str) -> Ruling:
        found = _ruled(reply, material, dimensions)
        numbers = {name: _number(found.get(name), least, most) for name in dimensions}
        good = {name: number for name, number in numbers.items() if number is not None}
        return Ruling(scores=good if len(good) == len(dimensions) else {}, reason=_reason(found))

    return read


def _ruled(reply: str, material: str, fields: Sequence[str]) -> dict[str, Any]:
    """The one object of the reply that has these fields; empty where it isn't clear which.

    A judge may quote what it judges, and that may look like a verdict. So objects which stand
    in the material don't count, and those that are left must agree.
    """
    plain, own = _unquoted(without_reasoning(reply), material)
    ruling = [value for value in own if set(fields) <= value.keys()]
    if not ruling:
        once = all(len(names(plain, name)) == 1 for name in fields)
        return next(map(lowered, repaired(plain, fields[0])), {}) if once else {}
    said = {tuple(str(value[name]).lower() for name in fields) for value in ruling}
    outside = plain
    for _, start, end in reversed(list(objects(plain))):
        outside = outside[:start] + outside[end:]
    is_clear = len(said) == 1 and not names(outside, fields[0])
    return ruling[-1] if is_clear else {}


def _unquoted(reply: str, material: str) -> tuple[str, list[dict[str, Any]]]:
    """The reply without objects that stand in the material, and those that are its own."""
    quoted = [value for value, _, _ in objects(material)]
    for value, start, end in reversed(list(objects(reply))):
        if value in quoted:
            reply = reply[:start] + reply[end:]
    return reply, [lowered(value) for value, _, _ in objects(reply)]


def _reason(found: Mapping[str, Any]) -> str:
    reason = found.get(REASON)
    return " ".join(reason.split()) if isinstance(reason, str) else ""


def plain(word: Any) -> str:
    """The word without what models put around it: `**Not attempted.**` is `not_attempted`."""
    return re.sub(r"[\W_]+", "_", str(word)).strip("_").lower()


def _number(value: Any, least: float, most: float) -> float | None:
    """A number on the scale from `7`, `"7"` or `"7/10"`; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = re.sub(rf"\s*/\s*{most:g}$", "", str(value).strip())
    try:
        number = float(text if "_" not in text else "")  # Python would read 1_0
    except ValueError:
        return None
    return number if math.isfinite(number) and least <= number <= most else None
