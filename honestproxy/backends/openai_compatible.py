"""Any OpenAI-compatible server, by URL: bytes go up as they were given and come back so."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from honestproxy.backends import Traits
from honestproxy.backends.connection import (
    CHAT,
    LINGER,
    RESPONSES,
    Connection,
    Exchange,
    Http,
    Told,
    check_size,
    unreadable,
)
from honestproxy.backends.http1 import Body
from honestproxy.errors import InvalidRequest, SettingsError, UpstreamBroken, UpstreamError
from honestproxy.streams import Reads, one_by_one
from honestproxy.types import ChatRequest, ChatResponse, Chunk, read, write
from honestproxy.wire import responses
from honestproxy.wire import upstream as wire

if TYPE_CHECKING:
    from honestproxy.settings import Settings


_MISSING: Final = (404, 405, 501)
"""How an upstream that doesn't know a path answers."""
_REMEMBERED: Final = 300.0
"""Seconds after which a model that was answered by chat is asked for by Responses again."""
_BEGINS_EVENTS: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:data|event|id|retry)?:")
_MODELS: Final = 1000
"""So many models are remembered at most, and none of a longer name: clients choose those."""


@dataclass(frozen=True, slots=True)
class _Api:
    """How one of OpenAI's APIs is read."""

    completion: Callable[[bytes, str, Mapping[str, str]], ChatResponse]
    reader: Callable[[int], wire.ChunkReader | responses.EventReader]
    """One for an answer of so many choices."""


class _OnlyChat:
    """The models that an upstream answers by chat alone: a gateway may have both kinds."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def __contains__(self, model: str) -> bool:
        return time.monotonic() < self._until.get(model, 0.0)

    def add(self, model: str) -> None:
        """Remember one for a while; the oldest makes room for it."""
        if model in self or len(model) > _MODELS:
            return
        self._until.pop(model, None)
        self._until[model] = time.monotonic() + _REMEMBERED
        if len(self._until) > _MODELS:
            del self._until[next(iter(self._until))]


_CHAT: Final = _Api(wire.completion, wire.ChunkReader)
_RESPONSES: Final = _Api(responses.completion, lambda _: responses.EventReader())


class OpenAICompatible:
    """A backend over `{url}/chat/completions`, `{url}/responses` and `{url}/models`.

    What came as a Responses request goes up as one; an upstream that has none of that, or not
    for this model, is asked by chat.
    """

    traits = Traits(responses=True)

    def __init__(self, url: str, settings: Settings) -> None:
        self._connection: Connection = Http(url, settings.connect_timeout)
        self._key = _checked_key(settings)
        self._only_chat = _OnlyChat()

    @classmethod
    def over(cls, connection: Connection) -> Self:
        """The backend over a connection of one's own, which brings its own key."""
        made = cls.__new__(cls)
        made._connection, made._key, made._only_chat = connection, "", _OnlyChat()
        return made

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The upstream's answer, its bytes unchanged."""
        api, good = await self._asked(request)
        with good as exchange:
            return api.completion(await exchange.read(), _kind(exchange), exchange.headers)

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The upstream's events, untouched; closing this closes the connection."""
        return one_by_one(self.reads(request))

    async def reads(self, request: ChatRequest) -> Reads:
        """The same, as many events at once as came at once."""
        api, good = await self._asked(request)
        with good as exchange:
            if _is_json(exchange):  # it took no notice of `stream`
                whole = api.completion(await exchange.read(), _kind(exchange), {})
                told = (request.get("stream_options") or {}).get("include_usage")
                yield [chunk for chunk in whole.chunks() if chunk.choices or told]
                return
            parts = await _events(exchange)
            yield [Chunk({"choices": []}, event=b"", headers=wire.kept_headers(exchange.headers))]
            reader = api.reader(request.get("n") or 1)
            size = 0
            async for received in _until_done(parts, reader):
                found: list[Chunk] = []
                size += len(received)
                check_size(size, self._connection.name)
                try:
                    found.extend(reader.feed(received))
                except UpstreamError:
                    if found:
                        yield found  # what came before the error, an answer's text perhaps
                    raise
                if found:
                    yield found
                if reader.done:
                    await exchange.finish()
                    return
            yield list(reader.end())

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """What the upstream lists under `/models`."""
        with await self._sent("GET", "/models", headers or {}) as exchange:
            return wire.models(await exchange.read(), _kind(exchange))

    async def discard(self, request: ChatRequest, response: ChatResponse) -> None:
        """Delete an answer where it is stored. Raises UpstreamError where it stays."""
        is_chats = request.origin is None
        is_stored, name = response.get("store"), response.get("id")  # None: it doesn't say
        if not name or is_stored is False or (not is_chats and request.model in self._only_chat):
            return
        path = f"{CHAT if is_chats else RESPONSES}/{quote(str(name), safe='')}"
        try:
            with await self._sent("DELETE", _at(path, request), request.headers) as exchange:
                await exchange.read()
        except UpstreamError as error:
            if is_stored or error.status not in _MISSING:
                raise

    async def relay(
        self, method: str, path: str, headers: Mapping[str, str], body: Body
    ) -> Exchange:
        """Any other request to the upstream, as it is; the exchange is the caller's to close.

        `path` is below the upstream's base, a query included. Raises UpstreamError where it
        can't be reached; a status of its own is an answer like any other.
        """
        exchange = await self._connection.open(method, path, self._headers(headers), body)
        if exchange.status < 400 or not self._key:
            return exchange
        if unreadable(exchange):  # nor can a key that is in it be seen
            with closing(exchange):
                raise await _refusal(exchange)
        try:
            return await Told.of(exchange, [self._key])
        except BaseException:
            exchange.close()
            raise

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connection.aclose()

    async def _asked(self, request: ChatRequest) -> tuple[_Api, _Good]:
        """A good response to a request, from the API that the client asked or else from chat."""
        if request.origin is not None and (native := await self._native(request)) is not None:
            return _RESPONSES, native
        body = request.without_origin().raw
        good = await self._sent("POST", _at(CHAT, request), request.headers, body)
        if request.origin is not None:
            self._only_chat.add(request.model)
        return _CHAT, good

    async def _native(self, request: ChatRequest) -> _Good | None:
        """A good response to a Responses request; None where chat is to be asked."""
        asked = request.origin
        if not isinstance(asked, responses.ResponsesRequest) or request.model in self._only_chat:
            return None
        body = responses.native(request, asked)
        try:
            return await self._sent("POST", _at(RESPONSES, request), request.headers, body)
        except UpstreamError as error:
            if not _is_without(error) or asked.is_about(error.message):
                raise
            _check_chat(asked, error)
            return None

    async def _sent(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> _Good:
        """A good response, to be entered at once; whatever else becomes an UpstreamError."""
        sent = self._headers(headers)
        if body is not None:
            sent["content-type"] = "application/json"
        exchange: Exchange | None = None
        try:
            exchange = await self._connection.open(method, path, sent, body)
            if not 200 <= exchange.status < 300:
                raise await _refusal(exchange)
            if why := unreadable(exchange):
                raise UpstreamBroken(f"{self._connection.name} is broken: {why}")
        except BaseException as error:
            _let_go(exchange, error, sent)
            raise
        return _Good(exchange, sent)

    def _headers(self, given: Mapping[str, str]) -> dict[str, str]:
        headers = {name.lower(): value for name, value in given.items()}
        headers["accept-encoding"] = "identity"  # compression would hold chunks back
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        return headers

    def __repr__(self) -> str:
        return f"OpenAICompatible({self._connection.name!r})"


class _Good:
    """A good response, read while it is entered; errors from then on tell no key, either."""

    __slots__ = ("_exchange", "_sent")

    def __init__(self, exchange: Exchange, sent: Mapping[str, str]) -> None:
        self._exchange = exchange
        self._sent = sent

    def __enter__(self) -> Exchange:
        return self._exchange

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        _let_go(self._exchange, error, self._sent)


def _let_go(
    exchange: Exchange | None, error: BaseException | None, sent: Mapping[str, str]
) -> None:
    """Close an exchange; what went wrong with it is told without the key that was sent."""
    if isinstance(error, UpstreamError):
        _redact(error, sent.get("authorization", "").split(" "))
    if exchange is not None:
        exchange.close()


def _checked_key(settings: Settings) -> str:
    key = settings.upstream_key.get_secret_value().strip() if settings.upstream_key else ""
    if not (key.isascii() and key.isprintable()):
        raise SettingsError("upstream_key holds characters that no HTTP header can carry")
    return key


async def _refusal(exchange: Exchange) -> UpstreamError:
    """The error for a status that isn't 2xx."""
    why = unreadable(exchange)
    said = why.encode() if why else await exchange.read()
    return wire.refusal(exchange.status, exchange.headers, said)


def _at(path: str, request: ChatRequest) -> str:
    return f"{path}?{request.query}" if request.query else path


def _kind(exchange: Exchange) -> str:
    kind = exchange.headers.get("Content-Type", "application/octet-stream")
    return kind.partition(";")[0].strip().lower()


def _is_json(exchange: Exchange) -> bool:
    kind = _kind(exchange)
    return kind == "application/json" or kind.endswith("+json")


async def _events(exchange: Exchange) -> AsyncGenerator[bytes, None]:
    """The body as it comes. Raises UpstreamBroken where it is no event stream.

    Some servers call one text/plain, and SDKs read it all the same: so how it begins decides.
    """
    parts, kind = exchange.parts(), exchange.headers.get("Content-Type", "")
    if not kind or _kind(exchange) == "text/event-stream":
        return parts
    first = await anext(parts, b"")
    if not _BEGINS_EVENTS.match(first):
        raise wire.broken("an event stream", first, kind)
    return _behind(first, parts)


async def _behind(first: bytes, parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(parts):
        yield first
        async for part in parts:
            yield part


def _until_done(
    parts: AsyncGenerator[bytes, None], reader: wire.ChunkReader | responses.EventReader
) -> AsyncGenerator[bytes, None]:
    return parts if isinstance(reader, wire.ChunkReader) else _until_ended(parts, reader)


async def _until_ended(
    parts: AsyncGenerator[bytes, None], reader: responses.EventReader
) -> AsyncGenerator[bytes, None]:
    """The body as it comes; behind the answer's last event, only what comes at once.

    Responses has no `[DONE]`, and some servers keep the connection open.
    """
    async with aclosing(parts):
        while True:
            try:
                async with asyncio.timeout(LINGER if reader.finished else None):
                    part = await anext(parts, None)
            except TimeoutError:
                return
            if part is None:
                return
            yield part


def _is_without(error: UpstreamError) -> bool:
    """Whether the path is what the upstream doesn't know, rather than a model or an item."""
    told = (error.upstream or {}).get("error") or {}
    is_named = told.get("param") or told.get("code") == "model_not_found"
    return error.status in _MISSING and not is_named


def _check_chat(asked: responses.ResponsesRequest, error: UpstreamError) -> None:
    """Raise InvalidRequest for what chat can't say, with what the upstream said to Responses."""
    try:
        asked.check_chat()
    except InvalidRequest as refused:
        message = f"{refused.message}; on {RESPONSES}, {error.message}"
        raise InvalidRequest(message, param=refused.param, code=refused.code) from None


def _redact(error: UpstreamError, secrets: list[str]) -> None:
    """Upstreams like to repeat a key that they don't accept."""
    error.message = wire.redacted(error.message, secrets)
    error.args = (error.message,)
    if error.upstream is not None:
        raw = wire.redacted(write(error.upstream).decode(), secrets)
        error.upstream = read(raw.encode())
