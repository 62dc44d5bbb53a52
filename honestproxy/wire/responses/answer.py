"""A Response read as a chat's answer: its text, its calls, how it ended, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from honestproxy.errors import UpstreamError
from honestproxy.types import ChatResponse, Document
from honestproxy.wire.responses.items import CALLS
from honestproxy.wire.responses.usage import chat_usage
from honestproxy.wire.upstream import broken, kept_headers, snippet

ODD: Final = (ValueError, RecursionError, AttributeError, TypeError)
"""What reading raises where JSON isn't JSON, or has other types than the API promises."""

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


def completion(
    body: bytes, content_type: str, headers: Mapping[str, str] | None = None
) -> NativeResponse:
    """The answer in a good reply's body; raises UpstreamError where it is none, or failed."""
    own = Document(body)
    try:
        if (error := own.get("error")) or own.get("status") in ("failed", "cancelled"):
            raise failure(error or {"message": f"the response was {own.get('status')}"})
        fields = answer_of(own)
    except ODD:
        raise broken("a response", body, content_type) from None
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


def answer_of(own: Document) -> dict[str, Any]:
    """The chat completion that says the same. Raises one of `ODD` where it is no Response."""
    output = own.get("output")
    if not isinstance(output, list):
        raise TypeError("a response has a list of items")
    message = _message(output)
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(own, message)}
    return {**head_of(own), "object": "chat.completion", "choices": [choice], **_usage(own)}


def head_of(own: Document) -> dict[str, Any]:
    """Which answer this is, when and by which model it was made, and whether it is stored."""
    head = {"id": own.get("id"), "created": own.get("created_at"), "model": own.get("model")}
    head["store"] = own.get("store")
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
        "tool_calls": [call_of(item) for item in output if item.get("type") in CALLS],
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


def call_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item that is a call, as a chat's tool call."""
    kind = str(item["type"])
    tool, part = kind.partition("_")[0], CALLS[kind]
    said = {"name": item.get("name"), part: item.get(part) or ""}
    return {"id": item.get("call_id") or item.get("id"), "type": tool, tool: said}


def _finish_reason(own: Document, message: Mapping[str, Any]) -> str:
    if own.get("status") == "incomplete":
        details = own.get("incomplete_details") or {}
        return _CUT.get(str(details.get("reason")), "length")
    return "tool_calls" if message.get("tool_calls") else "stop"
