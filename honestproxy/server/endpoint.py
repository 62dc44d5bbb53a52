"""One of OpenAI's APIs over ASGI: read, answered by the pipeline, written as that API does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial

from starlette.types import Receive, Scope, Send

from honestproxy.errors import HonestProxyError
from honestproxy.pipeline import AnyRun, Pipeline
from honestproxy.server.answering import Answering, Writer, headers_of, json_body, refuse
from honestproxy.server.catalog import Catalog
from honestproxy.server.traces import Recording, wanted
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest


class Endpoint(ABC):
    """An ASGI endpoint that the pipeline answers."""

    def __init__(self, pipeline: Pipeline, catalog: Catalog, settings: Settings) -> None:
        self._pipeline = pipeline
        self._catalog = catalog
        self._settings = settings

    @abstractmethod
    def read(self, body: bytes, headers: Mapping[str, str]) -> ChatRequest:
        """The request. Raises InvalidRequest, which names the field."""

    @abstractmethod
    def writer(self, asked: ChatRequest) -> Writer:
        """How the answer to a request is written."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever is wrong with it is told in OpenAI's shape."""
        headers = headers_of(scope)
        try:
            body = await json_body(receive, headers, self._settings.max_body_bytes)
            asked = self.read(body, headers)
            asked.query = scope["query_string"].decode("latin-1")
        except HonestProxyError as error:
            await refuse(send, error)
            return

        writer = self.writer(asked)
        keeps = wanted(scope, headers)
        recording = Recording(writer, scope["app"].state.traces) if keeps else None

        experiment, begun = scope["app"].state.experiment, []

        async def begin() -> AnyRun:
            request, arm = experiment.assigned(await self._catalog.resolved(asked), headers)
            run = self._pipeline.run(request)
            run.honesty.trace.arm = arm
            begun.append(run)
            if recording is not None:
                recording.run = run
            return run

        answering = Answering(receive, send, self._settings, recording or writer)
        explained = partial(self._catalog.explained, request=asked)
        try:
            await answering.answer(begin, streamed=asked.streamed, explained=explained)
        finally:
            for run in begun:
                experiment.note(run, answering.failed)
            if recording is not None:
                recording.keep()
