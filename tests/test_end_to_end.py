"""Real parts all the way: OpenAI's SDK, the proxy over HTTP, and a real model behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from honestproxy.backends.local import Local
from honestproxy.settings import Settings
from tests.proxy import serving

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # litellm reads pydantic's fields the old way; that is its own affair.
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance"),
]

MODEL = "smollm2-135m-instruct"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedded() -> AsyncIterator[AsyncOpenAI]:
    """A client of the proxy before the embedded model."""
    settings = Settings(confusion_tokens=64, variants=True)
    backend = Local(MODEL, settings)
    async with (
        serving(settings, backend) as url,
        AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest_asyncio.fixture(params=["http", "litellm"], loop_scope="module")
async def llama_cpp(
    request: pytest.FixtureRequest, llama_server: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncOpenAI]:
    """A client of the proxy before llama.cpp's server, reached directly or through litellm."""
    upstream = llama_server
    if request.param == "litellm":
        monkeypatch.setenv("OPENAI_API_BASE", llama_server)
        monkeypatch.setenv("OPENAI_BASE_URL", llama_server)
        upstream = "litellm:openai/smollm2"
    settings = Settings(upstream=upstream, upstream_key="none", confusion_tokens=64)
    async with (
        serving(settings) as url,
        AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        yield client


async def streamed(client: AsyncOpenAI, model: str) -> tuple[str, dict]:
    stream = await client.chat.completions.create(
        model=model,
        messages=QUESTION,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [c.finish_reason for c in choices if c.finish_reason]
    assert sum(1 for choice in choices if choice.delta.role) == 1
    assert sum(1 for chunk in chunks if chunk.usage) == 1
    labels = [chunk.model_extra["honesty"] for chunk in chunks if "honesty" in chunk.model_extra]
    text = "".join(choice.delta.content or "" for choice in choices)
    return text, labels[0] if labels else {}


async def whole(client: AsyncOpenAI, model: str) -> tuple[str, dict]:
    reply = await client.chat.completions.create(model=model, messages=QUESTION, max_tokens=40)
    assert reply.usage.total_tokens > 0
    return reply.choices[0].message.content, (reply.model_extra or {}).get("honesty", {})


@pytest.mark.model
@pytest.mark.parametrize("ask", [whole, streamed])
@pytest.mark.parametrize("strategy", ["raw", "introspect", "curiosity", "gated"])
async def test_the_embedded_model_answers(embedded, strategy, ask) -> None:
    text, honesty = await ask(embedded, f"{MODEL}@{strategy}")
    assert text.strip()
    if strategy == "raw":
        assert "Paris" in text
        assert honesty == {}
    else:
        assert honesty["strategy"] == strategy
        assert honesty["outcome"] in ("rewritten", "draft_kept", "draft_fallback")
        assert honesty["calls"] == 1 if strategy == "introspect" else honesty["calls"] >= 2
        assert honesty["steps"][0]["usage"]["completion_tokens"] > 0


@pytest.mark.model
@pytest.mark.parametrize("strategy", ["introspect", "curiosity", "gated", "critique", "single"])
@pytest.mark.parametrize("stream", [False, True])
async def test_every_strategy_reads_a_conversation_of_several_turns(
    embedded, strategy, stream
) -> None:
    messages = [
        {"role": "system", "content": "You help in a library."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello, what can I do for you?"},
        {"role": "user", "content": "What was your favourite toy as a child?"},
    ]
    async with embedded.chat.completions.with_streaming_response.create(
        model=f"{MODEL}@{strategy}", messages=messages, max_tokens=24, stream=stream
    ) as got:
        text = await got.text()
    assert '"honesty"' in text
    assert '"error"' not in text or "cut off" in text or "unusable" in text


@pytest.mark.model
async def test_the_embedded_model_is_listed_with_its_variants(embedded) -> None:
    listed = [model.id async for model in embedded.models.list()]
    assert listed[0] == MODEL
    assert f"{MODEL}@gated" in listed


@pytest.mark.model
async def test_a_model_that_isnt_here_is_a_404_that_names_the_one_that_is(embedded) -> None:
    with pytest.raises(openai.NotFoundError, match=MODEL):
        await embedded.chat.completions.create(model="gpt-4o", messages=QUESTION)


@pytest.mark.upstream
@pytest.mark.parametrize("ask", [whole, streamed])
@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_llama_cpp_answers_through_the_proxy(llama_cpp, strategy, ask) -> None:
    text, honesty = await ask(llama_cpp, f"smollm2@{strategy}")
    assert text.strip()
    assert bool(honesty) == (strategy != "raw")


async def responded(client: AsyncOpenAI, model: str) -> None:
    """A Response, whole and by its events, from what stores none."""
    ask = {"model": model, "input": QUESTION[0]["content"], "max_output_tokens": 40}
    ends = ("completed", "incomplete")  # where the cap cut it off
    reply = await client.responses.create(**ask, instructions="Be brief.")
    assert reply.output_text.strip()
    assert reply.status in ends
    assert not getattr(reply, "store", False)
    events = [event async for event in await client.responses.create(**ask, stream=True)]
    assert events[0].type == "response.created"
    assert events[-1].type in {f"response.{end}" for end in ends}
    assert events[-1].response.output_text.strip()
    assert events[-1].response.usage.total_tokens > 0


@pytest.mark.model
@pytest.mark.parametrize("strategy", ["raw", "introspect"])
async def test_the_embedded_model_answers_as_responses_do(embedded, strategy) -> None:
    await responded(embedded, f"{MODEL}@{strategy}")


@pytest.mark.upstream
async def test_llama_cpp_answers_as_responses_do(llama_cpp) -> None:
    await responded(llama_cpp, "smollm2@gated")


@pytest.mark.upstream
async def test_llama_cpps_errors_come_through_as_it_says_them(llama_cpp) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await llama_cpp.chat.completions.create(
            model="smollm2", messages=[{"role": "nobody", "content": 3}]
        )
    assert 400 <= caught.value.status_code < 600
