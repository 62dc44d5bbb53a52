"""Chat completions: a request read, and an answer written whole or as chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.able.mind import Asked, Called, Said, text_in

Json = dict[str, Any]


def asked(body: Mapping[str, Any]) -> Asked:
    """What a chat request asks for."""
    last = body["messages"][-1]
    shape = body.get("response_format") or {}
    stop = body.get("stop") or []
    return Asked(
        model=body["model"],
        text=text_in(last.get("content")),
        role=last["role"],
        tools={t["function"]["name"]: t["function"].get("parameters") or {} for t in _tools(body)},
        choice=_choice(body.get("tool_choice")),
        parallel=body.get("parallel_tool_calls") is not False,
        schema=(shape.get("json_schema") or {}).get("schema"),
        is_json=shape.get("type") in ("json_object", "json_schema"),
        stop=[stop] if isinstance(stop, str) else stop,
        cap=body.get("max_completion_tokens") or body.get("max_tokens"),
    )


def _tools(body: Mapping[str, Any]) -> list[Json]:
    return [tool for tool in body.get("tools") or [] if tool["type"] == "function"]


def _choice(value: Any) -> str:
    return value["function"]["name"] if isinstance(value, dict) else value or "auto"


def whole(body: Mapping[str, Any], said: Said) -> Json:
    """The answer as one completion."""
    count = body.get("n") or 1
    choices = [_choice_of(body, said, index) for index in range(count)]
    return {**_head(body, "chat.completion"), "choices": choices, "usage": usage(said, count)}


def _choice_of(body: Mapping[str, Any], said: Said, index: int) -> Json:
    message: Json = {"role": "assistant", "content": said.text, "refusal": said.refusal}
    message["annotations"] = []
    if said.calls:
        message["tool_calls"] = [call_of(call, at) for at, call in enumerate(said.calls)]
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    told = {"content": list(map(_token, said.words)), "refusal": None}
    logprobs = told if body.get("logprobs") else None
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": said.finish,
    }


def chunks(body: Mapping[str, Any], said: Said) -> Iterator[Json]:
    """The answer as chunks, its choices in turn; the usage last where it was asked for."""
    with_usage = (body.get("stream_options") or {}).get("include_usage")
    count = body.get("n") or 1
    head = _head(body, "chat.completion.chunk") | ({"usage": None} if with_usage else {})
    for index in range(count):
        for delta, logprobs in _deltas(body, said):
            yield {**head, "choices": [_piece(index, delta, logprobs)]}
        yield {**head, "choices": [_piece(index, {}, None, said.finish)]}
    if with_usage:
        yield {**head, "choices": [], "usage": usage(said, count)}


def _deltas(body: Mapping[str, Any], said: Said) -> Iterator[tuple[Json, Json | None]]:
    yield {"role": "assistant", "content": None if said.calls else "", "refusal": None}, None
    if said.reasoning:
        yield {"reasoning_content": said.reasoning}, None
    if said.refusal:
        yield {"refusal": said.refusal}, None
    for word in said.words:
        logprobs = {"content": [_token(word)], "refusal": None} if body.get("logprobs") else None
        yield {"content": word}, logprobs
    for at, call in enumerate(said.calls):
        opening = call_of(call, at)
        opening["function"]["arguments"] = ""
        yield {"tool_calls": [{"index": at, **opening}]}, None
        for piece in pieces(call.arguments):
            yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}, None


def _piece(index: int, delta: Json, logprobs: Json | None, finish: str | None = None) -> Json:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def call_of(call: Called, at: int) -> Json:
    """A call of a tool as a message holds it."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{at}", "type": "function", "function": function}


def pieces(text: str, length: int = 5) -> list[str]:
    """A text cut into deltas."""
    return [text[at : at + length] for at in range(0, len(text), length)]


def usage(said: Said, count: int = 1) -> Json:
    """Tokens: five of the prompt, and one a word."""
    made = count * max(1, len(said.words))
    details = {"prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}}
    details["completion_tokens_details"] = {"reasoning_tokens": 0, "audio_tokens": 0}
    return {
        "prompt_tokens": 5,
        "completion_tokens": made,
        "total_tokens": 5 + made,
        **details,
    }


def _token(word: str) -> Json:
    return {"token": word, "logprob": -0.25, "bytes": list(word.encode()), "top_logprobs": []}


def _head(body: Mapping[str, Any], kind: str) -> Json:
    made = {"id": "chatcmpl-able", "object": kind, "created": 1700000000, "model": body["model"]}
    return {**made, "service_tier": "default", "system_fingerprint": "fp_able"}
