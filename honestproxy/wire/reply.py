"""Our answers as OpenAI's JSON and server-sent events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from honestproxy.errors import HonestProxyError
from honestproxy.trace import Honesty
from honestproxy.types import Chunk, write

DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"


def event(chunk: Chunk) -> bytes:
    """A chunk as a server-sent event; one that nobody changed goes out as it came."""
    if chunk.event is not None:
        return chunk.event
    if chunk.blank:
        return b""
    return b"data: " + chunk.raw + b"\n\n"


def is_done(event: bytes) -> bool:
    """Whether an upstream's own `[DONE]` has gone out, as it came."""
    return event.rstrip().endswith(b"[DONE]")


def error(error: HonestProxyError) -> bytes:
    """An error as a reply's body."""
    return write(error.body())


def error_event(error: HonestProxyError) -> bytes:
    """An error after the first byte; OpenAI's SDKs raise it as an exception."""
    return b"data: " + write(error.body()) + b"\n\n"


def headers(honesty: Honesty) -> dict[str, str]:
    """What a reply's headers tell: strategy and trace, and the outcome where it is known."""
    told = {"x-honesty-trace-id": honesty.trace.id, "x-honesty-strategy": honesty.trace.strategy}
    return told | ({"x-honesty-outcome": honesty.outcome} if honesty.outcome else {})


def model_list(models: Iterable[dict[str, Any]], strategies: Iterable[str]) -> dict[str, Any]:
    """OpenAI's list of models: each one, followed by its variants `model@strategy`."""
    names = list(strategies)
    rows = [row for model in models for row in (model, *(_variant(model, n) for n in names))]
    return {"object": "list", "data": rows}


def _variant(model: dict[str, Any], strategy: str) -> dict[str, Any]:
    return {**model, "id": f"{model['id']}@{strategy}"}
