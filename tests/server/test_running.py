"""The server's life: it listens while a model loads, reloads, and ends without losing a request."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from honestproxy.backends.scripted import Scripted
from honestproxy.errors import ModelUnavailable, SettingsError
from honestproxy.settings import Settings
from tests.proxy import DRAFT, ask, script
from tests.running import Running, post, read, running
from tests.upstreams import Reply, Seen, answer, chunk, completion, event, events, upstream

RAW = json.dumps(ask(honesty={"strategy": "raw"})).encode()
STREAM = json.dumps(ask(stream=True, honesty={"strategy": "raw"})).encode()
GATED = json.dumps(ask(stream=True, honesty={"strategy": "gated"})).encode()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


async def status(on: Running, path: str) -> int:
    return (await on.ask(get(path))).status


class Slow:
    """An upstream that answers in its own time; `released` lets all answers go."""

    def __init__(self) -> None:
        self.released = False

    def __call__(self, seen: Seen) -> Reply:
        if self.released:
            return script()(seen)
        return Reply([0.3, json.dumps(completion("late")).encode()])


async def test_while_its_model_loads_only_health_is_answered_and_requests_wait() -> None:
    loaded = asyncio.Event()
    async with upstream(script()) as up, running(up, ready=loaded.wait) as on:
        assert (await status(on, "/healthz"), await status(on, "/readyz")) == (200, 503)
        asked = asyncio.create_task(on.ask(post(RAW)))
        await asyncio.sleep(0.05)
        assert not asked.done()
        loaded.set()
        assert (await asked).status == 200
        assert (await status(on, "/healthz"), await status(on, "/readyz")) == (200, 200)


async def test_what_goes_wrong_while_it_loads_ends_it() -> None:
    async def broken() -> None:
        raise ModelUnavailable("no such model")

    async with running(ready=broken) as on:
        with pytest.raises(ModelUnavailable):
            await on.ended
        with pytest.raises(ConnectionRefusedError):
            await on.connect()


async def test_it_can_be_told_to_stop_while_it_loads() -> None:
    async with running(ready=asyncio.Event().wait) as on:
        await status(on, "/healthz")
        assert await on.stop(signal.SIGINT) == signal.SIGINT


async def test_at_the_end_answers_under_way_are_finished_and_say_that_they_are_the_last() -> None:
    async with upstream(Slow()) as up, running(up) as on:
        asked = [asyncio.create_task(on.ask(post(RAW))) for _ in range(20)]
        while len(up.seen) < 20:
            await asyncio.sleep(0.01)
        assert await on.stop() == signal.SIGTERM
        told = [await one for one in asked]
    assert {one.status for one in told} == {200}
    assert {one.headers["connection"] for one in told} == {"close"}


async def test_at_the_end_it_is_not_ready_and_idle_connections_are_still_answered() -> None:
    async with upstream(Slow()) as up, running(up) as on:
        idle = [await on.connect() for _ in range(3)]
        reader, writer = idle[0]
        writer.write(get("/healthz"))
        assert (await read(reader)).status == 200
        under_way = asyncio.create_task(on.ask(post(RAW)))
        while not up.seen:
            await asyncio.sleep(0.01)
        on.server.stop(signal.SIGTERM)
        await asyncio.sleep(0.2)
        for (reader, writer), path in zip(idle, ("/readyz", "/healthz", "/healthz"), strict=True):
            writer.write(get(path))
            told = await read(reader)
            assert told.status == (503 if path == "/readyz" else 200)
            assert told.headers["connection"] == "close"
        assert (await under_way).status == 200
        await on.ended


async def test_requests_sent_ahead_are_all_answered_at_the_end() -> None:
    async with upstream(Slow()) as up, running(up) as on:
        reader, writer = await on.connect()
        writer.write(post(RAW) * 3)
        while not up.seen:
            await asyncio.sleep(0.01)
        on.server.stop(signal.SIGTERM)
        assert [(await read(reader)).status for _ in range(3)] == [200, 200, 200]
        await on.ended


async def test_nobody_can_connect_when_it_has_ended() -> None:
    async with running() as on:
        assert await on.stop() == signal.SIGTERM
        with pytest.raises(ConnectionRefusedError):
            await on.connect()


def holding(_: Seen) -> Reply:
    return Reply([], then="hold")


async def test_what_is_not_done_in_time_is_a_503_that_says_when_to_come_again() -> None:
    async with upstream(holding) as up, running(up, shutdown_timeout=0.1) as on:
        asked = asyncio.create_task(on.ask(post(RAW)))
        await up.holding.wait()
        await on.stop()
        told = await asked
        await up.gone.wait()
    error = json.loads(told.body)["error"]
    assert (told.status, error["code"], error["type"]) == (503, "stopping", "server_error")
    assert told.headers["retry-after"] == "1"


async def test_who_waits_for_a_place_and_whose_body_is_still_coming_are_told_so_too() -> None:
    limits = {"shutdown_timeout": 0.1, "max_concurrency": 1}
    async with upstream(holding) as up, running(up, **limits) as on:
        first = asyncio.create_task(on.ask(post(RAW)))
        await up.holding.wait()
        others = [post(RAW), post(RAW)[:-5], post(b"{}", "/v1/embeddings")]
        waits = [asyncio.create_task(on.ask(raw)) for raw in others]
        await asyncio.sleep(0.1)
        await on.stop()
        assert [(await one).status for one in (first, *waits)] == [503] * 4


@pytest.mark.parametrize("body", [STREAM, GATED])
async def test_a_stream_that_is_cut_off_says_so_in_its_midst_and_ends(body: bytes) -> None:
    begun = events(event(chunk("Once upon")), done=False, then="hold")
    async with upstream(lambda _: begun) as up, running(up, shutdown_timeout=0.2) as on:
        settings = on.settings[0].model_copy(update={"stream_head_wait": 0.05})
        await on.app.reload(settings)
        reader, writer = await on.connect()
        writer.write(post(body))
        await up.holding.wait()
        await asyncio.sleep(0.2)
        await on.stop()
        told = await read(reader)
        assert await reader.read() == b""
    last = told.body.split(b"\n\n")[-2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "stopping"
    assert b"[DONE]" not in told.body


async def test_a_relayed_stream_that_is_cut_off_says_so_too() -> None:
    begun = events(event({"choices": []}), done=False, then="hold")
    async with upstream(lambda _: begun) as up, running(up, shutdown_timeout=0.1) as on:
        reader, writer = await on.connect()
        writer.write(post(b"{}", "/v1/completions"))
        await up.holding.wait()
        await on.stop()
        told = await read(reader)
    assert b'"code":"stopping"' in told.body


async def test_every_request_is_told_to_observers_before_the_end() -> None:
    noted: list[Any] = []

    class Notes:
        def note(self, account: Any) -> None:
            noted.append((account.status, account.failed is not None))

    async with upstream(holding) as up, running(up, shutdown_timeout=0.1) as on:
        on.app.service.observers += (Notes(),)
        on.app.service.admission.adopt(Settings(max_concurrency=2))
        asked = [asyncio.create_task(on.ask(post(RAW))) for _ in range(5)]
        await up.holding.wait()
        await on.stop()
        await asyncio.gather(*asked)
    assert noted == [(503, True)] * 5


def changed(on: Running, **more: Any) -> None:
    """Other settings are there to be loaded."""
    on.settings.append(on.settings[0].model_copy(update=more))


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


async def test_a_reload_says_what_has_changed_and_never_to_what(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with upstream(script()) as up, running(up) as on:
        await status(on, "/readyz")
        secret = Settings(upstream_key="sk-planted-secret").upstream_key
        changed(on, strategy="raw", upstream_key=secret, port=1, host="127.0.0.9")
        with caplog.at_level(logging.WARNING):
            on.server.reload()
            await until(lambda: bool(caplog.messages))
            told = await on.ask(post(json.dumps(ask()).encode()))
    assert told.headers["x-honesty-strategy"] == "raw"
    assert up.seen[-1].headers["Authorization"] == "Bearer sk-planted-secret"
    (said,) = caplog.messages
    assert "upstream_key, strategy changed" in said
    assert "host, port: only a restart changes that" in said
    assert "sk-planted" not in caplog.text


async def test_settings_that_cannot_work_leave_those_before_in_force(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with upstream(script()) as up, running(up, strategy="raw") as on:
        await status(on, "/readyz")
        for wrong in (
            {"prompts": Path("/nowhere")},
            {"upstream": "nonsense"},
            {"strategy": "gatde"},
        ):
            caplog.clear()
            changed(on, **wrong)
            on.server.reload()
            await until(lambda: bool(caplog.messages))
            assert caplog.messages[0].startswith("not reloaded, all goes on as before: ")
            assert (await on.ask(post(RAW))).status == 200

        def unreadable() -> Settings:
            raise SettingsError("honestproxy.toml:3: unknown setting 'stratgy'")

        caplog.clear()
        on.server._load = unreadable
        on.server.reload()
        await until(lambda: bool(caplog.messages))
        assert "honestproxy.toml:3: unknown setting 'stratgy'" in caplog.messages[0]


async def test_no_request_is_lost_or_mixed_while_settings_change() -> None:
    def echo(seen: Seen) -> Reply:
        text = seen.json()["messages"][0]["content"]
        return Reply([0.01, json.dumps(completion(text)).encode()])

    async def client(on: Running, name: int) -> int:
        reader, writer = await on.connect()
        for number in range(10):
            text = f"{name}:{number}"
            writer.write(post(json.dumps(ask(text)).encode()))
            told = await read(reader)
            assert json.loads(told.body)["choices"][0]["message"]["content"] == text
            assert told.headers["x-honesty-strategy"] == "raw"
        return 10

    async with upstream(echo) as up, running(up, strategy="raw") as on:
        await status(on, "/readyz")
        clients = asyncio.gather(*(client(on, name) for name in range(30)))
        rounds = 0
        while not clients.done():
            rounds += 1
            changed(on, threshold=rounds % 2 / 2, connect_timeout=5.0 + rounds % 3)
            on.server.reload()
            on.server.reload()
            await asyncio.sleep(0.02)
        assert sum(await clients) == 300
    assert rounds > 3


async def test_what_is_under_way_ends_by_the_settings_that_it_began_with() -> None:
    slow = Slow()
    async with upstream(slow) as up, running(up, strategy="raw") as on:
        asked = asyncio.create_task(on.ask(post(json.dumps(ask()).encode())))
        await until(lambda: bool(up.seen))
        before = on.app.service
        changed(on, strategy="gated", connect_timeout=3.0)
        on.server.reload()
        await until(lambda: on.app.service is not before)
        slow.released = True
        told = await asked
    assert (told.status, told.headers["x-honesty-strategy"]) == (200, "raw")


class Loading(Scripted):
    """A backend that counts how often it was loaded and closed."""

    def __init__(self) -> None:
        super().__init__(lambda _: DRAFT)
        self.loaded = self.closed = 0

    async def load(self, *_: object) -> None:
        self.loaded += not self.loaded

    async def aclose(self) -> None:
        self.closed += 1


async def test_a_model_is_kept_where_nothing_changes_for_it_and_closed_once() -> None:
    backend = Loading()
    async with running("played:gold", backend=backend, strategy="raw") as on:
        await status(on, "/readyz")
        for threshold in (0.1, 0.2):
            before = on.app.service
            changed(on, threshold=threshold)
            on.server.reload()
            await until(lambda before=before: on.app.service is not before)
        assert (await on.ask(post(RAW))).status == 200
        assert (backend.loaded, backend.closed) == (1, 0)
    assert backend.closed == 1


async def test_a_backend_that_is_replaced_is_closed_when_its_last_request_has_ended() -> None:
    backend = Loading()
    async with upstream(script()) as up, running("played:gold", backend=backend) as on:
        await status(on, "/readyz")
        changed(on, upstream=up.url, strategy="raw")
        on.server.reload()
        await until(lambda: backend.closed == 1)
        assert (await on.ask(post(RAW))).status == 200
    assert len(up.seen) == 1


async def test_places_taken_before_a_reload_count_after_it() -> None:
    async with upstream(holding) as up, running(up, shutdown_timeout=0.1) as on:
        await status(on, "/readyz")
        blocks = asyncio.create_task(on.ask(post(RAW)))
        await up.holding.wait()
        before = on.app.service
        changed(on, max_concurrency=1, max_queue=0)
        on.server.reload()
        await until(lambda: on.app.service is not before)
        assert (await on.ask(post(RAW))).status == 429
        await on.stop()
        await blocks


async def test_answers_are_never_anothers_after_a_reload_of_the_upstream() -> None:
    one, other = (lambda _, name=name: answer(completion(name)) for name in ("one", "other"))
    async with upstream(one) as first, upstream(other) as second, running(first) as on:
        await status(on, "/readyz")
        for which, name in ((second, "other"), (first, "one")):
            before = on.app.service
            changed(on, upstream=which.url)
            on.server.reload()
            await until(lambda before=before: on.app.service is not before)
            told = await on.ask(post(RAW))
            assert json.loads(told.body)["choices"][0]["message"]["content"] == name
