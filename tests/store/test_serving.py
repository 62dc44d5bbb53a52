"""The store behind a proxy over real HTTP: what a client saw end is a row, on each database."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI, OpenAI

from honestproxy import honest
from honestproxy.errors import SettingsError
from honestproxy.server import create_app
from honestproxy.server.access import keys
from honestproxy.server.app import Proxy as App
from honestproxy.settings import Settings
from honestproxy.store.database import Database
from honestproxy.store.rows import Filter, Rows
from honestproxy.store.schema import Row
from tests.postgres_server import postgres_server
from tests.proxy import DOUBT, DRAFT, Proxy, ask, proxy, script, serving
from tests.store.rows import row
from tests.upstreams import answer, chunk, completion, event, events, upstream

KEEP = {"X_Honesty_Trace": "keep"}
SECRET = "sk-planted0123456789abcdef"
QUESTION = f"What does my key {SECRET} cost today?"


def stored(url: str) -> list[Row]:
    database = Database(url)
    found = list(Rows(database).each(Filter()))
    database.close()
    return found


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


def texts(rows: list[Row]) -> str:
    return json.dumps(rows)


async def got(on: Proxy, path: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
    async with on.session.request(method, f"{on.url}{path}", headers=headers) as response:
        body = await response.read()
        return response.status, json.loads(body) if body else None


async def trace(on: Proxy, name: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
    return await got(on, f"/honesty/traces/{name}", method, **headers)


async def counts(on: Proxy) -> tuple[int, int, int]:
    _, told = await got(on, "/honesty/traces")
    return told["written"], told["shed"], told["pending"]


async def until(holds: Callable[[], Any]) -> None:
    """Wait until it is so."""
    for _ in range(600):
        if await holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("never came true")


async def test_every_request_that_ended_is_one_row_and_without_a_text(url: str) -> None:
    told = {}
    async with proxy(script(confusion=DOUBT), trace_store=url) as on:
        _, whole, headers = await on.post(ask(QUESTION))
        told["chat"] = headers["x-honesty-trace-id"]
        body = ask(QUESTION, stream=True, stream_options={"include_usage": True})
        sent = {"X-Honesty": "raw"}
        async with on.session.post(f"{on.url}/chat/completions", json=body, headers=sent) as live:
            await live.read()
            told["raw"] = live.headers["x-honesty-trace-id"]
        refused, _, _ = await on.post({"model": "m", "messages": QUESTION})
        async with on.session.get(f"{on.url}/files") as relayed:
            await relayed.read()
    rows = stored(url)
    assert refused == 400
    by_id = {row.id: row for row in rows}
    gated, raw = by_id[told["chat"]], by_id[told["raw"]]
    assert len(rows) == 4
    assert (gated.outcome, gated.reason, gated.calls) == ("rewritten", "1 doubt", 3)
    assert (gated.status, gated.failed, gated.client_left) == (200, False, False)
    assert gated.total_tokens == whole["usage"]["total_tokens"] == 21
    assert (gated.doubts, gated.confidence) == ('[{"kind":"latest_information"}]', 0.2)
    assert (raw.strategy, raw.streamed, raw.total_tokens) == ("raw", True, 7)
    assert {(row.api, row.status, row.failed) for row in rows if row.strategy is None} == {
        ("chat", 400, True),
        ("relay", relayed.status, False),
    }
    for planted in ("planted", "What does", "No live prices", DRAFT):
        assert planted not in texts(rows)


async def test_failures_and_leaving_are_told_without_the_upstreams_words(url: str) -> None:
    broken = answer({"error": {"message": QUESTION}}, status=429)
    async with proxy(script(draft=broken), trace_store=url) as on:
        _, _, headers = await on.post(ask())
        failed = headers["x-honesty-trace-id"]
    async with proxy(script(confusion=DOUBT, merge=broken), trace_store=url) as on:
        _, reply, _ = await on.post(ask())
        fallen = reply["honesty"]["trace_id"]
        assert QUESTION in reply["honesty"]["reason"]
    holding = events(event(chunk("The ")), done=False, then="hold")
    async with proxy(script(draft=holding), trace_store=url) as on:
        sent = {"X-Honesty": "raw"}
        async with on.session.post(
            f"{on.url}/chat/completions", json=ask(stream=True), headers=sent
        ) as live:
            await live.content.readany()
            left = live.headers["x-honesty-trace-id"]
        await on.upstream.gone.wait()
    rows = {row.id: row for row in stored(url)}
    assert (rows[failed].status, rows[failed].failed) == (429, True)
    assert (rows[fallen].outcome, rows[fallen].status) == ("draft_fallback", 200)
    assert rows[fallen].reason.startswith("merge: ")
    assert (rows[left].client_left, rows[left].outcome) == (True, None)
    assert "planted" not in texts(list(rows.values()))


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_raw_answer_that_fails_or_breaks_off_has_no_outcome(
    url: str, streamed: bool
) -> None:
    refused = answer({"error": {"message": "down"}}, status=500)
    broken = events(event(chunk("The ")), done=False, then="drop")
    replies = script(draft=broken if streamed else refused)
    async with (
        proxy(replies, strategy="raw", trace_store=url) as on,
        on.session.post(f"{on.url}/chat/completions", json=ask(stream=streamed)) as got,
    ):
        await got.read()
    (kept,) = stored(url)
    assert (kept.status, kept.failed) == (200 if streamed else 500, True)
    assert (kept.strategy, kept.outcome) == ("raw", None)


async def test_a_request_that_wants_its_texts_kept_has_them_in_memory_and_not_stored(
    url: str,
) -> None:
    async with proxy(script(confusion=DOUBT), trace_store=url) as on:
        _, _, headers = await on.post(ask(QUESTION), **KEEP)
        kept = headers["x-honesty-trace-id"]
        status, now = await trace(on, kept)
        assert (status, now["steps"][0]["text"]) == (200, DRAFT)
    async with proxy(script(), trace_store=url) as on:  # as after a restart
        status, later = await trace(on, kept)
        assert (status, later["strategy"]) == (200, "gated")
        assert DRAFT not in str(later)
    assert DRAFT not in texts(stored(url))


async def test_texts_are_stored_where_the_settings_say_so_and_redacted(url: str) -> None:
    told = {}
    async with proxy(script(confusion=DOUBT), trace_store=url, traces="texts") as on:
        _, _, headers = await on.post(ask(QUESTION))
        told["gated"] = headers["x-honesty-trace-id"]
        sent = {"X-Honesty": "raw"}
        async with on.session.post(
            f"{on.url}/chat/completions", json=ask(QUESTION, stream=True), headers=sent
        ) as live:
            await live.read()
            told["raw"] = live.headers["x-honesty-trace-id"]
        now = {name: await trace(on, one) for name, one in told.items()}
    async with proxy(script(), trace_store=url) as on:  # as after a restart
        later = {name: await trace(on, one) for name, one in told.items()}
    assert now == later
    status, gated = later["gated"]
    steps = {step["name"]: step for step in gated["steps"]}
    assert (status, steps["draft"]["text"]) == (200, DRAFT)
    assert steps["draft"]["messages"][0]["content"] == "What does my key [redacted] cost today?"
    assert gated["doubts"][0]["statement"] == "No live prices here."
    assert later["raw"][1]["steps"][0]["text"] == DRAFT
    assert SECRET not in texts(stored(url))


async def test_patterns_of_ones_own_are_redacted_in_memory_too(url: str) -> None:
    more = {"trace_store": url, "redact": (r"(?i)live \w+",)}
    async with proxy(script(confusion=DOUBT), **more) as on:
        _, _, headers = await on.post(ask(), **KEEP)
        _, told = await trace(on, headers["x-honesty-trace-id"])
    assert told["doubts"][0]["statement"] == "No [redacted] here."
    assert "No live" not in texts(stored(url))


async def test_without_texts_a_trace_tells_what_else_is_known(url: str) -> None:
    async with proxy(script(), trace_store=url) as on:
        _, _, headers = await on.post(ask(QUESTION))
        status, told = await trace(on, headers["x-honesty-trace-id"])
    assert (status, told["outcome"], told["model"]) == (200, "draft_kept", "m")
    assert "steps" not in told


async def test_a_trace_can_be_deleted_before_and_after_it_is_written(url: str) -> None:
    async with proxy(script(), trace_store=url) as on:
        for wish in ({}, KEEP):
            _, _, headers = await on.post(ask(), **wish)
            name = headers["x-honesty-trace-id"]
            assert (await trace(on, name, "DELETE"))[0] == 204
            assert (await trace(on, name))[0] == 404
            assert (await trace(on, name, "DELETE"))[0] == 404
        _, _, headers = await on.post(ask())
        elsewhere = {"X-Forwarded-For": "192.0.2.1"}
        assert (await trace(on, headers["x-honesty-trace-id"], "DELETE", **elsewhere))[0] == 403
        assert (await got(on, "/honesty/traces", **elsewhere))[0] == 403
    assert [row.id for row in stored(url)] == [headers["x-honesty-trace-id"]]


async def test_a_key_reads_and_deletes_its_own_traces_alone(url: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    mine, _ = keys.create(file, name="mine")
    other, _ = keys.create(file, name="other")
    boss, _ = keys.create(file, name="boss", admin=True)

    def by(key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    async with proxy(script(), trace_store=url, keys=file, upstream_key="up") as on:
        for wish in ({}, KEEP):
            _, _, headers = await on.post(ask(), **by(mine), **wish)
            name = headers["x-honesty-trace-id"]
            assert (await trace(on, name, **by(mine)))[0] == 200
            assert (await trace(on, name, **by(boss)))[0] == 200
            for method in ("GET", "DELETE"):
                assert (await trace(on, name, method, **by(other)))[0] == 404
                assert (await trace(on, name, method))[0] == 401
        assert (await trace(on, name, "DELETE", **by(mine)))[0] == 204
        await on.post(ask(), **by(other))
    rows = stored(url)
    assert len({row.key_id for row in rows}) == 2
    assert mine not in texts(rows)


async def test_whoever_has_no_key_fills_no_store(url: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    keys.create(file)
    async with proxy(script(), trace_store=url, keys=file, upstream_key="up") as on:
        assert {(await on.post(ask()))[0] for _ in range(3)} == {401}
    assert stored(url) == []


async def test_off_means_that_nothing_is_stored(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'traces.db'}"
    async with proxy(script(), trace_store=url, traces="off") as on:
        _, _, headers = await on.post(ask(), **KEEP)
        assert (await trace(on, headers["x-honesty-trace-id"]))[0] == 200  # in memory, as asked
        assert await counts(on) == (0, 0, 0)
    assert is_empty(tmp_path)


async def test_a_wrapped_client_writes_nothing_whatever_its_settings_say(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'traces.db'}"
    async with upstream(script()) as server:
        inner = OpenAI(base_url=server.url, api_key="none", max_retries=0)
        client = honest(inner, settings=Settings(trace_store=url, traces="texts"))
        asked: Any = ask()
        reply = await asyncio.to_thread(client.chat.completions.create, **asked)
        inner.close()
    assert reply.choices[0].message.content == DRAFT
    assert is_empty(tmp_path)


@asynccontextmanager
async def app_of(settings: Settings) -> AsyncIterator[tuple[App, Proxy]]:
    """A proxy whose application is at hand."""
    app = create_app(settings)
    async with (
        serving(settings, app=app) as url,
        aiohttp.ClientSession() as session,
        AsyncOpenAI(base_url=url, api_key="none") as client,
    ):
        yield app, Proxy(url, None, client, session)  # type: ignore[arg-type]


async def test_a_reload_goes_on_with_the_store_or_changes_it(url: str, tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path / 'other.db'}"
    async with upstream(script()) as server:
        settings = Settings(upstream=server.url, trace_store=url)
        async with app_of(settings) as (app, on):
            await on.post(ask())
            await app.reload(settings.model_copy(update={"strategy": "raw"}))
            await on.post(ask())
            assert sum(await counts(on)) == 2
            await app.reload(settings.model_copy(update={"trace_store": other}))
            await on.post(ask())
            assert sum(await counts(on)) == 1
            with pytest.raises(SettingsError, match="not known here"):
                await app.reload(settings.model_copy(update={"trace_store": "mysql://x/y"}))
            await on.post(ask())
            await app.reload(settings.model_copy(update={"traces": "off"}))
            await on.post(ask())
    assert [row.strategy for row in stored(url)] == ["gated", "raw"]
    assert len(stored(other)) == 2


async def test_what_is_too_old_goes_at_the_start(url: str) -> None:
    database = Database(url)
    database.prepare()
    old, young = row(created=time.time() - 3 * 86_400), row(created=time.time() - 86_400)
    Rows(database).add([old, young])
    async with proxy(script(), trace_store=url, trace_days=2.0) as on:
        _, _, headers = await on.post(ask())
    database.close()
    assert {found.id for found in stored(url)} == {young.id, headers["x-honesty-trace-id"]}


async def test_what_a_key_has_spent_today_outlives_the_process(url: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    mine, _ = keys.create(file, name="mine", spend=10)
    sent = {"Authorization": f"Bearer {mine}", "X-Honesty": "raw"}
    statuses = []
    for _ in range(3):
        async with proxy(script(), trace_store=url, keys=file, upstream_key="up") as on:
            statuses.append((await on.post(ask(), **sent))[0])
    assert statuses == [200, 200, 429]


async def test_a_postgresql_that_goes_away_costs_no_request_and_loses_no_row() -> None:
    with postgres_server() as server:
        url = server.database()
        async with proxy(script(), trace_store=url) as on:

            async def asked(number: int) -> str:
                status, _, headers = await on.post(ask(), X_Honesty="raw")
                assert status == 200
                return headers["x-honesty-trace-id"]

            async def written() -> bool:
                return (await counts(on))[0] == 50

            before = [await asked(number) for number in range(50)]
            await until(written)
            await asyncio.to_thread(server.stop)
            during = [await asked(number) for number in range(50)]
            assert await counts(on) == (50, 0, 50)
            status, told = await trace(on, during[-1])  # still under way
            assert (status, told["outcome"]) == (200, "passed_through")
            status, told = await trace(on, before[0])
            assert (status, told["error"]["code"]) == (503, "trace_store_unavailable")
            await asyncio.to_thread(server.start)
            after = [await asked(number) for number in range(50)]
        assert {found.id for found in stored(url)} == {*before, *during, *after}


@pytest.mark.parametrize("model", ["a\0b", "\ud800", "m" * 5000, "🦊", "'; DROP TABLE traces; --"])
async def test_whatever_a_model_is_called_its_row_is_written(url: str, model: str) -> None:
    async with proxy(script(), trace_store=url, traces="texts") as on:
        status, _, headers = await on.post(ask(f"Who is {model}?") | {"model": model})
        assert status == 200
        name = headers["x-honesty-trace-id"]
        await until(lambda: _written(on, 1))
        _, told = await trace(on, name)
    (found,) = stored(url)
    assert found.id == name
    assert told["steps"][0]["messages"][0]["content"] == f"Who is {model}?"
    assert len(found.model or "") <= 1000


async def _written(on: Proxy, number: int) -> bool:
    return await counts(on) == (number, 0, 0)


@pytest.mark.parametrize("model", [5, None, ["m"], {}])
async def test_a_request_without_a_sane_model_has_its_row_as_well(url: str, model: Any) -> None:
    async with proxy(script(), trace_store=url) as on:
        status, _, _ = await on.post(ask() | {"model": model})
    (found,) = stored(url)
    assert found.status == status >= 400
    assert found.failed


async def test_what_an_upstream_says_of_its_tokens_is_taken_with_care(url: str) -> None:
    for usage in ({"total_tokens": 10**30}, {"total_tokens": "7", "prompt_tokens": -1}, {"x": 1}):
        odd = answer(completion() | {"usage": usage})
        async with proxy(script(draft=odd), trace_store=url) as on:
            assert (await on.post(ask(), X_Honesty="raw"))[0] == 200
    assert {(found.total_tokens, found.prompt_tokens) for found in stored(url)} == {(None, None)}
