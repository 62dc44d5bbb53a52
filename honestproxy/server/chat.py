"""`POST /v1/chat/completions`: read, answered by the pipeline, written as OpenAI's API does."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from honestproxy.errors import HonestProxyError
from honestproxy.pipeline import AnyRun, Pipeline
from honestproxy.server.answering import Answering, headers_of, json_body, refuse
from honestproxy.server.catalog import Catalog
from honestproxy.settings import Settings
from honestproxy.wire.reply import ChatWriter
from honestproxy.wire.request import chat_request

PATH: Final = "/v1/chat/completions"
OPERATION: Final[dict[str, Any]] = {"summary": "OpenAI's chat completion, made honest"}


class ChatCompletions:
    """An ASGI endpoint: OpenAI's chat completion, made honest."""

    def __init__(self, pipeline: Pipeline, catalog: Catalog, settings: Settings) -> None:
        self._pipeline = pipeline
        self._catalog = catalog
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever is wrong with it is told in OpenAI's shape."""
        headers = headers_of(scope)
        try:
            body = await json_body(receive, headers, self._settings.max_body_bytes)
            asked = chat_request(body, headers)
        except HonestProxyError as error:
            await refuse(send, error)
            return

        async def begin() -> AnyRun:
            return self._pipeline.run(await self._catalog.resolved(asked))

        answering = Answering(receive, send, self._settings, ChatWriter())
        explained = partial(self._catalog.explained, request=asked)
        await answering.answer(begin, streamed=asked.streamed, explained=explained)
