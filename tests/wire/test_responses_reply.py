"""Our answers as Responses: valid by the SDK's own types, and as its helpers put them together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import APIError, OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from honestproxy.errors import InvalidRequest, UpstreamBroken, UpstreamError
from honestproxy.types import ChatResponse, Chunk
from honestproxy.wire.responses import (
    EventReader,
    ResponsesRequest,
    ResponsesWriter,
    completion,
)

EVENT = TypeAdapter(ResponseStreamEvent)
ASKED: dict[str, Any] = {
    "model": "m", "input": "Hello", "instructions": "Be brief.", "temperature": 0.5, "top_p": 0.9,
    "max_output_tokens": 70, "metadata": {"a": "b"}, "parallel_tool_calls": False, "user": "u",
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    "tool_choice": {"type": "function", "name": "f"}, "store": True, "service_tier": "flex",
    "reasoning": {"effort": "low"}, "text": {"verbosity": "low"}, "truncation": "auto",
    "top_logprobs": 2, "max_tool_calls": 3, "prompt_cache_key": "k", "safety_identifier": "s",
}  # fmt: skip
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
HONESTY = {"outcome": "rewritten", "steps": [{"name": "draft", "usage": USAGE}]}
FULL_USAGE = {
    "input_tokens": 5, "output_tokens": 2, "total_tokens": 7,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}  # fmt: skip
OURS = {"store", "honesty"}
"""Fields that the SDK's types don't list: one the API has, and one of ours."""


def delta(finish_reason: str | None = None, logprobs: Any = None, **news: Any) -> Chunk:
    choice = {"index": 0, "delta": news, "finish_reason": finish_reason, "logprobs": logprobs}
    return Chunk({"id": "chatcmpl-1", "created": 1, "model": "m-1", "choices": [choice]})


def end(finish_reason: str = "stop", **more: Any) -> list[Chunk]:
    last = delta(finish_reason).replace(honesty=HONESTY, **more)
    return [last, last.replace(choices=[], usage=USAGE)]


def spelled(index: int, text: str, **first: Any) -> Chunk:
    function = {"arguments": text, **({"name": first["name"]} if first else {})}
    named = {"id": first["id"], "type": "function"} if first else {}
    return delta(tool_calls=[{"index": index, **named, "function": function}])


TOP = {"token": "Lyon", "logprob": -3.5, "bytes": None}
LOGPROB = {"token": "Par", "logprob": -0.1, "bytes": [80], "top_logprobs": [TOP]}
ANSWERS = {
    "text": [delta(role="assistant", content=""), delta(content="Par"), delta(content="is.")],
    "logprobs": [delta(content="Par", logprobs={"content": [LOGPROB]})],
    "refusal": [delta(refusal="N"), delta(refusal="o.")],
    "text and refusal": [delta(content="Well."), delta(refusal="No.")],
    "reasoning": [delta(reasoning_content="H"), delta(reasoning="m."), delta(content="Paris.")],
    "calls": [
        delta(content="Wait."),
        spelled(0, "", id="c1", name="f"),
        spelled(1, '{"b"', id="c2", name="g"),
        spelled(0, '{"a":1}'),
        spelled(1, ":2}"),
    ],
    "custom": [
        delta(
            tool_calls=[
                {"index": 0, "id": "c", "type": "custom", "custom": {"name": "s", "input": "S"}}
            ]
        ),
        delta(tool_calls=[{"index": 0, "custom": {"input": "QL"}}]),
    ],
    "nothing": [delta(content="")],
}
WHOLES = {
    "text": {"content": "Paris."},
    "refusal": {"content": None, "refusal": "No."},
    "reasoning": {"reasoning_content": "Hm.", "content": "Paris."},
    "calls": {
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "c2", "type": "custom", "custom": {"name": "s", "input": "SQL"}},
        ],
    },
}


def writer(**fields: Any) -> ResponsesWriter:
    return ResponsesWriter(ResponsesRequest({**ASKED, **fields}))


def written(chunks: list[Chunk], into: ResponsesWriter | None = None) -> bytes:
    into = into or writer()
    return b"".join(into.events(chunk) for chunk in chunks) + into.end()


def events(raw: bytes) -> list[dict[str, Any]]:
    found = []
    for event in raw.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def valid(value: Any, kind: TypeAdapter[Any] = EVENT) -> Any:
    """The value as the SDK's own type, which it must fit strictly, down to its every field."""
    model = kind.validate_python(value, strict=True)
    assert set(_unlisted(model)) <= OURS
    return model


def _unlisted(value: Any) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from value.model_extra or {}
        for name in type(value).model_fields:
            yield from _unlisted(getattr(value, name))
    for item in value if isinstance(value, list) else []:
        yield from _unlisted(item)


@pytest.mark.parametrize("name", ANSWERS)
def test_each_event_is_one_of_the_sdks(name: str) -> None:
    told = events(written([*ANSWERS[name], *end()]))
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    kinds = {type(valid(event)).__name__ for event in told}
    assert {"ResponseCreatedEvent", "ResponseInProgressEvent", "ResponseCompletedEvent"} <= kinds


@pytest.mark.parametrize("name", WHOLES)
def test_a_whole_answer_is_the_sdks_response(name: str) -> None:
    choice = {"index": 0, "message": {"role": "assistant", **WHOLES[name]}, "finish_reason": "stop"}
    answer = ChatResponse({"model": "m-1", "choices": [choice], "usage": USAGE, "honesty": HONESTY})
    body = json.loads(writer().whole(answer))
    response = valid(body, TypeAdapter(Response))
    assert (response.status, response.model, response.object) == ("completed", "m-1", "response")
    assert body["usage"] == FULL_USAGE
    assert body["honesty"]["steps"][0]["usage"] == FULL_USAGE


def test_a_response_repeats_what_was_asked_and_stores_nothing() -> None:
    body = json.loads(writer().whole(ChatResponse.of("Paris.")))
    same = ASKED.keys() - {"input", "model", "store", "truncation", "tools", "text", "reasoning"}
    assert {name: body[name] for name in same} == {name: ASKED[name] for name in same}
    assert body["tools"][0].items() >= ASKED["tools"][0].items()
    assert body["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert body["reasoning"] == {"effort": "low", "summary": None}
    fixed = {name: body[name] for name in ("store", "truncation", "error", "previous_response_id")}
    none = {"error": None, "previous_response_id": None}
    assert fixed == {"store": False, "truncation": "disabled", **none}


def test_a_plain_request_gets_the_apis_own_defaults() -> None:
    asked = ResponsesRequest({"model": "m", "input": "Hello"})
    body = json.loads(ResponsesWriter(asked).whole(ChatResponse.of("Paris.")))
    valid(body, TypeAdapter(Response))
    assert (body["tools"], body["tool_choice"], body["metadata"]) == ([], "auto", {})


def test_text_is_told_in_the_order_of_the_api() -> None:
    told = events(written([*ANSWERS["text"], *end()]))
    assert [event["type"].removeprefix("response.") for event in told] == [
        "created", "in_progress", "output_item.added", "content_part.added",
        "output_text.delta", "output_text.delta", "output_text.done", "content_part.done",
        "output_item.done", "completed",
    ]  # fmt: skip
    assert told[6]["text"] == "Paris."
    assert told[-1]["response"]["output"] == [told[-2]["item"]]
    assert {event["item_id"] for event in told if "item_id" in event} == {told[2]["item"]["id"]}


def test_logprobs_come_with_each_delta_and_with_the_part() -> None:
    told = events(written([*ANSWERS["logprobs"], *end()]))
    plain = {"token": "Par", "logprob": -0.1, "top_logprobs": [{"token": "Lyon", "logprob": -3.5}]}
    assert [event["logprobs"] for event in told if "logprobs" in event] == [[plain], [plain]]
    part = told[-1]["response"]["output"][0]["content"][0]
    assert part["logprobs"] == [{**LOGPROB, "top_logprobs": [{**TOP, "bytes": []}]}]


def test_calls_that_are_spelled_at_once_stay_apart() -> None:
    output = events(written([*ANSWERS["calls"], *end("tool_calls")]))[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    calls = [(item["call_id"], item["name"], item["arguments"]) for item in output[1:]]
    assert calls == [("c1", "f", '{"a":1}'), ("c2", "g", '{"b":2}')]


@pytest.mark.parametrize(
    ("finish_reason", "reason"),
    [("length", "max_output_tokens"), ("content_filter", "content_filter")],
)
def test_a_cut_off_answer_is_incomplete(finish_reason: str, reason: str) -> None:
    last = events(written([*ANSWERS["text"], *end(finish_reason)]))[-1]
    valid(last)
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": reason}
    assert last["response"]["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize(("tier", "told"), [("priority", "priority"), ("on_demand", "flex")])
def test_only_tiers_that_the_api_knows_are_told(tier: str, told: str) -> None:
    last = events(written([*ANSWERS["text"], *end(service_tier=tier)]))[-1]
    assert last["response"]["service_tier"] == told


def test_honesty_and_usage_ride_on_the_last_event() -> None:
    told = events(written([*ANSWERS["text"], *end()]))
    assert [event for event in told if "honesty" in json.dumps(event)] == told[-1:]
    assert told[-1]["response"]["honesty"]["outcome"] == "rewritten"
    assert told[-1]["response"]["usage"] == FULL_USAGE


def test_a_chats_own_events_never_reach_a_client_of_responses() -> None:
    raw = [Chunk(chunk.raw, event=b"data: chat\n\n") for chunk in [*ANSWERS["text"], *end()]]
    done = Chunk({"choices": []}, event=b"data: [DONE]\n\n")
    out = written([Chunk({"choices": []}, event=b""), *raw, done])
    assert b"chat\n" not in out
    assert b"[DONE]" not in out
    assert events(out)[-1]["type"] == "response.completed"


def test_an_answer_that_never_ended_is_not_passed_off_as_complete() -> None:
    with pytest.raises(UpstreamBroken):
        written(ANSWERS["text"])


# A native answer: the upstream's own bytes.
TEXT = {"type": "output_text", "text": "Paris.", "annotations": []}
OWN = {
    "id": "resp_own", "object": "response", "created_at": 1, "model": "m-1", "status": "completed",
    "output": [{"id": "msg_1", "type": "message", "role": "assistant", "content": [TEXT]}],
    "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}, "x_note": 1.0,
}  # fmt: skip
OWN_BODY = json.dumps(OWN, indent=1).encode()


def own_event(kind: str, number: int, **fields: Any) -> bytes:
    told = {"type": kind, "sequence_number": number, **fields}
    return f"event: {kind}\ndata: {json.dumps(told)}\n\n".encode()


OWN_EVENTS = [
    own_event("response.created", 0, response={**OWN, "status": "in_progress", "output": []}),
    own_event("response.output_text.delta", 1, delta="Paris."),
    own_event("response.completed", 2, response=OWN),
]


def own_chunks() -> list[Chunk]:
    reader = EventReader()
    read = [chunk for event in OWN_EVENTS for chunk in reader.feed(event)]
    return [*read, *reader.end()]


def test_an_upstreams_own_answer_goes_out_as_it_came() -> None:
    assert writer().whole(completion(OWN_BODY, "application/json")) == OWN_BODY
    assert written(own_chunks()) == b"".join(OWN_EVENTS)


def test_an_upstreams_own_answer_is_given_honesty_and_the_turns_usage() -> None:
    answer = completion(OWN_BODY, "application/json").replace(usage=USAGE, honesty=HONESTY)
    body = json.loads(writer().whole(answer))
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    assert body["usage"].items() >= usage.items()
    assert {n: v for n, v in body.items() if n not in ("usage", "honesty")} == {
        name: value for name, value in OWN.items() if name != "usage"
    }
    assert body["honesty"]["outcome"] == "rewritten"


def test_only_the_last_of_an_upstreams_own_events_is_written_anew() -> None:
    *first, last = own_chunks()
    labelled = last.replace({"usage"}).replace(honesty=HONESTY)
    total = labelled.replace(choices=[], usage={**USAGE, "total_tokens": 21})
    out = written([*first, labelled, total])
    assert out.startswith(b"".join(OWN_EVENTS[:-1]))
    told = events(out)[-1]
    assert (told["type"], told["sequence_number"]) == ("response.completed", 2)
    assert told["response"]["usage"]["total_tokens"] == 21
    assert told["response"]["honesty"]["outcome"] == "rewritten"
    same = OWN.keys() - {"usage"}
    assert {name: told["response"][name] for name in same} == {name: OWN[name] for name in same}


def test_a_text_that_replaced_the_upstreams_own_is_what_the_client_gets() -> None:
    answer = completion(OWN_BODY, "application/json")
    choice = {**answer.choice, "message": {"role": "assistant", "content": "Shorter."}}
    body = json.loads(writer().whole(answer.replace(choices=[choice])))
    assert body["output"][0]["content"][0]["text"] == "Shorter."
    assert body["id"] != OWN["id"]


def test_deltas_that_replaced_the_upstreams_own_are_told_in_events_of_ours() -> None:
    shown = [chunk.replace(choices=chunk.get("choices")) for chunk in own_chunks()]
    told = events(written(shown))
    for event in told:
        valid(event)
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "Paris."


# As the SDK reads them.
def sdk(body: bytes, kind: str = "text/event-stream") -> OpenAI:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=body, headers={"content-type": kind})

    http = httpx.Client(transport=httpx.MockTransport(answer))
    return OpenAI(base_url="http://x/v1", api_key="k", max_retries=0, http_client=http)


@pytest.mark.parametrize("name", ["text", "logprobs", "reasoning", "calls", "custom"])
def test_the_sdks_stream_helper_puts_the_answer_together(name: str) -> None:
    raw = written([*ANSWERS[name], *end()])
    with sdk(raw) as client, client.responses.stream(model="m", input="Hello") as stream:
        deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.output_text == "".join(deltas)
    assert final.model_extra is not None
    assert final.model_extra["honesty"]["outcome"] == "rewritten"
    assert final.usage is not None
    assert final.usage.total_tokens == 7


def test_the_sdk_parses_a_whole_answer_into_a_type() -> None:
    class City(BaseModel):
        name: str

    body = writer().whole(ChatResponse.of('{"name": "Paris"}'))
    with sdk(body, "application/json") as client:
        parsed = client.responses.parse(model="m", input="Hello", text_format=City)
    assert parsed.output_parsed == City(name="Paris")


@pytest.mark.parametrize(
    "error",
    [
        UpstreamBroken("broke off"),
        InvalidRequest("no", param="input"),
        UpstreamError("x", upstream={"error": {"message": "broke off", "code": "server_error"}}),
    ],
)
@pytest.mark.parametrize("begun", [True, False])
def test_the_sdk_raises_an_error_after_the_first_byte(
    error: InvalidRequest | UpstreamError, begun: bool
) -> None:
    into = writer()
    told = b"".join(into.events(chunk) for chunk in ANSWERS["text"]) if begun else b""
    failed = into.error(error)
    last = events(failed)[0]
    assert valid({n: v for n, v in last.items() if n != "error"}).message == last["message"]
    with (
        sdk(told + failed) as client,
        pytest.raises(APIError, match=last["message"]),
        client.responses.stream(model="m", input="Hello") as stream,
    ):
        stream.until_done()


def test_an_error_goes_on_with_the_upstreams_own_numbers() -> None:
    into = writer()
    for chunk in own_chunks()[:2]:
        into.events(chunk)
    assert events(into.error(UpstreamBroken("x")))[0]["sequence_number"] == 2
