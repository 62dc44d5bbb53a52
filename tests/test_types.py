"""JSON that nobody changed comes out as it went in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honestproxy.trace import Honesty, Step, Trace
from honestproxy.types import ChatRequest, ChatResponse, Chunk, Doubt, Doubts, Usage, read, write

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ODD = [b"1.0", b"1e400", b"9" * 30, b'"\\ud800"', b'"\\u00e9"', b"[ 1 , 2]", b'{"a":1,"a":2}']


@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_a_request_keeps_its_bytes_and_its_values(body: dict[str, Any]) -> None:
    for ascii_only in (True, False):
        raw = json.dumps(body, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        request = ChatRequest(raw)
        assert request.raw == raw
        changed = request.replace(ours=1)
        assert {**json.loads(raw), "ours": 1} == json.loads(changed.raw)


@pytest.mark.parametrize("value", ODD)
def test_odd_values_stay_as_they_came_when_others_change(value: bytes) -> None:
    request = ChatRequest(b'{"odd": ' + value + b' , "model":"m"}')
    assert value in request.replace(model="n").raw
    assert request.model == "m"


def test_messages_nobody_touches_keep_their_bytes() -> None:
    first = b'{"role":"user", "content":"\\u00e9", "x":1.0}'
    request = ChatRequest(b'{"messages":[' + first + b', {"role":"user","content":"b"}]}')
    messages = [*request.items("messages")[:-1], {"role": "user", "content": "c"}]
    assert first in request.replace(messages=messages).raw


def test_messages_that_stayed_bytes_are_read_where_someone_reads_them() -> None:
    """A local model reads what an upstream would get as bytes."""
    asked = ChatRequest(
        b'{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}'
    )
    mixed = [*asked.items("messages"), {"role": "assistant", "content": "c"}]
    request = asked.replace(messages=mixed)
    assert [message["content"] for message in request.messages] == ["a", "b", "c"]
    assert request.dict()["messages"] == request.messages


def test_lone_surrogates_can_be_read_and_written() -> None:
    request = ChatRequest(b'{"messages":[{"role":"user","content":"\\ud800"}]}')
    assert request.messages[0]["content"] == "\ud800"
    assert read(write({"text": "\ud800"})) == {"text": "\ud800"}


@pytest.mark.parametrize("raw", [b"", b"[]", b"nul", b'{"a":}', b'{"a":1', b"3"])
def test_what_is_no_object_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json, msgspec and ours differ in words
        _ = ChatRequest(raw).fields


def test_usage_adds_every_number_nested_ones_too() -> None:
    one = Usage(
        {"total_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 1}, "x": None}
    )
    two = {"total_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 2}, "y": 5}
    assert one + two == {
        "total_tokens": 7,
        "completion_tokens_details": {"reasoning_tokens": 3},
        "x": None,
        "y": 5,
    }
    assert one["completion_tokens_details"] == {"reasoning_tokens": 1}


def test_usages_that_differ_in_shape_are_added_as_far_as_they_can_be() -> None:
    odd = {"total_tokens": 4, "prompt_tokens_details": "none"}
    shaped = {"total_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}
    assert Usage(odd) + shaped == {"total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 1}}
    assert Usage(shaped) + odd == {"total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 1}}


def test_a_response_in_pieces_says_the_same() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "Hi", "tool_calls": [call], "reasoning_content": "r"}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    response = ChatResponse({"id": "1", "choices": [choice], "usage": {"total_tokens": 2}})
    opened, closed, counted = response.chunks()
    assert opened.delta == {**message, "tool_calls": [{"index": 0, **call}]}
    assert closed.finished
    assert counted.usage == {"total_tokens": 2}


def test_a_blank_chunk_only_says_accepted() -> None:
    assert Chunk({"choices": []}).blank
    assert not Chunk({"choices": [], "usage": {}}).blank
    assert not Chunk.of("x").blank


def test_honesty_tells_unknown_from_none() -> None:
    trace = Trace("gated", steps=[Step("draft", ChatRequest({}), usage=Usage(total_tokens=2))])
    assert Honesty(trace).body()["doubts"] is None
    found = Honesty(trace, "draft_kept", "no doubt", Doubts((), 0.9)).body()
    assert (found["doubts"], found["confidence"]) == ([], 0.9)
    listed = Honesty(trace, doubts=Doubts((Doubt("user_input", "?"),))).body()
    assert listed["doubts"] == [{"kind": "user_input", "statement": "?"}]
    assert listed["steps"] == [{"name": "draft", "seconds": None, "usage": {"total_tokens": 2}}]
