"""Models, their variants, and strategies chosen by request."""

from __future__ import annotations

import asyncio

import openai
import pytest

from tests.proxy import DOUBT, Script, ask, proxy, script
from tests.upstreams import Reply, answer


async def test_models_are_the_upstreams_own_and_their_variants() -> None:
    async with proxy(Script(models=["m", "claude@20240620"])) as on:
        listed = [model.id async for model in on.client.models.list()]
    assert listed[0] == "m"
    assert "m@gated" in listed
    assert "claude@20240620@raw" in listed


async def test_variants_can_be_left_out() -> None:
    async with proxy(script(), variants=False) as on:
        assert [model.id async for model in on.client.models.list()] == ["m"]


async def test_one_model_can_be_retrieved_slashes_and_all() -> None:
    async with proxy(Script(models=["org/m"])) as on:
        assert (await on.client.models.retrieve("org/m@single")).id == "org/m@single"
        with pytest.raises(openai.NotFoundError, match="here are org/m"):
            await on.client.models.retrieve("else")


async def test_an_upstream_without_a_list_is_told_as_it_says() -> None:
    async with proxy(lambda _: answer({"error": {"message": "no"}}, status=401)) as on:
        with pytest.raises(openai.AuthenticationError):
            await on.client.models.list()


@pytest.mark.parametrize(
    ("body", "headers", "model", "expected"),
    [
        ({}, {}, "m", "gated"),
        ({}, {}, "m@raw", "raw"),
        ({}, {"X_Honesty": "curiosity"}, "m@raw", "curiosity"),
        ({"strategy": "single"}, {"X_Honesty": "curiosity"}, "m@raw", "single"),
        ({"threshold": 0.3}, {"X_Honesty": "curiosity"}, "m", "curiosity"),
        ({"threshold": 0.3}, {}, "m@critique", "critique"),
    ],
)
async def test_the_first_choice_that_is_there_wins(
    body: dict, headers: dict, model: str, expected: str
) -> None:
    asked = ask(model=model) | ({"honesty": body} if body else {})
    async with proxy(script(confusion=DOUBT)) as on:
        _, _, told = await on.post(asked, **headers)
        chats = [seen.json() for seen in on.upstream.seen if seen.body]
    assert told["x-honesty-strategy"] == expected
    assert all(chat["model"] == "m" for chat in chats)
    assert not any("honesty" in chat for chat in chats)
    assert not any("X-Honesty" in seen.headers for seen in on.upstream.seen)


@pytest.mark.parametrize("model", ["claude@20240620", "claude@20240620@raw", "m@raw", "a@b@gated"])
async def test_only_what_names_a_strategy_is_a_suffix(model: str) -> None:
    strategies = {"raw", "gated"}
    async with proxy(script()) as on:
        await on.post(ask(model=model))
        sent = next(seen.json()["model"] for seen in on.upstream.seen if seen.body)
    assert sent.rpartition("@")[2] not in strategies
    assert model.startswith(sent)


async def test_a_model_that_the_upstream_lists_wins_over_a_suffix() -> None:
    replies = script()
    replies.models = ["m@raw"]
    async with proxy(replies) as on:
        _, _, told = await on.post(ask(model="m@raw"))
        assert on.bodies()["draft"]["model"] == "m@raw"
    assert told["x-honesty-strategy"] == "gated"


async def test_a_list_that_never_comes_holds_nobody_who_leaves() -> None:
    def hung(seen):
        if seen.path.endswith("/models"):
            return Reply(then="hold")
        return script()(seen)

    async with proxy(hung) as on:
        asking = asyncio.create_task(on.post(ask(model="m@raw")))
        await asyncio.wait_for(on.upstream.holding.wait(), 5)
        asking.cancel()
        await asyncio.wait_for(on.upstream.gone.wait(), 5)


async def test_requests_that_come_together_read_one_list() -> None:
    replies = script()
    replies.models = ["m@raw"]

    def slow(seen):
        reply = replies(seen)
        pause = [0.2] if seen.path.endswith("/models") else []
        return Reply([*pause, *reply.pieces], content_type=reply.content_type)

    async with proxy(slow) as on:
        told = await asyncio.gather(*(on.post(ask(model="m@raw")) for _ in range(4)))
        assert sum(seen.path.endswith("/models") for seen in on.upstream.seen) == 1
    assert {headers["x-honesty-strategy"] for _, _, headers in told} == {"gated"}


async def test_a_list_refused_to_one_caller_is_not_remembered_for_all() -> None:
    replies = script()
    replies.models = ["m@raw"]

    def private(seen):
        if "Authorization" not in seen.headers:
            return answer({"error": {"message": "who?"}}, status=401)
        return replies(seen)

    async with proxy(private) as on:
        await on.post(ask(model="m@raw"))
        _, _, told = await on.post(ask(model="m@raw"), Authorization="Bearer k")
    assert told["x-honesty-strategy"] == "gated"


async def test_settings_narrow_what_a_client_may_choose() -> None:
    async with proxy(script(), strategies_allowed=("gated",)) as on:
        with pytest.raises(openai.PermissionDeniedError, match="allowed are gated"):
            await on.client.chat.completions.create(**ask(model="m@raw"))
        listed = [model.id async for model in on.client.models.list()]
    assert listed == ["m", "m@gated"]


async def test_a_request_without_a_model_gets_the_settings_one() -> None:
    body = ask()
    del body["model"]
    async with proxy(script(), model="m") as on:
        status, _, _ = await on.post(body)
        assert (status, on.bodies()["draft"]["model"]) == (200, "m")


async def test_nothing_inside_a_message_selects_a_strategy() -> None:
    async with proxy(script()) as on:
        text = '{"honesty": {"strategy": "raw"}} X-Honesty: raw m@raw'
        _, reply, _ = await on.post(ask(text))
    assert reply["honesty"]["strategy"] == "gated"


async def test_health() -> None:
    async with proxy(script()) as on:
        async with on.session.get(on.url.replace("/v1", "/healthz")) as got:
            assert (got.status, await got.json()) == (200, {"status": "ok"})
        assert on.upstream.seen == []
