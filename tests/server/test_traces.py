"""Traces with their texts: kept for who asks on this machine, and for nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from honestproxy.errors import SettingsError
from honestproxy.server import create_app
from honestproxy.server.traces.recording import Kept, LastTraces
from honestproxy.settings import Settings
from tests.proxy import DOUBT, DRAFT, MERGED, Proxy, ask, proxy, script
from tests.upstreams import Reply, answer, chunk, event

KEEP = {"X_Honesty_Trace": "keep"}


async def found(on: Proxy, name: str, **headers: str) -> tuple[int, Any]:
    async with on.session.get(f"{on.url}/honesty/traces/{name}", headers=headers) as got:
        return got.status, await got.json()


async def streamed(on: Proxy, strategy: str) -> str:
    sent = {"X-Honesty-Trace": "keep", "X-Honesty": strategy}
    body = ask(stream=True, stream_options={"include_usage": True})
    async with on.session.post(f"{on.url}/chat/completions", json=body, headers=sent) as got:
        await got.read()
        return got.headers["x-honesty-trace-id"]


async def test_a_trace_tells_what_each_step_sent_and_got_back() -> None:
    async with proxy(script(confusion=DOUBT)) as on:
        _, reply, told = await on.post(ask(), **KEEP)
        status, trace = await found(on, told["x-honesty-trace-id"])
        asked = on.bodies()
    assert status == 200
    assert trace["trace_id"] == reply["honesty"]["trace_id"]
    assert trace["doubts"] == reply["honesty"]["doubts"]
    steps = {step["name"]: step for step in trace["steps"]}
    for name, text in {"draft": DRAFT, "confusion": DOUBT, "merge": MERGED}.items():
        assert steps[name]["text"] == text
        assert steps[name]["messages"] == asked[name]["messages"]
    assert steps["confusion"]["prompt"] == "gated/confusion"


@pytest.mark.parametrize("strategy", ["raw", "gated"])
async def test_of_a_stream_the_whole_text_is_kept_before_its_end_is_told(strategy: str) -> None:
    parts = ["The ", "dra", "ft."]
    async with proxy(script(draft=parts)) as on:
        _, trace = await found(on, await streamed(on, strategy))
    assert trace["steps"][0]["text"] == DRAFT
    assert trace["steps"][0]["usage"]["total_tokens"] == 7


async def test_events_that_came_at_once_are_all_in_it() -> None:
    at_once = b"".join([event(chunk("The ")), event(chunk("draft.")), event(chunk(None, "stop"))])
    reply = Reply([at_once + event(b"[DONE]")], content_type="text/event-stream")
    async with proxy(script(draft=reply)) as on:
        _, trace = await found(on, await streamed(on, "raw"))
    assert trace["steps"][0]["text"] == DRAFT


async def test_a_request_that_failed_has_one_too() -> None:
    refused = answer({"error": {"message": "slow down"}}, status=429)
    async with proxy(script(draft=refused)) as on:
        _, _, told = await on.post(ask(), **KEEP)
        _, trace = await found(on, told["x-honesty-trace-id"])
    draft = trace["steps"][0]
    assert (draft["name"], draft["text"]) == ("draft", None)
    assert "slow down" in draft["error"]


async def test_nothing_is_kept_unasked() -> None:
    async with proxy(script()) as on:
        _, _, told = await on.post(ask())
        status, reply = await found(on, told["x-honesty-trace-id"])
    assert (status, reply["error"]["code"]) == (404, "trace_not_found")


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 gateway"},
        {"Host": "rebound.example"},
        {"Host": "192.0.2.7:8400"},
        {"Host": "127.0.0.1.example"},
        {"Host": "[::1"},
    ],
)
async def test_nor_for_whoever_comes_through_another_machine_or_by_another_name(
    elsewhere: dict[str, str],
) -> None:
    others = ("rebound.example", "192.0.2.7", "127.0.0.1.example")
    async with proxy(script(), allowed_hosts=others) as on:
        _, _, told = await on.post(ask(), **KEEP, **elsewhere)
        assert (await found(on, told["x-honesty-trace-id"]))[0] == 404
        _, _, told = await on.post(ask(), **KEEP)
        assert (await found(on, told["x-honesty-trace-id"]))[0] == 200
        assert (await found(on, told["x-honesty-trace-id"], **elsewhere))[0] == 403


@pytest.mark.parametrize("host", ["localhost:8400", "127.0.0.1", "[::1]:1"])
async def test_every_name_of_this_machine_will_do(host: str) -> None:
    async with proxy(script()) as on:
        _, _, told = await on.post(ask(), **KEEP, Host=host)
        assert (await found(on, told["x-honesty-trace-id"], Host=host))[0] == 200


async def test_what_is_below_our_own_path_never_reaches_the_upstream() -> None:
    async with proxy(script()) as on:
        for method in ("GET", "POST", "DELETE"):
            async with on.session.request(method, f"{on.url}/honesty/anything", json={}) as got:
                assert got.status == 404
        assert on.upstream.seen == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "traces/1", "DELETE, GET"),
        ("POST", "traces", "GET"),
        ("GET", "feedback", "POST"),
        ("PATCH", "experiment", "GET"),
        ("PUT", "nowhere", None),
    ],
)
async def test_a_path_of_ours_says_which_methods_it_takes(
    method: str, path: str, allowed: str | None
) -> None:
    async with (
        proxy(script()) as on,
        on.session.request(method, f"{on.url}/honesty/{path}", json={}) as got,
    ):
        said = (await got.json())["error"]["message"]
        assert (got.status, got.headers.get("Allow")) == (405 if allowed else 404, allowed)
    assert ("doesn't take that method" in said) == bool(allowed)
    assert on.upstream.seen == []


async def test_only_a_reload_that_is_done_changes_how_long_rows_are_kept(tmp_path: Path) -> None:
    known = {"upstream": "http://127.0.0.1:9/v1", "trace_store": f"sqlite:///{tmp_path}/t.db"}
    app = create_app(Settings(**known, trace_days=30))
    await app.start()
    store = app.service.store
    assert store is not None
    with pytest.raises(SettingsError):
        await app.reload(Settings(**known, trace_days=1, answer_cache="nowhere"))
    assert store.days == 30
    await app.reload(Settings(**known, trace_days=2))
    assert (app.service.store, store.days) == (store, 2)
    await app.aclose()


def test_the_last_traces_are_bounded_in_number_and_in_size() -> None:
    few, small = LastTraces(most=2), LastTraces(room=10)
    for kept in (few, small):
        for name in "abc":
            kept.keep(name, Kept(name.encode() * 4))
        assert [kept.find(name) for name in "abc"] == [None, Kept(b"bbbb"), Kept(b"cccc")]
    small.keep("b", Kept(b"b" * 11))
    assert (small.find("b"), small.find("c")) == (None, Kept(b"cccc"))
    small.keep("c", Kept(b"c" * 10))
    assert small.find("c") == Kept(b"c" * 10)
