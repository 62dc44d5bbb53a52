"""A turn over ASGI: its answer sent whole or as events, and ended when its client leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from starlette.types import Receive, Send

from honestproxy.errors import HonestProxyError
from honestproxy.pipeline import AnyRun
from honestproxy.server.admission import Admission, stopping
from honestproxy.server.watching import Watched
from honestproxy.settings import Settings
from honestproxy.streams import in_reads
from honestproxy.types import ChatResponse, Chunk
from honestproxy.verbatim import Verbatim
from honestproxy.wire import reply

if TYPE_CHECKING:
    from honestproxy.server.account import Account
    from honestproxy.server.service import Service

log = logging.getLogger(__name__)

_EVENT_STREAM: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}

Explain = Callable[[HonestProxyError], Awaitable[HonestProxyError]]


class Writer(Protocol):
    """How one of OpenAI's APIs writes an answer down."""

    def whole(self, response: ChatResponse) -> bytes:
        """The answer as a body."""
        ...

    def events(self, chunk: Chunk) -> bytes:
        """What a chunk means for the stream; may be nothing."""
        ...

    def end(self) -> bytes:
        """What is left to say after the last chunk."""
        ...

    def error(self, error: HonestProxyError) -> bytes:
        """An error after the first byte, such that OpenAI's SDKs raise it."""
        ...


def bug() -> HonestProxyError:
    """What a client is told of a mistake of ours."""
    return HonestProxyError("honestproxy failed on this request; its log says why")


async def refuse(
    send: Send, error: HonestProxyError, told: Mapping[str, str] | None = None
) -> None:
    """An error as OpenAI's API answers it."""
    await send_json(send, error.status, reply.error(error), {**error.headers, **(told or {})})


async def send_json(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """A reply in one piece."""
    length = {"content-type": "application/json", "content-length": str(len(body))}
    await _head(send, status, {**headers, **length})
    await send({"type": "http.response.body", "body": body})


async def concluded(account: Account, service: Service, send: Send, work: Awaitable[None]) -> None:
    """Do a request's work; what is wrong is told in OpenAI's shape, and the end to observers."""
    try:
        await work
    except HonestProxyError as error:  # before anything of an answer was sent
        account.failed = error.at_rest().message
        await refuse(send, error)
    except asyncio.CancelledError:
        if not service.admission.ended:
            raise
        cut = stopping()
        account.failed = cut.message
        with suppress(RuntimeError):  # its answer had begun: the connection is dropped
            await refuse(send, cut)
    except Exception:
        log.exception("a request failed")
        account.failed = "honestproxy failed"
        with suppress(RuntimeError):  # as above
            await refuse(send, bug())
    finally:
        account.close(service.observers)


class Answering:
    """Begins a turn and sends its answer, while watching for its client to leave.

    At the end `failed` says what went wrong, if anything did, and `left` whether the client was
    gone before.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        settings: Settings,
        writer: Writer,
        admission: Admission,
    ) -> None:
        self._receive = receive
        self._send = send
        self._settings = settings
        self._admission = admission
        self._writer = writer
        self._explained: Explain = _as_it_is
        self._sent_at = 0.0
        self.failed: str | None = None
        self.left = False

    async def answer(
        self,
        begin: Callable[[], Awaitable[AnyRun]],
        *,
        streamed: bool,
        explained: Explain | None = None,
    ) -> None:
        """Answer, or stop every call of the turn as soon as the client is gone.

        `explained` may add to an error, before the first byte, what would help its reader.
        """
        self._explained = explained or _as_it_is
        with Watched(self._receive) as watched:
            try:
                await self._answer(begin, streamed=streamed)
            finally:
                self.left = watched.left

    async def _answer(self, begin: Callable[[], Awaitable[AnyRun]], *, streamed: bool) -> None:
        try:
            run = await begin()
        except HonestProxyError as error:
            self.failed = error.at_rest().message
            await refuse(self._send, error)
            return
        try:
            await (self._stream(run) if streamed else self._whole(run))
        except Exception:
            self.failed = "honestproxy failed"
            log.exception("trace %s failed", run.honesty.trace.id)
            with suppress(RuntimeError):  # the answer had begun: its connection is dropped
                await refuse(self._send, bug(), reply.headers(run.honesty))

    async def _whole(self, run: AnyRun) -> None:
        try:
            response = await run.complete()
        except HonestProxyError as error:
            await self._refuse(run, error)
            return
        told = {**response.headers, **reply.headers(run.honesty)}
        await send_json(self._send, 200, self._writer.whole(response), told)

    async def _stream(self, run: AnyRun) -> None:
        reads = run.reads() if isinstance(run, Verbatim) else in_reads(run.stream())
        first: asyncio.Future[list[Chunk] | None] | None = None
        try:
            try:
                first = await self._first(run, reads)
            except HonestProxyError as error:
                await self._refuse(run, error)
                return
            told = {**run.headers, **_EVENT_STREAM, **reply.headers(run.honesty)}
            await _head(self._send, 200, told)
            self._sent_at = asyncio.get_running_loop().time()
            await self._events(run, first, reads)
        finally:
            if first is not None and not first.done():
                await _ended(first)
            await reads.aclose()

    async def _refuse(self, run: AnyRun, error: HonestProxyError) -> None:
        self.failed = error.at_rest().message
        explained = await self._explained(error)
        await refuse(self._send, explained, reply.headers(replace(run.honesty, outcome=None)))

    async def _first(
        self, run: AnyRun, reads: AsyncGenerator[list[Chunk], None]
    ) -> asyncio.Future[list[Chunk] | None]:
        """The first chunks, waited for no longer than until no error status can follow."""
        first = asyncio.ensure_future(anext(reads, None))
        accepted = asyncio.ensure_future(run.accepted())
        wait = self._settings.stream_head_wait
        try:
            await asyncio.wait((first, accepted), timeout=wait, return_when="FIRST_COMPLETED")
            if first.done():
                first.result()
        except BaseException:
            await _ended(first)
            raise
        finally:
            accepted.cancel()
        return first

    async def _events(
        self,
        run: AnyRun,
        first: asyncio.Future[list[Chunk] | None],
        reads: AsyncGenerator[list[Chunk], None],
    ) -> None:
        """The answer's events, pings while there are none, and an end that tells how it went."""
        pinging = None if run.verbatim else asyncio.create_task(self._ping())
        try:
            chunks = await first
            while chunks is not None:
                await self._part(b"".join(map(self._writer.events, chunks)))
                chunks = await anext(reads, None)
            end = self._writer.end()
        except HonestProxyError as error:
            self.failed = error.at_rest().message
            end = self._writer.error(error)
        except Exception:
            self.failed = "honestproxy failed"
            log.exception("trace %s failed", run.honesty.trace.id)
            end = self._writer.error(bug())
        except asyncio.CancelledError:
            if not self._admission.ended:
                raise
            cut = stopping()
            self.failed = cut.message
            end = self._writer.error(cut)
        finally:
            if pinging is not None:
                pinging.cancel()
        await self._part(end, more=False)

    async def _ping(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            idle = clock() - self._sent_at
            if idle >= self._settings.ping_interval:
                await self._part(reply.PING)
            else:
                await asyncio.sleep(self._settings.ping_interval - idle)

    async def _part(self, body: bytes, *, more: bool = True) -> None:
        if body or not more:
            self._sent_at = asyncio.get_running_loop().time()
            await self._send({"type": "http.response.body", "body": body, "more_body": more})


async def _head(send: Send, status: int, headers: Mapping[str, str]) -> None:
    raw = [
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in headers.items()
    ]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _as_it_is(error: HonestProxyError) -> HonestProxyError:
    return error


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
