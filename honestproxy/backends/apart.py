"""An upstream that learns nothing of whose account a client has elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, Final

from honestproxy.backends.wrapping import Wrapping, listed
from honestproxy.streams import Reads
from honestproxy.types import Backend, ChatRequest, ChatResponse, Chunk

if TYPE_CHECKING:
    from honestproxy.backends.connection import Exchange
    from honestproxy.backends.http1 import Body

_ACCOUNT: Final = frozenset({"authorization", "openai-organization", "openai-project"})
"""A client's headers that are for the upstream that its key is of, and for no other."""


def without_account(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers without the client's key, and without whose it is."""
    if not any(name.lower() in _ACCOUNT for name in headers):
        return headers
    return {name: value for name, value in headers.items() if name.lower() not in _ACCOUNT}


class Apart(Wrapping):
    """Wraps a backend, and has what that has; a client's own key stays behind."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner, "reads", "relay", "discard", "read")

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The answer, whole."""
        response: ChatResponse = await self._inner.complete(_apart(request))
        return response

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The answer as it is made."""
        chunks: AsyncGenerator[Chunk, None] = self._inner.stream(_apart(request))
        return chunks

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """What it lists."""
        return await listed(self._inner, without_account(headers or {}))

    def _reads(self, request: ChatRequest) -> Reads:
        reads: Reads = self._inner.reads(_apart(request))
        return reads

    async def _relay(
        self, method: str, path: str, headers: Mapping[str, str], body: Body
    ) -> Exchange:
        exchange: Exchange = await self._inner.relay(method, path, without_account(headers), body)
        return exchange

    async def _discard(self, request: ChatRequest, response: ChatResponse) -> None:
        await self._inner.discard(_apart(request), response)

    async def _read(self, request: ChatRequest) -> Any:
        return await self._inner.read(_apart(request))


def _apart(request: ChatRequest) -> ChatRequest:
    kept = without_account(request.headers)
    return request if kept is request.headers else request.with_headers(kept)
