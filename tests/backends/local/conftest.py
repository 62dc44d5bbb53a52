import pytest
import torch

from honestproxy.backends.local import Local
from honestproxy.types import ChatRequest
from tests.backends.local.doubles import Echo, llama, tokenizer


@pytest.fixture(scope="session", autouse=True)
def one_core():
    """What is this small is slower in several threads, and very slow beside other programs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
