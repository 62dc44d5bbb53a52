"""Responses before an upstream that knows only chat, through the real OpenAI SDK."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from honestproxy.backends.scripted import Scripted
from honestproxy.settings import Settings
from tests.proxy import DOUBT, DRAFT, MERGED, proxy, serving
from tests.responding import Responding, asked_by_chat, deltas, honesty, told
from tests.upstreams import Reply, Seen, answer, chunk, completion, event, events

ASK: dict[str, Any] = {"model": "m", "input": "What does it cost now?"}
TOOL = {"type": "function", "name": "get_quote", "parameters": {}, "strict": False}


@pytest.mark.parametrize("strategy", ["raw", "gated"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_upstream_without_responses_is_asked_by_chat(
    strategy: str, streamed: bool
) -> None:
    above = Responding({"confusion": DOUBT}, knows=False)
    async with proxy(above, strategy=strategy) as on:
        fields: dict[str, Any] = {"instructions": "Be brief.", "metadata": {"a": "b"}}
        if streamed:
            found = await told(on, **ASK, **fields)
            assert found[0].type == "response.created"
            reply = found[-1].response
            assert deltas(found) == reply.output_text
        else:
            reply = await on.client.responses.create(**ASK, **fields)
        chats = asked_by_chat(on)
    assert reply.output_text == (DRAFT if strategy == "raw" else MERGED)
    assert (reply.object, reply.status, reply.store) == ("response", "completed", False)
    assert chats.keys() == ({"draft"} if strategy == "raw" else {"draft", "confusion", "merge"})
    assert not any(body.keys() & {"store", "metadata"} for body in chats.values())
    assert {body["messages"][0]["content"] for body in chats.values()} == {"Be brief."}
    assert not [seen for seen in on.upstream.seen if seen.method == "DELETE"]


async def test_chunks_that_come_at_once_are_translated_each() -> None:
    pieces = [event(chunk("a")), event(chunk("b")), event(chunk(None, "stop"))]
    at_once = events(b"".join(pieces))
    async with proxy(Responding({"draft": at_once}, knows=False), strategy="raw") as on:
        found = await told(on, **ASK)
    assert (deltas(found), found[-1].type) == ("ab", "response.completed")


async def test_that_an_upstream_knows_only_chat_is_remembered() -> None:
    async with proxy(Responding(knows=False), strategy="raw") as on:
        for _ in range(3):
            await on.client.responses.create(**ASK)
        paths = [seen.path.rpartition("/")[2] for seen in on.upstream.seen]
    assert paths == ["responses", "completions", "completions", "completions"]


async def test_a_model_without_responses_leaves_those_that_have_it_as_they_were() -> None:
    both, chats = Responding(), Responding(knows=False)

    def gateway(seen: Seen) -> Reply:
        is_chats = seen.body and seen.json()["model"] == "chats"
        return chats(seen) if is_chats else both(seen)

    async with proxy(gateway, strategy="raw") as on:
        for _ in range(2):
            other = await on.client.responses.create(**ASK | {"model": "chats"})
            reply = await on.client.responses.create(**ASK, previous_response_id="resp_1")
            assert (other.store, reply.id in both.stored) == (False, True)
        asked = [(seen.json()["model"], seen.path) for seen in on.upstream.seen]
    assert asked.count(("chats", "/v1/responses")) == 1


async def test_an_upstream_whose_chat_failed_is_asked_again_for_responses() -> None:
    error = {"message": "The model `m` does not exist", "code": "model_not_found"}
    missing = answer({"error": error}, status=404)
    above = Responding({"draft": missing}, knows=False)
    async with proxy(above, strategy="raw") as on:
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await on.client.responses.create(**ASK)
        above.knows, above.replies = True, {}
        assert (await on.client.responses.create(**ASK)).id in above.stored


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    ],
)
@pytest.mark.parametrize("again", [False, True])
async def test_what_chat_has_no_place_for_is_a_clear_400(
    fields: dict[str, Any], param: str, again: bool
) -> None:
    async with proxy(Responding(knows=False)) as on:
        if again:
            await on.client.responses.create(**ASK)
        with pytest.raises(openai.BadRequestError, match="only chat completions") as caught:
            await on.client.responses.create(**ASK | fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conversation": "conv_x"}, "Conversation with id 'conv_x' not found."),
        ({"conversation": {"id": "conv_x"}}, "No conversation of that id"),
        ({"previous_response_id": "resp_1"}, "Previous response not found"),
        (
            {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
            "Vector store with id [vs_1] not found",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "Item with id 'msg_1' not found."),
    ],
)
@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_what_an_upstream_doesnt_keep_is_its_own_error(
    strategy: str, fields: dict[str, Any], message: str
) -> None:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    above = Responding({"draft": answer({"error": error}, status=404)})
    async with proxy(above, strategy=strategy) as on:
        with pytest.raises(openai.NotFoundError) as caught:
            await on.client.responses.create(**ASK | fields)
        assert not asked_by_chat(on)
    assert caught.value.body == error


@pytest.mark.parametrize(
    "reply",
    [
        {"detail": "Not Found"},
        {"error": "Unexpected endpoint or method. (POST /v1/responses)"},
        {"error": {"message": "Not Found", "type": "NotFoundError", "param": None, "code": 404}},
        {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}},
        {"error": {"message": "Invalid URL (POST /v1/responses)", "param": None, "code": None}},
        {"error": {"message": "The model m-1 has no responses API", "code": "unknown_url"}},
        b"<html><h1>404 Not Found</h1></html>",
        b"",
    ],
)
async def test_however_an_upstream_says_that_it_has_no_responses_it_is_asked_by_chat(
    reply: Any,
) -> None:
    chats = Responding()

    def upstream(seen: Seen) -> Reply:
        return answer(reply, status=404) if "/responses" in seen.path else chats(seen)

    async with proxy(upstream, strategy="raw") as on:
        ask = ASK | {"model": "m-1"}
        with pytest.raises(openai.BadRequestError, match="only chat completions"):
            await on.client.responses.create(**ask, conversation="conv_1")
        assert (await on.client.responses.create(**ask)).output_text == DRAFT


async def test_a_field_that_the_upstream_lets_pass_is_no_trouble_in_the_envelope() -> None:
    async with proxy(Responding(knows=False), strategy="raw") as on:
        reply = await on.client.responses.create(**ASK, extra_body={"service_tier": ["odd"]})
    assert (reply.output_text, reply.service_tier) == (DRAFT, None)


async def test_a_backend_of_ones_own_is_asked_by_chat() -> None:
    said = {"draft": DRAFT, "confusion": DOUBT, "merge": MERGED}

    def reply(request: Any) -> str:
        words = json.dumps(request.messages)
        return said["merge" if "Two notes" in words else _early(words)]

    backend = Scripted(reply)
    async with (
        serving(Settings(), backend) as url,
        AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client,
    ):
        made = await client.responses.create(model="scripted", input=ASK["input"], store=True)
        with pytest.raises(openai.BadRequestError, match="only chat completions"):
            await client.responses.create(model="scripted", input="x", previous_response_id="r")
        stream = await client.responses.create(model="scripted@raw", input="x", stream=True)
        found = [event async for event in stream]
    assert (made.output_text, made.store) == (MERGED, False)
    assert found[-1].response.output_text == DRAFT
    assert all("store" not in request and not request.origin for request in backend.requests)


def _early(words: str) -> str:
    return "confusion" if "o not answer the last message" in words else "draft"


async def test_tools_are_translated_both_ways() -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_quote", "arguments": "{}"},
    }
    choice = {"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}
    draft = answer({**completion(), "choices": [choice]})
    async with proxy(Responding({"draft": draft}, knows=False)) as on:
        reply = await on.client.responses.create(**ASK, tools=[TOOL])
        sent = asked_by_chat(on)["draft"]["tools"]
    assert [(item.type, item.call_id, item.name) for item in reply.output] == [
        ("function_call", "call_1", "get_quote")
    ]
    assert sent[0]["function"]["name"] == "get_quote"
    assert honesty(reply)["reason"] == "tool calls"
