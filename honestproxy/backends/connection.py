"""How bytes reach an upstream: one seam, and its implementation over aiohttp."""

from __future__ import annotations

import asyncio
import os
import re
import struct
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing, suppress
from contextvars import ContextVar
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Final, Protocol

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from multidict import CIMultiDict
from yarl import URL

from honestproxy import __version__
from honestproxy.backends.packed import UNPACKED, coding, unpacked, without_coding
from honestproxy.errors import (
    SettingsError,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from honestproxy.wire.upstream import redacted

CHAT: Final = "/chat/completions"
RESPONSES: Final = "/responses"
_KEEP_ALIVE: Final = (
    4.0  # uvicorn and Node drop idle connections after 5 s; be first, or lose a POST
)
LINGER: Final = 0.02  # seconds that a body's end may come after [DONE], to use its connection again
_LARGE: Final = 1_000_000
_PIECE: Final = 65536
MOST: Final = 100_000_000
"""Bytes of one answer at most, unpacked, where it is held: no upstream may fill our memory."""
_LONG_LINE: Final = 65536  # some gateways send headers longer than aiohttp's 8 KiB
_FORGET: Final = struct.pack("ii", 1, 0)  # SO_LINGER's: on, for no time
_RETRIED: Final = (aiohttp.ServerDisconnectedError, ConnectionResetError)
_FRESH: Final = ContextVar("fresh", default=False)
"""Whether this task's last request went over a connection that was made for it."""
_USED: Final[ContextVar[asyncio.Transport | None]] = ContextVar("used", default=None)
"""The way that this task's last request went."""

Body = bytes | AsyncIterable[bytes] | None


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
    """A connection over aiohttp: one session for all requests.

    Redirects, cookies and proxies from the environment are not followed: a key goes nowhere
    but to `url`. There is no limit on the whole of a request: whoever makes it has its deadline.
    """

    def __init__(self, url: str, connect_timeout: float) -> None:
        self._base = _checked(url)
        self._path = self._base.raw_path.rstrip("/").removesuffix(CHAT)
        self.name = str(self._base.with_path(self._path, encoded=True))  # a query may be secret
        self._connect_timeout = connect_timeout
        self._urls = {path: self._url(path) for path in (CHAT, "/models", RESPONSES)}
        self._session: ClientSession | None = None

    async def open(
        self, method: str, path: str, headers: Mapping[str, str], body: Body = None
    ) -> Exchange:
        """Send it; once more where the connection, idle before, turns out to be closed."""
        url = self._urls.get(path) or self._url(path)
        if isinstance(body, bytes) and len(body) > _LARGE:
            headers = {**headers, "content-length": str(len(body))}
        request, options = self._client().request, {"headers": headers, "allow_redirects": False}
        _FRESH.set(False)
        _USED.set(None)
        try:
            try:
                answer = await request(method, url, data=_payload(body), **options)  # type: ignore[arg-type]
            except _RETRIED:
                if _FRESH.get() or not isinstance(body, bytes | None):
                    raise
                answer = await request(method, url, data=_payload(body), **options)  # type: ignore[arg-type]
        except (aiohttp.ClientError, OSError) as error:
            # Not chained: aiohttp's errors hold the request's headers.
            raise self._failure(error) from None
        except asyncio.CancelledError:
            _break_off(_USED.get(), body)
            raise
        return _Answer(answer, self.name)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _url(self, path: str) -> URL:
        path, _, query = path.partition("?")
        url = self._base.with_path(self._path + path, encoded=True, keep_query=True)
        if not query:
            return url
        return URL(f"{url}{'&' if url.query_string else '?'}{query}", encoded=True)

    def _client(self) -> ClientSession:
        if self._session is None or self._session.closed:
            seconds = self._connect_timeout
            self._session = ClientSession(
                auto_decompress=False,  # it fails where it can't; see `_Answer`
                connector=_Connector(limit=0, keepalive_timeout=_KEEP_ALIVE),
                cookie_jar=DummyCookieJar(),
                headers={"User-Agent": f"honestproxy/{__version__}"},
                max_field_size=_LONG_LINE,
                max_line_size=_LONG_LINE,
                timeout=ClientTimeout(total=None, connect=seconds, sock_connect=seconds),
                trust_env=False,
            )
        return self._session

    def _failure(self, error: Exception) -> UpstreamError:
        if isinstance(error, TimeoutError):
            return UpstreamTimeout(
                f"no connection to {self.name} within {self._connect_timeout:g} s; is the "
                "server running, and is the URL right? (setting connect_timeout)"
            )
        if isinstance(error, aiohttp.ClientResponseError):
            return UpstreamBroken(f"what {self.name} answered is not HTTP; is the URL right?")
        return UpstreamUnreachable(
            f"can't reach {self.name}: {_cause(error)}; is the server running, "
            "and is the URL right?"
        )


class _Connector(TCPConnector):
    """Remembers which connection is used, and that it is new.

    One that is new and breaks wasn't closed while idle.
    """

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        _USED.set(connection.transport)
        return connection

    async def _create_connection(self, *args: Any, **kwargs: Any) -> Any:
        _FRESH.set(True)
        return await super()._create_connection(*args, **kwargs)


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


class _Answer:
    """An exchange over aiohttp.

    `packed`: how its body is packed in a way that isn't undone, which its headers tell, too.
    """

    __slots__ = ("_name", "_response", "_undone", "headers", "packed", "status")

    def __init__(self, response: ClientResponse, name: str) -> None:
        self._response = response
        self._name = name
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.packed, self._undone = coding(response.headers), ""
        if self.packed in UNPACKED:
            self.headers = without_coding(response.headers)
            self.packed, self._undone = "", self.packed

    async def read(self) -> bytes:
        if self._undone:
            return await self._read_unpacked()
        # Most answers come this way: without a generator, which takes some of a request's time.
        content, parts, size = self._response.content, [], 0
        try:
            while part := await content.readany():
                parts.append(part)
                size += len(part)
                check_size(size, self._name)
        except (aiohttp.ClientError, OSError):
            raise self._lost() from None
        return b"".join(parts)

    async def _read_unpacked(self) -> bytes:
        parts, size = [], 0
        async with aclosing(self.parts()) as coming:
            async for part in coming:
                parts.append(part)
                size += len(part)
                check_size(size, self._name)
        return b"".join(parts)

    def parts(self) -> AsyncGenerator[bytes, None]:
        return unpacked(self._parts(), self._undone) if self._undone else self._parts()

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        content = self._response.content
        try:
            while part := await content.readany():
                yield part
        except (aiohttp.ClientError, OSError):
            raise self._lost() from None

    async def finish(self) -> None:
        try:
            async with asyncio.timeout(LINGER):
                while await self._response.content.readany():
                    pass
        except (TimeoutError, aiohttp.ClientError):
            pass  # the answer is complete; only the connection can't be used again

    def close(self) -> None:
        # What was read to its end has gone back to the pool before. What wasn't is aborted: what
        # is left of a large request would be held until the upstream reads it.
        if connection := self._response.connection:
            transport = connection.transport
            self._response.close()
            if transport is not None:
                transport.abort()
        else:
            self._response.close()

    def _lost(self) -> UpstreamError:
        return UpstreamBroken(f"{self._name} broke off in mid-answer: the connection was lost")


def unreadable(exchange: Exchange) -> str | None:
    """Why an answer can only be passed on, where that is so."""
    packed = exchange.packed if isinstance(exchange, _Answer) else ""
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
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise SettingsError(
            "the upstream's URL needs http:// or https:// and a host, "
            "as in http://127.0.0.1:11434/v1"
        )
    return parsed


def _break_off(transport: asyncio.Transport | None, body: Body) -> None:
    """End a request that may not have been sent whole yet.

    Closed, as it is by now, its connection would wait for the upstream to read what it may never;
    so would the kernel with a large one, unless it is told to forget that.
    """
    if transport is None:
        return
    if not isinstance(body, bytes | None) or len(body or b"") > _LONG_LINE:
        with suppress(OSError):
            transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _FORGET)
    transport.abort()


def _payload(body: Body) -> Body:
    # A large body as bytes would be written in one go, and hold all other requests up.
    return _pieces(body) if isinstance(body, bytes) and len(body) > _LARGE else body


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]


def _cause(error: Exception) -> str:
    """Why there is no connection, in a few words."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    below = getattr(error, "os_error", error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        below = error.certificate_error
    number = getattr(below, "errno", None) if type(below).__module__ == "builtins" else None
    if number is None and (found := re.search(r"\[Errno (\d+)\]", str(below))):
        number = int(found[1])  # one error for several addresses
    return os.strerror(number).lower() if number else str(getattr(below, "strerror", 0) or below)
