"""Our answers as Responses: a whole object, or typed events."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Raw

from honestproxy.errors import HonestProxyError, UpstreamBroken
from honestproxy.types import ChatResponse, Chunk, Document, write
from honestproxy.wire.responses.answer import NativeResponse
from honestproxy.wire.responses.events import NativeChunk
from honestproxy.wire.responses.output import Event, Output
from honestproxy.wire.responses.request import ResponsesRequest
from honestproxy.wire.responses.usage import chat_usage, responses_usage

_CUT: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_TIERS: Final = ("auto", "default", "flex", "scale", "priority", "fast")
_ECHOED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": None,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": None,
    "user": None,
}
# True of every answer that we put together ourselves: nothing is kept, cut off or run later.
_FIXED: Final[Mapping[str, Any]] = {
    "background": False,
    "error": None,
    "previous_response_id": None,
    "store": False,
    "truncation": "disabled",
}


class ResponsesWriter:
    """Renders one turn's answer for a client of Responses.

    An upstream's own events and objects go out as they came, the last one with `honesty` and
    the turn's usage in its `response`; a chat's answer is made into a Response, with an id of
    its own that can't be looked up later: nothing is stored.
    """

    def __init__(self, asked: ResponsesRequest) -> None:
        self._asked = asked
        self._envelope: dict[str, Any] = {}
        self._output = Output()
        self._number = 0
        self._native = False
        self._last: NativeChunk | None = None
        self._finish: str | None = None
        self._closing: dict[str, Any] = {}

    def whole(self, response: ChatResponse) -> bytes:
        """The body of a reply that isn't streamed."""
        if isinstance(response, NativeResponse) and response.own is not None:
            return _told(response.own, response.dict()).raw
        for chunk in response.chunks():
            for _ in self._made(chunk):
                pass
        for _ in self._closed():
            pass
        return write(self._response())

    def events(self, chunk: Chunk) -> bytes:
        """The events of a chunk; none where it says nothing, or what `end` will say."""
        if isinstance(chunk, NativeChunk) and (chunk.event is not None or self._native):
            return self._passed(chunk)
        if not chunk.choices and not chunk.usage:
            return (chunk.event or b"") if self._native else b""
        return b"".join(self._encoded(event) for event in self._made(chunk))

    def end(self) -> bytes:
        """The last events. Raises UpstreamBroken where the answer hasn't ended."""
        if self._native:
            return self._last_event()
        if self._finish is None:
            raise UpstreamBroken("the upstream broke off in mid-answer, without a finish_reason")
        status = "incomplete" if self._finish in _CUT else "completed"
        closed = b"".join(self._encoded(event) for event in self._closed())
        last = {"type": f"response.{status}", "response": self._response()}
        return closed + self._encoded(last)

    def error(self, error: HonestProxyError) -> bytes:
        """An error after the first byte: as the API writes it, and as OpenAI's SDKs raise it."""
        told = error.body()["error"]
        flat = {name: told.get(name) for name in ("code", "message", "param")}
        return self._encoded({"type": "error", **flat, "error": told})

    def _passed(self, chunk: NativeChunk) -> bytes:
        """An upstream's own event; its last one is kept back where it has something to add."""
        self._native = True
        number = chunk.own.get("sequence_number")
        self._number = (number if isinstance(number, int) else self._number) + 1
        if chunk.event is not None:
            return chunk.event
        if chunk.finished or chunk.usage:
            self._last = chunk
            self._note(chunk)
        return b""

    def _last_event(self) -> bytes:
        if self._last is None:
            return b""
        own = self._last.own
        response = _told(Document(bytes(write(own.fields["response"]))), self._closing)
        return _encoded(own.replace(response=Raw(response.raw)).fields, str(own.get("type")))

    def _made(self, chunk: Chunk) -> Iterator[Event]:
        self._note(chunk)
        if not self._envelope:
            self._envelope = _envelope(self._asked, chunk)
            started = {"response": self._response()}
            yield {"type": "response.created", **started}
            yield {"type": "response.in_progress", **started}
        for choice in chunk.choices[:1]:
            self._finish = choice.get("finish_reason") or self._finish
            yield from self._output.add(choice)

    def _note(self, chunk: Chunk) -> None:
        for name in ("usage", "honesty", "service_tier"):
            if chunk.get(name) is not None:
                self._closing[name] = chunk.get(name)

    def _closed(self) -> Iterator[Event]:
        status = "incomplete" if self._finish in _CUT else "completed"
        yield from self._output.close(status)
        self._envelope |= {"status": status, "output": self._output.items}
        if self._finish in _CUT:
            self._envelope["incomplete_details"] = {"reason": _CUT[self._finish]}
        else:
            self._envelope["completed_at"] = int(time.time())

    def _response(self) -> dict[str, Any]:
        if self._envelope["status"] == "in_progress":
            return self._envelope
        usage, tier = self._closing.get("usage"), self._closing.get("service_tier")
        known = {"usage": responses_usage(usage) if usage else None}
        known |= {"service_tier": tier} if tier in _TIERS else {}
        return {**self._envelope, **known, **_honesty(self._closing)}

    def _encoded(self, event: Event) -> bytes:
        numbered = {**event, "sequence_number": self._number}
        self._number += 1
        return _encoded(numbered, event["type"])


def _encoded(event: Mapping[str, Any], kind: str) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + write(event) + b"\n\n"


def _told(own: Document, closing: Mapping[str, Any]) -> Document:
    """A Response with the turn's usage and `honesty`; as it came where both add nothing."""
    changes = _honesty(closing)
    usage, given = closing.get("usage"), own.get("usage")
    if usage and usage != (chat_usage(given) if isinstance(given, dict) else None):
        changes["usage"] = responses_usage(usage)
    return own.replace(**changes) if changes else own


def _honesty(closing: Mapping[str, Any]) -> dict[str, Any]:
    """The `honesty` object, its steps' usage under the names that this API has for tokens."""
    honesty = closing.get("honesty")
    if not isinstance(honesty, Mapping):
        return {}
    steps = [
        {**step, "usage": responses_usage(step["usage"])} if step.get("usage") else step
        for step in honesty.get("steps") or []
    ]
    return {"honesty": {**honesty, "steps": steps}}


def _envelope(asked: ResponsesRequest, chunk: Chunk) -> dict[str, Any]:
    """A Response that has just begun: who answers, and what was asked for."""
    echoed = {n: v if (v := asked.get(n)) is not None else d for n, d in _ECHOED.items()}
    tier = asked.get("service_tier")
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        **_FIXED,
        **echoed,
        "incomplete_details": None,
        "model": chunk.get("model") or asked.get("model") or "",
        "output": [],
        "reasoning": {"effort": None, "summary": None, **(asked.get("reasoning") or {})},
        "service_tier": tier if tier in _TIERS else None,
        "text": {"format": {"type": "text"}, **(asked.get("text") or {})},
        "tools": [_tool(tool) for tool in asked.get("tools") or []],
        "usage": None,
    }


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": None, **tool}
