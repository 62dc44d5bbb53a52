"""`POST /v1/responses`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from honestproxy.server.account import Api
from honestproxy.server.answering import Writer
from honestproxy.server.endpoint import Endpoint
from honestproxy.types import ChatRequest
from honestproxy.wire.responses import ResponsesRequest, ResponsesWriter, responses_request

PATH: Final = "/v1/responses"


class Responses(Endpoint):
    """OpenAI's Responses, made honest."""

    api: ClassVar[Api] = "responses"

    def read(self, body: bytes, headers: Mapping[str, str]) -> ChatRequest:
        """The chat request that means the same, with the client's own as its `origin`."""
        return responses_request(body, headers)

    def writer(self, asked: ChatRequest) -> Writer:
        """A Response, or its typed events."""
        assert isinstance(asked.origin, ResponsesRequest)  # noqa: S101 - as `read` made it
        return ResponsesWriter(asked.origin)
