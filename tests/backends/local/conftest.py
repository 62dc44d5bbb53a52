import pytest
from tests.backends.local.doubles import Echo, llama, tokenizer

from honestproxy.backends.local import Local
from honestproxy.types import ChatRequest


@pytest.fixture(scope="session")
def words():
    return tokenizer()


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
async def local(echo, words):
    backend = Local.of(echo, words, "echo")
    yield backend
    await backend.aclose()


@pytest.fixture
async def random_local(words):
    backend = Local.of(llama(), words, "random")
    yield backend
    await backend.aclose()


@pytest.fixture
def ask():
    def ask(text="hello", **fields):
        return ChatRequest({"messages": [{"role": "user", "content": text}], **fields})

    return ask
