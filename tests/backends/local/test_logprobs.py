"""Log-probabilities: of which tokens, which numbers, and that their bytes are the text."""

import asyncio
import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from honestproxy.backends.local import Local
from honestproxy.backends.local.logprobs import Ledger, Spelling
from honestproxy.errors import InvalidRequest
from tests.backends.local.doubles import BOT, END, TEMPLATE, USER, llama

NO_END = {"logit_bias": {0: -100}}


def sentencepiece():
    """A space is a letter of a word, what isn't in the vocabulary is bytes, as in Llama 2."""
    pieces = [END, USER, BOT, "<system>", "<tools>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["\u2581", *"abcdefghijklmnopqrstuvwxyz", "\u2581a", "\u2581b", "é", "漢"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = [("\u2581", "a"), ("\u2581", "b")]
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True))
    raw.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    raw.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    raw.add_special_tokens(pieces[:5])
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END, pad_token=END)
    made.chat_template = TEMPLATE
    return made


def spelled(content):
    return b"".join(bytes(entry["bytes"] or ()) for entry in content)


def joined(content):
    return spelled(content).decode()


def whole(response, choice=0):
    told = response.get("choices")[choice]["logprobs"]
    assert told["refusal"] is None
    return told["content"]


async def streamed(local, request):
    """The text and the entries of each choice; at no time more of these than of that."""
    texts, told = [""] * (request.get("n") or 1), [[] for _ in range(request.get("n") or 1)]
    async for chunk in local.stream(request):
        for choice in chunk.choices:
            texts[choice["index"]] += choice["delta"].get("content") or ""
            told[choice["index"]] += (choice["logprobs"] or {}).get("content") or []
            assert texts[choice["index"]].encode().startswith(spelled(told[choice["index"]]))
    return texts, told


async def test_each_token_of_a_text_is_told_but_not_its_end(local, ask):
    response = await local.complete(ask("né 漢", logprobs=True))
    content = whole(response)
    assert len(content) == len("né 漢".encode()) == response.usage["completion_tokens"] - 1
    assert joined(content) == response.text == "né 漢"
    assert [entry["token"] for entry in content[:3]] == ["n", "\\xc3", "\\xa9"]
    assert content[1]["bytes"] == [0xC3]
    assert all(entry["top_logprobs"] == [] for entry in content)
    assert all(-1e-6 < entry["logprob"] <= 0 for entry in content)


async def test_unasked_there_are_none(local, ask):
    for fields in ({}, {"logprobs": False}, {"logprobs": None, "top_logprobs": None}):
        response = await local.complete(ask(**fields))
        assert response.get("choices")[0]["logprobs"] is None
        async for chunk in local.stream(ask(**fields)):
            assert all(choice["logprobs"] is None for choice in chunk.choices)


@pytest.mark.parametrize("fields", [{}, {"temperature": 1.7, "seed": 3, "presence_penalty": 1.0}])
async def test_they_are_the_models_own_before_anything_is_done_to_them(words, ask, fields):
    model = llama()
    local = Local.of(model, words)
    bias = {"logit_bias": {65: 5, 0: -100}}
    request = ask("hm", logprobs=True, top_logprobs=4, max_tokens=12, **bias, **fields)
    content = whole(await local.complete(request))
    ids = words.encode("<user>hm<bot>", add_special_tokens=False)
    for entry in content:
        with torch.inference_mode():
            expected = model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        best = expected.topk(4)
        found = [other["logprob"] for other in entry["top_logprobs"]]
        assert found == pytest.approx(best.values.tolist(), abs=1e-3)
        spelling = Spelling(words, lambda some: words.decode(some, skip_special_tokens=True))
        names = [other["token"] for other in entry["top_logprobs"]]
        assert names == [spelling(token)[0] for token in best.indices.tolist()]
        token = next(token for token in range(261) if spelling(token)[0] == entry["token"])
        assert entry["logprob"] == pytest.approx(float(expected[token]), abs=1e-3)
        ids.append(token)
    await local.aclose()


@pytest.mark.parametrize("stop", [None, "t", "x", ["\ufffd"], "ab"])
@pytest.mark.parametrize("make", [None, sentencepiece])
async def test_their_bytes_are_the_text_whatever_the_alphabet(words, ask, make, stop):
    tokenizer = make() if make else words
    local = Local.of(llama(vocab_size=300 if make else 261), tokenizer)
    requests = [
        ask("abc", seed=seed, temperature=2, max_tokens=seed, stop=stop, logprobs=True, n=2)
        for seed in range(1, 40, 3)
    ]
    answers = await asyncio.gather(*map(local.complete, requests))
    for request, answer in zip(requests, answers, strict=True):
        texts = [choice["message"]["content"] for choice in answer.get("choices")]
        told = [whole(answer, choice) for choice in (0, 1)]
        assert [joined(content) for content in told] == texts
        again, pieces = await streamed(local, request)
        assert (again, [joined(content) for content in pieces]) == (texts, texts)
        assert [[e["token"] for e in c] for c in pieces] == [[e["token"] for e in c] for c in told]
    await local.aclose()


async def test_what_a_stop_string_cuts_off_is_left_out(local, ask):
    for text in ("hello world", "héllo wörld"):
        response = await local.complete(ask(text, stop=[" w"], logprobs=True))
        assert joined(whole(response)) == response.text == text.split(" ")[0]
        texts, told = await streamed(local, ask(text, stop=[" w"], logprobs=True))
        assert [joined(content) for content in told] == texts


@pytest.mark.parametrize("make", [None, sentencepiece])
async def test_an_opening_is_weighed_by_the_model_too(words, ask, make):
    tokenizer = make() if make else words
    model = llama(vocab_size=300 if make else 261)
    local = Local.of(model, tokenizer)
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a bée"}]
    fields = {"messages": said, "echo": True, "logprobs": True, "max_tokens": 14, **NO_END}
    await local.complete(ask(messages=said, max_tokens=1))
    response = await local.complete(ask(**fields, n=2, top_logprobs=1))
    ids = tokenizer.encode("<user>hi<bot>a bée", add_special_tokens=False)
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    for choice in (0, 1):
        content = whole(response, choice)
        assert joined(content) == response.get("choices")[choice]["message"]["content"]
        count = next(i for i in range(20) if spelled(content[:i]) == "a bée".encode())
        first = len(ids) - count
        chances = [float(expected[place - 1, ids[place]]) for place in range(first, len(ids))]
        assert [entry["logprob"] for entry in content[:count]] == pytest.approx(chances, abs=1e-3)
        assert len(content) > count
    texts, told = await streamed(local, ask(**fields, n=2, top_logprobs=1))
    assert [joined(content) for content in told] == texts
    await local.aclose()


async def test_an_opening_that_a_cap_cuts_is_weighed_as_far_as_it_goes(words, ask):
    local = Local.of(llama(), words)
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Wéll then,"}]
    for cap in (1, 2, 3, 6):
        asked = ask(messages=said, echo=True, max_tokens=cap, logprobs=True)
        cut = await local.complete(asked)
        assert (joined(whole(cut)), cut.finish_reason) == (cut.text, "length")
        assert "Wéll then,".startswith(cut.text)
        texts, told = await streamed(local, asked)
        assert (texts, [joined(content) for content in told]) == ([cut.text], [cut.text])
    await local.aclose()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"top_logprobs": 2}, "is only allowed when 'logprobs' is enabled"),
        ({"logprobs": True, "top_logprobs": 21}, "must be less than or equal to 20"),
        ({"logprobs": True, "top_logprobs": -1}, "integer below minimum value"),
    ],
)
async def test_what_is_wrong_is_said_in_openais_words(local, ask, fields, says):
    with pytest.raises(InvalidRequest, match=says) as error:
        await local.complete(ask(**fields))
    assert error.value.param == "top_logprobs"


def test_what_cant_be_is_a_number_that_json_knows(words):
    ledger = Ledger(Spelling(words, words.decode), 2)
    logits = torch.full((261,), -math.inf)
    logits[70] = 1.0
    ledger.add(71, logits, "C")
    (entry,) = ledger.close("", "C")
    assert entry["logprob"] == -9999.0
    assert [other["logprob"] for other in entry["top_logprobs"]] == [0, -9999.0]


def test_a_control_token_within_an_answer_has_a_name_and_no_bytes(words):
    spelling = Spelling(words, lambda ids: words.decode(ids, skip_special_tokens=True))
    assert spelling(2) == ("<bot>", None)
    ledger = Ledger(spelling, 0)
    ledger.add(70, torch.zeros(261), "b")
    ledger.add(2, torch.zeros(261), "")
    ledger.add(71, torch.zeros(261), "c")
    told = [*ledger.out("b"), *ledger.close("", "c")]
    assert [entry["bytes"] for entry in told] == [[98], None, [99]]
