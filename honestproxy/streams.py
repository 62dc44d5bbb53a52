"""Streams of chunks: one at a time, or as many at once as came at once ("reads")."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from honestproxy.types import Answerer, ChatRequest, Chunk

Reads = AsyncGenerator[list[Chunk], None]


@asynccontextmanager
async def closing(chunks: AsyncIterator[Chunk]) -> AsyncIterator[AsyncIterator[Chunk]]:
    """Close a stream at the end, where it can be closed: a user's own may be any iterator."""
    try:
        yield chunks
    finally:
        if close := getattr(chunks, "aclose", None):
            await close()


async def in_reads(chunks: AsyncIterator[Chunk]) -> Reads:
    """Each chunk as one that came alone."""
    async with closing(chunks) as found:
        async for chunk in found:
            yield [chunk]


async def one_by_one(reads: Reads) -> AsyncGenerator[Chunk, None]:
    """Each chunk of what came at once."""
    async with aclosing(reads):
        async for chunks in reads:
            for chunk in chunks:
                yield chunk


def reads_of(backend: Answerer, request: ChatRequest) -> Reads:
    """The backend's stream, as many chunks at once as come at once."""
    reads: Callable[[ChatRequest], Reads] | None = getattr(backend, "reads", None)
    return reads(request) if reads else in_reads(backend.stream(request))
