"""HTTP/1.1 to an upstream, before servers that write each byte by hand."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from honestproxy.backends import http1, pool
from honestproxy.backends.connection import Http
from honestproxy.errors import InvalidRequest, UpstreamBroken, UpstreamError, UpstreamUnreachable

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Server:
    """Where it is, how often somebody came, and what was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self.requests: list[bytes] = []

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """The next request, its body included where it says how long that is."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        sizes = [int(line[16:]) for line in lines if line.startswith(b"content-length: ")]
        asked = head + await reader.readexactly(sum(sizes))
        self.requests.append(asked)
        return asked


@asynccontextmanager
async def serving(
    talk: Callable[[Server], Talk], tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Server, Http]]:
    """A server that talks so with each that comes, and a connection to it."""
    server = Server()
    ended: list[asyncio.Task[None]] = []

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task is not None
        ended.append(task)
        try:
            await talk(server)(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(met, "127.0.0.1", 0, ssl=tls) as listening:
        port = listening.sockets[0].getsockname()[1]
        server.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{port}"
        http = Http(f"{server.url}/v1", 5)
        try:
            yield server, http
        finally:
            await http.aclose()
            for task in ended:
                task.cancel()
            await asyncio.gather(*ended, return_exceptions=True)


def saying(*answers: bytes, then: str = "hold") -> Callable[[Server], Talk]:
    """A server that answers each request of a connection with the next of these.

    Then it holds the connection open, or closes it.
    """

    def made(server: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for said in answers:
                await server.request(reader)
                writer.write(said)
                await writer.drain()
            if then == "hold":
                await reader.read()

        return talk

    return made


async def whole(http: Http, method: str = "POST", body: http1.Body = b"{}") -> tuple[int, bytes]:
    exchange = await http.open(method, "/chat/completions", {}, body)
    try:
        return exchange.status, await exchange.read()
    finally:
        exchange.close()


ANSWERS = {
    "sized": (OK, (200, b"ok")),
    "chunked": (CHUNKED + b"1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n", (200, b"ok")),
    "chunked, with trailers": (CHUNKED + b"2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n", (200, b"ok")),
    "empty": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
    "lines that end in LF alone": (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", (200, b"ok")),
    "padded sizes": (CHUNKED + b"2  \r\nok\r\n0\r\n\r\n", (200, b"ok")),
    "a folded header": (OK.replace(b"\r\n\r\n", b"\r\nx-a: 1\r\n  2\r\n\r\n"), (200, b"ok")),
    "without a phrase": (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", (200, b"ok")),
    "said ahead": (
        b"HTTP/1.1 102 Wait\r\nx-wait: 1\r\n\r\nHTTP/1.1 103 Hint\r\n\r\n" + OK,
        (200, b"ok"),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_are_read_and_their_connection_serves_again(name: str) -> None:
    said, expected = ANSWERS[name]
    async with serving(saying(said, said, said)) as (server, http):
        assert [await whole(http) for _ in range(3)] == [expected] * 3
        assert server.connections == 1


@settings(max_examples=60)
@given(name=st.sampled_from(sorted(ANSWERS)), cuts=st.lists(st.integers(1, 120), max_size=4))
async def test_where_the_network_cuts_an_answer_never_matters(name: str, cuts: list[int]) -> None:
    said, (status, body) = ANSWERS[name]
    link, keeper = linked()
    answer = link.ask(b"", None)
    edges = [0, *sorted({cut for cut in cuts if cut < len(said)}), len(said)]
    for start, end in itertools.pairwise(edges):
        link.data_received(said[start:end])
    assert (answer.status, answer.is_whole, keeper.kept) == (status, True, [link])
    assert b"".join(answer._parts) == body
    assert "x-wait" not in answer.headers
    assert "x-sum" not in answer.headers


class Wire(asyncio.Transport):
    """A transport that writes down what is done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append("write")

    def abort(self) -> None:
        self.done.append("abort")

    def is_closing(self) -> bool:
        return "abort" in self.done

    def pause_reading(self) -> None:
        self.done.append("pause")

    def resume_reading(self) -> None:
        self.done.append("resume")


class Kept(pool.Pool):
    """A pool that writes down what it is given back."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 1, None)
        self.kept: list[http1.Link] = []

    def keep(self, link: http1.Link) -> None:
        self.kept.append(link)


def linked() -> tuple[http1.Link, Kept]:
    kept = Kept()
    link = http1.Link(kept)
    link.connection_made(Wire())
    return link, kept


@pytest.mark.parametrize(
    ("said", "then", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nok", "close", b"ok"),  # its end is the connection's
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nok", "close", b"ok"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", "hold", b"ok"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", "hold", b"ok"),
    ],
)
async def test_a_connection_that_ends_with_its_answer_is_not_used_again(
    said: bytes, then: str, expected: bytes
) -> None:
    async with serving(saying(said, then=then)) as (server, http):
        assert [await whole(http) for _ in range(2)] == [(200, expected)] * 2
        assert server.connections == 2


async def test_the_answer_to_a_head_has_no_body_whatever_its_length() -> None:
    said = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n"
    async with serving(saying(said)) as (server, http):
        assert [await whole(http, "HEAD", None) for _ in range(2)] == [(200, b"")] * 2
        assert b"content-length" not in server.requests[0].lower()


BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "a length and chunks": CHUNKED[:-2] + b"content-length: 2\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 So\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "status 99": b"HTTP/1.1 099 Odd\r\ncontent-length: 2\r\n\r\nok",
    "status 999": b"HTTP/1.1 999 Odd\r\ncontent-length: 2\r\n\r\nok",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"x-a: " + b"a" * 300_000,
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_not_http_is_said_to_be_broken(name: str) -> None:
    async with serving(saying(BROKEN[name])) as (_, http):
        with pytest.raises(UpstreamBroken, match="is not HTTP; is the URL right"):
            await whole(http)


MID = {
    "short": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
    "without a last chunk": CHUNKED + b"2\r\nok\r\n",
    "no chunk": CHUNKED + b"zz\r\n",
    "cut off, its codings in two lines": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel"
    ),
    "an endless trailer": CHUNKED + b"2\r\nok\r\n0\r\nx-a: " + b"a" * 600_000,
}


@pytest.mark.parametrize("name", MID)
async def test_an_answer_that_breaks_off_is_never_taken_for_whole(name: str) -> None:
    async with serving(saying(MID[name], then="close")) as (_, http):
        exchange = await http.open("POST", "/x", {}, b"{}")
        for _ in range(2):  # and no second look makes it whole
            with pytest.raises(UpstreamBroken, match="broke off in mid-answer"):
                await exchange.read()


async def test_an_idle_connection_that_turns_out_closed_is_replaced_once() -> None:
    def made(server: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            writer.write(OK)
            if server.connections == 1:
                await server.request(reader)  # seen, and the connection dropped without a word
            else:
                await reader.read()

        return talk

    async with serving(made) as (server, http):
        assert [await whole(http) for _ in range(2)] == [(200, b"ok")] * 2
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_request_that_was_seen_is_never_sent_again() -> None:
    """A reset isn't the end in good order that an idle connection comes to."""

    def made(server: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            writer.write(OK)
            await server.request(reader)
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

        return talk

    async with serving(made) as (server, http):
        await whole(http)
        with pytest.raises(UpstreamUnreachable, match="connection reset by peer"):
            await whole(http)
        assert len(server.requests) == 2


async def test_a_large_request_that_was_seen_in_part_is_never_sent_again() -> None:
    def made(server: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            writer.write(OK)
            await reader.readexactly(1000)

        return talk

    async with serving(made) as (server, http):
        await whole(http)
        with pytest.raises(UpstreamUnreachable):
            await whole(http, body=b"x" * 5_000_000)
        assert server.connections == 1


async def test_closing_ends_what_is_under_way_and_sends_nothing_again() -> None:
    async with serving(saying(OK, b"")) as (server, http):
        await whole(http)
        asking = asyncio.create_task(whole(http))
        await asyncio.sleep(0.05)
        await http.aclose()
        with pytest.raises(UpstreamUnreachable):
            await asking
        assert (server.connections, len(server.requests)) == (1, 2)
        assert await whole(http) == (200, b"ok")  # and it may be opened again


async def test_an_upstream_that_closes_without_reading_is_not_waited_for() -> None:
    def made(_: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write_eof()
            await asyncio.Event().wait()

        return talk

    async with serving(made) as (_, http):
        with pytest.raises(UpstreamUnreachable):
            await asyncio.wait_for(whole(http, body=b"x" * 20_000_000), 5)


async def test_a_host_is_looked_up_once_for_all_that_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    look_up = socket.getaddrinfo

    def counted(host: str, *more: Any, **options: Any) -> Any:
        asked.append(host)
        time.sleep(0.05)
        return look_up(host, *more, **options)

    async with serving(saying(OK, OK)) as (server, _):
        http = Http(server.url.replace("127.0.0.1", "localhost"), 5)
        monkeypatch.setattr(socket, "getaddrinfo", counted)
        try:
            assert await asyncio.gather(*[whole(http) for _ in range(30)]) == [(200, b"ok")] * 30
            assert asked.count("localhost") == 1
        finally:
            await http.aclose()


async def test_a_look_up_that_fails_is_told_to_all_and_the_next_may_succeed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look_up, works = socket.getaddrinfo, False

    def failing(host: str, *more: Any, **options: Any) -> Any:
        if not works:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *more, **options)

    async with serving(saying(OK)) as (server, _):
        http = Http(server.url.replace("127.0.0.1", "localhost"), 5)
        monkeypatch.setattr(socket, "getaddrinfo", failing)
        failed = await asyncio.gather(*[whole(http) for _ in range(3)], return_exceptions=True)
        assert ["name or service not known" in str(error).lower() for error in failed] == [True] * 3
        works = True
        assert await whole(http) == (200, b"ok")
        await http.aclose()


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example", "nowhere.invalid"])
async def test_a_host_that_cannot_be_is_said_to_be_out_of_reach(host: str) -> None:
    with pytest.raises(UpstreamUnreachable, match="can't reach"):
        await whole(Http(f"http://{host}/v1", 5))


@pytest.mark.parametrize("first", [OK, b"HTTP/1.1 204 No Content\r\n\r\n"])
async def test_a_connection_that_is_dropped_is_never_an_answers_end(first: bytes) -> None:
    async with serving(saying(first, b"HTTP/1.1 200 OK\r\nx-a", then="close")) as (server, http):
        await whole(http)
        with pytest.raises(UpstreamUnreachable, match="closed the connection without an answer"):
            await whole(http)
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_new_connection_that_is_dropped_is_not_tried_again() -> None:
    def made(server: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await server.request(reader)

        return talk

    async with serving(made) as (server, http):
        with pytest.raises(UpstreamUnreachable, match="closed the connection without an answer"):
            await whole(http)
        assert len(server.requests) == 1


async def test_what_comes_unasked_ends_the_connection_and_answers_nothing() -> None:
    async with serving(saying(OK + b"HTTP/1.1 408 Too Late\r\n\r\n")) as (server, http):
        assert await whole(http) == (200, b"ok")
        await asyncio.sleep(0.05)
        assert await whole(http) == (200, b"ok")
        assert server.connections == 2


async def test_an_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_IDLE", 0.05)
    async with serving(saying(OK, OK)) as (server, http):
        assert await whole(http) == (200, b"ok")
        await asyncio.sleep(0.2)
        assert await whole(http) == (200, b"ok")
        assert server.connections == 2


async def piecewise(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
async def test_a_body_goes_up_whole(size: int) -> None:
    async with serving(saying(OK, OK)) as (server, http):
        for _ in range(2):
            assert await whole(http, body=b"x" * size) == (200, b"ok")
        assert [r.partition(b"\r\n\r\n")[2] for r in server.requests] == [b"x" * size] * 2


async def test_a_body_of_unknown_length_goes_up_in_chunks_and_of_known_as_it_is() -> None:
    async with serving(saying(OK)) as (server, http):
        given = await http.open("POST", "/x", {"content-length": "4"}, piecewise(b"ab", b"", b"cd"))
        assert await given.read() == b"ok"
        assert server.requests[0].endswith(b"\r\n\r\nabcd")
        assert b"transfer-encoding" not in server.requests[0]

    def made(_: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"transfer-encoding: chunked\r\n" in head
            assert b"content-length" not in head
            assert await reader.readexactly(19) == b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"
            writer.write(OK)
            await reader.read()

        return talk

    async with serving(made) as (_, http):
        assert await whole(http, body=piecewise(b"ab", b"", b"cd")) == (200, b"ok")


async def test_an_answer_may_come_before_its_request_is_up() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    def made(_: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
            while await reader.read(65536):
                pass

        return talk

    async with serving(made) as (server, http):
        assert await whole(http, body=endless()) == (413, b"big")
        assert await whole(http, body=endless()) == (413, b"big")
        assert server.connections == 2  # a half-sent request is never followed by another


@pytest.mark.parametrize("body", [b"too long for that", b"short"])
async def test_a_body_is_as_long_as_was_said_or_an_error(body: bytes) -> None:
    async with serving(saying(OK)) as (server, http):
        with pytest.raises(InvalidRequest, match="isn't as long"):
            await http.open("POST", "/x", {"content-length": "10"}, piecewise(body))
        assert all(b"too long" not in request for request in server.requests)


async def test_what_a_body_raises_ends_its_request_and_comes_out() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"x"
        raise InvalidRequest("the client sent less than it said")

    async with serving(saying(OK)) as (_, http):
        with pytest.raises(InvalidRequest, match="less than it said"):
            await http.open("POST", "/x", {"content-length": "9"}, failing())


async def test_a_slow_reader_holds_the_upstream_up() -> None:
    sent = 0

    def made(server: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await server.request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 64000000\r\n\r\n")
            for _ in range(1000):
                writer.write(b"x" * 64000)
                await writer.drain()
                sent += 64000
            await reader.read()

        return talk

    async with serving(made) as (_, http):
        exchange = await http.open("GET", "/x", {})
        await asyncio.sleep(0.3)
        assert sent < 20_000_000  # what the kernel's buffers hold, and a little here
        assert len(await exchange.read()) == 64_000_000


async def test_an_upload_goes_no_faster_than_it_is_read() -> None:
    drawn = 0

    async def large() -> AsyncIterator[bytes]:
        nonlocal drawn
        for _ in range(1000):
            drawn += 64000
            yield b"x" * 64000

    reading = asyncio.Event()

    def made(_: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reading.wait()
            await reader.readexactly(64_000_000)
            writer.write(OK)
            await reader.read()

        return talk

    async with serving(made) as (_, http):
        headers = {"content-length": "64000000"}
        opening = asyncio.create_task(http.open("POST", "/x", headers, large()))
        await asyncio.sleep(0.3)
        assert drawn < 30_000_000
        reading.set()
        assert await (await opening).read() == b"ok"


async def test_leaving_ends_the_connection_before_the_head_and_in_the_body() -> None:
    left = asyncio.Event()

    def made(server: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            if server.connections == 2:
                writer.write(CHUNKED + b"2\r\nok\r\n")
            with contextmanager(noted)(left):
                await reader.read()

        return talk

    async with serving(made) as (_, http):
        opening = asyncio.create_task(http.open("POST", "/x", {}, b"{}"))
        await asyncio.sleep(0.1)
        opening.cancel()
        await asyncio.wait_for(left.wait(), 2)
        left.clear()
        exchange = await http.open("POST", "/x", {}, b"{}")
        exchange.close()
        await asyncio.wait_for(left.wait(), 2)


def noted(left: asyncio.Event) -> Iterator[None]:
    try:
        yield
    finally:
        left.set()


@pytest.mark.parametrize(
    "headers", [{"x-a": "1\r\nx-b: 2"}, {"x-a": "1\n"}, {"x-a\r": "1"}, {"x-a": "\0"}]
)
async def test_no_header_makes_another(headers: Mapping[str, str]) -> None:
    async with serving(saying(OK)) as (server, http):
        with pytest.raises(InvalidRequest, match="no HTTP header can carry"):
            await http.open("GET", "/x", headers)
        assert server.connections == 0


async def test_headers_go_up_byte_for_byte_and_come_down_so() -> None:
    tricky = "caf\xc3\xa9 \x80"  # UTF-8 and a lone byte, as a server reads them
    said = OK.replace(b"200 OK\r\n", b"200 OK\r\nx-b:  " + tricky.encode("latin-1") + b" \t\r\n")
    async with serving(saying(said)) as (server, http):
        exchange = await http.open("GET", "/x?q=%20+", {"x-a": tricky})
        assert exchange.headers["X-B"] == tricky
        assert server.requests[0].startswith(b"GET /v1/x?q=%20+ HTTP/1.1\r\nhost: 127.0.0.1:")
        assert b"\r\nx-a: " + tricky.encode("latin-1") + b"\r\n" in server.requests[0]


async def test_tls_is_checked_and_then_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with serving(saying(OK, OK), context) as (server, http):
        with pytest.raises(UpstreamUnreachable, match="certificate verify failed"):
            await whole(http)
        with authority.cert_pem.tempfile() as file:
            monkeypatch.setenv("SSL_CERT_FILE", file)
            trusting = Http(f"{server.url}/v1", 5)
            assert [await whole(trusting) for _ in range(2)] == [(200, b"ok")] * 2
            await trusting.aclose()


async def test_plain_http_before_tls_is_an_error_that_names_the_url() -> None:
    async with serving(saying(OK)) as (server, _):
        http = Http(server.url.replace("http:", "https:"), 5)
        with pytest.raises(UpstreamError, match="is the URL right"):
            await whole(http)
        await http.aclose()


async def test_ipv6_is_asked_by_its_own_name() -> None:
    server = Server()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        writer.write(OK)
        await writer.drain()
        writer.close()

    try:
        listening = await asyncio.start_server(met, "::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        http = Http(f"http://[::1]:{port}/v1", 5)
        assert await whole(http) == (200, b"ok")
        assert f"host: [::1]:{port}\r\n".encode() in server.requests[0]
        await http.aclose()
