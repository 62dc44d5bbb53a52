"""Any OpenAI-compatible server, by URL: bytes go up as they were given and come back so."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from honestproxy.backends.connection import CHAT, Body, Connection, Exchange, Http
from honestproxy.errors import SettingsError, UpstreamError
from honestproxy.types import ChatRequest, ChatResponse, Chunk, read, write
from honestproxy.wire import upstream as wire

if TYPE_CHECKING:
    from honestproxy.settings import Settings


class OpenAICompatible:
    """A backend over `{url}/chat/completions` and `{url}/models`."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._connection: Connection = Http(url, settings.connect_timeout)
        self._key = _checked_key(settings)

    @classmethod
    def over(cls, connection: Connection) -> Self:
        """The backend over a connection of one's own, which brings its own key."""
        made = cls.__new__(cls)
        made._connection, made._key = connection, ""
        return made

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The upstream's answer, its bytes unchanged."""
        async with self._sent("POST", CHAT, request.headers, request.raw) as exchange:
            return wire.completion(await exchange.read(), _kind(exchange), exchange.headers)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The upstream's events, untouched; closing this closes the connection."""
        async with self._sent("POST", CHAT, request.headers, request.raw) as exchange:
            if _is_json(exchange):  # it took no notice of `stream`
                whole = wire.completion(await exchange.read(), _kind(exchange))
                for chunk in whole.chunks():
                    yield chunk
                return
            await _check_streams(exchange)
            yield Chunk({"choices": []}, event=b"", headers=wire.kept_headers(exchange.headers))
            reader = wire.ChunkReader()
            async for received in exchange.parts():
                for chunk in reader.feed(received):
                    yield chunk
                if reader.done:
                    await exchange.finish()
                    return
            for chunk in reader.end():
                yield chunk

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """What the upstream lists under `/models`."""
        async with self._sent("GET", "/models", headers or {}) as exchange:
            return wire.models(await exchange.read(), _kind(exchange))

    async def relay(
        self, method: str, path: str, headers: Mapping[str, str], body: Body
    ) -> Exchange:
        """Any other request to the upstream, as it is; the exchange is the caller's to close.

        `path` is below the upstream's base, a query included. Raises UpstreamError where it
        can't be reached; a status of its own is an answer like any other.
        """
        return await self._connection.open(method, path, self._headers(headers), body)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connection.aclose()

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[Exchange]:
        """A good response; whatever else becomes an UpstreamError, here and while it is read."""
        sent = self._headers(headers)
        if body is not None:
            sent["content-type"] = "application/json"
        exchange: Exchange | None = None
        try:
            exchange = await self._connection.open(method, path, sent, body)
            if not 200 <= exchange.status < 300:
                raise wire.refusal(exchange.status, exchange.headers, await exchange.read())
            yield exchange
        except UpstreamError as error:
            _redact(error, sent.get("authorization", "").split(" "))
            raise
        finally:
            if exchange is not None:
                exchange.close()

    def _headers(self, given: Mapping[str, str]) -> dict[str, str]:
        headers = {name.lower(): value for name, value in given.items()}
        headers["accept-encoding"] = "identity"  # compression would hold chunks back
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        return headers

    def __repr__(self) -> str:
        return f"OpenAICompatible({self._connection.name!r})"


def _checked_key(settings: Settings) -> str:
    key = settings.upstream_key.get_secret_value().strip() if settings.upstream_key else ""
    if not (key.isascii() and key.isprintable()):
        raise SettingsError("upstream_key holds characters that no HTTP header can carry")
    return key


def _kind(exchange: Exchange) -> str:
    kind = exchange.headers.get("Content-Type", "application/octet-stream")
    return kind.partition(";")[0].strip().lower()


def _is_json(exchange: Exchange) -> bool:
    kind = _kind(exchange)
    return kind == "application/json" or kind.endswith("+json")


async def _check_streams(exchange: Exchange) -> None:
    kind = exchange.headers.get("Content-Type", "")
    if kind and _kind(exchange) != "text/event-stream":
        raise wire.broken("an event stream", await anext(exchange.parts(), b""), kind)


def _redact(error: UpstreamError, secrets: list[str]) -> None:
    """Upstreams like to repeat a key that they don't accept."""
    error.message = wire.redacted(error.message, secrets)
    error.args = (error.message,)
    if error.upstream is not None:
        raw = wire.redacted(write(error.upstream).decode(), secrets)
        error.upstream = read(raw.encode())
