"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from honestproxy.server.account import Api
from honestproxy.server.answering import Writer
from honestproxy.server.endpoint import Endpoint
from honestproxy.types import ChatRequest
from honestproxy.wire.reply import ChatWriter
from honestproxy.wire.request import chat_request

PATH: Final = "/v1/chat/completions"


class ChatCompletions(Endpoint):
    """OpenAI's chat completion, made honest."""

    api: ClassVar[Api] = "chat"

    def read(self, body: bytes, headers: Mapping[str, str]) -> ChatRequest:
        """A chat request."""
        return chat_request(body, headers)

    def writer(self, asked: ChatRequest) -> Writer:
        """A completion, or its chunks."""
        return ChatWriter()
