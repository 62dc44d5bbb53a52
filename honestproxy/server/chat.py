"""`POST /v1/chat/completions`: one turn, whole or streamed, ended when its client leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from honestproxy.errors import HonestProxyError, InvalidRequest, TooLarge
from honestproxy.pipeline import Run
from honestproxy.settings import Settings
from honestproxy.types import Chunk
from honestproxy.wire import reply
from honestproxy.wire.request import chat_request

router = APIRouter()
log = logging.getLogger(__name__)

_EVENT_STREAM: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completion, made honest; the answer carries an object `honesty`."""
    state = request.app.state
    body = await _body(request, state.settings.max_body_bytes)
    asked = chat_request(body, request.headers)

    async def begin() -> Run:
        run: Run = state.pipeline.run(await state.catalog.resolved(asked))
        return run

    return TurnResponse(begin, state.settings, streamed=asked.streamed)


async def _body(request: Request, limit: int) -> bytes:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind.lower() != "application/json":
        raise InvalidRequest(f"send application/json, not {kind}", status=415)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLarge(f"the request body is over the limit of {limit} bytes")
        parts.append(part)
    return b"".join(parts)


class TurnResponse(Response):
    """Begins a turn and sends its answer, while watching for its client to leave."""

    _run: Run

    def __init__(
        self, begin: Callable[[], Awaitable[Run]], settings: Settings, *, streamed: bool
    ) -> None:
        self._begin = begin
        self._settings = settings
        self._streamed = streamed
        self._told = False
        self._sent_at = 0.0
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or stop every call of the turn as soon as the client is gone."""
        answering = asyncio.create_task(self._answer(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            await _ended(answering, leaving)

    async def _answer(self, send: Send) -> None:
        try:
            self._run = await self._begin()
        except HonestProxyError as error:
            await self._json(send, error.status, reply.error(error), error.headers)
            return
        self._told = True
        await (self._stream(send) if self._streamed else self._whole(send))

    async def _whole(self, send: Send) -> None:
        try:
            response = await self._run.complete()
        except HonestProxyError as error:
            await self._refuse(send, error)
            return
        await self._json(send, 200, response.raw, response.headers)

    async def _stream(self, send: Send) -> None:
        chunks = self._run.stream()
        try:
            first = asyncio.ensure_future(anext(chunks, None))
            try:
                await self._until_accepted(first)
                if first.done():
                    first.result()
            except HonestProxyError as error:
                await self._refuse(send, error)
                return
            await self._head(send, 200, _EVENT_STREAM)
            await self._events(send, first, chunks)
        finally:
            await _ended(first)
            await chunks.aclose()

    async def _until_accepted(self, first: asyncio.Future[Chunk | None]) -> None:
        accepted = asyncio.create_task(self._run.accepted())
        wait = self._settings.stream_head_wait
        either: list[asyncio.Future[Any]] = [first, accepted]
        try:
            await asyncio.wait(either, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _ended(accepted)

    async def _events(
        self,
        send: Send,
        first: asyncio.Future[Chunk | None],
        chunks: AsyncGenerator[Chunk, None],
    ) -> None:
        """The answer's events, pings while there are none, and an end that tells how it went."""
        pinging = None if self._run.verbatim else asyncio.create_task(self._ping(send))
        try:
            chunk, event = await first, b""
            while chunk is not None:
                event = reply.event(chunk)
                await self._part(send, event)
                chunk = await anext(chunks, None)
            end = b"" if reply.is_done(event) else reply.DONE
        except HonestProxyError as error:
            end = reply.error_event(error)
        except Exception:
            log.exception("trace %s failed", self._run.honesty.trace.id)
            end = reply.error_event(HonestProxyError("honestproxy failed; its log says why"))
        finally:
            if pinging is not None:
                pinging.cancel()
        await self._part(send, end, more=False)

    async def _ping(self, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            idle = clock() - self._sent_at
            if idle >= self._settings.ping_interval:
                await self._part(send, reply.PING)
            else:
                await asyncio.sleep(self._settings.ping_interval - idle)

    async def _part(self, send: Send, body: bytes, *, more: bool = True) -> None:
        if not body and more:
            return
        self._sent_at = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _refuse(self, send: Send, error: HonestProxyError) -> None:
        await self._json(send, error.status, reply.error(error), error.headers)

    async def _json(self, send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        length = {"content-type": "application/json", "content-length": str(len(body))}
        await self._head(send, status, {**headers, **length})
        await send({"type": "http.response.body", "body": body})

    async def _head(self, send: Send, status: int, headers: dict[str, str]) -> None:
        told = {**headers, **(reply.headers(self._run.honesty) if self._told else {})}
        raw = [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in told.items()
        ]
        await send({"type": "http.response.start", "status": status, "headers": raw})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
