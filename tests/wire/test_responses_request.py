"""A Responses request, read: what a chat makes of it, what passes through, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from honestproxy.errors import InvalidRequest
from honestproxy.types import ChatRequest
from honestproxy.wire.responses import (
    ResponsesRequest,
    check,
)

USER = {"role": "user", "content": "Hello"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "id": "fc_1"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "42"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}


def asked(**fields: Any) -> ResponsesRequest:
    return ResponsesRequest(json.dumps({"model": "m", "input": "Hello", **fields}).encode())


def said(text: str, kind: str = "output_text") -> dict[str, Any]:
    part = {"type": kind, ("refusal" if kind == "refusal" else "text"): text}
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}


def tool_call(**more: Any) -> dict[str, Any]:
    made = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [made], **more}


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ("Hello", [USER]),
        ([USER], [USER]),
        ([{"type": "message", **USER, "status": "completed"}], [USER]),
        ([{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}], [USER]),
        (
            [{"role": "developer", "content": "Brief."}],
            [{"role": "developer", "content": "Brief."}],
        ),
        ([said("Hi.")], [{"role": "assistant", "content": "Hi."}]),
        ([said("No.", "refusal")], [{"role": "assistant", "content": None, "refusal": "No."}]),
        ([CALL, RESULT], [tool_call(), {"role": "tool", "tool_call_id": "c1", "content": "42"}]),
        ([said("Wait."), CALL], [tool_call(content="Wait.")]),
        ([REASONING, CALL, REASONING], [tool_call()]),
        (
            [{**RESULT, "output": [{"type": "input_text", "text": "42"}]}],
            [{"role": "tool", "tool_call_id": "c1", "content": "42"}],
        ),
    ],
)
def test_input_becomes_the_messages_of_a_chat(given: Any, messages: Any) -> None:
    assert asked(input=given).chat["messages"] == messages


def test_calls_at_once_become_one_message() -> None:
    both = asked(input=[CALL, {**CALL, "call_id": "c2"}, RESULT]).chat["messages"]
    assert [call["id"] for call in both[0]["tool_calls"]] == ["c1", "c2"]
    assert [message["role"] for message in both] == ["assistant", "tool"]


def test_a_custom_tools_call_and_result_become_a_chats() -> None:
    call = {"type": "custom_tool_call", "call_id": "c1", "name": "sql", "input": "SELECT 1"}
    result = {"type": "custom_tool_call_output", "call_id": "c1", "output": "1"}
    first, second = asked(input=[call, result]).chat["messages"]
    custom = {"name": "sql", "input": "SELECT 1"}
    assert first["tool_calls"] == [{"id": "c1", "type": "custom", "custom": custom}]
    assert second == {"role": "tool", "tool_call_id": "c1", "content": "1"}


@pytest.mark.parametrize(
    ("part", "chat_part"),
    [
        (
            {"type": "input_image", "image_url": "https://x/i.png", "detail": "low"},
            {"type": "image_url", "image_url": {"url": "https://x/i.png", "detail": "low"}},
        ),
        (
            {"type": "input_image", "image_url": "data:,", "detail": "original"},
            {"type": "image_url", "image_url": {"url": "data:,", "detail": "high"}},
        ),
        (
            {"type": "input_file", "file_data": "AA==", "filename": "a.pdf"},
            {"type": "file", "file": {"file_data": "AA==", "filename": "a.pdf"}},
        ),
        ({"type": "input_file", "file_id": "f1"}, {"type": "file", "file": {"file_id": "f1"}}),
        (
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        ),
    ],
)
def test_attachments_become_the_parts_of_a_chat(part: Any, chat_part: Any) -> None:
    content = [{"type": "input_text", "text": "What is this?"}, part]
    request = asked(input=[{"role": "user", "content": content}])
    expected = [{"type": "text", "text": "What is this?"}, chat_part]
    assert request.chat["messages"] == [{"role": "user", "content": expected}]
    check(request)
    request.check_chat()


def test_instructions_come_first() -> None:
    messages = asked(instructions="Be brief.").chat["messages"]
    assert messages == [{"role": "system", "content": "Be brief."}, USER]


@pytest.mark.parametrize(
    ("fields", "chat"),
    [
        ({"max_output_tokens": 70}, {"max_completion_tokens": 70}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"text": {"verbosity": "low", "format": {"type": "text"}}}, {"verbosity": "low"}),
        (
            {"text": {"format": {"type": "json_object"}}},
            {"response_format": {"type": "json_object"}},
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {}},
                }
            },
        ),
        ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        ({"include": ["reasoning.encrypted_content"]}, {}),
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"metadata": {"a": "b"}, "user": None}, {"metadata": {"a": "b"}}),
        ({"safety_identifier": "s", "service_tier": "flex"}, {"safety_identifier": "s"}),
        ({"prompt_cache_key": "k", "top_k": 4}, {"prompt_cache_key": "k", "top_k": 4}),
        ({"store": False}, {"store": False}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"truncation": "auto", "parallel_tool_calls": True, "tools": []}, {}),
    ],
)
def test_parameters_keep_what_they_mean(fields: dict[str, Any], chat: dict[str, Any]) -> None:
    made = chat_fields(asked(**fields))
    assert chat.items() <= made.items()
    if "service_tier" not in fields:
        assert made.keys() == {"model", "messages", "store", *chat}


def chat_fields(request: ResponsesRequest) -> dict[str, Any]:
    return ChatRequest(request.chat).dict()


def test_a_silent_client_means_that_its_answer_is_stored() -> None:
    assert asked().chat["store"] is True


@pytest.mark.parametrize(
    ("choice", "chat_choice"),
    [
        ("required", "required"),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "f"}}],
                },
            },
        ),
    ],
)
def test_tools_and_their_choice_become_a_chats(choice: Any, chat_choice: Any) -> None:
    chat = asked(tools=[FUNCTION], tool_choice=choice, parallel_tool_calls=False).chat
    function = {name: value for name, value in FUNCTION.items() if name != "type"}
    assert chat["tools"] == [{"type": "function", "function": function}]
    assert (chat["tool_choice"], chat["parallel_tool_calls"]) == (chat_choice, False)


def test_a_custom_tools_grammar_becomes_a_chats() -> None:
    grammar = {"type": "grammar", "syntax": "regex", "definition": "a+"}
    chat = asked(tools=[{"type": "custom", "name": "g", "format": grammar}]).chat
    inner = {"syntax": "regex", "definition": "a+"}
    custom = {"name": "g", "format": {"type": "grammar", "grammar": inner}}
    assert chat["tools"] == [{"type": "custom", "custom": custom}]


def test_odd_numbers_of_unknown_fields_stay_as_they_were_written() -> None:
    body = b'{"model": "m", "input": "x", "x_note": 1e400, "y": 123456789012345678901234567890}'
    chat = ResponsesRequest(body).chat
    assert (bytes(chat["x_note"]), bytes(chat["y"])) == (b"1e400", body[-31:-1])


STATEFUL = [
    ({"previous_response_id": "resp_1"}, "previous_response_id", "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation", "conversation"),
    ({"background": True}, "background", "background"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt", "prompt"),
    ({"tools": [{"type": "web_search"}]}, "built-in tools (web_search)", "tools[0]"),
    ({"tools": [FUNCTION, {"type": "mcp"}]}, "built-in tools (mcp)", "tools[1]"),
    ({"input": [USER, {"id": "msg_1"}]}, "item_reference", "input[1]"),
    ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "compaction", "input[0]"),
]


@pytest.mark.parametrize(("fields", "reason", "param"), STATEFUL)
def test_what_needs_the_upstreams_own_state_passes_through(
    fields: dict[str, Any], reason: str, param: str
) -> None:
    check(asked(**fields))
    assert asked(**fields).rule == reason


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        *((fields, param) for fields, _, param in STATEFUL),
        ({"tools": [FUNCTION], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"n": 2}, "n"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0]",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}]},
            "input[0].content[0]",
        ),
        (
            {"input": [{**RESULT, "output": [{"type": "input_video"}]}]},
            "input[0].output[0]",
        ),
    ],
)
def test_an_upstream_that_knows_only_chat_gets_a_clear_400(
    fields: dict[str, Any], param: str
) -> None:
    check(asked(**fields))
    with pytest.raises(InvalidRequest, match="only chat completions") as caught:
        asked(**fields).check_chat()
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"background": False, "previous_response_id": None, "conversation": None},
        {"tools": [FUNCTION], "input": [USER, REASONING, CALL, RESULT], "store": True},
        {"include": ["reasoning.encrypted_content"], "truncation": "auto"},
    ],
)
def test_a_plain_request_is_neither_passed_through_nor_refused(fields: dict[str, Any]) -> None:
    check(asked(**fields))
    asked(**fields).check_chat()
    assert asked(**fields).rule is None


@pytest.mark.parametrize("name", ["conversation", "background"])
def test_what_every_call_adds_to_is_told_apart(name: str) -> None:
    assert asked(**{name: "conv_1" if name == "conversation" else True}).is_lasting
    assert not asked(previous_response_id="resp_1").is_lasting


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": {"role": "user"}}, "input"),
        ({"input": ["Hello"]}, "input[0]"),
        ({"input": [{}]}, "input[0]"),
        ({"input": [{"type": 3}]}, "input[0].type"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [USER, {"role": "user"}]}, "input[1].content"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content"),
        ({"input": [{**CALL, "call_id": None}]}, "input[0].call_id"),
        ({"input": [{**CALL, "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"stream": "yes"}, "stream"),
        ({"model": 3}, "model"),
        ({"instructions": ["x"]}, "instructions"),
        ({"tools": {}}, "tools"),
        ({"tools": ["f"]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name"),
        ({"tool_choice": 1}, "tool_choice"),
        ({"text": "json"}, "text"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"reasoning": "low"}, "reasoning"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"include": "all"}, "include"),
        ({"store": "no"}, "store"),
    ],
)
def test_bad_input_names_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(asked(**fields))
    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_chats_messages_are_told_where_they_belong() -> None:
    with pytest.raises(InvalidRequest, match="/v1/chat/completions"):
        check(ResponsesRequest(json.dumps({"model": "m", "messages": [USER]}).encode()))


def test_input_may_be_missing_where_the_upstream_holds_it() -> None:
    body = {"model": "m", "prompt": {"id": "pmpt_1"}}
    request = ResponsesRequest(json.dumps(body).encode())
    check(request)
    assert request.chat["messages"]
