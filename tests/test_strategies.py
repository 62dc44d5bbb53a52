"""Strategies with a scripted backend: which calls, in which order, with what text.

The transcripts under `tests/golden` show a changed prompt in review. To renew them after a
change that is meant: `GOLDEN=write pytest tests/test_strategies.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from honestproxy.backends.scripted import Scripted
from honestproxy.errors import PromptError, StepFailed, UpstreamError
from honestproxy.pipeline import Pipeline, Run
from honestproxy.settings import Settings
from honestproxy.strategies import STRATEGIES
from honestproxy.turn import Answer, Turn
from honestproxy.types import ChatRequest, ChatResponse, Options
from tests.proxy import DOUBT, DRAFT, MERGED, PROSE, step_of
from tests.readers import Reading

GOLDEN = Path(__file__).parent / "golden"
QUESTION = [
    {"role": "system", "content": "You help in a library."},
    {"role": "user", "content": "What does the new atlas cost today?"},
]


def reply(request: ChatRequest) -> str:
    said = {
        "confusion": DOUBT if "JSON" in request.raw.decode() else PROSE,
        "paper confusion": PROSE,
        "merge": MERGED,
        "paper merge": MERGED,
        "critique": "It should say where to look.",
        "edit": "The edited answer.",
        "single": f"<limits>{DOUBT}</limits>\nThe single answer.",
    }
    return said.get(step_of(request.dict()), DRAFT)


def run(backend: Any, strategy: str | None = None, *, stream: bool = False, **settings: Any) -> Run:
    request = ChatRequest(
        {"model": "m", "messages": QUESTION} | ({"stream": True} if stream else {}),
        options=Options(strategy=strategy),
    )
    return Pipeline(backend, Settings(**settings)).run(request)


def transcript(turn: Run) -> str:
    lines = []
    for step in turn.honesty.trace.steps:
        lines.append(f"=== {step.name} ({step.prompt or 'the client’s own request'})")
        body = step.request.dict()
        lines.extend(f"{n}: {json.dumps(body[n])}" for n in sorted(body) if n != "messages")
        lines.extend(f"--- {m['role']}\n{m['content']}" for m in body["messages"])
        lines.append(f">>> {step.response.text if step.response else step.error}\n")
    return "\n".join(lines)


@pytest.mark.parametrize("name", [*STRATEGIES, "curiosity-paper"])
async def test_transcript(name: str) -> None:
    strategy, _, prompt_set = name.partition("-")
    turn = run(Reading(reply), strategy, prompt_set=prompt_set or "conversation")
    await turn.complete()
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(transcript(turn), "utf-8")
    assert transcript(turn) == path.read_text("utf-8")


@pytest.mark.parametrize("strategy", ["curiosity", "gated", "critique"])
async def test_draft_and_confusion_run_at_the_same_time(strategy: str) -> None:
    both = asyncio.Barrier(2)

    async def together(request: ChatRequest) -> str:
        if step_of(request.dict()) in ("draft", "confusion"):
            await asyncio.wait_for(both.wait(), 5)
        return reply(request)

    response = await run(Scripted(together), strategy).complete()
    assert response.text != DRAFT


async def test_a_draft_that_fails_ends_the_turn_without_waiting_for_the_confusion() -> None:
    async def failing(request: ChatRequest) -> Any:
        if step_of(request.dict()) == "draft":
            return UpstreamError("no", status=401)
        await asyncio.Event().wait()
        return ""

    with pytest.raises(UpstreamError) as caught:
        await asyncio.wait_for(run(Scripted(failing), "gated").complete(), 5)
    assert caught.value.status == 401


async def test_a_step_that_takes_too_long_gives_the_draft() -> None:
    async def stuck(request: ChatRequest) -> str:
        if step_of(request.dict()) == "confusion":
            await asyncio.Event().wait()
        return DRAFT

    turn = run(Scripted(stuck), "gated", step_timeout=0.05)
    assert (await turn.complete()).text == DRAFT
    assert turn.honesty.outcome == "draft_fallback"
    assert "longer than 0.05 s" in (turn.honesty.reason or "")


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_summed_and_every_call_is_a_step(stream: bool) -> None:
    turn = run(Scripted(reply), "critique", stream=stream)
    if stream:
        async for _ in turn.stream():
            pass
    else:
        await turn.complete()
    steps = turn.honesty.trace.steps
    assert [step.name for step in steps] == ["draft", "confusion", "merge", "critique", "edit"]
    counted = [step.usage["completion_tokens"] for step in steps if step.usage]
    assert len(counted) == 5
    assert turn.honesty.trace.usage["completion_tokens"] == sum(counted)
    assert all(step.seconds is not None for step in steps)
    assert all(step.digest for step in steps[1:])


async def test_one_request_never_changes_anothers_options() -> None:
    pipeline = Pipeline(Scripted(reply), Settings())
    wishes = ["raw", "gated", "single", "curiosity"] * 5
    turns = [
        pipeline.run(
            ChatRequest({"model": "m", "messages": QUESTION}, options=Options(strategy=wish))
        )
        for wish in wishes
    ]
    await asyncio.gather(*(turn.complete() for turn in turns))
    assert [turn.honesty.trace.strategy for turn in turns] == wishes


async def test_a_pipeline_is_itself_a_backend() -> None:
    inner = Pipeline(Scripted(reply), Settings(strategy="gated"))
    outer = run(inner, "raw")
    assert (await outer.complete()).text == MERGED


async def test_a_strategy_that_breaks_is_an_error_and_leaves_no_call_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped = asyncio.Event()

    async def endless(_: ChatRequest) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ""

    async def broken(turn: Turn) -> Answer:
        """Break."""
        turn.start("draft")
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    monkeypatch.setitem(STRATEGIES, "broken", broken)
    with pytest.raises(ZeroDivisionError):
        await run(Scripted(endless), "broken").complete()
    await asyncio.wait_for(stopped.wait(), 5)


async def test_an_override_that_can_never_be_filled_fails_at_start(tmp_path: Path) -> None:
    (tmp_path / "gated").mkdir()
    (tmp_path / "gated" / "merge.md").write_text("No placeholders", "utf-8")
    with pytest.raises(PromptError, match="placeholder"):
        Pipeline(Scripted([]), Settings(prompts=tmp_path))


async def test_an_empty_merge_is_no_answer() -> None:
    def empty(request: ChatRequest) -> str:
        return "" if step_of(request.dict()) == "merge" else reply(request)

    turn = run(Scripted(empty), "gated")
    assert (await turn.complete()).text == DRAFT
    assert turn.honesty.outcome == "draft_fallback"
    strict = run(Scripted(empty), "gated", on_failure="error")
    with pytest.raises(StepFailed):
        await strict.complete()


async def test_a_merge_that_the_client_capped_is_an_answer_like_any_other() -> None:
    def capped(request: ChatRequest) -> Any:
        if step_of(request.dict()) == "merge":
            return ChatResponse.of("Half an ans", finish_reason="length")
        return reply(request)

    turn = run(Scripted(capped), "gated")
    assert (await turn.complete()).finish_reason == "length"
    assert turn.honesty.outcome == "rewritten"
