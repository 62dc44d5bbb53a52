"""Back from a step's chat request to Responses, for an upstream that speaks it itself.

What the pipeline left as the client sent it goes up as the client sent it, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from msgspec import DecodeError, Raw, ValidationError
from msgspec.json import Decoder

from honestproxy.types import ChatRequest, Message, read, text_of, write
from honestproxy.wire.responses.items import kind_of
from honestproxy.wire.responses.request import LOGPROBS, ResponsesRequest

_GONE: Final = object()
_Fields = dict[str, Any]
_items_of = Decoder(list[Raw]).decode


def native(step: ChatRequest, asked: ResponsesRequest) -> bytes:
    """The body for the upstream: what the client asked, with what the step changed of it."""
    changed = dict(_changes(step, asked.chat))
    fields = dict(asked.fields)
    for name, value in changed.items():
        _WRITERS.get(name, _same_name)(fields, asked, name, value)
    _not_stored(fields, asked, step)
    return asked.raw if fields == asked.fields else write(fields)


def _changes(step: ChatRequest, known: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    now = step.fields
    for name in (*known, *(name for name in now if name not in known)):
        before, after = known.get(name, _GONE), now.get(name, _GONE)
        if before is not after and before != after:
            yield name, after if after is _GONE else step.get(name)


def _same_name(fields: _Fields, asked: ResponsesRequest, name: str, value: Any) -> None:
    if value is _GONE:
        fields.pop(name, None)
    else:
        fields[name] = value


def _stream(fields: _Fields, asked: ResponsesRequest, name: str, value: Any) -> None:
    _same_name(fields, asked, name, value)
    if value is not True:
        fields.pop("stream_options", None)


def _cap(fields: _Fields, asked: ResponsesRequest, name: str, value: Any) -> None:
    _same_name(fields, asked, "max_output_tokens", value)


def _inside(outer: str, inner: str) -> Callable[[_Fields, ResponsesRequest, str, Any], None]:
    def put(fields: _Fields, asked: ResponsesRequest, name: str, value: Any) -> None:
        given = fields.get(outer)
        now = dict(given if isinstance(given, dict) else asked.get(outer) or {})
        _same_name(now, asked, inner, value)
        _same_name(fields, asked, outer, now or _GONE)

    return put


def _logprobs(fields: _Fields, asked: ResponsesRequest, name: str, value: Any) -> None:
    if value is _GONE:
        kept = [what for what in asked.get("include") or [] if what != LOGPROBS]
        _same_name(fields, asked, "include", kept or _GONE)


def _input(fields: _Fields, asked: ResponsesRequest, name: str, value: list[Message]) -> None:
    instruction = _added(asked.chat["messages"], value)
    if instruction is not None:
        fields["input"] = _instructed(asked, instruction)
        return
    # Another conversation altogether, such as the paper's single message.
    fields["input"] = [{"role": m["role"], "content": text_of(m.get("content"))} for m in value]
    fields.pop("instructions", None)


def _unchanged(fields: _Fields, asked: ResponsesRequest, name: str, value: Any) -> None:
    """What a chat needs said and Responses doesn't."""


_WRITERS: Final[Mapping[str, Callable[[_Fields, ResponsesRequest, str, Any], None]]] = {
    "messages": _input,
    "max_tokens": _cap,
    "max_completion_tokens": _cap,
    "stream": _stream,
    "response_format": _inside("text", "format"),
    "verbosity": _inside("text", "verbosity"),
    "reasoning_effort": _inside("reasoning", "effort"),
    "logprobs": _logprobs,
    "stream_options": _unchanged,
    "store": _unchanged,
}


def _not_stored(fields: _Fields, asked: ResponsesRequest, step: ChatRequest) -> None:
    """Write `store: false` where the step has lost `store`: silence would mean true."""
    if "store" in step:
        return
    if asked.get("store") is not False:
        fields["store"] = False
    if asked.is_lasting:
        for name in ("conversation", "background"):
            fields.pop(name, None)


def _added(before: list[Message], now: list[Message]) -> str | None:
    """The text that was put behind the conversation; None where it is another conversation."""
    if now[:-1] == before:
        return text_of(now[-1].get("content"))
    if now[:-1] != before[:-1] or now[-1].get("role") != before[-1].get("role"):
        return None
    old, new = before[-1].get("content"), now[-1].get("content")
    if isinstance(old, list) and isinstance(new, list) and new[: len(old)] == old:
        return text_of(new[len(old) :])
    told, text = old if isinstance(old, str) else "", new if isinstance(new, str) else ""
    return text[len(told) :].removeprefix("\n\n") if text.startswith(told) else None


def _instructed(asked: ResponsesRequest, instruction: str) -> list[Any]:
    """The client's own items with our words last; all but the last one stay unread bytes."""
    items = _unread_items(asked)
    last = read(items[-1]) if items and isinstance(items[-1], Raw) else (items or [{}])[-1]
    ours = {"type": "input_text", "text": instruction}
    if not last or kind_of(last) != "message" or last.get("role") != "user":
        return [*items, {"role": "user", "content": [ours]}]
    content = last["content"]
    theirs = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
    return [*items[:-1], {**last, "content": [*theirs, ours]}]


def _unread_items(asked: ResponsesRequest) -> list[Any]:
    given = asked.get("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    value = asked.fields.get("input")
    try:
        return list(_items_of(value)) if isinstance(value, Raw) else list(given or [])
    except (DecodeError, ValidationError):
        return list(given or [])
