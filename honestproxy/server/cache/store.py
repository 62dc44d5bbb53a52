"""Where the answer cache keeps what it keeps: in this process, or in a Redis."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final, Protocol

from honestproxy.errors import SettingsError

ROOM: Final = 64_000_000
"""Bytes that answers in memory may take."""


class Store(Protocol):
    """Where answers are kept. Never raises: what can't be reached has nothing and keeps nothing."""

    async def start(self) -> None:
        """Begin."""
        ...

    async def aclose(self) -> None:
        """End, with what was put there kept if that is quick."""
        ...

    async def get(self, key: str) -> bytes | None:
        """What is kept under a key."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Keep it from now on, or soon."""
        ...


class Memory:
    """Answers in this process: what was used longest ago makes room, and time runs out."""

    def __init__(self, seconds: float, room: int = ROOM) -> None:
        self._seconds = seconds
        self._room = room
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._size = 0

    async def start(self) -> None:
        """Nothing to begin."""

    async def aclose(self) -> None:
        """Nothing to end."""

    async def get(self, key: str) -> bytes | None:
        """What is kept under a key, until its time is over."""
        until, value = self._kept.get(key, (0.0, b""))
        if time.monotonic() >= until:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keep it; the least recently used make room."""
        self._drop(key)
        self._kept[key] = (time.monotonic() + self._seconds, value)
        self._size += len(key) + len(value)
        while self._size > self._room:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        _, value = self._kept.pop(key, (0.0, None))
        if value is not None:
            self._size -= len(key) + len(value)


def opened(place: str, seconds: float) -> Store:
    """The store that the setting `answer_cache` names. Raises SettingsError where it is none."""
    if place == "memory":
        return Memory(seconds)
    if place.partition("://")[0] not in ("redis", "rediss", "unix"):
        what = "answer_cache: give memory, or a redis:// URL"  # its own may be secret
        raise SettingsError(what, param="answer_cache")
    from honestproxy.server.cache.redis import RedisStore

    return RedisStore(place, seconds)
