"""What other proxies break on the wire, and what their users ask for: one test for each case.

Each goes over real HTTP before an upstream that answers as a good OpenAI server would, under
`gated`, with a model that doubts itself, so that several calls and a rewrite are behind it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import openai
import pytest
from packaging.requirements import Requirement

from honestproxy.strategies import STRATEGIES
from tests.able.mind import MERGED
from tests.able.server import Able
from tests.proxy import DOUBT, Proxy, ask, proxy, script, step_of
from tests.upstreams import Reply, Seen, answer, chunk, completion, event, events

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "place",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
SEEN = [
    {"type": "text", "text": "What is it?"},
    {"type": "image_url", "image_url": {"url": PIXEL}},
]
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    ],
}
HISTORY = [
    {"role": "developer", "content": "Answer in one line."},
    {"role": "user", "content": SEEN},
    CALLED,
    {"role": "tool", "tool_call_id": "c1", "content": "It rains."},
    {"role": "user", "content": "And right now?"},
]


def able(**settings: Any) -> Any:
    return proxy(Able(key=None), strategy="gated", **settings)


def unsure(text: str = "What does gold cost?", **more: Any) -> dict[str, Any]:
    return ask(text, **more) | {"model": "unsure"}


def drafts(on: Proxy) -> list[dict[str, Any]]:
    return [body for seen in on.upstream.seen if step_of(body := seen.json()) == "draft"]


async def test_streaming_is_real_with_one_finish_reason_and_one_done() -> None:
    async with able() as on:
        body = json.dumps(unsure(stream=True))
        url, headers = f"{on.url}/chat/completions", {"Content-Type": "application/json"}
        async with on.session.post(url, data=body, headers=headers) as got:
            lines = [line.strip() async for line in got.content if line.startswith(b"data: ")]
    chunks = [json.loads(line[6:]) for line in lines[:-1]]
    assert lines[-1] == b"data: [DONE]"
    assert lines.count(b"data: [DONE]") == 1
    texts = [choice["delta"].get("content") for c in chunks for choice in c["choices"]]
    assert "".join(filter(None, texts)) == MERGED
    assert len([text for text in texts if text]) > 3
    ends = [choice["finish_reason"] for c in chunks for choice in c["choices"]]
    assert [end for end in ends if end] == ["stop"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_are_called_whole_and_streamed_and_their_results_answered(
    streamed: bool,
) -> None:
    async with able() as on:
        asked = unsure("What is the weather in Paris?", tools=[WEATHER])
        if streamed:
            stream = await on.client.chat.completions.create(**asked, stream=True)
            deltas = [c.choices[0].delta async for c in stream if c.choices]
            calls = [call for delta in deltas for call in delta.tool_calls or []]
            assert calls[0].function.name == "get_weather"
            arguments = "".join(call.function.arguments or "" for call in calls)
        else:
            reply = await on.client.chat.completions.create(**asked)
            arguments = reply.choices[0].message.tool_calls[0].function.arguments
        assert "city" in json.loads(arguments)
        told = [*asked["messages"], CALLED, HISTORY[3]]
        reply = await on.client.chat.completions.create(**asked | {"messages": told})
    assert reply.choices[0].message.content == MERGED


async def test_a_json_schema_is_kept_to() -> None:
    async with able() as on:
        reply = await on.client.chat.completions.create(**unsure(response_format=SCHEMA))
    assert set(json.loads(reply.choices[0].message.content)) == {"city"}
    assert reply.model_extra["honesty"]["outcome"] == "passed_through"


async def test_images_reach_every_step() -> None:
    async with able() as on:
        messages = [{"role": "user", "content": SEEN}]
        reply = await on.client.chat.completions.create(**unsure() | {"messages": messages})
        assert reply.choices[0].message.content == MERGED
    assert len(on.upstream.seen) == 3
    assert all(PIXEL.encode() in seen.body for seen in on.upstream.seen)


@pytest.mark.parametrize("streamed", [False, True])
async def test_usage_is_that_of_all_calls(streamed: bool) -> None:
    counted = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    async with proxy(script(confusion=DOUBT), strategy="gated") as on:
        if streamed:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            stream = await on.client.chat.completions.create(**ask(**options))
            (usage,) = [c.usage async for c in stream if c.usage]
        else:
            usage = (await on.client.chat.completions.create(**ask())).usage
    assert usage.total_tokens == 3 * counted["total_tokens"]
    assert usage.completion_tokens == 3 * counted["completion_tokens"]


async def test_n_of_2_gives_two_choices_and_logprobs_come_with_them() -> None:
    async with able() as on:
        asked = unsure(n=2, logprobs=True, top_logprobs=2)
        reply = await on.client.chat.completions.create(**asked)
    assert [choice.message.content for choice in reply.choices] == [MERGED, MERGED]
    assert drafts(on)[0]["n"] == 2
    merges = [seen.json() for seen in on.upstream.seen if step_of(seen.json()) == "merge"]
    assert [(m["logprobs"], m["top_logprobs"]) for m in merges] == [(True, 2), (True, 2)]


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_upstreams_429_stays_one_with_its_retry_after(streamed: bool) -> None:
    async with able() as on:
        with pytest.raises(openai.RateLimitError) as caught:
            await on.client.chat.completions.create(
                **unsure(stream=streamed) | {"model": "limited"}
            )
    assert caught.value.response.headers["Retry-After"] == "7"
    assert caught.value.response.headers["x-request-id"] == "req_able"
    assert caught.value.code == "rate_limit_exceeded"


async def test_missing_messages_are_a_400_that_names_them() -> None:
    async with able() as on:
        status, body, _ = await on.post({"model": "m"})
    assert (status, body["error"]["param"]) == (400, "messages")
    assert on.upstream.seen == []


async def test_history_roles_tools_images_and_parameters_reach_draft_and_merge() -> None:
    given = {"seed": 7, "top_p": 0.5, "stop": ["\n\n\n"], "temperature": 0.25, "user": "u"}
    async with able() as on:
        asked = unsure(tools=[WEATHER], **given) | {"messages": HISTORY}
        await on.client.chat.completions.create(**asked)
    steps = {step_of(seen.json()): seen.json() for seen in on.upstream.seen}
    assert set(steps) == {"draft", "confusion", "merge"}
    assert steps["draft"]["messages"] == HISTORY
    for body in (steps["draft"], steps["merge"]):
        assert body["messages"][:4] == HISTORY[:4]
        assert {name: body[name] for name in given} == given
        assert body["tools"] == [WEATHER]
    assert steps["confusion"]["messages"][:4] == HISTORY[:4]


async def test_technique_variants_are_listed_among_the_models_and_can_be_asked() -> None:
    async with able() as on:
        listed = {model.id async for model in on.client.models.list()}
        reply = await on.client.chat.completions.create(**unsure() | {"model": "m@curiosity"})
    assert {f"m@{strategy}" for strategy in STRATEGIES} - listed == {"m@introspect"}  # can't be
    assert reply.model_extra["honesty"]["strategy"] == "curiosity"


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")
def test_added_p50_and_requests_per_second_are_measured_beside_a_direct_call() -> None:
    command = [sys.executable, str(BENCHMARKS / "proxy.py"), "--only", "raw", "--json"]
    done = subprocess.run([*command, "--repeat", "1", "--seconds", "0.2"], capture_output=True)
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert set(rows) == {"direct", "ours, raw"}
    for row in rows.values():
        assert min(row[name] for name in ("p50", "rate1", "rate16", "rate64")) > 0


def test_size_installed_stays_small() -> None:
    names, sizes = ["honestproxy"], {}
    while names:
        name = names.pop()
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform
        wanted = [Requirement(line) for line in found.requires or []]
        names += [w.name for w in wanted if _applies(w) and w.name not in sizes]
        sizes[name] = sum(Path(found.locate_file(f)).stat().st_size for f in _files(found))
    assert not {"torch", "transformers", "litellm", "scikit-learn"} & set(sizes)
    assert sum(sizes.values()) < 150_000_000


def _applies(wanted: Requirement) -> bool:
    return wanted.marker is None or wanted.marker.evaluate({"extra": ""})


def _files(found: Any) -> list[Any]:
    return [f for f in found.files or [] if Path(found.locate_file(f)).is_file()]


async def test_the_last_step_streams_as_it_is_made_not_as_one_block_at_the_end() -> None:
    async with proxy(script(confusion=DOUBT, merge=_held("The merged")), strategy="gated") as on:
        stream = await on.client.chat.completions.create(**ask(stream=True))
        async for part in stream:
            if part.choices and part.choices[0].delta.content:
                break
        assert part.choices[0].delta.content == "The merged"
        assert not on.upstream.gone.is_set()  # it is still at it
        await stream.close()


def _held(text: str) -> Reply:
    return Reply([event(chunk(text))], content_type="text/event-stream", then="hold")


async def test_a_thinking_pipeline_pings_and_its_error_after_that_is_raised_by_the_sdk() -> None:
    broken = events(0.4, event(chunk("The dra")), done=False, then="drop")
    replies = script(draft=broken, confusion=_held('{"dou'))
    settings = {"stream_head_wait": 0.05, "ping_interval": 0.1, "strategy": "gated"}
    async with proxy(replies, **settings) as on:
        url, headers = f"{on.url}/chat/completions", {"Content-Type": "application/json"}
        body = json.dumps(ask(stream=True))
        async with on.session.post(url, data=body, headers=headers) as got:
            raw = await got.read()
        assert raw.startswith(b": ping\n\n")
        with pytest.raises(openai.APIError, match="broke off"):
            async for _ in await on.client.chat.completions.create(**ask(stream=True)):
                pass


@pytest.mark.parametrize("streamed", [False, True])
async def test_work_ends_when_the_client_has_left_before_the_first_byte(streamed: bool) -> None:
    waiting = Reply(then="hold", content_type="text/event-stream" if streamed else "text/plain")
    async with proxy(script(draft=waiting, confusion=waiting), strategy="gated") as on:
        asking = asyncio.ensure_future(on.post(ask(stream=streamed)))
        await asyncio.wait_for(on.upstream.holding.wait(), 5)
        asking.cancel()
        await asyncio.wait_for(on.upstream.gone.wait(), 5)


async def test_tools_and_schemas_dont_vanish() -> None:
    async with able() as on:
        await on.client.chat.completions.create(**ask(tools=[WEATHER], response_format=SCHEMA))
    assert drafts(on)[0]["tools"] == [WEATHER]
    assert drafts(on)[0]["response_format"] == SCHEMA


async def test_reasoning_content_is_kept() -> None:
    async with able() as on:
        reply = await on.client.chat.completions.create(**ask() | {"model": "thinks"})
        stream = await on.client.chat.completions.create(**ask(stream=True) | {"model": "thinks"})
        deltas = [c.choices[0].delta async for c in stream if c.choices]
    thought = reply.choices[0].message.model_extra["reasoning_content"]
    assert thought
    streamed = [(delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas]
    assert "".join(streamed) == thought


async def test_reasoning_that_eats_the_cap_never_leaves_content_empty() -> None:
    message = {"role": "assistant", "content": "", "reasoning_content": "Hm…"}
    eaten = {"index": 0, "message": message, "finish_reason": "length"}
    replies = script(confusion=DOUBT, merge=answer(completion() | {"choices": [eaten]}))
    async with proxy(replies, strategy="gated") as on:
        reply = await on.client.chat.completions.create(**ask(max_tokens=50))
        assert reply.choices[0].message.content == "The draft."
        assert reply.model_extra["honesty"]["outcome"] == "draft_fallback"
    assert (
        on.bodies()["confusion"]["max_tokens"] > 1000
    )  # room to reason, whatever the client's cap


async def test_usage_is_never_under_counted_even_where_a_step_fails() -> None:
    broken = completion() | {"choices": [{**completion()["choices"][0], "finish_reason": "length"}]}
    async with proxy(script(confusion=answer(broken)), strategy="gated") as on:
        reply = await on.client.chat.completions.create(**ask())
    assert reply.model_extra["honesty"]["outcome"] == "draft_fallback"
    assert reply.usage.total_tokens == 14


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503])
async def test_errors_keep_their_status(status: int) -> None:
    refused = answer({"error": {"message": "no", "type": "x", "code": "y"}}, status=status)
    async with proxy(script(draft=refused, confusion=refused), strategy="gated") as on:
        for streamed in (False, True):
            found, body, _ = await on.post(ask(stream=streamed))
            assert (found, body["error"]["code"]) == (status, "y")


async def test_one_requests_options_never_change_anothers() -> None:
    async with able() as on:

        async def asked(number: int) -> None:
            strategy = ["raw", "gated", "curiosity", "single"][number % 4]
            body = ask(f"What does item {number} cost?", seed=number)
            reply = await on.client.chat.completions.create(
                **body, extra_body={"honesty": {"strategy": strategy, "threshold": 0.5}}
            )
            told = (reply.model_extra or {}).get("honesty", {}).get("strategy", "raw")
            assert told == strategy

        await asyncio.gather(*map(asked, range(40)))
    for seen in on.upstream.seen:
        body = seen.json()
        text = json.dumps(body["messages"])
        assert f"item {body['seed']} cost" in text
        assert "honesty" not in body


def test_an_installation_for_a_remote_model_brings_no_gigabytes() -> None:
    test_size_installed_stays_small()


async def test_what_is_not_in_doubt_is_not_refused_but_comes_untouched() -> None:
    async with able() as on:
        reply = await on.client.chat.completions.create(**ask("What is the capital of France?"))
    assert reply.choices[0].message.content == "You said: What is the capital of France?"
    assert reply.model_extra["honesty"]["outcome"] == "draft_kept"


async def test_a_right_answer_is_not_flagged_where_confidence_is_high() -> None:
    sure = DOUBT.replace("0.2", "0.95")
    async with proxy(script(confusion=sure), strategy="gated") as on:
        reply = await on.client.chat.completions.create(**ask())
    assert reply.choices[0].message.content == "The draft."
    assert reply.model_extra["honesty"]["outcome"] == "draft_kept"


async def test_what_is_configured_is_seen_to_run() -> None:
    async with able() as on:
        for streamed in (False, True):
            raw = await on.client.chat.completions.with_raw_response.create(
                **unsure(stream=streamed)
            )
            assert raw.headers["x-honesty-strategy"] == "gated"
            assert raw.headers["x-honesty-trace-id"]
        other = await on.client.embeddings.with_raw_response.create(model="m", input="x")
    assert other.headers["x-honesty-strategy"] == "raw"
    assert other.headers["x-honesty-outcome"] == "passed_through"


async def test_what_the_extra_calls_cost_is_told_by_step() -> None:
    def slow(seen: Seen) -> Reply:
        return script(confusion=DOUBT)(seen)

    async with proxy(slow, strategy="gated") as on:
        reply = await on.client.chat.completions.create(**ask())
    told = reply.model_extra["honesty"]
    assert (told["calls"], [step["name"] for step in told["steps"]]) == (
        3,
        ["draft", "confusion", "merge"],
    )
    assert all(step["usage"]["total_tokens"] == 7 for step in told["steps"])
    assert all(step["seconds"] > 0 for step in told["steps"])
    assert told["seconds"] > 0
