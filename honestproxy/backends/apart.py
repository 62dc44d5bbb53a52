"""An upstream that learns nothing of whose account a client has elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from honestproxy.compatible import closing
from honestproxy.types import Backend, ChatRequest, ChatResponse, Chunk

if TYPE_CHECKING:
    from honestproxy.backends.connection import Body, Exchange

_ACCOUNT: Final = frozenset({"authorization", "openai-organization", "openai-project"})
"""A client's headers that are for the upstream that its key is of, and for no other."""


def without_account(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers without the client's key, and without whose it is."""
    if not any(name.lower() in _ACCOUNT for name in headers):
        return headers
    return {name: value for name, value in headers.items() if name.lower() not in _ACCOUNT}


class Apart:
    """Wraps a backend, and has what that has; a client's own key stays behind."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        for name in ("reads", "relay", "discard", "read"):
            if hasattr(inner, name):
                setattr(self, name, getattr(self, f"_{name}"))

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The answer, whole."""
        return await self._inner.complete(_apart(request))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The answer as it is made."""
        async with closing(self._inner.stream(_apart(request))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """What it lists."""
        return await self._inner.models(without_account(headers or {}))

    async def aclose(self) -> None:
        """Close it."""
        await self._inner.aclose()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __repr__(self) -> str:
        return repr(self._inner)

    async def _reads(self, request: ChatRequest) -> AsyncGenerator[list[Chunk], None]:
        inner: Any = self._inner
        async with aclosing(inner.reads(_apart(request))) as reads:
            async for chunks in reads:
                yield chunks

    async def _relay(
        self, method: str, path: str, headers: Mapping[str, str], body: Body
    ) -> Exchange:
        inner: Any = self._inner
        exchange: Exchange = await inner.relay(method, path, without_account(headers), body)
        return exchange

    async def _discard(self, request: ChatRequest, response: ChatResponse) -> None:
        inner: Any = self._inner
        await inner.discard(_apart(request), response)

    async def _read(self, request: ChatRequest) -> Any:
        inner: Any = self._inner
        return await inner.read(_apart(request))


def _apart(request: ChatRequest) -> ChatRequest:
    kept = without_account(request.headers)
    return request if kept is request.headers else request.with_headers(kept)
