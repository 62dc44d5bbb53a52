"""Bodies that an upstream has packed, although it was asked not to."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, Final

from multidict import CIMultiDict

from honestproxy.errors import UpstreamBroken

_ENCODING: Final = "Content-Encoding"
UNPACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})
"""What we undo; what is packed otherwise can only be passed on."""
_PIECE: Final = 65536
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_BARE: Final = -zlib.MAX_WBITS
"""What some servers call deflate: its stream without zlib's head."""


def coding(headers: CIMultiDict[str]) -> str:
    """How a body is packed, by its headers; empty where it isn't."""
    if _ENCODING not in headers:
        return ""
    named = ",".join(headers.getall(_ENCODING, ())).lower().split(",")
    return ", ".join(name for one in named if (name := one.strip()) not in ("", "identity"))


def without_coding(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    """The headers of a body that has been unpacked."""
    kept = headers.copy()
    for name in (_ENCODING, "Content-Length"):
        kept.popall(name, None)
    return kept


async def unpacked(parts: AsyncGenerator[bytes, None], packed: str) -> AsyncGenerator[bytes, None]:
    """The body as it was before. Raises UpstreamBroken where it isn't packed so, or breaks off."""
    unpack: Any = None
    async with aclosing(parts) as coming:
        async for part in coming:
            rest = part
            while rest:
                if unpack is None or unpack.eof:  # gzip may be several, one behind another
                    unpack = _unpacker(packed, rest)
                for piece in _pieces(unpack, rest, packed):
                    yield piece
                    await asyncio.sleep(0)  # what is small may be large, and others wait
                rest = unpack.unused_data
    if unpack is not None and not unpack.eof:
        raise UpstreamBroken(f"the upstream broke off in mid-answer: its {packed} has no end")


def _unpacker(packed: str, begun: bytes) -> Any:
    is_bare = packed == "deflate" and begun[0] & 0x0F != zlib.DEFLATED
    return zlib.decompressobj(_BARE if is_bare else _GZIP_OR_ZLIB)


def _pieces(unpack: Any, rest: bytes, packed: str) -> Iterator[bytes]:
    while not unpack.eof:
        try:
            piece = unpack.decompress(rest, _PIECE)
        except zlib.error:
            raise UpstreamBroken(f"the upstream's answer is not {packed}, as it says") from None
        if piece:
            yield piece
        rest = unpack.unconsumed_tail
        if not rest and len(piece) < _PIECE:
            return
