"""The embedded model for real; fetched into the user's cache on the first run."""

import asyncio

import pytest

from honestproxy.backends import load
from honestproxy.pipeline import Pipeline
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest

pytestmark = pytest.mark.model

CAPITAL = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


@pytest.fixture(scope="module")
def smollm2():
    backend = load(Settings())
    asyncio.run(backend.load())
    yield backend
    asyncio.run(backend.aclose())


async def test_it_knows_a_capital(smollm2):
    response = await smollm2.complete(ChatRequest({"messages": CAPITAL}))
    assert "Paris" in response.text
    assert response.finish_reason == "stop"
    assert not response.text.endswith("<|im_end|>")


async def test_a_stream_says_the_same(smollm2):
    request = ChatRequest({"messages": CAPITAL, "max_tokens": 12})
    whole = await smollm2.complete(request)
    pieces = [chunk.text async for chunk in smollm2.stream(request) if chunk.text]
    assert "".join(pieces) == whole.text
    assert len(pieces) > 5


async def test_a_developer_message_is_a_system_message_to_it(smollm2):
    def request(role):
        said = [{"role": role, "content": "Answer in French."}, *CAPITAL]
        return ChatRequest({"messages": said, "max_tokens": 8})

    developer, system = [await smollm2.complete(request(r)) for r in ("developer", "system")]
    assert developer.text == system.text
    assert developer.usage == system.usage


async def test_it_owns_up_to_being_a_machine_and_knows_a_plain_question(smollm2):
    pipeline = Pipeline(smollm2, Settings())

    async def asked(text):
        messages = [{"role": "user", "content": text}]
        return pipeline.run(ChatRequest({"messages": messages, "max_tokens": 40}))

    doubtful, plain = await asked("What did you do on your tenth birthday?"), await asked("hi")
    assert (await doubtful.complete()).text.startswith("I'm an AI, so I have no")
    assert doubtful.honesty.body()["calls"] == 1
    await plain.complete()
    assert plain.honesty.outcome == "draft_kept"
