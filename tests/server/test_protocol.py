"""HTTP/1.1 as the server speaks it, seen over real sockets before small applications."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from honestproxy.errors import HonestProxyError
from honestproxy.server import create_app
from honestproxy.server.listening import running
from honestproxy.server.listening.protocol import Connection, Listening
from honestproxy.server.watching import Watched
from honestproxy.settings import Settings
from tests.proxy import DRAFT, ask, listening, script
from tests.running import post, read
from tests.upstreams import upstream

GET = b"GET /path?q=1 HTTP/1.1\r\nHost: x\r\n\r\n"


def start(status: int = 200, **headers: str) -> Message:
    """An answer's head."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def part(body: bytes = b"", *, more: bool = False) -> Message:
    """A part of its body."""
    return {"type": "http.response.body", "body": body, "more_body": more}


def saying(*messages: Message) -> ASGIApp:
    """An application that says this to everyone."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


class Spoken:
    """A server with one application; `refused` is what it told of refusals."""

    def __init__(self, app: ASGIApp) -> None:
        self.refused: list[HonestProxyError] = []
        settings = Settings()
        self.listening = Listening(app, lambda: settings, self.refused.append)
        self.listening.date = b"date: today\r\n"
        self.port = 0

    async def ask(self, sent: bytes = GET, wait: float = 0.3) -> bytes:
        """All that comes on a connection of its own until it is closed, or nothing more comes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        got = b""
        while True:
            try:
                async with asyncio.timeout(wait):
                    new = await reader.read(65536)
            except TimeoutError:
                break
            if not new:
                got += b"<closed>"
                break
            got += new
        writer.close()
        return got


@asynccontextmanager
async def spoken(app: ASGIApp) -> AsyncIterator[Spoken]:
    on = Spoken(app)
    made = partial(Connection, on.listening)
    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
    on.port = server.sockets[0].getsockname()[1]
    async with server:
        yield on
        for connection in list(on.listening.connections):
            connection.transport.abort()


async def test_an_answer_of_known_length() -> None:
    async with spoken(saying(start(201, content_length="2", x_a="b"), part(b"hi"))) as on:
        head = b"HTTP/1.1 201 Created\r\ndate: today\r\ncontent-length: 2\r\nx-a: b\r\n\r\nhi"
        assert await on.ask() == head
        assert await on.ask(GET + GET + GET) == head * 3


async def test_one_of_unknown_length_comes_in_chunks() -> None:
    async with spoken(saying(start(), part(b"a" * 16, more=True), part(b"b"))) as on:
        whole = await on.ask()
    assert whole.endswith(b"\r\n\r\n10\r\naaaaaaaaaaaaaaaa\r\n1\r\nb\r\n0\r\n\r\n")
    assert b"transfer-encoding: chunked\r\n" in whole


async def test_a_client_of_http_1_0_gets_no_chunks_but_the_end_of_the_connection() -> None:
    async with spoken(saying(start(), part(b"a", more=True), part(b"b"))) as on:
        whole = await on.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert whole.endswith(b"connection: close\r\n\r\nab<closed>")
    assert b"chunked" not in whole


@pytest.mark.parametrize("length", [{"content_length": "5"}, {}])
async def test_a_head_alone(length: dict[str, str]) -> None:
    async with spoken(saying(start(**length), part(b"hello"))) as on:
        whole = await on.ask(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    assert whole.count(b"HTTP/1.1 200 OK") == 2
    assert whole.endswith(b"\r\n\r\n")
    assert b"hello" not in whole


async def test_an_answer_that_has_no_body_by_its_status() -> None:
    async with spoken(saying(start(204), part())) as on:
        assert await on.ask() == b"HTTP/1.1 204 No Content\r\ndate: today\r\n\r\n"


async def test_a_head_goes_out_while_its_body_is_still_to_come() -> None:
    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await send(start(content_length="4"))
        await receive()
        await receive()

    async with spoken(app) as on:
        assert (await on.ask()).endswith(b"content-length: 4\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "closes"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (GET, False),
    ],
)
async def test_who_keeps_a_connection(sent: bytes, closes: bool) -> None:
    async with spoken(saying(start(content_length="0"), part())) as on:
        whole = await on.ask(sent)
    assert whole.endswith(b"<closed>") is closes
    assert (b"connection: close\r\n" in whole) is closes


async def test_an_application_may_end_the_connection() -> None:
    async with spoken(saying(start(content_length="0", connection="close"), part())) as on:
        whole = await on.ask(GET + GET)
    assert whole.count(b"HTTP/1.1 200") == whole.count(b"connection: close") == 1
    assert whole.endswith(b"<closed>")


async def test_what_a_request_tells_its_application() -> None:
    told: list[Scope] = []

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        told.append(scope)
        await send(start(content_length="0"))
        await send(part())

    async with spoken(app) as on:
        await on.ask(b"POST /a%20b/%C3%A9?q=%20 HTTP/1.1\r\nHost: x\r\nX-One: 1 \r\n\r\n")
        await on.ask(b"GET http://elsewhere/p HTTP/1.1\r\nHost: x\r\n\r\n")
    first, second = told
    assert (first["method"], first["path"], first["query_string"]) == ("POST", "/a b/é", b"q=%20")
    assert (first["raw_path"], first["http_version"]) == (b"/a%20b/%C3%A9", "1.1")
    assert first["headers"] == [(b"host", b"x"), (b"x-one", b"1")]
    assert first["client"][0] == first["server"][0] == "127.0.0.1"
    assert second["path"] == "/p"


async def gathered(_: Scope, receive: Receive, send: Send) -> None:
    """Says what has come, in how many parts it may."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await send(start(content_length=str(len(body))))
    await send(part(body))


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
    ],
)
async def test_bodies_however_they_are_told(sent: bytes) -> None:
    async with spoken(gathered) as on:
        whole = await on.ask((b"POST / HTTP/1.1\r\nHost: x\r\n" + sent) * 2)
    assert whole.count(b"\r\n\r\nhello") == 2


async def test_a_client_that_waits_to_be_told_to_go_on_is_told_when_someone_reads() -> None:
    async with spoken(gathered) as on:
        reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.close()
    async with spoken(saying(start(413, content_length="0"), part())) as on:
        assert b"100 Continue" not in await on.ask(head)


async def test_a_body_that_nobody_reads_is_not_taken_in_beyond_a_measure() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await gathered(scope, receive, send)

    async with spoken(app) as on:
        reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
        size = 30_000_000
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        sending = asyncio.create_task(_sent(writer, bytes(size)))
        await asyncio.sleep(0.3)
        assert not sending.done()  # the kernel's buffers are full, and ours don't grow
        go.set()
        await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.readexactly(size)) == size
        await sending
        writer.close()


async def _sent(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(body)
    await writer.drain()


async def test_an_application_waits_for_a_client_that_does_not_read() -> None:
    sent = 0

    async def app(_: Scope, __: Receive, send: Send) -> None:
        nonlocal sent
        await send(start())
        for _ in range(300):
            await send(part(bytes(100_000), more=True))
            sent += 1
        await send(part())

    async with spoken(app) as on:
        reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
        writer.write(GET)
        await asyncio.sleep(0.3)
        assert sent < 200
        got = 0
        while got < 15_000_000:
            got += len(await reader.read(1_000_000))
        writer.close()


async def test_who_is_gone_is_told_to_whoever_receives_or_sends() -> None:
    told = asyncio.Event()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        await send(start())
        await send(part(b"for nobody"))
        told.set()

    async with spoken(app) as on:
        _, writer = await asyncio.open_connection("127.0.0.1", on.port)
        writer.write(GET + GET)
        await asyncio.sleep(0.05)
        writer.close()
        async with asyncio.timeout(5):
            await told.wait()


async def test_who_receives_after_the_answer_is_told_that_all_is_over() -> None:
    told: list[str] = []

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start(content_length="0"))
        await send(part())
        told.append((await receive())["type"])

    async with spoken(app) as on:
        await on.ask()
    assert told == ["http.disconnect"]


async def test_answers_come_in_the_order_of_the_requests() -> None:
    async def app(scope: Scope, _: Receive, send: Send) -> None:
        number = int(scope["path"][1:])
        await asyncio.sleep(0.05 if number % 2 else 0)
        await send(start(content_length="2"))
        await send(part(b"%02d" % number))

    async with spoken(app) as on:
        asked = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(40))
        whole = await on.ask(asked)
    assert [int(one[:2]) for one in whole.split(b"\r\n\r\n")[1:]] == list(range(40))


async def _raises(*_: Any) -> None:
    raise ValueError("a secret")


@pytest.mark.parametrize("app", [_raises, saying()])
async def test_an_application_that_owes_its_answer(
    app: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    async with spoken(app) as on:
        whole = await on.ask()
    assert whole.startswith(b"HTTP/1.1 500 ")
    assert b'"error":' in whole
    assert whole.endswith(b"<closed>")
    assert b"secret" not in whole
    assert caplog.records


@pytest.mark.parametrize(
    "messages",
    [
        [start(content_length="4"), part(b"ab")],
        [start(content_length="4"), part(b"ab", more=True), part(b"cde")],
        [start(), part(b"ab", more=True)],
        [start(), part(b"ab", more=True), start()],
    ],
)
async def test_an_answer_that_is_not_whole_is_never_passed_off_as_such(
    messages: list[Message], caplog: pytest.LogCaptureFixture
) -> None:
    async with spoken(saying(*messages)) as on:
        whole = await on.ask(GET + GET)
    assert whole.endswith(b"<closed>")
    assert not whole.endswith(b"0\r\n\r\n<closed>")
    assert whole.count(b"HTTP/1.1") == 1
    assert caplog.records


@pytest.mark.parametrize("value", ["a\r\nset-cookie: b", "a\nb", "a\rb", "a\0b", "a\x1bb"])
async def test_no_header_holds_another(value: str, caplog: pytest.LogCaptureFixture) -> None:
    async with spoken(saying(start(x_a=value, content_length="0"), part())) as on:
        whole = await on.ask()
    assert whole.startswith(b"HTTP/1.1 500 ")
    assert b"x-a" not in whole
    assert caplog.records


async def test_a_tab_and_letters_of_latin_1_are_fine_in_a_header() -> None:
    async with spoken(saying(start(x_a="a\té", content_length="0"), part())) as on:
        assert "x-a: a\té\r\n".encode() in await on.ask()


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/9.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused_and_told_of(sent: bytes) -> None:
    async with spoken(gathered) as on:
        whole = await on.ask(sent)
        assert whole.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
        assert b'"error":' in whole
        assert len(on.refused) == 1


@pytest.mark.parametrize("pieces", [1, 2, 400])
async def test_a_wish_for_another_protocol_is_passed_over(pieces: int) -> None:
    told: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.append(dict(scope["headers"]))
        await gathered(scope, receive, send)

    java = (
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABk\r\nContent-Length: 5\r\n\r\nhello"
    )
    socket = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close, upgrade\r\nUpgrade: a\r\n\r\n"
    sent = java + java + socket + last
    async with spoken(app) as on:
        reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
        size = len(sent) // pieces + 1
        for at in range(0, len(sent), size):
            writer.write(sent[at : at + size])
            await asyncio.sleep(0.001 if pieces > 2 else 0.02)
        async with asyncio.timeout(5):
            whole = await reader.read()
        writer.close()
    assert whole.count(b"HTTP/1.1 200 OK") == 4
    assert whole.count(b"\r\n\r\nhello") == 2
    assert whole.count(b"connection: close") == 1
    assert all(b"upgrade" not in headers for headers in told)
    assert not on.refused


@pytest.mark.parametrize("target", [b"elsewhere:443", b"/path", b"http://elsewhere/", b"*"])
async def test_nobody_is_connected_elsewhere(target: bytes) -> None:
    async with spoken(gathered) as on:
        whole = await on.ask(b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
    assert whole.startswith(b"HTTP/1.1 400 ")


async def test_idle_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_KEPT", 0.2)
    async with listening(create_app(Settings(traces="off"), None)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(5):
            await reader.read()
        assert reader.at_eof()
        writer.close()


async def test_any_other_server_of_asgi_may_serve_it_too() -> None:
    async with upstream(script()) as up:
        app = create_app(Settings(upstream=up.url, traces="off"))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for streamed in (False, True):
            body = ask(stream=streamed, honesty={"strategy": "raw"})
            writer.write(post(json.dumps(body).encode()))
            got = await read(reader)
            assert got.status == 200
            assert DRAFT.encode() in got.body
        writer.close()
        server.should_exit = True
        await serving


async def test_a_connection_that_has_ended_leaves_nothing_for_a_collection() -> None:
    known: list[weakref.ref[Connection]] = []

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        known.extend(map(weakref.ref, on.listening.connections))
        await saying(start(content_length="0"), part())({}, receive, send)

    async with spoken(app) as on:
        gc.collect()
        gc.disable()
        try:
            await on.ask()
            await asyncio.sleep(0.05)
            assert [one() for one in known] == [None]
        finally:
            gc.enable()


async def test_a_watch_that_is_over_leaves_nothing_for_a_collection() -> None:
    class Silent:
        async def __call__(self) -> Message:
            await asyncio.Event().wait()
            raise AssertionError

    gc.collect()
    gc.disable()
    try:
        receive = Silent()
        with Watched(receive, at_once=True):
            await asyncio.sleep(0.01)
        known = weakref.ref(receive)
        del receive
        await asyncio.sleep(0.01)
        assert known() is None
    finally:
        gc.enable()


async def test_whoever_gives_up_waiting_for_a_slow_client_leaves_the_others_waiting() -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send(start())
        await send(part(bytes(8_000_000), more=True))
        other = asyncio.create_task(send(part(b"never", more=True)))
        await asyncio.sleep(0.05)
        other.cancel()
        await send(part(b"last"))

    async with spoken(app) as on:
        reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
        writer.write(GET)
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            whole = b""
            while not whole.endswith(b"4\r\nlast\r\n0\r\n\r\n"):
                new = await reader.read(1_000_000)
                assert new
                whole = whole[-100:] + new
        writer.close()


@pytest.mark.parametrize("begun", [0, 3])
async def test_a_body_that_is_broken_is_refused_at_once(begun: int) -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        while message["type"] != "http.disconnect" and message["more_body"]:
            message = await receive()
        told.append(message["type"])
        await send(start(content_length="2"))
        await send(part(b"ok"))

    broken = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n"
    async with spoken(app) as on:
        whole = await on.ask(GET * begun + broken)
    assert whole.count(b"HTTP/1.1 200") == begun
    assert whole.count(b"HTTP/1.1 400") == (not begun)
    assert told.count("http.request") == begun
    assert len(on.refused) == (not begun)


async def test_no_more_is_read_ahead_than_a_few_requests() -> None:
    go = asyncio.Event()
    most = 0

    async def app(_: Scope, __: Receive, send: Send) -> None:
        nonlocal most
        (connection,) = on.listening.connections
        most = max(most, len(connection._waiting))
        await go.wait()
        await send(start(content_length="0"))
        await send(part())

    async with spoken(app) as on:
        reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
        sending = asyncio.create_task(_sent(writer, GET * 15_000))
        await asyncio.sleep(0.2)
        go.set()
        got = 0
        async with asyncio.timeout(50):
            while got < 15_000:
                got += (await reader.read(1_000_000)).count(b"HTTP/1.1 200")
        await sending
        writer.close()
    assert most < 10_000


async def test_trailers_are_limited_as_heads_are() -> None:
    async with spoken(gathered) as on:
        chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
        whole = await on.ask(chunked + b"a: b\r\n" * 100_000, wait=5)
    assert whole.startswith(b"HTTP/1.1 431 ")


async def test_whom_we_keep_waiting_is_not_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await asyncio.sleep(0.02)
        await send(start(content_length="0"))
        await send(part())

    async with spoken(app) as on:
        monkeypatch.setattr(on.listening, "settings", lambda: Settings(body_timeout=0.1))
        reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
        writer.write(GET * 20 + GET[:10])
        await asyncio.sleep(0.05)
        writer.write(GET[10:] + GET)
        got = b""
        async with asyncio.timeout(5):
            while got.count(b"HTTP/1.1 200") < 22:
                new = await reader.read(65536)
                assert new
                got += new
        writer.close()


async def test_a_head_has_its_own_time_however_late_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with spoken(gathered) as on:
        monkeypatch.setattr(on.listening, "settings", lambda: Settings(body_timeout=0.5))
        reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
        await asyncio.sleep(0.4)
        writer.write(GET[:10])
        await asyncio.sleep(0.3)
        writer.write(GET[10:])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_what_fails_behind_an_answer_is_not_the_next_ones_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gathered(scope, receive, send)
        await asyncio.sleep(0.02)
        raise ValueError("behind it")

    async with spoken(app) as on:
        whole = await on.ask(GET * 3)
    assert whole.count(b"HTTP/1.1 200") == 3
    assert not whole.endswith(b"<closed>")
    assert caplog.records


async def test_requests_of_one_connection_know_nothing_of_one_another() -> None:
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="")
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.append(seen.get())
        seen.set("another's")
        await gathered(scope, receive, send)

    async with spoken(app) as on:
        await on.ask(GET * 3)
    assert told == ["", "", ""]


async def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    async with spoken(saying(start(413, content_length="0"), part())) as on:
        reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9000000\r\n\r\n"
        writer.write(head)
        for _ in range(20):
            writer.write(bytes(100_000))
            await asyncio.sleep(0.005)
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
        writer.close()
