import asyncio
import importlib.util
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import ClassVar

import pytest

from honestproxy.backends.openai_compatible import OpenAICompatible
from honestproxy.backends.scripted import Scripted
from honestproxy.backends.steady import retry_after
from honestproxy.errors import (
    EvaluationError,
    HonestProxyError,
    UpstreamBroken,
    UpstreamError,
    UpstreamUnreachable,
)
from honestproxy.evals import prices
from honestproxy.evals.arms import FIXED, parse
from honestproxy.evals.here import Asking, Bench, Here
from honestproxy.evals.patience import Patience
from honestproxy.evals.records import Sample, Verdict
from honestproxy.evals.runs import FEW
from honestproxy.settings import Settings
from honestproxy.templates import Prompts
from tests.evals.asked import IMPATIENT, asking, entrants, question, ran, read, samples
from tests.proxy import DOUBT, DRAFT, MERGED, script, step_of
from tests.upstreams import Seen, answer, chunk, event, events, free_port

BUSY = {"error": {"message": "slow down", "type": "rate_limit_error"}}


def busy(status: int = 429, **headers: str):
    return answer(BUSY, status=status, headers=headers)


def test_an_arm_is_an_upstream_a_model_and_a_strategy():
    specs = "raw,gated,big@raw,mine=http://127.0.0.1:1/v1|m@v2@curiosity,always-refuse,local:x|raw"
    told = [(a.name, a.strategy, a.upstream, a.model) for a in parse(specs, "up", "m")]
    assert told == [
        ("raw", "raw", "up", "m"),
        ("gated", "gated", "up", "m"),
        ("big@raw", "raw", "up", "big"),
        ("mine", "curiosity", "http://127.0.0.1:1/v1", "m@v2"),
        ("always-refuse", "always-refuse", None, None),
        ("raw-2", "raw", "local:x", None),
    ]


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ("raw,gatde", "did you mean 'gated'"),
        ("claude@20240620", "unknown strategy '20240620'"),
        (" , ", "such as --arms raw,gated"),
        ("a=raw,a=gated", "two arms are called 'a'"),
        ("|raw", "no upstream before"),
    ],
)
def test_an_arm_that_is_none_is_refused(specs, said):
    with pytest.raises(EvaluationError) as raised:
        parse(specs, "up", "m")
    assert said in raised.value.message


def test_an_arm_with_a_name_of_its_own_keeps_it():
    found = parse("raw,raw,raw,raw-2=gated,single,raw=critique", "up", "m")
    names = ["raw-3", "raw-4", "raw-5", "raw-2", "single", "raw"]
    assert [(arm.name, arm.strategy) for arm in found if "=" not in arm.name] == list(
        zip(names, ["raw", "raw", "raw", "gated", "single", "critique"], strict=True)
    )


def test_what_a_url_asks_for_stays_out_of_the_configuration():
    (arm,) = parse("x=http://127.0.0.1/v1?key=secret|m@raw", "up", None)
    assert arm.upstream == "http://127.0.0.1/v1?key=secret"
    assert "secret" not in str(arm.config())


async def test_every_arm_answers_every_sample(tmp_path):
    async with asking(script(confusion=DOUBT)) as (_, backend):
        tally, found = await ran(tmp_path, backend, "raw,gated", samples(5))
    assert (tally.done, tally.failed, tally.total) == (10, 0, 10)
    texts = {arm: {found.answers[f"q/{n}", arm].text for n in range(5)} for arm in ("raw", "gated")}
    assert texts == {"raw": {DRAFT}, "gated": {MERGED}}


async def test_an_answer_says_what_it_took(tmp_path):
    async with asking(script(confusion=DOUBT)) as (_, backend):
        tally, found = await ran(tmp_path, backend, "raw,gated", samples(1))
    raw, gated = found.answers["q/0", "raw"], found.answers["q/0", "gated"]
    assert (raw.calls, raw.usage["total_tokens"], raw.draft) == (1, 7, DRAFT)
    assert (gated.calls, gated.usage["total_tokens"], gated.draft) == (3, 21, DRAFT)
    assert gated.honesty["outcome"] == "rewritten"
    assert [step["name"] for step in gated.honesty["steps"]] == ["draft", "confusion", "merge"]
    assert gated.confidence == 0.2
    assert 0 < gated.first <= gated.seconds
    assert tally.tokens == 28


async def test_time_to_first_token_is_that_of_the_first_text(tmp_path):
    pieces = (event(chunk("Now")), 0.2, event(chunk(" then")), event(chunk(None, "stop")))
    async with asking(lambda seen: events(*pieces)) as (_, backend):
        _, found = await ran(tmp_path, backend, "raw", samples(1))
    told = found.answers["q/0", "raw"]
    assert told.text == "Now then"
    assert told.first + 0.1 < told.seconds


async def test_no_more_samples_are_asked_at_once_than_allowed(tmp_path):
    now, most = 0, 0

    async def reply(request):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        return "Yes."

    await ran(tmp_path, Scripted(reply), "raw", samples(20), concurrency=3)
    assert most == 3


async def test_each_arm_comes_first_as_often_as_the_other(tmp_path):
    first = []

    def reply(request):
        first.append(request.model)
        return "Yes."

    await ran(tmp_path, Scripted(reply), "a@raw,b@raw", samples(4), concurrency=1)
    assert first == ["a", "b", "b", "a", "a", "b", "b", "a"]


@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_what_may_pass_is_tried_again(tmp_path, status):
    good = script()

    def reply(seen: Seen):
        return busy(status) if len(server.seen) % 2 else good(seen)

    async with asking(reply) as (server, backend):
        tally, found = await ran(tmp_path, backend, "raw", samples(3), concurrency=1)
        assert len(server.seen) == 6
    assert tally.failed == 0
    assert {told.retries for told in found.answers.values()} == {1}


async def test_an_upstream_that_asks_for_time_gets_it(tmp_path):
    good, came = script(), []

    def reply(seen: Seen):
        came.append(time.monotonic())
        return good(seen) if len(came) > 1 else busy(**{"Retry-After": "1"})

    async with asking(reply) as (_, backend):
        await ran(tmp_path, backend, "raw", samples(1))
    assert came[1] - came[0] >= 1


async def test_an_upstream_that_asks_for_an_hour_is_asked_in_the_next_run(tmp_path):
    async with asking(lambda seen: busy(**{"Retry-After": "3600"})) as (server, backend):
        tally, found = await ran(tmp_path, backend, "raw", samples(1))
        assert len(server.seen) == 1
    assert tally.failed == 1
    assert found.answers["q/0", "raw"].again


def test_retry_after_may_be_a_date():
    def told(value: str) -> float | None:
        return retry_after(UpstreamError("busy", status=429, headers={"Retry-After": value}))

    assert told("2.5") == 2.5
    assert told("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert told("soon") is None
    assert told("Mon, 01 Jan 2024 00:00:00 +99999999999999999999") is None


async def test_attempts_are_bounded_and_a_later_step_is_tried_again_too(tmp_path):
    replies = script(confusion=busy())
    async with asking(replies) as (server, backend):
        _, found = await ran(tmp_path, backend, "gated", samples(1))
        steps = Counter(step_of(seen.json()) for seen in server.seen)
    assert steps == {"draft": 1, "confusion": IMPATIENT.attempts}
    assert found.answers["q/0", "gated"].honesty["outcome"] == "draft_fallback"


async def test_one_bad_sample_is_recorded_and_not_fatal(tmp_path):
    good, told = script(), {"error": {"message": "too long", "type": "invalid_request_error"}}

    def reply(seen: Seen):
        return answer(told, status=400) if question(seen) == "Question 1?" else good(seen)

    async with asking(reply) as (server, backend):
        tally, found = await ran(tmp_path, backend, "raw", samples(3))
        again, _ = await ran(tmp_path, backend, "raw", samples(3))
        assert len(server.seen) == 3
    assert (tally.done, tally.failed) == (3, 1)
    bad = found.answers["q/1", "raw"]
    assert (bad.text, bad.again) == (None, False)
    assert "too long" in bad.error
    assert (again.kept, again.failed) == (3, 1)


async def test_a_backend_that_raises_anything_is_recorded_and_not_fatal(tmp_path):
    def reply(request):
        if request.messages[0]["content"] == "Question 1?":
            raise RuntimeError("a bug")
        return "Yes."

    tally, found = await ran(tmp_path, Scripted(reply), "raw", samples(3))
    assert (tally.done, tally.failed) == (3, 1)
    assert "RuntimeError" in found.answers["q/1", "raw"].error


async def test_an_unreachable_upstream_ends_the_run_and_the_next_one_goes_on(tmp_path):
    dead = f"http://127.0.0.1:{free_port()}/v1"
    backend = OpenAICompatible(dead, Settings())
    with pytest.raises(UpstreamUnreachable, match="can't reach"):
        await ran(tmp_path, backend, "raw,always-refuse", samples(50))
    await backend.aclose()
    kept = [told for told in read(tmp_path).answers.values() if told.error is None]
    assert {told.arm for told in kept} <= {"always-refuse"}
    async with asking(script()) as (server, good):
        tally, found = await ran(tmp_path, good, "raw,always-refuse", samples(50))
        assert len(server.seen) == 50
    assert tally.failed == 0
    assert len(found.answers) == 100


@pytest.mark.parametrize("status", [401, 404, 503])
async def test_what_fails_every_time_ends_the_run_after_a_few(tmp_path, status):
    async with asking(lambda seen: busy(status)) as (server, backend):
        with pytest.raises(UpstreamError, match="slow down"):
            await ran(tmp_path, backend, "raw", samples(50), concurrency=1)
        attempts = IMPATIENT.attempts if status >= 500 else 1
        assert len(server.seen) == FEW * attempts


async def test_questions_that_always_fail_keep_no_others_from_being_asked(tmp_path):
    good = script()

    def reply(seen: Seen):
        number = int(question(seen).split()[1].strip("?"))
        return busy(500) if number < 8 else good(seen)

    async with asking(reply) as (_, backend):
        with pytest.raises(UpstreamError):
            await ran(tmp_path, backend, "raw", samples(12), concurrency=1)
        tally, found = await ran(tmp_path, backend, "raw", samples(12), concurrency=1)
    assert (tally.done, tally.total) == (12, 12)
    answered = {sample for (sample, _), told in found.answers.items() if told.error is None}
    assert answered == {f"q/{n}" for n in range(8, 12)}
    assert all(found.answers[f"q/{n}", "raw"].again for n in range(8))


async def test_an_answer_that_breaks_off_is_asked_again_by_the_next_run(tmp_path):
    broken = events(event(chunk("Half an")), done=False, then="drop")
    async with asking(lambda seen: broken) as (_, backend):
        tally, found = await ran(tmp_path, backend, "raw", samples(1))
    assert (tally.failed, found.answers["q/0", "raw"].text) == (1, None)
    async with asking(script()) as (_, backend):
        _, found = await ran(tmp_path, backend, "raw", samples(1))
    assert found.answers["q/0", "raw"].text == DRAFT


async def test_raw_twice_is_two_arms(tmp_path):
    count = iter(range(100))
    backend = Scripted(lambda request: f"Answer {next(count)}.")
    _, found = await ran(tmp_path, backend, "raw,raw", samples(3))
    assert len({told.text for told in found.answers.values()}) == 6


async def test_fixed_controls_ask_nobody(tmp_path):
    backend = Scripted([])
    tally, found = await ran(tmp_path, backend, "always-disclaim,always-refuse", samples(2))
    assert {(told.arm, told.text) for told in found.answers.values()} == set(FIXED.items())
    assert (tally.tokens, backend.requests) == (0, [])


async def test_the_system_prompt_control_only_adds_a_system_message(tmp_path):
    backend = Scripted(lambda request: "Yes.")
    spoken = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"})
    await ran(tmp_path, backend, "system-prompt-only", [*samples(1), Sample("q/s", "Hi?", spoken)])
    bare, own = (request.messages for request in backend.requests)
    prompt = Prompts()["control/system"].render()
    assert bare == [
        {"role": "system", "content": prompt},
        {"role": "user", "content": "Question 0?"},
    ]
    assert [message["role"] for message in own] == ["system", "user"]
    assert own[0]["content"] == f"{prompt}\n\nBe brief."


async def test_merge_blank_merges_a_draft_with_nothing(tmp_path):
    async with asking(script()) as (server, backend):
        _, found = await ran(tmp_path, backend, "merge-blank", samples(1))
        asked = {step_of(seen.json()): seen.json() for seen in server.seen}
    told = found.answers["q/0", "merge-blank"]
    assert (told.text, told.draft, told.calls) == (MERGED, DRAFT, 2)
    assert (told.honesty["strategy"], told.honesty["outcome"]) == ("merge-blank", "rewritten")
    assert asked.keys() == {"draft", "merge"}
    assert "<confusion>\n\n</confusion>" in asked["merge"]["messages"][-1]["content"]


async def test_arms_share_one_draft_where_they_are_told_to(tmp_path):
    count = iter(range(100))
    backend = Scripted(lambda r: DOUBT if step_of(r.dict()) == "confusion" else f"{next(count)}.")
    arms = "raw,gated,curiosity,system-prompt-only,other@raw"
    _, found = await ran(tmp_path, backend, arms, samples(4), share_drafts=True)
    for number in range(4):
        told = {arm: found.answers[f"q/{number}", arm] for arm in arms.split(",")}
        assert told["raw"].text == told["gated"].draft == told["curiosity"].draft
        assert told["raw"].draft not in (told["system-prompt-only"].draft, told["other@raw"].draft)
    assert Counter(step_of(r.dict()) for r in backend.requests)["draft"] == 3 * 4


async def test_an_arm_that_repeats_another_shares_no_draft(tmp_path):
    count = iter(range(100))
    backend = Scripted(lambda r: DOUBT if step_of(r.dict()) == "confusion" else f"{next(count)}.")
    _, found = await ran(tmp_path, backend, "raw,raw,gated", samples(4), share_drafts=True)
    for number in range(4):
        told = {arm: found.answers[f"q/{number}", arm] for arm in ("raw", "raw-2", "gated")}
        assert told["raw"].text == told["gated"].draft != told["raw-2"].text


async def test_without_sharing_each_arm_has_its_own_draft(tmp_path):
    async with asking(script(confusion=DOUBT)) as (server, backend):
        await ran(tmp_path, backend, "raw,gated", samples(2))
        assert Counter(step_of(seen.json()) for seen in server.seen)["draft"] == 4


async def test_a_shared_draft_that_is_in_the_log_is_not_asked_again(tmp_path):
    async with asking(script(draft="The first draft.")) as (_, backend):
        await ran(tmp_path, backend, "raw", samples(2), share_drafts=True)
    async with asking(script(draft="Another.", confusion=DOUBT)) as (server, backend):
        _, found = await ran(tmp_path, backend, "raw,gated", samples(2), share_drafts=True)
        assert {step_of(seen.json()) for seen in server.seen} == {"confusion", "merge"}
        merges = [seen.json() for seen in server.seen if step_of(seen.json()) == "merge"]
    assert all("The first draft." in body["messages"][-1]["content"] for body in merges)
    assert found.answers["q/0", "gated"].draft == "The first draft."


async def test_a_shared_draft_that_fails_fails_for_all(tmp_path):
    refusal = answer({"error": {"message": "no", "type": "x"}}, status=400)
    async with asking(script(draft=refusal)) as (server, backend):
        tally, _ = await ran(tmp_path, backend, "raw,gated", samples(2), share_drafts=True)
        assert Counter(step_of(seen.json()) for seen in server.seen)["draft"] == 2
    assert tally.failed == 4


async def test_introspect_is_refused_where_the_model_can_not_be_read():
    with pytest.raises(EvaluationError, match="no hidden states"):
        await entrants(Scripted([]), "introspect")


class Judge:
    """Says of each arm's answer that it is honest, and counts what it was asked."""

    config: ClassVar = {"model": "judge"}

    def __init__(self, fails: HonestProxyError | None = None, after: int = 0) -> None:
        self.asked: list[tuple[str, str]] = []
        self.fails, self.after = fails, after

    def due(self, sample, answers, done=()) -> list[str]:
        judged = {verdict.arm for verdict in done}
        return [arm for arm in answers if arm not in judged and answers[arm].text]

    async def each(self, sample, answers, done=()) -> AsyncGenerator[Verdict, None]:
        for arm in self.due(sample, answers, done):
            if self.fails and len(self.asked) >= self.after:
                raise self.fails
            self.asked.append((sample.id, arm))
            usage = {"total_tokens": 10}
            yield Verdict(sample.id, arm, "honesty", "honest", usage=usage)


async def test_a_sample_is_judged_once_all_arms_are_in(tmp_path):
    judge = Judge()
    backend = Scripted(lambda request: "Yes.")
    tally, found = await ran(tmp_path, backend, "raw,raw", samples(3), judging=judge)
    assert Counter(judge.asked) == {
        (f"q/{n}", arm): 1 for n in range(3) for arm in ("raw", "raw-2")
    }
    assert (tally.judged, len(found.verdicts), tally.tokens) == (6, 6, 6 + 60)
    again, _ = await ran(tmp_path, backend, "raw,raw", samples(3), judging=judge)
    assert len(judge.asked) == 6
    assert (again.judged, again.tokens) == (6, 66)


async def test_a_judge_that_stops_midway_is_asked_only_for_the_rest(tmp_path):
    backend = Scripted(lambda request: "Yes.")
    refused = Judge(UpstreamBroken("gone"), after=3)
    tally, found = await ran(
        tmp_path, backend, "raw,raw", samples(3), judging=refused, concurrency=1
    )
    assert (len(found.verdicts), tally.unjudged) == (3, 2)
    judge = Judge()
    tally, found = await ran(tmp_path, backend, "raw,raw", samples(3), judging=judge)
    assert len(judge.asked) == 3
    assert len(found.verdicts) == 6
    assert len(backend.requests) == 6


async def test_an_unreachable_judge_ends_the_run_and_the_answers_stay(tmp_path):
    judge = Judge(UpstreamUnreachable("can't reach the judge"))
    backend = Scripted(lambda request: "Yes.")
    with pytest.raises(UpstreamUnreachable, match="the judge"):
        await ran(tmp_path, backend, "raw", samples(20), judging=judge, concurrency=1)
    assert len(read(tmp_path).answers) == FEW


async def test_an_arm_that_may_still_answer_is_waited_for(tmp_path):
    def reply(request):
        return UpstreamError("busy", status=503) if request.model == "b" else "Yes."

    judge = Judge()
    await ran(tmp_path, Scripted(reply), "a@raw,b@raw", samples(2), judging=judge)
    assert judge.asked == []
    backend = Scripted(lambda request: "Yes.")
    await ran(tmp_path, backend, "a@raw,b@raw", samples(2), judging=judge)
    assert len(judge.asked) == 4
    assert {request.model for request in backend.requests} == {"b"}


async def test_a_run_that_is_cancelled_keeps_what_ended(tmp_path):
    async def reply(request):
        if request.messages[0]["content"] == "Question 3?":
            hangs.set()
            await asyncio.Event().wait()
        return "Yes."

    hangs = asyncio.Event()
    task = asyncio.create_task(ran(tmp_path, Scripted(reply), "raw", samples(6), concurrency=1))
    await hangs.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(read(tmp_path).answers) == 3
    tally, _ = await ran(tmp_path, Scripted(lambda request: "Yes."), "raw", samples(6))
    assert (tally.kept, tally.done) == (3, 6)


@pytest.mark.parametrize(
    ("upstream", "other", "is_given"),
    [
        ("http://h/v1", "http://h/v2", True),
        ("http://h/v1", "http://h:81/v1", False),
        ("http://h/v1", "https://h/v1", False),
        ("litellm:openai/a", "litellm:openai/b", True),
        ("litellm:openai/a", "litellm:anthropic/a", False),
        ("litellm:openai/*", "litellm:openai_like/a", False),
        ("litellm:a", "litellm:b", False),
        ("litellm:huggingface/http://h/v1", "litellm:huggingface/http://g/v1", False),
        ("played:gold", "played:echo", False),
        ("played:gold", "played:gold", True),
    ],
)
async def test_an_upstreams_key_is_for_its_host_or_litellms_provider(upstream, other, is_given):
    opened = []

    async def load(settings):
        opened.append(settings)
        return Scripted([])

    settings = Settings(upstream=upstream, upstream_key="secret")
    async with Here(Asking(settings), load) as here:
        await here.known(parse(f"raw,theirs={other}|m@raw", upstream, "m"))
        await here.judging(Bench([], other, "m"))
    own, *others = opened
    assert own.upstream_key.get_secret_value() == "secret"
    assert {one.upstream for one in others} <= {other}
    assert {bool(one.upstream_key) for one in others} == {is_given}


async def test_money_is_counted_across_runs_where_a_price_is_known(tmp_path):
    price = {"raw": prices.parse("1000000/2000000")}
    async with asking(script()) as (_, backend):
        first, _ = await ran(tmp_path, backend, "raw", samples(2), prices=price)
        second, _ = await ran(tmp_path, backend, "raw", samples(2), prices=price)
        unpriced, _ = await ran(tmp_path, backend, "raw", samples(2))
    assert first.dollars == second.dollars == 2 * (5 * 1 + 2 * 2)
    assert not unpriced.priced


def test_a_price_is_dollars_for_a_million_tokens():
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 500_000}
    assert prices.parse("0.15/0.60")(usage) == pytest.approx(0.45)
    assert prices.parse("2")(usage) == pytest.approx(3)
    assert prices.parse("2")({"total_tokens": 3}) is None
    with pytest.raises(EvaluationError, match="such as"):
        prices.parse("cheap")


@pytest.mark.parametrize("text", ["nan", "1/nan", "inf/1", "1/1e999", "-5/-5", "1/-0.1"])
def test_a_price_is_finite_and_not_below_0(text):
    with pytest.raises(EvaluationError, match=f"price {text!r} is no price; .* such as"):
        prices.parse(text)


def test_a_local_model_and_an_unknown_one_have_no_price():
    assert prices.known("local:smollm2-135m-instruct", "gpt-4o-mini") is None
    assert prices.known("http://127.0.0.1/v1", "no-such-model") is None


@pytest.mark.skipif(not importlib.util.find_spec("litellm"), reason="litellm has the table")
def test_litellms_table_knows_prices_by_model_and_by_its_own_spec():
    usage = {"prompt_tokens": 1000, "completion_tokens": 1000}
    by_model = prices.known("https://api.openai.com/v1", "gpt-4o-mini")
    by_spec = prices.known("litellm:openai/gpt-4o-mini", "")
    assert by_model(usage) == by_spec(usage) > 0


async def test_patience_leaves_what_can_not_pass_alone():
    backend = Scripted([UpstreamError("no", status=400), "Yes."])
    (asks,) = await entrants(backend, "raw", Patience(attempts=3, first=0))
    with pytest.raises(UpstreamError):
        await asks.answer(Sample("q", "?"))
    assert len(backend.requests) == 1


async def test_a_stream_that_is_left_is_closed_upstream():
    async with asking(lambda seen: events(event(chunk("One")), done=False, then="hold")) as (
        server,
        backend,
    ):
        (asks,) = await entrants(backend, "raw")
        stream = asks.run(asks.request(Sample("q", "?"))).stream()
        async with aclosing(stream) as chunks:
            async for piece in chunks:
                if piece.text:
                    break
        await asyncio.wait_for(server.gone.wait(), 5)
