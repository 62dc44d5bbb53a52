"""OpenAI's Responses, to and from what the pipeline understands: pure functions.

A request becomes a chat's (`ResponsesRequest.chat`) and each step of the pipeline a Responses
body again (`native`); an upstream's answer becomes a chat's (`completion`, `EventReader`), and
whatever answered is rendered for the client (`ResponsesWriter`).
"""

from honestproxy.wire.responses.answer import NativeResponse, completion, failure
from honestproxy.wire.responses.events import EventReader, NativeChunk
from honestproxy.wire.responses.native import native
from honestproxy.wire.responses.reply import ResponsesWriter
from honestproxy.wire.responses.request import ResponsesRequest, check, responses_request

__all__ = [
    "EventReader",
    "NativeChunk",
    "NativeResponse",
    "ResponsesRequest",
    "ResponsesWriter",
    "check",
    "completion",
    "failure",
    "native",
    "responses_request",
]
