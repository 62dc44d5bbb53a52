"""Reading doubt and answering share what is read."""

import asyncio

import numpy as np
import pytest
import torch

from honestproxy.backends.local import Local, batch, exemplars, features
from honestproxy.backends.local.engine import Engine
from honestproxy.backends.local.features import Layers
from honestproxy.backends.local.sense import Sense
from honestproxy.errors import BackendError
from tests.backends.local.doubles import llama, mixed, sliding
from tests.backends.local.test_answers import until
from tests.backends.local.test_prefixes import fed, gpt2, neox
from tests.backends.local.test_reader import few  # noqa: F401

PREFIX = [5, 6, 7]


def prompt(length, seed=0):
    drawn = np.random.default_rng(seed).integers(8, 261, length - len(PREFIX))
    return [*PREFIX, *map(int, drawn)]


def wanted(model, ids, *numbers):
    layers = Layers(Layers.of(model).modules, numbers)
    with torch.inference_mode():
        shared = features.prefix(model, PREFIX, layers) if ids[:3] == PREFIX else None
        return features.vectors(model, [ids], shared, layers)[0]


def read(engine, model, ids, *numbers):
    sense = Sense(engine, None, "tiny", None)
    layers = [Layers.of(model).modules[number - 1] for number in numbers]
    return asyncio.run(sense._tail(ids, layers, len(PREFIX) if ids[:3] == PREFIX else 0))


@pytest.mark.parametrize("make", [llama, gpt2, neox, sliding, mixed])
@pytest.mark.parametrize("length", [4, 20, 51, 52, 200])
def test_what_is_read_on_the_way_is_what_is_read_alone(make, length, monkeypatch):
    monkeypatch.setattr(batch, "CHUNK", 32)
    model = make()
    expected = wanted(model, prompt(length), 1, 2)
    engine = Engine(model)
    for _ in range(2):
        np.testing.assert_allclose(read(engine, model, prompt(length), 1, 2), expected, atol=1e-4)
    longer = [*prompt(length), 9, 9, 9]
    found = read(engine, model, longer, 1)
    engine.close()
    np.testing.assert_allclose(found, wanted(model, longer, 1), atol=1e-4)


def test_a_prompt_without_the_shared_beginning_is_read_to_its_own(monkeypatch):
    model, ids = llama(), [30, 31, 32, 33]
    engine = Engine(model)
    np.testing.assert_allclose(read(engine, model, ids, 2), wanted(model, ids, 2), atol=1e-4)
    engine.close()


@pytest.fixture
async def sensible(words, few, monkeypatch):  # noqa: F811
    """A tiny model with a fitted reader, and how many tokens each of its calls reads."""
    monkeypatch.setattr(exemplars, "load", lambda: few)
    model = llama(max_position_embeddings=4096)
    sizes = fed(model)
    local = Local.of(model, words)
    await local.load_reader()
    del sizes[:]
    yield local, sizes
    await local.aclose()


async def test_the_answer_reads_nothing_that_reading_doubt_has_read(sensible, ask):
    local, sizes = sensible
    await local.read(ask("How are you? " * 30))
    assert sum(sizes) == 13 * 30 + 2
    del sizes[:]
    written = (await local.complete(ask("How are you? " * 30, max_tokens=5))).usage
    assert sizes == [1] * (written["completion_tokens"] - 1)
    del sizes[:]
    said = [*ask("How are you? " * 30).messages, {"role": "assistant", "content": "Well,"}]
    await local.complete(ask(messages=said, max_tokens=1))
    assert sizes == [5]
    del sizes[:]
    await local.read(ask("How are you? " * 30))
    assert sum(sizes) <= features.TAIL


async def test_a_conversation_is_read_from_its_beginning(sensible, ask):
    local, sizes = sensible
    await local.read(ask("x" * 2000))
    assert sum(sizes) == 2002


async def test_doubt_is_read_while_others_are_answered(sensible, ask):
    local, sizes = sensible
    long = asyncio.create_task(local.complete(ask("long", max_tokens=400, logit_bias={0: -100})))
    await until(lambda: len(sizes) > 3)
    scores = await local.read(ask("x" * 600))
    assert 0 <= scores.doubt <= 1
    assert not long.done()
    assert (await long).usage["completion_tokens"] == 400


async def test_a_reading_that_is_given_up_stops(sensible, ask):
    local, sizes = sensible
    reading = asyncio.create_task(local.read(ask("x" * 4000)))
    await until(lambda: sizes)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await local.complete(ask("hi", max_tokens=1))
    assert sum(sizes) < 4002


async def test_a_reading_that_fails_fails_alone(sensible, ask, monkeypatch, caplog):
    local, _ = sensible

    def broken(tail, kept, module, args, output):
        raise RuntimeError("no states today")

    with monkeypatch.context() as patched:
        patched.setattr(features.Tail, "_keep", broken)
        with pytest.raises(BackendError, match="no states today"):
            await local.read(ask())
    assert (await local.complete(ask("hi", max_tokens=3))).usage["completion_tokens"] <= 3
    assert 0 <= (await local.read(ask())).doubt <= 1


async def test_a_reading_ends_with_the_engine(sensible, ask):
    local, sizes = sensible
    reading = asyncio.create_task(local.read(ask("x" * 4000)))
    await until(lambda: sizes)
    await local.aclose()
    with pytest.raises(BackendError, match="closed"):
        await reading
