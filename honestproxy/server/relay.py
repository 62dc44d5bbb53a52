"""Every path under `/v1` that isn't rewritten: relayed to the upstream, bytes up and down."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from starlette.types import Receive, Scope, Send

from honestproxy.errors import HonestProxyError, InvalidRequest
from honestproxy.server.account import Account
from honestproxy.server.answering import Watched, headers_of, refuse
from honestproxy.wire.reply import ChatWriter
from honestproxy.wire.request import FORWARDED

if TYPE_CHECKING:
    from honestproxy.server.service import Service

log = logging.getLogger(__name__)

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
_ALSO_FORWARDED: Final = frozenset(
    {
        *("accept", "content-encoding", "content-length", "content-type"),
        *("if-none-match", "range"),
    }
)
_KEPT: Final = re.compile(
    r"content-.*|accept-ranges|cache-control|etag|last-modified|location|retry-after.*"
    r"|openai-.*|x-ratelimit-.*|x-request-id|x-should-retry"
)

_OWN: Final = "/v1/honesty/"
"""Below this all is ours, and none of an upstream's business."""

_TOLD: Final = [(b"x-honesty-strategy", b"raw"), (b"x-honesty-outcome", b"passed_through")]


class Relay:
    """An ASGI endpoint: the upstream's own answer, whatever it is, as it comes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay one request; the client's leaving ends it upstream."""
        account = Account("relay")
        heard, service = account.heard(send), scope["service"]
        try:
            await self._relayed(account, scope, receive, heard)
        except HonestProxyError as error:
            account.failed = error.at_rest().message
            await refuse(heard, error)
        finally:
            account.close(service.observers)

    async def _relayed(self, account: Account, scope: Scope, receive: Receive, send: Send) -> None:
        """The upstream's answer passed on. Raises HonestProxyError before anything was sent."""
        service: Service = scope["service"]
        upload = _Upload(receive, headers_of(scope))
        account.caller = service.access.caller(upload.headers)
        async with service.admission.place(account.caller):
            with Watched(receive, upload.is_over) as watched:
                try:
                    exchange = await self._open(scope, upload)
                    try:
                        await _passed_on(exchange, send)
                    finally:
                        exchange.close()
                finally:
                    account.left = watched.left

    async def _open(self, scope: Scope, upload: _Upload) -> Any:
        method, headers = scope["method"], upload.headers
        relay = getattr(scope["service"].pipeline.backend, "relay", None)
        if _OWN in scope["path"]:
            raise InvalidRequest(f"{method} {scope['path']}: there is no such path", status=404)
        if relay is None:
            raise InvalidRequest(
                f"{method} {scope['path']}: this upstream answers chat alone; for other paths "
                "give an OpenAI-compatible URL as the upstream",
                status=404,
            )
        sent = {FORWARDED[name]: headers[name] for name in FORWARDED if name in headers}
        sent |= {name: headers[name] for name in _ALSO_FORWARDED if name in headers}
        return await relay(method, _path(scope), sent, upload.body())


def _path(scope: Scope) -> str:
    """The path below the upstream's base, as the client wrote it, with its query."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.decode("latin-1").partition("?")[0].removeprefix(scope.get("root_path", ""))
    if {".", ".."} & set(re.split(r"[/\\]", unquote(path))):
        raise InvalidRequest(f"{path}: a path must not climb", status=400)
    query = scope["query_string"].decode("latin-1")
    return path.removeprefix("/v1") + (f"?{query}" if query else "")


class _Upload:
    """The request's body on its way up, never held whole."""

    def __init__(self, receive: Receive, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self._receive = receive
        length = headers.get("content-length", "0")
        self._comes = "transfer-encoding" in headers or length != "0"

    def is_over(self) -> bool:
        """Whether all of it has come, so that what comes next is the client's leaving."""
        return not self._comes

    def body(self) -> AsyncGenerator[bytes, None] | None:
        """The parts as they come; None where the request has no body."""
        return self._parts() if self._comes else None

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        while self._comes:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client left before its request was complete")
            self._comes = message.get("more_body", False)
            if part := message.get("body"):
                yield part


async def _passed_on(exchange: Any, send: Send) -> None:
    """Status, headers and body as they come. A body that breaks off is seen to break off."""
    headers = [*_kept(exchange.headers), *_TOLD]
    await send({"type": "http.response.start", "status": exchange.status, "headers": headers})
    try:
        async with aclosing(exchange.parts()) as parts:
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
    except HonestProxyError as error:
        log.warning("%s", error.message)
        if not exchange.headers.get("content-type", "").startswith("text/event-stream"):
            return  # without an end, so that the server drops the connection, as the upstream did
        await send({"type": "http.response.body", "body": ChatWriter().error(error)})
        return
    await send({"type": "http.response.body", "body": b""})


def _kept(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    lowered = {name.lower(): value for name, value in headers.items()}
    if "content-encoding" in lowered:  # undone on the way
        del lowered["content-encoding"]
        lowered.pop("content-length", None)
    return [
        (name.encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in lowered.items()
        if _KEPT.fullmatch(name)
    ]
