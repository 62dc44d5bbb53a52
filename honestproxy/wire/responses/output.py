"""The output of an answer that came as a chat's deltas: its items, and the events that tell them.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

Event = dict[str, Any]

_REASONS: Final = ("reasoning_content", "reasoning")  # names that servers give it
_KINDS: Final = {"content": "output_text", "refusal": "refusal", "reasoning": "reasoning_text"}
_TEXT_NAME: Final = {"output_text": "text", "refusal": "refusal", "reasoning_text": "text"}


class Output:
    """The items of one answer, made as deltas come; every change yields its events.

    An item is closed once another kind of item begins, calls at the end: servers may spell
    several at once.
    """

    def __init__(self) -> None:
        self._items: list[_Texts | _Call] = []
        self._calls: dict[int, _Call] = {}
        self._speaking: _Texts | None = None

    @property
    def items(self) -> list[dict[str, Any]]:
        """The items so far."""
        return [item.item for item in self._items]

    def add(self, choice: Mapping[str, Any]) -> Iterator[Event]:
        """Take in what a chunk says of the answer."""
        delta = choice.get("delta") or {}
        logprobs = (choice.get("logprobs") or {}).get("content") or []
        reasoning = next((delta[name] for name in _REASONS if delta.get(name)), None)
        said = {"reasoning": reasoning, **{n: delta.get(n) for n in ("content", "refusal")}}
        for name, text in said.items():
            if text and isinstance(text, str):
                yield from self._say(_KINDS[name], text, logprobs if name == "content" else [])
        for call in delta.get("tool_calls") or []:
            yield from self._spell(call)

    def close(self, status: str) -> Iterator[Event]:
        """Close every item; what was being said when the answer ended has that `status`."""
        last = self._items[-1] if self._items else None
        self._speaking = None
        for item in self._items:
            if not item.closed:
                yield from item.close(status if item is last else "completed")

    def _say(self, kind: str, text: str, logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        speaking = self._speaking
        if speaking is None or speaking.is_reasoning != (kind == "reasoning_text"):
            yield from self._hush()
            speaking = self._speaking = _Texts(len(self._items), kind)
            self._items.append(speaking)
            yield speaking.opened()
        yield from speaking.say(kind, text, logprobs)

    def _hush(self) -> Iterator[Event]:
        if self._speaking:
            yield from self._speaking.close("completed")
        self._speaking = None

    def _spell(self, call: Mapping[str, Any]) -> Iterator[Event]:
        at = call.get("index", 0)
        if at not in self._calls:
            yield from self._hush()
            made = self._calls[at] = _Call(len(self._items), call)
            self._items.append(made)
            yield made.opened()
        yield from self._calls[at].spell(call)


class _Item:
    def __init__(self, place: int, item: dict[str, Any]) -> None:
        self.item = item
        self.closed = False
        self._place = place

    def opened(self) -> Event:
        return self._told("response.output_item.added")

    def _closed(self, status: str) -> Event:
        self.closed = True
        if "status" in self.item:
            self.item["status"] = status
        return self._told("response.output_item.done")

    def _told(self, kind: str) -> Event:
        return {"type": kind, "output_index": self._place, "item": self.item}

    def _event(self, kind: str, **more: Any) -> Event:
        where = {"item_id": self.item["id"], "output_index": self._place}
        return {"type": f"response.{kind}", **where, **more}


class _Texts(_Item):
    """A message or the reasoning before it: parts of text."""

    def __init__(self, place: int, kind: str) -> None:
        self.is_reasoning = kind == "reasoning_text"
        if self.is_reasoning:
            item = {"id": _id("rs"), "type": "reasoning", "summary": []}
        else:
            item = {"id": _id("msg"), "type": "message", "role": "assistant"}
        super().__init__(place, {**item, "status": "in_progress", "content": []})
        self._texts: list[str] = []

    def say(self, kind: str, text: str, logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        parts = self.item["content"]
        if not parts or parts[-1]["type"] != kind:
            yield from self._part_closed()
            parts.append(_part(kind))
            yield self._event("content_part.added", content_index=self._at, part=parts[-1])
        self._texts.append(text)
        more = {"logprobs": _logprobs(logprobs)} if kind == "output_text" else {}
        if logprobs:
            parts[-1]["logprobs"].extend(_logprobs(logprobs, with_bytes=True))
        yield self._event(f"{kind}.delta", content_index=self._at, delta=text, **more)

    def close(self, status: str) -> Iterator[Event]:
        yield from self._part_closed()
        yield self._closed(status)

    @property
    def _at(self) -> int:
        return len(self.item["content"]) - 1

    def _part_closed(self) -> Iterator[Event]:
        if not self.item["content"]:
            return
        part = self.item["content"][-1]
        name = _TEXT_NAME[part["type"]]
        part[name], self._texts = "".join(self._texts), []
        more = {"logprobs": _logprobs(part["logprobs"])} if "logprobs" in part else {}
        done = {name: part[name], **more}
        yield self._event(f"{part['type']}.done", content_index=self._at, **done)
        yield self._event("content_part.done", content_index=self._at, part=part)


class _Call(_Item):
    """A call of a function, or of a custom tool."""

    def __init__(self, place: int, call: Mapping[str, Any]) -> None:
        is_custom = call.get("type") == "custom" or "custom" in call
        self._tool, self._said = ("custom", "input") if is_custom else ("function", "arguments")
        kind, prefix = ("custom_tool_call", "ctc") if is_custom else ("function_call", "fc")
        name = (call.get(self._tool) or {}).get("name") or ""
        item: dict[str, Any] = {"id": _id(prefix), "type": kind}
        item |= {} if is_custom else {"status": "in_progress"}  # the API gives only functions one
        said = {"call_id": call.get("id") or _id("call"), "name": name, self._said: ""}
        super().__init__(place, {**item, **said})
        self._stem = f"custom_tool_call_{self._said}" if is_custom else f"{kind}_{self._said}"

    def spell(self, call: Mapping[str, Any]) -> Iterator[Event]:
        if text := (call.get(self._tool) or {}).get(self._said):
            self.item[self._said] += text
            yield self._event(f"{self._stem}.delta", delta=text)

    def close(self, status: str) -> Iterator[Event]:
        told = {"name": self.item["name"]} if self._tool == "function" else {}
        yield self._event(f"{self._stem}.done", **told, **{self._said: self.item[self._said]})
        yield self._closed(status)


def _part(kind: str) -> dict[str, Any]:
    more: dict[str, Any] = {"annotations": [], "logprobs": []} if kind == "output_text" else {}
    return {"type": kind, _TEXT_NAME[kind]: "", **more}


def _logprobs(given: list[dict[str, Any]], *, with_bytes: bool = False) -> list[dict[str, Any]]:
    """A chat's log-probabilities as Responses has them: in events without bytes, in parts with."""

    def token(one: Mapping[str, Any]) -> dict[str, Any]:
        known = {"token": one.get("token"), "logprob": one.get("logprob")}
        return known | ({"bytes": one.get("bytes") or []} if with_bytes else {})

    return [
        {**token(one), "top_logprobs": [token(top) for top in one.get("top_logprobs") or []]}
        for one in given
    ]


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
