"""The answer cache in a Redis, which may be slow, or gone for a while: no request waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from honestproxy.errors import SettingsError

log = logging.getLogger(__name__)

_PATIENCE: Final = 0.25
"""Seconds that a request waits for the Redis at most."""

_LEFT_ALONE: Final = 5.0
"""Seconds for which it isn't asked again after it has failed."""

_CONNECTIONS: Final = 50
_UNDER_WAY: Final = 200
"""Answers on their way there; further ones are let go, so that a slow Redis holds no memory."""


class RedisStore:
    """Answers in a Redis, shared by all proxies that name it."""

    def __init__(self, url: str, seconds: float) -> None:
        try:
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ImportError:
            message = "answer_cache: a redis:// URL needs: pip install 'honestproxy[redis]'"
            raise SettingsError(message, param="answer_cache") from None
        patience = {"socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE}
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=_PATIENCE,
                retry=Retry(NoBackoff(), 1),  # where it was restarted
                **patience,
            )
            # Unconnected, it tells an option that it doesn't take.
            pool.make_connection()  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - options are taken as they come, and break it anywhere
            message = "answer_cache: not a URL that redis-py understands"
            raise SettingsError(message, param="answer_cache") from None
        self._redis = Redis(connection_pool=pool)
        self._failures = (RedisError, OSError, TimeoutError)
        self._milliseconds = max(1, round(seconds * 1000))
        self._alone_until = 0.0
        self._is_down = False
        self._under_way: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Nothing to begin: the first request connects."""

    async def aclose(self) -> None:
        """Wait for what is on its way, no longer than a request would, and hang up."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=2 * _PATIENCE)
        for task in self._under_way:
            task.cancel()
        await self._redis.connection_pool.disconnect()

    async def get(self, key: str) -> bytes | None:
        """What is kept under a key."""
        value = await self._tried(lambda: self._redis.get(key))
        return value if isinstance(value, bytes) else None

    def put(self, key: str, value: bytes) -> None:
        """Keep it soon, for as long as the settings say."""
        if len(self._under_way) >= _UNDER_WAY or self._is_left_alone():
            return
        putting = self._tried(lambda: self._redis.set(key, value, px=self._milliseconds))
        task = asyncio.get_running_loop().create_task(putting)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _tried(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """What it says; None, and a while without it, where it fails or is slow."""
        if self._is_left_alone():
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                said = await ask()
        except self._failures as error:
            self._fail(error)
            return None
        if self._is_down:
            self._is_down = False
            log.warning("the answer cache's Redis answers again")
        return said

    def _is_left_alone(self) -> bool:
        return time.monotonic() < self._alone_until

    def _fail(self, error: BaseException) -> None:
        self._alone_until = time.monotonic() + _LEFT_ALONE
        if not self._is_down:
            self._is_down = True
            # The class alone: a message may repeat the URL, and that a password.
            kind = type(error).__name__
            log.warning("the answer cache's Redis fails (%s): answering without it", kind)
