"""The rows in flight have room to grow, and what they hold is what it would be without."""

import asyncio

import pytest
import torch
from transformers import DynamicCache

from honestproxy.backends.local import Local, cache
from honestproxy.backends.local.cache import Roomy, gather
from tests.backends.local.doubles import llama, mixed, sliding

ASKED = ("hello", "a longer question, to be padded against", "hi")
HALF = "\ufffd"
"""Stands for part of a character, which an answer leaves out at its end."""


def states(rows, length, heads=2, size=4):
    return torch.randn(rows, heads, length, size)


@pytest.mark.parametrize("make", [llama, sliding, mixed])
async def test_answers_are_those_of_the_librarys_own_generate(words, ask, make, monkeypatch):
    monkeypatch.setattr(cache, "ROOM", 3)
    model = make()
    local = Local.of(model, words)
    answers = await asyncio.gather(*[local.complete(ask(text, max_tokens=20)) for text in ASKED])
    await local.aclose()
    for text, answer in zip(ASKED, answers, strict=True):
        ids = words.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        with torch.inference_mode():
            alone = model.generate(ids, max_new_tokens=20, do_sample=False)
        said = words.decode(alone[0, ids.shape[1] :], skip_special_tokens=True)
        assert answer.text.rstrip(HALF) == said.rstrip(HALF)


def test_tokens_are_written_in_place_while_there_is_room(monkeypatch):
    monkeypatch.setattr(cache, "ROOM", 4)
    first, more = states(2, 3), states(2, 6)
    layer = Roomy([first], [first + 1], 3)
    places = set()
    for at in range(6):
        keys, values = layer.update(more[:, :, at : at + 1], more[:, :, at : at + 1] + 1)
        places.add(keys.data_ptr())
    assert torch.equal(keys, torch.cat([first, more], 2))
    assert torch.equal(values, keys + 1)
    assert len(places) == 2


def test_rows_are_gathered_on_the_right_and_what_they_came_from_stays():
    caches = []
    for rows, length in ((2, 5), (1, 3)):
        caches.append(DynamicCache())
        caches[-1].update(states(rows, length), states(rows, length), 0)
    wide, narrow = (made.layers[0].keys for made in caches)
    before = wide.clone(), narrow.clone()
    (layer,) = gather([(caches[0], [1]), (caches[1], [0, 0])], 4).layers
    assert torch.equal(layer.keys[0], wide[1, :, 1:])
    assert torch.equal(layer.keys[1:, :, 1:], narrow.expand(2, -1, -1, -1))
    assert not layer.keys[1:, :, 0].any()
    layer.update(states(3, 1), states(3, 1))
    assert torch.equal(wide, before[0])
    assert torch.equal(narrow, before[1])
