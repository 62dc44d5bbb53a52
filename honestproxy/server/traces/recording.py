"""Traces to be read again: the last ones in memory, others from the store.

A request that carries `X-Honesty-Trace: keep` has what each step sent and got back kept in memory;
a store has texts only where the setting `traces` says so. Texts are private: with keys of the
proxy's own, only the key that made a trace reads it, and without any, only this machine's own
clients do.
`GET|DELETE /v1/honesty/traces/{id}`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastapi import APIRouter, Request, Response
from starlette.types import Scope

from honestproxy.errors import Forbidden, HonestProxyError, InvalidRequest
from honestproxy.pipeline import AnyRun
from honestproxy.server.access.caller import ANYONE, may_keep, may_read
from honestproxy.server.access.guard import is_from_here
from honestproxy.server.answering import Writer
from honestproxy.server.traces.redaction import Redaction
from honestproxy.trace import Honesty, Step
from honestproxy.types import ChatResponse, Chunk, write

if TYPE_CHECKING:
    from honestproxy.server.traces.store import TraceStore

HEADER: Final = "x-honesty-trace"
_PATH: Final = "/v1/honesty/traces"

router = APIRouter(include_in_schema=False)


class Kept(NamedTuple):
    """A trace as JSON, and the id of the key that it was made with."""

    trace: bytes
    key: str | None = None


class LastTraces:
    """The last traces, in memory: no more than `most`, and no more than `room` bytes of them."""

    def __init__(self, most: int = 200, room: int = 32_000_000) -> None:
        self._most = most
        self._room = room
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._size = 0

    def keep(self, name: str, kept: Kept) -> None:
        """Keep a trace; the oldest ones make room for it, and one that is too large isn't kept."""
        self.discard(name)
        if len(kept.trace) > self._room:
            return
        self._kept[name] = kept
        self._size += len(kept.trace)
        while len(self._kept) > self._most or self._size > self._room:
            self.discard(next(iter(self._kept)))

    def find(self, name: str) -> Kept | None:
        """The trace of that id, while it is kept."""
        return self._kept.get(name)

    def discard(self, name: str) -> bool:
        """Forget a trace; whether there was one."""
        gone = self._kept.pop(name, None)
        self._size -= len(gone.trace) if gone else 0
        return gone is not None


class Recording:
    """A writer that listens to what it writes, so that the trace can be told with its texts.

    `size` is that of the request's body. With `traces`, it is kept there as the answer ends.
    """

    def __init__(
        self,
        writer: Writer,
        redaction: Redaction,
        size: int = 0,
        traces: LastTraces | None = None,
        key: str | None = None,
    ) -> None:
        self.run: AnyRun | None = None
        self.size = size
        self._writer = writer
        self._redaction = redaction
        self._traces = traces
        self._key = key
        self._chunks: list[Chunk] = []

    @property
    def heard(self) -> str:
        """The text of an answer that was passed on unread."""
        return "".join(chunk.text for chunk in self._chunks)

    def whole(self, response: ChatResponse) -> bytes:
        """The answer as a body."""
        self.keep()
        return self._writer.whole(response)

    def events(self, chunk: Chunk) -> bytes:
        """What a chunk means for the stream."""
        if self.run is not None and self.run.verbatim:  # other runs know their own texts
            self._chunks.append(chunk)
            self.size += len(chunk.event or b"")
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
        """Keep the trace as it is now, where it is kept in memory."""
        if self._traces is not None and self.run is not None:
            honesty = self.run.honesty
            trace = told(honesty, self.heard, self._redaction)
            self._traces.keep(honesty.trace.id, Kept(trace, self._key))


def told(honesty: Honesty, heard: str, redaction: Redaction) -> bytes:
    """A trace as JSON: the `honesty` object, its steps with what was sent and what came back.

    `heard` is the text of an answer that was passed on unread.
    """
    steps = [_step(step, heard) for step in honesty.trace.steps]
    head = {"object": "honesty.trace", "created": honesty.trace.created}
    return write(redaction.value({**head, **honesty.body(), "steps": steps}))


def wanted(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether this request's texts are to be kept, as its client wishes and may wish."""
    return headers.get(HEADER) == "keep" and may_keep(scope, scope["caller"])


@router.get(_PATH)
async def status(request: Request) -> dict[str, Any]:
    """What became of the traces since the start: written, shed, and still under way."""
    if request.scope["caller"] is ANYONE and not is_from_here(request.scope):
        raise Forbidden("traces are for clients on the proxy's own machine")
    store: TraceStore | None = request.scope["service"].store
    counts = {name: getattr(store, name, 0) for name in ("written", "shed", "pending")}
    return {"object": "honesty.traces", "stored": store is not None, **counts}


@router.get(_PATH + "/{name}")
async def trace(request: Request, name: str) -> Response:
    """What each step of one request sent and got back; without texts, what else is known."""
    kept = await _found(request, name)
    return Response(
        kept.trace, media_type="application/json", headers={"Cache-Control": "no-store"}
    )


@router.delete(_PATH + "/{name}")
async def forget(request: Request, name: str) -> Response:
    """Delete a trace, wherever it is kept."""
    await _found(request, name)
    service = request.scope["service"]
    service.traces.discard(name)
    if service.store is not None:
        await service.store.discard(name)
    return Response(status_code=204)


async def _found(request: Request, name: str) -> Kept:
    """The trace, for who may read it. Raises Forbidden or InvalidRequest."""
    scope, service = request.scope, request.scope["service"]
    caller = scope["caller"]
    if caller is ANYONE and not is_from_here(scope):
        raise Forbidden("texts of traces are for clients on the proxy's own machine")
    kept: Kept | None = service.traces.find(name)
    if kept is None and service.store is not None:
        kept = await service.store.find(name)
    if kept is None or not may_read(scope, caller, kept.key):
        hint = "" if service.store else "; ask with the header X-Honesty-Trace: keep"
        message = f"no trace {name!r} is kept" + hint
        raise InvalidRequest(message, status=404, code="trace_not_found")
    return kept


def _step(step: Step, heard: str) -> Mapping[str, Any]:
    response = step.response
    text = response.text if response else heard or None
    ended = response.finish_reason if response else None
    sent = {"model": step.request.model, "messages": step.request.messages}
    return {**step.summary(), **sent, "text": text, "finish_reason": ended}
