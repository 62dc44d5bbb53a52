"""Traces with their texts, kept a while for who asks on this machine; `GET /v1/honesty/traces/…`.

A request that carries `X-Honesty-Trace: keep` has what each step sent and got back kept in memory.
Texts are private, so both keeping and reading are for this machine's own clients alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from starlette.types import Scope

from honestproxy.errors import Forbidden, HonestProxyError, InvalidRequest
from honestproxy.pipeline import AnyRun
from honestproxy.server.answering import Writer, headers_of
from honestproxy.server.guard import is_loopback
from honestproxy.trace import Honesty, Step
from honestproxy.types import ChatResponse, Chunk, write

HEADER: Final = "x-honesty-trace"
_PASSED_ON: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-real-ip"})

router = APIRouter(include_in_schema=False)


class Traces(Protocol):
    """Where traces are kept, as JSON."""

    def keep(self, name: str, trace: bytes) -> None:
        """Keep a trace under its id."""
        ...

    def find(self, name: str) -> bytes | None:
        """The trace of that id, while it is kept."""
        ...


class LastTraces:
    """The last traces, in memory: no more than `most`, and no more than `room` bytes of them."""

    def __init__(self, most: int = 200, room: int = 32_000_000) -> None:
        self._most = most
        self._room = room
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def keep(self, name: str, trace: bytes) -> None:
        """Keep a trace; the oldest ones make room for it, and one that is too large isn't kept."""
        self._size -= len(self._kept.pop(name, b""))
        if len(trace) > self._room:
            return
        self._kept[name] = trace
        self._size += len(trace)
        while len(self._kept) > self._most or self._size > self._room:
            _, oldest = self._kept.popitem(last=False)
            self._size -= len(oldest)

    def find(self, name: str) -> bytes | None:
        """The trace of that id, while it is kept."""
        return self._kept.get(name)


class Recording:
    """A writer that listens to what it writes, and keeps the trace as the answer ends."""

    def __init__(self, writer: Writer, traces: Traces) -> None:
        self.run: AnyRun | None = None
        self._writer = writer
        self._traces = traces
        self._heard: list[str] = []

    def whole(self, response: ChatResponse) -> bytes:
        """The answer as a body."""
        self.keep()
        return self._writer.whole(response)

    def events(self, chunk: Chunk) -> bytes:
        """What a chunk means for the stream."""
        if self.run is not None and self.run.verbatim:  # other runs know their own texts
            self._heard.append(chunk.text)
        return self._writer.events(chunk)

    def end(self) -> bytes:
        """What is left to say; the trace is kept before, so that who reads it on finds it."""
        self.keep()
        return self._writer.end()

    def error(self, error: HonestProxyError) -> bytes:
        """An error after the first byte."""
        self.keep()
        return self._writer.error(error)

    def keep(self) -> None:
        """Keep the trace as it is now."""
        if self.run is not None:
            honesty = self.run.honesty
            self._traces.keep(honesty.trace.id, told(honesty, "".join(self._heard)))


def told(honesty: Honesty, heard: str = "") -> bytes:
    """A trace as JSON: the `honesty` object, its steps with what was sent and what came back.

    `heard` is the text of an answer that was passed on unread.
    """
    steps = [_step(step, heard) for step in honesty.trace.steps]
    head = {"object": "honesty.trace", "created": honesty.trace.created}
    return write({**head, **honesty.body(), "steps": steps})


def wanted(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether this request's trace is to be kept."""
    return headers.get(HEADER) == "keep" and is_from_here(scope)


def is_from_here(scope: Scope) -> bool:
    """Whether a client on this machine asks, not one far away through a proxy or a page of its own.

    A site that points its name at 127.0.0.1 comes from here, too, but calls us by that name.
    """
    headers = headers_of(scope)
    client, host = scope.get("client"), f"//{headers.get('host', '')}"
    if client is None or _PASSED_ON & headers.keys():
        return False
    try:
        name = urlsplit(host).hostname or ""
    except ValueError:
        return False
    return is_loopback(client[0]) and is_loopback(name)


@router.get("/v1/honesty/traces/{name}")
async def trace(request: Request, name: str) -> Response:
    """What each step of one request sent and got back."""
    if not is_from_here(request.scope):
        raise Forbidden("texts of traces are for clients on the proxy's own machine")
    found = request.scope["service"].traces.find(name)
    if found is None:
        message = f"no trace {name!r} is kept; ask with the header X-Honesty-Trace: keep"
        raise InvalidRequest(message, status=404, code="trace_not_found")
    return Response(found, media_type="application/json", headers={"Cache-Control": "no-store"})


def _step(step: Step, heard: str) -> Mapping[str, Any]:
    response = step.response
    text = response.text if response else heard or None
    ended = response.finish_reason if response else None
    sent = {"model": step.request.model, "messages": step.request.messages}
    return {**step.summary(), **sent, "text": text, "finish_reason": ended}
