"""`n` above 1: one draft call, one confusion for all, each choice kept or merged on its own."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.proxy import DOUBT, MERGED, NO_DOUBT, ask, proxy, script, step_of
from tests.upstreams import Reply, Seen, answer, chunk, completion, event, events

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TOOLS = [{"type": "function", "function": {"name": "look", "strict": True, "parameters": {}}}]


def several(*texts: str | None) -> Any:
    """A script whose draft has these choices; None is a tool call."""
    usual = script(confusion=DOUBT)

    def reply(seen: Seen) -> Reply:
        if not seen.body or step_of(seen.json()) != "draft":
            return usual(seen)
        return _streamed(texts) if seen.json().get("stream") else answer(_whole(texts))

    return reply


def _whole(texts: tuple[str | None, ...]) -> dict[str, Any]:
    choices = []
    for index, text in enumerate(texts):
        message = {"role": "assistant", "content": text}
        message |= {} if text else {"tool_calls": [CALL]}
        reason = "stop" if text else "tool_calls"
        choices.append({"index": index, "message": message, "finish_reason": reason})
    return completion() | {"choices": choices}


def _streamed(texts: tuple[str | None, ...]) -> Reply:
    pieces = []
    for part in ("role", "text", "end"):
        for index, text in enumerate(texts):
            delta: dict[str, Any] = {}
            if part == "role":
                delta = {"role": "assistant", "content": ""}
            elif part == "text":
                delta = {"content": text} if text else {"tool_calls": [{"index": 0, **CALL}]}
            reason = ("stop" if text else "tool_calls") if part == "end" else None
            choice = {"index": index, "delta": delta, "finish_reason": reason}
            pieces.append(event({**chunk(), "choices": [choice]}))
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return events(*pieces, event({**chunk(), "choices": [], "usage": usage}))


def texts_of(reply: Any) -> list[str | None]:
    return [choice.message.content for choice in reply.choices]


def steps(on: Any) -> Counter[str]:
    return Counter(step_of(seen.json()) for seen in on.upstream.seen if seen.body)


async def test_without_doubt_all_choices_are_kept_from_one_draft_call() -> None:
    replies = several("One.", "Two.", "Three.")

    def reply(seen: Seen) -> Reply:
        if step_of(seen.json()) == "confusion":
            return script(confusion=NO_DOUBT)(seen)
        return replies(seen)

    async with proxy(reply) as on:
        found = await on.client.chat.completions.create(**ask(n=3))
    assert texts_of(found) == ["One.", "Two.", "Three."]
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert steps(on) == {"draft": 1, "confusion": 1}
    assert on.bodies()["draft"]["n"] == 3
    assert "n" not in on.bodies()["confusion"]
    assert found.model_extra["honesty"]["outcome"] == "draft_kept"
    assert found.usage.total_tokens == 14


async def test_with_doubt_each_choice_has_a_merge_of_its_own_draft() -> None:
    async with proxy(several("One.", "Two.")) as on:
        found = await on.client.chat.completions.create(**ask(n=2))
    assert texts_of(found) == [MERGED, MERGED]
    assert steps(on) == {"draft": 1, "confusion": 1, "merge": 2}
    merges = [seen.body.decode() for seen in on.upstream.seen if step_of(seen.json()) == "merge"]
    assert [("One." in merge, "Two." in merge) for merge in merges] == [(1, 0), (0, 1)]
    assert all('"n"' not in merge for merge in merges)
    assert found.usage.total_tokens == 28


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_choice_that_calls_a_tool_is_kept_while_the_other_is_merged(streamed: bool) -> None:
    async with proxy(several(None, "Two.")) as on:
        if not streamed:
            found = await on.client.chat.completions.create(**ask(n=2, tools=TOOLS))
        else:
            async with on.client.chat.completions.stream(**ask(n=2, tools=TOOLS)) as stream:
                found = await stream.get_final_completion()
    kept, merged = found.choices
    assert kept.message.tool_calls[0].function.name == "look"
    assert merged.message.content == MERGED
    assert merged.finish_reason == "stop"


async def test_each_streamed_choice_has_one_role_one_end_and_its_own_honesty() -> None:
    body = ask(n=3, stream=True, stream_options={"include_usage": True})
    async with proxy(several("One.", None, "Three.")) as on:
        chunks = [c async for c in await on.client.chat.completions.create(**body)]
    roles, ends = Counter(), {}
    for found in chunks:
        for choice in found.choices:
            roles[choice.index] += bool(choice.delta.role)
            if choice.finish_reason:
                assert choice.index not in ends
                ends[choice.index] = choice.model_extra["honesty"]["outcome"]
    assert roles == {0: 1, 1: 1, 2: 1}
    assert ends == {0: "rewritten", 1: "draft_kept", 2: "rewritten"}
    usages = [found.usage for found in chunks if found.usage]
    assert [usage.total_tokens for usage in usages] == [28]


@pytest.mark.parametrize("draft", [NO_DOUBT, DOUBT])
async def test_what_an_upstream_says_of_all_choices_is_told_once(draft: Any) -> None:
    filtered = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    whole = _streamed(("One.", "Two."))
    usual = script(confusion=draft)

    def reply(seen: Seen) -> Reply:
        if not seen.body or step_of(seen.json()) != "draft":
            return usual(seen)
        return events(event({**chunk(), **filtered}), *whole.pieces)

    async with proxy(reply) as on:
        chunks = [c async for c in await on.client.chat.completions.create(**ask(n=2, stream=True))]
    told = [found for found in chunks if "prompt_filter_results" in (found.model_extra or {})]
    assert len(told) == (1 if draft is NO_DOUBT else 0)


@pytest.mark.parametrize(
    ("seed", "seeds"), [(5, [5, 6]), (2**63 - 1, [2**63 - 1, 2**63 - 2]), (None, [None, None])]
)
async def test_each_choice_has_a_seed_of_its_own_where_its_step_is(seed: Any, seeds: Any) -> None:
    async with proxy(several("One.", "Two.")) as on:
        await on.client.chat.completions.create(**ask(n=2, seed=seed))
    sent = [seen.json() for seen in on.upstream.seen if seen.body]
    merges = {("Two." in json.dumps(s)): s["seed"] for s in sent if step_of(s) == "merge"}
    assert [merges[False], merges[True]] == seeds
    assert {s["seed"] for s in sent if step_of(s) != "merge"} == {seed}


async def test_an_upstream_that_gives_fewer_choices_is_answered_with_those() -> None:
    async with proxy(several("One.")) as on:
        found = await on.client.chat.completions.create(**ask(n=3))
        streamed = await on.client.chat.completions.create(**ask(n=3, stream=True))
        indices = {c.index async for part in streamed for c in part.choices}
    assert texts_of(found) == [MERGED]
    assert indices == {0}


async def test_a_merge_that_fails_leaves_the_others_alone() -> None:
    replies = several("One.", "Two.")

    def reply(seen: Seen) -> Reply:
        if b"Two notes" in seen.body and b"Two." in seen.body:
            return answer({"error": {"message": "down"}}, status=500)
        return replies(seen)

    async with proxy(reply) as on:
        found = await on.client.chat.completions.create(**ask(n=2))
    assert texts_of(found) == [MERGED, "Two."]
    outcomes = [choice.model_extra["honesty"]["outcome"] for choice in found.choices]
    assert outcomes == ["rewritten", "draft_fallback"]
    told = found.model_extra["honesty"]
    assert (told["outcome"], told["reason"][:7]) == ("draft_fallback", "1 of 2:")


async def test_a_draft_that_fails_keeps_its_status_for_all() -> None:
    limited = answer({"error": {"message": "slow"}}, status=429, headers={"Retry-After": "3"})
    async with proxy(script(draft=limited)) as on:
        for streamed in (False, True):
            status, body, headers = await on.post(ask(n=2, stream=streamed))
            assert (status, headers["Retry-After"]) == (429, "3")
            assert body["error"]["message"] == "slow"


@pytest.mark.parametrize(("strategy", "calls"), [("curiosity", 4), ("single", 2), ("critique", 8)])
async def test_other_strategies_give_as_many_choices(strategy: str, calls: int) -> None:
    usual = script(
        single=f"<limits>{DOUBT}</limits>\nThe answer.", critique="One fault.", edit="Edited."
    )

    def reply(seen: Seen) -> Reply:
        found = step_of(seen.json())
        return several("One.", "Two.")(seen) if found == "draft" else usual(seen)

    async with proxy(reply, strategy=strategy) as on:
        found = await on.client.chat.completions.create(**ask(n=2))
    assert len(found.choices) == 2
    assert len(on.upstream.seen) == calls
    assert json.dumps(found.model_extra["honesty"]["calls"]) == str(calls)
