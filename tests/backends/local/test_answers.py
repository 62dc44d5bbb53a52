import asyncio

import pytest
import torch

from honestproxy.backends import traits
from honestproxy.backends.local import Local, batch
from honestproxy.backends.local.chat import prompt
from honestproxy.backends.local.engine import MAX_ROWS
from honestproxy.errors import BackendError, HonestProxyError, InvalidRequest, UnknownModel
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest
from tests.backends.local.doubles import USER, Echo, llama, mixed, sliding, tokenizer


async def texts(backend, request):
    return [chunk.text async for chunk in backend.stream(request) if chunk.text]


def plainly(model, words, text, tokens):
    """What `generate` makes of it."""
    ids = words.encode(f"<user>{text}<bot>", add_special_tokens=False, return_tensors="pt")
    mask = torch.ones_like(ids)
    out = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False)
    return words.decode(out[0, ids.shape[1] :], skip_special_tokens=True).rstrip("\ufffd")


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_whole_answer_has_text_reason_and_usage(local, ask):
    response = await local.complete(ask("hello"))
    assert (response.text, response.finish_reason) == ("hello", "stop")
    assert response.usage == {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}
    assert response.get("model") == "echo"
    assert response.get("id").startswith("chatcmpl-")


async def test_a_stream_is_accepted_says_who_speaks_then_text_then_ends(local, ask):
    request = ask("hey", stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in local.stream(request)]
    assert chunks[0].choices == []
    assert chunks[1].delta == {"role": "assistant", "content": ""}
    assert [chunk.text for chunk in chunks[2:5]] == ["h", "e", "y"]
    assert chunks[5].choices[0]["finish_reason"] == "stop"
    assert (chunks[6].choices, chunks[6].usage["completion_tokens"]) == ([], 4)
    assert len({(chunk.get("id"), chunk.get("created")) for chunk in chunks}) == 1


async def test_a_stream_says_its_usage_only_where_asked(local, ask):
    assert all([chunk.usage is None async for chunk in local.stream(ask())])


async def test_tokens_are_streamed_as_they_are_made(words, ask):
    model = Echo()
    local = Local.of(model, words)
    stream = local.stream(ask("abc"))
    await anext(stream)
    await anext(stream)
    assert (await anext(stream)).text == "a"
    model.gate.clear()
    await asyncio.sleep(0.05)
    at = model.steps
    model.gate.set()
    assert "".join([chunk.text async for chunk in stream]) == "bc"
    assert model.steps >= at
    await local.aclose()


async def test_half_a_character_is_never_streamed(local, ask):
    text = "né 漢字 👍🏽 ok"
    pieces = await texts(local, ask(text))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


async def test_half_a_character_at_the_cap_is_left_out(local, ask):
    response = await local.complete(ask("né", max_tokens=2))
    assert (response.text, response.finish_reason) == ("n", "length")


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_the_cap_ends_an_answer(local, ask, field):
    response = await local.complete(ask("hello", **{field: 3}))
    assert (response.text, response.finish_reason) == ("hel", "length")
    assert response.usage["completion_tokens"] == 3


async def test_the_end_of_the_context_ends_an_answer(words, ask):
    local = Local.of(Echo(context=10), words)
    response = await local.complete(ask("hello", max_tokens=400))
    assert (response.text, response.finish_reason) == ("hel", "length")
    await local.aclose()


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("o w", "hell"),
        (["zzz", "ld"], "hello wor"),
        ("hello", ""),
        ("worldly", "hello world"),
        (["wor", "o"], "hell"),
    ],
)
async def test_no_part_of_a_stop_string_is_streamed(local, ask, stop, expected):
    request = ask("hello world", stop=stop)
    assert "".join(await texts(local, request)) == expected
    response = await local.complete(request)
    assert (response.text, response.finish_reason) == (expected, "stop")


async def test_what_is_asked_together_is_decoded_together(words, ask):
    model = Echo(delay=0.002)
    local = Local.of(model, words)
    sentences = ["a", "some longer text", "né", "x" * 40, "four words are here"]
    answers = await asyncio.gather(*(local.complete(ask(text)) for text in sentences))
    assert [answer.text for answer in answers] == sentences
    assert max(model.rows) >= 3
    assert model.steps < sum(map(len, sentences))
    await local.aclose()


async def test_rows_join_and_leave_while_others_go_on(words, ask):
    model = Echo(delay=0.002)
    local = Local.of(model, words)
    long = asyncio.create_task(local.complete(ask("the long one " * 10)))
    for text in ("first", "a second that is longer", "3"):
        await asyncio.sleep(0.02)
        assert (await local.complete(ask(text))).text == text
    leaves = asyncio.create_task(local.complete(ask("y" * 100)))
    await asyncio.sleep(0.05)
    leaves.cancel()
    assert (await long).text == "the long one " * 10
    await local.aclose()


async def test_a_prompt_longer_than_one_piece_is_read_in_pieces(words, ask):
    model = Echo(context=2000)
    local = Local.of(model, words)
    text = "0123456789" * 60
    assert (await local.complete(ask(text))).text == text
    await local.aclose()


async def test_greedy_in_a_batch_equals_one_by_one(random_local, ask):
    prompts = ["short", "a prompt that is longer than others", "né", "x" * 70]
    requests = [ask(text, max_tokens=40) for text in prompts]
    alone = [(await random_local.complete(request)).text for request in requests]
    together = await asyncio.gather(*map(random_local.complete, requests))
    assert [answer.text for answer in together] == alone


async def test_greedy_equals_the_librarys_own(words, ask):
    model = llama()
    local = Local.of(model, words)
    response = await local.complete(ask("compare me", max_tokens=30))
    assert response.text == plainly(model, words, "compare me", 30)
    await local.aclose()


@pytest.mark.parametrize("family", [sliding, mixed])
async def test_sliding_windows_in_a_batch_equal_the_librarys_own(words, ask, family, monkeypatch):
    monkeypatch.setattr(batch, "CHUNK", 16)
    model = family()
    local = Local.of(model, words)
    prompts = ["short", "a much longer question than that", "hm " * 20]
    requests = [ask(text, max_tokens=24) for text in prompts]
    answers = await asyncio.gather(*map(local.complete, requests))
    assert [answer.text for answer in answers] == [plainly(model, words, p, 24) for p in prompts]
    await local.aclose()


async def test_a_seed_gives_the_same_text_whatever_shares_the_batch(random_local, ask):
    request = ask("roll", seed=7, temperature=1.5, max_tokens=40)
    alone = (await random_local.complete(request)).text
    others = [ask("other " * i, temperature=2, max_tokens=50) for i in range(1, 4)]
    answers = await asyncio.gather(*map(random_local.complete, [*others, request]))
    assert answers[-1].text == alone
    other_seed = await random_local.complete(request.replace(seed=8))
    assert other_seed.text != alone


async def test_the_smallest_temperature_is_as_good_as_none(random_local, ask):
    request = ask("roll", seed=7, max_tokens=20)
    sure = await random_local.complete(request.replace(temperature=0))
    assert (await random_local.complete(request.replace(temperature=1e-40))).text == sure.text
    only = request.replace(temperature=2, top_p=0)
    assert (await random_local.complete(only)).text == sure.text


async def test_n_choices_share_a_prompt_and_differ(random_local, ask):
    request = ask("roll", n=3, seed=7, temperature=1.5, max_tokens=20)
    response = await random_local.complete(request)
    choices = response.get("choices")
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in choices}) == 3
    assert response.usage["completion_tokens"] <= 60
    streamed = ["", "", ""]
    async for chunk in random_local.stream(request):
        for choice in chunk.choices:
            streamed[choice["index"]] += choice["delta"].get("content") or ""
    assert streamed == [choice["message"]["content"] for choice in choices]


@pytest.mark.parametrize("n", [33, 128])
async def test_more_choices_than_are_decoded_at_once_come_in_turns(local, echo, ask, n):
    response = await local.complete(ask("hello", n=n))
    texts = [choice["message"]["content"] for choice in response.get("choices")]
    assert texts == ["hello"] * n
    assert response.usage["completion_tokens"] == n * len("hello.")
    assert max(echo.rows) == MAX_ROWS


@pytest.mark.parametrize("choices", [1, 2 * MAX_ROWS + 6])  # the latter wait their turn
async def test_cancelling_stops_the_model_within_one_token(words, ask, choices):
    model = Echo(delay=0.005)
    local = Local.of(model, words)
    task = asyncio.create_task(local.complete(ask("z" * 400, n=choices)))
    await until(lambda: model.steps > 3)
    task.cancel()
    at = model.steps
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.05)
    assert model.steps <= at + 1
    await local.aclose()


async def test_closing_a_stream_stops_the_model_within_one_token(words, ask):
    model = Echo(delay=0.005)
    local = Local.of(model, words)
    stream = local.stream(ask("z" * 400))
    async for chunk in stream:
        if chunk.text:
            break
    await stream.aclose()
    at = model.steps
    await asyncio.sleep(0.05)
    assert model.steps <= at + 1
    assert (await local.complete(ask("next"))).text == "next"
    await local.aclose()


async def test_the_event_loop_is_not_blocked(words, ask):
    model = Echo(delay=0.2)
    local = Local.of(model, words)
    task = asyncio.create_task(local.complete(ask("abc")))
    worst, loop = 0.0, asyncio.get_running_loop()
    while not task.done():
        before = loop.time()
        await asyncio.sleep(0.01)
        worst = max(worst, loop.time() - before)
    assert worst < 0.15
    await local.aclose()


async def test_an_error_reaches_its_request_and_the_thread_survives(local, echo, ask, caplog):
    echo.fail = RuntimeError("out of memory")
    with pytest.raises(BackendError, match="out of memory"):
        await local.complete(ask())
    echo.fail = None
    assert (await local.complete(ask("again"))).text == "again"
    assert "the local model failed" in caplog.text


async def test_an_error_in_the_middle_reaches_all_that_share_the_batch(words, ask):
    model = Echo(delay=0.005)
    local = Local.of(model, words)
    tasks = [asyncio.create_task(local.complete(ask("z" * 300))) for _ in range(2)]
    await until(lambda: 2 in model.rows)
    model.fail = RuntimeError("lost")
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [BackendError, BackendError]
    model.fail = None
    assert (await local.complete(ask("again"))).text == "again"
    await local.aclose()


async def test_closing_ends_the_thread_and_fails_what_is_in_flight(words, ask):
    model = Echo(delay=0.005)
    local = Local.of(model, words)
    task = asyncio.create_task(local.complete(ask("z" * 300)))
    await until(lambda: model.steps > 3)
    await local.aclose()
    with pytest.raises(BackendError, match="closed"):
        await task
    at = model.steps
    await asyncio.sleep(0.03)
    assert model.steps == at
    with pytest.raises(BackendError, match="closed"):
        await local.complete(ask())
    await local.aclose()


async def test_work_can_be_done_inside_between_two_steps(local, echo, words):
    assert await local.inside(lambda model, tokenizer: (model, tokenizer)) == (echo, words)
    with pytest.raises(ZeroDivisionError):
        await local.inside(lambda model, tokenizer: 1 / 0)


async def test_the_model_here_is_listed_and_another_is_unknown(local, ask):
    assert [model["id"] for model in await local.models()] == ["echo"]
    assert (await local.complete(ask("hi", model="echo"))).text == "hi"
    with pytest.raises(UnknownModel, match="'gpt-4' does not exist here; there is 'echo'") as error:
        await local.complete(ask(model="gpt-4"))
    assert (error.value.status, error.value.param) == (404, "model")


def test_the_embedded_model_reads_its_doubts_from_inside(tmp_path):
    embedded = Local("smollm2-135m-instruct", Settings(cache=tmp_path))
    assert traits(embedded).default_strategy == "introspect"


def test_its_traits_are_those_of_a_small_model(local):
    assert traits(local).default_strategy == "introspect"
    assert traits(local).confusion_tokens < 1024


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"stop": 3}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", 1]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"logprobs": 5}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 0}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": "2"}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ],
)
async def test_what_is_wrong_or_impossible_is_a_clear_400(local, ask, fields, param):
    request = ask().replace(**fields)
    with pytest.raises(InvalidRequest) as error:
        await local.complete(request)
    assert (error.value.status, error.value.param) == (400, param)
    with pytest.raises(InvalidRequest):
        await anext(local.stream(request))


async def test_what_changes_nothing_is_taken(local, ask):
    harmless = {"response_format": {"type": "text"}, "user": "me", "whatever": [1], "stop": None}
    assert (await local.complete(ask("hi", **harmless))).text == "hi"


async def test_parts_of_text_are_joined_and_an_image_is_refused(local):
    def parts(*parts):
        return ChatRequest({"messages": [{"role": "user", "content": list(parts)}]})

    one, two = {"type": "text", "text": "one"}, {"type": "text", "text": "two"}
    assert (await local.complete(parts(one, two))).text == "one\ntwo"
    with pytest.raises(InvalidRequest, match="image_url") as error:
        await local.complete(parts(one, {"type": "image_url", "image_url": {"url": "data:"}}))
    assert error.value.code == "unsupported_content"


@pytest.mark.parametrize("text", ["x<bot>y<user>z", "<end>", "a <system>b", "<<end>>", "<bot"])
async def test_a_control_token_inside_a_message_stays_text(local, ask, text):
    assert (await local.complete(ask(text))).text == text


def test_control_tokens_in_tools_and_in_calls_stay_text():
    words = tokenizer(
        "{% for m in messages %}<user>{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}"
        "{% endfor %}{{ tools | tojson }}"
    )
    said = "a<user>b"
    call = {"id": said, "type": "function", "function": {"name": "f", "arguments": {said: [said]}}}
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": said},
    ]
    tool = {"type": "function", "function": {"name": "f", "description": said}}
    ids = prompt(words, ChatRequest({"messages": messages, "tools": [tool]}), 512)
    assert ids.count(words.convert_tokens_to_ids(USER)) == len(messages)
    assert words.decode(ids).count(said) == 5


async def test_a_template_that_refuses_is_a_400_with_its_words(local):
    with pytest.raises(InvalidRequest, match="no critics here"):
        await local.complete(ChatRequest({"messages": [{"role": "critic", "content": "hm"}]}))


async def test_a_prompt_over_the_context_names_both_lengths(local, ask):
    with pytest.raises(InvalidRequest, match=r"length is 512 tokens.* in 602 tokens") as error:
        await local.complete(ask("x" * 600))
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "messages")


async def test_an_answer_begun_is_continued(local):
    begun = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "he"}]
    assert (await local.complete(ChatRequest({"messages": begun}))).text == "llo"


async def test_a_failed_load_is_tried_again(words, ask):
    model = Echo()
    broken = Local.of(model, words)
    words_without = type("T", (), {"chat_template": None})()
    backend = Local.of(model, words_without)
    for _ in range(2):
        with pytest.raises(HonestProxyError, match="no chat template"):
            await backend.load()
    await broken.aclose()
    await backend.aclose()


async def test_loading_happens_once_and_survives_a_cancelled_request(words, ask):
    local = Local.of(Echo(), words)
    first = asyncio.create_task(local.complete(ask("first")))
    second = asyncio.create_task(local.complete(ask("second")))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).text == "second"
    await local.aclose()
