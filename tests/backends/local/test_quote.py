"""Openings whose gaps the model fills with words of the question."""

from __future__ import annotations

import pytest
import torch

from honestproxy.backends.local import quote
from honestproxy.backends.local.quote import Lead, opening
from honestproxy.backends.local.text import StopGuard
from honestproxy.errors import InvalidRequest
from tests.backends.local.doubles import tokenizer as made

PRICE = ["I don't know the price of ", None, ". To find it,"]
QUESTION = "What does the silver teapot of my aunt cost today?"


@pytest.fixture(scope="module")
def tokenizer():
    return made()


def written(tokenizer, parts, question, liked=""):
    """What an answer begins with, for a model that likes some text's tokens and then an end."""
    logits = torch.zeros(len(tokenizer))
    logits[tokenizer.encode(liked, add_special_tokens=False)] = 2.0
    begun = opening(tokenizer, parts, question)
    lead, tokens = Lead(begun.rest), list(begun.tokens)
    while (token := lead.next(logits)) is not None:
        tokens.append(token)
    return tokenizer.decode(tokens)


def test_a_gap_holds_words_of_the_question(tokenizer):
    said = written(tokenizer, PRICE, QUESTION, liked=" silver teapot")
    assert said.startswith("I don't know the price of ")
    assert said.endswith(". To find it,")
    (filled,) = [said.removeprefix(PRICE[0]).removesuffix(PRICE[2])]
    assert filled in QUESTION
    assert filled.split()[0] not in ("What", "does", "the", "my")


@pytest.mark.parametrize("question", ["", "???", "What is it?", "你" * 200, "how are you"])
def test_where_nothing_can_be_quoted_it_says_this(tokenizer, question):
    begun = opening(tokenizer, PRICE, question)
    assert begun.text == "I don't know the price of this. To find it,"
    assert not begun.rest


def test_an_opening_without_a_gap_is_told_at_once(tokenizer):
    begun = opening(tokenizer, ["I'm an AI."], QUESTION)
    assert (begun.text, begun.rest) == ("I'm an AI.", ())
    assert tokenizer.decode(begun.tokens) == "I'm an AI."


def test_spans_are_short_leave_out_the_speaker_and_stop_at_a_pause():
    spans = quote._spans("Compare Lima, Quito and my town with the old port of Kochi.")
    assert {"Lima", "Quito", "old port of Kochi", "town"} <= {*spans}
    assert not any("my" in span.split() or "," in span for span in spans)
    assert all(len(span.split()) <= quote.LONGEST for span in spans)


def test_a_long_question_is_looked_at_at_both_ends():
    spans = quote._spans(" ".join(f"word{number}" for number in range(5000)))
    assert "word0" in spans
    assert "word4999" in spans
    assert len(spans) < 2000


def test_several_gaps_are_filled_one_after_the_other(tokenizer):
    said = written(tokenizer, ["On ", None, ", and ", None, "."], QUESTION)
    assert said.startswith("On ")
    assert said.count(", and ") == 1
    assert said.endswith(".")


async def test_through_the_backend_the_gap_holds_the_question_s_words(random_local, ask):
    question = {"type": "quote", "text": QUESTION}
    parts = [{"type": "text", "text": PRICE[0]}, question, {"type": "text", "text": PRICE[2]}]
    request = ask(QUESTION, echo=True, max_tokens=60)
    asked = [*request.messages, {"role": "assistant", "content": parts}]
    answer = await random_local.complete(request.replace(messages=asked))
    filled = answer.text.removeprefix(PRICE[0]).partition(PRICE[2])[0]
    assert filled in QUESTION
    streamed = [chunk async for chunk in random_local.stream(request.replace(messages=asked))]
    texts = [chunk.text for chunk in streamed if chunk.text]
    assert "".join(texts) == answer.text
    assert texts[0].strip() == PRICE[0].strip()


async def test_a_stop_string_inside_an_opening_ends_the_answer(random_local, ask):
    request = ask(QUESTION, echo=True, stop=[" price"], max_tokens=60)
    asked = [*request.messages, {"role": "assistant", "content": "I don't know the price of it"}]
    answer = await random_local.complete(request.replace(messages=asked))
    assert (answer.text, answer.finish_reason) == ("I don't know the", "stop")


def guarded(*texts):
    """What comes through of texts that are to end with their paragraph."""
    guard, said = StopGuard([], paragraph=True), ""
    for text in texts:
        out, stopped = guard.add(text)
        said += out
        if stopped:
            return said
    return said + guard.rest()


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["Ask a broker.\n", "\nGold is at 4."], "Ask a broker."),
        (["Ask a broker.", "\n\n", "Gold is at 4."], "Ask a broker."),
        (
            ["You could use:\n\n1. wool\n", "2. felt\n\nGold is at 4."],
            "You could use:\n\n1. wool\n2. felt",
        ),
        (["You could use:", "\n", "\n1. wool"], "You could use:\n\n1. wool"),
        (["You could use: ", "\n\n1. wool"], "You could use: \n\n1. wool"),
        (["One line\nand another\n"], "One line\nand another\n"),
    ],
)
def test_one_paragraph_is_enough_but_a_colon_says_that_more_follows(texts, said):
    assert guarded(*texts) == said


async def test_one_paragraph_is_asked_for_by_name(random_local, ask):
    with pytest.raises(InvalidRequest, match="'one_paragraph' must be true or false"):
        await random_local.complete(ask(one_paragraph="yes"))
