"""Log-probabilities of given texts: the model's own, whatever is read together or known before."""

import pytest
import torch

from honestproxy.backends.local import Local, choices
from honestproxy.errors import BackendError, InvalidRequest
from tests.backends.local.doubles import llama, mixed, sliding
from tests.backends.local.test_prefixes import fed, gpt2, neox

FIRST = "Q: Is tea green?\nA:"
TEXTS = [" yes", " no, it is brown", " x", " nobody has ever seen any", " yes", " ß"]


def one_by_one(model, words, first, texts):
    """The definition: each whole text read on its own, each token's log-probability summed."""
    known = words.encode(first)
    for text in texts:
        ids = words.encode(first + text)
        with torch.inference_mode():
            chances = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        places = range(len(known), len(ids))
        yield sum(float(chances[place - 1, ids[place]]) for place in places)


@pytest.mark.parametrize("make", [llama, gpt2, neox, sliding, mixed])
@pytest.mark.parametrize("tokens", [1, 40, 1000])
async def test_they_are_what_reading_each_whole_text_gives(words, make, tokens, monkeypatch):
    monkeypatch.setattr(choices, "TOKENS", tokens)
    local = Local.of(make(), words)
    found = await local.choices(FIRST, TEXTS)
    assert found == pytest.approx(list(one_by_one(make(), words, FIRST, TEXTS)), abs=1e-3)
    assert found[0] == pytest.approx(found[4], abs=1e-4)
    await local.aclose()


@pytest.mark.parametrize("make", [llama, gpt2, sliding])
async def test_what_is_known_changes_nothing(words, make):
    local = Local.of(make(), words)
    primer = "Q: Is it?\nA: It is.\n\n"
    for first in (primer + FIRST, primer + "Q: Is it red?\nA:", primer + FIRST, "Q: Is it?"):
        expected = list(one_by_one(make(), words, first, TEXTS[:2]))
        assert await local.choices(first, TEXTS[:2]) == pytest.approx(expected, abs=1e-3)
    await local.aclose()


async def test_what_texts_share_is_read_once(words):
    model = llama()
    sizes = fed(model)
    local = Local.of(model, words)
    primer = "x" * 100
    await local.choices(primer + " one?", [" abc", " abcde"])
    assert sizes == [len(primer + " one?"), 2 * 5]
    del sizes[:]
    await local.choices(primer + " two?", [" z", " abc"])
    assert sizes == [len("two?"), 2 * 3]
    del sizes[:]
    await local.choices(primer + " two?", ["a"])
    assert sizes == []
    await local.aclose()


async def test_a_conversation_is_still_known_afterwards(words, ask):
    model = llama()
    local = Local.of(model, words)
    await local.complete(ask("x" * 50, max_tokens=1))
    await local.choices(FIRST, TEXTS)
    sizes = fed(model)
    await local.complete(ask("x" * 50, max_tokens=1))
    assert sizes == []
    await local.aclose()


async def test_a_space_at_the_end_belongs_to_the_texts(words):
    local = Local.of(llama(), words)
    assert await local.choices("A: ", ["yes"]) == await local.choices("A:", [" yes"])
    await local.aclose()


@pytest.mark.parametrize(
    ("first", "texts", "says"),
    [
        ("", [" a"], "no text before the choices"),
        ("a", [" b", ""], "choice 1 adds nothing"),
        ("a" * 400, [" b", "b" * 200], r"maximum context length is 512 tokens.*choice 1.*600"),
    ],
)
async def test_what_cant_be_weighed_is_said(words, first, texts, says):
    local = Local.of(llama(), words)
    with pytest.raises(InvalidRequest, match=says):
        await local.choices(first, texts)
    await local.aclose()


async def test_a_model_that_fails_is_a_backend_error_and_goes_on(local, echo, ask):
    echo.fail = RuntimeError("out of memory")
    with pytest.raises(BackendError, match=r"can't weigh these texts .*out of memory"):
        await local.choices(FIRST, TEXTS)
    echo.fail = None
    assert (await local.complete(ask("hello"))).text == "hello"
