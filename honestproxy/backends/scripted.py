"""A backend whose replies you write: for tests, demonstrations and trying things out."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from honestproxy.errors import BackendError, HonestProxyError
from honestproxy.types import ChatRequest, ChatResponse, Chunk

Reply = str | dict[str, Any] | ChatResponse | Sequence[str] | HonestProxyError
"""A text; a body; a response; a list of texts, streamed one by one; an error, raised."""


class Scripted:
    """Answers from a list, in order, or by a function of the request (which may be async).

    Keeps what it was asked in `requests`. A function suits calls that run at the same time.

    >>> Scripted(["Paris."])
    Scripted(1 reply left)
    """

    def __init__(
        self,
        replies: Iterable[Reply] | Callable[[ChatRequest], Reply | Awaitable[Reply]],
        *,
        model: str = "scripted",
        delay: float = 0.0,
    ) -> None:
        self._choose = replies if callable(replies) else None
        self._replies = [] if callable(replies) else list(replies)
        self._model = model
        self._delay = delay
        self.requests: list[ChatRequest] = []

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The next reply, whole, after `delay` seconds."""
        return self._response(await self._next(request))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The next reply; a list comes as so many chunks, `delay` seconds apart."""
        reply = await self._next(request)
        chunks = list(self._response(reply).chunks())
        if isinstance(reply, list | tuple):
            chunks[:1] = [chunks[0].replace(choices=[_piece(text)]) for text in ("", *reply)]
        for number, chunk in enumerate(chunks):
            if number and isinstance(reply, list | tuple):
                await asyncio.sleep(self._delay)
            yield chunk

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """The one model it plays."""
        return [{"id": self._model, "object": "model", "created": 0, "owned_by": "scripted"}]

    async def aclose(self) -> None:
        """Nothing to let go of."""

    async def _next(self, request: ChatRequest) -> Reply:
        self.requests.append(request)
        if self._choose is None and not self._replies:
            asked = len(self.requests)
            raise BackendError(f"call {asked} came, but the script has {asked - 1} replies")
        reply = self._choose(request) if self._choose else self._replies.pop(0)
        if inspect.isawaitable(reply):
            reply = await reply
        await asyncio.sleep(self._delay)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _response(self, reply: Reply) -> ChatResponse:
        if isinstance(reply, ChatResponse):
            return reply
        if isinstance(reply, dict):
            return ChatResponse(reply)
        text = "".join(cast("str | Sequence[str]", reply))
        words = len(text.split())
        usage = {"prompt_tokens": 0, "completion_tokens": words, "total_tokens": words}
        return ChatResponse.of(text, model=self._model, usage=usage)

    def __repr__(self) -> str:
        if self._choose:
            return "Scripted(by function)"
        left = len(self._replies)
        return f"Scripted({left} {'reply' if left == 1 else 'replies'} left)"


def _piece(text: str) -> dict[str, Any]:
    delta = {"content": text} if text else {"role": "assistant", "content": ""}
    return {"index": 0, "delta": delta, "finish_reason": None}
