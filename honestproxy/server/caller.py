"""Who asks: a key of this proxy's own, or anyone where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may. None means: no limit of that kind.

    `id` names the key in logs, metrics and traces, and is no secret. `models` are patterns.
    """

    id: str | None = None
    models: tuple[str, ...] | None = None
    strategies: tuple[str, ...] | None = None
    admin: bool = False


ANYONE: Final = Caller(admin=True)
"""Everyone, where the proxy has no keys of its own."""


class Access(Protocol):
    """The door: tells who asks."""

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Whose request this is, by its headers. Raises Unauthorized or RateLimited."""
        ...


class Open:
    """A door that is open to everyone; the client's own key goes upstream where we have none."""

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Anyone."""
        return ANYONE
