"""Responses: a request read, and an answer written whole or as typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.able.chat import pieces
from tests.able.mind import Asked, Called, Said, text_in

Json = dict[str, Any]


def asked(body: Mapping[str, Any]) -> Asked:
    """What a request asks for; a tool's output counts as a tool's message."""
    given = body["input"]
    last = {"role": "user", "content": given} if isinstance(given, str) else given[-1]
    is_output = last.get("type") == "function_call_output"
    shape = (body.get("text") or {}).get("format") or {}
    return Asked(
        model=body["model"],
        text=text_in(last.get("output") if is_output else last.get("content")),
        role="tool" if is_output else last.get("role", "user"),
        tools={t["name"]: t.get("parameters") or {} for t in _functions(body)},
        choice=_choice(body.get("tool_choice")),
        parallel=body.get("parallel_tool_calls") is not False,
        schema=shape.get("schema"),
        is_json=shape.get("type") in ("json_object", "json_schema"),
        cap=body.get("max_output_tokens"),
    )


def _functions(body: Mapping[str, Any]) -> list[Json]:
    return [tool for tool in body.get("tools") or [] if tool["type"] == "function"]


def _choice(value: Any) -> str:
    return value["name"] if isinstance(value, dict) else value or "auto"


def whole(body: Mapping[str, Any], said: Said, number: int) -> Json:
    """The answer as one response object."""
    is_cut = said.finish == "length"
    return {
        **_begun(body, number),
        "status": "incomplete" if is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "output": [_done(item) for item in _items(said)],
        "usage": _usage(said),
    }


def events(body: Mapping[str, Any], said: Said, number: int) -> Iterator[Json]:
    """The answer as events, each numbered."""
    for at, event in enumerate(_events(body, said, number)):
        yield {**event, "sequence_number": at}


def _events(body: Mapping[str, Any], said: Said, number: int) -> Iterator[Json]:
    begun, ended = _begun(body, number), whole(body, said, number)
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for at, item in enumerate(_items(said)):
        yield from _item_events(at, item)
    yield {"type": f"response.{ended['status']}", "response": ended}


def _item_events(at: int, item: Json) -> Iterator[Json]:
    where = {"output_index": at, "item_id": item["id"]}
    empty = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
    yield {"type": "response.output_item.added", "output_index": at, "item": {**item, **empty}}
    if item["type"] == "function_call":
        kind = "response.function_call_arguments"
        for piece in pieces(item["arguments"]):
            yield {"type": f"{kind}.delta", **where, "delta": piece}
        told = {"name": item["name"], "arguments": item["arguments"]}
        yield {"type": f"{kind}.done", **where, **told}
    else:
        yield from _part_events({**where, "content_index": 0}, item["content"][0])
    yield {"type": "response.output_item.done", "output_index": at, "item": _done(item)}


def _part_events(where: Json, part: Json) -> Iterator[Json]:
    is_text = part["type"] == "output_text"
    name, kind = ("text", "output_text") if is_text else ("refusal", "refusal")
    logprobs = {"logprobs": []} if is_text else {}
    yield {"type": "response.content_part.added", **where, "part": {**part, name: ""}}
    for piece in pieces(part[name]):
        yield {"type": f"response.{kind}.delta", **where, "delta": piece, **logprobs}
    yield {"type": f"response.{kind}.done", **where, name: part[name], **logprobs}
    yield {"type": "response.content_part.done", **where, "part": part}


def _items(said: Said) -> list[Json]:
    if said.calls:
        return [_call(call, at) for at, call in enumerate(said.calls)]
    if said.refusal:
        part: Json = {"type": "refusal", "refusal": said.refusal}
    else:
        part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
    message = {"id": "msg_able", "type": "message", "role": "assistant", "content": [part]}
    return [{**message, "status": "in_progress"}]


def _call(call: Called, at: int) -> Json:
    head = {"id": f"fc_{at}", "type": "function_call", "call_id": f"call_{at}"}
    return {**head, "name": call.name, "arguments": call.arguments, "status": "in_progress"}


def _done(item: Json) -> Json:
    return {**item, "status": "completed"}


def _begun(body: Mapping[str, Any], number: int) -> Json:
    """The object as it is before anything was said: what was asked, told again."""
    told = {
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    }
    told |= {name: body[name] for name in told if name in body}
    head = {"id": f"resp_able{number}", "object": "response", "created_at": 1700000000}
    state = {"status": "in_progress", "error": None, "incomplete_details": None}
    return {**head, **state, "model": body["model"], "output": [], "usage": None, **told}


def _usage(said: Said) -> Json:
    made = max(1, len(said.words))
    return {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5 + made,
    }
