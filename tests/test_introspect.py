"""The strategy `introspect`, with a scripted reader."""

import asyncio
from typing import Any

import pytest

from honestproxy.backends.scripted import Scripted
from honestproxy.doubts import Scores
from honestproxy.errors import BackendError, InvalidRequest
from honestproxy.pipeline import Pipeline, Run
from honestproxy.settings import Settings
from honestproxy.templates import Prompts
from honestproxy.types import ChatRequest, Options
from tests.readers import PRICE, Reading

PRICES = Prompts()["introspect/latest_information-live_price"]
OPENING = PRICES.render(topic="gold")


def turn(backend: Any, options: dict[str, Any] | None = None, **body: Any) -> Run:
    request = ChatRequest(
        {"model": "m", "messages": [{"role": "user", "content": "What is the price of gold?"}]}
        | body,
        options=Options(**{"strategy": "introspect"} | (options or {})),
    )
    return Pipeline(backend, Settings(on_failure="draft")).run(request)


async def test_doubt_opens_the_answer_and_costs_one_call():
    backend = Reading([" ask a broker."])
    run = turn(backend)
    answer = await run.complete()
    assert answer.text == f"{OPENING} ask a broker."
    before, _, after = PRICES.parts()
    quote = {"type": "quote", "text": "What is the price of gold?"}
    parts = [{"type": "text", "text": before}, quote, {"type": "text", "text": after}]
    assert backend.requests[0].messages[-1] == {"role": "assistant", "content": parts}
    said = run.honesty.body()
    assert (said["outcome"], said["reason"]) == ("rewritten", "latest_information 0.95")
    assert said["doubts"] == [{"kind": "latest_information", "statement": OPENING}]
    assert said["confidence"] == pytest.approx(0.05)
    assert (said["calls"], len(backend.requests)) == (1, 1)
    (step,) = said["steps"]
    assert step["prompt"] == "introspect/latest_information-live_price"
    assert step["scores"]["opening"] == OPENING
    assert step["scores"]["kinds"]["latest_information"] == 0.9


async def test_each_of_several_openings_goes_on_with_a_seed_of_its_own():
    backend = Reading(lambda request: f" see {request.get('seed')}.")
    answer = await turn(backend, n=3, seed=5).complete()
    said = [choice["message"]["content"] for choice in answer.get("choices")]
    assert said == [f"{OPENING} see {seed}." for seed in (5, 6, 7)]


async def test_streamed_the_opening_comes_first():
    run = turn(Reading([" ask a broker."]), stream=True)
    texts = [chunk.text async for chunk in run.stream() if chunk.text]
    assert texts == [OPENING, " ask a broker."]
    assert run.honesty.outcome == "rewritten"


@pytest.mark.parametrize("stream", [False, True])
async def test_no_doubt_leaves_the_request_and_the_answer_untouched(stream):
    backend = Reading(["A draft."], Scores({"self_identity": 0.2}, 0.7))
    run = turn(backend, stream=stream)
    if stream:
        assert "".join([chunk.text async for chunk in run.stream()]) == "A draft."
    else:
        assert (await run.complete()).text == "A draft."
    assert (run.honesty.outcome, run.honesty.reason) == ("draft_kept", "no doubt")
    assert run.honesty.body()["doubts"] == []
    assert run.honesty.body()["confidence"] == 0.8
    assert len(backend.requests[0].messages) == 1
    assert "echo" not in backend.requests[0]


async def test_where_the_kind_is_unclear_the_opening_is_neutral():
    scores = Scores({"latest_information": 0.3, "knowledge_gap": 0.3, "self_identity": 0.3}, 0.7)
    run = turn(Reading([" it is high."], scores))
    await run.complete()
    assert run.honesty.trace.steps[0].prompt == "introspect/unclear"
    assert run.honesty.reason == "unclear 0.90"


TOOL = {"type": "function", "function": {"name": "quote"}}


@pytest.mark.parametrize(
    ("options", "body"),
    [({"capabilities": ("web_search",)}, {}), ({}, {"tools": [TOOL]})],
)
async def test_what_the_app_can_do_lifts_the_doubt(options, body):
    run = turn(Reading(["4 dollars."]), options, **body)
    await run.complete()
    assert run.honesty.outcome == "draft_kept"


async def test_an_image_lifts_modality_alone():
    scores = Scores({"modality_mismatch": 0.9, "self_identity": 0.05}, 0.7)
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    asked = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
    run = turn(Reading(["A cat."], scores), messages=asked)
    await run.complete()
    assert run.honesty.outcome == "draft_kept"


async def test_a_threshold_in_the_request_wins():
    run = turn(Reading(["A draft."]), {"threshold": 0.01})
    await run.complete()
    assert run.honesty.outcome == "draft_kept"


async def test_a_reading_that_fails_gives_the_draft():
    run = turn(Reading(["A draft."], BackendError("no states")))
    assert (await run.complete()).text == "A draft."
    assert run.honesty.outcome == "draft_fallback"
    assert "no states" in (run.honesty.reason or "")


async def test_a_backend_without_hidden_states_is_a_clear_error():
    with pytest.raises(InvalidRequest, match="choose another strategy, such as 'gated'") as caught:
        await turn(Scripted(["A draft."])).complete()
    assert caught.value.param == "honesty.strategy"


async def test_the_rules_of_passing_through_hold():
    backend = Reading(["{}"])
    run = turn(backend, response_format={"type": "json_object"})
    await run.complete()
    assert run.honesty.outcome == "passed_through"


PREFILL = [
    {"role": "user", "content": "What is the price of gold?"},
    {"role": "assistant", "content": "The price is"},
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "body",
    [{"max_tokens": 10}, {"messages": PREFILL}, {"response_format": {"type": "json_object"}}],
)
async def test_what_must_not_be_rewritten_is_annotated_from_inside(body, stream):
    backend = Reading(["A draft."])
    run = turn(backend, {"annotate": True}, stream=stream, **body)
    if stream:
        assert "".join([chunk.text async for chunk in run.stream()]) == "A draft."
    else:
        assert (await run.complete()).text == "A draft."
    said = run.honesty.body()
    first = (
        "I should be upfront: I can't look anything up, so I don't know the current price of this."
    )
    assert said["doubts"] == [{"kind": "latest_information", "statement": first}]
    assert (said["outcome"], said["confidence"]) == ("passed_through", pytest.approx(0.05))
    assert (said["calls"], len(backend.requests)) == (1, 1)
    assert said["steps"][0]["scores"]["doubt"] == 0.95


async def test_what_is_annotated_without_doubt_has_its_confidence():
    run = turn(
        Reading(["Hi."], Scores({"self_identity": 0.2}, 0.7)), {"annotate": True}, max_tokens=9
    )
    await run.complete()
    assert (run.honesty.body()["doubts"], run.honesty.body()["confidence"]) == ([], 0.8)


async def test_what_cant_be_read_is_passed_through_without_annotations():
    run = turn(Reading(["A draft."], BackendError("no states")), {"annotate": True}, max_tokens=9)
    assert (await run.complete()).text == "A draft."
    assert (run.honesty.outcome, run.honesty.body()["doubts"]) == ("passed_through", None)


SYSTEM = {"role": "system", "content": "Talk like a pirate"}


@pytest.mark.parametrize("messages", [[SYSTEM], [SYSTEM, {"role": "user", "content": " "}]])
@pytest.mark.parametrize("strategy", ["introspect", "curiosity"])
async def test_where_nothing_was_asked_no_opening_is_about_it(messages, strategy):
    backend = Reading(lambda request: "Text.")
    run = turn(backend, {"strategy": strategy}, messages=messages)
    await run.complete()
    assert not any(request.get("echo") for request in backend.requests)
    if strategy == "introspect":
        assert (run.honesty.outcome, run.honesty.reason) == ("draft_kept", "no question was asked")


async def test_a_client_that_leaves_cancels_the_answer():
    stopped = asyncio.Event()

    async def endless(_: ChatRequest) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ""

    run = turn(Reading(endless), stream=True)
    task = asyncio.ensure_future(anext(run.stream()))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait_for(stopped.wait(), 5)


def test_scores_add_up_to_doubt():
    scores = Scores(PRICE, 0.7)
    assert scores.doubt == pytest.approx(0.95)
    assert scores.without({"latest_information"}).doubt == pytest.approx(0.05)


def test_a_lifted_form_takes_its_share_of_its_kind_away():
    forms = {"latest_information": {"live_price": 0.9, "date_time": 0.1}}
    scores = Scores({"latest_information": 0.8, "self_identity": 0.1}, 0.7, forms)
    left = scores.without({"latest_information-live_price"})
    assert left.kinds == pytest.approx({"latest_information": 0.08, "self_identity": 0.1})
    assert left.forms == {"latest_information": {"date_time": 1.0}}
    assert scores.without({"latest_information-date_time"}).doubt == pytest.approx(0.82)


def test_a_form_that_is_unsure_is_named_only_where_there_is_no_other():
    forms = {"latest_information": {"live_price": 0.4, "weather": 0.35, "other": 0.25}}
    assert Scores({"latest_information": 0.9}, 0.7, forms).form("latest_information") == "other"
    forms = {"modality_mismatch": {"image": 0.4, "audio": 0.35, "video": 0.25}}
    assert Scores({"modality_mismatch": 0.9}, 0.7, forms).form("modality_mismatch") == "image"
