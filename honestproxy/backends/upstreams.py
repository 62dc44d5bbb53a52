"""All upstreams that settings name, each opened once, whoever asks for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from honestproxy import backends
from honestproxy.backends.apart import Apart
from honestproxy.backends.failover import Failover, Named
from honestproxy.backends.steady import Steady
from honestproxy.errors import SettingsError
from honestproxy.settings import DEFAULT_NAME, Settings, UpstreamSettings, nearest
from honestproxy.types import Backend

_REMOTE: Final = ("http:", "https:", "litellm:")

_MATTER_HERE: Final = ("upstream", "cache", "exemplars")
_MATTER_REMOTE: Final = (
    *("upstream", "upstream_key", "connect_timeout", "step_timeout"),
    *("retries", "retry_429", "breaker_failures", "breaker_seconds"),
)
"""Settings that a backend is opened with."""


class Upstreams:
    """The upstreams of the settings, by name; connections and health are shared by all users.

    `default` stands in for the one that the setting `upstream` names. Remote ones are asked
    again, and left alone, as the settings say; local ones and `default` are as they are. Those
    that were opened `before` by settings that say the same of them are used again.
    """

    def __init__(
        self,
        settings: Settings,
        default: Backend | None = None,
        before: Upstreams | None = None,
    ) -> None:
        self._settings = settings
        self._opened: dict[str, Backend] = dict(self._kept(before)) if before else {}
        if default is not None:
            self._opened[DEFAULT_NAME] = default
        self._chains: dict[str, Backend] = {}
        if DEFAULT_NAME in settings.upstreams:
            raise SettingsError(
                f"upstreams.{DEFAULT_NAME}: that is what the setting `upstream` is called; "
                "choose another name"
            )

    def named(self, name: str | None) -> Backend:
        """The upstream of that name, or the one that the setting `upstream` names; with fallbacks.

        Raises SettingsError where there is none, BackendError where it can't be started.
        """
        name = name or DEFAULT_NAME
        if name not in self._chains:
            chain = [Named(one, self._own(one), self._takes_key(one)) for one in self._chain(name)]
            self._chains[name] = Failover(chain) if len(chain) > 1 else chain[0].backend
        return self._chains[name]

    def health(self) -> Mapping[str, str]:
        """Whether each upstream is asked: "closed" where it is, else "open" or "half-open"."""
        return {name: self._state(name) for name in (DEFAULT_NAME, *self._settings.upstreams)}

    def asked_again(self) -> Mapping[str, int]:
        """How many calls to each upstream were retries, since it was opened."""
        return {n: b.asked_again for n, b in self._opened.items() if isinstance(b, Steady)}

    def stood_in(self) -> Mapping[str, int]:
        """How many answers each upstream gave as another's fallback, under these settings."""
        counts = Counter(dict.fromkeys(self._settings.upstreams, 0))
        for chain in self._chains.values():
            if isinstance(chain, Failover):
                counts.update(chain.stood_in)
        return counts

    async def aclose(self, other: Upstreams | None = None) -> None:
        """Close each upstream that was opened, but for those that `other` goes on with."""
        kept = set(map(id, other._opened.values())) if other else set()
        left = [backend for backend in self._opened.values() if id(backend) not in kept]
        closes = [getattr(backend, "aclose", None) for backend in left]
        await asyncio.gather(*(close() for close in closes if close))

    def _own(self, name: str) -> Backend:
        """The upstream itself, without its fallbacks."""
        if name not in self._opened:
            settings = self._alone(name)
            backend = backends.opened(settings)
            if not self._takes_key(name):
                backend = Apart(backend)
            is_remote = settings.upstream.startswith(_REMOTE)
            self._opened[name] = Steady(backend, settings, name) if is_remote else backend
        return self._opened[name]

    def _kept(self, before: Upstreams) -> Iterator[tuple[str, Backend]]:
        """The upstreams that were opened before, where these settings say the same of them."""
        for name, backend in before._opened.items():
            if name != DEFAULT_NAME and name not in self._settings.upstreams:
                continue
            now, then = self._alone(name), before._alone(name)
            matter = _MATTER_REMOTE if now.upstream.startswith(_REMOTE) else _MATTER_HERE
            alike = all(getattr(now, field) == getattr(then, field) for field in matter)
            if alike and self._takes_key(name) == before._takes_key(name):
                yield name, backend

    def _state(self, name: str) -> str:
        backend = self._opened.get(name)
        return backend.breaker.state if isinstance(backend, Steady) else "closed"

    def _chain(self, name: str) -> list[str]:
        """An upstream and its fallbacks, then theirs, each once."""
        chain = [name]
        for one in chain:  # which grows meanwhile
            chain += dict.fromkeys(n for n in self._fallbacks_of(one) if n not in chain)
        return chain

    def _fallbacks_of(self, name: str) -> tuple[str, ...]:
        if name == DEFAULT_NAME:
            return self._settings.fallbacks
        return self._known(name).fallbacks

    def _takes_key(self, name: str) -> bool:
        return name == DEFAULT_NAME or self._known(name).pass_key

    def _known(self, name: str) -> UpstreamSettings:
        known = self._settings.upstreams
        if name not in known:
            hint = nearest(name, known) if known else f"write a table [upstreams.{name}]"
            raise SettingsError(f"there is no upstream {name!r}; {hint}")
        return known[name]

    def _alone(self, name: str) -> Settings:
        if name != DEFAULT_NAME:
            self._known(name)
        return self._settings.alone(name)
