"""Our answers as OpenAI's JSON and server-sent events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from honestproxy.errors import HonestProxyError
from honestproxy.trace import Honesty
from honestproxy.types import ChatResponse, Chunk, write

DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"


class ChatWriter:
    """Writes one chat completion: a body, or server-sent events with `[DONE]` behind them."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = b""

    def whole(self, response: ChatResponse) -> bytes:
        """The answer as a body: the bytes as they came, where nobody changed it."""
        return response.raw

    def events(self, chunk: Chunk) -> bytes:
        """A chunk as an event; one that nobody changed goes out as it came."""
        if chunk.event is not None:
            self._last = chunk.event
        elif chunk.blank:
            return b""
        else:
            self._last = b"data: " + chunk.raw + b"\n\n"
        return self._last

    def end(self) -> bytes:
        """`[DONE]`, unless the upstream's own has gone out as it came."""
        return b"" if self._last.rstrip().endswith(b"[DONE]") else DONE

    def error(self, error: HonestProxyError) -> bytes:
        """An error after the first byte; OpenAI's SDKs raise it as an exception."""
        return b"data: " + write(error.body()) + b"\n\n"


def error(error: HonestProxyError) -> bytes:
    """An error as a reply's body."""
    return write(error.body())


def headers(honesty: Honesty) -> dict[str, str]:
    """What a reply's headers tell: strategy and trace, and the outcome where it is known."""
    told = {"x-honesty-trace-id": honesty.trace.id, "x-honesty-strategy": honesty.trace.strategy}
    told |= {"x-honesty-outcome": honesty.outcome} if honesty.outcome else {}
    told |= {"x-honesty-reason": honesty.trace.note} if honesty.trace.note else {}
    return told | ({"x-honesty-arm": honesty.trace.arm} if honesty.trace.arm else {})


def model_list(models: Iterable[dict[str, Any]], strategies: Iterable[str]) -> dict[str, Any]:
    """OpenAI's list of models: each one, followed by its variants `model@strategy`."""
    names = list(strategies)
    rows = [row for model in models for row in (model, *(_variant(model, n) for n in names))]
    return {"object": "list", "data": rows}


def _variant(model: dict[str, Any], strategy: str) -> dict[str, Any]:
    return {**model, "id": f"{model['id']}@{strategy}"}
