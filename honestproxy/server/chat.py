"""`POST /v1/chat/completions`: one turn, whole or streamed, ended when its client leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
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
    wanted = await state.catalog.resolved(chat_request(body, request.headers))
    run: Run = state.pipeline.run(wanted)
    return TurnResponse(run, state.settings, streamed=wanted.streamed)


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
    """Sends a turn's answer while watching for its client to leave."""

    def __init__(self, run: Run, settings: Settings, *, streamed: bool) -> None:
        self._run = run
        self._settings = settings
        self._streamed = streamed
        self._sent_at = 0.0
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or stop every call of the turn as soon as the client is gone."""
        answering = asyncio.create_task(self._stream(send) if self._streamed else self._whole(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            await _ended(answering, leaving)

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
        await asyncio.wait(either, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        accepted.cancel()

    async def _events(
        self,
        send: Send,
        first: asyncio.Future[Chunk | None],
        chunks: AsyncGenerator[Chunk, None],
    ) -> None:
        """The answer's events, pings while there are none, and an end that tells how it went."""
        pinging = None if self._run.verbatim else asyncio.create_task(self._ping(send))
        try:
            chunk = await first
            while chunk is not None:
                await self._part(send, reply.event(chunk))
                chunk = await anext(chunks, None)
            end = reply.DONE
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
        told = {**headers, **reply.headers(self._run.honesty)}
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
