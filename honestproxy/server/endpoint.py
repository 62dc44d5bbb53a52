"""One of OpenAI's APIs over ASGI: read, answered by the pipeline, written as that API does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from starlette.types import Receive, Scope, Send

from honestproxy.errors import HonestProxyError
from honestproxy.pipeline import AnyRun
from honestproxy.server.account import Account, Api
from honestproxy.server.answering import Answering, Writer, headers_of, json_body, refuse
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
        heard, service = account.heard(send), scope["service"]
        try:
            await self._answer(account, scope, receive, heard)
        except HonestProxyError as error:  # before anything of the pipeline's had begun
            account.failed = error.at_rest().message
            await refuse(heard, error)
        finally:
            account.close(service.observers)

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
        body = await json_body(receive, headers, service.settings.max_body_bytes)
        body = caller.confined(body)
        account.asked = asked = self.read(body, headers)
        asked.query = scope["query_string"].decode("latin-1")
        async with service.admission.place(account.caller):
            recording = None
            writer = self.writer(asked)
            if wanted(scope, headers):
                writer = recording = Recording(writer, service.traces)
            begin: Begin = partial(_begun, service, account, headers, recording)
            lookup = None
            if service.answers is not None and recording is None:
                begin = partial(_given, await begin())
                lookup = service.answers.lookup(account, headers)
            if lookup is not None:
                if await lookup.replayed(send):
                    return
                send = lookup.heard(send)
            answering = Answering(receive, send, service.settings, writer)
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
    account.asked = request
    run = service.pipeline.run(request)
    account.caller.check_strategy(run.honesty.trace.strategy)
    account.run = run
    run.honesty.trace.arm = arm
    TRACE.set(run.honesty.trace.id)
    if account.spans is not None:
        run.honesty.trace.watch = account.spans.call
    if recording is not None:
        recording.run = run
    return run
