"""Each step's request, back in Responses: only what the step changed differs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from honestproxy import conversation
from honestproxy.types import ChatRequest
from honestproxy.wire.responses import ResponsesRequest, native

USER = {"role": "user", "content": [{"type": "input_text", "text": "Now?"}]}
SCHEMA = {"format": {"type": "json_schema", "name": "n", "schema": {}}, "verbosity": "low"}
EVERYTHING: dict[str, Any] = {
    "model": "m", "instructions": "Be brief.", "input": [USER], "stream": False,
    "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": True}],
    "tool_choice": "auto", "parallel_tool_calls": True, "temperature": 0.9, "top_p": 0.5,
    "reasoning": {"effort": "low", "summary": "auto"}, "text": SCHEMA, "max_output_tokens": 70,
    "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
    "top_logprobs": 2, "metadata": {"a": "b"}, "store": True, "user": "u", "x_note": 1.0,
    "truncation": "auto", "prompt_cache_key": "k",
}  # fmt: skip
OURS = {"type": "input_text", "text": "Why?"}


def asked(**fields: Any) -> ResponsesRequest:
    return ResponsesRequest(json.dumps(fields or EVERYTHING, indent=1).encode())


def chat(request: ResponsesRequest) -> ChatRequest:
    return ChatRequest(request.chat)


def elicited(request: ResponsesRequest) -> dict[str, Any]:
    step = conversation.whole(conversation.elicitation(chat(request), "Why?", 900))
    return json.loads(native(step, request))


def changes(request: ResponsesRequest, body: dict[str, Any]) -> dict[str, Any]:
    """What differs from the client's own, None for what is gone."""
    before = request.dict()
    names = [*before, *(name for name in body if name not in before)]
    pairs = {name: (before.get(name), body.get(name)) for name in names}
    return {name: now for name, (old, now) in pairs.items() if old != now}


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"input": "Hello", "x": 1.0}])
def test_a_draft_goes_up_byte_for_byte(fields: dict[str, Any]) -> None:
    request = asked(**(EVERYTHING | fields))
    step = conversation.draft(chat(request), returned=True)
    shape = conversation.streaming if fields.get("stream") else conversation.whole
    assert native(shape(step), request) == request.raw


@pytest.mark.parametrize("store", [True, None])
def test_a_draft_that_is_never_returned_is_not_stored(store: bool | None) -> None:
    request = asked(**(EVERYTHING | {"store": store}))
    body = json.loads(native(conversation.draft(chat(request), returned=False), request))
    assert changes(request, body) == {"store": False, "metadata": None}


def test_a_client_that_stores_nothing_is_taken_at_its_word() -> None:
    request = asked(model="m", input="Hello", store=False)
    assert native(conversation.draft(chat(request), returned=False), request) == request.raw


def test_an_elicitation_takes_nothing_that_shapes_an_answer() -> None:
    request = asked()
    assert changes(request, elicited(request)) == {
        "input": [{**USER, "content": [*USER["content"], OURS]}],
        "tool_choice": "none", "temperature": 0, "max_output_tokens": 900, "store": False,
        "include": ["reasoning.encrypted_content"],
        **dict.fromkeys(("parallel_tool_calls", "top_p", "top_logprobs", "metadata", "text")),
    }  # fmt: skip


def test_a_merge_keeps_what_shapes_the_answer_and_calls_no_tools() -> None:
    request = asked()
    body = json.loads(native(conversation.rewrite(chat(request), "Why?"), request))
    instructed = [{**USER, "content": [*USER["content"], OURS]}]
    assert changes(request, body) == {"input": instructed, "tool_choice": "none"}


@pytest.mark.parametrize(
    ("given", "items"),
    [
        ("Now?", [USER | {"content": [*USER["content"], OURS]}]),
        ([{"role": "user", "content": "Now?"}], [USER | {"content": [*USER["content"], OURS]}]),
        (
            [{"type": "message", "id": "msg_1", **USER}],
            [{"type": "message", "id": "msg_1", **USER, "content": [*USER["content"], OURS]}],
        ),
        *(
            ([USER, last], [USER, last, {"role": "user", "content": [OURS]}])
            for last in (
                {"role": "assistant", "content": "Yes?"},
                {"role": "developer", "content": "Hurry."},
                {"type": "function_call_output", "call_id": "c", "output": "42"},
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "item_reference", "id": "msg_1"},
            )
        ),
    ],
)
def test_our_words_come_last_in_the_clients_own_items(given: Any, items: Any) -> None:
    assert elicited(asked(model="m", input=given))["input"] == items


def test_items_that_nobody_changed_stay_as_they_were_written() -> None:
    first = b'{"role": "user",   "content": "x", "n": 123456789012345678901234567890}'
    body = b'{"model": "m", "input": [' + first + b', {"role": "user", "content": "Now?"}]}'
    request = ResponsesRequest(body)
    assert first in native(conversation.elicitation(chat(request), "Why?", 9), request)


def test_without_input_our_words_stand_alone() -> None:
    request = asked(model="m", prompt={"id": "pmpt_1"})
    assert elicited(request)["input"] == [{"role": "user", "content": [OURS]}]


@pytest.mark.parametrize("name", ["conversation", "background"])
def test_only_the_clients_own_call_adds_to_what_lasts(name: str) -> None:
    request = asked(model="m", input="Hello", **{name: True})
    assert name not in elicited(request)
    assert native(conversation.draft(chat(request), returned=True), request) == request.raw


def test_a_stream_is_asked_for_without_what_only_a_chat_needs() -> None:
    request = asked(model="m", input="Hello", stream=True)
    step = conversation.streaming(conversation.elicitation(chat(request), "Why?", 9))
    body = json.loads(native(step, request))
    assert body["stream"] is True
    assert "stream_options" not in body
    assert "stream" not in json.loads(native(conversation.whole(step), request))


def test_a_model_named_otherwise_goes_up_under_that_name() -> None:
    request = asked(model="m@gated", input="Hello")
    body = json.loads(native(chat(request).replace(model="m"), request))
    assert changes(request, body) == {"model": "m"}


def test_the_papers_single_message_is_all_there_is() -> None:
    request = asked()
    step = conversation.whole(conversation.single_message(chat(request), "Alone.", answers=False))
    body = json.loads(native(step, request))
    assert body["input"] == [{"role": "user", "content": "Alone."}]
    assert "instructions" not in body
    assert (body["temperature"], body["top_p"], body["max_output_tokens"]) == (0, 1, 2500)
