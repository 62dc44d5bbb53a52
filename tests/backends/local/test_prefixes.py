"""What is known of a prompt is not read again, and changes nothing."""

import asyncio

import pytest
import torch
from transformers import (
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
)
from transformers.cache_utils import DynamicSlidingWindowLayer

from honestproxy.backends.local import Local, batch, prefixes
from honestproxy.backends.local.prefixes import Prefixes
from honestproxy.types import ChatRequest
from tests.backends.local.doubles import SHAPE, llama, mixed, sliding
from tests.backends.local.test_answers import until


def gpt2():
    torch.manual_seed(0)
    shape = {"vocab_size": 261, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
    return GPT2LMHeadModel(GPT2Config(**shape, eos_token_id=0, initializer_range=0.5)).eval()


def neox():
    torch.manual_seed(0)
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)).eval()


def fed(model):
    """How many tokens each call of the model reads, in all its rows."""
    sizes = []

    def note(module, args, kwargs):
        sizes.append(kwargs["input_ids"].numel())

    model.register_forward_pre_hook(note, with_kwargs=True)
    return sizes


def conversation(*texts, **fields):
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return ChatRequest({"messages": messages, "max_tokens": 12, **fields})


@pytest.mark.parametrize("make", [llama, gpt2, neox, sliding, mixed])
async def test_answers_are_the_same_with_what_is_known_and_without(words, make, monkeypatch):
    monkeypatch.setattr(batch, "CHUNK", 16)
    first = conversation("tell me about the sea " * 3)
    warm = Local.of(make(), words)
    answer = (await warm.complete(first)).text
    turns = [
        first,
        conversation(first.messages[0]["content"], answer, "and then?"),
        conversation("tell me about the sky"),
        conversation("tell me"),
        conversation(first.messages[0]["content"], "so"),
    ]
    texts = [(await warm.complete(turn)).text for turn in turns]
    together = await asyncio.gather(*map(warm.complete, turns))
    await warm.aclose()
    assert [answer.text for answer in together] == texts
    for turn, text in zip(turns, texts, strict=True):
        cold = Local.of(make(), words)
        assert (await cold.complete(turn)).text == text
        await cold.aclose()


async def test_the_next_turn_reads_only_what_is_new(words, ask):
    model = llama(eos_token_id=None)
    sizes = fed(model)
    local = Local.of(model, words)
    engine = (await local._ready(print)).engine
    request = ask("x" * 100, max_tokens=10)
    written = (await local.complete(request)).usage["completion_tokens"]
    assert sizes == [102] + [1] * (written - 1)
    await until(lambda: len(engine._prefixes._kept[0].ids) == 102 + written - 1)
    (known,) = engine._prefixes._kept
    longer = [*known.ids, 5, 6, 7]
    assert engine._prefixes.find(longer, len(longer))[1:] == (len(known.ids), None)
    del sizes[:]
    await local.complete(request)
    assert sizes == [1] * (written - 1)
    del sizes[:]
    await local.complete(ask("x" * 99 + "y", max_tokens=10))
    assert sizes[0] == 102 - 100
    await local.aclose()


async def test_what_is_asked_together_is_read_once(words, ask):
    model = llama(eos_token_id=None)
    sizes = fed(model)
    local = Local.of(model, words)
    texts = ["x" * 300 + end for end in ("", "in doubt?")]
    await asyncio.gather(*[local.complete(ask(text, max_tokens=1)) for text in texts])
    assert sum(sizes) == 302 + len("in doubt?") + 1
    await local.aclose()


async def test_each_choice_of_a_known_prompt_goes_its_own_way(words, ask):
    model = llama(eos_token_id=None)
    local = Local.of(model, words)
    request = ask("roll", n=3, seed=7, temperature=1.5, max_tokens=20)
    answers = [await local.complete(request) for _ in range(2)]
    texts = [[c["message"]["content"] for c in answer.get("choices")] for answer in answers]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 3
    await local.aclose()


async def test_nothing_is_known_after_work_inside_or_the_end(words, ask):
    local = Local.of(llama(), words)
    engine = (await local._ready(print)).engine
    await local.complete(ask())
    assert engine._prefixes._kept
    await local.inside(lambda model, tokenizer: None)
    assert not engine._prefixes._kept
    await local.complete(ask())
    await local.aclose()
    assert not engine._prefixes._kept


async def test_a_rotation_that_depends_on_the_length_is_read_anew(words, ask):
    rotation = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    local = Local.of(llama(rope_parameters=rotation), words)
    engine = (await local._ready(print)).engine
    await local.complete(ask())
    assert not engine._prefixes._kept
    await local.aclose()


def a_cache(length, rows=1, layers=2):
    cache = DynamicCache()
    for layer in range(layers):
        states = torch.randn(rows, 2, length, 4)
        cache.update(states, states + 1, layer)
    return cache


def test_a_beginning_is_found_and_stays_as_it_was():
    kept, cache = Prefixes(), a_cache(5)
    kept.keep([1, 2, 3, 4, 5], cache, torch.ones(9))
    before = cache.layers[0].keys.clone()
    begun, length, logits = kept.find([1, 2, 3, 7, 8], 5)
    assert (length, begun.get_seq_length(), logits) == (3, 3, None)
    begun.batch_repeat_interleave(2)
    begun.update(torch.zeros(2, 2, 4, 4), torch.zeros(2, 2, 4, 4), 0)
    whole, length, logits = kept.find([1, 2, 3, 4, 5], 5)
    assert (length, logits.tolist()) == (5, [1] * 9)
    whole.update(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4), 0)
    assert torch.equal(kept.find([1, 2, 3, 4, 5], 5)[0].layers[0].keys, before)
    assert kept.find([1, 2, 3, 4, 5], 2)[1:] == (2, None)
    assert kept.find([1, 2], 2)[1:] == (1, None)
    assert kept.find([2], 1)[1:] == (0, None)


def test_a_longer_one_takes_the_place_of_its_beginning_and_knows_its_logits():
    kept = Prefixes()
    kept.keep([1, 2], a_cache(2), torch.zeros(9))
    kept.keep([1, 2, 3], a_cache(3), torch.ones(9))
    assert len(kept._kept) == 1
    assert kept.find([1, 2], 2)[2].tolist() == [0] * 9
    kept.keep([1], a_cache(1), torch.ones(9) * 2)
    assert len(kept._kept) == 1
    assert kept.find([1], 1)[2].tolist() == [2] * 9


def test_those_used_longest_ago_go_first(monkeypatch):
    one = a_cache(4)
    size = 4 * (sum(layer.keys.numel() for layer in one.layers) * 2 + 9)
    kept = Prefixes(2 * size)
    for token in (1, 2):
        kept.keep([token] * 4, a_cache(4), torch.zeros(9))
    kept.find([1, 1], 2)
    kept.keep([3] * 4, one, torch.zeros(9))
    assert [known.ids[0] for known in kept._kept] == [1, 3]
    kept.keep([5] * 40, a_cache(40), torch.zeros(9))
    assert kept._size() <= 2 * size
    monkeypatch.setattr(prefixes, "CONVERSATIONS", 1)
    kept = Prefixes()
    for token in (1, 2):
        kept.keep([token], a_cache(1), torch.zeros(9))
    assert [known.ids[0] for known in kept._kept] == [2]


def test_a_row_of_a_padded_batch_is_kept_without_the_others():
    kept, cache = Prefixes(), a_cache(6, rows=3)
    kept.keep([1, 2, 3, 4], cache, torch.zeros(3, 9)[1], row=1)
    (known,) = kept._kept
    keys = known.layers[1][0]
    assert torch.equal(keys, cache.layers[1].keys[1:2, :, 2:])
    assert keys.untyped_storage().nbytes() == keys.nbytes
    assert known.logits[4].untyped_storage().nbytes() == 9 * 4


def test_a_cache_of_another_kind_is_left_alone():
    kept, cache = Prefixes(), a_cache(4)
    cache.layers[1] = DynamicSlidingWindowLayer(sliding_window=3)
    cache.update(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), 1)
    kept.keep([1, 2, 3, 4], cache, torch.zeros(9))
    assert not kept._kept
    kept.keep([1, 2, 3, 4, 5], a_cache(4), torch.zeros(9))
    assert not kept._kept
