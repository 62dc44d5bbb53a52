"""One of OpenAI's APIs over ASGI: read, answered by the pipeline, written as that API does."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from starlette.types import Receive, Scope, Send

from honestproxy.errors import InvalidRequest
from honestproxy.pipeline import AnyRun
from honestproxy.server.access.caller import Caller
from honestproxy.server.access.usage import Overheard
from honestproxy.server.account import Account, Api
from honestproxy.server.answering import Answering, Writer, concluded
from honestproxy.server.beginning import begun
from honestproxy.server.incoming import LARGE, headers_of, json_body
from honestproxy.server.traces.recording import Recording, wanted
from honestproxy.types import ChatRequest

if TYPE_CHECKING:
    from honestproxy.server.service import Service

Begin = Callable[[], Awaitable[AnyRun]]


class Endpoint(ABC):
    """An ASGI endpoint that the pipeline of the scope's `service` answers."""

    api: ClassVar[Api]

    @abstractmethod
    def read(self, body: bytes, headers: Mapping[str, str]) -> ChatRequest:
        """The request. Raises InvalidRequest, which names the field."""

    @abstractmethod
    def writer(self, asked: ChatRequest) -> Writer:
        """How the answer to a request is written."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever is wrong with it is told in OpenAI's shape."""
        account = Account(self.api)
        heard = account.heard(send)
        work = self._answer(account, scope, receive, heard)
        await concluded(account, scope["service"], heard, work)

    async def _answer(self, account: Account, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the request, wait for its place, and let the pipeline answer."""
        service, headers = scope["service"], headers_of(scope)
        send = _met(service, account, scope, headers, send)
        account.asked = await self._asked(account.caller, scope, receive, headers)
        _check_length(account.asked, service.settings.max_messages)
        async with service.admission.place(account.caller, scope, receive):
            writer, is_wanted = self.writer(account.asked), wanted(scope, headers)
            if is_wanted or service.keeps_texts:
                writer = account.recording = _recording(service, account, writer, is_wanted)
            begin: Begin = partial(begun, service, account, headers)
            lookup = None
            if service.answers is not None and not is_wanted:
                begin = partial(_given, await begin())
                lookup = service.answers.lookup(account, headers)
            if lookup is not None:
                if await lookup.replayed(send):
                    return
                send = lookup.heard(send)
            answering = Answering(receive, send, service.settings, writer, service.admission)
            try:
                await _answered(service, account, begin, answering)
            finally:
                if lookup is not None:
                    lookup.keep()

    async def _asked(
        self, caller: Caller, scope: Scope, receive: Receive, headers: Mapping[str, str]
    ) -> ChatRequest:
        """What is asked; a long body is read beside the loop, which others wait for."""
        body = await json_body(scope, receive, headers)
        if len(body) > LARGE:
            asked = await asyncio.to_thread(self._understood, caller, body, headers)
        else:
            asked = self._understood(caller, body, headers)
        asked.query = scope["query_string"].decode("latin-1")
        return asked

    def _understood(self, caller: Caller, body: bytes, headers: Mapping[str, str]) -> ChatRequest:
        return self.read(caller.confined(body), headers)


def _met(
    service: Service, account: Account, scope: Scope, headers: Mapping[str, str], send: Send
) -> Send:
    """Who asks, noted on the account, and `send` as it is for them. Raises RateLimited."""
    account.request_id = headers.get("x-request-id") or headers.get("x-client-request-id")
    if service.telemetry is not None:
        account.spans = service.telemetry.begin(account, scope["method"], headers)
    account.caller = caller = scope["caller"]
    account.told = service.access.admitted(caller)
    if caller.id is None:
        return send
    account.overheard = Overheard()
    return account.overheard.hearing(send)


def _check_length(asked: ChatRequest, limit: int) -> None:
    if (many := len(asked.messages)) > limit:
        message = f"{many} messages are over the limit of {limit} (setting max_messages)"
        raise InvalidRequest(message, param="messages")


def _recording(service: Service, account: Account, writer: Writer, is_wanted: bool) -> Recording:
    """A recording, kept in memory where the client wants to look at it."""
    memory = service.traces if is_wanted else None
    size = len(account.asked.raw) if account.asked else 0
    return Recording(writer, service.redaction, size, memory, account.caller.id)


async def _given(run: AnyRun) -> AnyRun:
    return run


async def _answered(service: Service, account: Account, begin: Begin, answering: Answering) -> None:
    """The answer, and on the account how it went."""
    assert account.asked is not None  # noqa: S101 - has been read by now
    explained = partial(service.catalog.explained, request=account.asked, caller=account.caller)
    try:
        await answering.answer(begin, streamed=account.asked.streamed, explained=explained)
    finally:
        account.failed, account.left = answering.failed, answering.left
        if account.recording is not None:
            account.recording.keep()
