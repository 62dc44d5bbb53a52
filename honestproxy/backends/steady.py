"""One upstream made steady: asked again where that helps, left alone while it is down."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from honestproxy.backends.breaker import Breaker
from honestproxy.backends.wrapping import Wrapping
from honestproxy.errors import (
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from honestproxy.streams import Reads, one_by_one, reads_of
from honestproxy.types import Backend, ChatRequest, ChatResponse, Chunk

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from honestproxy.backends.connection import Exchange
    from honestproxy.backends.http1 import Body
    from honestproxy.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")

_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 2.0
"""Seconds between two tries, where the upstream doesn't say how many."""
_REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class Steady(Wrapping):
    """Wraps a remote backend, and has what that has: the same answers, after a retry perhaps.

    Asked again is what met no connection, 502 or 503 (and 429, where that is set), before
    anything has come of its answer, and while the deadline leaves the time. An upload and a
    request that leaves something behind at the upstream are sent once. `asked_again` counts the
    retries since it was opened.
    """

    def __init__(self, inner: Backend, settings: Settings, name: str) -> None:
        super().__init__(inner, "reads", "relay")
        self.breaker = Breaker(name, settings.breaker_failures, settings.breaker_seconds)
        self.asked_again = 0
        self._retries = settings.retries
        self._retried = frozenset({502, 503} | ({429} if settings.retry_429 else set()))
        self._seconds = settings.step_timeout

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The upstream's answer, as it is."""
        asked = request.deadline, self._inner.complete, request
        try:
            return await self._asked(*asked)
        except UpstreamError as error:
            _check_repeatable(request, error)
            return await self._again(error, request.deadline, self._asked, *asked)

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The same as it is made."""
        return one_by_one(self._reads(request))

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """What the upstream lists."""
        deadline = self._deadline()

        async def listed() -> list[dict[str, Any]]:
            return await self._asked(deadline, self._timed, deadline, self._inner.models, headers)

        try:
            return await listed()
        except UpstreamError as error:
            return await self._again(error, deadline, listed)

    async def _reads(self, request: ChatRequest) -> Reads:
        """The stream, as many chunks at once as came at once."""
        try:
            begun, first, reads = await self._begun(request)
        except UpstreamError as error:
            _check_repeatable(request, error)
            again = await self._again(error, request.deadline, self._begun, request)
            begun, first, reads = again
        is_alive, breaker = False, self.breaker
        try:
            yield first
            async for chunks in reads:
                if not is_alive:
                    is_alive = True
                    breaker.succeeded()
                yield chunks
            breaker.succeeded()
        except BaseException as error:
            breaker.judge(error, None if is_alive else request.deadline, begun)
            raise
        finally:
            await reads.aclose()

    async def _begun(self, request: ChatRequest) -> tuple[int, list[Chunk], Reads]:
        """A stream that has been accepted: the first that came of it, and the rest."""
        begun = self.breaker.begin()
        reads = reads_of(self._inner, request)
        try:
            return begun, await anext(reads, []), reads
        except BaseException as error:
            self.breaker.judge(error, request.deadline, begun)
            raise

    async def _asked(
        self, deadline: float | None, ask: Callable[..., Awaitable[T]], *args: Any
    ) -> T:
        """What comes of asking once."""
        breaker = self.breaker
        begun = breaker.begin()
        try:
            found = await ask(*args)
        except BaseException as error:
            breaker.judge(error, deadline, begun)
            raise
        breaker.succeeded()
        return found

    async def _relay(
        self, method: str, path: str, headers: Mapping[str, str], body: Body
    ) -> Exchange:
        """Any other request; one that may be made twice is, and has a deadline for its head."""
        is_repeatable = method in _REPEATABLE and isinstance(body, bytes | None)
        deadline = self._deadline() if is_repeatable else math.inf

        async def answered() -> Exchange:
            begun = self.breaker.begin()
            try:
                sent = method, path, headers, body
                exchange: Exchange = await self._timed(deadline, self._inner.relay, *sent)
            except BaseException as error:
                self.breaker.judge(error, None, begun)
                raise
            self.breaker.answered(exchange.status, begun)
            if is_repeatable and exchange.status in self._retried:
                raise await self._timed(deadline, _Refused.by, exchange)
            return exchange

        try:
            try:
                return await answered()
            except UpstreamError as error:
                if not is_repeatable:
                    raise
                return await self._again(error, deadline, answered)
        except _Refused as refused:
            return refused.exchange

    def _deadline(self) -> float:
        """For what belongs to no turn."""
        return asyncio.get_running_loop().time() + self._seconds

    async def _timed(self, deadline: float, ask: Callable[..., Awaitable[T]], *args: Any) -> T:
        try:
            async with asyncio.timeout_at(deadline if deadline < math.inf else None):
                return await ask(*args)
        except TimeoutError:
            message = f"the upstream gave no answer in {self._seconds:g} s (setting step_timeout)"
            raise UpstreamTimeout(message) from None

    def _may_pass(self, error: BaseException) -> bool:
        """Whether asking again soon can help, and may be done."""
        if not self.breaker.lets_through:
            return False
        if isinstance(error, UpstreamUnreachable | UpstreamTimeout):
            return True
        if isinstance(error, UpstreamBroken | UpstreamUnavailable):
            return False
        return isinstance(error, UpstreamError) and error.status in self._retried

    async def _again(
        self,
        error: UpstreamError,
        deadline: float | None,
        ask: Callable[..., Awaitable[T]],
        *args: Any,
    ) -> T:
        """What comes of asking again; the last error where nothing does."""
        if not self._retries or not self._may_pass(error):
            raise error
        import tenacity  # takes its time, so that it only comes in where something fails

        failed = [error]

        async def attempt() -> T:
            if failed:
                raise failed.pop()  # the first try is over
            self.asked_again += 1
            return await ask(*args)

        clock = asyncio.get_running_loop().time
        left = math.inf if deadline is None else deadline - clock()
        growing = tenacity.wait_exponential(_FIRST_WAIT, max=_LONGEST_WAIT)
        backing_off = growing + tenacity.wait_random(0, _FIRST_WAIT)

        def wait(state: RetryCallState) -> float:
            told = retry_after(state.outcome.exception()) if state.outcome else None
            return backing_off(state) if told is None else told

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._may_pass),
            wait=wait,
            stop=tenacity.stop_after_attempt(1 + self._retries) | tenacity.stop_before_delay(left),
            sleep=asyncio.sleep,
            reraise=True,
        )
        return await retrying(attempt)


class _Refused(UpstreamError):
    """A relayed answer that is worth another try: read, so that its connection is free."""

    exchange: Exchange

    @classmethod
    async def by(cls, exchange: Exchange) -> _Refused:
        """The answer, read."""
        from honestproxy.backends.connection import Told

        made = cls("relayed", status=exchange.status, headers=exchange.headers)
        try:
            made.exchange = await Told.of(exchange, [])
        except BaseException:
            exchange.close()
            raise
        return made


def _check_repeatable(request: ChatRequest, error: UpstreamError) -> None:
    """Raise the error again where the request leaves something behind each time it is sent."""
    if request.origin is not None and request.origin.is_lasting:
        raise error


def retry_after(error: BaseException | None) -> float | None:
    """The seconds that the upstream asks to be left alone, however it writes them."""
    headers = error.headers if isinstance(error, UpstreamError) else {}
    said = {name.lower(): value for name, value in headers.items()}.get("retry-after")
    if said is None:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(said)
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None
