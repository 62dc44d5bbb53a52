"""What a socket and a request's first line say."""

from __future__ import annotations

import asyncio
import select
import socket
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httptools


def is_readable(of: socket.socket) -> bool:
    """Whether a socket has something to read, or to accept, right now."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([of], [], [], 0)[0])
    poll = select.poll()
    poll.register(of.fileno(), select.POLLIN)
    return bool(poll.poll(0))


@lru_cache(maxsize=64)
def parts_of(url: bytes) -> tuple[str, bytes, bytes]:
    """A target's path, as it is meant and as it came, and its query."""
    parsed = httptools.parse_url(url)
    raw_path = parsed.path or b"/"
    return unquote(raw_path.decode("ascii")), raw_path, parsed.query or b""


def address(transport: asyncio.BaseTransport, which: str) -> tuple[str, int] | None:
    """Host and port of one end; None where it has none."""
    found: Any = transport.get_extra_info(which)
    return (str(found[0]), int(found[1])) if isinstance(found, tuple | list) and found else None
