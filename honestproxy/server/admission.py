"""How many requests are answered at once, and who waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from honestproxy.server.caller import Caller
from honestproxy.settings import Settings


class Admission:
    """Places for requests: so many at once, the rest in a fair queue or turned away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def place(self, caller: Caller) -> AsyncIterator[None]:
        """A place for one request. Raises Overloaded where there is none in time."""
        yield
