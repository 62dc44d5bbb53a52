"""How bytes reach an upstream: one seam, and its implementation over HTTP/1.1."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Final, Protocol

from multidict import CIMultiDict
from yarl import URL

from honestproxy import __version__
from honestproxy.backends.http1 import Answer, Body, Link, Lost, NotHttp
from honestproxy.backends.packed import UNPACKED, coding, unpacked, without_coding
from honestproxy.backends.pool import Pool
from honestproxy.errors import (
    InvalidRequest,
    SettingsError,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from honestproxy.wire.upstream import redacted

CHAT: Final = "/chat/completions"
RESPONSES: Final = "/responses"
LINGER: Final = 0.02  # seconds that a body's end may come after [DONE], to use its connection again
MOST: Final = 100_000_000
"""Bytes of one answer at most, unpacked, where it is held: no upstream may fill our memory."""
_AGENT: Final = f"honestproxy/{__version__}"
_BODILESS: Final = ("GET", "HEAD", "OPTIONS", "TRACE")


class Exchange(Protocol):
    """One answer under way: its head has come, its body comes as it is read.

    Reading raises UpstreamError where the connection is lost.
    """

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, found by any case of their names."""
        ...

    async def read(self) -> bytes:
        """The whole body."""
        ...

    def parts(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes."""
        ...

    async def finish(self) -> None:
        """Read what is left after an answer's end, so that the connection serves again."""
        ...

    def close(self) -> None:
        """Let go: what hasn't been read is never read."""
        ...


class Connection(Protocol):
    """A way to one upstream; `name` is what errors call it."""

    name: str

    async def open(
        self, method: str, path: str, headers: Mapping[str, str], body: Body = None
    ) -> Exchange:
        """Send a request to a path below the upstream's base. Raises UpstreamError."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class Http:
    """A connection over HTTP/1.1, with as many requests at once as there are.

    Redirects, cookies and proxies from the environment are not followed: a key goes nowhere
    but to `url`. There is no limit on the whole of a request: whoever makes it has its deadline.
    """

    def __init__(self, url: str, connect_timeout: float) -> None:
        self._base = _checked(url)
        self._path = self._base.raw_path.rstrip("/").removesuffix(CHAT)
        self.name = str(self._base.with_path(self._path, encoded=True))  # a query may be secret
        self._connect_timeout = connect_timeout
        self._targets = {path: self._target(path) for path in (CHAT, "/models", RESPONSES)}
        self._pool: Pool | None = None

    async def open(
        self, method: str, path: str, headers: Mapping[str, str], body: Body = None
    ) -> Exchange:
        """Send it; once more where the connection, idle before, turns out to be closed.

        Names of headers are in lower case.
        """
        target = self._targets.get(path) or self._target(path)
        told = _told(method, headers, body)
        head = self._head(f"{method} {target}", told)
        size = int(told["content-length"]) if "content-length" in told else None
        ask = partial(_begun, method=method, head=head, body=body, size=size)
        pool = self._opened()
        try:
            link = pool.take() or await self._made(pool)
            try:
                answer = await ask(link)
            except Lost as lost:
                if not lost.unseen or not isinstance(body, bytes | None):
                    raise
                answer = await ask(await self._made(pool))
        except OSError as error:
            raise self._failure(error) from None
        return _Exchange(answer, self.name)

    async def aclose(self) -> None:
        """Close all connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _target(self, path: str) -> str:
        path, _, query = path.partition("?")
        url = self._base.with_path(self._path + path, encoded=True, keep_query=True)
        asked = "&".join(part for part in (url.raw_query_string, query) if part)
        return f"{url.raw_path}?{asked}" if asked else url.raw_path

    def _head(self, asked: str, headers: Mapping[str, str]) -> bytes:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if not lines.count("\r") == lines.count("\n") == len(headers) or "\0" in lines:
            raise InvalidRequest("a header holds characters that no HTTP header can carry")
        host = self._base.host_port_subcomponent
        return f"{asked} HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n".encode("latin-1", "replace")

    def _opened(self) -> Pool:
        if self._pool is None:
            host, port = self._base.raw_host, self._base.port
            assert host is not None and port is not None  # noqa: S101, PT018 - `_checked` has looked
            self._pool = Pool(host, port, _tls() if self._base.scheme == "https" else None)
        return self._pool

    async def _made(self, pool: Pool) -> Link:
        async with asyncio.timeout(self._connect_timeout):
            return await pool.made()

    def _failure(self, error: OSError) -> UpstreamError:
        if isinstance(error, TimeoutError):
            return UpstreamTimeout(
                f"no connection to {self.name} within {self._connect_timeout:g} s; is the "
                "server running, and is the URL right? (setting connect_timeout)"
            )
        if isinstance(error, NotHttp):
            return UpstreamBroken(f"what {self.name} answered is not HTTP; is the URL right?")
        return UpstreamUnreachable(
            f"can't reach {self.name}: {_cause(error)}; is the server running, "
            "and is the URL right?"
        )


async def _begun(link: Link, method: str, head: bytes, body: Body, size: int | None) -> Answer:
    """An answer whose head has come. Raises OSError, or what the body raises."""
    answer = link.ask(head, body, size=size, without_body=method == "HEAD")
    try:
        await answer.begun()
    except BaseException:
        answer.close()
        raise
    return answer


def _told(method: str, headers: Mapping[str, str], body: Body) -> dict[str, str]:
    """The headers that go up: those given, and what a body needs."""
    told = {"accept": "*/*", "user-agent": _AGENT, **headers}
    if isinstance(body, bytes):
        told["content-length"] = str(len(body))
    elif body is not None:
        if not told.get("content-length", "").isdecimal():
            told.pop("content-length", None)
            told["transfer-encoding"] = "chunked"
    elif method in _BODILESS:
        told.pop("content-length", None)
    else:
        told["content-length"] = "0"
    return told


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Told:
    """An exchange whose body has been read, and holds none of the secrets any more."""

    def __init__(self, exchange: Exchange, body: bytes) -> None:
        self._exchange = exchange
        self._body = body
        self.status = exchange.status
        self.headers: Mapping[str, str] = CIMultiDict(exchange.headers)
        self.headers["content-length"] = str(len(body))

    @classmethod
    async def of(cls, exchange: Exchange, secrets: list[str]) -> Told:
        """The exchange, read."""
        text = (await exchange.read()).decode("latin-1")  # any byte comes back as it went
        return cls(exchange, redacted(text, secrets).encode("latin-1"))

    async def read(self) -> bytes:
        """The whole body."""
        return self._body

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """The body at once."""
        yield self._body

    async def finish(self) -> None:
        """Nothing is left."""

    def close(self) -> None:
        """Let go of the connection."""
        self._exchange.close()


class _Exchange:
    """An exchange over HTTP/1.1.

    `packed`: how its body is packed in a way that isn't undone, which its headers tell, too.
    """

    __slots__ = ("_answer", "_name", "_undone", "headers", "packed", "status")

    def __init__(self, answer: Answer, name: str) -> None:
        self._answer = answer
        self._name = name
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self.packed, self._undone = coding(answer.headers), ""
        if self.packed in UNPACKED:
            self.headers = without_coding(answer.headers)
            self.packed, self._undone = "", self.packed

    async def read(self) -> bytes:
        if self._undone:
            async with aclosing(self.parts()) as coming:
                return await self._held(partial(anext, coming, b""))
        # Most answers come this way: without a generator, which takes some of a request's time.
        try:
            return await self._held(self._answer.read)
        except OSError:
            raise self._lost() from None

    async def _held(self, more: Callable[[], Awaitable[bytes]]) -> bytes:
        parts, size = [], 0
        while part := await more():
            parts.append(part)
            size += len(part)
            check_size(size, self._name)
        return b"".join(parts)

    def parts(self) -> AsyncGenerator[bytes, None]:
        return unpacked(self._parts(), self._undone) if self._undone else self._parts()

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        try:
            while part := await self._answer.read():
                yield part
        except OSError:
            raise self._lost() from None

    async def finish(self) -> None:
        if self._answer.is_whole:
            return
        try:
            async with asyncio.timeout(LINGER):
                while await self._answer.read():
                    pass
        except OSError:  # TimeoutError is one
            pass  # the answer is complete; only the connection can't be used again

    def close(self) -> None:
        self._answer.close()

    def _lost(self) -> UpstreamError:
        return UpstreamBroken(f"{self._name} broke off in mid-answer: the connection was lost")


def unreadable(exchange: Exchange) -> str | None:
    """Why an answer can only be passed on, where that is so."""
    packed = exchange.packed if isinstance(exchange, _Exchange) else ""
    return f"its answer is coded as {packed[:50]!r}, which can't be read here" if packed else None


def check_size(size: int, name: str) -> None:
    """Raise UpstreamBroken where an answer has grown beyond what is held."""
    if size > MOST:
        raise UpstreamBroken(f"{name} is broken: its answer is over {MOST // 1_000_000} MB")


def _checked(url: str) -> URL:
    try:
        parsed = URL(url.strip())
    except ValueError:
        parsed = URL()
    if "@" in parsed.raw_authority:
        raise SettingsError(
            "the upstream's URL holds a name or a password, which would show in logs; "
            "put the key into HONESTPROXY_UPSTREAM_KEY"
        )
    is_host = parsed.host and parsed.host.isprintable() and " " not in parsed.host
    if parsed.scheme not in ("http", "https") or not is_host:
        raise SettingsError(
            "the upstream's URL needs http:// or https:// and a host, "
            "as in http://127.0.0.1:11434/v1"
        )
    return parsed


def _cause(error: OSError) -> str:
    """Why there is no connection, in a few words."""
    number = error.errno if type(error).__module__ == "builtins" else None
    if number is None and (found := re.search(r"\[Errno (\d+)\]", str(error))):
        number = int(found[1])  # one error for several addresses
    return os.strerror(number).lower() if number else error.strerror or str(error)
