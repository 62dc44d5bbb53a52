"""Responses through the real OpenAI SDK: before an upstream that knows them, and one of chat."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.able import responses
from tests.able.mind import REFUSED, Said
from tests.proxy import DOUBT, DRAFT, MERGED, NO_DOUBT, Proxy, proxy
from tests.responding import Responding, asked, called, deltas, honesty, told, typed
from tests.upstreams import Reply, Seen, answer

QUESTION = "What does it cost now?"
ASK: dict[str, Any] = {"model": "m", "input": QUESTION}
TOOL = {
    "type": "function",
    "name": "get_quote",
    "parameters": {"type": "object", "properties": {"symbol": {"type": "string"}}},
    "strict": False,
}
LIMITED = answer(
    {"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}},
    status=429,
    headers={"Retry-After": "7"},
)


async def posted(on: Proxy, body: Any, **headers: str) -> tuple[int, bytes, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **headers}
    async with on.session.post(f"{on.url}/responses", data=raw, headers=sent) as got:
        return got.status, await got.read(), got.headers


async def test_a_draft_without_doubt_is_kept_and_its_id_resolves() -> None:
    async with proxy(Responding()) as on:
        reply = await on.client.responses.create(**ASK)
        again = await on.client.responses.retrieve(reply.id)
        bodies = asked(on)
    assert reply.output_text == again.output_text == DRAFT
    assert (honesty(reply)["outcome"], honesty(reply)["calls"]) == ("draft_kept", 2)
    assert bodies["draft"] == ASK
    assert bodies["confusion"]["store"] is False


async def test_doubt_leads_to_a_merge_whose_id_resolves_and_to_one_usage_for_all_calls() -> None:
    async with proxy(Responding({"confusion": DOUBT})) as on:
        reply = await on.client.responses.create(**ASK)
        assert (await on.client.responses.retrieve(reply.id)).output_text == MERGED
    found = honesty(reply)
    assert reply.output_text == MERGED
    assert (found["outcome"], found["reason"]) == ("rewritten", "1 doubt")
    spent = [step["usage"]["total_tokens"] for step in found["steps"]]
    assert reply.usage.total_tokens == sum(spent)
    assert reply.usage.input_tokens == 15


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_draft_that_was_stored_in_vain_is_deleted(streamed: bool) -> None:
    above = Responding({"confusion": DOUBT})
    async with proxy(above) as on:
        await posted(on, ASK | {"stream": streamed}, Authorization="Bearer mine")
    # The proxy has ended: what it still had to delete is deleted.
    [deleted] = [seen for seen in on.upstream.seen if seen.method == "DELETE"]
    assert deleted.headers["Authorization"] == "Bearer mine"
    assert [made["output"][0]["content"][0]["text"] for made in above.stored.values()] == [MERGED]


@pytest.mark.parametrize("asking", [{"store": False}, {"input": "x"}])
async def test_nothing_is_deleted_that_isnt_stored_or_is_the_answer(asking: dict[str, Any]) -> None:
    replies = {"confusion": DOUBT} if "store" in asking else {}
    async with proxy(Responding(replies)) as on:
        await on.client.responses.create(**ASK | asking)
    assert not [seen for seen in on.upstream.seen if seen.method == "DELETE"]


async def test_a_deletion_that_fails_is_logged_and_nobodys_trouble(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stubborn(Responding):
        def _kept(self, method: str, name: str) -> Reply:
            return answer({"error": {"message": "no"}}, status=500)

    async with proxy(Stubborn({"confusion": DOUBT})) as on:
        reply = await on.client.responses.create(**ASK)
    assert reply.output_text == MERGED
    assert ["still stored upstream" in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("says", [False, None])
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_upstream_that_stores_nothing_is_not_complained_of(
    says: bool | None, streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    draft = responses.whole(ASK, Said(DRAFT), 1) | {"store": says}
    reply = answer(draft)
    if streamed:
        reply = typed({"type": "response.completed", "sequence_number": 0, "response": draft})
    async with proxy(Responding({"draft": reply, "confusion": DOUBT})) as on:
        await posted(on, ASK | {"stream": streamed})
    deleted = [seen for seen in on.upstream.seen if seen.method == "DELETE"]
    assert (len(deleted), caplog.records) == (0 if says is False else 1, [])


async def test_a_merge_that_fails_gives_the_stored_draft() -> None:
    down = answer({"error": {"message": "overloaded"}}, status=503)
    async with proxy(Responding({"confusion": DOUBT, "merge": down})) as on:
        reply = await on.client.responses.create(**ASK)
        assert (await on.client.responses.retrieve(reply.id)).output_text == DRAFT
    assert honesty(reply)["outcome"] == "draft_fallback"
    assert not [seen for seen in on.upstream.seen if seen.method == "DELETE"]


@pytest.mark.parametrize(
    ("strategy", "stored"),
    [("raw", "draft"), ("curiosity", "merge"), ("gated", "merge"), ("critique", "edit")],
)
async def test_only_the_answer_that_is_returned_stays_stored(strategy: str, stored: str) -> None:
    above = Responding({"confusion": DOUBT, "draft": "draft", "merge": "merge", "edit": "edit"})
    async with proxy(above, strategy=strategy) as on:
        await on.client.responses.create(**ASK, metadata={"a": "b"})
        bodies = asked(on)
    assert [made["output"][0]["content"][0]["text"] for made in above.stored.values()] == [stored]
    assert [step for step, body in bodies.items() if "metadata" in body] == (
        ["draft", "merge"] if strategy == "gated" else [stored]
    )


async def test_a_draft_that_a_merge_was_to_replace_says_that_it_isnt_stored() -> None:
    above = Responding({"merge": answer({"error": {"message": "x"}}, status=500)})
    async with proxy(above, strategy="curiosity") as on:
        reply = await on.client.responses.create(**ASK)
    assert (reply.output_text, reply.store, above.stored) == (DRAFT, False, {})


async def test_single_stores_nothing_since_what_is_shown_is_not_what_came() -> None:
    above = Responding({"single": f"<limits>{DOUBT}</limits>\nI can't look that up."})
    async with proxy(above, strategy="single") as on:
        reply = await on.client.responses.create(**ASK)
        assert len(on.upstream.seen) == 1
    assert (reply.output_text, reply.store) == ("I can't look that up.", False)
    assert above.stored == {}


@pytest.mark.parametrize(("confusion", "text"), [(NO_DOUBT, DRAFT), (DOUBT, MERGED)])
async def test_a_stream_is_one_response_from_created_to_completed(
    confusion: str, text: str
) -> None:
    async with proxy(Responding({"confusion": confusion})) as on:
        events = await told(on, **ASK)
        again = await on.client.responses.retrieve(events[0].response.id)
    types = [event.type for event in events]
    assert (types[0], types[-1]) == ("response.created", "response.completed")
    assert types.count("response.created") == types.count("response.completed") == 1
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert deltas(events) == events[-1].response.output_text == again.output_text == text
    last = events[-1].response
    assert honesty(last)["outcome"] == ("draft_kept" if text == DRAFT else "rewritten")
    assert last.usage.total_tokens == sum(
        s["usage"]["total_tokens"] for s in honesty(last)["steps"]
    )


async def test_a_kept_draft_goes_on_live_while_the_upstream_still_makes_it() -> None:
    body = {"model": "m", "stream": True}
    events = list(responses.events(body, Said("One two three"), 1))
    held = typed(*events[:5], then="hold")
    async with proxy(Responding({"draft": held})) as on:
        stream = await on.client.responses.create(**ASK, stream=True)
        async with asyncio.timeout(5):
            seen = [await anext(stream) for _ in range(5)]
        assert deltas(seen) == "One t"
        await stream.close()
        await asyncio.wait_for(on.upstream.gone.wait(), 5)


async def test_the_last_event_doesnt_wait_for_an_upstream_that_stays() -> None:
    body = {"model": "m", "stream": True}
    staying = typed(*responses.events(body, Said(DRAFT), 1), then="hold")
    async with proxy(Responding({"draft": staying})) as on:
        events = await asyncio.wait_for(told(on, **ASK), 5)
    assert (events[-1].type, events[-1].response.output_text) == ("response.completed", DRAFT)


async def test_the_sdks_helper_puts_a_stream_together() -> None:
    async with (
        proxy(Responding({"confusion": DOUBT})) as on,
        on.client.responses.stream(**ASK) as stream,
    ):
        async for _ in stream:
            pass
        final = await stream.get_final_response()
    assert (final.output_text, honesty(final)["outcome"]) == (MERGED, "rewritten")


async def test_instructions_reach_every_step() -> None:
    async with proxy(Responding({"confusion": DOUBT})) as on:
        await on.client.responses.create(**ASK, instructions="Speak like a pirate.")
        bodies = asked(on)
    assert bodies.keys() == {"draft", "confusion", "merge"}
    assert {body["instructions"] for body in bodies.values()} == {"Speak like a pirate."}


@pytest.mark.parametrize("streamed", [False, True])
async def test_calls_of_functions_come_through_untouched(streamed: bool) -> None:
    above = Responding({"draft": called("get_quote", symbol="XAU"), "confusion": DOUBT})
    async with proxy(above) as on:
        if streamed:
            reply = (await told(on, **ASK, tools=[TOOL]))[-1].response
        else:
            reply = await on.client.responses.create(**ASK, tools=[TOOL])
    [call] = reply.output
    assert (call.type, call.name, call.arguments) == (
        "function_call",
        "get_quote",
        '{"symbol": "XAU"}',
    )
    assert (honesty(reply)["outcome"], honesty(reply)["reason"]) == ("draft_kept", "tool calls")


async def test_an_answer_to_a_tools_output_is_treated_like_any_with_that_output_in_view() -> None:
    items = [
        {"role": "user", "content": QUESTION},
        {"type": "function_call", "call_id": "c", "name": "get_quote", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "4,000"},
    ]
    async with proxy(Responding({"confusion": DOUBT})) as on:
        reply = await on.client.responses.create(model="m", input=items, tools=[TOOL])
        bodies = asked(on)
    assert reply.output_text == MERGED
    for step in ("confusion", "merge"):
        assert bodies[step]["input"][:3] == items
        assert bodies[step]["tool_choice"] == "none"
    assert "Results of tool calls" in json.dumps(bodies["confusion"]["input"][3])


class Price(BaseModel):
    """What `parse` is asked for."""

    amount: int


async def test_what_is_parsed_passes_through() -> None:
    async with proxy(Responding({"draft": '{"amount": 3}', "confusion": DOUBT})) as on:
        reply = await on.client.responses.parse(**ASK, text_format=Price)
        assert len(on.upstream.seen) == 1
    assert reply.output_parsed == Price(amount=3)
    assert honesty(reply)["reason"] == "response_format"


async def test_reasoning_items_stay_in_a_kept_draft() -> None:
    reasoning = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "abc"}
    body = responses.whole(ASK, Said(DRAFT), 1)
    body["output"].insert(0, reasoning)
    async with proxy(Responding({"draft": answer(body)})) as on:
        _, raw, _ = await posted(on, ASK | {"reasoning": {"effort": "low"}})
        bodies = asked(on)
    assert json.loads(raw)["output"] == body["output"]
    assert all(sent["reasoning"] == {"effort": "low"} for sent in bodies.values())


async def test_a_refusal_comes_through_untouched() -> None:
    async with proxy(Responding({"draft": Said(refusal=REFUSED), "confusion": DOUBT})) as on:
        reply = await on.client.responses.create(**ASK)
    assert reply.output[0].content[0].refusal == REFUSED
    assert honesty(reply)["reason"] == "refusal"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [{"type": "web_search"}]}, "built-in tools (web_search)"),
        ({"tools": [TOOL], "tool_choice": "required"}, "forced tools"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
        ({"max_output_tokens": 16}, "a token cap of 16 or less"),
        ({"n": 2}, "n (this API has none)"),
    ],
)
async def test_what_passes_through_goes_up_as_it_is_and_the_reason_says_so(
    fields: dict[str, Any], reason: str
) -> None:
    async with proxy(Responding({"confusion": DOUBT})) as on:
        _, raw, headers = await posted(on, ASK | fields)
        assert [seen.json() for seen in on.upstream.seen] == [ASK | fields]
    found = json.loads(raw)["honesty"]
    assert (found["outcome"], found["reason"]) == ("passed_through", reason)
    assert headers["x-honesty-outcome"] == "passed_through"


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({"previous_response_id": "resp_1"}, {"draft", "confusion"}),
        ({"conversation": "conv_1"}, {"draft"}),
        ({"background": True}, {"draft"}),
    ],
)
async def test_annotations_never_write_into_the_clients_conversation(
    fields: dict[str, Any], steps: set[str]
) -> None:
    async with proxy(Responding({"confusion": DOUBT})) as on:
        await posted(on, ASK | fields | {"honesty": {"annotate": True}})
        assert asked(on).keys() == steps


@pytest.mark.parametrize("behind", [b"", b": bye\n\n", b"data: [DONE]\n\n"])
async def test_raw_is_byte_for_byte_in_both_directions(behind: bytes) -> None:
    body = b'{"model":"m", "input":"h\\u00e9", "x":1.0, "y":1e400 }'
    whole = b'{"id":"r", "output":[ ], "big":' + b"9" * 30 + b"}"
    stream = typed(*responses.events({"model": "m"}, Said(DRAFT), 1)).pieces
    sent = b"".join(stream) + behind  # type: ignore[arg-type]

    def above(seen: Seen) -> Reply:
        if not seen.json().get("stream"):
            return answer(whole)
        return Reply([*stream, behind], content_type="text/event-stream")

    async with proxy(above, strategy="raw") as on:
        assert (await posted(on, body))[1] == whole
        asking = body[:-1] + b', "stream":true}'
        status, raw, headers = await posted(on, asking)
        assert (status, raw) == (200, sent)
        assert [seen.body for seen in on.upstream.seen] == [body, asking]
    assert headers["x-honesty-outcome"] == "passed_through"


async def test_a_strategy_can_be_chosen_in_the_body_by_header_or_behind_the_models_name() -> None:
    async with proxy(Responding({"confusion": DOUBT})) as on:
        create = on.client.responses.create
        wishes = [
            ASK | {"extra_body": {"honesty": {"strategy": "raw"}}},
            ASK | {"extra_headers": {"X-Honesty": "raw"}},
            ASK | {"model": "m@raw"},
        ]
        for wish in wishes:
            assert (await create(**wish)).output_text == DRAFT
            assert on.upstream.seen[-1].json() == ASK


async def test_gateways_with_strict_schemas_get_headers_alone() -> None:
    async with proxy(Responding(), reply="headers") as on:
        _, raw, headers = await posted(on, ASK)
        events = await told(on, **ASK)
    assert "honesty" not in json.loads(raw)
    assert headers["x-honesty-outcome"] == "draft_kept"
    assert "honesty" not in events[-1].response.model_extra


@pytest.mark.parametrize("streamed", [False, True])
async def test_usage_can_be_that_of_the_answer_alone(streamed: bool) -> None:
    async with proxy(Responding({"confusion": DOUBT}), usage="answer") as on:
        if streamed:
            reply = (await told(on, **ASK))[-1].response
        else:
            reply = await on.client.responses.create(**ASK)
    merge = honesty(reply)["steps"][-1]
    assert (merge["name"], reply.usage.total_tokens) == ("merge", merge["usage"]["total_tokens"])


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_limit_reaches_the_sdk_as_the_upstream_said_it(streamed: bool) -> None:
    async with proxy(Responding({"draft": LIMITED})) as on:
        with pytest.raises(openai.RateLimitError) as caught:
            await on.client.responses.create(**ASK, stream=streamed)
    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_a_wrong_key_is_a_401(strategy: str) -> None:
    refused = answer({"error": {"message": "Incorrect API key"}}, status=401)
    async with proxy(lambda _: refused, strategy=strategy) as on:
        with pytest.raises(openai.AuthenticationError):
            await on.client.responses.create(**ASK)


@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_an_answer_that_breaks_off_raises_in_the_sdk(strategy: str) -> None:
    begun = list(responses.events({"model": "m"}, Said("The merged"), 1))[:5]
    broken = typed(*begun, then="drop")
    step = "draft" if strategy == "raw" else "merge"
    seen: list[Any] = []
    async with proxy(Responding({"confusion": DOUBT, step: broken}), strategy=strategy) as on:
        with pytest.raises(openai.APIError, match="broke off"):
            await _noted(on, seen)
    assert deltas(seen) == "The m"


async def _noted(on: Proxy, seen: list[Any]) -> None:
    stream = await on.client.responses.create(**ASK, stream=True)
    async for event in stream:
        seen.append(event)  # noqa: PERF401 - what came before the error counts


@pytest.mark.parametrize("step", ["draft", "merge"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_ends_every_upstream_call(step: str, streamed: bool) -> None:
    held = Reply([b": wait\n\n"], content_type="text/event-stream", then="hold")
    async with proxy(Responding({"confusion": DOUBT, step: held})) as on:
        asking = asyncio.create_task(posted(on, ASK | {"stream": streamed}))
        await asyncio.wait_for(on.upstream.holding.wait(), 5)
        asking.cancel()
        await asyncio.wait_for(on.upstream.gone.wait(), 5)


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        (b"no", "not a JSON object"),
        (b'{"model": "m", "input": "\xff"}', "UTF-8"),
        ({"model": "m"}, "input"),
        ({"model": "m", "messages": []}, "belongs to /v1/chat/completions"),
        ({"model": "m", "input": 5}, "input"),
        ({"model": "m", "input": ["x"]}, "input[0]"),
        ({"input": "x"}, "model"),
        (ASK | {"stream": "yes"}, "stream"),
        (ASK | {"n": 0}, "'n'"),
        (ASK | {"modalities": 5}, "modalities"),
        (ASK | {"functions": "abc"}, "functions"),
        (ASK | {"response_format": "json"}, "response_format"),
        (ASK | {"tools": [{"type": "function"}]}, "tools[0].name"),
        (ASK | {"honesty": {"strategy": "gatd"}}, "did you mean 'gated'?"),
        (ASK | {"honesty": "gated"}, "object"),
        (b'{"model":"m","input":' + b"[" * 9000 + b"]" * 9000 + b"}", "nested too deep"),
    ],
)
async def test_bad_input_is_told_in_openais_shape(sent: object, word: str) -> None:
    async with proxy(Responding()) as on:
        status, raw, _ = await posted(on, sent)
        assert on.upstream.seen == []
    error = json.loads(raw)["error"]
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert word in error["message"]


async def test_an_unknown_model_stays_the_upstreams_own_404() -> None:
    error = {"message": "The model `m` does not exist", "code": "model_not_found"}
    async with proxy(lambda _: answer({"error": error}, status=404), strategy="raw") as on:
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await on.client.responses.create(**ASK)
        assert {s.path for s in on.upstream.seen if s.body} == {"/v1/responses"}
