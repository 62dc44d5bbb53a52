"""Doubts out of what a model wrote, or holds: tolerant of form, strict about meaning."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from honestproxy.errors import StepFailed
from honestproxy.replies import lowered, objects, repaired, scan, without_reasoning
from honestproxy.types import DOUBT_KINDS, Doubt, DoubtKind, Doubts

if TYPE_CHECKING:
    from honestproxy.call import Call

_NONE_YET: Final = re.compile(r"""\A\s*(?:```\w*\s*)?\{\s*"doubts"\s*:\s*\[\s*\]""")


def parse(text: str) -> Doubts | None:
    """Read `{"doubts": [{"kind", "statement"}], "confidence"}` out of a reply.

    Fences, prose around it, trailing commas and a reasoning preamble are no obstacle. None
    where there is no such object, or none of its doubts makes sense: unknown is not "none".
    """
    plain = without_reasoning(text)
    found = _listing(value for value, _, _ in objects(plain))
    found = found or _listing(repaired(plain, "doubts"))[:1]
    if not found:
        return None
    listed = found[-1]["doubts"]
    items = tuple(doubt for entry in listed if (doubt := _doubt(entry)))
    return None if listed and not items else Doubts(items, _confidence(found[-1].get("confidence")))


def settles_empty(text: str) -> bool:
    """Whether the beginning of a reply already says that there is no doubt."""
    return _NONE_YET.match(without_reasoning(text)) is not None


def doubtful(doubts: Doubts, threshold: float) -> bool:
    """The gate: a doubt is listed, and confidence is unknown or below the threshold."""
    low = doubts.confidence is None or doubts.confidence < threshold
    return bool(doubts.items) and low


def describe(doubts: Doubts) -> str:
    """The doubts as lines for a prompt."""
    return "\n".join(f"- {doubt.statement}" for doubt in doubts.items)


def count(doubts: Doubts) -> str:
    """`1 doubt`, `2 doubts`."""
    number = len(doubts.items)
    return f"{number} doubt" + ("" if number == 1 else "s")


_SURE: Final = 0.5
"""How likely a form must be to be named, where there is an `_OTHER` to name instead: of its kind's
guesses, one in three is wrong, and of those this sure one in five."""
_OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Scores:
    """What a backend read of a conversation from inside the model, before any answer.

    `kinds`: the probability of each kind of doubt, together that of any; `threshold`: above it
    there is doubt. `forms`: of each kind, how likely each of its forms is, such as a live price,
    where it is of that kind.
    """

    kinds: Mapping[DoubtKind, float]
    threshold: float
    forms: Mapping[DoubtKind, Mapping[str, float]] = field(default_factory=dict)

    @property
    def doubt(self) -> float:
        """The probability of any doubt."""
        return sum(self.kinds.values())

    def form(self, kind: DoubtKind) -> str | None:
        """What a doubt of that kind would be about, more closely; None where that isn't told."""
        forms = self.forms.get(kind)
        if not forms:
            return None
        likeliest = max(forms, key=lambda form: forms[form])
        return _OTHER if _OTHER in forms and forms[likeliest] < _SURE else likeliest

    def without(self, names: Iterable[str]) -> Scores:
        """The same, but for what the app's own abilities rule out: a `kind`, or a `kind-form`."""
        lifted = frozenset(names)
        kinds: dict[DoubtKind, float] = {}
        forms: dict[DoubtKind, Mapping[str, float]] = {}
        for kind, chance in self.kinds.items():
            known = self.forms.get(kind, {})
            left = {form: c for form, c in known.items() if f"{kind}-{form}" not in lifted}
            share = sum(left.values()) if known else 1.0
            if kind in lifted or not share:
                continue
            kinds[kind] = chance * share
            if known:
                forms[kind] = {form: c / share for form, c in left.items()}
        return Scores(kinds, self.threshold, forms)


class Reading:
    """An elicitation of doubts, read while it streams."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._empty = False

    async def is_empty(self) -> bool:
        """Whether there is no doubt, said as soon as that is clear."""
        text = ""
        async for chunk in self.call:
            text += chunk.text
            if settles_empty(text):
                self._empty = True
                return True
        found = self.doubts()
        return found is not None and not found.items

    def doubts(self) -> Doubts | None:
        """What was found so far; None where unknown."""
        response = self.call.step.response
        found = parse(response.text) if response else None
        return Doubts() if found is None and self._empty else found


class AfterLimits:
    """The view of a reply that names its limits first: `<limits>{…}</limits>`, then the answer.

    Fences, a word before the tags and tags left out are no obstacle. A reply without limits is
    all answer, and its doubts are unknown.
    """

    def __init__(self) -> None:
        self._held = ""
        self._open = False
        self._begun = False
        self._limits: str | None = None

    def feed(self, text: str) -> str:
        """What of the answer has come, its leading blanks left out."""
        if self._open:
            return self._shown(text)
        self._held += text
        return self._unlock(ended=False)

    def close(self) -> str:
        """The rest. Raises StepFailed where the reply never got to an answer."""
        rest = "" if self._open else self._unlock(ended=True)
        if not self._begun:
            raise StepFailed("the answer never came: the reply ended among its limits")
        return rest

    def doubts(self) -> Doubts | None:
        """The doubts named before the answer; None where unknown."""
        return None if self._limits is None else parse(self._limits)

    def _unlock(self, *, ended: bool) -> str:
        plain = without_reasoning(self._held)
        while (cut := _limits_in(plain, ended=ended)) is not None:
            limits, plain = cut
            self._limits = self._limits or limits
        if not ended and _may_begin_with_limits(plain):
            return ""
        if ended and _OPENING.search(plain[:_LOOK]):
            return ""
        self._open = True
        return self._shown(plain)

    def _shown(self, text: str) -> str:
        text = text if self._begun else text.lstrip()
        self._begun = self._begun or bool(text)
        return text


_LOOK: Final = 60
"""Characters in which a reply that names its limits has begun to do so."""

_OPENING: Final = re.compile(r"<\s*limits\s*>", re.IGNORECASE)
_CLOSING: Final = re.compile(r"<\s*/\s*limits\s*>(?:\s*```|\*\*)?", re.IGNORECASE)
_BARE: Final = re.compile(r"\s*(?:```\w*\s*)?(?=\{\s*[\"']doubts)")


def _limits_in(text: str, *, ended: bool) -> tuple[str, str] | None:
    """The limits at the beginning of a reply and what follows them, once both are there."""
    opened = _OPENING.search(text[:_LOOK]) or _BARE.match(text)
    if not opened:
        return None
    begin = text.find("{", opened.end())
    try:
        end = scan(text, begin)[1] if begin >= 0 else opened.end()
    except (ValueError, RecursionError):
        end = opened.end()
    closed = _CLOSING.search(text, end)
    if closed:
        return text[opened.end() : closed.start()], text[closed.end() :]
    is_bare = not opened[0].strip().endswith(">") and end > opened.end()
    if is_bare and (ended or len(text) > end + _LOOK):
        return text[begin:end], text[end:].removeprefix("\n```")
    return None


def _may_begin_with_limits(text: str) -> bool:
    plain = text.lstrip()
    return len(plain) < _LOOK or bool(_OPENING.search(plain[:_LOOK]) or _BARE.match(plain))


def _listing(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that list doubts."""
    return [named for named in map(lowered, values) if isinstance(named.get("doubts"), list)]


def _doubt(entry: Any) -> Doubt | None:
    if not isinstance(entry, dict):
        return None
    kind = re.sub(r"[\s/-]+", "_", str(entry.get("kind", "")).strip().lower())
    statement = entry.get("statement")
    if kind not in DOUBT_KINDS or not isinstance(statement, str) or not statement.strip():
        return None
    return Doubt(DOUBT_KINDS[DOUBT_KINDS.index(kind)], " ".join(statement.split()))


def _confidence(value: Any) -> float | None:
    """A probability from a number, `"0.8"` or `"80 %"`; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
    return number if math.isfinite(number) and 0 <= number <= 1 else None
