"""Any OpenAI-compatible server, by URL: bytes go up as they were given and come back so."""

from __future__ import annotations

import asyncio
import io
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from yarl import URL

from honestproxy import __version__
from honestproxy.errors import (
    SettingsError,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from honestproxy.types import ChatRequest, ChatResponse, Chunk, read, write
from honestproxy.wire import upstream as wire

if TYPE_CHECKING:
    from honestproxy.settings import Settings

_CHAT: Final = "/chat/completions"
_KEEP_ALIVE: Final = (
    4.0  # uvicorn and Node drop idle connections after 5 s; be first, or lose a POST
)
_LINGER: Final = (
    0.02  # seconds that a body's end may come after [DONE], to use its connection again
)
_LARGE: Final = 1_000_000
_LONG_LINE: Final = 65536  # some gateways send headers longer than aiohttp's 8 KiB


class OpenAICompatible:
    """A backend over `{url}/chat/completions` and `{url}/models`; one session for all requests.

    Redirects, cookies and proxies from the environment are not followed: a key goes nowhere
    but to `url`. There is no limit on the whole of a call: whoever makes it has its deadline.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        base = _checked(url)
        path = base.raw_path.rstrip("/").removesuffix(_CHAT)
        self._chat = base.with_path(path + _CHAT, encoded=True, keep_query=True)
        self._models = base.with_path(path + "/models", encoded=True, keep_query=True)
        self._name = str(base.with_path(path, encoded=True))  # no query: it may hold a secret
        self._key = _checked_key(settings)
        self._connect_timeout = settings.connect_timeout
        self._session: ClientSession | None = None

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The upstream's answer, its bytes unchanged."""
        async with self._sent(self._chat, request.headers, request.raw) as response:
            return wire.completion(await response.read(), response.content_type, response.headers)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The upstream's events, untouched; closing this closes the connection."""
        async with self._sent(self._chat, request.headers, request.raw) as response:
            if _is_json(response):  # it took no notice of `stream`
                whole = wire.completion(await response.read(), response.content_type)
                for chunk in whole.chunks():
                    yield chunk
                return
            await _check_streams(response)
            yield Chunk({"choices": []}, event=b"")
            reader = wire.ChunkReader()
            async for received in response.content.iter_any():
                for chunk in reader.feed(received):
                    yield chunk
                if reader.done:
                    await _read_to_end(response)
                    return
            for chunk in reader.end():
                yield chunk

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """What the upstream lists under `/models`."""
        async with self._sent(self._models, headers or {}) as response:
            return wire.models(await response.read(), response.content_type)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _sent(
        self, url: URL, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[ClientResponse]:
        """A good response; whatever else becomes an UpstreamError, here and while it is read."""
        sent = self._headers(headers, has_body=body is not None)
        method = "GET" if body is None else "POST"
        response: ClientResponse | None = None
        try:
            response = await self._requested(method, url, sent, body)
            if not 200 <= response.status < 300:
                raise wire.refusal(response.status, response.headers, await response.read())
            yield response
        except (aiohttp.ClientError, OSError) as error:
            # Not chained: aiohttp's errors hold the request's headers.
            raise self._failure(error, is_answering=response is not None) from None
        except UpstreamError as error:
            _redact(error, sent.get("authorization", "").split(" "))
            raise
        finally:
            if response is not None:
                response.close()  # what was read to its end has gone back to the pool before

    async def _requested(
        self, method: str, url: URL, headers: dict[str, str], body: bytes | None
    ) -> ClientResponse:
        """Send it; once more where the connection, idle before, turns out to be closed."""
        client, options = self._client(), {"headers": headers, "allow_redirects": False}
        try:
            return await client.request(method, url, data=_payload(body), **options)  # type: ignore[arg-type]
        except (aiohttp.ServerDisconnectedError, ConnectionResetError):
            return await client.request(method, url, data=_payload(body), **options)  # type: ignore[arg-type]

    def _headers(self, given: Mapping[str, str], *, has_body: bool) -> dict[str, str]:
        headers = {name.lower(): value for name, value in given.items()}
        headers["accept-encoding"] = "identity"  # compression would hold chunks back
        if has_body:
            headers["content-type"] = "application/json"
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        return headers

    def _client(self) -> ClientSession:
        if self._session is None or self._session.closed:
            seconds = self._connect_timeout
            self._session = ClientSession(
                connector=TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
                cookie_jar=DummyCookieJar(),
                headers={"User-Agent": f"honestproxy/{__version__}"},
                max_field_size=_LONG_LINE,
                max_line_size=_LONG_LINE,
                timeout=ClientTimeout(total=None, connect=seconds, sock_connect=seconds),
                trust_env=False,
            )
        return self._session

    def _failure(self, error: Exception, *, is_answering: bool) -> UpstreamError:
        if is_answering:
            return UpstreamBroken(f"{self._name} broke off in mid-answer: the connection was lost")
        if isinstance(error, TimeoutError):
            return UpstreamTimeout(
                f"no connection to {self._name} within {self._connect_timeout:g} s; is the "
                "server running, and is the URL right? (setting connect_timeout)"
            )
        if isinstance(error, aiohttp.ClientResponseError):
            return UpstreamBroken(f"what {self._name} answered is not HTTP; is the URL right?")
        return UpstreamUnreachable(
            f"can't reach {self._name}: {_cause(error)}; is the server running, "
            "and is the URL right?"
        )

    def __repr__(self) -> str:
        return f"OpenAICompatible({self._name!r})"


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


def _checked_key(settings: Settings) -> str:
    key = settings.upstream_key.get_secret_value().strip() if settings.upstream_key else ""
    if not (key.isascii() and key.isprintable()):
        raise SettingsError("upstream_key holds characters that no HTTP header can carry")
    return key


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    # A large body as bytes would be written in one go, and hold all other requests up.
    return io.BytesIO(body) if body is not None and len(body) > _LARGE else body


def _is_json(response: ClientResponse) -> bool:
    return response.content_type == "application/json" or response.content_type.endswith("+json")


async def _check_streams(response: ClientResponse) -> None:
    kind = response.headers.get("Content-Type", "")
    if kind and response.content_type != "text/event-stream":
        raise wire.broken("an event stream", await response.content.readany(), kind)


async def _read_to_end(response: ClientResponse) -> None:
    try:
        async with asyncio.timeout(_LINGER):
            while await response.content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError):
        pass  # the answer is complete; only the connection can't be used again


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


def _redact(error: UpstreamError, secrets: list[str]) -> None:
    """Upstreams like to repeat a key that they don't accept."""
    error.message = wire.redacted(error.message, secrets)
    error.args = (error.message,)
    if error.upstream is not None:
        raw = wire.redacted(write(error.upstream).decode(), secrets)
        error.upstream = read(raw.encode())
