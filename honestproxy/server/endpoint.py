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
from honestproxy.server import degrading
from honestproxy.server.account import Account, Api
from honestproxy.server.answering import Answering, Writer, concluded
from honestproxy.server.caller import Caller
from honestproxy.server.incoming import LARGE, headers_of, json_body
from honestproxy.server.logs import TRACE
from honestproxy.server.traces import Recording, wanted
from honestproxy.server.usage import Overheard
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
        service: Service = scope["service"]
        headers = headers_of(scope)
        account.request_id = headers.get("x-request-id") or headers.get("x-client-request-id")
        if service.telemetry is not None:
            account.spans = service.telemetry.begin(account, scope["method"], headers)
        account.caller = caller = scope["caller"]
        account.told = service.access.admitted(caller)
        if caller.id is not None:
            account.overheard = Overheard()
            send = account.overheard.hearing(send)
        body = await json_body(scope, receive, headers)
        if len(body) > LARGE:
            asked = await asyncio.to_thread(self._understood, caller, body, headers)
        else:
            asked = self._understood(caller, body, headers)
        _check_length(asked, service.settings.max_messages)
        account.asked = asked
        asked.query = scope["query_string"].decode("latin-1")
        async with service.admission.place(caller, scope, receive):
            writer, recording, is_wanted = self.writer(asked), None, wanted(scope, headers)
            if is_wanted or service.keeps_texts:
                memory = service.traces if is_wanted else None
                recording = Recording(writer, service.redaction, len(body), memory, caller.id)
                writer = account.recording = recording
            begin: Begin = partial(_begun, service, account, headers, recording)
            lookup = None
            if service.answers is not None and not is_wanted:
                begin = partial(_given, run := await begin())
                if not run.honesty.trace.note:  # what is less under load isn't kept for later
                    lookup = service.answers.lookup(account, headers)
            if lookup is not None:
                if await lookup.replayed(send):
                    return
                send = lookup.heard(send)
            answering = Answering(receive, send, service.settings, writer, service.admission)
            try:
                await answering.answer(
                    begin,
                    streamed=asked.streamed,
                    explained=partial(service.catalog.explained, request=asked, caller=caller),
                )
            finally:
                account.failed, account.left = answering.failed, answering.left
                if recording is not None:
                    recording.keep()
                if lookup is not None:
                    lookup.keep()

    def _understood(self, caller: Caller, body: bytes, headers: Mapping[str, str]) -> ChatRequest:
        return self.read(caller.confined(body), headers)


def _check_length(asked: ChatRequest, limit: int) -> None:
    if (many := len(asked.messages)) > limit:
        message = f"{many} messages are over the limit of {limit} (setting max_messages)"
        raise InvalidRequest(message, param="messages")


async def _given(run: AnyRun) -> AnyRun:
    return run


async def _begun(
    service: Service, account: Account, headers: Mapping[str, str], recording: Recording | None
) -> AnyRun:
    """The turn that answers, not sent yet. Raises InvalidRequest or Forbidden."""
    assert account.asked is not None  # noqa: S101 - has been read by now
    resolved = await service.catalog.resolved(account.asked)
    account.caller.check_model(resolved.model)
    request, arm = service.experiment.assigned(resolved, headers)
    run = service.pipeline.run(request)
    account.caller.check_strategy(run.honesty.trace.strategy)
    if service.settings.degrade and service.admission.pressure:
        run, arm = _lessened(service, account.caller, request, run, arm)
    account.asked, account.run = request, run
    run.honesty.trace.arm = arm
    TRACE.set(run.honesty.trace.id)
    if account.spans is not None:
        run.honesty.trace.watch = account.spans.call
    if recording is not None:
        recording.run = run
    return run


def _lessened(
    service: Service, caller: Caller, request: ChatRequest, run: AnyRun, arm: str | None
) -> tuple[AnyRun, str | None]:
    """What answers under load, and its arm: none where it isn't the arm's own strategy."""
    allowed, wanted = service.settings.strategies_allowed, run.honesty.trace.strategy

    def may(name: str) -> bool:
        return (allowed is None or name in allowed) and name in caller.strategies_of([name])

    found = degrading.lesser(wanted, service.admission.pressure, may)
    if found == wanted:
        return run, arm
    less = service.pipeline.run(degrading.by(found, request))
    less.honesty.trace.note = degrading.note(wanted, found)
    return less, None
