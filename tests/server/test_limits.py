"""Limits on requests: heads, bodies, their number of messages, and the time they take to come."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest

from tests.proxy import DRAFT, ask, proxy, script
from tests.running import post, read, running
from tests.upstreams import Reply, Seen, upstream

RAW = json.dumps(ask(honesty={"strategy": "raw"})).encode()


def error(body: bytes) -> dict[str, object]:
    told = json.loads(body)["error"]
    assert set(told) == {"message", "type", "param", "code"}
    return told


async def closed(reader: asyncio.StreamReader) -> None:
    """Return once the server has hung up."""
    assert await reader.read() == b""


async def test_a_head_over_the_limit_is_a_431() -> None:
    async with upstream(script()) as up, running(up, max_header_bytes=5000) as on:
        reader, writer = await on.connect()
        writer.write(post(RAW, X_Long="x" * 6000))
        told = await read(reader)
        await closed(reader)
    assert told.status == 431
    assert told.headers["connection"] == "close"
    assert "max_header_bytes" in str(error(told.body)["message"])
    assert up.seen == []


async def test_heads_that_are_refused_are_counted() -> None:
    async with running(max_header_bytes=5000, body_timeout=0.2) as on:
        for head in (post(RAW, X_Long="x" * 6000), b"this is not HTTP\r\n\r\n", b"POST /v1"):
            await on.ask(head)
        told = await on.ask(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    for status in (400, 408, 431):
        assert f'honestproxy_heads_refused_total{{status="{status}"}} 1.0' in told.body.decode()
    assert "honestproxy_requests_total{" not in told.body.decode()


async def test_a_head_within_the_limit_is_none() -> None:
    async with upstream(script()) as up, running(up, max_header_bytes=5000) as on:
        assert (await on.ask(post(RAW, X_Long="x" * 4000))).status == 200


@pytest.mark.parametrize("name", ["X-Endless: ", "GET /"])
async def test_a_head_without_an_end_is_cut_off(name: str) -> None:
    async with running(max_header_bytes=5000) as on:
        reader, writer = await on.connect()
        if name.startswith("X"):
            writer.write(b"GET /healthz HTTP/1.1\r\n")
        writer.write(name.encode())
        answered = asyncio.create_task(read(reader))
        while not answered.done():
            writer.write(b"x" * 1000)
            await asyncio.sleep(0.001)
        assert (await answered).status == 431


async def test_a_large_body_behind_a_small_head_is_no_large_head() -> None:
    body = json.dumps(ask("x" * 300_000, honesty={"strategy": "raw"})).encode()
    async with upstream(script()) as up, running(up, max_header_bytes=2000) as on:
        reader, writer = await on.connect()
        for _ in range(2):  # over one connection, the second behind the first
            writer.write(post(body))
        assert [(await read(reader)).status for _ in range(2)] == [200, 200]


async def slowly(writer: asyncio.StreamWriter, raw: bytes, until: asyncio.Task[object]) -> None:
    """Send a byte at a time, until there is an answer."""
    for at in range(len(raw)):
        if until.done():
            return
        writer.write(raw[at : at + 1])
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("whole", [0, len(post(RAW)) - 100])
async def test_a_request_that_trickles_in_is_a_408(whole: int) -> None:
    """In its head, and in its body."""
    async with upstream(script()) as up, running(up, body_timeout=0.3) as on:
        reader, writer = await on.connect()
        answered = asyncio.create_task(read(reader))
        writer.write(post(RAW)[:whole])
        await slowly(writer, post(RAW)[whole:], answered)
        told = await answered
        await closed(reader)
    assert told.status == 408
    assert told.headers["connection"] == "close"
    assert error(told.body)["code"] == "request_timeout"
    assert up.seen == []


async def test_a_client_that_says_nothing_is_hung_up_on() -> None:
    async with running(body_timeout=0.2) as on:
        reader, _ = await on.connect()
        await closed(reader)
        reader, writer = await on.connect()
        writer.write(b"\r\n")
        await closed(reader)


async def test_an_upload_that_goes_on_is_not_cut_off_and_one_that_stands_still_is() -> None:
    parts = [b"x" * 1000] * 10
    head = post(b"", "/v1/files", Content_Length="10000", Content_Type="multipart/form-data")
    async with upstream(lambda _: Reply([b"{}"])) as up, running(up, body_timeout=0.3) as on:
        reader, writer = await on.connect()
        writer.write(head)
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.1)
        assert (await read(reader)).status == 200
        assert up.seen[0].body == b"".join(parts)
        reader, writer = await on.connect()
        writer.write(head + parts[0])
        told = await read(reader)
    assert (told.status, error(told.body)["code"]) == (408, "request_timeout")


async def test_a_feedback_that_trickles_in_is_a_408_too() -> None:
    limits = {"body_timeout": 0.2, "experiment": "raw=1,gated=1"}
    async with upstream(script()) as up, running(up, **limits) as on:
        told = await on.ask(post(b"{", "/v1/honesty/feedback", Content_Length="50"))
    assert told.status == 408


async def test_too_many_messages_are_a_400_that_names_the_setting() -> None:
    messages = [{"role": "user", "content": "Hello!"}] * 4
    async with proxy(script(), max_messages=3) as on:
        status, body, _ = await on.post(ask(messages=messages))
        assert (status, body["error"]["param"]) == (400, "messages")
        assert "max_messages" in body["error"]["message"]
        assert (await on.post(ask(messages=messages[:3])))[0] == 200
        given = {"model": "m", "input": messages}
        async with on.session.post(f"{on.url}/responses", json=given) as got:
            assert got.status == 400
    assert all(len(seen.json()["messages"]) < 5 for seen in on.upstream.seen)


async def test_a_large_body_is_answered_like_a_small_one() -> None:
    text = "Grüße " * 400_000
    body = json.dumps(ask(text, honesty={"strategy": "raw"}), ensure_ascii=False).encode()
    async with upstream(script()) as up, running(up) as on:
        told = await on.ask(post(body))
        assert json.loads(told.body)["choices"][0]["message"]["content"] == DRAFT
        assert up.seen[0].json()["messages"][0]["content"] == text
        for end, what in ((b"", "JSON"), (b'\xff"}', "UTF-8"), (b'\xc3"}', "UTF-8")):
            told = await on.ask(post(b'{"messages": "' + b"x" * 2_000_000 + end))
            assert told.status == 400
            assert what in str(error(told.body)["message"])


async def test_what_is_not_http_is_a_400_in_openais_shape() -> None:
    async with running() as on:
        told = await on.ask(b"this is not HTTP\r\n\r\n")
    assert (told.status, error(told.body)["type"]) == (400, "invalid_request_error")


def echo(seen: Seen) -> Reply:
    text = seen.json()["messages"][0]["content"]
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    return Reply([0.01, json.dumps({"choices": [choice], "echo": text}).encode()])


async def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    texts = [f"number {n}" for n in range(40)]
    async with upstream(echo) as up, running(up) as on:
        reader, writer = await on.connect()
        for text in texts:
            writer.write(post(json.dumps(ask(text, honesty={"strategy": "raw"})).encode()))
        told = [json.loads((await read(reader)).body)["echo"] for _ in texts]
    assert told == texts


async def test_a_client_that_leaves_is_noticed_though_it_has_sent_requests_ahead() -> None:
    async with upstream(Reply([], then="hold")) as up, running(up) as on:
        _, writer = await on.connect()
        writer.write(post(RAW) * 3)
        await up.holding.wait()
        writer.transport.abort()
        await up.gone.wait()
    assert len(up.seen) == 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
async def test_a_client_that_leaves_ends_an_upload_that_the_upstream_does_not_read(
    path: str,
) -> None:
    begun, reading, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    got = bytearray()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        begun.set()
        await reading.wait()
        writer.transport.resume_reading()
        with suppress(ConnectionResetError):
            while part := await reader.read(1_000_000):
                got.extend(part)
        writer.transport.abort()
        ended.set()

    body = json.dumps(ask("x" * 20_000_000, honesty={"strategy": "raw"})).encode()
    kind = "application/json" if "chat" in path else "multipart/form-data"
    async with await asyncio.start_server(deaf, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with running(url) as on:
            _, writer = await on.connect()
            writer.write(post(body, path, Content_Type=kind))
            await begun.wait()
            await asyncio.sleep(0.5)  # until as much has been sent as goes without its reading
            writer.transport.abort()
            while on.app.service.admission.busy:
                await asyncio.sleep(0.01)
            reading.set()
            await ended.wait()
    assert len(got) < len(body)
