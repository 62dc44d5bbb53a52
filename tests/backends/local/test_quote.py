"""Openings whose gaps the model fills with words of the question."""

from __future__ import annotations

import pytest
import torch

from honestproxy.backends.local import chat, quote
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
    begun = opening(tokenizer, parts, question, None)
    lead, tokens = Lead(begun.rest), chat.encode(tokenizer, begun.text)
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


@pytest.mark.parametrize("question", ["", "???", "What is it?", "金价现在是多少？", "how are you"])
def test_where_nothing_can_be_quoted_it_says_this(tokenizer, question):
    begun = opening(tokenizer, PRICE, question, None)
    assert begun.text == "I don't know the price of this. To find it,"
    assert not begun.rest


def test_an_opening_without_a_gap_is_told_at_once(tokenizer):
    begun = opening(tokenizer, ["I'm an AI."], QUESTION, None)
    assert (begun.text, begun.rest) == ("I'm an AI.", ())


def test_spans_are_short_leave_out_the_speaker_and_stop_at_a_pause():
    spans = quote._spans("Compare Lima, Quito and my town with the old port of Kochi.")
    assert {"Lima", "Quito", "old port of Kochi"} <= {*spans}
    assert not any("my" in span.split() or "," in span for span in spans)
    assert all(len(span.split()) <= quote.LONGEST for span in spans)


@pytest.mark.parametrize(
    "question",
    [
        *("Where did you grow up?", "Are you human?", "Are you ever sad?", "Do you love me?"),
        *("Please call my mother", "Print this document", "Where is the van now?", "Is it safe?"),
    ],
)
def test_a_lone_verb_adjective_or_noun_that_wants_its_article_is_no_topic(tokenizer, question):
    begun = opening(tokenizer, PRICE, question, None)
    assert begun.text == "I don't know the price of this. To find it,"


@pytest.mark.parametrize(
    ("question", "spans", "others"),
    [
        ("What is `<b>gold</b>` at?", {"gold"}, {"b>gold</b", "b"}),
        ("Is 3 < 5 for x?", {"3 < 5"}, {"3", "x"}),
        ("Is **gold** up, or `silver`?", {"gold", "silver"}, {"gold**"}),
        (
            'Price of the "Mega, Ultra (2nd ed.)" phone?',
            {'"Mega, Ultra (2nd ed.)"', '"Mega, Ultra (2nd ed.)" phone'},
            {"2nd ed", "Mega", "Ultra"},
        ),
        ("Price of the Mega (2nd ed.) phone?", {"Mega (2nd ed.) phone", "Mega"}, {"2nd ed"}),
        ("Price of Mega (my old one) phones?", {"Mega"}, {"Mega (my old one) phones"}),
        ('What is "gold"?', {'"gold"'}, {'"gold', "gold"}),
        ("Draw me a picture of a cat.", {"a picture of a cat", "a cat"}, {"Draw", "cat", "a"}),
        ("Prove the Collatz conjecture", {"Collatz conjecture"}, {"Prove"}),
        ("Gold price?", {"Gold price", "Gold"}, set()),
        ("Did you see Ada there?", {"Ada"}, {"see Ada", "see"}),
    ],
)
def test_topics_are_whole_and_begin_as_names_of_things_do(question, spans, others):
    found = {*quote._spans(quote._MARKUP.sub(" ", question))}
    assert spans <= found
    assert not others & found


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


@pytest.mark.parametrize(
    "parts",
    [["The price of ", None], [None, " is unknown."], ["On ", None, " ", None, "b"], [None]],
)
async def test_gaps_may_stand_anywhere(random_local, ask, parts):
    answer = await random_local.complete(opened(ask, parts, max_tokens=60))
    assert len(answer.text) > 4
    assert not answer.text.startswith(" ")


def opened(ask, parts, question=QUESTION, **fields):
    quoted = {"type": "quote", "text": question}
    content = [quoted if part is None else {"type": "text", "text": part} for part in parts]
    request = ask(question, echo=True, **fields)
    asked = [*request.messages, {"role": "assistant", "content": content}]
    return request.replace(messages=asked)


async def test_control_tokens_in_a_question_are_never_quoted(random_local, words, ask):
    controls = [token.content for token in words.added_tokens_decoder.values() if token.special]
    assert controls
    question = f"Where is a {controls[0]}teapot{controls[1]} now?"
    answer = await random_local.complete(opened(ask, ["It is ", None, " here."], question))
    assert answer.text.startswith("It is a teapot here.")


@pytest.mark.parametrize("stop", ["price of", "of s", "of silver", "t know", "I don"])
async def test_a_stop_string_is_met_wherever_it_stands(random_local, ask, stop):
    request = opened(ask, PRICE, "silver?", stop=[stop], max_tokens=60, logprobs=True)
    answer = await random_local.complete(request)
    whole = "I don't know the price of silver. To find it,"
    assert answer.text == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"
    tokens = answer.choice["logprobs"]["content"]
    assert b"".join(bytes(one["bytes"]) for one in tokens).decode() == answer.text


async def test_an_opening_that_the_context_has_no_room_for_is_cut(random_local, words, ask):
    room = 60  # for the conversation's template and half of the opening
    context = (await random_local._ready(print)).loaded.context
    question = "a" * (context - room)
    request = ask(question, echo=True, max_tokens=200)
    asked = [*request.messages, {"role": "assistant", "content": "I can't tell. " * 40}]
    answer = await random_local.complete(request.replace(messages=asked))
    assert answer.finish_reason == "length"
    assert answer.text
    assert ("I can't tell. " * 40).startswith(answer.text)
    assert answer.usage["total_tokens"] <= context


async def test_half_a_character_is_a_clear_error(random_local, ask):
    with pytest.raises(InvalidRequest, match="lone surrogate"):
        await random_local.complete(ask("gold \ud800 now"))


def guarded(*texts):
    """What comes through of texts that are to be brief."""
    guard, said = StopGuard([], brief=True), ""
    for text in texts:
        out, stopped = guard.add(text)
        said += out
        if stopped:
            return said
    return said + guard.rest()


LIST = "You could use:\n\n1. wool\n2. felt. Or silk"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["Ask a broker.", " Gold", " is at 4."], "Ask a broker."),
        (["Ask a broker", ".\n", "\nGold is at 4."], "Ask a broker."),
        (["Ask a broker", "\n\n", "Gold is at 4."], "Ask a broker"),
        (["See www.e", ".g.org or U.S. banks", ". They know"], "See www.e.g.org or U.S. banks."),
        (["Ask Dr. Who, e.g. today! ", "Now"], "Ask Dr. Who, e.g. today!"),
        (['Ask: "Is it gold?" ', "Then go"], 'Ask: "Is it gold?"'),
        (["See page 4.5 of it. ", "4 is"], "See page 4.5 of it."),
        ([LIST, "\n\nGold is at 4."], LIST),
        (["You could use: ", "\n", "\n1. wool"], "You could use: \n\n1. wool"),
        (["去问银行。", "黄金是"], "去问银行。"),
        (["One line\nand another\n"], "One line\nand another"),
    ],
)
def test_a_brief_answer_ends_with_its_sentence_or_the_list_that_follows(texts, said):
    assert guarded(*texts) == said
    assert guarded(*"".join(texts)) == said


def test_what_is_given_may_have_more_sentences():
    guard = StopGuard([], brief=True)
    assert guard.add("I can't tell. To find it,", given=True) == (
        "I can't tell. To find it,",
        False,
    )
    assert guard.add(" ask.") == (" ask.", False)
    assert guard.add(" Gold") == ("", True)


async def test_brief_is_asked_for_by_name(random_local, ask):
    with pytest.raises(InvalidRequest, match="'brief' must be true or false"):
        await random_local.complete(ask(brief="yes"))
