"""What the able upstream makes of a request, whichever API it came by."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.able.schema import Filling, free_object
from tests.proxy import DOUBT, MARKS, NO_DOUBT

MERGED = "I can't look that up, so take this as a pointer only."
REFUSED = "I'm sorry, but I can't help with that."
THOUGHT = "The user asks, so I answer."
UNSURE = "right now"
"""Words in a question that make the able model doubt itself."""


@dataclass(frozen=True)
class Asked:
    """A request, stripped of its API: the last text, who said it, and what shapes the answer."""

    model: str
    text: str
    role: str
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    choice: str = "auto"
    parallel: bool = True
    schema: Mapping[str, Any] | None = None
    is_json: bool = False
    stop: Sequence[str] = ()
    cap: int | None = None

    @property
    def step(self) -> str | None:
        """The proxy's own step that this is, told by its words."""
        return next((step for step, mark in MARKS.items() if mark in self.text), None)


@dataclass(frozen=True)
class Called:
    """One call of a tool, its arguments as JSON."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Said:
    """An answer: a text, calls of tools, or a refusal."""

    text: str | None = None
    calls: tuple[Called, ...] = ()
    refusal: str | None = None
    reasoning: str | None = None
    finish: str = "stop"

    @property
    def words(self) -> list[str]:
        """The text in pieces, as tokens would be."""
        return re.findall(r"\s*\S+|\s+$", self.text or "")


def say(asked: Asked) -> Said:
    """The answer to a request, or to a step of the proxy's."""
    if asked.step:
        return _step(asked.step, asked)
    if calls := _calls(asked):
        return Said(calls=calls, finish="tool_calls")
    if asked.model == "refuses":
        return Said(refusal=REFUSED)
    said = Said(_text(asked), reasoning=THOUGHT if asked.model == "thinks" else None)
    return said if asked.is_json else _cut(said, asked)


def _step(step: str, asked: Asked) -> Said:
    if "confusion" in step:
        is_unsure = asked.model == "unsure" or UNSURE in asked.text
        return Said(DOUBT if is_unsure else NO_DOUBT)
    return _cut(Said(MERGED), asked)


def _text(asked: Asked) -> str:
    if asked.schema is not None:
        return json.dumps(Filling(asked.text).fill(asked.schema), ensure_ascii=False)
    if asked.is_json:
        return json.dumps(free_object(asked.text), ensure_ascii=False)
    return f"The tool said: {asked.text}" if asked.role == "tool" else f"You said: {asked.text}"


def _cut(said: Said, asked: Asked) -> Said:
    text = said.text or ""
    at = min([text.find(stop) for stop in asked.stop if stop in text], default=len(text))
    said = replace(said, text=text[:at])
    if asked.cap is None or len(said.words) <= asked.cap:
        return said
    return replace(said, text="".join(said.words[: asked.cap]), finish="length")


def _calls(asked: Asked) -> tuple[Called, ...]:
    filling = Filling(asked.text)
    filled = [(name, filling.fill(asked.tools[name])) for name in _wanted(asked)]
    return tuple(Called(name, json.dumps(args, ensure_ascii=False)) for name, args in filled)


def _wanted(asked: Asked) -> list[str]:
    """The tools to call: those that the question names; one at least where that is required."""
    if asked.choice in asked.tools:
        return [asked.choice]
    if asked.choice == "none" or not asked.tools:
        return []
    named = [] if asked.role == "tool" else [n for n in asked.tools if _is_named(n, asked.text)]
    if asked.choice == "required":
        named = named or [next(iter(asked.tools))]
    return named if asked.parallel else named[:1]


def _is_named(tool: str, text: str) -> bool:
    words = [word for word in tool.lower().split("_") if len(word) > 3]
    return any(word in text.lower() for word in words or [tool.lower()])


def text_in(content: Any) -> str:
    """The text of a content, and the kinds of its other parts, in both APIs' shapes."""
    if not isinstance(content, list):
        return str(content or "")
    texts = [part.get("text") or f"[{part.get('type')}]" for part in content]
    return "\n".join(texts)
