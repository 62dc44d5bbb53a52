"""Every path under `/v1` that isn't rewritten: relayed to the upstream, bytes up and down."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from starlette.types import Receive, Scope, Send

from honestproxy.errors import HonestProxyError, InvalidRequest
from honestproxy.server.access.caller import Caller
from honestproxy.server.access.guard import climbs
from honestproxy.server.access.usage import Overheard
from honestproxy.server.account import Account
from honestproxy.server.admission import Admission, stopping
from honestproxy.server.answering import concluded
from honestproxy.server.incoming import LARGE, Upload, headers_of
from honestproxy.server.watching import Watched
from honestproxy.types import Document
from honestproxy.wire.reply import ChatWriter
from honestproxy.wire.request import FORWARDED
from honestproxy.wire.upstream import is_one_line

if TYPE_CHECKING:
    from honestproxy.server.service import Service

log = logging.getLogger(__name__)

_READING: Final = ("GET", "HEAD")
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
_ALSO_FORWARDED: Final = frozenset(
    {
        *("accept", "content-encoding", "content-length", "content-type"),
        *("if-none-match", "range"),
    }
)
_KEPT: Final = re.compile(
    r"content-(?:digest|disposition|encoding|language|length|location|range|type)|accept-ranges|cache-control|etag|last-modified|location|retry-after.*"
    r"|openai-.*|x-ratelimit-.*|x-request-id|x-should-retry"
)

OWN: Final = "/v1/honesty/"
"""Below this all is ours, and none of an upstream's business."""

_TOLD: Final = [
    (b"x-honesty-strategy", b"raw"),
    (b"x-honesty-outcome", b"passed_through"),
    # A page that an upstream answers is none of ours, and mustn't act as one in a browser.
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"x-content-type-options", b"nosniff"),
]


class Relay:
    """An ASGI endpoint: the upstream's own answer, whatever it is, as it comes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay one request; the client's leaving ends it upstream."""
        account = Account("relay")
        heard = account.heard(send)
        work = self._relayed(account, scope, receive, heard)
        await concluded(account, scope["service"], heard, work)

    async def _relayed(self, account: Account, scope: Scope, receive: Receive, send: Send) -> None:
        """The upstream's answer passed on. Raises HonestProxyError before anything was sent."""
        service: Service = scope["service"]
        headers = headers_of(scope)
        account.request_id = headers.get("x-request-id") or headers.get("x-client-request-id")
        if service.telemetry is not None:
            account.spans = service.telemetry.begin(account, scope["method"], headers)
            headers = account.spans.onward(headers)
        upload = Upload(scope, receive, headers)
        account.caller = caller = scope["caller"]
        account.told = service.access.admitted(caller)
        if caller.id is not None and scope["method"] not in _READING:
            # What is only read again has been counted: polling would use a day up.
            account.overheard = upload.overheard = Overheard()
            send = account.overheard.hearing(send)
            await _check(caller, upload)
        model = await _model(upload) if service.pipeline.is_routed else ""
        account.upstream = service.pipeline.of(model).settings.upstream
        await upload.begin()
        async with service.admission.place(caller, scope, upload.receive):
            with Watched(upload.receive, at_once=upload.is_coming) as watched:
                try:
                    exchange = await self._open(scope, upload, model)
                    try:
                        account.failed = await _passed_on(exchange, send, service.admission)
                    finally:
                        exchange.close()
                finally:
                    account.left = watched.left

    async def _open(self, scope: Scope, upload: Upload, model: str) -> Any:
        method, headers = scope["method"], upload.headers
        relay = getattr(scope["service"].pipeline.of(model).backend, "relay", None)
        if OWN in scope["path"]:
            raise InvalidRequest(f"{method} {scope['path']}: there is no such path", status=404)
        if relay is None:
            raise InvalidRequest(
                f"{method} {scope['path']}: this upstream answers chat alone; for other paths "
                "give an OpenAI-compatible URL as the upstream",
                status=404,
            )
        sent = {FORWARDED[name]: headers[name] for name in FORWARDED if name in headers}
        sent |= {name: headers[name] for name in _ALSO_FORWARDED if name in headers}
        try:
            return await relay(method, _path(scope), sent, upload.body())
        except HonestProxyError:
            upload.check()  # perhaps it isn't the upstream that broke off
            raise


async def _check(caller: Caller, upload: Upload) -> None:
    """Raise Forbidden for what the key is not for: whatever is relayed is answered raw."""
    caller.check_strategy("raw")
    if caller.models is not None:
        caller.check_relayed(upload.hold(caller.confined(await upload.whole())))


async def _model(upload: Upload) -> str:
    """The model that a JSON body names, by which it finds its upstream; empty where none is.

    Raises TooLarge for a body that is too large to be read.
    """
    kind = upload.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return ""
    if upload.is_coming:
        upload.hold(await upload.whole())
    body = upload.body()
    if not isinstance(body, bytes):
        return ""
    named = await asyncio.to_thread(_named, body) if len(body) > LARGE else _named(body)
    return named if isinstance(named, str) else ""


def _named(body: bytes) -> Any:
    try:
        return Document(body).get("model")
    except (ValueError, RecursionError):
        return None  # the upstream says what is wrong with it


def _path(scope: Scope) -> str:
    """The path below the upstream's base, as the client wrote it, with its query."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.decode("latin-1").partition("?")[0].removeprefix(scope.get("root_path", ""))
    if climbs(unquote(path)):
        raise InvalidRequest(f"{path}: a path must not climb", status=400)
    query = scope["query_string"].decode("latin-1")
    return path.removeprefix("/v1") + (f"?{query}" if query else "")


async def _passed_on(exchange: Any, send: Send, admission: Admission) -> str | None:
    """Status, headers and body as they come; where the body broke off, as is seen, says why."""
    headers = [*_kept(exchange.headers), *_TOLD]
    await send({"type": "http.response.start", "status": exchange.status, "headers": headers})
    try:
        async with aclosing(exchange.parts()) as parts:
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
    except HonestProxyError as error:
        log.warning("%s", error.message)
        return await _broken_off(exchange, send, error)
    except asyncio.CancelledError:
        if not admission.ended:
            raise
        return await _broken_off(exchange, send, stopping())
    await send({"type": "http.response.body", "body": b""})
    return None


async def _broken_off(exchange: Any, send: Send, error: HonestProxyError) -> str:
    """Let it be seen that there should have been more; says why."""
    headers = exchange.headers
    is_stream = headers.get("content-type", "").startswith("text/event-stream")
    if is_stream and "content-encoding" not in headers:
        await send({"type": "http.response.body", "body": ChatWriter().error(error)})
    return error.message  # else without an end: the server drops the connection, like upstream


def _kept(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    lowered = ((name.lower(), value) for name, value in headers.items())
    return [
        (name.encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in lowered
        if _KEPT.fullmatch(name) and is_one_line(value)
    ]
