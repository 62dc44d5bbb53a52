"""What an upstream that speaks Responses says, read as a chat's answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from honestproxy.call import Assembly
from honestproxy.errors import UpstreamBroken, UpstreamError
from honestproxy.types import ChatResponse, Chunk
from honestproxy.wire.responses import EventReader, completion

USAGE = {
    "input_tokens": 5, "input_tokens_details": {"cached_tokens": 3},
    "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 7,
}  # fmt: skip
TEXT = {"type": "output_text", "text": "Paris.", "annotations": []}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "content": [TEXT]}
REFUSED = {**MESSAGE, "content": [{"type": "refusal", "refusal": "No."}]}
CALL = {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
CUSTOM = {"id": "ct_1", "type": "custom_tool_call", "call_id": "c2", "name": "sql", "input": "S"}
REASONING = {
    "id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}],
}  # fmt: skip


def body(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "error": None}
    return {**head, "status": "completed", "output": list(output), "usage": USAGE, **more}


def response(*output: dict[str, Any], **more: Any) -> ChatResponse:
    return completion(json.dumps(body(*output, **more)).encode(), "application/json")


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def read(*events: bytes) -> list[Chunk]:
    reader = EventReader()
    return [chunk for one in events for chunk in reader.feed(one)] + list(reader.end())


def assembled(*events: bytes) -> ChatResponse:
    assembly = Assembly()
    for chunk in read(*events):
        assembly.add(chunk)
    return assembly.response()


CREATED = event("response.created", sequence_number=0, response=body(status="in_progress"))
DONE = event("response.completed", sequence_number=9, response=body(MESSAGE))
DELTAS = [event("response.output_text.delta", delta=text) for text in ("Par", "is.")]
FUNCTION = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ([MESSAGE], {"content": "Paris."}),
        ([MESSAGE, MESSAGE], {"content": "Paris.Paris."}),
        ([REASONING, MESSAGE], {"content": "Paris.", "reasoning_content": "Hm."}),
        ([REFUSED], {"content": None, "refusal": "No."}),
        ([CALL], {"content": None, "tool_calls": [FUNCTION]}),
        (
            [CUSTOM],
            {
                "content": None,
                "tool_calls": [
                    {"id": "c2", "type": "custom", "custom": {"name": "sql", "input": "S"}}
                ],
            },
        ),
        ([{"type": "web_search_call", "id": "ws_1"}, MESSAGE], {"content": "Paris."}),
        ([], {"content": None}),
    ],
)
def test_output_becomes_a_message(output: Any, message: Any) -> None:
    assert response(*output).message == {"role": "assistant", **message}


@pytest.mark.parametrize(
    ("more", "finish_reason"),
    [
        ({}, "stop"),
        ({"status": None}, "stop"),
        ({"output": [CALL]}, "tool_calls"),
        *(
            ({"status": "incomplete", "incomplete_details": {"reason": reason}}, finish_reason)
            for reason, finish_reason in {
                "max_output_tokens": "length",
                "content_filter": "content_filter",
                "something new": "length",
            }.items()
        ),
    ],
)
def test_how_an_answer_ended_becomes_a_finish_reason(more: Any, finish_reason: str) -> None:
    assert response(MESSAGE, **more).finish_reason == finish_reason


def test_usage_has_a_chats_names() -> None:
    assert response(MESSAGE).usage == {
        "prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"error": {"code": "rate_limit_exceeded", "message": "slow down"}}, 429),
        ({"error": {"code": "server_error", "message": "oops"}, "status": "failed"}, 500),
        ({"error": {"code": "invalid_prompt", "message": "no"}, "status": "failed"}, 400),
        ({"error": "oops"}, 502),
        ({"status": "cancelled"}, 502),
    ],
)
def test_a_failed_response_is_an_error(more: Any, status: int) -> None:
    with pytest.raises(UpstreamError) as caught:
        response(**more)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"Hello", b'{"choices": []}', b'{"output": [1]}', b'{"output": "Paris."}']
)
def test_what_is_no_response_is_broken(raw: bytes) -> None:
    with pytest.raises(UpstreamBroken, match="not a response"):
        completion(raw, "application/json")


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([CREATED, *DELTAS, DONE], {"content": "Paris."}),
        ([CREATED, DONE], {"content": "Paris."}),
        ([CREATED, event("response.refusal.delta", delta="No."), DONE], {"refusal": "No."}),
        (
            [
                event("response.output_item.added", output_index=1, item={**CALL, "arguments": ""}),
                event("response.function_call_arguments.delta", output_index=1, delta='{"a"'),
                event("response.function_call_arguments.delta", output_index=1, delta=":1}"),
                event("response.output_item.done", output_index=1, item=CALL),
                event("response.completed", response=body(REASONING, CALL)),
            ],
            {"tool_calls": [FUNCTION]},
        ),
        (
            [
                event("response.output_item.added", output_index=0, item=CALL),
                event("response.output_item.done", output_index=0, item=CALL),
                event("response.completed", response=body(CALL)),
            ],
            {"tool_calls": [FUNCTION]},
        ),
        (
            [
                event("response.output_item.done", output_index=0, item=CALL),
                event("response.completed", response=body(CALL)),
            ],
            {"tool_calls": [FUNCTION]},
        ),
        ([event("response.completed", response=body(CALL))], {"tool_calls": [FUNCTION]}),
    ],
    ids=["text", "text at the end", "refusal", "spelled", "in one piece", "done only", "at once"],
)
def test_events_become_the_same_message(events: list[bytes], message: dict[str, Any]) -> None:
    assert assembled(*events).message == {"role": "assistant", "content": None, **message}


def test_a_custom_tools_input_is_spelled_out() -> None:
    added = event("response.output_item.added", output_index=0, item={**CUSTOM, "input": ""})
    delta = event("response.custom_tool_call_input.delta", output_index=0, delta="S")
    last = event("response.completed", response=body(CUSTOM))
    custom = {"id": "c2", "type": "custom", "custom": {"name": "sql", "input": "S"}}
    assert assembled(added, delta, last).message["tool_calls"] == [custom]


@pytest.mark.parametrize(
    "quiet",
    [
        CREATED,
        event("response.in_progress", response=body()),
        event("response.output_item.added", output_index=0, item=MESSAGE),
        event("response.content_part.added", part=TEXT),
        event("response.output_text.done", text="Paris."),
        event("response.reasoning_summary_text.delta", delta="Hm."),
        event("response.web_search_call.searching", output_index=0),
        event("response.not_invented_yet", thing={"a": 1}),
    ],
)
def test_reasoning_and_bookkeeping_say_nothing_and_are_kept(quiet: bytes) -> None:
    chunk = read(quiet, DONE)[0]
    assert (chunk.delta, chunk.finished, chunk.blank) == ({}, False, False)
    assert chunk.event == quiet


def test_every_byte_is_kept_however_the_network_cuts() -> None:
    stream = b": ping\n\n" + CREATED + b"".join(DELTAS) + DONE + b"data: [DONE]\n\n"
    for size in (1, 7, len(stream)):
        cuts = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert b"".join(chunk.event or b"" for chunk in read(*cuts)) == stream


def test_the_last_event_carries_finish_reason_and_usage() -> None:
    last = read(CREATED, *DELTAS, DONE)[-1]
    assert last.finished
    assert last.usage == response(MESSAGE).usage


def test_a_last_event_without_its_blank_line_counts() -> None:
    assert read(*DELTAS, DONE.rstrip())[-1].finished


def test_a_cut_off_answer_says_so() -> None:
    cut = body(MESSAGE, status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    last = read(*DELTAS, event("response.incomplete", response=cut))[-1]
    assert last.choices[0]["finish_reason"] == "length"


def test_logprobs_come_with_their_text() -> None:
    logprobs = [{"token": "Par", "logprob": -0.1, "top_logprobs": []}]
    delta = event("response.output_text.delta", delta="Par", logprobs=logprobs)
    assert read(delta, DONE)[0].choices[0]["logprobs"] == {"content": logprobs}


FAILED = body(status="failed", error={"code": "server_error", "message": "oops"})


@pytest.mark.parametrize(
    ("last", "status", "message"),
    [
        (event("response.failed", response=FAILED), 500, "oops"),
        (event("error", code="rate_limit_exceeded", message="slow", param=None), 429, "slow"),
        (event("error", error={"code": "x", "message": "odd"}), 502, "odd"),
        (b'data: {"error": {"message": "chat-shaped"}}\n\n', 502, "chat-shaped"),
        (b'event: error\ndata: {"message": "unnamed"}\n\n', 502, "unnamed"),
    ],
)
def test_an_error_in_the_stream_is_raised(last: bytes, status: int, message: str) -> None:
    with pytest.raises(UpstreamError, match=message) as caught:
        read(CREATED, *DELTAS, last)
    assert caught.value.status == status
    assert caught.value.body()["error"]["message"] == message


@pytest.mark.parametrize(
    "events",
    [
        [],
        [CREATED],
        [CREATED, *DELTAS],
        [CREATED, b"data: [DONE]\n\n"],
        [b"data: Hello\n\n"],
        [event("response.output_item.added", item="Paris."), DONE],
        [event("response.completed", response=["Paris."])],
        [event("response.completed")],
    ],
)
def test_a_stream_without_its_end_is_broken(events: list[bytes]) -> None:
    with pytest.raises(UpstreamBroken):
        read(*events)
