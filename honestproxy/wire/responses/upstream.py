"""What an upstream that speaks Responses says, read as the pipeline understands it.

Its own bytes stay with it, so that an answer nobody rewrites goes out as it came.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from honestproxy.errors import UpstreamBroken, UpstreamError
from honestproxy.types import ChatResponse, Chunk, Document
from honestproxy.wire.responses.usage import chat_usage
from honestproxy.wire.sse import DONE, EventSplitter, data_of, name_of
from honestproxy.wire.upstream import broken, kept_headers, snippet

_CALLS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
_CUT: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}
_STATUSES: Final = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
}


class NativeResponse(ChatResponse):
    """A Response read as a chat's answer; `own` is the Response, until another text replaces it."""

    __slots__ = ("own",)

    def __init__(
        self,
        source: Mapping[str, Any],
        *,
        own: Document | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(source, headers=headers)
        self.own = own

    def _with(self, fields: Mapping[str, Any]) -> NativeResponse:
        is_same = fields.get("choices") is self.fields.get("choices")
        return NativeResponse(fields, own=self.own if is_same else None, headers=self.headers)


class NativeChunk(Chunk):
    """An event of a Response read as a chat's chunk; `own` is what the event says."""

    __slots__ = ("own",)

    def __init__(
        self, source: Mapping[str, Any], *, own: Document, event: bytes | None = None
    ) -> None:
        super().__init__(source, event=event)
        self.own = own

    def _with(self, fields: Mapping[str, Any]) -> NativeChunk:
        return NativeChunk(fields, own=self.own)


def completion(
    body: bytes, content_type: str, headers: Mapping[str, str] | None = None
) -> NativeResponse:
    """The answer in a good reply's body; raises UpstreamError where it is none, or failed."""
    own = Document(body)
    try:
        output, error, status = own.get("output"), own.get("error"), own.get("status")
    except (ValueError, RecursionError):
        raise broken("a response", body, content_type) from None
    if error or status in ("failed", "cancelled"):
        raise failure(error or {"message": f"the response was {status}"})
    if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
        raise broken("a response", body, content_type)
    message = _message(output)
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(own, message)}
    fields = {**_head(own), "object": "chat.completion", "choices": [choice], **_usage(own)}
    return NativeResponse(fields, own=own, headers=kept_headers(headers or {}))


def failure(error: Any) -> UpstreamError:
    """The error for what a failed Response or an `error` event tells."""
    told = error if isinstance(error, Mapping) else {"message": str(error)}
    code, message = told.get("code"), told.get("message") or "it gave no reason"
    status = code if type(code) is int and 400 <= code < 600 else _STATUSES.get(str(code), 502)
    kind = told.get("type") if told.get("type") != "error" else None
    body = {"message": message, "type": kind or "upstream_error"}
    body |= {"param": told.get("param"), "code": code}
    shown = f"the upstream failed: {snippet(str(message).encode('utf-8', 'replace'))}"
    return UpstreamError(shown, status=status, upstream={"error": body})


class EventReader:
    """Reads chunks out of the bytes of a Response's event stream; the events stay as they came.

    A comment or ping rides in front of the next event. Reasoning and bookkeeping become chunks
    without news, so that a step which fails before its text leaves nothing behind.
    """

    __slots__ = ("_any", "_carried", "_finished", "_news", "_splitter", "done")

    def __init__(self) -> None:
        self.done = False
        self._splitter = EventSplitter()
        self._carried = b""
        self._any = False
        self._finished = False
        self._news = _News()

    def feed(self, received: bytes) -> Iterator[Chunk]:
        """The chunks that `received` completes; raises UpstreamError for an error among them."""
        for event in self._splitter.feed(received):
            data = data_of(event).strip()
            if data == DONE:
                yield self._complete(event)
                return
            if data:
                yield self._chunk(event, data)
            else:
                self._carried += event

    def end(self) -> Iterator[Chunk]:
        """What is left at the end of the bytes; raises UpstreamBroken where an answer isn't."""
        if data_of(self._splitter.rest).strip().endswith(b"}"):
            yield from self.feed(b"\n\n")
        if not self._finished:
            raise UpstreamBroken("the upstream broke off in mid-answer: no response.completed came")

    def _complete(self, event: bytes) -> Chunk:
        self.done = True
        if not self._finished:
            raise UpstreamBroken("the upstream's stream ended before its answer did")
        return Chunk({"choices": []}, event=self._carried + event)

    def _chunk(self, event: bytes, data: bytes) -> Chunk:
        own = Document(data)
        try:
            kind = own.get("type") or name_of(event).decode("utf-8", "replace")
            choice = {"index": 0, "delta": {}, "finish_reason": None}
            fields = {"choices": [choice]} | self._read(str(kind), own, choice)
        except (ValueError, RecursionError):
            raise UpstreamBroken(f"the upstream sent no event, but: {snippet(data)}") from None
        carried, self._carried = self._carried, b""
        return NativeChunk(fields, own=own, event=carried + event)

    def _read(self, kind: str, own: Document, choice: dict[str, Any]) -> dict[str, Any]:
        """Enter the event's news into the choice; what it says of the answer as a whole."""
        if kind == "error" or own.get("error"):
            raise failure(own.get("error") or own.dict())
        if kind in _LIFE:
            return self._life(kind, own, choice)
        choice["delta"] = self._news.read(kind, own)
        if logprobs := choice["delta"] and own.get("logprobs"):
            choice["logprobs"] = {"content": logprobs}
        return {}

    def _life(self, kind: str, own: Document, choice: dict[str, Any]) -> dict[str, Any]:
        response = Document(own.get("response") or {})
        if kind == "response.failed":
            raise failure(response.get("error"))
        if kind not in _LAST:
            return _head(response)
        message = _message(response.get("output") or [])
        self._finished = True
        choice["delta"] = self._news.missing(message)
        choice["finish_reason"] = _finish_reason(response, message)
        return {**_head(response), **_usage(response)}


_LAST: Final = frozenset({"response.completed", "response.incomplete"})
_LIFE: Final = _LAST | {"response.created", "response.in_progress", "response.failed"}


class _News:
    """What the events of one stream say that is new, as a chat's deltas."""

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}  # by place in the output, place among the calls
        self._spelled: set[int] = set()
        self._any = False

    def read(self, kind: str, own: Document) -> dict[str, Any]:
        """The delta of one event; empty for reasoning, and for what repeats what has been said."""
        reader = self._READERS.get(kind)
        delta = reader(self, own) if reader else {}
        self._any = self._any or bool(delta)
        return delta

    def missing(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The whole message, where the last event is the first that tells anything of it."""
        if self._any:
            return {}
        delta = {name: value for name, value in message.items() if value and name != "role"}
        delta.pop("reasoning_content", None)
        if calls := delta.get("tool_calls"):
            delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(calls)]
        return delta

    def _text(self, own: Document) -> dict[str, Any]:
        return {"content": own.get("delta") or ""}

    def _refusal(self, own: Document) -> dict[str, Any]:
        return {"refusal": own.get("delta") or ""}

    def _added(self, own: Document) -> dict[str, Any]:
        item, place = own.get("item") or {}, own.get("output_index", 0)
        if item.get("type") not in _CALLS:
            return {}
        index = self._calls[place] = len(self._calls)
        call = _call({**item, _CALLS[item["type"]]: ""})
        return {"tool_calls": [{"index": index, **call}]}

    def _spell(self, tool: str, part: str, own: Document) -> dict[str, Any]:
        place = own.get("output_index", 0)
        if place not in self._calls:
            return {}
        self._spelled.add(place)
        said = {part: own.get("delta") or ""}
        return {"tool_calls": [{"index": self._calls[place], tool: said}]}

    def _arguments(self, own: Document) -> dict[str, Any]:
        return self._spell("function", "arguments", own)

    def _custom_input(self, own: Document) -> dict[str, Any]:
        return self._spell("custom", "input", own)

    def _done(self, own: Document) -> dict[str, Any]:
        """A call whose arguments came in one piece, at its end."""
        item, place = own.get("item") or {}, own.get("output_index", 0)
        if item.get("type") not in _CALLS or place in self._spelled:
            return {}
        if place not in self._calls:
            self._calls[place] = len(self._calls)
            return {"tool_calls": [{"index": self._calls[place], **_call(item)}]}
        tool, part = item["type"].partition("_")[0], _CALLS[item["type"]]
        return {"tool_calls": [{"index": self._calls[place], tool: {part: item.get(part) or ""}}]}

    _READERS: Final[Mapping[str, Callable[[_News, Document], dict[str, Any]]]] = {
        "response.output_text.delta": _text,
        "response.refusal.delta": _refusal,
        "response.output_item.added": _added,
        "response.output_item.done": _done,
        "response.function_call_arguments.delta": _arguments,
        "response.custom_tool_call_input.delta": _custom_input,
    }


def _head(own: Document) -> dict[str, Any]:
    head = {"id": own.get("id"), "created": own.get("created_at"), "model": own.get("model")}
    return {name: value for name, value in head.items() if value is not None}


def _usage(own: Document) -> dict[str, Any]:
    usage = own.get("usage")
    return {"usage": chat_usage(usage)} if isinstance(usage, dict) else {}


def _message(output: list[dict[str, Any]]) -> dict[str, Any]:
    parts = [p for item in output if item.get("type") == "message" for p in _parts(item, "content")]
    made = {
        "content": _joined(parts, "output_text", "text"),
        "refusal": _joined(parts, "refusal", "refusal"),
        "reasoning_content": _reasoning(output),
        "tool_calls": [_call(item) for item in output if item.get("type") in _CALLS],
    }
    said = {name: value for name, value in made.items() if value}
    return {"role": "assistant", "content": None, **said}


def _reasoning(output: list[dict[str, Any]]) -> str:
    items = [item for item in output if item.get("type") == "reasoning"]
    parts = [p for item in items for n in ("summary", "content") for p in _parts(item, n)]
    return "\n\n".join(str(part.get("text") or "") for part in parts)


def _parts(item: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    parts = item.get(name)
    return [p for p in parts if isinstance(p, dict)] if isinstance(parts, list) else []


def _joined(parts: list[dict[str, Any]], kind: str, name: str) -> str:
    return "".join(str(part.get(name) or "") for part in parts if part.get("type") == kind)


def _call(item: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(item["type"])
    tool, part = kind.partition("_")[0], _CALLS[kind]
    said = {"name": item.get("name"), part: item.get(part) or ""}
    return {"id": item.get("call_id") or item.get("id"), "type": tool, tool: said}


def _finish_reason(own: Document, message: Mapping[str, Any]) -> str:
    if own.get("status") == "incomplete":
        details = own.get("incomplete_details") or {}
        return _CUT.get(str(details.get("reason")), "length")
    return "tool_calls" if message.get("tool_calls") else "stop"
