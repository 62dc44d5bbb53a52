"""Requests find their upstream and their settings by their model's name, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from honestproxy.backends import Traits
from honestproxy.backends.scripted import Scripted
from honestproxy.backends.upstreams import Upstreams
from honestproxy.errors import InvalidRequest, SettingsError
from honestproxy.pipeline import Pipeline
from honestproxy.router import Router, routed
from honestproxy.settings import Settings
from tests.proxy import MERGED, Script, ask, script, serving, step_of
from tests.upstreams import Reply, Seen, Upstream, answer, events, free_port, upstream

OURS = {"Authorization": "Bearer client-key", "OpenAI-Organization": "org-client"}


@dataclass
class Running:
    """A proxy before several upstreams."""

    url: str
    client: AsyncOpenAI
    session: aiohttp.ClientSession
    upstreams: dict[str, Upstream]

    async def chat(self, model: str, **body: Any) -> Any:
        asked: Any = ask(model=model, **body)
        return await self.client.chat.completions.create(**asked)

    async def post(self, path: str, body: Any, **options: Any) -> tuple[int, Any]:
        options = {"headers": {**OURS, **options.pop("headers", {})}, **options}
        sent = {"data": body} if isinstance(body, bytes | aiohttp.FormData) else {"json": body}
        async with self.session.post(f"{self.url}{path}", **sent, **options) as got:
            return got.status, json.loads(await got.read())

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(f"{self.url}{path}", headers=OURS) as got:
            return got.status, json.loads(await got.read())

    def asked(self, name: str) -> list[Seen]:
        return self.upstreams[name].seen

    def keys(self, name: str) -> set[tuple[str | None, str | None]]:
        """Each key and account that an upstream has seen."""
        return {
            (seen.headers.get("Authorization"), seen.headers.get("OpenAI-Organization"))
            for seen in self.asked(name)
        }


@asynccontextmanager
async def running(
    tables: Mapping[str, Mapping[str, Any]], scripts: Mapping[str, Any] | None = None, **more: Any
) -> AsyncIterator[Running]:
    """The proxy before an upstream of its own, and one for each table."""
    async with AsyncExitStack() as stack:
        servers = {}
        for name in ("own", *tables):
            told = (scripts or {}).get(name) or script()
            servers[name] = await stack.enter_async_context(upstream(partial(_told, told)))
        named = {
            name: {"url": servers[name].url, "models": (f"{name}-*",), **table}
            for name, table in tables.items()
        }
        settings = Settings(upstream=servers["own"].url, upstreams=named, **more)
        url = await stack.enter_async_context(serving(settings))
        client = AsyncOpenAI(
            base_url=url, api_key="client-key", organization="org-client", max_retries=0
        )
        await stack.enter_async_context(client)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Running(url, client, session, servers)


def _told(script: Callable[[Seen], Reply], seen: Seen) -> Reply:
    """What an upstream that knows chat alone answers; to what is relayed, anything."""
    if seen.path.endswith("/responses"):
        return answer({"error": {"message": "Not found."}}, status=404)
    return script(seen) if seen.path.endswith(("/completions", "/models")) else answer({"ok": 1})


def models(*names: str) -> Script:
    return Script(script().replies, list(names))


async def test_a_request_goes_to_the_first_upstream_whose_pattern_fits():
    tables = {
        "a": {"models": ["gpt-5*", "exact"]},
        "b": {"models": ["gpt-*", "[xy]?"]},
        "c": {"models": ["gpt-5-mini", "GPT-*"]},
    }
    wanted = {"gpt-5-mini": "a", "exact": "a", "gpt-4o": "b", "x1": "b", "z1": "own"}
    wanted |= {"GPT-4": "c", "Exact": "own", "": "own"}
    async with running(tables, model="gpt-4o", strategy="raw") as on:
        for model, name in wanted.items():
            before = {each: len(on.asked(each)) for each in on.upstreams}
            await on.chat(model or "none-such")
            asked = [each for each in on.upstreams if len(on.asked(each)) > before[each]]
            assert asked == [name], model
        status, _ = await on.post("/chat/completions", {"messages": ask()["messages"]})
        assert status == 200
        assert on.asked("b")[-1].json()["model"] == "gpt-4o"  # the setting `model` is routed too


@pytest.mark.parametrize("stream", [False, True])
async def test_every_call_of_a_turn_goes_to_the_models_upstream(stream):
    doubting = script(confusion="I can't look prices up.")
    async with running({"house": {}}, {"house": doubting}) as on:
        reply = await on.chat("house-1", stream=stream)
        text = (
            "".join([c.choices[0].delta.content or "" async for c in reply])
            if stream
            else reply.choices[0].message.content
        )
        assert text == MERGED
        assert {step_of(seen.json()) for seen in on.asked("house")} == {
            *("draft", "confusion", "merge")
        }
        assert on.asked("own") == []


async def test_a_strategy_behind_the_name_is_taken_off_before_the_way_is_chosen():
    async with running({"house": {"models": ["house-1"]}}, {"house": models("house-1")}) as on:
        reply = await on.chat("house-1@single")
        assert reply.honesty["strategy"] == "single"
        (seen,) = [seen for seen in on.asked("house") if seen.body]
        assert seen.json()["model"] == "house-1"


async def test_responses_are_routed_as_well():
    async with running({"house": {}}) as on:
        await on.client.responses.create(model="house-1", input="Hi!", store=False)
        assert {seen.path for seen in on.asked("house")} >= {"/v1/responses"}
        assert on.asked("own") == []


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({}, (None, None)),
        ({"key": "house-key"}, ("Bearer house-key", None)),
        ({"pass_key": True}, ("Bearer client-key", "org-client")),
        ({"pass_key": True, "key": "house-key"}, ("Bearer house-key", "org-client")),
    ],
)
@pytest.mark.parametrize("own_key", [None, "own-key"])
async def test_a_clients_key_goes_to_the_default_upstream_alone(table, key, own_key):
    async with running({"house": table}, upstream_key=own_key) as on:
        for model in ("house-1", "own-1"):
            await on.chat(model, extra_body={"honesty": {"strategy": "gated"}})
            async for _ in await on.chat(model, stream=True):
                pass
            await on.post("/embeddings", {"model": model, "input": "x"})
            await on.get(f"/models/{model}")
            await on.client.responses.create(model=model, input="Hi!", store=False)
        await on.get("/models")
        assert on.keys("house") == {key}
        assert on.keys("own") == {(f"Bearer {own_key or 'client-key'}", "org-client")}


async def test_a_fallback_gets_no_key_of_the_client():
    down = f"http://127.0.0.1:{free_port()}/v1"
    tables = {"house": {"url": down, "fallbacks": ["spare"]}, "spare": {"models": []}}
    async with running(tables, retries=0) as on:
        await on.chat("house-1")
        assert on.keys("spare") == {(None, None)}
        assert on.asked("own") == []


async def test_where_the_default_is_a_fallback_it_gets_the_clients_key():
    tables = {"house": {"url": f"http://127.0.0.1:{free_port()}/v1", "fallbacks": ["default"]}}
    async with running(tables, retries=0) as on:
        await on.chat("house-1")
        assert on.keys("own") == {("Bearer client-key", "org-client")}


async def test_rules_hold_for_the_models_of_their_pattern():
    rules = {
        "house-raw*": {"strategy": "raw"},
        "*": {"strategy": "curiosity", "confusion_tokens": 77},
    }
    async with running({"house": {}}, models=rules) as on:
        raw = await on.client.chat.completions.with_raw_response.create(**ask(model="house-raw-1"))
        assert raw.headers["x-honesty-strategy"] == "raw"
        for name, model in {"house": "house-1", "own": "m"}.items():
            reply = await on.chat(model)
            assert reply.honesty["strategy"] == "curiosity"
            asked = [seen.json() for seen in on.asked(name)]
            (confusion,) = [body for body in asked if step_of(body) == "confusion"]
            assert confusion["max_tokens"] == 77


async def test_rules_alone_need_no_second_upstream():
    async with running({}, models={"m": {"strategy": "raw"}}) as on:
        await on.chat("m")
        assert len(on.asked("own")) == 1
        reply = await on.chat("other")
        assert reply.honesty["strategy"] == "gated"


def test_without_patterns_and_rules_there_is_only_a_pipeline():
    settings = Settings(upstream="http://x/v1", upstreams={"spare": {"url": "http://y/v1"}})
    pipeline = routed(Upstreams(settings), settings)
    assert type(pipeline) is Pipeline
    assert pipeline.of("any") is pipeline


def test_the_default_strategy_is_that_of_the_models_own_upstream():
    class Sensing(Scripted):
        traits = Traits(default_strategy="curiosity")

    sensing = Sensing(["Hi."])
    table = {"url": "http://x/v1", "models": ["far-*"]}
    settings = Settings(upstream="x:y", upstreams={"far": table}, models={"far-2": {}})
    router = routed(Upstreams(settings, sensing), settings)
    assert router.default_strategy == "curiosity"
    assert router.of("near").default_strategy == "curiosity"
    assert router.of("far-1").default_strategy == router.of("far-2").default_strategy == "gated"


def test_what_cant_work_is_told_at_once():
    table = {"url": "nonsense", "models": ["far-*"]}
    for wrong, kind in (
        (Settings(upstream="http://x/v1", upstreams={"far": table}), SettingsError),
        (Settings(upstream="http://x/v1", models={"m": {"strategy": "gatde"}}), InvalidRequest),
    ):
        with pytest.raises(kind, match=r"nonsense|gatde"):
            routed(Upstreams(wrong), wrong)


def test_names_that_clients_make_up_are_not_all_remembered():
    settings = Settings(upstream="x:y", models={"a*": {"threshold": 0.1}})
    router = routed(Upstreams(settings, Scripted([])), settings)
    assert isinstance(router, Router)
    for number in range(3000):
        router.of(f"a{number}")
    router.of("a" * 100_000)
    assert router._known.cache_info().currsize == 1024
    assert router.of("a" * 100_000).settings.threshold == 0.1
    assert router.of("b").settings.threshold == 0.8


async def test_models_are_listed_by_the_upstream_that_answers_for_them():
    listed = {
        "own": models("m", "house-9", "text-1"),
        "house": models("house-1", "house-2", "text-1"),
        "silent": models(),
    }
    tables = {"house": {}, "silent": {"models": ["literal", "silent-*"]}}
    async with running(tables, listed, variants=False) as on:
        _, body = await on.get("/models")
        assert [m["id"] for m in body["data"]] == ["m", "text-1", "house-1", "house-2", "literal"]
        status, model = await on.get("/models/house-2")
        assert (status, model["id"]) == (200, "house-2")


async def test_an_upstream_that_is_down_leaves_its_models_out(caplog):
    down = {"url": f"http://127.0.0.1:{free_port()}/v1", "models": ["literal", "house-*"]}
    async with running({"house": down}, variants=False, retries=0) as on:
        status, body = await on.get("/models")
        assert (status, [m["id"] for m in body["data"]]) == (200, ["m"])
        assert "models are left out" in caplog.text


async def test_where_no_upstream_lists_models_it_is_the_first_ones_error():
    refusing = {
        name: lambda _, status=status: answer({"error": {"message": "No."}}, status=status)
        for name, status in {"own": 401, "house": 403}.items()
    }
    async with running({"house": {}}, refusing) as on:
        status, _ = await on.get("/models")
        assert status == 401


async def test_relayed_json_goes_to_its_models_upstream_and_all_else_to_the_default():
    async with running({"house": {}}) as on:
        await on.post("/embeddings", {"input": "x", "model": "house-1"})
        assert [seen.path for seen in on.asked("house")] == ["/v1/embeddings"]
        assert on.asked("house")[0].json() == {"input": "x", "model": "house-1"}

        async def parts() -> AsyncIterator[bytes]:
            yield b'{"model": "hou'
            yield b'se-2"}'

        kind = {"Content-Type": "application/json"}
        async with on.session.post(f"{on.url}/embeddings", data=parts(), headers=kind) as got:
            assert got.status == 200
        assert on.asked("house")[1].json() == {"model": "house-2"}
        form = aiohttp.FormData({"model": "house-1", "purpose": "x"})
        form.add_field("file", b"x", filename="x.txt")
        await on.post("/files", form)
        for body in ({"model": "m"}, {"model": ["house-1"]}, b"{", b"", b"[]"):
            await on.post("/embeddings", body, headers=kind if isinstance(body, bytes) else {})
        await on.get("/files")
        assert len(on.asked("house")) == 2
        assert len(on.asked("own")) == 7


async def test_a_relayed_body_that_has_to_be_read_has_a_limit():
    async with running({"house": {}}, max_body_bytes=1000) as on:
        status, body = await on.post("/embeddings", {"model": "house-1", "input": "x" * 1000})
        assert status == 413
        assert "max_body_bytes" in body["error"]["message"]
        assert on.asked("house") == []


async def test_an_error_says_nothing_of_another_upstreams_key():
    def refusing(seen: Seen) -> Any:
        key = seen.headers.get("Authorization", "")
        return answer({"error": {"message": f"wrong key {key}"}}, status=401)

    async with running({"house": {"key": "house-key"}}, {"house": refusing}) as on:
        for path in ("/chat/completions", "/completions"):
            status, body = await on.post(path, ask(model="house-1"))
            assert status == 401
            assert "house-key" not in json.dumps(body)


async def test_a_stream_that_is_raw_passes_byte_for_byte():
    raw = events(b'data: {"id": "x", "odd":   1, "choices": []}\n\n')
    async with running({"house": {}}, {"house": lambda _: raw}, strategy="raw") as on:
        body = ask(model="house-1", stream=True)
        async with on.session.post(f"{on.url}/chat/completions", json=body) as got:
            assert await got.read() == b"".join(p for p in raw.pieces if isinstance(p, bytes))


async def test_serve_with_a_file_chats_through_both_upstreams(tmp_path):
    key = tmp_path / "key"
    key.write_text("house-key\n", "utf-8")
    key.chmod(0o600)
    async with upstream(script()) as own, upstream(script()) as house:
        config = tmp_path / "two.toml"
        config.write_text(
            f'upstream = "{own.url}"\nupstream_key = "env:OWN_KEY"\n\n'
            f'[upstreams.house]\nurl = "{house.url}"\nkey = "file:{key}"\nmodels = ["house-*"]\n\n'
            '[models."house-raw"]\nstrategy = "raw"\n',
            "utf-8",
        )
        command = [sys.executable, "-m", "honestproxy", "serve", "--config", str(config)]
        proxy = await asyncio.create_subprocess_exec(
            *command,
            *("--port", "0", "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "OWN_KEY": "own-key"},
        )
        assert proxy.stdout is not None
        try:
            said = json.loads(await proxy.stdout.readline())
            async with AsyncOpenAI(base_url=said["url"], api_key="x", max_retries=0) as client:
                for model in ("m", "house-1", "house-raw"):
                    body: Any = ask(model=model)
                    reply = await client.chat.completions.create(**body)
                    assert reply.choices[0].message.content == "The draft."
        finally:
            proxy.terminate()
            _, complaints = await proxy.communicate()
    assert {seen.headers["Authorization"] for seen in own.seen} == {"Bearer own-key"}
    assert {seen.headers["Authorization"] for seen in house.seen} == {"Bearer house-key"}
    asked = [seen.json()["model"] for seen in house.seen if seen.body]
    assert sorted(asked) == ["house-1", "house-1", "house-raw"]
    assert complaints == b""
